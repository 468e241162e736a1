"""The machine's limit for one Adam step: the same four arrays read and three written, with almost no arithmetic.
It is a rule like any other, compiled by Numba, so it runs through the same plan, tiles and threads.
"""

import sys
from pathlib import Path

from contestants import Arrays, Step

from fastadam.kernel import backends, threads
from fastadam.rule import Rule

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from inside import Plan, state_like

#: bytes that one Adam step must move for each element: p, g, m, v read; p, m, v written
STREAMS = 7


def stream(p, g, m, v):
    return p + g, m + g, v + g


def stream_scalars(t):
    return ()


def roofline(params: Arrays, grads: Arrays, n_threads: int | None = None) -> Step:
    """A function that moves the bytes of one Adam step of these arrays."""
    rule = Rule(stream, stream_scalars, ("m", "v"))
    states = [[state_like(p), state_like(p)] for p in params]
    names = ["p"] * len(params)
    plan = Plan(threads.resolve("n_threads", n_threads))
    plan.lay([(backends.kernel(rule, "numba"), list(params), states)], names)
    plan.set_hyper(0, [1.0, 0.0, 0.0, 0.0])
    return lambda: plan.step(grads)
