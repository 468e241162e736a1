"""What real ranks play, by what is promised; `stage` has what scenes are made with. ../ranks.py plays them."""
