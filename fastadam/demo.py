"""The demo: the article's NumPy Adam beside fastadam's on scikit-learn's digits, and a picture of six optimizers.
Run it with ``python -m fastadam demo``; ``pip install '.[demo]'`` brings what it needs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import DTypeLike
from sklearn.datasets import load_digits
from tqdm import tqdm

from . import SGD, Adagrad, Adam, AdamW, Lion, Optimizer, RMSprop
from .adapters import article
from .plain import PlainAdam
from .schedules import cosine

BATCH = 32
TEST_SIZE = 360
TOLERANCE = 1e-9  # of the losses, relative: both runs do the same arithmetic

# Rosenbrock's valley, a little less steep than his: f(x, y) = (1 - x)² + STEEPNESS (y - x²)²
STEEPNESS = 20
START = np.array([-1.2, 1.0])
STEPS = 300
DESCENT_RATE = 0.005  # of the plain gradient descent drawn for comparison

#: label -> optimizer of an array, colour (Okabe and Ito's palette: distinct to the colour-blind), line style
OPTIMIZERS: dict[str, tuple[Callable[[np.ndarray], Optimizer], str, str]] = {
    "Adam (lr 0.1)": (lambda x: Adam(x, lr=0.1), "#0072B2", "-"),
    "AdamW (lr 0.1, decay 0.1)": (lambda x: AdamW(x, lr=0.1, weight_decay=0.1), "#56B4E9", "--"),
    "SGD (lr 0.002, momentum 0.9)": (lambda x: SGD(x, lr=0.002, momentum=0.9), "#009E73", "-"),
    "Adagrad (lr 1)": (lambda x: Adagrad(x, lr=1.0), "#E69F00", "-"),
    "RMSprop (lr 0.1)": (lambda x: RMSprop(x, lr=0.1), "#D55E00", "--"),
    "Lion (lr 0.04 to 0)": (lambda x: Lion(x, lr=cosine(0.04, STEPS)), "#CC79A7", "-."),
}
PLAIN_COLOUR, FAST_COLOUR, GREY = "#E69F00", "#0072B2", "0.45"

# ---------------------------------------------------------------- the network


class Network:
    """A multilayer perceptron: ReLU, then softmax. Its weights are views of one array, ``parameters``."""

    def __init__(self, sizes: list[int], seed: int, dtype: DTypeLike = float) -> None:
        rng = np.random.default_rng(seed)
        shapes = [(n_in + 1, n_out) for n_in, n_out in pairwise(sizes)]  # the last row of a layer is its bias
        self.parameters = np.zeros(sum(rows * columns for rows, columns in shapes), dtype)
        self.grad = np.zeros_like(self.parameters)
        self.layers, self.layer_grads = _views(self.parameters, shapes), _views(self.grad, shapes)
        for layer in self.layers:
            n_in = len(layer) - 1
            layer[:-1] = rng.normal(scale=np.sqrt(2 / n_in), size=(n_in, layer.shape[1]))

    def forward(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """The input of each layer, and the scores of the classes."""
        *hidden, last = self.layers
        inputs = [x]
        for layer in hidden:
            inputs.append(np.maximum(inputs[-1] @ layer[:-1] + layer[-1], 0))
        return inputs, inputs[-1] @ last[:-1] + last[-1]

    def loss(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The mean cross-entropy of a mini-batch; writes its gradient to ``grad``."""
        inputs, scores = self.forward(x)
        log_p = scores - scores.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        one_hot = np.eye(scores.shape[1], dtype=scores.dtype)[labels]
        error = (np.exp(log_p) - one_hot) / len(x)
        for k in reversed(range(len(self.layers))):
            np.matmul(inputs[k].T, error, out=self.layer_grads[k][:-1])
            np.sum(error, axis=0, out=self.layer_grads[k][-1])
            if k > 0:
                error = error @ self.layers[k][:-1].T * (inputs[k] > 0)
        return float(-(log_p * one_hot).sum() / len(x))


def _views(flat: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


# ---------------------------------------------------------------- the contest


@dataclass
class Contestant:
    """A network with its optimizer, and what training it has given so far."""

    name: str
    network: Network
    optimizer: PlainAdam | article.Adam
    losses: list[list[float]] = field(default_factory=list)  # of each epoch's mini-batches
    seconds: float = 0.0
    step_seconds: float = 0.0
    accuracy: float = 0.0

    def train(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """One epoch."""
        losses = []
        start = perf_counter()
        for x, labels in batches:
            losses.append(self.network.loss(x, labels))
            before = perf_counter()
            self.optimizer.step()
            self.step_seconds += perf_counter() - before
        self.seconds += perf_counter() - start
        self.losses.append(losses)


def contest(epochs: int, hidden: int, seed: int) -> tuple[Contestant, Contestant]:
    """Train two networks on the digits, the same but for their optimizer: the article's and fastadam's."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(len(images)), [TEST_SIZE])
    sizes = [images.shape[1], hidden, hidden, 10]
    network = Network(sizes, seed)
    plain = Contestant("plain NumPy", network, PlainAdam(network))
    network = Network(sizes, seed)
    fast = Contestant("fastadam", network, article.Adam(network))
    Network(sizes, seed).loss(images[:BATCH], labels[:BATCH])  # neither pays for the start of BLAS's threads
    for epoch in tqdm(range(epochs), desc="training on digits", unit="epoch"):
        rows = rng.permutation(train)
        batches = [(images[part], labels[part]) for part in np.split(rows, range(BATCH, len(rows), BATCH))]
        for contestant in (plain, fast) if epoch % 2 else (fast, plain):  # nor gains by its turn
            contestant.train(batches)
    for contestant in (plain, fast):
        _, scores = contestant.network.forward(images[test])
        contestant.accuracy = float(np.mean(scores.argmax(axis=1) == labels[test]))
    return plain, fast


def largest_difference(plain: Contestant, fast: Contestant) -> float:
    """The largest relative difference of the losses of two contestants."""
    a, b = np.array(plain.losses), np.array(fast.losses)
    return float(np.max(np.abs(a - b) / np.abs(a)))


def table(plain: Contestant, fast: Contestant) -> str:
    """What the two have reached, and how long they took."""

    def row(what: str, value: Callable[[Contestant], float], form: str, ratio: str = "") -> str:
        a, b = value(plain), value(fast)
        return f"{what:<34}{a:>13{form}}{b:>13{form}}{f'{a / b:.1f}x' if ratio else '':>9}".rstrip()

    return "\n".join(
        [
            f"{'digits':<34}{plain.name:>13}{fast.name:>13}{'ratio':>9}",
            row("training loss, last epoch", lambda c: float(np.mean(c.losses[-1])), ".6g"),
            row("test accuracy", lambda c: c.accuracy, ".2%"),
            row("seconds of training", lambda c: c.seconds, ".3f", "ratio"),
            row("of these, in step()", lambda c: c.step_seconds, ".3f", "ratio"),
        ]
    )


# ---------------------------------------------------------------- the pictures


def draw_contest(plain: Contestant, fast: Contestant) -> Figure:
    """The loss of both contestants by epoch, and their times."""
    figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    loss_axes, time_axes = figure.subplots(1, 2, width_ratios=[1.35, 1])
    epochs = np.arange(1, len(plain.losses) + 1)
    looks = (  # the one wide enough to be seen under the other
        (plain, -0.2, PLAIN_COLOUR, {"linewidth": 7, "markersize": 13, "alpha": 0.6}),
        (fast, 0.2, FAST_COLOUR, {"linewidth": 1.5, "markersize": 5}),
    )
    for contestant, shift, colour, style in looks:
        losses = np.mean(contestant.losses, axis=1)
        loss_axes.plot(epochs, losses, "o-", color=colour, label=contestant.name, **style)
        seconds = [contestant.seconds, contestant.step_seconds]
        bars = time_axes.bar(np.arange(2) + shift, seconds, width=0.38, color=colour, label=contestant.name)
        time_axes.bar_label(bars, fmt="%.3g s", padding=2)
    title = f"Digits: training loss (largest relative difference: {largest_difference(plain, fast):.2g})"
    loss_axes.set(title=title, xlabel="epoch", ylabel="mean cross-entropy", yscale="log", xlim=(0.5, epochs[-1] + 0.5))
    loss_axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    loss_axes.grid(alpha=0.25)
    time_axes.set(title="Time", ylabel="seconds", xticks=[0, 1], xticklabels=["whole training", "of this, in step()"])
    time_axes.margins(y=0.25)  # room for the legend
    time_axes.spines[["top", "right"]].set_visible(False)
    for axes in (loss_axes, time_axes):
        axes.legend(loc="upper right")
    return figure


def loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rosenbrock's function."""
    value: np.ndarray = (1 - x) ** 2 + STEEPNESS * (y - x * x) ** 2
    return value


def gradient(point: np.ndarray) -> np.ndarray:
    """The gradient of `loss`."""
    x, y = point
    return np.array([-2 * (1 - x) - 4 * STEEPNESS * x * (y - x * x), 2 * STEEPNESS * (y - x * x)])


def descend(make: Callable[[np.ndarray], Optimizer]) -> np.ndarray:
    """The points that an optimizer visits in the valley."""
    x = START.copy()
    optimizer = make(x)
    path = [x.copy()]
    for _ in range(STEPS):
        optimizer.step(gradient(x))
        path.append(x.copy())
    return np.array(path)


def draw_trajectories() -> Figure:
    """The path of each optimizer through the valley, and its loss by iteration."""
    figure = Figure(figsize=(15, 7.5), dpi=120, layout="constrained")
    title = f"{STEPS} steps in Rosenbrock's valley, f(x, y) = (1 − x)² + {STEEPNESS} (y − x²)², from dot to star"
    figure.suptitle(title, fontsize=14)
    axes = figure.subplot_mosaic("012L;345L", width_ratios=[1, 1, 1, 1.3])
    loss_axes = axes["L"]
    descent = descend(lambda x: SGD(x, lr=DESCENT_RATE))
    for k, (label, (make, colour, style)) in enumerate(OPTIMIZERS.items()):
        path = descend(make)
        _draw_path(axes[str(k)], path, descent, label, colour)
        loss_axes.semilogy(loss(*path.T), style, color=colour, linewidth=2.2, label=label)
    loss_axes.semilogy(loss(*descent.T), ":", color=GREY, linewidth=2, label=f"gradient descent (lr {DESCENT_RATE})")
    loss_axes.set(
        title="Loss", xlabel="iteration", ylabel="f(x, y)", xlim=(0, STEPS), ylim=(1e-7, 1e2)
    )  # room for the legend
    loss_axes.grid(alpha=0.25)
    loss_axes.legend(loc="lower left")
    return figure


def _draw_path(axes: Axes, path: np.ndarray, descent: np.ndarray, label: str, colour: str) -> None:
    """A trajectory over lines of equal loss, beside that of plain gradient descent (dotted)."""
    x, y = np.linspace(-1.7, 1.7, 200), np.linspace(-0.7, 1.9, 200)
    axes.contour(x, y, loss(x, y[:, None]), levels=np.geomspace(0.1, 200, 10), colors="0.75", linewidths=0.8)
    axes.plot(*descent.T, ":", color=GREY, linewidth=1.6)
    axes.plot(*path.T, "o-", color=colour, linewidth=1.4, markersize=3, markeredgewidth=0)
    axes.plot(*START, "o", color="black", markersize=7, zorder=3)
    axes.plot(1, 1, "*", color="black", markersize=14, zorder=3)
    axes.set(title=label, xlabel="x", ylabel="y", xlim=x[[0, -1]], ylim=y[[0, -1]])


# ---------------------------------------------------------------- the whole


def run(out: Path, epochs: int, hidden: int, seed: int) -> int:
    """Train, draw into the directory `out`, print what came of it; 1 if the losses differ, otherwise 0."""
    plain, fast = contest(epochs, hidden, seed)
    difference = largest_difference(plain, fast)
    same = difference <= TOLERANCE  # False for NaN
    verdict = "the same to rounding" if same else f"FAILED, more than {TOLERANCE:g}"
    print(table(plain, fast))
    print(f"\nlargest relative difference of the {np.size(plain.losses)} losses: {difference:.2g} ({verdict})")
    for name, figure in (("digits.png", draw_contest(plain, fast)), ("trajectories.png", draw_trajectories())):
        figure.savefig(out / name)
        print(f"wrote {out / name}")
    return 0 if same else 1
