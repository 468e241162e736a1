"""The machine's limit for a step of any rule: a rule that reads and writes as many bytes, with almost no arithmetic.
This rule is stepped like any other, through the same plan, tiles and threads.
"""

import numpy as np

from ..kernel import threads
from ..kernel._segments import state_like
from ..kernel._stepper import Stepper
from ..rules import STREAMS
from .measure import Arrays, Contestant, Step, arrays

LIMIT = "roofline"


def streams(n_states: int) -> int:
    """How many numbers a step must move for each element: p, g and states are read; p and states are written."""
    return 3 + 2 * n_states


def roofline(params: Arrays, grads: Arrays, n_threads: int | None = None, n_states: int = 2) -> Step:
    """A function that moves as many bytes as a step of these arrays by a rule with so many states, by default Adam."""
    stepper, params, t = Stepper(STREAMS[n_states], threads.resolve("n_threads", n_threads)), list(params), 0
    states = [[state_like(p) for _ in range(n_states)] for p in params]
    stepper.lay(params, states, ["p"] * len(params))
    hyper = tuple(STREAMS[n_states].defaults.get(name, 0.0) for name in STREAMS[n_states].hyper)

    def step() -> None:
        nonlocal t
        t += 1
        stepper.step(grads, t, hyper)

    return step


def limit_of(moved: float, n_states: int, n_threads: int | None = None) -> Contestant:
    """The roofline that moves so many bytes an element. Its arrays have fewer elements where these are fewer bytes."""

    def make(params: Arrays, grads: Arrays) -> Step:
        size, dtype = params[0].size, "float64" if params[0].itemsize == 8 else "float32"
        part = moved / (streams(n_states) * np.dtype(dtype).itemsize)
        return roofline(*arrays(len(params), max(round(size * part), 1), dtype), n_threads, n_states)

    return Contestant(LIMIT, make)
