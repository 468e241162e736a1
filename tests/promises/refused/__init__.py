"""Tables of input that fastadam refuses, one for each way in. `case` defines a row, and `worlds` has the optimizers."""
