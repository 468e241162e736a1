"""Draws docs/pictures: each optimizer at work on a problem that tells it from its relatives, and all in one valley.
Run ``pip install '.[demo]' && python docs/pictures.py``. No picture is wider than a phone's screen: the paths and the
losses are two files, which stand side by side where there is room.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fastadam
from fastadam import schedules
from fastadam.bench.plots import plain_style

HERE = Path(__file__).with_name("pictures")
RUNS = 64  #: of a problem with noise: one of them is drawn, and the mean loss of all
INK = "#808890"  # legible on white and on black, as the colours are: the background is left out
BLUE, GREEN, ORANGE, RED = "#3d8fe0", "#22a884", "#e09a1f", "#e0524a"
SLOW_TO_FAST, EACH = (BLUE, GREEN, ORANGE, RED), (BLUE, ORANGE, GREEN, RED)
STYLE = plain_style(INK) | {
    "axes.titlesize": 10,
    "font.size": 9,
    "lines.linewidth": 1.5,
    "path.simplify_threshold": 0.5,  # smaller files
}


# ---------------------------------------------------------------- what is descended


@dataclass(frozen=True)
class Problem:
    """A function of the plane, where it begins, what of it is seen, and for how long."""

    title: str
    loss: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], tuple[Any, Any]]
    start: tuple[float, float]
    minimum: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    steps: int
    losses: tuple[float, float]
    noise: float  #: the standard deviation of what is added to each gradient


def valley(title: str, steps: int = 400, losses: tuple[float, float] = (1e-4, 1e2), noise: float = 0.0) -> Problem:
    """Rosenbrock's, a little less steep than the original."""

    def loss(x: Any, y: Any) -> Any:
        return (1 - x) ** 2 + 20 * (y - x * x) ** 2

    def gradient(x: Any, y: Any) -> tuple[Any, Any]:
        return -2 * (1 - x) - 80 * x * (y - x * x), 40 * (y - x * x)

    return Problem(title, loss, gradient, (-1.2, 1.0), (1.0, 1.0), (-1.7, 1.7), (-0.7, 1.8), steps, losses, noise)


def bowl(
    steepness: float,
    title: str,
    start: tuple[float, float],
    x: tuple[float, float],
    y: tuple[float, float],
    steps: int,
    losses: tuple[float, float],
    turned: float = 0.0,
    noise: float = 0.0,
) -> Problem:
    """½ (a² + steepness · b²), with a and b the axes of the plane, or those at the angle `turned` to them."""
    axes = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
    (xx, xy), (_, yy) = axes.T @ np.diag([1.0, steepness]) @ axes

    def loss(x: Any, y: Any) -> Any:
        return (xx * x * x + 2 * xy * x * y + yy * y * y) / 2

    def gradient(x: Any, y: Any) -> tuple[Any, Any]:
        return xx * x + xy * y, xy * x + yy * y

    return Problem(title, loss, gradient, start, (0.0, 0.0), x, y, steps, losses, noise)


# ---------------------------------------------------------------- who descends it


@dataclass(frozen=True)
class Run:
    """An optimizer, its options, and what is looked at: its parameters, or a state that is an average of them."""

    cls: type[fastadam.Optimizer]
    options: dict[str, Any]
    look: str = ""
    noise: float | None = None  #: another than the problem's
    average: dict[str, Any] | None = None  #: options of an `Average`, to look at that


def descend(problem: Problem, run: Run) -> np.ndarray:
    """The points that it visits: steps, runs, (x, y)."""
    noise = problem.noise if run.noise is None else run.noise
    rng = np.random.default_rng(0)
    p = np.tile(np.array(problem.start, float), (RUNS if noise else 1, 1))
    opt = run.cls(p, **run.options)
    average = None if run.average is None else fastadam.Average(p, **run.average)
    path = [p.copy()]
    for _ in range(problem.steps):
        opt.step(np.stack(problem.gradient(*p.T), axis=1) + noise * rng.standard_normal(p.shape))
        if average is not None:
            average.update()
        path.append((opt.state[run.look][0] if run.look else p if average is None else average.params).copy())
    return np.array(path)


# ---------------------------------------------------------------- one optimizer, at four rates

#: picture -> optimizer, its options, and four rates from too small to too large
AT_RATES = {
    "adam": (fastadam.Adam, {}, (0.03, 0.1, 0.3, 1.0)),
    "adamw": (fastadam.AdamW, {"weight_decay": 0.1}, (0.03, 0.1, 0.3, 1.0)),
    "adamax": (fastadam.Adamax, {}, (0.03, 0.1, 0.3, 1.0)),
    "adagrad": (fastadam.Adagrad, {}, (0.1, 0.3, 1.0, 3.0)),
    "rmsprop": (fastadam.RMSprop, {}, (0.003, 0.01, 0.03, 0.1)),
    "adadelta": (fastadam.Adadelta, {}, (0.3, 1.0, 3.0, 10.0)),
}

# ---------------------------------------------------------------- one optimizer beside its relatives

#: picture -> the problem, and who is drawn on it, by label; the page's own optimizer comes first
BESIDE: dict[str, tuple[Problem, dict[str, Run]]] = {
    "sgd": (
        bowl(30, "a bowl, one axis 30 times as steep", (-3, 1), (-3.3, 1.6), (-1.3, 1.3), 100, (1e-6, 1e2)),
        {
            "Nesterov's": Run(fastadam.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
            "momentum": Run(fastadam.SGD, {"lr": 0.02, "momentum": 0.9}),
            "plain": Run(fastadam.SGD, {"lr": 0.02}),
        },
    ),
    "nadam": (
        bowl(30, "a turned bowl, 30 times as steep across", (-3, 0.5), (-3.3, 1.3), (-1.9, 1.2), 200, (1e-9, 1e2), 0.6),
        {"NAdam": Run(fastadam.NAdam, {"lr": 0.3}), "Adam": Run(fastadam.Adam, {"lr": 0.3})},
    ),
    "radam": (
        bowl(4, "begun near the minimum", (0.03, 0.03), (-0.1, 0.1), (-0.085, 0.085), 60, (1e-5, 1e-1), noise=0.03),
        {
            "RAdam": Run(fastadam.RAdam, {"lr": 0.1}),
            "Adam": Run(fastadam.Adam, {"lr": 0.1}),
            "Adam, warm-up": Run(fastadam.Adam, {"lr": schedules.warmup(0.1, 30)}),
        },
    ),
    "asgd": (
        bowl(4, "a bowl, noisy gradients", (-3, 1.5), (-3.3, 1.5), (-1.1, 1.7), 400, (1e-3, 1e1), noise=2),
        {
            "ASGD, t0=50": Run(fastadam.ASGD, {"lr": 0.1, "lambd": 0, "t0": 50}, look="ax"),
            "ASGD, t0=0": Run(fastadam.ASGD, {"lr": 0.1, "lambd": 0, "t0": 0}, look="ax"),
            "SGD": Run(fastadam.SGD, {"lr": 0.1}),
            "SGD, lr / √t": Run(fastadam.SGD, {"lr": schedules.inverse_sqrt(0.1)}),
        },
    ),
    "averages": (
        bowl(4, "Adam, noisy gradients", (-3, 1.5), (-3.3, 1.5), (-1.1, 1.7), 400, (1e-2, 1e1), noise=4),
        {
            "decay=0.9": Run(fastadam.Adam, {"lr": 0.1}, average={"decay": 0.9}),
            "decay=0.97": Run(fastadam.Adam, {"lr": 0.1}, average={"decay": 0.97}),
            "equal, first=150": Run(fastadam.Adam, {"lr": 0.1}, average={"decay": None, "first": 150}),
            "the weights": Run(fastadam.Adam, {"lr": 0.1}),
        },
    ),
    "rprop": (
        bowl(100, "a bowl, one axis 100 times as steep", (-3, 1), (-3.3, 1.2), (-1.1, 1.1), 150, (1e-11, 1e3)),
        {
            "Rprop": Run(fastadam.Rprop, {"lr": 0.1}),
            "Rprop, noisy": Run(fastadam.Rprop, {"lr": 0.1}, noise=3),
            "Adam": Run(fastadam.Adam, {"lr": 0.1}),
            "Adam, noisy": Run(fastadam.Adam, {"lr": 0.1}, noise=3),
        },
    ),
    "lion": (
        bowl(10, "a bowl, one axis 10 times as steep", (-2.87, 1.13), (-3.2, 2.2), (-1.3, 1.4), 150, (1e-5, 1e2)),
        {
            "Lion, 0.1 to 0": Run(fastadam.Lion, {"lr": schedules.linear(0.1, 0.0, 150)}),
            "Lion, 0.1": Run(fastadam.Lion, {"lr": 0.1}),
            "Adam, 0.1": Run(fastadam.Adam, {"lr": 0.1}),
            "SGD, 0.05": Run(fastadam.SGD, {"lr": 0.05}),
        },
    ),
    "ademamix": (
        valley("the valley, noisy gradients", steps=1500, losses=(1e-2, 1e1), noise=5),
        {
            "AdEMAMix": Run(fastadam.AdEMAMix, {"lr": 0.003, "betas": (0.9, 0.999, 0.99)}),
            "Adam": Run(fastadam.Adam, {"lr": 0.003}),
            "Adam, 6 lr": Run(fastadam.Adam, {"lr": 0.018}),
        },
    ),
    "schedulefreeadamw": (
        bowl(4, "a bowl, noisy gradients", (-3, 1.5), (-3.3, 1.2), (-0.9, 1.7), 1000, (5e-3, 1e1), noise=2),
        {
            "schedule-free": Run(fastadam.ScheduleFreeAdamW, {"lr": 0.1}, look="x"),
            "AdamW": Run(fastadam.AdamW, {"lr": 0.1, "weight_decay": 0}),
            "cosine of 400": Run(fastadam.AdamW, {"lr": schedules.cosine(0.1, 400), "weight_decay": 0}),
            "cosine of 1000": Run(fastadam.AdamW, {"lr": schedules.cosine(0.1, 1000), "weight_decay": 0}),
        },
    ),
}

# ---------------------------------------------------------------- all in one valley

#: those of `AT_RATES` are drawn at the third of theirs
OTHERS = {
    "SGD": Run(fastadam.SGD, {"lr": 0.005, "momentum": 0.9, "nesterov": True}),
    "NAdam": Run(fastadam.NAdam, {"lr": 0.05}),
    "RAdam": Run(fastadam.RAdam, {"lr": 0.03}),
    "ADOPT": Run(fastadam.ADOPT, {"lr": 0.3}),
    "AdEMAMix": Run(fastadam.AdEMAMix, {"lr": 0.1}),
    "ScheduleFree": Run(fastadam.ScheduleFreeAdamW, {"lr": 0.2}, look="x"),
    "Lion": Run(fastadam.Lion, {"lr": 0.007}),
    "ASGD": Run(fastadam.ASGD, {"lr": 0.01}),
    "Rprop": Run(fastadam.Rprop, {"lr": 0.1}),
}


def draw_all() -> None:
    """Each optimizer's path in a valley of its own, and the loss where it ends."""
    own = {cls.__name__: Run(cls, options | {"lr": lrs[2]}) for cls, options, lrs in AT_RATES.values()}
    figure = Figure(figsize=(4.9, 7.6), layout="constrained")
    for axes, (label, run) in zip(figure.subplots(5, 3).flat, (own | OTHERS).items(), strict=True):
        problem = valley("")
        path = descend(problem, run)[:, 0]
        draw_plane(axes, problem, fineness=60, lines=5, size=0.6)
        axes.plot(*path.T, color=BLUE, linewidth=1.1)
        axes.set_title(f"{label}, {run.options['lr']:g}\nloss {problem.loss(*path[-1]):.0e}", fontsize=8)
    save(figure, "all")


# ---------------------------------------------------------------- ADOPT: where a small β₂ leads Adam away


def draw_adopt(steps: int = 3000) -> None:
    """One parameter between -1 and 1 whose gradient is 12 once in ten times, else -1: on average 0.3."""
    figure = Figure(figsize=(3.9, 5.6), layout="constrained")
    grads = np.where(np.random.default_rng(0).random((steps, RUNS)) < 0.1, 12.0, -1.0)
    shown = {
        "ADOPT, use_clipping=False": (fastadam.ADOPT, {"use_clipping": False}),
        "ADOPT": (fastadam.ADOPT, {}),
        "Adam": (fastadam.Adam, {}),
    }
    panels = figure.subplots(3, 1, sharex=True)
    figure.supylabel("parameter", fontsize=9)
    for axes, (title, (cls, options)) in zip(panels, shown.items(), strict=True):
        for beta2, colour in zip((0.1, 0.5, 0.9, 0.99), EACH, strict=True):
            p = np.zeros(RUNS)
            opt = cls(p, lr=0.01, betas=(0.9, beta2), bounds=(-1, 1), **options)
            means = [p.mean()]
            for g in grads:
                opt.step(g)
                means.append(p.mean())
            axes.plot(means, color=colour, label=f"β₂ = {beta2:g}" if title == "Adam" else None)
        axes.set(xlim=(0, steps), ylim=(-1.05, 1.05), xticks=(0, 1500, 3000), yticks=(-1, 0, 1))
        axes.set_title(title, fontsize=9)
        axes.grid(color=INK, alpha=0.2)
    panels[-1].set_xlabel("step")
    save(figure, "adopt")


# ---------------------------------------------------------------- the drawing


def draw(file: str, problem: Problem, runs: dict[str, Run], colours: tuple[str, ...]) -> None:
    """Two pictures: the paths over lines of equal loss, and the loss at each step."""
    (paths, plane), (losses, curves) = panel(), panel()
    draw_plane(plane, problem)
    for k, ((label, run), colour) in enumerate(zip(runs.items(), colours, strict=False)):
        path, order = descend(problem, run), 2.5 - k / 10
        plane.plot(*path[:, 0].T, color=colour, linewidth=0.7 if problem.noise else 1.1, zorder=order)
        means = problem.loss(*np.moveaxis(path, -1, 0)).mean(axis=1)
        curves.semilogy(means, color=colour, label=label, zorder=order)
    plane.set_title(problem.title)
    curves.set(xlim=(0, problem.steps), ylim=problem.losses, xlabel="step", title="loss")
    curves.grid(color=INK, alpha=0.2)
    save(paths, file)
    save(losses, f"{file}-loss")


def panel() -> tuple[Figure, Axes]:
    """A figure of which two fit beside one another in a page, and one on a phone."""
    figure = Figure(figsize=(3.7, 3.1), layout="constrained")
    return figure, figure.subplots()


def draw_plane(axes: Axes, problem: Problem, fineness: int = 120, lines: int = 11, size: float = 1.0) -> None:
    """Lines of equal loss, the start and the minimum."""
    x, y = np.meshgrid(np.linspace(*problem.x, fineness), np.linspace(*problem.y, fineness))
    loss = problem.loss(x, y)
    heights = np.log10(loss + loss.max() / 2e4)
    axes.contour(x, y, heights, lines, colors=INK, linewidths=0.6, alpha=0.45, linestyles="solid")
    axes.plot(*problem.start, "o", color=INK, markersize=6 * size)
    axes.plot(*problem.minimum, "*", color=INK, markersize=12 * size, zorder=3)
    axes.set(xlim=problem.x, ylim=problem.y, xticks=(), yticks=())
    axes.spines[:].set_visible(False)


def save(figure: Figure, file: str) -> None:
    """With a legend below the picture, where lines have labels."""
    if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
        figure.legend(loc="outside lower center", ncols=2, labelcolor="linecolor", handlelength=1.2, frameon=False)
    figure.savefig(HERE / f"{file}.svg", metadata={"Date": None})


def main() -> None:
    """Draw all of them."""
    HERE.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, (cls, options, lrs) in AT_RATES.items():
            title = ", ".join((cls.__name__, *(f"{option}={value}" for option, value in options.items())))
            draw(name, valley(title), {f"lr = {lr:g}": Run(cls, options | {"lr": lr}) for lr in lrs}, SLOW_TO_FAST)
        for name, (problem, runs) in BESIDE.items():
            draw(name, problem, runs, EACH)
        draw_adopt()
        draw_all()


if __name__ == "__main__":
    main()
