"""``python -m fastadam bench``: one step beside every peer that is installed, on this machine."""

import argparse
import contextlib
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..base import Optimizer
from ..kernel import threads
from .contestants import OURS, chosen, of_fastadam, peers
from .measure import Contestant, Rounds, Row, arrays, measure
from .roofline import LIMIT, limit_of, streams
from .tables import HEAD, Table, aligned, case_lines, case_name, machine, tabled

SHAPES = "1x16,1x10k,100x1000,1x1M,1x10M"
LIBRARIES = ("numpy", "numba", "torch", "deepspeed", "thinc", "sklearn", "optax")
ROUNDS = 5, 101  # of each case: the fewest, and the most

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

# ---------------------------------------------------------------- the arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("--rule", type=_rule, default="adam", help="an optimizer, such as adamw, or a rule, such as sgd_momentum")
    add("--shapes", type=_shapes, default=SHAPES, help="arrays x elements of each array; k, M and G: 10^3, 10^6, 10^9")
    add(
        "--dtype",
        choices=("float32", "float64", "float16", "bfloat16"),
        default="float32",
        help="of parameters and gradients",
    )
    add(
        "--states",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="the dtype of fastadam's states; peers keep their own",
    )
    add("--threads", type=_whole, help="of fastadam, torch, DeepSpeed and Numba; each has its own default")
    add("--against", type=_libraries, default="auto", help=f"auto (all installed), none, or some of {_LISTED}")
    add("--seconds", type=_seconds, default="22", help="about how long all cases take; each has five rounds at least")
    for name in ("JSON", "Markdown"):
        help_ = f"write {name} to FILE; without FILE print it in place of the table"
        add(f"--{name.lower()}", nargs="?", const="-", type=_file, metavar="FILE", help=help_)
    add("--plot", type=_picture, metavar="FILE", help="draw the factors, as .png, .pdf or .svg; needs matplotlib")


_LISTED = ", ".join(LIBRARIES)


def _rule(text: str) -> tuple[str, type[Optimizer], dict[str, Any]]:
    try:
        return text, *chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no optimizer is called {text!r}; {error}") from None


def _shapes(text: str) -> list[tuple[int, int]]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)([kMG]?)\s*[x×]\s*(\d+)([kMG]?)\s*", part)
        count, size = (int(match[k]) * _UNITS[match[k + 1]] for k in (1, 3)) if match else (0, 0)
        if not count or not size:
            raise argparse.ArgumentTypeError(f"expected arrays x elements, as 100x1000 or 1x10M, got {part!r}")
        found.append((count, size))
    return found


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    if int(text) > (most := len(threads.affinity())):  # Numba refuses more, and torch may end the program
        raise argparse.ArgumentTypeError(f"expected at most {most}, the processors that there are, got {text}")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 86_400:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number of seconds, up to a day, got {text!r}")


def _libraries(text: str) -> tuple[str, ...]:
    if text in ("auto", "none"):
        return tuple(filter(importlib.util.find_spec, LIBRARIES)) if text == "auto" else ()
    given = tuple(text.split(","))
    for name in given:
        if name not in LIBRARIES:
            raise argparse.ArgumentTypeError(f"expected auto, none, or some of {_LISTED}, got {name!r}")
        if importlib.util.find_spec(name) is None:
            raise argparse.ArgumentTypeError(f"{name} is not installed; install it, or leave it out")
    return given


def _file(text: str) -> str:
    folder = Path(text).parent
    if not folder.is_dir() or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that there is, got {text!r}")
    return text


def _picture(text: str) -> str:
    if Path(text).suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"expected a file that ends in .png, .pdf or .svg, got {text!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("a picture needs matplotlib: pip install matplotlib")
    return _file(text)


# ---------------------------------------------------------------- measuring


class Bench:
    """What the arguments ask for, and what was measured: the rows of each case, with the bytes an element they move."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.rule, kind, options = given.rule
        self.dtype, self.states, self.n_threads = given.dtype, given.states, given.threads
        stored = None if given.states == "float32" else given.states
        self.plain = partial(kind, **options, n_threads=given.threads)
        self.make = partial(self.plain, state_dtype=stored)
        self.n_states = len(self.make(arrays(1, 1, self.dtype)[0]).core.groups.rules[0].states)
        found = [c for c in peers(kind, options) if c.needs in given.against and self.dtype in c.dtypes]
        self.left_out = {c.name: "its threads cannot be set" for c in found if c.needs == "optax" and given.threads}
        found = [c for c in found if c.name not in self.left_out]
        self.contestants = [Contestant(OURS, of_fastadam(self.make)), *found]
        self.cases: list[tuple[list[Row], dict[str, float]]] = []

    def need_memory(self, shapes: list[tuple[int, int]]) -> None:
        """Refuse a shape whose arrays, one set for each contestant, would not fit."""
        info = Path("/proc/meminfo")
        match = re.search(r"MemAvailable: *(\d+) kB", info.read_text()) if info.exists() else None
        for count, size in shapes:
            needed = len(self.contestants) * self.of_peers() * count * size
            if match and needed > 1024 * int(match[1]):
                raise MemoryError(
                    f"--shapes {count}x{size}: {len(self.contestants)} contestants take {needed / 1e9:,.0f} GB, and "
                    f"{int(match[1]) / 1e6:,.0f} are free; take a smaller one, or fewer contestants by --against"
                )

    def run(self, shapes: list[tuple[int, int]], seconds: float) -> None:
        """Measure every case, in about so many seconds in all."""
        begun = time.perf_counter()
        for k, (count, size) in enumerate(shapes):
            show_progress(k, len(shapes), case_name(count, size))
            rounds = Rounds(*ROUNDS, begun + seconds * (k + 1) / len(shapes))
            moved, others = moved_by(self.make, self.dtype, size), moved_by(self.plain, self.dtype, size)
            limit = limit_of(moved, self.n_states, self.n_threads)
            rows = measure([*self.contestants, limit], self.dtype, count, size, rounds, self.fail)
            of_names = {row.name: others if row.name.startswith(OURS) else self.of_peers() for row in rows}
            self.cases.append((rows, of_names | dict.fromkeys((OURS, LIMIT), moved)))
        show_progress(len(shapes), len(shapes), "done")

    def of_peers(self) -> float:
        """The bytes that a fused step reads and writes for each element, its states in the parameters' dtype."""
        return float(streams(self.n_states) * {"float64": 8, "float32": 4}.get(self.dtype, 2))

    def fail(self, name: str, error: Exception) -> None:
        """Leave out a peer that fails, and name it; where fastadam or the roofline fails, the program ends."""
        if name in (OURS, LIMIT):
            raise error
        self.left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]

    # ------------------------------------------------------------ what was measured, as text

    def text(self, table: Table, title: str) -> str:
        """Tables, and who was left out."""
        stored = "" if self.states == "float32" else f", {self.states} states"
        lines = [
            f"One {self.rule} step, {self.dtype}{stored}; fastadam on {self.n_threads or threads.default()} threads.",
            "Times are medians of interleaved rounds. GB/s counts what a fused step reads and writes. The roofline is",
            "a loop that reads and writes as much in the same run, with almost no arithmetic.",
        ]
        for rows, moved in self.cases:
            lines += ["", title.format(case_name(rows[0].count, rows[0].size)), ""]
            lines += table([f"{rows[0].rounds} rounds", *HEAD[1:]], case_lines(rows, moved))
        left_out = [f"{name} was left out: {why}" for name, why in self.left_out.items()]
        return "\n".join([*lines, *([""] if left_out else []), *left_out]) + "\n"

    def json(self) -> str:
        """All that was measured, as JSON."""
        asked = {"rule": self.rule, "dtype": self.dtype, "states": self.states, "threads": self.n_threads}
        cases = [{"bytes": moved, "rows": [asdict(row) for row in rows]} for rows, moved in self.cases]
        return json.dumps({**asked, "machine": machine(), "cases": cases, "left out": self.left_out}, indent=1) + "\n"


def moved_by(make: Callable[..., Optimizer], dtype: str, size: int) -> float:
    """The bytes of fastadam's step for each element: it reads all, and writes all but the gradient."""
    params, grads = arrays(1, min(size, 1 << 14), dtype)
    states: int = sum(array.nbytes for own in make(params).core.store.states for array in own.values())
    return (2 * (params[0].nbytes + states) + grads[0].nbytes) / params[0].size


def show_progress(done: int, total: int, what: str) -> None:
    """Draw a bar over the last one; where errors go to a file, write a line each time."""
    drawn = f"|{'█' * round(20 * done / total):<20}| {done}/{total} {what}"
    is_over = done == total or not sys.stderr.isatty()
    print(
        f"\r\x1b[K{drawn}" if sys.stderr.isatty() else drawn, end="\n" if is_over else "", file=sys.stderr, flush=True
    )


def use_threads(n: int) -> None:
    """Tell this number of threads to the installed peers that have threads."""
    for name in filter(importlib.util.find_spec, ("torch", "numba")):
        importlib.import_module(name).set_num_threads(n)


def run(given: argparse.Namespace) -> int:
    """The command, given its arguments; returns the exit status."""
    status = 0
    with contextlib.redirect_stdout(sys.stderr):  # what peers say of themselves
        try:
            bench = Bench(given)
            bench.need_memory(given.shapes)
            if given.threads and given.against:
                use_threads(given.threads)
        except (TypeError, ValueError, ImportError, MemoryError) as error:
            print(f"fastadam bench: {error}", file=sys.stderr)
            return 2
        try:
            bench.run(given.shapes, given.seconds)
        except KeyboardInterrupt:
            print("\nfastadam bench: interrupted; what follows was measured before", file=sys.stderr)
            status = 130
    return report(given, bench) or status


def report(given: argparse.Namespace, bench: Bench) -> int:
    """Write what was measured, where it was asked for; returns the exit status."""
    outputs = [(given.json, bench.json()), (given.markdown, bench.text(tabled, "## {}"))]
    if "-" not in (given.json, given.markdown):
        outputs.insert(0, ("-", bench.text(aligned, "{}")))
    try:
        for place, text in outputs:
            if place == "-":
                sys.stdout.write(text)
            elif place is not None:
                Path(place).write_text(text, "utf-8")
        if given.plot and bench.cases:
            from .plots import draw_factors

            draw_factors([rows for rows, _ in bench.cases], Path(given.plot))
    except OSError as error:
        print(f"fastadam bench: {error}", file=sys.stderr)
        return 2
    return 0
