"""Measures fastadam beside every installed peer and writes a report: Markdown, JSON and pictures.
Run `pip install '.[report]' && python bench/report.py --out FOLDER`; a peer that is not installed is left out.
What every rule takes is a page of its own; ``--rules`` measures that alone.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contestants import (
    BY_RULE,
    CONTESTANTS,
    Contestant,
    PythonThreads,
    Step,
    arrays,
    of_class,
    of_fastadam,
    rule_contestants,
)
from matplotlib.figure import Figure
from roofline import roofline, streams
from tqdm import tqdm
from training import WAYS

import fastadam
from fastadam.kernel import backends, threads
from fastadam.rules import RULES

OURS, ONE, LIMIT = "fastadam", "fastadam, 1 thread", "roofline"
SHAPES = [(1, 16), (1, 1_000), (1, 10_000), (1, 100_000), (1, 1_000_000), (1, 10_000_000), (1, 32_000_000)]
SHAPES += [(100, 16), (100, 1_000), (1_000, 1_000)]
RULE_SHAPES = [(1, 1_000_000), (100, 1_000), (1, 32_000_000)]
LOOPS = [(512, 512), (512,)]
PEERS = ("numpy", "numba", "torch", "deepspeed", "thinc", "scikit-learn", "optax", "jax", "bitsandbytes", "torchao")


@dataclass
class Row:
    """What one contestant took for one step: seconds, the median and the quartiles of the rounds."""

    dtype: str
    count: int
    size: int
    name: str
    median: float
    low: float
    high: float
    rounds: int


class Turn(NamedTuple):
    """What a contestant does in a round: something that is not timed, given the round, and so many calls of a step."""

    step: Step
    before: Callable[[int], object]
    calls: int = 1


def field(dtype: str) -> list[Contestant]:
    """Who takes part, fastadam first."""
    extra = [
        Contestant(ONE, of_fastadam(n_threads=1)),
        Contestant("fastadam, Python threads", of_class(PythonThreads)),
        Contestant(LIMIT, roofline, "numba"),
        Contestant(f"{LIMIT}, 1 thread", lambda params, grads: roofline(params, grads, 1), "numba"),
    ]
    return [c for c in [CONTESTANTS[0], *extra, *CONTESTANTS[1:]] if c.installed and dtype in c.dtypes]


def rule_field(rule: str) -> list[Contestant]:
    """Who takes part in a row of the table of rules."""
    limit = partial(roofline, n_states=len(RULES[rule].states))
    return [*rule_contestants(rule), Contestant(LIMIT, limit)]


def measure(contestants: list[Contestant], dtype: str, count: int, size: int) -> list[Row]:
    """Every contestant's step in turn, in an order shuffled anew each round."""
    total = count * size
    turns: dict[str, Turn] = {}
    for contestant in contestants:
        if count <= contestant.max_arrays:
            step = contestant.make(*arrays(count, size, dtype))
            step()
            calls = max(1, min(2_000, int(2e-3 / timed(step, 3))))
            turns[contestant.name] = Turn(step, lambda k, step=step: step(), calls)
    return in_turn(turns, 7 if total > 5_000_000 else 21, dtype, count, size)


def in_turn(turns: dict[str, Turn], rounds: int, dtype: str, count: int, size: int) -> list[Row]:
    """Every turn, in an order shuffled anew each round: what a call of its step takes."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    order = random.Random(0)
    for k in range(rounds):
        for name in order.sample(list(turns), len(turns)):
            turn = turns[name]
            time.sleep(2e-3)  # other libraries' threads spin for a while after their work
            turn.before(k)
            seconds[name].append(timed(turn.step, turn.calls))
    return [
        Row(dtype, count, size, name, *np.quantile(taken, [0.5, 0.25, 0.75]), rounds) for name, taken in seconds.items()
    ]


def timed(step: Step, calls: int) -> float:
    """Seconds of one call, over `calls` of them."""
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def training(rounds: int, tick: Callable[[], object]) -> dict[str, dict[str, list[float]]]:
    """Seconds of whole fits in fresh processes, each way in turn."""
    taken: dict[str, dict[str, list[float]]] = {}
    for hidden in LOOPS:
        by_way = taken[str(hidden)] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, str(Path(__file__).with_name("training.py")), way, *map(str, hidden)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                by_way[way].append(float(done.stdout.split()[0]))
                tick()
    return taken


def instruction_sets(rounds: int, tick: Callable[[], object]) -> dict[str, list[list[float]]]:
    """Nanoseconds an element, float32 and float64, of each instruction set, each in a process of its own, in turn."""
    taken: dict[str, list[list[float]]] = {isa: [] for isa in backends.available_isas()}
    for _ in range(rounds):
        for isa, values in taken.items():
            command = [sys.executable, str(Path(__file__).with_name("isa.py"))]
            environment = os.environ | {"FASTADAM_ISA": isa}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            values.append([float(word) for word in done.stdout.split()[1:]])
            tick()
    return taken


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
        "fastadam": fastadam.__version__,
    }
    for name in PEERS:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts


# ---------------------------------------------------------------- writing


def duration(seconds: float) -> str:
    """Seconds with three digits in the unit that suits them."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.2g} s"


def shape_name(count: int, size: int) -> str:
    """A case as the tables call it."""
    return f"{count:,} × {size:,}"


def case_name(count: int, size: int) -> str:
    """A case as the headings call it."""
    return f"{count:,} {'array' if count == 1 else 'arrays'} of {size:,} elements"


def markdown(measured: dict[str, Any]) -> str:
    """The report's text."""
    rows, loops = measured["steps"], measured["training"]
    parts = heading("fastadam beside its peers", "report.py", measured["machine"])
    parts.append(
        "One Adam step. Medians of interleaved rounds, quartiles behind them; *slower* is the factor to fastadam."
    )
    parts.append(
        "GB/s counts the seven streams that a fused step moves; *roofline* is a kernel that moves the same bytes"
    )
    parts.append("with almost no arithmetic, in the same run.\n")
    for dtype in dict.fromkeys(row.dtype for row in rows):
        for count, size in SHAPES:
            case = {row.name: row for row in rows if (row.dtype, row.count, row.size) == (dtype, count, size)}
            if case:
                parts += table(f"{dtype}, {case_name(count, size)}", case)
    parts += [
        "## A whole training\n",
        "scikit-learn's `MLPClassifier(hidden, batch_size=32)`, 5 epochs of digits in float64, in a",
    ]
    parts += ["fresh process each; only its optimizer is replaced.\n", "| hidden | way | seconds of fit | faster |"]
    parts += ["|---|---|---|---|"]
    for hidden, by_way in loops.items():
        stock = np.median(by_way["stock"])
        for way, taken in by_way.items():
            low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75])
            parts.append(f"| {hidden} | {way} | {middle:.3f} ({low:.3f} – {high:.3f}) | {stock / middle:.2f}× |")
    parts += ["", "## Every rule\n", "One step of each rule, beside PyTorch's fastest: [rules.md](rules.md).\n"]
    parts += ["", "## Fewer bytes\n", "States and parameters of 16 and 8 bits: [bits.md](bits.md).\n"]
    parts += ["", "## Instruction sets\n", "Adam, 10 000 elements in cache, one thread: ns an element.\n"]
    parts += ["| | float32 | float64 |", "|---|---|---|"]
    for isa, values in measured["instruction sets"].items():
        parts.append("| " + " | ".join([isa, *(f"{x:.3f}" for x in np.median(values, axis=0))]) + " |")
    return "\n".join(parts) + "\n\n![time per element](time.png)\n\n![speed-up](speedup.png)\n"


def heading(title: str, program: str, facts: dict[str, str], folder: str = "docs/report") -> list[str]:
    """The first lines of a page: how it was made, and where."""
    command = f"pip install '.[report]' && python bench/{program} --out {folder}"
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    return [f"# {title}\n", f"Made by `{command}`.\n", *table, ""]


def tabled(head: list[str], lines: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def rules_markdown(measured: dict[str, Any]) -> str:
    """The page of all rules."""
    parts = heading("Every rule", "report.py --rules", measured["machine"])
    parts.append("One step, float32, with the options that the tests give the rule. Medians of interleaved rounds.")
    parts.append(
        "*Faster* is against the fastest of PyTorch's variants; *bytes* are what the rule moves for an element;"
    )
    parts.append("the *roofline* is a kernel that moves as many with almost no arithmetic, in the same run.\n")
    parts += ["| rule | arrays × elements | fastadam | PyTorch's fastest | faster | bytes | of roofline |"]
    parts += ["|---|---|---|---|---|---|---|", *(rule_row(name, case) for name, case in measured["rules"])]
    return "\n".join(parts) + "\n"


def rule_row(rule: str, case: list[Row]) -> str:
    """A line of the table of rules."""
    by_name = {row.name: row for row in case}
    ours, limit = by_name.pop(OURS), by_name.pop(LIMIT)
    cells = [f"`{rule}`", shape_name(ours.count, ours.size), duration(ours.median), "", ""]
    if by_name:
        best = min(by_name.values(), key=lambda row: row.median)
        cells[3:] = [f"{duration(best.median)} ({best.name})", f"{best.median / ours.median:.2f}×"]
    cells += [str(4 * streams(len(RULES[rule].states))), f"{limit.median / ours.median:.2f}"]
    return "| " + " | ".join(cells) + " |"


def table(title: str, case: dict[str, Row]) -> list[str]:
    """The Markdown table of one case, the fastest first."""
    ours, limit = case[OURS].median, case.get(LIMIT)
    lines = [
        f"## {title}\n",
        "| | time a step | quartiles | slower | GB/s | of roofline |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(case.values(), key=lambda row: row.median):
        moved = streams(2) * np.dtype(row.dtype).itemsize * row.count * row.size / row.median / 1e9
        share = f"{limit.median / row.median:.2f}" if limit else ""
        quartiles = f"{duration(row.low)} – {duration(row.high)}"
        cells = [row.name, duration(row.median), quartiles, f"{row.median / ours:.2f}×", f"{moved:.1f}", share]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def draw_times(rows: list[Row], path: Path) -> None:
    """Time per element against size, both axes logarithmic, a panel a dtype."""
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    figure = Figure(figsize=(7 * len(dtypes), 6), layout="constrained", dpi=110)
    for dtype, axes in zip(dtypes, np.atleast_1d(figure.subplots(1, len(dtypes), sharey=True)), strict=True):
        for k, name in enumerate(dict.fromkeys(row.name for row in rows if row.dtype == dtype)):
            points = [(r.size, r.median / r.size * 1e9) for r in rows if (r.dtype, r.count, r.name) == (dtype, 1, name)]
            style = {"color": "black", "lw": 1, "ls": ":" if "1 thread" in name else "--"} if LIMIT in name else {}
            if name in (OURS, ONE):
                style = {"lw": 3, "ls": "-" if name == OURS else "--", "color": "tab:red"}
            marker = "" if LIMIT in name else "osv^D*XPph"[k % 10]
            axes.loglog(*zip(*sorted(points), strict=True), label=name, marker=marker, ms=5, **style)
        axes.set(title=f"One Adam step, one {dtype} array", xlabel="elements", ylabel="ns per element")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper right")
    figure.savefig(path)


def draw_speedups(rows: list[Row], path: Path) -> None:
    """How many times longer than fastadam each peer takes, a panel a case, float32."""
    cases = [(c, s) for c, s in SHAPES if any(r.count == c and r.size == s for r in rows)]
    figure = Figure(figsize=(16, 4 * -(-len(cases) // 3)), layout="constrained", dpi=100)
    panels = figure.subplots(-(-len(cases) // 3), 3, squeeze=False).ravel()
    for axes in panels[len(cases) :]:
        axes.remove()
    for axes, (count, size) in zip(panels, cases, strict=False):
        case = {r.name: r.median for r in rows if (r.dtype, r.count, r.size) == (rows[0].dtype, count, size)}
        factors = {name: median / case[OURS] for name, median in case.items() if LIMIT not in name and name != OURS}
        names = sorted(factors, key=factors.__getitem__)
        bars = axes.barh(names, [factors[name] for name in names], color="tab:blue")
        axes.bar_label(bars, [f"{factors[name]:.3g}×" for name in names], padding=3, fontsize=8)
        axes.axvline(1, color="tab:red")
        axes.set(title=f"{case_name(count, size)}, {rows[0].dtype}", xlabel="times slower than fastadam", xscale="log")
        axes.set_xlim(min(0.5, *factors.values()), max(factors.values()) * 3)
        axes.tick_params(labelsize=8)
    figure.savefig(path)


def main() -> None:
    """Measure, then write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report-output"), help="folder for the report")
    parser.add_argument("--rules", action="store_true", help="the page of all rules alone")
    parser.add_argument("--quick", action="store_true", help="float32 alone, up to a million elements, one fit a way")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shapes = [s for s in SHAPES if not options.quick or s[0] * s[1] <= 1_000_000]
    rules = every_rule([s for s in RULE_SHAPES if s in shapes])
    written(options.out / "rules", {"machine": machine(), "rules": rules}, rules_markdown)
    if not options.rules:
        dtypes = ("float32",) if options.quick else ("float32", "float64")
        measured = peers(dtypes, shapes, fits=1 if options.quick else 5)
        written(options.out / "report", measured, markdown)
        draw_times(measured["steps"], options.out / "time.png")
        draw_speedups(measured["steps"], options.out / "speedup.png")
    print(f"wrote {options.out}/{'rules.md' if options.rules else 'README.md'} and what belongs to it")


def every_rule(shapes: list[tuple[int, int]]) -> list[tuple[str, list[Row]]]:
    """What every rule takes."""
    cases = [(rule, *shape) for rule in BY_RULE for shape in shapes]
    return [
        (rule, measure(rule_field(rule), "float32", count, size))
        for rule, count, size in tqdm(cases, desc="rules", unit="case")
    ]


def peers(dtypes: tuple[str, ...], shapes: list[tuple[int, int]], fits: int) -> dict[str, Any]:
    """What Adam takes beside its peers: steps, whole trainings, instruction sets."""
    total = len(dtypes) * len(shapes) + fits * (len(LOOPS) * len(WAYS) + len(backends.available_isas()))
    rows: list[Row] = []
    with tqdm(total=total, desc="measuring", unit="case") as bar:
        loops = training(fits, bar.update)
        for dtype in dtypes:
            for count, size in shapes:
                bar.set_postfix_str(f"{dtype} {shape_name(count, size)}")
                rows += measure(field(dtype), dtype, count, size)
                bar.update()
        isas = instruction_sets(fits, bar.update)
    return {"machine": machine(), "steps": rows, "training": loops, "instruction sets": isas}


def written(path: Path, measured: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    """Write what was measured, and its page."""
    path.with_suffix(".json").write_text(json.dumps(measured, indent=1, default=asdict) + "\n")
    path.with_name("README.md" if path.name == "report" else f"{path.name}.md").write_text(page(measured))


if __name__ == "__main__":
    main()
