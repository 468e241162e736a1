"""Draws docs/pictures: what each optimizer does on Rosenbrock's valley, at four rates, and all of them side by side.
All pictures have the same axes, so that they can be compared. Run ``pip install '.[demo]' && python docs/pictures.py``.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fastadam

HERE = Path(__file__).with_name("pictures")
START, MINIMUM, STEPS = (-1.2, 1.0), (1.0, 1.0), 400
#: picture -> optimizer, its options, and four rates from too small to too large; the third fits
OPTIMIZERS = {
    "adam": (fastadam.Adam, {}, (0.03, 0.1, 0.3, 1.0)),
    "adamw": (fastadam.AdamW, {"weight_decay": 0.1}, (0.03, 0.1, 0.3, 1.0)),
    "adamax": (fastadam.Adamax, {}, (0.03, 0.1, 0.3, 1.0)),
    "adagrad": (fastadam.Adagrad, {}, (0.1, 0.3, 1.0, 3.0)),
    "rmsprop": (fastadam.RMSprop, {}, (0.003, 0.01, 0.03, 0.1)),
    "adadelta": (fastadam.Adadelta, {}, (0.3, 1.0, 3.0, 10.0)),
}
INK = "#808890"  # legible on white and on black, as the colours are: the background is left out
SLOW_TO_FAST = ("#3d8fe0", "#22a884", "#e09a1f", "#e0524a")
EACH = (*SLOW_TO_FAST, "#a368d9", "#d658a0")
STYLE = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "lines.linewidth": 1.5,
    "path.simplify_threshold": 0.5,  # smaller files
    "savefig.transparent": True,
    "svg.hashsalt": "fastadam",  # else every run would name the file's elements anew
}


def loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rosenbrock's function, its valley a little less steep than the original's."""
    return (1 - x) ** 2 + 20 * (y - x * x) ** 2


def gradient(p: np.ndarray) -> np.ndarray:
    """Of the loss."""
    x, y = p
    return np.array([-2 * (1 - x) - 80 * x * (y - x * x), 40 * (y - x * x)])


def descend(name: str, lr: float) -> np.ndarray:
    """The points that the optimizer visits, one a row."""
    cls, options, _ = OPTIMIZERS[name]
    p = np.array(START)
    opt = cls(p, lr=lr, **options)
    path = [p.copy()]
    for _ in range(STEPS):
        opt.step(gradient(p))
        path.append(p.copy())
    return np.array(path)


def averaged() -> dict[str, np.ndarray]:
    """The points of Adam with noisy gradients, and those of averages of them."""
    rng, p = np.random.default_rng(0), np.array(START)
    opt = fastadam.Adam(p, lr=0.1)
    averages = {
        "decay=0.9": fastadam.Average(p, 0.9),
        "decay=0.97": fastadam.Average(p, 0.97),
        "decay=None, first=150": fastadam.Average(p, None, first=150),
    }
    paths = {name: [p.copy()] for name in (*averages, "the weights")}
    for _ in range(STEPS):
        opt.step(gradient(p) + rng.normal(scale=8, size=2))
        paths["the weights"].append(p.copy())
        for name, average in averages.items():
            average.update()
            paths[name].append(average.params.copy())
    return {name: np.array(path) for name, path in paths.items()}


def draw(file: str, title: str, paths: dict[str, np.ndarray], colours: tuple[str, ...]) -> None:
    """One picture: the paths in the valley, and the loss at each step."""
    figure = Figure(figsize=(7.6, 3.1), layout="constrained")
    valley, curves = figure.subplots(1, 2, width_ratios=(1.2, 1))
    draw_valley(valley)
    for k, ((label, path), colour) in enumerate(zip(paths.items(), colours, strict=True)):
        valley.plot(*path.T, color=colour, linewidth=1.1, zorder=2.5 - k / 10)
        curves.semilogy(loss(*path.T), color=colour, label=label, zorder=2.5 - k / 10)
    valley.set_title(title)
    curves.set(xlim=(0, STEPS), ylim=(1e-4, 1e2), xlabel="step", title="loss")
    curves.grid(color=INK, alpha=0.2)
    figure.legend(loc="outside right center", labelcolor="linecolor", handlelength=1.2, frameon=False)
    figure.savefig(HERE / f"{file}.svg", metadata={"Date": None})


def draw_valley(axes: Axes) -> None:
    """Lines of equal loss, the start and the minimum."""
    x, y = np.meshgrid(np.linspace(-1.7, 1.7, 120), np.linspace(-0.7, 1.8, 120))
    axes.contour(x, y, np.log10(loss(x, y) + 0.01), 11, colors=INK, linewidths=0.6, alpha=0.45)
    axes.plot(*START, "o", color=INK, markersize=6)
    axes.plot(*MINIMUM, "*", color=INK, markersize=12, zorder=3)
    axes.set(xlim=(-1.7, 1.7), ylim=(-0.7, 1.8), aspect="equal", xticks=(), yticks=())
    axes.spines[:].set_visible(False)


def main() -> None:
    """Draw all of them."""
    HERE.mkdir(exist_ok=True)
    fitting = {}
    with mpl.rc_context(STYLE):
        for name, (cls, options, rates) in OPTIMIZERS.items():
            paths = {f"lr = {lr:g}": descend(name, lr) for lr in rates}
            chosen = ", ".join(f"{option}={value}" for option, value in options.items())
            draw(name, f"{cls.__name__}{f', {chosen}' if chosen else ''}", paths, SLOW_TO_FAST)
            fitting[f"{cls.__name__}, {list(paths)[2]}"] = list(paths.values())[2]
        draw("averages", "Adam, lr = 0.1, noisy gradients", averaged(), (*SLOW_TO_FAST[:3], INK))
        draw("all", "each at a rate that fits", fitting, EACH)


if __name__ == "__main__":
    main()
