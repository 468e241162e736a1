"""A plain NumPy network for handwritten digits: bound gradients, a schedule, clipping, and a run that is interrupted,
saved and resumed. Run ``python examples/numpy_mlp.py [--out FILE]``. It needs scikit-learn, Matplotlib and tqdm.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from sklearn.datasets import load_digits
from tqdm import tqdm

import fastadam
from fastadam.schedules import cosine, join, warmup

SIZES, BATCH, EPOCHS, TEST_SIZE = (64, 96, 10), 32, 24, 450
STEPS = EPOCHS * ((1797 - TEST_SIZE) // BATCH)
RATE = join([warmup(1e-2, STEPS // 10), cosine(1e-2, STEPS - STEPS // 10)], [STEPS // 10])
MAX_NORM = 1.0
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.55"


class Training:
    """A network, its optimizer, and the results of each step and epoch."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n_in, hidden, n_out = SIZES
        self.params = {
            "W1": rng.normal(scale=np.sqrt(2 / n_in), size=(n_in, hidden)),
            "b1": np.zeros(hidden),
            "W2": rng.normal(scale=np.sqrt(2 / hidden), size=(hidden, n_out)),
            "b2": np.zeros(n_out),
        }
        self.grads = {name: np.zeros_like(p) for name, p in self.params.items()}
        # bound once: each step() reads the arrays that backward() has written
        self.optimizer = fastadam.AdamW(self.params, lr=RATE, weight_decay=0.1, grads=self.grads)
        self.losses: list[float] = []  # of each step
        self.norms: list[float] = []
        self.accuracies: list[tuple[float, float]] = []  # of each epoch: training, test

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hidden layer, and the log-probabilities of the classes."""
        p = self.params
        hidden = np.maximum(x @ p["W1"] + p["b1"], 0)
        scores = hidden @ p["W2"] + p["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def backward(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The mean cross-entropy. Its gradients are written to ``grads``."""
        hidden, log_p = self.forward(x)
        one_hot = np.eye(SIZES[-1])[labels]
        error = (np.exp(log_p) - one_hot) / len(x)
        error_hidden = error @ self.params["W2"].T * (hidden > 0)
        np.matmul(hidden.T, error, out=self.grads["W2"])
        np.matmul(x.T, error_hidden, out=self.grads["W1"])
        error.sum(axis=0, out=self.grads["b2"])
        error_hidden.sum(axis=0, out=self.grads["b1"])
        return float(-(log_p * one_hot).sum() / len(x))

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """The share of the images whose label is the most probable class."""
        return float(np.mean(self.forward(x)[1].argmax(axis=1) == labels))

    def run(self, epochs: Iterable[int], train: tuple, test: tuple) -> None:
        """Train. The order of the batches depends only on the number of the epoch."""
        for epoch in tqdm(epochs, desc="training", unit="epoch"):
            rows = np.random.default_rng(epoch).permutation(len(train[0]))
            for part in np.split(rows[: len(rows) // BATCH * BATCH], len(rows) // BATCH):
                self.losses.append(self.backward(train[0][part], train[1][part]))
                self.optimizer.step(max_norm=MAX_NORM)
                self.norms.append(self.optimizer.grad_norm)
            self.accuracies.append((self.accuracy(*train), self.accuracy(*test)))


def broken_run(train: tuple, test: tuple, folder: Path) -> tuple[Training, Training]:
    """The same training by two objects that share a file. The second starts with other weights, and loads the file."""
    first = Training(seed=0)
    first.run(range(EPOCHS // 2), train, test)
    first.optimizer.save(folder / "half.npz", params=True)
    second = Training(seed=1)
    second.optimizer.load(folder / "half.npz")  # weights, moments, step count, and the schedule
    second.run(range(EPOCHS // 2, EPOCHS), train, test)
    return first, second


def draw(whole: Training, halves: tuple[Training, Training], test: tuple) -> Figure:
    """Loss, accuracy, norms and rate of the interrupted run, and the hardest digits."""
    figure = Figure(figsize=(16, 8.5), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.9, 1])
    axes = left.subplots(2, 2, height_ratios=[1.4, 1])
    left.suptitle(f"Training in two halves: saved after epoch {EPOCHS // 2} (dotted), loaded by a new optimizer")
    middle, steps = STEPS // 2, np.arange(1, STEPS + 1)
    losses, norms = ([*getattr(halves[0], name), *getattr(halves[1], name)] for name in ("losses", "norms"))
    axes[0, 0].semilogy(steps, losses, ".", color=GREY, markersize=3, alpha=0.5, label="a batch")
    epochs = np.arange(1, EPOCHS + 1) * STEPS / EPOCHS
    axes[0, 0].semilogy(epochs, np.mean(np.reshape(losses, (EPOCHS, -1)), axis=1), "o-", color=BLUE, label="an epoch")
    axes[0, 0].set(title="Loss", xlabel="step", ylabel="cross-entropy")
    axes[1, 0].semilogy(steps, norms, ".", color=GREY, markersize=3)
    axes[1, 0].axhline(MAX_NORM, color=ORANGE, label=f"clipped to {MAX_NORM:g} above")
    axes[1, 0].set(title="Norm of the gradients", xlabel="step")
    axes[1, 1].plot(steps, [RATE(t) for t in steps], color=GREEN, linewidth=2)
    axes[1, 1].set(title="Rate: warm-up, then cosine", xlabel="step")
    draw_accuracies(axes[0, 1], halves)
    for place in axes.flat:
        place.axvline(EPOCHS / 2 if place is axes[0, 1] else middle, color="black", linestyle=":")
        place.grid(alpha=0.25)
    for place in (axes[0, 0], axes[0, 1], axes[1, 0]):
        place.legend()
    draw_hardest(right, whole, test)
    return figure


def draw_accuracies(axes: Axes, halves: tuple[Training, Training]) -> None:
    accuracies = 100 * np.array([*halves[0].accuracies, *halves[1].accuracies])
    for values, colour, what in zip(accuracies.T, (BLUE, ORANGE), ("training", "test"), strict=True):
        axes.plot(np.arange(1, EPOCHS + 1), values, "o-", color=colour, label=f"{what}: {values[-1]:.1f} %")
    axes.set(title="Accuracy", xlabel="epoch", ylabel="%")


def draw_hardest(figure: SubFigure, training: Training, test: tuple) -> None:
    """The test digits to whose true class the network gives the lowest probability."""
    images, labels = test
    p = np.exp(training.forward(images)[1])
    guesses, of_truth = p.argmax(axis=1), p[np.arange(len(labels)), labels]
    figure.suptitle(f"{np.sum(guesses != labels)} mistakes (orange) among {len(labels)} test digits: the hardest, and\n"
                    "what the network takes them for")  # fmt: skip
    panels = figure.subplots(4, 4)
    for row, axes in zip(np.argsort(of_truth), panels.flat, strict=False):
        is_wrong = guesses[row] != labels[row]
        axes.imshow(images[row].reshape(8, 8), cmap="Oranges" if is_wrong else "Greys")
        axes.set_title(f"{labels[row]}: {guesses[row]} at {p[row].max():.0%}", fontsize=11)
        axes.axis("off")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train without interruption and in two halves, compare, draw."""
    parser = argparse.ArgumentParser(description="Train a plain NumPy network on digits, breaking off in the middle.")
    parser.add_argument("--out", type=Path, default=Path("numpy_mlp.png"), help="the picture (default: %(default)s)")
    out = parser.parse_args(arguments).out
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(images))
    test, train = ((images[part] / 16, labels[part]) for part in np.split(rows, [TEST_SIZE]))
    whole = Training(seed=0)
    whole.run(range(EPOCHS), train, test)
    with tempfile.TemporaryDirectory() as folder:
        halves = broken_run(train, test, Path(folder))
    print(f"loss of the last epoch: {np.mean(whole.losses[-STEPS // EPOCHS :]):.2g}")
    print(f"accuracy: {whole.accuracies[-1][0]:.1%} in training, {whole.accuracies[-1][1]:.1%} in test")
    print(f"{np.mean(np.array(whole.norms) > MAX_NORM):.0%} of the steps were clipped")
    same = all(np.array_equal(whole.params[name], p) for name, p in halves[1].params.items())
    print(f"in two halves: {'the same weights to the bit' if same else 'OTHER WEIGHTS'}")
    draw(whole, halves, test).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
