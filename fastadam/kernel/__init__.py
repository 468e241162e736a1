"""Generic machinery that knows no algorithm: plans, checks, and the rules made runnable.
Imports nothing of fastadam but `rule` and `rules`.
"""
