"""Matrix factorization of ratings in plain NumPy: a table of users and a table of items. A batch of ratings needs few
rows of both. The same training runs with dense gradients, with lazy rows and with exact rows.
Run ``python examples/matrix_factorization.py [--out FILE]``. It needs Matplotlib and tqdm. It writes a picture, and the
figures beside it as JSON.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

import fastadam
from fastadam import Rows

USERS, ITEMS, WIDTH = 40_000, 10_000, 32
STEPS, BATCH, POINTS = 3_000, 1_024, 30
TEST_SIZE, NOISE, RATE = 50_000, 0.3, 1e-2
WAYS = {"dense": "#0072B2", "lazy rows": "#D55E00", "exact rows": "#009E73"}

#: numbers of users, numbers of items, ratings
Ratings = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_ratings(n: int, rng: np.random.Generator, tastes: list[np.ndarray]) -> Ratings:
    """Ratings of users and items drawn by power laws: row k of a table, from 0, has the frequency 1 / (k + 10)."""
    numbers = []
    for table in tastes:
        often = np.cumsum(1 / np.arange(10, 10 + len(table)))
        numbers.append(np.searchsorted(often, rng.uniform(0, often[-1], n)))
    likes = (tastes[0][numbers[0]] * tastes[1][numbers[1]]).sum(axis=1)
    return numbers[0], numbers[1], (likes + NOISE * rng.standard_normal(n)).astype(np.float32)


class Training:
    """Two tables, their optimizer, and the results of the steps."""

    def __init__(self, way: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shapes = (USERS, WIDTH), (ITEMS, WIDTH)
        self.way = way
        self.tables = [rng.normal(0, 0.1, shape).astype(np.float32) for shape in shapes]
        rows = "exact" if way == "exact rows" else "lazy"
        self.optimizer = fastadam.Adam(self.tables, lr=RATE, rows=rows, n_threads=2)
        self.dense = [np.zeros_like(table) for table in self.tables]
        self.seconds = {"in all": 0.0, "steps": 0.0, "flushes": 0.0}
        self.curve: list[tuple[int, float, float]] = []  # steps, seconds, test loss

    def grads_of(self, numbers: Sequence[np.ndarray], values: list[np.ndarray]) -> list:
        """The gradients of both tables, from the rows of a batch."""
        if self.way != "dense":
            return [Rows(index, rows) for index, rows in zip(numbers, values, strict=True)]
        for grad, index, rows in zip(self.dense, numbers, values, strict=True):
            grad.fill(0)
            np.add.at(grad, index, rows)
        return self.dense

    def step(self, batch: Ratings) -> None:
        """Do one step that reduces the mean squared error."""
        *numbers, ratings = batch
        self.flush(numbers)  # so that the rows have the values that dense steps would give
        users, items = (table[index] for table, index in zip(self.tables, numbers, strict=True))
        error = (users * items).sum(axis=1) - ratings
        error *= 2 / len(ratings)
        values = [error[:, None] * items, error[:, None] * users]
        start = time.perf_counter()
        self.optimizer.step(self.grads_of(numbers, values))
        self.seconds["steps"] += time.perf_counter() - start

    def flush(self, numbers: Sequence[np.ndarray] | None = None) -> None:
        """Apply the steps that these rows, or all rows, have missed. Lazy rows do not change."""
        start = time.perf_counter()
        self.optimizer.flush(numbers)
        self.seconds["flushes"] += time.perf_counter() - start

    def run(self, batches: list[Ratings], test: Ratings) -> None:
        """Train, and compute the test loss from time to time."""
        for k, batch in enumerate(tqdm(batches, desc=self.way, unit="step"), start=1):
            start = time.perf_counter()
            self.step(batch)
            is_seen = k % (len(batches) // POINTS) == 0
            if is_seen:
                self.flush()
            self.seconds["in all"] += time.perf_counter() - start
            if is_seen:
                self.curve.append((k, self.seconds["in all"], self.loss(test)))

    def loss(self, ratings: Ratings) -> float:
        """The mean squared error."""
        users, items = (table[index] for table, index in zip(self.tables, ratings[:2], strict=True))
        return float(np.mean(((users * items).sum(axis=1) - ratings[2]) ** 2))

    def milliseconds(self) -> dict[str, float]:
        """The time of a step: the total, and the parts of the optimizer."""
        return {part: round(1e3 * seconds / self.curve[-1][0], 4) for part, seconds in self.seconds.items()}


def draw(trainings: list[Training]) -> Figure:
    """The test losses by steps and by seconds, and the time of a step."""
    figure = Figure(figsize=(15, 8.5), dpi=110, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
    for training in trainings:
        steps, seconds, losses = zip(*training.curve, strict=True)
        is_under = training.way == "dense"  # the curve of exact rows lies on it
        width, alpha = (6, 0.4) if is_under else (2, 0.9)
        style = {"color": WAYS[training.way], "label": training.way, "linewidth": width, "alpha": alpha}
        axes[0].plot(steps, losses, **style)
        axes[1].plot(seconds, losses, **style)
    for place, what in zip(axes, ("step", "second"), strict=False):
        place.axhline(NOISE**2, color="0.5", linestyle=":", label="noise of the ratings")
        place.set(title=f"Test loss by {what}s", xlabel=what, ylabel="mean squared error", yscale="log")
        place.grid(alpha=0.25)
        place.legend()
    axes[1].set(xscale="log")
    draw_times(axes[2], trainings)
    return figure


def draw_times(axes: Axes, trainings: list[Training]) -> None:
    """A bar for each way. The coloured part is the optimizer's steps, with the time to write dense gradients."""
    for place, training in enumerate(trainings):
        whole, steps, flushes = training.milliseconds().values()
        axes.bar(place, whole, color="0.8", label=None if place else "gather, errors")
        axes.bar(place, steps + flushes, color="0.5", label=None if place else "flushes")
        axes.bar(place, steps, color=WAYS[training.way])
        axes.annotate(f"{whole:.2f} ms", (place, whole), ha="center", va="bottom")
    axes.set_xticks(range(len(trainings)), [training.way for training in trainings])
    axes.set(title="A step (in colour: the optimizer)", ylabel="ms")
    axes.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train in each way, print the results, draw."""
    parser = argparse.ArgumentParser(description="Factorize ratings by dense gradients, by lazy and by exact rows.")
    parser.add_argument("--out", type=Path, default=Path("matrix_factorization.png"), help="the picture (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of ratings and first tables (default: %(default)s)")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    tastes = [rng.normal(0, 8**-0.25, (n, 8)) for n in (USERS, ITEMS)]  # a rating's variance is 1
    *batches, test = (draw_ratings(n, rng, tastes) for n in [BATCH] * STEPS + [TEST_SIZE])
    trainings = [Training(way, options.seed) for way in WAYS]
    for training in trainings:
        training.run(batches, test)
    measured = {}
    for training in trainings:
        parts, loss = training.milliseconds(), training.curve[-1][2]
        measured[training.way] = {"milliseconds a step": parts, "steps, seconds, loss": training.curve}
        told = ", ".join(f"{part} {value:.3g}" for part, value in parts.items())
        print(f"{training.way:10s} loss {loss:.4f}; milliseconds a step: {told}")
    dense, _, exact = (training.tables for training in trainings)
    same = all(one.tobytes() == other.tobytes() for one, other in zip(dense, exact, strict=True))
    print(f"exact rows and dense gradients: {'the same tables to the bit' if same else 'OTHER TABLES'}")
    options.out.with_suffix(".json").write_text(json.dumps(measured) + "\n")
    draw(trainings).savefig(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
