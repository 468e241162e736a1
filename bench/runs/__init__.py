"""Whole training runs, a module for each library: `CASES` has them by name. A run is given the way, and a clock that it
puts around the optimizer's part; it returns its seconds and the last loss.
"""
