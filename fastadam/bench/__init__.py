"""Measures one step beside peers: what ``python -m fastadam bench`` runs, and the benchmarks of the repository too.
Needs NumPy alone; a peer takes part where it is installed.
"""
