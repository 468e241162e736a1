"""Measures fastadam beside every installed peer and writes a report: Markdown, JSON and pictures.
Run `pip install '.[report]' && python bench/report.py --out FOLDER`; a peer that is not installed is left out.
What every rule takes is a page of its own; ``--rules`` measures that alone.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from halves import PythonThreads
from matplotlib.figure import Figure
from tqdm import tqdm
from training import WAYS

from fastadam.bench.contestants import CONTESTANTS, OURS, chosen, of_average, of_class, of_fastadam, of_torch
from fastadam.bench.measure import Contestant, Row, measure
from fastadam.bench.plots import draw_factors
from fastadam.bench.roofline import LIMIT, roofline, streams
from fastadam.bench.tables import HEAD, case_lines, case_name, duration, machine, shape_name, tabled
from fastadam.kernel import backends
from fastadam.rules import RULES

ONE = "fastadam, 1 thread"
SHAPES = [(1, 16), (1, 1_000), (1, 10_000), (1, 100_000), (1, 1_000_000), (1, 10_000_000), (1, 32_000_000)]
SHAPES += [(100, 16), (100, 1_000), (1_000, 1_000)]
RULE_SHAPES = [(1, 1_000_000), (100, 1_000), (1, 32_000_000)]
LOOPS = [(512, 512), (512,)]


def field(dtype: str) -> list[Contestant]:
    """Who takes part, fastadam first."""
    extra = [
        Contestant(ONE, of_fastadam(n_threads=1)),
        Contestant("fastadam, Python threads", of_class(PythonThreads)),
        Contestant(LIMIT, roofline),
        Contestant(f"{LIMIT}, 1 thread", lambda params, grads: roofline(params, grads, 1)),
    ]
    return [c for c in [CONTESTANTS[0], *extra, *CONTESTANTS[1:]] if c.installed and dtype in c.dtypes]


def rule_field(rule: str) -> list[Contestant]:
    """Who takes part in a row of the table of rules."""
    limit = Contestant(LIMIT, partial(roofline, n_states=len(RULES[rule].states)))
    if rule == "average":
        return [Contestant(OURS, of_average), limit]
    cls, options = chosen(rule)
    return [Contestant(OURS, of_fastadam(cls, **options)), *of_torch(cls, options), limit]


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


# ---------------------------------------------------------------- writing


def markdown(measured: dict[str, Any]) -> str:
    """The report's text."""
    rows, loops = measured["steps"], measured["training"]
    parts = heading("fastadam beside its peers", "report.py", measured["machine"])
    parts.append("One Adam step. Medians of interleaved rounds, quartiles behind them.")
    parts.append(
        "GB/s counts the seven streams that a fused step moves; *roofline* is a kernel that moves the same bytes"
    )
    parts.append("with almost no arithmetic, in the same run.\n")
    for dtype in dict.fromkeys(row.dtype for row in rows):
        for count, size in SHAPES:
            case = [row for row in rows if (row.dtype, row.count, row.size) == (dtype, count, size)]
            moved = dict.fromkeys((row.name for row in case), float(streams(2) * np.dtype(dtype).itemsize))
            if case:
                parts += [f"## {dtype}, {case_name(count, size)}\n", *tabled(HEAD, case_lines(case, moved)), ""]
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


def heading(title: str, program: str, facts: dict[str, str], folder: str = "docs/reports") -> list[str]:
    """The first lines of a page: how it was made, and where."""
    command = f"pip install '.[report]' && python bench/{program} --out {folder}"
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    return [f"# {title}\n", f"Made by `{command}`.\n", *table, ""]


def rules_markdown(measured: dict[str, Any]) -> str:
    """The page of all rules."""
    parts = heading("Every rule", "report.py --rules", measured["machine"])
    parts.append(
        "One step, float32, with the options that choose the rule, defaults else. Medians of interleaved rounds."
    )
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
        measured = adam_and_peers(dtypes, shapes, fits=1 if options.quick else 5)
        written(options.out / "report", measured, markdown)
        draw_times(measured["steps"], options.out / "time.png")
        cases = [
            [r for r in measured["steps"] if (r.dtype, r.count, r.size) == ("float32", *shape)] for shape in shapes
        ]
        draw_factors(cases, options.out / "speedup.png")
    print(f"wrote {options.out}/{'rules.md' if options.rules else 'README.md'} and what belongs to it")


def every_rule(shapes: list[tuple[int, int]]) -> list[tuple[str, list[Row]]]:
    """What every rule takes."""
    cases = [(rule, *shape) for rule in RULES for shape in shapes]
    return [
        (rule, measure(rule_field(rule), "float32", count, size))
        for rule, count, size in tqdm(cases, desc="rules", unit="case")
    ]


def adam_and_peers(dtypes: tuple[str, ...], shapes: list[tuple[int, int]], fits: int) -> dict[str, Any]:
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
