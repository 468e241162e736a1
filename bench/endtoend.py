"""Whole training runs, stock against fastadam, in each library that it stands in for, and a plain NumPy loop.
`python bench/endtoend.py --out FOLDER` writes README.md, endtoend.json and endtoend.png; thinc and torch may be absent.

Every run is a process of its own; the ways take turns, and medians are quoted. The optimizer's share is the time inside
its step, by the clock around each call.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clock import OURS, STOCK, Clock, Run
from matplotlib.figure import Figure
from tqdm import tqdm

from fastadam.bench.tables import machine

#: the modules of `runs`, and the library that each needs
RUNS = {"loop": "numpy", "sklearn": "sklearn", "thinc": "thinc", "torch": "torch", "jax": "optax", "scipy": "scipy"}
RUNS |= {"autograd": "autograd", "pennylane": "pennylane", "qiskit": "qiskit_algorithms", "river": "river"}
RUNS |= {"climin": "climin", "pints": "pints", "pybop": "pybop"}


def runs_of(module: str) -> dict[str, Run]:
    """The runs of a module of `runs`, by name."""
    found: dict[str, Run] = importlib.import_module(f"runs.{module}").CASES
    return found


def run(module: str, case: str, way: str) -> tuple[float, float, float]:
    """Seconds of a whole run, those within the optimizer, and the last loss; for a process of its own."""
    clock = Clock()
    seconds, loss = runs_of(module)[case](way, clock)
    return seconds, clock.seconds, loss


def measure(rounds: int) -> list[dict[str, Any]]:
    """Every case of every library that is installed, its ways in turn, each run in a fresh process."""
    cases = [(name, case) for name, library in RUNS.items() if find_spec(library) for case in runs_of(name)]
    found = []
    with tqdm(total=len(cases) * rounds * 2, unit="run") as bar:
        for module, case in cases:
            runs: dict[str, list[list[float]]] = {STOCK: [], OURS: []}
            bar.set_postfix_str(case)
            for _ in range(rounds):
                for way, taken in runs.items():
                    command = [sys.executable, __file__, "--run", module, case, way]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    taken.append([float(word) for word in done.stdout.split()[-3:]])
                    bar.update()
            found.append({"case": case} | {way: summary(taken) for way, taken in runs.items()})
    return found


def summary(taken: list[list[float]]) -> dict[str, float]:
    """Medians of the rounds, and the quartiles of the whole."""
    seconds, inside, losses = zip(*taken, strict=True)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    share = statistics.median(part / whole for part, whole in zip(inside, seconds, strict=True))
    return {"seconds": statistics.median(seconds), "low": low, "high": high, "share": share, "loss": losses[0]}


def markdown(facts: dict[str, str], found: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["# Whole training runs\n", "Made by `python bench/endtoend.py` on"]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        "",
        "One process a run, the ways in turn. `bench/runs` has the runs: NumPy, scikit-learn, thinc, PyTorch and",
        "JAX train a network on digits for some epochs, the others do what their users do. *Share* is the part of",
        "the run that is spent in the optimizer: with one that takes no time a run would be 1 / (1 − share) times as",
        "fast. *Last losses*, stock's and fastadam's, agree but for rounding, which a training amplifies.\n",
        "Stock is each library's own optimizer: in PyTorch with `fused=True`, in JAX optax's, jitted; in the NumPy",
        "loop the article's Adam. SciPy has none: stock is a bare loop there, of the article's Adam in float64, which",
        "tests no convergence, keeps no best point and checks nothing; fastadam's method does all that at each step.\n",
        "| run | stock, s | fastadam, s | faster | share, stock | share, fastadam | last losses |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        stock, ours = row[STOCK], row[OURS]
        cells = [row["case"], *(f"{r['seconds']:.3f} ({r['low']:.3f} – {r['high']:.3f})" for r in (stock, ours))]
        cells += [f"{stock['seconds'] / ours['seconds']:.2f}×", f"{stock['share']:.0%}", f"{ours['share']:.0%}"]
        cells.append(f"{stock['loss']:.4g}, {ours['loss']:.4g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n![whole runs](endtoend.png)\n"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Each run as two bars, stock = 1: the optimizer's part dark, all else light."""
    figure = Figure(figsize=(10, 0.62 * len(found) + 1.2), layout="constrained", dpi=110)
    axes = figure.subplots()
    for k, row in enumerate(reversed(found)):
        unit = row[STOCK]["seconds"]
        for way, offset, color in ((STOCK, 0.2, "tab:gray"), (OURS, -0.2, "tab:red")):
            length, share = row[way]["seconds"] / unit, row[way]["share"]
            label = {"label": way} if k == 0 else {}
            axes.barh(k + offset, length * share, 0.38, color=color, **label)
            axes.barh(k + offset, length * (1 - share), 0.38, left=length * share, color=color, alpha=0.3)
        faster = unit / row[OURS]["seconds"]
        axes.text(row[OURS]["seconds"] / unit + 0.01, k - 0.2, f"{faster:.2f}×", va="center", fontsize=9)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_yticks(range(len(found)), [row["case"] for row in reversed(found)])
    longest = max(row[OURS]["seconds"] / row[STOCK]["seconds"] for row in found)
    axes.set(xlabel="time of the whole run, stock = 1; dark: in the optimizer", xlim=(0, max(1.0, longest) + 0.15))
    figure.legend(loc="outside upper right", ncols=2)
    figure.savefig(path)


def main() -> None:
    """Measure, then write; or, with --run, one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("report-output"), help="folder for the report")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case and way (default: %(default)s)")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(*run(*options.run))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    found = measure(options.rounds)
    facts = machine()
    (options.out / "endtoend.json").write_text(json.dumps({"machine": facts, "runs": found}, indent=1) + "\n")
    (options.out / "README.md").write_text(markdown(facts, found))
    draw(found, options.out / "endtoend.png")
    print(f"wrote {options.out}/README.md, endtoend.json, endtoend.png")


if __name__ == "__main__":
    main()
