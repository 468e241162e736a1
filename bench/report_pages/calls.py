"""Doors into the kernels, steps while gradients arrive, options of a step: pages `doors`, `stepping` and `extras`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastadam.bench.measure import Row
from fastadam.bench.tables import duration, shape_name

from .source import Found, Lines, Reports, by_name, page, source, spelled, table

# ---------------------------------------------------------------- doors


def doors(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["doors"]
    intro = [
        "What one Adam step costs through each of fastadam's interfaces: the class, a rule of one's own, the",
        "functions, and the kernels in Numba, C and Cython. float32, one array; the interfaces take turns, and medians",
        "are quoted. [Kernels for other code](../how-to/embedding.md) says which one to take. The class, the functions",
        "and a rule of one's own use fastadam's threads; C and `@njit` step on the calling thread.",
    ]
    return page(
        "One step through each interface", intro, "embedding.py", measured, [*door_table(measured), *own_rule(measured)]
    )


def door_table(measured: Found) -> Lines:
    """A line for each door, a column for each size."""
    found = measured["nanoseconds"]
    lines = [[name, *(duration(own[name] * 1e-9) for own in found.values())] for name in next(iter(found.values()))]
    return table(["one Adam step of so many elements", *(f"{int(size):,}" for size in found)], lines)


def own_rule(measured: Found) -> Lines:
    """A rule of one's own against the built-in one."""
    found = measured["nanoseconds"]
    built_in, mine = list(next(iter(found.values())))[:2]
    lines = [["time", *(f"{own[mine] / own[built_in]:.2f}" for own in found.values())]]
    return table(["Adam as a rule of your own / built-in", *(f"{int(size):,}" for size in found)], lines)


def doors_block(reports: Reports, where: Path) -> Lines:
    measured = reports["doors"]
    return [
        *door_table(measured),
        *own_rule(measured),
        *source(reports, where, "doors", "one step through each interface"),
    ]


# ---------------------------------------------------------------- stepping


def stepping(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["stepping"]
    intro = [
        "Steps while gradients arrive (`stepping`) against whole steps: the gradients that are held at once, and the",
        "time of an iteration with its forward and backward pass. *Held* is the most that is there at once: in NumPy",
        "all that an iteration allocates, activations among it; in PyTorch the gradients alone.",
    ]
    return page("Steps while gradients arrive", intro, "stepping.py", measured, stepping_table(measured))


def stepping_table(measured: Found) -> Lines:
    """Each training, each way."""
    ways = {"torch, fused": "torch's own, fused", "step": "`step`", "stepping": "`stepping`"}
    lines = [
        [spelled(run["case"]), text, f"{run[way]['MiB']:.3g}", f"{run[way]['ms']:.3g}"]
        for run in measured["runs"]
        for way, text in ways.items()
        if way in run
    ]
    return table(["training", "way", "held, MiB", "iteration, ms"], lines)


def stepping_block(reports: Reports, where: Path) -> Lines:
    return [*stepping_table(reports["stepping"]), *source(reports, where, "stepping", "steps while gradients arrive")]


# ---------------------------------------------------------------- extras


def extras(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["extras"]
    intro = [
        "What a training loop does around a step, in the step's own pass or in passes of its own; averages of weights;",
        "and states that are denormal numbers. Times are medians of interleaved rounds. In brackets: multiples of the",
        "first row.",
    ]
    body = [text for title, cases in measured["tables"].items() for text in extra_table(title, cases)]
    return page("Around a step", intro, "extras.py", measured, body)


def extra_table(title: str, cases: list[list[Row]]) -> Lines:
    """A row a contestant, a column a case."""
    found = [by_name(case) for case in cases]
    first = cases[0][0].name
    lines = [
        [
            row.name,
            *(
                f"{duration(case[row.name].median)} ({case[row.name].median / case[first].median:.2f}×)"
                for case in found
            ),
        ]
        for row in cases[0]
    ]
    return table([title, *(shape_name(case[0].count, case[0].size) for case in cases)], lines)


def extras_block(title: str, reports: Reports, where: Path) -> Lines:
    """One of the tables."""
    tables = reports["extras"]["tables"]
    if title not in tables:
        return ["Not measured yet on the machine of the reports: `python bench/extras.py --out docs/reports` does so."]
    text = extra_table(title, tables[title])
    return [*text, *source(reports, where, "extras", "around a step")]


TITLES = {"around": "scaled, clipped, checked, zeroed", "options": "one option", "averages": "averages of weights"}
TITLES["denormals"] = "states without gradient"

PAGES: dict[str, Callable[[Reports, Path], str]] = {"doors": doors, "stepping": stepping, "extras": extras}
BLOCKS: dict[str, Callable[..., Lines]] = {"doors": doors_block, "stepping": stepping_block}
BLOCKS |= {name: partial(extras_block, title) for name, title in TITLES.items()}
PICTURES: dict[str, object] = {}
