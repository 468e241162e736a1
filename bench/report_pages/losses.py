"""Trainings with states of fewer bits: page `lowbit`."""

from pathlib import Path
from typing import Any

import numpy as np
from lowbit import STATES, TASKS
from matplotlib.figure import Figure

from fastadam.bench.plots import Theme

from .drawing import figure, plain_numbers, shown
from .source import Found, Lines, Reports, page, spelled, table

#: on the axis of losses, where they span more than a factor of ten, and where they do not
TICKS = {True: (0.03, 0.1, 0.3, 1.0), False: (0.3, 0.4, 0.6, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0)}


def lowbit(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["lowbit"]
    intro = [
        "Whether a training with states of 16 or 8 bits ends where one with float32 states ends: four tasks, five",
        "seeds each. Adam, batches of 32, every array's states in the dtype (`min_8bit_size=0`). The final loss is",
        "that over all data: mean ± standard deviation of the seeds. *Within*: the mean lies between the lowest and",
        "the highest final loss of float32's seeds.",
    ]
    body = [f"- **{name}**, {steps:,} steps at {lr:g}: {described(task)}" for name, (task, lr, steps) in TASKS.items()]
    body += [
        "",
        *loss_table(measured["losses"]),
        *shown(where, "lowbit", "losses of four tasks with states of 32, 16 and 8 bits"),
        "",
    ]
    if "codes" in measured:
        body += [
            "## Which code\n",
            "An Adam in NumPy whose states are rounded after each step, on the same tasks. Rounding is stochastic,",
            "unless the name says otherwise. With rounding to nearest, a second moment cannot change by a thousandth",
            "of itself. It stays as it is, and the training takes another course. *Time* is that of an element in a",
            "loop in C, `bench/codes.c`, in cache: both states are decoded, moved and encoded, in blocks of 256. The",
            "errors are those of one rounding: relative, root mean square, for gradients over six orders of",
            "magnitude.\n",
            *code_table(measured["codes"]),
        ]
    return page("Training with states of fewer bits", intro, "lowbit.py --codes", measured, body)


def described(task: Any) -> str:
    """What the class says of itself, in one line."""
    return spelled(" ".join((task.__doc__ or "").split()))


def loss_table(found: Found) -> Lines:
    """Final losses, and whether they are within those of float32."""
    others = list(STATES)[1:]
    lines = []
    for task, row in found.items():
        losses = [f"{cell['mean']:.4g} ± {cell['std']:.2g}" for cell in row.values()]
        lines.append([task, *losses, *("yes" if row[states]["within"] else "**no**" for states in others)])
    return table(["task", *STATES, *(f"{states} within?" for states in others)], lines)


def code_table(codes: dict[str, dict[str, float]]) -> Lines:
    """The codes that 8 bits could be."""
    lines = [
        [name, *(f"{value:.3g}" if value < 1000 else "diverges" for value in row.values())]
        for name, row in codes.items()
    ]
    return table(["code", *next(iter(codes.values()))], lines)


def draw(measured: Found, theme: Theme) -> Figure:
    """The losses of the batches, a panel a task: the mean of the seeds, and where float32's seeds lie."""
    found = measured["losses"]
    made, panels = figure(3.2 * len(found) + 0.8, len(found))
    looks = {"float32": (theme.greys[0], "-", 5), "bfloat16": (theme.ours[1], "-", 2), "int8": (theme.ours[0], "--", 2)}
    for axes, (task, row) in zip(panels, found.items(), strict=True):
        for states, cell in row.items():
            colour, line, width = looks[states]
            at = np.linspace(0, TASKS[task][2], len(cell["curve"]), endpoint=False)
            axes.plot(
                at,
                cell["curve"],
                line,
                color=colour,
                linewidth=width,
                label=f"{states} states".replace("int8", "8-bit"),
            )
            if states == "float32":
                axes.fill_between(at, cell["low"], cell["high"], color=colour, alpha=0.25, label="float32, all seeds")
        axes.set(title=task, ylabel="loss of the batches", yscale="log")
        low, high = axes.get_ylim()
        plain_numbers(axes.yaxis, TICKS[high > 10 * low])
        plain_numbers(axes.xaxis)
        axes.grid()
    panels[-1].set_xlabel("step")
    made.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return made


PAGES = {"lowbit": lowbit}
BLOCKS: dict[str, Any] = {}
PICTURES = {"lowbit": ("lowbit", draw)}
