"""Whole training runs, stock against fastadam, in each library that it stands in for, and a plain NumPy loop.
`python bench/endtoend.py --out FOLDER` writes whole-runs.json; a library that is not installed is left out.

Every run is a process of its own; the ways take turns, and medians are quoted. The optimizer's share is the time inside
its step, by the clock around each call.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from clock import OURS, STOCK, Clock, Run
from results import arguments, write
from tqdm import tqdm

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


def main() -> None:
    """Measure, then write; or, with --run, one run."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case and way (default: %(default)s)")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(*run(*options.run))
    else:
        write(options.out, "whole-runs", {"runs": measure(options.rounds)})


if __name__ == "__main__":
    main()
