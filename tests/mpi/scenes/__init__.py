"""The scenes for real ranks, ordered by promise. `stage` has the shared helpers. ../ranks.py runs the scenes."""
