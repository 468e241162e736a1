"""A network that autograd differentiates, trained by autograd's `adam` and by fastadam's in its place."""

import time
from itertools import pairwise
from typing import Any

import autograd.numpy as np
from autograd import grad
from autograd.misc import optimizers
from clock import OURS, Clock, Run
from sklearn.datasets import load_digits

from fastadam.adapters import autograd as adapter

BATCH = 32


def network(way: str, clock: Clock, steps: int, *hidden: int) -> tuple[float, float]:
    """Digits in batches of 32, the weights in a list of pairs, as in autograd's own examples."""
    images, labels = load_digits(return_X_y=True)
    images, targets = images / 16, np.eye(10)[labels]
    rng = np.random.RandomState(0)
    sizes = (64, *hidden, 10)
    params = [(rng.randn(m, n) * m**-0.5, np.zeros(n)) for m, n in pairwise(sizes)]

    def loss(params: Any, i: int) -> Any:
        first = i * BATCH % (len(images) - BATCH)
        out = images[first : first + BATCH]
        for w, b in params[:-1]:
            out = np.tanh(np.dot(out, w) + b)
        w, b = params[-1]
        out = np.dot(out, w) + b
        largest = np.max(out, axis=1, keepdims=True)
        log_sum = largest[:, 0] + np.log(np.sum(np.exp(out - largest), axis=1))
        return np.mean(log_sum - np.sum(out * targets[first : first + BATCH], axis=1))

    gradients = Clock()
    optimize = (adapter if way == OURS else optimizers).adam
    start = time.perf_counter()
    found = optimize(gradients.around(grad(loss)), params, num_iters=steps, step_size=0.003)
    seconds = time.perf_counter() - start
    clock.seconds = seconds - gradients.seconds
    return seconds, float(loss(found, 0))


CASES: dict[str, Run] = {
    "autograd, 32 hidden": lambda way, clock: network(way, clock, 1000, 32),
    "autograd, 2 × 256 hidden": lambda way, clock: network(way, clock, 200, 256, 256),
}
