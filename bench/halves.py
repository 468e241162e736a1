"""Two threads in the simplest way: a half of each array in a Python thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastadam
from fastadam.bench.measure import Arrays


class PythonThreads:
    """fastadam on one thread a half of each array, the second half in a Python thread."""

    def __init__(self, params: Arrays) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.halves = [fastadam.Adam([half(p, k) for p in params], eps_hat=True, n_threads=1) for k in range(2)]

    def step(self, grads: Arrays) -> None:
        other = self.pool.submit(self.halves[1].step, [half(g, 1) for g in grads])
        self.halves[0].step([half(g, 0) for g in grads])
        other.result()


def half(array: np.ndarray, which: int) -> np.ndarray:
    """A view of the first or second half of an array's elements."""
    flat, middle = array.reshape(-1), array.size // 2
    return flat[middle:] if which else flat[:middle]
