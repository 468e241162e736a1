"""Logistic regression in one @njit loop: gradients and Adam steps, without the interpreter between them.
Run ``python examples/njit_logistic.py [--out FILE]``. It needs Numba, scikit-learn, Matplotlib and tqdm.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numba import njit
from sklearn.datasets import load_breast_cancer
from tqdm import tqdm

import fastadam
from fastadam.numba import adam_step
from fastadam.plain import PlainAdam

EPOCHS, BATCH, TEST_SIZE, LR = 60, 8, 169, 0.01
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
DECAYS = np.geomspace(1e-4, 10, 60)
SHOWN = 6  # the number of weights that the picture names
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@njit
def fit(x, y, order, decay, w):
    """Fit the weights in place with Adam. Each row of `order` is a mini-batch. `decay` is L2, added to the gradient."""
    m, v, g = np.zeros_like(w), np.zeros_like(w), np.empty_like(w)
    for t in range(len(order)):
        g[:] = 0.0
        for row in order[t]:
            score = 0.0
            for k in range(len(w)):
                score += x[row, k] * w[k]
            error = (1.0 / (1.0 + np.exp(-score)) - y[row]) / order.shape[1]
            for k in range(len(w)):
                g[k] += error * x[row, k]
        adam_step(w, g, m, v, t + 1, LR, BETA1, BETA2, EPS, 1.0, True, weight_decay=decay)


def gradient(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The gradient of a mini-batch in NumPy."""
    return x.T @ (1 / (1 + np.exp(-(x @ w))) - y) / len(y)


def fit_by_class(x: np.ndarray, y: np.ndarray, order: np.ndarray, decay: float, w: np.ndarray) -> None:
    """The same steps with fastadam's class, in a Python loop."""
    optimizer = fastadam.Adam(w, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=decay, eps_hat=True)
    for rows in order:
        optimizer.step(gradient(x[rows], y[rows], w))


class Weights:
    """An object with parameters and gradient, for `PlainAdam`."""

    def __init__(self, w: np.ndarray) -> None:
        self.parameters, self.grad = w, np.zeros_like(w)


def fit_in_numpy(x: np.ndarray, y: np.ndarray, order: np.ndarray, decay: float, w: np.ndarray) -> None:
    """The same steps in plain NumPy."""
    weights = Weights(w)
    optimizer = PlainAdam(weights)
    optimizer.alpha = LR
    for rows in order:
        weights.grad = gradient(x[rows], y[rows], w) + decay * w
        optimizer.step()


def timed(fit: Callable[..., None], *data: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights of a fit without decay, and its time in seconds, the best of three."""
    seconds = []
    for _ in range(3):
        w = np.zeros(data[0].shape[1])
        start = perf_counter()
        fit(*data, 0.0, w)
        seconds.append(perf_counter() - start)
    return w, min(seconds)


def load(seed: int) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], list[str], np.ndarray]:
    """Training and test data, standardized by the training data; the names of the columns; the batches."""
    data = load_breast_cancer()
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(len(data.target)), [TEST_SIZE])
    x = (data.data - data.data[train].mean(axis=0)) / data.data[train].std(axis=0)
    x = np.column_stack([x, np.ones(len(x))])  # the last weight is the bias
    y = 1.0 - data.target  # 1 is malignant
    order = np.concatenate([rng.permutation(len(train)).reshape(-1, BATCH) for _ in range(EPOCHS)])
    return (x[train], y[train]), (x[test], y[test]), [*map(str, data.feature_names), "bias"], order


def accuracy(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    return float(np.mean((x @ w > 0) == (y > 0.5)))


def path(train: tuple[np.ndarray, ...], order: np.ndarray) -> np.ndarray:
    """The fitted weights for each decay."""
    weights = []
    for decay in tqdm(DECAYS, desc="decays", unit="fit"):
        w = np.zeros(train[0].shape[1])
        fit(*train, order, decay, w)
        weights.append(w)
    return np.array(weights)


def draw(times: dict[str, float], steps: int, weights: np.ndarray, names: list[str], scores: np.ndarray) -> Figure:
    """The time of a step in each loop, and the weights and accuracies by decay."""
    figure = Figure(figsize=(15, 8.5), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic("TW;AW", width_ratios=[1, 1.4])
    figure.suptitle(
        "Logistic regression on 400 tumours in batches of 8: the whole loop is compiled, so a fit costs little"
    )
    bars = axes["T"].barh(list(times), [1e6 * seconds / steps for seconds in times.values()], color=COLOURS)
    axes["T"].bar_label(bars, fmt="%.2g µs", padding=3)
    axes["T"].set(title=f"Time of a step, gradient and Adam; a fit has {steps}", xlabel="µs")
    axes["T"].invert_yaxis()
    axes["T"].margins(x=0.15)
    draw_path(axes["W"], weights, names)
    for values, colour, what in zip(100 * scores.T, COLOURS, ("training", "test"), strict=False):
        axes["A"].semilogx(DECAYS, values, color=colour, linewidth=2, label=what)
    axes["A"].set(title="Accuracy", xlabel="decay", ylabel="%", xlim=(DECAYS[0], DECAYS[-1]))
    axes["A"].legend()
    axes["A"].grid(alpha=0.25)
    return figure


def draw_path(axes: Axes, weights: np.ndarray, names: list[str]) -> None:
    """All weights by decay. The largest are named."""
    largest = np.argsort(-np.abs(weights).max(axis=0))[:SHOWN]
    axes.semilogx(DECAYS, weights, color="0.75", linewidth=1)
    for k, colour in zip(largest, COLOURS, strict=True):
        axes.semilogx(DECAYS, weights[:, k], color=colour, linewidth=2.4, label=names[k])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=f"The weights of {len(DECAYS)} fits: decay draws them to 0", xlabel="decay", ylabel="weight")
    axes.set(xlim=(DECAYS[0], DECAYS[-1]))
    axes.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    """Time three loops of the same steps, fit for each decay, draw."""
    parser = argparse.ArgumentParser(description="Fit logistic regression in one compiled loop.")
    parser.add_argument(
        "--out", type=Path, default=Path("njit_logistic.png"), help="the picture (default: %(default)s)"
    )
    out = parser.parse_args(arguments).out
    train, test, names, order = load(seed=0)
    start = perf_counter()
    fit(*train, order[:1], 0.0, np.zeros(len(names)))
    print(f"compiled in {perf_counter() - start:.1f} s")
    loops = {"one @njit loop": fit, "Python, fastadam": fit_by_class, "Python, plain NumPy": fit_in_numpy}
    results = {name: timed(loop, *train, order) for name, loop in loops.items()}
    w, fastest = results["one @njit loop"]
    for name, (other, seconds) in results.items():
        off = np.abs(other - w).max()
        step = f"{1e6 * seconds / len(order):8.2f} µs a step, {seconds / fastest:6.1f}x"
        print(f"{name:<20}{step}, weights off by {off:.1g}, test accuracy {accuracy(*test, other):.1%}")
    weights = path(train, order)
    scores = np.array([[accuracy(*data, w) for data in (train, test)] for w in weights])
    print(f"{len(DECAYS)} decays: test accuracy from {scores[:, 1].min():.1%} to {scores[:, 1].max():.1%}")
    draw({name: seconds for name, (_, seconds) in results.items()}, len(order), weights, names, scores).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
