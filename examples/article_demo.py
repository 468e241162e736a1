"""The demo of the article (see fastadam.adapters.article): a quadratic bowl, minimized by all of the article's
optimizers. Then the same bowl rotated, which shows that these optimizers scale each element separately.
Run ``python examples/article_demo.py [--out FILE]``. It needs scikit-learn, Matplotlib and tqdm.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from fastadam.adapters.article import AdaDelta, AdaGrad, Adam, AdaMax, RMSprop
from fastadam.plain import PlainAdam

CURVATURE, START = np.array([1.0, 50.0]), np.array([10.0, 10.0])  # the article's bowl, y₀² + 50 y₁²
STEPS, RATE, ANGLE = 100, 0.4, 30  # the article's number of steps and its rate; degrees
STRAIGHT, TURNED = "#0072B2", "#D55E00"

#: label -> optimizer of an object; the rate 0.4 is the article's, the others reach the minimum of the unrotated bowl
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "Adam, α = 0.4": lambda bowl: Adam(bowl, alpha=RATE),
    "Adam, α = 2 / √t": lambda bowl: Adam(bowl, alpha=2.0, alpha_decay=True),
    "AdaMax, α = 0.8": lambda bowl: AdaMax(bowl, alpha=0.8),
    "AdaGrad, α = 3": lambda bowl: AdaGrad(bowl, alpha=3.0),
    "RMSprop, α = 0.2": lambda bowl: RMSprop(bowl, alpha=0.2),
    "AdaDelta, ε = 0.1": lambda bowl: AdaDelta(bowl, epsilon=0.1),
}


class Bowl:
    """y₀² + 50 y₁², rotated by an angle, as an object for the article's classes: parameters, grad, and its
    computation."""

    def __init__(self, degrees: float) -> None:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        self.axes = np.array([[c, s], [-s, c]])
        self.parameters = START @ self.axes
        self.zero_grad()

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        self.grad = np.zeros(2)

    def calc_grad(self) -> None:
        """Add the gradient at the parameters. Without rotation it is the article's."""
        self.grad += 2 * CURVATURE * self.place() @ self.axes

    def place(self) -> np.ndarray:
        """The parameters along the bowl's own axes."""
        return self.axes @ self.parameters


def descend(make: Callable[[Any], Any], degrees: float = 0.0) -> np.ndarray:
    """The points that an optimizer visits, along the bowl's own axes. The loop is the article's."""
    bowl = Bowl(degrees)
    optimizer = make(bowl)
    path = [bowl.place()]
    for _ in range(STEPS):
        bowl.zero_grad()
        bowl.calc_grad()
        optimizer.step()
        path.append(bowl.place())
    return np.array(path)


def plain_adam(bowl: Bowl) -> PlainAdam:
    optimizer = PlainAdam(bowl)
    optimizer.alpha = RATE
    return optimizer


def loss(path: np.ndarray) -> np.ndarray:
    return path**2 @ CURVATURE


def draw(paths: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """A panel for each optimizer: its two paths over the contour lines, and their losses below."""
    figure = Figure(figsize=(14, 11), dpi=110, layout="constrained")
    figure.suptitle(
        f"The article's optimizers: {STEPS} steps on y₀² + 50 y₁², as it is and rotated by {ANGLE}°, along its axes\n"
        "They scale each element separately: the path is straight only if the bowl's axes are those of the elements",
        fontsize=14,
    )
    panels = figure.subplots(4, 3, height_ratios=[3, 1, 3, 1])
    for k, (label, pair) in enumerate(paths.items()):
        row, column = divmod(k, 3)
        draw_paths(panels[2 * row, column], pair)
        panels[2 * row, column].set_title(label, loc="left", fontsize=12)
        draw_losses(panels[2 * row + 1, column], pair)
    return figure


def draw_paths(axes: Axes, pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = np.linspace(-6, 14, 200), np.linspace(-4, 11, 200)
    f = np.add.outer(CURVATURE[1] * y**2, CURVATURE[0] * x**2)
    axes.contour(x, y, f, levels=np.geomspace(3, 6000, 10), colors="0.8", linewidths=0.8)
    for path, colour, what in zip(pair, (STRAIGHT, TURNED), ("as it is", "rotated"), strict=True):
        axes.plot(*path.T, "o-", color=colour, linewidth=1, markersize=4.5, alpha=0.6, markeredgewidth=0, label=what)
    axes.plot(0, 0, "+", color="black", markersize=12, zorder=3)
    axes.legend(loc="upper left")
    axes.set(xlabel="y₀", ylabel="y₁", aspect="equal", xticks=[-5, 0, 5, 10], yticks=[0, 5, 10])


def draw_losses(axes: Axes, pair: tuple[np.ndarray, np.ndarray]) -> None:
    for path, colour in zip(pair, (STRAIGHT, TURNED), strict=True):
        axes.semilogy(loss(path), color=colour, linewidth=1.8)
    axes.set(xlabel="iteration", ylabel="loss", xlim=(0, STEPS), ylim=(1e-6, 2e4))
    axes.grid(alpha=0.25)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each optimizer, compare Adam with the article's NumPy, and draw all paths."""
    parser = argparse.ArgumentParser(description="Draw the article's optimizers on its bowl, as it is and rotated.")
    parser.add_argument("--out", type=Path, default=Path("article_demo.png"), help="the picture (default: %(default)s)")
    out = parser.parse_args(arguments).out
    paths = {label: (descend(make), descend(make, ANGLE)) for label, make in tqdm(OPTIMIZERS.items(), unit="optimizer")}
    print(f"loss after {STEPS} steps           as it is  rotated by {ANGLE}°")
    for label, (straight, turned) in paths.items():
        print(f"{label:<24}{loss(straight)[-1]:>14.2g}{loss(turned)[-1]:>16.2g}")
    difference = np.abs(paths["Adam, α = 0.4"][0] - descend(plain_adam)).max()
    print(f"largest difference between the paths of Adam and of plain NumPy: {difference:.2g}")
    draw(paths).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
