"""Fewer bytes: page `bits`, and the tables and pictures of states in 32, 16 and 8 bits that others show."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from memory import MOST
from stored import (
    BITSANDBYTES,
    DEEPSPEED,
    EXTRAS,
    HALF,
    HALF_STATES,
    LIMIT,
    PLAIN,
    STORED,
    TORCH,
    TORCH_HALF,
    TORCHAO,
    errors,
    limit_name,
)
from stored import BLOCKS as EIGHT

from fastadam.bench.measure import Row
from fastadam.bench.plots import Theme
from fastadam.bench.tables import duration

from .drawing import figure, shown
from .source import Found, Lines, Reports, bold, by_name, page, source, table, threads

MARKERS = {"float32": "o", "bfloat16": "s", "bfloat16 with master": "D"}
PEERS = {TORCH: 28, TORCH_HALF: 14, DEEPSPEED: 28}  #: in the picture, and the bytes that they move for an element

#: what was to be reached: stored, against the fastest of, place in the list of sizes, times as fast at least; the last
#: is AVX2's
GOALS = [
    (HALF_STATES, (PLAIN,), 1, 1.3, 1.25),
    (HALF_STATES, (PLAIN,), 2, 1.3, 1.25),
    (HALF_STATES, (TORCH, DEEPSPEED), 1, 1.3, 1.3),
    (HALF_STATES, (TORCH, DEEPSPEED), 2, 1.3, 1.3),
    (HALF, (PLAIN,), 2, 1.7, 1.3),
    (HALF_STATES, (PLAIN,), 0, 1 / 1.3, 1 / 1.6),
    (EIGHT, (PLAIN,), 2, 1.0, 1.0),
    (EIGHT, (LIMIT,), 2, 0.8, 0.8),
    (EIGHT, (BITSANDBYTES,), 2, 5.0, 5.0),
    (EIGHT, (TORCHAO,), 2, 5.0, 5.0),
]


class Cases:
    """What was measured, to look up."""

    def __init__(self, measured: Found) -> None:
        self.cases, self.costs = measured["cases"], measured["costs"]
        self.isas, self.threads, self.sizes = (
            list(dict.fromkeys(one[key] for one in self.cases)) for key in ("isa", "threads", "size")
        )

    def rows(
        self, size: int, isa: str | None = None, n_threads: int | None = None, kind: str = "steps"
    ) -> dict[str, Row]:
        """The rows of a case by name, of the best instruction set and of all threads where none is given."""
        wanted = (kind, isa or self.isas[0], n_threads or self.threads[-1], size)
        (rows,) = (
            one["rows"] for one in self.cases if (one["kind"], one["isa"], one["threads"], one["size"]) == wanted
        )
        return by_name(rows)

    def limit(self, name: str) -> str:
        """The name of the roofline of what is stored so."""
        return limit_name(self.costs[name]["moved"])

    def faster(self, name: str, rivals: tuple[str, ...], size: int, isa: str | None = None) -> float | None:
        """How many times as fast as the fastest of others; peers are measured beside the best instruction set alone."""
        rows = self.rows(size) | self.rows(size, isa)
        named = [self.limit(name) if rival == LIMIT else rival for rival in rivals]
        there = [rows[rival].median for rival in named if rival in rows]
        return min(there) / rows[name].median if there else None

    def slower(self, name: str, size: int, isa: str | None = None) -> str:
        """The time as a multiple of float32's."""
        rows = self.rows(size, isa)
        return f"{rows[name].median / rows[PLAIN].median:.2f}"

    def share(self, rows: dict[str, Row], name: str) -> str:
        """The part of the roofline's speed."""
        limit = rows.get(self.limit(name))
        return f"{limit.median / rows[name].median:.2f}" if limit else ""


# ---------------------------------------------------------------- the page


def bits(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["bits"]
    found = Cases(measured)
    body = [*shown(where, "bits", "nanoseconds for each element against bytes moved for each element"), ""]
    body += goals(found)
    for isa in found.isas:
        for n_threads in found.threads:
            for size in found.sizes:
                body += case_table(found, size, isa, n_threads)
    body += [*extras(found), *error_table(measured), *memory_table(measured, where)]
    intro = [
        "One Adam step of one array, by how its parameters, gradients and states are stored. The first word is the",
        "dtype of parameters and gradients. Times are medians of interleaved rounds. *Bytes* are what a step moves",
        f"for each element, and GB/s counts them. The *{LIMIT}* is a kernel that moves as many bytes with almost no",
        "arithmetic, in the same run. Peers are installed by hand. v4 is AVX-512, v3 is AVX2, base is the baseline's",
        "instructions. The picture has the two best instruction sets.",
    ]
    return page("Fewer bytes", intro, "bits.py", measured, body)


def goals(found: Cases) -> Lines:
    """What was to be reached, and what was; what falls short is bold."""
    lines = []
    for name, rivals, place, at_least, avx2 in GOALS:
        for isa in found.isas:
            size = found.sizes[place]
            wanted, reached = avx2 if isa == "v3" else at_least, found.faster(name, rivals, size, isa)
            if reached is not None and isa != "base":
                against = f"the {LIMIT} of its bytes" if rivals == (LIMIT,) else " or ".join(rivals)
                shown_ = bold(f"{reached:.2f}", reached >= wanted)
                lines.append([name, against, f"{size:,}", isa, f"{wanted:.2f}", shown_])
    head = ["stored", "times as fast as", "elements", "instruction set", "at least", "measured"]
    return ["## Goals and results\n", f"{threads(found.threads[-1])}. What falls short is bold.\n", *table(head, lines)]


def case_table(found: Cases, size: int, isa: str, n_threads: int) -> Lines:
    """One case."""
    rows, lines = found.rows(size, isa, n_threads), []
    for row in (row for row in rows.values() if not row.name.startswith(LIMIT)):
        cells = [
            row.name,
            "",
            duration(row.median),
            f"{row.median / size * 1e9:.3f}",
            f"{rows[PLAIN].median / row.median:.2f}×",
        ]
        if row.name in STORED:
            moved = found.costs[row.name]["moved"]
            cells[1] = f"{moved:.4g}"
            cells += [f"{moved * size / row.median / 1e9:.1f}", found.share(rows, row.name)]
        lines.append(cells + [""] * (7 - len(cells)))
    head = ["stored", "bytes", "time a step", "ns an element", "as fast as float32", "GB/s", f"of {LIMIT}"]
    return [f"## {isa}, {threads(n_threads)}, {size:,} elements\n", *table(head, lines)]


def extras(found: Cases) -> Lines:
    """What options of a step add."""
    lines = []
    for isa in found.isas:
        for size in found.sizes:
            rows = found.rows(size, isa, kind="extras")
            for name in (PLAIN, HALF_STATES, EIGHT):
                plain = rows[name].median
                added = [f"{(rows[f'{name}, {extra}'].median - plain) / size * 1e9:.3f}" for extra in EXTRAS]
                lines.append([isa, f"{size:,}", name, f"{plain / size * 1e9:.3f}", *added])
    head = ["instruction set", "elements", "stored", "plain step", *EXTRAS]
    text = "Nanoseconds for each element: of a plain step, and what an option adds.\n"
    return ["## What options add\n", text, *table(head, lines)]


def error_table(measured: Found) -> Lines:
    """How far states are off."""
    lines = [[name, *(f"{error[key]:.2%}" for key in ("m", "v", "step"))] for name, error in measured["errors"].items()]
    return ["## Errors\n", f"{' '.join((errors.__doc__ or '').split())}\n", *table(["stored", "m", "v", "step"], lines)]


def memory_table(measured: Found, where: Path) -> Lines:
    """What states take."""
    lines = [[name, *(f"{figure:.3f}" for figure in figures)] for name, figures in measured["memory"].items()]
    return [
        "## Memory\n",
        *shown(where, "memory", "bytes of parameters, gradients and states for each parameter, by how they are stored"),
        "",
        "The table has what Adam's states take for each parameter, in bytes: their arrays, what the process grew by,",
        "and by how much at the peak of its steps, with and without `max_norm`. At 8 bits it was to be at most",
        f"{MOST}.\n",
        *table(["stored", "arrays", "resident", "at the peak"], lines),
    ]


# ---------------------------------------------------------------- blocks


def guide(reports: Reports, where: Path) -> Lines:
    """When to store how."""
    measured = reports["bits"]
    found, lines = Cases(measured), []
    cached, *_, large = found.sizes
    for name, how in STORED.items():
        cost = [f"{found.costs[name][key]:.4g}" for key in ("kept", "moved")]
        error = f"{measured['errors'][name]['step']:.1%}"
        lines.append([name, *cost, found.slower(name, cached), found.slower(name, large), error, how.when])
    head = ["stored", "kept", "moved", f"time, {cached:,}", f"time, {large:,}", "error of a step", "when"]
    return [*table(head, lines), *source(reports, where, "bits", "fewer bytes")]


def by_isa(reports: Reports, where: Path) -> Lines:
    """Times as multiples of float32's, by instruction set."""
    found, lines = Cases(reports["bits"]), []
    ends = (found.sizes[0], found.sizes[-1])
    for name in STORED:
        each = [found.slower(name, size, isa) for size in ends for isa in found.isas]
        shares = [found.share(found.rows(size), name) for size in ends]
        lines.append([name, f"{found.costs[name]['moved']:.4g}", *each, *shares])
    times = [f"{size:,}, {isa}" for size in ends for isa in found.isas]
    head = ["stored", "bytes", *times, *(f"of {LIMIT}, {size:,}" for size in ends)]
    return [*table(head, lines), *source(reports, where, "bits", "fewer bytes")]


def short(reports: Reports, where: Path) -> Lines:
    """Three kinds of states, each beside a peer."""
    found, lines = Cases(reports["bits"]), []
    size = found.sizes[-1]
    rows = found.rows(size)
    for name, rival in ((PLAIN, TORCH), (HALF_STATES, TORCH_HALF), (EIGHT, BITSANDBYTES)):
        peer = f"{duration(rows[rival].median)} ({rival})" if rival in rows else ""
        lines.append([name, f"{found.costs[name]['kept']:.3g}", duration(rows[name].median), peer])
    head = [f"a step of {size:,} parameters", "bytes of states for each", "time", "a peer"]
    return [*table(head, lines), *source(reports, where, "bits", "fewer bytes")]


# ---------------------------------------------------------------- pictures


def kinds(name: str) -> tuple[str, str]:
    """How parameters are stored, and how states are."""
    how = STORED[name]
    own = "bfloat16 with master" if how.options.get("master_weights") else np.dtype(how.params).name
    return own, how.options.get("state_dtype", "float32")


def draw_bits(measured: Found, theme: Theme) -> Figure:
    """Time against bytes of the largest size, a panel for one thread and for all, with the line of the roofline."""
    found = Cases(measured)
    size, colours = found.sizes[-1], dict(zip(("float32", "bfloat16", "int8"), theme.ours, strict=True))
    made, panels = figure(5 * len(found.threads) + 2, len(found.threads), sharex=True)
    for n_threads, axes in zip(found.threads, panels, strict=True):
        for isa, fill_style in zip(found.isas, ("full", "none"), strict=False):
            rows = found.rows(size, isa, n_threads)
            for name, cost in found.costs.items():
                own, states = kinds(name)
                how = {"color": colours[states], "marker": MARKERS[own], "fillstyle": fill_style, "ls": ""}
                axes.plot(cost["moved"], rows[name].median / size * 1e9, ms=11, mew=2, **how)
        rows = found.rows(size, n_threads=n_threads)
        for name, moved in PEERS.items():
            if name in rows:
                axes.plot(moved, rows[name].median / size * 1e9, "X", color=theme.of(name), ms=12, zorder=3)
        per_byte = np.median([rows[found.limit(name)].median / cost["moved"] for name, cost in found.costs.items()])
        axes.plot([0, 32], [0, 32 * per_byte / size * 1e9], color=theme.ink, lw=1.2, ls="--")
        axes.set(title=f"{threads(n_threads)}, {size:,} elements", ylabel="ns for each element", xlim=(0, 32))
        axes.set_ylim(0)
        axes.grid()
    panels[-1].set_xlabel("bytes that a step moves for each element")
    made.legend(handles=legend(found, theme, colours), loc="outside lower center", ncols=2, columnspacing=1)
    return made


def legend(found: Cases, theme: Theme, colours: dict[str, str]) -> list[Line2D]:
    """What colours, markers, filling and the line mean."""
    how = {"ls": "", "ms": 10, "color": theme.ink}
    states = [(f"{name} states".replace("int8", "8-bit"), {"marker": "o", "color": c}) for name, c in colours.items()]
    own = [(f"{name.replace('with master', 'and master')} weights", {"marker": m}) for name, m in MARKERS.items()]
    isas = [
        (isa, {"marker": "o", "fillstyle": filled}) for isa, filled in zip(found.isas, ("full", "none"), strict=False)
    ]
    rows = found.rows(found.sizes[-1])
    peers = [(name, {"marker": "X", "color": theme.of(name)}) for name in (TORCH, DEEPSPEED) if name in rows]
    line = [(LIMIT, {"ls": "--", "lw": 1.2})]
    return [Line2D([], [], label=label, **how | own_) for label, own_ in states + own + isas + peers + line]


def draw_memory(measured: Found, theme: Theme) -> Figure:
    """Bytes for each parameter: parameters, gradients, states; and the process's own count where it was taken."""
    names = list(STORED)[::-1]
    made, (axes,) = figure(0.5 * len(names) + 2)
    sizes = {name: (np.dtype(STORED[name].params).itemsize, np.dtype(STORED[name].grads).itemsize) for name in names}
    parts = {
        "parameters": (theme.greys[0], [sizes[name][0] for name in names]),
        "gradients": (theme.greys[1], [sizes[name][1] for name in names]),
        "states, master weights": (theme.ours[0], [measured["costs"][name]["kept"] for name in names]),
    }
    left = np.zeros(len(names))
    for part, (colour, widths) in parts.items():
        axes.barh(names, widths, left=left, color=colour, label=part, height=0.7)
        left += widths
    for name, whole in zip(names, left, strict=True):
        axes.text(whole + 0.2, name, f"{whole:.4g}", va="center")
    axes.set(xlabel="bytes for each parameter", xlim=(0, left.max() * 1.15))
    made.legend(loc="outside upper center", ncols=3, columnspacing=1)
    return made


PAGES = {"bits": bits}
BLOCKS = {"stored-guide": guide, "stored-speed": by_isa, "stored": short}
PICTURES = {"bits": ("bits", draw_bits), "memory": ("bits", draw_memory)}
