"""A grid search over scikit-learn's MLPClassifier on digits, its worker processes training with fastadam.
Both searches are timed, scikit-learn's own optimizer and fastadam's, and their scores compared; a picture shows them.
"""

import argparse
import os
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


def search(x: np.ndarray, y: np.ndarray, is_fast: bool) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Mean test accuracies (rate by decay) of three folds, seconds, and the loss curve of the best rate by decay."""
    model = MLPClassifier((128, 128), batch_size=64, max_iter=EPOCHS, random_state=0)
    grid = {"learning_rate_init": RATES, "alpha": DECAYS}
    cells = list(ParameterGrid(grid))
    scores, best, seconds = np.zeros((len(RATES), len(DECAYS))), {}, 0.0
    with accelerated() if is_fast else nullcontext():
        for point in tqdm(cells, desc="fastadam" if is_fast else "stock", unit="cell"):
            start = perf_counter()
            one = GridSearchCV(model, {name: [value] for name, value in point.items()}, cv=3, n_jobs=2)
            one.fit(x, y)
            seconds += perf_counter() - start
            rate, decay = point["learning_rate_init"], point["alpha"]
            scores[RATES.index(rate), DECAYS.index(decay)] = one.best_score_
            if one.best_score_ > best.get(decay, (0.0, None))[0]:
                best[decay] = (one.best_score_, one.best_estimator_.loss_curve_)
    return scores, seconds, [np.array(best[decay][1]) for decay in DECAYS]


def draw_scores(axes: Axes, title: str, scores: np.ndarray) -> None:
    """A map of accuracies, each number in its cell."""
    axes.imshow(100 * scores, cmap="viridis", vmin=90, vmax=98, aspect="auto")
    for (row, column), score in np.ndenumerate(scores):
        colour = "black" if score > 0.955 else "white"
        axes.text(column, row, f"{100 * score:.2f} %", ha="center", va="center", color=colour, fontsize=13)
    axes.set_xticks(range(len(DECAYS)), [f"{decay:g}" for decay in DECAYS])
    axes.set_yticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    axes.set(title=title, xlabel="alpha, the L2 decay", ylabel="learning_rate_init")


def draw(results: dict[str, tuple[np.ndarray, float, list[np.ndarray]]]) -> Figure:
    """Two maps of scores, the time of both searches, and the loss curves of both, one upon the other."""
    figure = Figure(figsize=(15, 9), dpi=110, layout="constrained")
    axes = figure.subplot_mosaic("AB;TL", height_ratios=[1, 1])
    figure.suptitle("A grid search in two worker processes: the same scores, in less time")
    for place, (name, (scores, *_)) in zip("AB", results.items(), strict=True):
        draw_scores(axes[place], f"Mean accuracy of three folds, {name}", scores)
    bars = axes["T"].barh(list(results), [seconds for _, seconds, _ in results.values()], color=["0.6", "tab:red"])
    axes["T"].bar_label(bars, fmt="%.1f s", padding=3)
    axes["T"].set(title="Time of the search", xlabel="seconds")
    axes["T"].invert_yaxis()
    axes["T"].margins(x=0.12)
    (_, _, stock), (_, _, ours) = results.values()
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
    warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs rank the cells well enough
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the worker processes, too
    x, y = load_digits(return_X_y=True)
    results = {"stock": search(x / 16, y, False), "fastadam": search(x / 16, y, True)}
    for name, (scores, seconds, _) in results.items():
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        best = f"{scores.max():.2%} at rate {RATES[row]:g}, decay {DECAYS[column]:g}"
        print(f"{name:<9}{seconds:6.1f} s, best accuracy {best}")
    (stock, slow, _), (ours, fast, _) = results.values()
    print(f"largest difference of the accuracies: {np.abs(stock - ours).max():.2%}; {slow / fast:.2f}x")
    draw(results).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
