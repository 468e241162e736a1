"""Whether training with states of fewer bits ends where float32 states end: four tasks, five seeds each.
`python bench/lowbit.py --out FOLDER` writes lowbit.json; it fails where 8 bits end elsewhere.
With `--codes` it also compares the codes that 8 bits could be, by an Adam in NumPy.

The data come with scikit-learn. A seed chooses the first weights, the batches and the rounding.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from codes import CODES, Code, CodedAdam, error, nanoseconds
from results import arguments, write
from sklearn.datasets import load_breast_cancer, load_digits
from tqdm import tqdm

import fastadam
from fastadam.demo import Network

SEEDS = range(5)
STATES: dict[str, str | None] = {"float32": None, "bfloat16": "bfloat16", "int8": "int8"}
BATCH = 32
POINTS = 60  # of a curve: each is the mean of as many steps

# ---------------------------------------------------------------- the tasks


class Digits:
    """A perceptron on scikit-learn's digits, 64-64-10. Many pixels are always or nearly always 0."""

    def __init__(self, seed: int) -> None:
        x, self.labels = load_digits(return_X_y=True)
        self.x = (x / 16).astype(np.float32)
        self.network = Network([64, 64, 10], seed, np.float32)
        self.params, self.size = [self.network.parameters], len(x)

    def loss(self, rows: Any = slice(None)) -> tuple[float, list[np.ndarray]]:
        return self.network.loss(self.x[rows], self.labels[rows]), [self.network.grad]


class Words:
    """The next word of scikit-learn's descriptions of its data sets, from an embedding of this one.

    Half of the 1,400 words occur once, so half of the embedding's rows have a gradient once an epoch.
    """

    def __init__(self, seed: int) -> None:
        (self.now, self.following), rng = pairs_of_words(), np.random.default_rng(seed)
        shape = (int(self.now.max()) + 1, 16)
        self.params = [rng.normal(0, 0.3, s).astype(np.float32) for s in (shape, shape[::-1])]
        self.size = len(self.now)

    def loss(self, rows: Any = slice(None)) -> tuple[float, list[np.ndarray]]:
        table, out = self.params
        now, following = self.now[rows], self.following[rows]
        vectors = table[now]
        log_p = vectors @ out
        log_p -= log_p.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        error, each = np.exp(log_p), np.arange(len(now))
        error[each, following] -= 1
        error /= len(now)
        grad = np.zeros_like(table)
        np.add.at(grad, now, error @ out.T)
        return -float(log_p[each, following].mean()), [grad, vectors.T @ error]


@cache
def pairs_of_words() -> tuple[np.ndarray, np.ndarray]:
    """Each word's number, and that of the word after it."""
    texts = sorted(path.name for path in files("sklearn.datasets.descr").iterdir() if path.name.endswith(".rst"))
    text = "\n".join(files("sklearn.datasets.descr").joinpath(name).read_text("utf-8") for name in texts)
    _, words = np.unique(re.findall("[a-z]+", text.lower()), return_inverse=True)
    return words[:-1], words[1:]


class Regression:
    """20 columns of the breast-cancer data by a quadratic form of the other 10; the loss is the mean square.

    What is minimized weights the columns from 10^(-orders/2) to 10^(orders/2), in random order. To Adam that is the
    same problem, but the gradients of neighbours, in one block of 8-bit states, lie that far apart.
    """

    orders = 6

    def __init__(self, seed: int) -> None:
        columns = standard(load_breast_cancer().data)
        x, self.y = columns[:, :10], columns[:, 10:]
        i, j = np.triu_indices(10)
        self.x = standard(np.hstack([x, x[:, i] * x[:, j]]))
        self.weights = np.float32(10) ** np.linspace(-self.orders / 2, self.orders / 2, 20, dtype=np.float32)
        np.random.default_rng(99).shuffle(self.weights)
        shape = self.x.shape[1], 20
        self.params = [np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)]
        self.size = len(x)

    def loss(self, rows: Any = slice(None)) -> tuple[float, list[np.ndarray]]:
        x = self.x[rows]
        error = x @ self.params[0] - self.y[rows]
        return float((error * error).mean()), [x.T @ error * (self.weights / len(x))]


class WorstCase(Regression):
    """The regression over nine orders of magnitude: there a linear 8-bit code diverges, and others fall behind."""

    orders = 9


def standard(columns: np.ndarray) -> np.ndarray:
    return ((columns - columns.mean(axis=0)) / columns.std(axis=0)).astype(np.float32)


#: what is trained: name, the task, its learning rate, how many steps
TASKS: dict[str, tuple[Callable[[int], Any], float, int]] = {
    "digits": (Digits, 3e-3, 900),
    "words": (Words, 1e-2, 900),
    "regression, 6 orders": (Regression, 1e-2, 1500),
    "worst case, 9 orders": (WorstCase, 1e-2, 1500),
}

# ---------------------------------------------------------------- training


def batches(size: int, seed: int) -> Iterator[np.ndarray]:
    """Rows without end: all of them in another order each epoch."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(size)
        yield from np.split(order[: size - size % BATCH], size // BATCH)


def train(task: Any, step: Callable[[list[np.ndarray]], object], steps: int, seed: int) -> dict[str, Any]:
    """The loss over all data at the end, and the losses of the batches before."""
    losses = []
    for _, rows in zip(range(steps), batches(task.size, seed), strict=False):
        loss, grads = task.loss(rows)
        losses.append(loss)
        step(grads)
    curve = [float(part.mean()) for part in np.array_split(losses, min(POINTS, steps))]
    return {"final": task.loss()[0], "curve": curve}


def with_states(name: str, state_dtype: str | None, seed: int, steps: int | None = None) -> dict[str, Any]:
    """A training by fastadam's Adam."""
    make, lr, most = TASKS[name]
    task = make(seed)
    options: dict[str, Any] = {"min_8bit_size": 0} if state_dtype == "int8" else {}
    adam = fastadam.Adam(task.params, lr=lr, state_dtype=state_dtype, seed=seed, n_threads=1, **options)
    return train(task, adam.step, steps or most, seed)


def summary(runs: list[dict[str, Any]], of_float32: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the final losses, and whether their mean lies among the final losses of float32."""
    final, other = (np.array([run["final"] for run in group]) for group in (runs, of_float32))
    within = bool(other.min() <= final.mean() <= other.max())
    curves = np.array([run["curve"] for run in runs])
    drawn = {"curve": curves.mean(axis=0), "low": curves.min(axis=0), "high": curves.max(axis=0)}
    found = {"mean": float(final.mean()), "std": float(final.std(ddof=1)), "within": within}
    return found | {name: curve.tolist() for name, curve in drawn.items()}


def measure(tick: Callable[[], object]) -> dict[str, dict[str, dict[str, Any]]]:
    """Every task with every kind of states: a summary of its seeds."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in TASKS:
        runs: dict[str, list[dict[str, Any]]] = {states: [] for states in STATES}
        for states, seed in ((states, seed) for states in STATES for seed in SEEDS):
            runs[states].append(with_states(name, STATES[states], seed))
            tick()
        found[name] = {states: summary(of, runs["float32"]) for states, of in runs.items()}
    return found


# ---------------------------------------------------------------- the codes


def with_code(name: str, code: Code, seed: int, steps: int | None = None) -> dict[str, Any]:
    """A training by an Adam of these codes."""
    make, lr, most = TASKS[name]
    task = make(seed)
    with np.errstate(all="ignore"):  # what diverges shows as its loss
        return train(task, CodedAdam(task.params, lr, code, seed).step, steps or most, seed)


def compare(tick: Callable[[], object]) -> dict[str, dict[str, float]]:
    """For every code: its time, the errors of a rounding, and the mean final loss of each task."""
    found, times = {}, nanoseconds()
    for name, code in CODES.items():
        row = {"time, ns": times[code.loop], "error of m": error(code, True), "error of v": error(code, False)}
        for task in TASKS:
            losses = []
            for seed in SEEDS:
                losses.append(with_code(task, code, seed)["final"])
                tick()
            row[task] = float(np.mean(losses))
        found[name] = row
    return found


def main() -> None:
    """Measure, and write."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--codes", action="store_true", help="compare the codes that 8 bits could be, too: minutes, and gcc"
    )
    options = parser.parse_args()
    kinds = len(STATES) + len(CODES) * options.codes
    with tqdm(total=kinds * len(TASKS) * len(SEEDS), unit="training") as bar:
        measured: dict[str, Any] = {"losses": measure(bar.update)}
        if options.codes:
            measured["codes"] = compare(bar.update)
    write(options.out, "lowbit", measured)
    outside = [task for task, row in measured["losses"].items() if not row["int8"]["within"]]
    if outside:
        sys.exit(f"8 bits end outside of float32's spread: {', '.join(outside)}")


if __name__ == "__main__":
    main()
