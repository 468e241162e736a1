"""Draws every learning-rate schedule: the rate of each step, and the loss of Adam with this rate and noisy gradients.
A schedule that follows the loss gets the mean loss of each epoch of ten steps.
Run ``python examples/schedules.py [--out FILE]``. It needs Matplotlib.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fastadam
from fastadam.schedules import (
    Schedule,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    join,
    linear,
    one_cycle,
    plateau,
    polynomial,
    product,
    step,
    warmup,
)

STEPS, EPOCH = 300, 10
DIMENSIONS, START = 2000, 3.0

#: colours (Okabe and Ito's palette) of those that fall, those that warm up, and compositions
FALLING, WARMING, COMPOSED = "#0072B2", "#D55E00", "#009E73"
SCHEDULES: list[tuple[str, Schedule, str]] = [
    ("constant", constant(0.1), FALLING),
    ("linear", linear(0.1, 0.0, STEPS), FALLING),
    ("polynomial, power 3", polynomial(0.1, STEPS, power=3), FALLING),
    ("polynomial, power 0.5", polynomial(0.1, STEPS, power=0.5), FALLING),
    ("cosine", cosine(0.1, STEPS), FALLING),
    ("step", step(0.1, 100, factor=0.3), FALLING),
    ("exponential", exponential(0.1, 0.985), FALLING),
    ("inverse_sqrt", inverse_sqrt(0.1), FALLING),
    ("plateau", plateau(0.1, factor=0.3, patience=1), FALLING),
    ("warmup", warmup(0.1, 60), WARMING),
    ("one_cycle", one_cycle(0.1, STEPS), WARMING),
    ("join: warmup, then cosine", join([warmup(0.1, 60), cosine(0.1, STEPS - 60)], [60]), COMPOSED),
    ("join: cosine with restarts", join([cosine(0.1, 60), cosine(0.1, 90), cosine(0.1, 150)], [60, 150]), COMPOSED),
    ("join: warmup, then plateau", join([warmup(0.1, 60), plateau(0.1, factor=0.3, patience=1)], [60]), COMPOSED),
    ("product: warmup × inverse_sqrt", product([warmup(1.0, 50), inverse_sqrt(0.7)]), COMPOSED),
]


def descend(rate: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """The rate of each step of Adam, and the loss ½ x² before it, averaged over the dimensions. The gradients x have
    noise of variance 1."""
    rng = np.random.default_rng(0)
    x = np.full(DIMENSIONS, START)
    optimizer = fastadam.Adam(x, lr=rate)
    rates, losses = [], []
    for _ in range(STEPS):
        losses.append(np.mean(x * x) / 2)
        optimizer.step(x + rng.standard_normal(DIMENSIONS))
        rates.append(optimizer.rate)
        if rate.following and len(losses) % EPOCH == 0:
            rate.report(np.mean(losses[-EPOCH:]))
    return np.array(rates), np.array(losses)


def draw(runs: list[tuple[np.ndarray, np.ndarray]]) -> Figure:
    """A panel for each schedule."""
    figure = Figure(figsize=(20, 10), dpi=110, layout="constrained")
    figure.suptitle(
        f"Learning-rate schedules (filled), and the loss of Adam under them (line) over {STEPS} noisy steps\n"
        "Blue: falling rate. Orange: warm-up. Green: composed of others. Dotted line: the loss with a constant rate.",
        fontsize=14,
    )
    grid = figure.subplots(3, 5, sharex=True, sharey=True)
    for axes, (title, _, colour), (rates, loss) in zip(grid.flat, SCHEDULES, runs, strict=True):
        place = axes.get_subplotspec()
        draw_panel(axes, rates, loss, runs[0][1], colour, is_last=place.is_last_col())
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_title(f"loss {loss[-1]:.2g}", loc="right", fontsize=10, color="0.35")
        axes.label_outer()
    return figure


def draw_panel(
    axes: Axes, rates: np.ndarray, loss: np.ndarray, at_constant: np.ndarray, colour: str, is_last: bool
) -> None:
    """The rate on the left axis, the loss on a logarithmic right axis."""
    t = np.arange(1, STEPS + 1)
    axes.fill_between(t, rates, step="mid", color=colour, alpha=0.25, linewidth=0)
    axes.step(t, rates, where="mid", color=colour, linewidth=1.8)
    axes.set(xlabel="step t", ylabel="rate", xlim=(0, STEPS), ylim=(0, 0.118))
    right = axes.twinx()
    right.semilogy(t, at_constant, ":", color="0.45", linewidth=1.4)
    right.semilogy(t, loss, "-", color="0.1", linewidth=1.4)
    right.set(ylabel="loss" if is_last else "", ylim=(1e-3, 10))
    right.tick_params(which="both", right=is_last, labelright=is_last)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each schedule, and draw them all."""
    parser = argparse.ArgumentParser(description="Draw every learning-rate schedule.")
    parser.add_argument("--out", type=Path, default=Path("schedules.png"), help="the picture (default: %(default)s)")
    out = parser.parse_args(arguments).out
    runs = [descend(rate) for _, rate, _ in SCHEDULES]
    for (_, rate, _), (rates, loss) in zip(SCHEDULES, runs, strict=True):
        print(f"rate {rates[0]:<6.3g} -> {rates[-1]:<9.3g} loss {loss[0]:.3g} -> {loss[-1]:<8.3g} {rate}")
    draw(runs).savefig(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
