"""The demo: the article's NumPy Adam beside fastadam's on scikit-learn's digits, and a picture of all optimizers.
Run it with ``python -m fastadam demo``; it needs the packages of ``fastadam[demo]``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.datasets import load_digits
from tqdm import tqdm

from . import Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop
from .adapters import article

BATCH = 32
TEST_SIZE = 360
#: the two runs do the same arithmetic: a larger relative difference of their losses is an error
TOLERANCE = 1e-9

# ---------------------------------------------------------------- the network and the baseline


class Network:
    """A multilayer perceptron: ReLU, then softmax. Its weights are views of one array, ``parameters``."""

    def __init__(self, sizes: list[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        shapes = [(n_in + 1, n_out) for n_in, n_out in pairwise(sizes)]  # the last row of a layer is its bias
        self.parameters = np.zeros(sum(rows * columns for rows, columns in shapes))
        self.grad = np.zeros_like(self.parameters)
        self.layers, self.layer_grads = _views(self.parameters, shapes), _views(self.grad, shapes)
        for layer in self.layers:
            layer[:-1] = rng.normal(scale=np.sqrt(2 / len(layer[:-1])), size=layer[:-1].shape)

    def forward(self, x: np.ndarray) -> list[np.ndarray]:
        """The input of each layer, and at the end the scores of the classes."""
        outputs = [x @ self.layers[0][:-1] + self.layers[0][-1]]
        for layer in self.layers[1:]:
            outputs.append(np.maximum(outputs[-1], 0) @ layer[:-1] + layer[-1])
        return [x, *(np.maximum(z, 0) for z in outputs[:-1]), outputs[-1]]

    def loss(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The mean cross-entropy of a mini-batch; writes its gradient to ``grad``."""
        *inputs, scores = self.forward(x)
        log_p = scores - scores.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        one_hot = np.eye(scores.shape[1])[labels]
        error = (np.exp(log_p) - one_hot) / len(x)
        for k in reversed(range(len(self.layers))):
            np.matmul(inputs[k].T, error, out=self.layer_grads[k][:-1])
            np.sum(error, axis=0, out=self.layer_grads[k][-1])
            if k > 0:
                error = error @ self.layers[k][:-1].T * (inputs[k] > 0)
        return float(-(log_p * one_hot).sum() / len(x))

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The share of `x` that gets its label."""
        return float(np.mean(self.forward(x)[-1].argmax(axis=1) == labels))


def _views(flat: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


class PlainAdam:
    """The article's Adam as its formulas stand: the baseline. Every operation makes a new array."""

    def __init__(self, instance: Any, alpha: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.instance = instance
        self.alpha, self.beta1, self.beta2, self.epsilon = alpha, beta1, beta2, 1e-8
        self.m: Any = 0.0
        self.v: Any = 0.0
        self.t = 0

    def step(self) -> None:
        """One step of ``instance.parameters``."""
        g = self.instance.grad
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        rate = self.alpha * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        self.instance.parameters -= rate * self.m / (np.sqrt(self.v) + self.epsilon)


# ---------------------------------------------------------------- the contest


@dataclass
class Contestant:
    """One network with its optimizer, and what its training has given so far."""

    name: str
    network: Network
    optimizer: PlainAdam | article.Adam
    losses: list[list[float]] = field(default_factory=list)  # an epoch each
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


def contest(epochs: int, hidden: int, seed: int) -> list[Contestant]:
    """Trains two networks on the digits, the same but for their optimizer."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(len(images)), [TEST_SIZE])
    images = images / 16.0
    networks = [Network([images.shape[1], hidden, hidden, 10], seed) for _ in range(2)]
    contestants = [
        Contestant("plain NumPy", networks[0], PlainAdam(networks[0])),
        Contestant("fastadam", networks[1], article.Adam(networks[1])),
    ]
    for _ in tqdm(range(epochs), desc="training on digits", unit="epoch"):
        rows = rng.permutation(train)
        batches = [(images[part], labels[part]) for part in np.split(rows, range(BATCH, len(rows), BATCH))]
        for contestant in contestants:
            contestant.train(batches)
        contestants.reverse()  # each goes first in every other epoch: neither gains from caches or clock rates
    contestants.sort(key=lambda contestant: contestant.name, reverse=True)
    for contestant in contestants:
        contestant.accuracy = contestant.network.accuracy(images[test], labels[test])
    return contestants


def largest_difference(plain: Contestant, fast: Contestant) -> float:
    """The largest relative difference of the losses of two contestants."""
    a, b = np.array(plain.losses), np.array(fast.losses)
    return float(np.max(np.abs(a - b) / np.abs(a)))


def table(plain: Contestant, fast: Contestant) -> str:
    """What the two have reached, and how long it took them."""
    ms_a_step = [1e3 * c.step_seconds / np.size(c.losses) for c in (plain, fast)]
    rows = [
        ("", plain.name, fast.name, "ratio"),
        ("loss, mean of the last epoch", *(f"{np.mean(c.losses[-1]):.6g}" for c in (plain, fast)), ""),
        ("test accuracy", *(f"{c.accuracy:.2%}" for c in (plain, fast)), ""),
        ("training, seconds", *(f"{c.seconds:.2f}" for c in (plain, fast)), f"{plain.seconds / fast.seconds:.1f}x"),
        (
            "  of these in the optimizer's step",
            *(f"{c.step_seconds:.2f}" for c in (plain, fast)),
            f"{plain.step_seconds / fast.step_seconds:.1f}x",
        ),
        ("  milliseconds a step", *(f"{ms:.3f}" for ms in ms_a_step), ""),
    ]
    return "\n".join(f"{what:<36}{a:>13}{b:>13}{ratio:>9}".rstrip() for what, a, b, ratio in rows)
