"""What was measured, and on what, as text: tables in Markdown or for a terminal."""

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..kernel import backends, threads
from .contestants import OURS
from .measure import Row
from .roofline import LIMIT

Table = Callable[[list[str], list[list[str]]], list[str]]
HEAD = ["", "time a step", "quartiles", f"{OURS} = 1", "GB/s", "of roofline"]
PEERS = ("numpy", "numba", "torch", "deepspeed", "thinc", "scikit-learn", "optax", "jax", "bitsandbytes", "torchao")


def duration(seconds: float) -> str:
    """Seconds with three digits in the unit that suits them."""
    seconds = float(f"{seconds:.3g}")
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.2g} s"


def times(factor: float) -> str:
    """A factor with three digits, or whole."""
    return f"{factor:,.0f}×" if factor >= 100 else f"{factor:.3g}×"


def shape_name(count: int, size: int) -> str:
    """A case as the tables call it."""
    return f"{count:,} × {size:,}"


def case_name(count: int, size: int) -> str:
    """A case as the headings call it."""
    return f"{count:,} {'array' if count == 1 else 'arrays'} of {size:,} elements"


def case_lines(rows: Iterable[Row], moved: Mapping[str, float]) -> list[list[str]]:
    """The lines of a case below HEAD, the fastest first; `moved` has, for each name, the bytes an element."""
    rows = sorted(rows, key=lambda row: row.median)
    ours, limit = (next((row.median for row in rows if row.name == name), None) for name in (OURS, LIMIT))
    return [
        [
            row.name,
            duration(row.median),
            f"{duration(row.low)} – {duration(row.high)}",
            times(row.median / ours) if ours else "",
            f"{moved[row.name] * row.count * row.size / row.median / 1e9:.1f}",
            f"{limit / row.median:.2f}" if limit else "",
        ]
        for row in rows
    ]


def tabled(head: list[str], lines: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def aligned(head: list[str], lines: list[list[str]]) -> list[str]:
    """The lines of a table for a terminal: the first column is left-aligned, the others are right-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return [
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip()
        for cells in (head, *lines)
    ]


def machine() -> dict[str, str]:
    """What this was measured on."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(": ")[2] if lines else model
    facts = {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "instruction set": backends.ISA,
        "threads": str(threads.default()),
        "fastadam": __version__,
    }
    for name in PEERS:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts
