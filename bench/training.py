"""A whole training, in a fresh process: scikit-learn's MLPClassifier on digits, with its Adam or with fastadam's.
`python bench/training.py stock|fastadam|fastadam-1 512 512` prints the seconds of one fit.
"""

import sys
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

import fastadam


def replacement(n_threads: int | None):
    """A stand-in for scikit-learn's AdamOptimizer: the same arguments, formula (eps before correction) and methods."""

    class AdamOptimizer:
        def __init__(self, params, learning_rate_init=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
            self.learning_rate = learning_rate_init
            self.adam = fastadam.Adam(
                params, learning_rate_init, (beta_1, beta_2), epsilon, eps_hat=True, n_threads=n_threads
            )

        def update_params(self, params, grads):
            self.adam.step(grads)

        def iteration_ends(self, time_step):
            pass

        def trigger_stopping(self, msg, verbose):
            return True

    return AdamOptimizer


def fit_seconds(way: str, hidden: tuple[int, ...], epochs: int = 5) -> tuple[float, float]:
    """Seconds of one fit, and its last loss."""
    if way != "stock":
        _multilayer_perceptron.AdamOptimizer = replacement(1 if way == "fastadam-1" else None)
    warnings.simplefilter("ignore", ConvergenceWarning)
    x, y = load_digits(return_X_y=True)
    model = MLPClassifier(hidden, batch_size=32, max_iter=epochs, random_state=0)
    start = time.perf_counter()
    model.fit(x / 16, y)
    return time.perf_counter() - start, model.loss_


if __name__ == "__main__":
    print(*fit_seconds(sys.argv[1], tuple(map(int, sys.argv[2:]))))
