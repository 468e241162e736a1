"""What fewer bytes bring: one Adam step of parameters and states in 32, 16 and 8 bits, beside peers and the limit.
Run `pip install '.[report]' && python bench/bits.py --out docs/reports --fill`: it writes bits.md, bits.json and
bits.png, and puts the tables that README.md and docs/ show into their places.

Each instruction set has a process of its own; within it the contestants of a case take turns.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from memory import MOST
from report import heading
from stored import (
    BITSANDBYTES,
    BLOCKS,
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
    costs,
    errors,
    in_a_process,
    limit_name,
    memory,
)

from fastadam.bench.measure import Row
from fastadam.bench.tables import duration, machine, tabled
from fastadam.kernel import backends

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from pictures import BLUE, GREEN, INK, RED, STYLE

ROOT = Path(__file__).parents[1]
#: elements; whole blocks of 256, since torchao takes 8 bits for no others
CACHED, LARGE, LARGEST = SIZES = (100_096, 10_000_128, 32_000_000)
RESIDENT = 100_000_000  #: parameters, of which the states' memory is measured
COLOURS = {"float32": BLUE, "bfloat16": GREEN, "int8": RED}
MARKERS = {"float32": "o", "bfloat16": "s", "bfloat16 with master": "D"}

#: what was to be reached: stored, against the fastest of, elements, times as fast at least; the last is AVX2's
GOALS = [
    (HALF_STATES, (PLAIN,), LARGE, 1.3, 1.25),
    (HALF_STATES, (PLAIN,), LARGEST, 1.3, 1.25),
    (HALF_STATES, (TORCH, DEEPSPEED), LARGE, 1.3, 1.3),
    (HALF_STATES, (TORCH, DEEPSPEED), LARGEST, 1.3, 1.3),
    (HALF, (PLAIN,), LARGEST, 1.7, 1.3),
    (HALF_STATES, (PLAIN,), CACHED, 1 / 1.3, 1 / 1.6),
    (BLOCKS, (PLAIN,), LARGEST, 1.0, 1.0),
    (BLOCKS, (LIMIT,), LARGEST, 0.8, 0.8),
    (BLOCKS, (BITSANDBYTES,), LARGEST, 5.0, 5.0),
    (BLOCKS, (TORCHAO,), LARGEST, 5.0, 5.0),
]


# ---------------------------------------------------------------- writing


class Found:
    """What was measured, to look up."""

    def __init__(self, measured: dict[str, Any]) -> None:
        self.cases, self.costs = measured["cases"], measured["costs"]
        self.errors, self.memory = measured["errors"], measured["memory"]
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
        return {row.name: row for row in rows}

    def limit(self, name: str) -> str:
        """The name of the roofline of what is stored so."""
        return limit_name(self.costs[name]["moved"])

    def faster(self, name: str, rivals: tuple[str, ...], size: int, isa: str | None = None) -> float | None:
        """How many times as fast as the fastest of others; peers are measured beside the best instruction set alone."""
        if size not in self.sizes:
            return None
        rows = self.rows(size) | self.rows(size, isa)
        named = [self.limit(name) if rival == LIMIT else rival for rival in rivals]
        there = [rows[rival].median for rival in named if rival in rows]
        return min(there) / rows[name].median if there else None


def markdown(measured: dict[str, Any]) -> str:
    """The page."""
    found = Found(measured)
    parts = heading("Fewer bytes", "bits.py --fill", measured["machine"])
    parts += [
        "One Adam step of one array, by how its parameters, gradients and states are stored; the first word is the"
    ]
    parts += [
        "parameters' and gradients' dtype. Medians of interleaved rounds. *Bytes* are what a step moves for an element;"
    ]
    parts += [f"GB/s counts them; *{LIMIT}* is a kernel that moves as many with almost no arithmetic, in the same run."]
    parts += ["Peers are installed by hand. The picture has the two best instruction sets.\n"]
    parts += ["![time against bytes](bits.png)\n", *goals(found)]
    for isa in found.isas:
        for n_threads in found.threads:
            for size in found.sizes:
                parts += table(found, size, isa, n_threads)
    parts += [*extras(found), *error_table(found), *memory_table(found)]
    return "\n".join(parts)


def goals(found: Found) -> list[str]:
    """What was to be reached, and what was; what falls short is bold."""
    lines = []
    for name, rivals, size, at_least, avx2 in GOALS:
        for isa in found.isas:
            wanted, reached = avx2 if isa == "v3" else at_least, found.faster(name, rivals, size, isa)
            if reached is not None and isa != "base":
                shown = f"{reached:.2f}" if reached >= wanted else f"**{reached:.2f}**"
                against = f"the {LIMIT} of its bytes" if rivals == (LIMIT,) else " or ".join(rivals)
                lines.append([name, against, f"{size:,}", isa, f"{wanted:.2f}", shown])
    head = ["stored", "times as fast as", "elements", "instruction set", "at least", "measured"]
    return [
        "## What it was to reach\n",
        f"{found.threads[-1]} threads. What falls short is bold.\n",
        *tabled(head, lines),
        "",
    ]


def table(found: Found, size: int, isa: str, n_threads: int) -> list[str]:
    """One case."""
    rows, lines = found.rows(size, isa, n_threads), []
    for row in rows.values():
        if row.name.startswith(LIMIT):
            continue
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
            cells += [f"{moved * size / row.median / 1e9:.1f}", share(found, rows, row.name)]
        lines.append(cells + [""] * (7 - len(cells)))
    head = ["stored", "bytes", "time a step", "ns an element", "as fast as float32", "GB/s", f"of {LIMIT}"]
    threads_ = "1 thread" if n_threads == 1 else f"{n_threads} threads"
    return [f"## {isa}, {threads_}, {size:,} elements\n", *tabled(head, lines), ""]


def share(found: Found, rows: dict[str, Row], name: str) -> str:
    """The part of what the machine could move."""
    limit_ = rows.get(found.limit(name))
    return f"{limit_.median / rows[name].median:.2f}" if limit_ else ""


def extras(found: Found) -> list[str]:
    """What options of a step add."""
    lines = []
    for isa in found.isas:
        for size in found.sizes:
            rows = found.rows(size, isa, kind="extras")
            for name in (PLAIN, HALF_STATES, BLOCKS):
                added = [
                    f"{(rows[f'{name}, {extra}'].median - rows[name].median) / size * 1e9:.3f}" for extra in EXTRAS
                ]
                lines.append([isa, f"{size:,}", name, f"{rows[name].median / size * 1e9:.3f}", *added])
    head = ["instruction set", "elements", "stored", "plain step", *EXTRAS]
    return [
        "## On top\n",
        "Nanoseconds an element: of a plain step, and what an option adds.\n",
        *tabled(head, lines),
        "",
    ]


def error_table(found: Found) -> list[str]:
    """How far states are off."""
    lines = [[name, *(f"{error[key]:.2%}" for key in ("m", "v", "step"))] for name, error in found.errors.items()]
    text = " ".join(errors.__doc__.split())
    return ["## Errors\n", f"{text}\n", *tabled(["stored", "m", "v", "step"], lines), ""]


def memory_table(found: Found) -> list[str]:
    """What states take."""
    lines = [[name, *(f"{figure:.3f}" for figure in figures)] for name, figures in found.memory.items()]
    return [
        "## Memory\n",
        "Bytes a parameter that Adam's states take: their arrays, what the process grew by, and by how much at the",
        "peak of its steps, with and without `max_norm`. At 8 bits it was to be at most",
        f"{MOST}; `python bench/memory.py {RESIDENT} int8` measures that alone.\n",
        *tabled(["stored", "arrays", "resident", "at the peak"], lines),
        "",
    ]


def tables(found: Found) -> dict[str, list[str]]:
    """Page -> the table that it shows."""
    cached, large = min(found.sizes), max(found.sizes)
    in_cache, in_memory = found.rows(cached), found.rows(large)

    def slower(name: str, size: int, isa: str | None = None) -> str:
        return f"{1 / found.faster(name, (PLAIN,), size, isa):.2f}"

    guide, by_isa, short = [], [], []
    for name, how in STORED.items():
        cost, error = found.costs[name], found.errors[name]["step"]
        bytes_ = [f"{cost[key]:.4g}" for key in ("kept", "moved")]
        guide.append([name, *bytes_, slower(name, cached), slower(name, large), f"{error:.1%}", how.when])
        each = [slower(name, size, isa) for size in (cached, large) for isa in found.isas]
        by_isa.append([name, bytes_[1], *each, share(found, in_cache, name), share(found, in_memory, name)])
    for name, rival in ((PLAIN, TORCH), (HALF_STATES, TORCH_HALF), (BLOCKS, BITSANDBYTES)):
        peer = f"{duration(in_memory[rival].median)} ({rival})" if rival in in_memory else ""
        short.append([name, f"{found.costs[name]['kept']:.3g}", duration(in_memory[name].median), peer])
    times = [f"{size:,}, {isa}" for size in (cached, large) for isa in found.isas]
    return {
        "docs/how-to/training.md": tabled(
            ["stored", "kept", "moved", f"time, {cached:,}", f"time, {large:,}", "error of a step", "when"], guide
        ),
        "docs/explanation/performance.md": tabled(
            ["stored", "bytes", *times, f"of {LIMIT}, {cached:,}", f"of {LIMIT}, {large:,}"], by_isa
        ),
        "README.md": tabled(
            [f"a step of {large:,} parameters, two threads", "bytes of states a parameter", "time", "a peer"], short
        ),
    }


def fill(path: Path, lines: list[str]) -> None:
    """Put a table between the two comments that a page has for it."""
    begin, end = "<!-- bench/bits.py -->\n", "<!-- end -->\n"
    head, rest = path.read_text().split(begin)
    path.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1])


def draw(found: Found, path: Path) -> None:
    """Time against bytes of the largest size, a panel for one thread and for all, with the line of the roofline."""
    size = max(found.sizes)
    with matplotlib.rc_context(STYLE | {"font.size": 11, "axes.titlesize": 12}):
        figure = Figure(figsize=(7 * len(found.threads), 5.5), layout="constrained", dpi=110)
        panels = np.atleast_1d(figure.subplots(1, len(found.threads)))
        for n_threads, axes in zip(found.threads, panels, strict=True):
            for isa, fill_style in zip(found.isas, ("full", "none"), strict=False):
                rows = found.rows(size, isa, n_threads)
                for name, cost in found.costs.items():
                    point = (cost["moved"], rows[name].median / size * 1e9)
                    axes.plot(*point, **looks(name), fillstyle=fill_style, ms=10, mew=1.5, ls="")
            rows = found.rows(size, n_threads=n_threads)
            for name, moved, above in ((TORCH, 28, 12), (TORCH_HALF, 14, 5), (DEEPSPEED, 28, -16)):
                if name in rows:
                    axes.plot(moved, rows[name].median / size * 1e9, "x", color=INK, ms=9, mew=2)
                    axes.annotate(
                        name,
                        (moved, rows[name].median / size * 1e9),
                        (-8, above),
                        textcoords="offset points",
                        ha="right",
                    )
            limits = [(cost["moved"], rows[found.limit(name)].median) for name, cost in found.costs.items()]
            per_byte = np.median([seconds / moved for moved, seconds in limits]) / size * 1e9
            axes.plot([0, 32], [0, 32 * per_byte], color=INK, lw=1, ls="--")
            title = f"{n_threads} thread{'s' if n_threads > 1 else ''}, {size:,} elements"
            axes.set(
                title=title, xlabel="bytes that a step moves for an element", ylabel="ns per element", xlim=(0, 32)
            )
            axes.set_ylim(0)
            axes.grid(alpha=0.25)
        figure.legend(handles=legend(found), loc="outside right center", frameon=False, labelcolor=INK)
        figure.savefig(path)


def looks(name: str) -> dict[str, Any]:
    """The colour of how states are stored, the marker of the parameters."""
    how = STORED[name]
    own = "bfloat16 with master" if how.options.get("master_weights") else np.dtype(how.params).name
    states = how.options.get("state_dtype", "float32")
    return {"color": COLOURS[states], "marker": MARKERS[own]}


def legend(found: Found) -> list[Line2D]:
    """What colours, markers, filling and the line mean."""
    how = {"ls": "", "ms": 9, "color": INK}
    return [
        *(
            Line2D([], [], marker="o", label=f"{states} states".replace("int8", "8-bit"), **how | {"color": c})
            for states, c in COLOURS.items()
        ),
        *(
            Line2D(
                [], [], marker=marker, label=f"{own} parameters".replace("master parameters", "master weights"), **how
            )
            for own, marker in MARKERS.items()
        ),
        *(
            Line2D([], [], marker="o", fillstyle=style, label=isa, **how)
            for isa, style in zip(found.isas, ("full", "none"), strict=False)
        ),
        Line2D([], [], color=INK, lw=1, ls="--", label=LIMIT),
    ]


def main() -> None:
    """Measure each instruction set in a process of its own, then write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report-output"), help="folder for the report")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="elements (default: %(default)s)")
    parser.add_argument("--resident", type=int, default=RESIDENT, help="parameters whose memory is measured")
    parser.add_argument("--fill", action="store_true", help="the tables of README.md and docs/, too")
    parser.add_argument("--again", action="store_true", help="measure nothing: write from the folder's bits.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "bits.json"
    if not options.again:
        measured = {
            "machine": machine(),
            "costs": {name: costs(name) for name in STORED},
            "errors": errors(),
            "memory": memory(options.resident),
            "cases": [one for isa in backends.available_isas() for one in in_a_process(isa, options.sizes)],
        }
        file.write_text(json.dumps(measured, indent=1) + "\n")
    measured = json.loads(file.read_text())
    for one in measured["cases"]:
        one["rows"] = [Row(**row) for row in one["rows"]]
    file.with_suffix(".md").write_text(markdown(measured))
    draw(Found(measured), file.with_suffix(".png"))
    if options.fill:
        for page, lines in tables(Found(measured)).items():
            fill(ROOT / page, lines)
    print(f"wrote {file.with_suffix('.md')} and what belongs to it")


if __name__ == "__main__":
    main()
