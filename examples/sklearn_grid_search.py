"""A grid search of scikit-learn's MLPClassifier on digits, whose worker processes train with fastadam.
The same search also runs with scikit-learn's own optimizer. The scores and the times are compared and drawn.
"""

import argparse
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.neural_network import MLPClassifier
from tqdm import tqdm

from fastadam.adapters.sklearn import accelerated

RATES = [1e-3, 3e-3, 1e-2]
DECAYS = [1e-4, 1e-2, 1.0]
EPOCHS = 12


class Search:
    """The mean accuracy of three folds for each rate and decay, the loss curve of the best rate for each decay, and the
    seconds."""

    def __init__(self, is_fast: bool) -> None:
        self.is_fast = is_fast
        self.scores = np.zeros((len(RATES), len(DECAYS)))
        self.curves: list[list[float]] = [[] for _ in DECAYS]
        self.seconds = 0.0

    def fit(self, x: np.ndarray, y: np.ndarray, point: dict[str, float]) -> GridSearchCV:
        """Search one point of the grid, in two worker processes."""
        model = MLPClassifier((64, 64), batch_size=64, max_iter=EPOCHS, random_state=0)
        grid = {name: [value] for name, value in point.items()}
        with accelerated() if self.is_fast else nullcontext():
            return GridSearchCV(model, grid, cv=3, n_jobs=2).fit(x, y)

    def note(self, x: np.ndarray, y: np.ndarray, point: dict[str, float]) -> None:
        """Search one point of the grid, and store the results."""
        start = perf_counter()
        found = self.fit(x, y, point)
        self.seconds += perf_counter() - start
        row, column = RATES.index(point["learning_rate_init"]), DECAYS.index(point["alpha"])
        if found.best_score_ > self.scores[:, column].max():
            self.curves[column] = found.best_estimator_.loss_curve_
        self.scores[row, column] = found.best_score_


def search(x: np.ndarray, y: np.ndarray) -> dict[str, Search]:
    """Both searches, in turns for each point, in worker processes that have already started."""
    made = {"stock": Search(False), "fastadam": Search(True)}
    points = list(ParameterGrid({"learning_rate_init": RATES, "alpha": DECAYS}))
    for one in made.values():
        one.fit(x[:100], y[:100], points[0])
    for k, point in enumerate(tqdm(points, unit="cell")):
        for one in list(made.values())[:: 1 if k % 2 else -1]:
            one.note(x, y, point)
    return made


def draw_scores(axes: Axes, title: str, scores: np.ndarray) -> None:
    """A map of accuracies, with the number in each cell."""
    axes.imshow(100 * scores, cmap="viridis", vmin=90, vmax=98, aspect="auto")
    for (row, column), score in np.ndenumerate(scores):
        colour = "black" if score > 0.955 else "white"
        axes.text(column, row, f"{100 * score:.2f} %", ha="center", va="center", color=colour, fontsize=13)
    axes.set_xticks(range(len(DECAYS)), [f"{decay:g}" for decay in DECAYS])
    axes.set_yticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    axes.set(title=title, xlabel="alpha, the L2 decay", ylabel="learning_rate_init")


def draw(results: dict[str, Search]) -> Figure:
    """Two maps of scores, the times of both searches, and the loss curves of both in one plot."""
    figure = Figure(figsize=(15, 9), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic("AB;TL", height_ratios=[1, 1])
    figure.suptitle("A grid search in two worker processes: the same scores, and the time of both")
    for place, (name, one) in zip("AB", results.items(), strict=True):
        draw_scores(axes[place], f"Mean accuracy of three folds, {name}", one.scores)
    bars = axes["T"].barh(list(results), [one.seconds for one in results.values()], color=["0.6", "tab:red"])
    axes["T"].bar_label(bars, fmt="%.1f s", padding=3)
    axes["T"].set(title="Time of the search", xlabel="seconds")
    axes["T"].invert_yaxis()
    axes["T"].margins(x=0.12)
    stock, ours = (one.curves for one in results.values())
    for decay, one, other, colour in zip(DECAYS, stock, ours, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        epochs = range(1, len(one) + 1)
        axes["L"].semilogy(epochs, one, color=colour, linewidth=6, alpha=0.3, label=f"alpha = {decay:g}, stock")
        axes["L"].semilogy(epochs, other, color=colour, linewidth=1.6, label="the same, fastadam")
    axes["L"].set(title="Training loss of the best rate", xlabel="epoch", ylabel="loss")
    axes["L"].grid(alpha=0.25)
    axes["L"].legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Search twice, compare, draw."""
    parser = argparse.ArgumentParser(description="A grid search with scikit-learn's Adam and with fastadam's.")
    parser.add_argument("--out", type=Path, default=Path("sklearn_grid_search.png"), help="the picture (%(default)s)")
    out = parser.parse_args(arguments).out
    x, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():  # scikit-learn passes the filter to its workers
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are enough to rank the cells
        results = search(x / 16, y)
    for name, one in results.items():
        row, column = np.unravel_index(one.scores.argmax(), one.scores.shape)
        best = f"{one.scores.max():.2%} at rate {RATES[row]:g}, decay {DECAYS[column]:g}"
        print(f"{name:<9}{one.seconds:6.1f} s, best accuracy {best}")
    stock, ours = results.values()
    print(f"largest difference of the accuracies: {np.abs(stock.scores - ours.scores).max():.2%}")
    draw(results).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
