"""A model of thinc."""

import time
from functools import partial

import numpy as np
from clock import OURS, Clock, Run, digits


def thinc_model(way: str, clock: Clock, width: int) -> tuple[float, float]:
    """A thinc model of two hidden layers, 5 epochs in batches of 32, thinc's defaults."""
    from thinc.api import Adam, Relu, Softmax, chain, fix_random_seed

    from fastadam.adapters import thinc as adapter

    fix_random_seed(0)
    x, y = digits()
    target = np.eye(10, dtype="f")[y]
    model = chain(Relu(width), Relu(width), Softmax()).initialize(X=x, Y=target)
    optimizer = (adapter.Adam if way == OURS else Adam)(1e-3)
    step, loss = clock.around(optimizer), 0.0
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), 32):
            out, back = model.begin_update(x[first : first + 32])
            delta = (out - target[first : first + 32]) / len(out)
            loss = float((delta**2).sum())
            back(delta)
            model.finish_update(step)
            optimizer.step_schedules()
    return time.perf_counter() - start, loss


CASES: dict[str, Run] = {f"thinc, 2 × {width} hidden": partial(thinc_model, width=width) for width in (32, 512)}
