"""A whole training, in a fresh process: scikit-learn's MLPClassifier on digits in float64, its Adam or fastadam's.
`python bench/training.py stock|fastadam|fastadam-1|python-threads|openmp 512 512` prints the seconds of one fit.
"""

import sys
import time
import warnings

import numpy as np
from halves import PythonThreads
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

import fastadam
from fastadam.bench.contestants import NumbaKernel


def fastadam_of(n_threads: int | None):
    """What makes a fastadam.Adam in scikit-learn's convention: eps before the correction."""
    return lambda params: fastadam.Adam(params, eps_hat=True, n_threads=n_threads)


#: what stands in for scikit-learn's Adam, by name: made of the parameters, with a `step` of the gradients
WAYS = {
    "stock": None,
    "fastadam": fastadam_of(None),
    "fastadam-1": fastadam_of(1),
    "python-threads": PythonThreads,
    "openmp": NumbaKernel,
}


class Replacement:
    """A stand-in for scikit-learn's AdamOptimizer, at its default rates."""

    way = "fastadam"
    learning_rate = 1e-3

    def __init__(self, params, learning_rate_init=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.optimizer = WAYS[self.way](params)

    def update_params(self, params, grads):
        self.optimizer.step(grads)

    def iteration_ends(self, time_step):
        pass

    def trigger_stopping(self, msg, verbose):
        return True


def fit_seconds(way: str, hidden: tuple[int, ...], epochs: int = 5) -> tuple[float, float]:
    """Seconds of one fit, and its last loss."""
    if way != "stock":
        Replacement.way = way
        _multilayer_perceptron.AdamOptimizer = Replacement
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, y = load_digits(return_X_y=True)
    if way == "openmp":
        Replacement([np.ones(1)]).update_params(None, [np.ones(1)])  # compiling is not counted
    model = MLPClassifier(hidden, batch_size=32, max_iter=epochs, random_state=0)
    start = time.perf_counter()
    model.fit(x / 16, y)
    return time.perf_counter() - start, model.loss_


if __name__ == "__main__":
    print(*fit_seconds(sys.argv[1], tuple(map(int, sys.argv[2:]))))
