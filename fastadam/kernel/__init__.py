"""The machinery that knows no algorithm: plans, checks, and the kernels that run the rules.
It imports only `rule` and `rules` from the rest of fastadam.
"""
