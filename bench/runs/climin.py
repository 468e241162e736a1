"""climin's Adadelta and fastadam's, on the logistic regression that climin's users train: digits, in mini-batches."""

import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from clock import OURS, Clock, Run


def logistic(way: str, clock: Clock, hidden: int, epochs: int) -> tuple[float, float]:
    """A network of one hidden layer on digits in batches of 32, its weights in one array as climin has them."""
    warnings.simplefilter("ignore", DeprecationWarning)  # climin imports imp
    import climin
    from sklearn.datasets import load_digits

    from fastadam.adapters import climin as adapter

    x, y = load_digits(return_X_y=True)
    x, target = x / 16, np.eye(10)[y]
    sizes = (64 * hidden, hidden * 10)
    wrt, loss = np.random.default_rng(0).standard_normal(sum(sizes)) * 0.1, 0.0

    def slope(wrt: np.ndarray, first: int) -> np.ndarray:
        nonlocal loss
        w1, w2 = wrt[: sizes[0]].reshape(64, hidden), wrt[sizes[0] :].reshape(hidden, 10)
        xb, tb = x[first : first + 32], target[first : first + 32]
        inner = np.tanh(xb @ w1)
        out = np.exp(inner @ w2)
        out /= out.sum(axis=1, keepdims=True)
        loss = float(-np.log(out[tb > 0]).mean())
        delta = (out - tb) / len(xb)
        return np.concatenate([(xb.T @ (delta @ w2.T * (1 - inner**2))).ravel(), (inner.T @ delta).ravel()])

    def batches() -> Iterator[tuple[list[int], dict[str, Any]]]:
        for _ in range(epochs):
            for first in range(0, len(x), 32):
                yield [first], {}

    inside = Clock()
    timed = inside.around(slope)
    optimizer = (adapter if way == OURS else climin).Adadelta(wrt, timed, args=batches())
    advance = clock.around(iter(optimizer).__next__)
    start = time.perf_counter()
    for _ in range(epochs * -(-len(x) // 32)):
        advance()
    clock.seconds -= inside.seconds  # an iteration asks for the gradient; the optimizer's own is the rest
    return time.perf_counter() - start, loss


CASES: dict[str, Run] = {
    "climin Adadelta, 32 hidden": partial(logistic, hidden=32, epochs=60),
    "climin Adadelta, 1024 hidden": partial(logistic, hidden=1024, epochs=8),
}
