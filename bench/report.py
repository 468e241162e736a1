"""Measures one step of fastadam beside every installed peer, whole trainings, and one step of every rule.
`pip install '.[report]' && python bench/report.py --out FOLDER` writes steps.json and rules.json, or with ``--rules``
the latter alone. A peer that is not installed is left out.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from halves import PythonThreads
from results import arguments, write
from tqdm import tqdm
from training import WAYS

from fastadam.bench.contestants import CONTESTANTS, OURS, chosen, of_average, of_class, of_fastadam, of_torch
from fastadam.bench.measure import Contestant, Row, measure
from fastadam.bench.roofline import LIMIT, roofline
from fastadam.bench.tables import shape_name
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


def main() -> None:
    """Measure, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--rules", action="store_true", help="one step of every rule alone")
    parser.add_argument("--quick", action="store_true", help="float32 alone, up to a million elements, one fit a way")
    options = parser.parse_args()
    shapes = [s for s in SHAPES if not options.quick or s[0] * s[1] <= 1_000_000]
    rules = every_rule([s for s in RULE_SHAPES if s in shapes])
    write(options.out, "rules", {"rules": rules}, options.quick)
    if not options.rules:
        dtypes = ("float32",) if options.quick else ("float32", "float64")
        write(options.out, "steps", adam_and_peers(dtypes, shapes, 1 if options.quick else 5), options.quick)


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
    return {"steps": rows, "training": loops, "instruction sets": isas}


if __name__ == "__main__":
    main()
