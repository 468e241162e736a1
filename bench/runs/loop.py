"""A network in plain NumPy, against the article's Adam."""

import time
from functools import partial
from types import SimpleNamespace

import numpy as np
from clock import OURS, Clock, Run, digits

import fastadam
from fastadam.plain import PlainAdam


def numpy_loop(way: str, clock: Clock, width: int, batch: int) -> tuple[float, float]:
    """A network of one hidden layer in plain NumPy, 5 epochs, its gradients in arrays of its own."""
    x, y = digits()
    target = np.eye(10, dtype=np.float32)[y]
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape, np.float32) * 0.1 for shape in ((64, width), (width,), (width, 10), (10,))]
    if way == OURS:
        step = clock.around(fastadam.Adam(params, eps_hat=True).step)
    else:
        plain = [PlainAdam(SimpleNamespace(parameters=p, grad=None)) for p in params]

        def of_all(grads: list[np.ndarray]) -> None:
            for optimizer, g in zip(plain, grads, strict=True):
                optimizer.instance.grad = g
                optimizer.step()

        step = clock.around(of_all)
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), batch):
            xb, tb = x[first : first + batch], target[first : first + batch]
            w1, b1, w2, b2 = params
            hidden = np.maximum(xb @ w1 + b1, 0)
            out = np.exp(hidden @ w2 + b2)
            out /= out.sum(axis=1, keepdims=True)
            delta = (out - tb) / len(xb)
            back = (delta @ w2.T) * (hidden > 0)
            step([xb.T @ back, back.sum(0), hidden.T @ delta, delta.sum(0)])
    return time.perf_counter() - start, float(-np.log(out[tb > 0] + 1e-12).mean())


CASES: dict[str, Run] = {
    f"NumPy loop, {width} hidden": partial(numpy_loop, width=width, batch=32) for width in (16, 512, 8192)
}
