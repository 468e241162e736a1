"""Steps of some rows of a table: page `rows`, and what others show."""

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rows import (
    DENSE,
    EXACT,
    FEW,
    FEW_DENSE,
    FEW_ROWS,
    LAZY,
    LAZY_ALONE,
    LIMIT,
    LIMIT_ALONE,
    NUMPY,
    SMALL,
    THREADS,
    TORCH,
    TORCH_TRAINED,
)
from rowwise import BAG, WIDTH

from fastadam.bench.measure import Row
from fastadam.bench.plots import Theme
from fastadam.bench.tables import duration, times

from .drawing import figure, plain_numbers, shown
from .source import Found, Lines, Reports, bold, by_name, page, source, table


class Aim(NamedTuple):
    """What was to be reached: at least so many times as fast as a rival, or at most so many times its time."""

    name: str
    rival: str
    bound: float
    at_most: bool = False

    def measured(self, rows: dict[str, Row]) -> float:
        mine, theirs = rows[self.name].median, rows[self.rival].median
        return mine / theirs if self.at_most else theirs / mine


AIMS = [
    Aim(LAZY, TORCH, 10),
    Aim(LAZY, NUMPY, 20),
    Aim(LAZY, DENSE, 300),
    Aim(LAZY, LIMIT, 0.7),
    Aim(EXACT, LAZY, 6, at_most=True),
    Aim(FEW_ROWS, FEW_DENSE, 3, at_most=True),
]


def rows_page(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["rows"]
    setting = measured["setting"]
    intro = [
        f"A step of Adam with {setting['given']:,} rows of a table of {setting['n_rows']:,} × {WIDTH} in float32, by",
        f"{THREADS} threads, beside PyTorch, NumPy, a step of the whole table and a roofline. The rows are drawn from",
        f"a seed by a power law: the k-th most frequent row has the frequency k^-{setting['exponent']}. On average a",
        f"batch has {setting['different']:,.0f} different rows. There are {setting['batches']:,} batches, which are",
        f"repeated in the same order. A row that comes back has missed {measured['lag']:.1f} steps, on average over",
        "all visits.",
        "",
        "Times are medians of interleaved rounds. Each contestant has a table of its own, and finds the caches as",
        "another has left them. The gradient is written anew before each step; writing it is not timed.",
    ]
    body = [*shown(where, "rows", "time of a step of some rows, each way"), "", *aims(measured), "## Steps\n"]
    body += [
        *in_order(measured["steps"], LAZY),
        f"*{NUMPY}* sums repeated rows in the fastest of the ways below. *{TORCH}* is given a sparse tensor that was",
        f"made before the step. *{DENSE}* steps all rows, by a gradient that is zero in all but those of the batch.",
        f"*{LIMIT}* is C that sums the same rows, reads and writes those of p, m and v, and does nothing else.",
        "It is told which rows have one number. Its threads come from the same kind of pool, so waking them costs",
        "the same.\n",
    ]
    if measured["training"]:
        body += [
            "## A step of training\n",
            f"An `EmbeddingBag` over as many rows, {BAG} a bag: forward pass, backward pass,",
        ]
        body += ["step.\n", *in_order(measured["training"], TORCH_TRAINED)]
    body += ["## Few rows\n", f"{FEW} rows of a table of {SMALL:,}, beside an array of as many elements.\n"]
    body += [
        *in_order(measured["few"], FEW_DENSE),
        "## What was tuned\n",
        "Of each list, the fastest takes part above.\n",
    ]
    for name, tuned in measured["tuned"].items():
        body += [f"{name}:\n", *in_order(tuned, tuned[0].name)]
    return page("Some rows of a table", intro, "rows.py", measured, body)


def aims(measured: Found) -> Lines:
    """The aims, and what was measured of each."""
    rows = by_name([*measured["steps"], *measured["few"]])
    lines = []
    for aim in (aim for aim in AIMS if aim.rival in rows):
        found = aim.measured(rows)
        is_met = found <= aim.bound if aim.at_most else found >= aim.bound
        what = "times its time, at most" if aim.at_most else "times as fast, at least"
        lines.append([aim.name, aim.rival, what, f"{aim.bound:g}", bold(f"{found:.3g}", is_met)])
    head = ["case", "against", "", "goal", "measured"]
    return ["## Goals and results\n", "What falls short is bold.\n", *table(head, lines)]


def in_order(rows: list[Row], first: str) -> Lines:
    """Times, the shortest first, and as multiples of one of them."""
    unit = by_name(rows)[first].median
    lines = [
        [row.name, duration(row.median), f"{duration(row.low)} – {duration(row.high)}", f"{row.median / unit:.2f}×"]
        for row in sorted(rows, key=lambda row: row.median)
    ]
    return table(["", "time a step", "quartiles", f"of {first}"], lines)


def block(reports: Reports, where: Path) -> Lines:
    """What a step of rows takes, in a list."""
    measured = reports["rows"]
    setting, rows = measured["setting"], by_name(measured["steps"])
    lazy = rows[LAZY].median
    named = {
        DENSE: "a step of the whole table",
        TORCH: "torch's `SparseAdam`",
        NUMPY: "tuned NumPy",
        EXACT: "exact rows",
    }
    named[LIMIT] = "a loop that only sums the same rows, and reads and writes those of p, m and v"
    lines = [
        [text, duration(rows[name].median), times(rows[name].median / lazy)]
        for name, text in named.items()
        if name in rows
    ]
    lines.insert(0, ["**lazy rows**", f"**{duration(lazy)}**", "1×"])
    return [
        f"The table measured has {setting['n_rows']:,} rows of {WIDTH}. A batch has {setting['given']:,} rows,",
        f"{setting['different']:,.0f} of them different. A row that comes back has missed {measured['lag']:.0f} steps",
        "on average.\n",
        *table(["", "time a step", "of lazy rows' time"], lines),
        *source(reports, where, "rows", "some rows of a table"),
    ]


def draw(measured: Found, theme: Theme) -> Figure:
    """A bar each way, on a logarithmic axis."""
    colours = {LAZY: theme.ours[0], LAZY_ALONE: theme.ours[2], EXACT: theme.ours[1], DENSE: theme.fill}
    colours |= {
        TORCH: theme.of("PyTorch"),
        NUMPY: theme.of("tuned NumPy"),
        LIMIT: theme.greys[0],
        LIMIT_ALONE: theme.greys[1],
    }
    rows = sorted(measured["steps"], key=lambda row: -row.median)
    made, (axes,) = figure(0.5 * len(rows) + 1.2)
    for row in rows:
        axes.barh(row.name, row.median * 1e3, color=colours[row.name], height=0.7)
        axes.text(row.median * 1.1e3, row.name, duration(row.median), va="center")
    axes.set(xlabel="ms of a step", xscale="log")
    plain_numbers(axes.xaxis)
    axes.set_xlim(rows[-1].median * 5e2, rows[0].median * 6e3)
    return made


PAGES = {"rows": rows_page}
BLOCKS = {"rows": block}
PICTURES = {"rows": ("rows", draw)}
