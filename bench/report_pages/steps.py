"""One step beside peers, whole fits, instruction sets, every rule: pages `steps` and `rules`, and what others show."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastadam.bench.contestants import OURS
from fastadam.bench.measure import Row
from fastadam.bench.plots import Theme
from fastadam.bench.roofline import LIMIT, streams
from fastadam.bench.tables import HEAD, case_lines, case_name, duration, shape_name, times
from fastadam.rules import RULES

from .drawing import figure, label_ends, plain_numbers, shown
from .source import Found, Lines, Reports, bold, by_name, page, source, table

ONE = f"{OURS}, 1 thread"
PYTORCH, DEEPSPEED, THINC, TENSORS = "PyTorch fused", "DeepSpeed CPUAdam", "thinc", f"{OURS} over tensors"
ARTICLE, TUNED = "article's NumPy", "tuned NumPy"
SHAPES = [(1, 16), (1, 1_000), (1, 100_000), (1, 1_000_000), (1, 32_000_000), (100, 1_000)]  #: that the README shows
BESIDE = {ARTICLE: ARTICLE, TUNED: TUNED, PYTORCH: PYTORCH, DEEPSPEED: "DeepSpeed", THINC: THINC}
DRAWN = {OURS: OURS} | BESIDE | {"optax jit": "optax", LIMIT: LIMIT}
LARGEST = (1, 32_000_000)

Shape = tuple[int, int]


def cases(measured: Found) -> dict[tuple[str, int, int], dict[str, Row]]:
    """The rows of each case, by dtype, arrays, elements."""
    found: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in measured["steps"]:
        found.setdefault((row.dtype, row.count, row.size), {})[row.name] = row
    return found


# ---------------------------------------------------------------- pages


def steps(reports: Reports, where: Path) -> str:
    """The page of steps beside peers."""
    measured = reports["steps"]
    body = shown(where, "time-size", "nanoseconds of an Adam step for each element, against the number of elements")
    body += ["", "float32, one array. The dashed line is the roofline.\n"]
    for (dtype, count, size), case in cases(measured).items():
        moved = dict.fromkeys(case, float(streams(2) * np.dtype(dtype).itemsize))
        body += [f"## {dtype}, {case_name(count, size)}\n", *table(HEAD, case_lines(case.values(), moved))]
    body += [
        "## A whole training\n",
        "scikit-learn's `MLPClassifier(hidden, batch_size=32)`, 5 epochs of digits in float64.",
    ]
    body += ["Each fit has a process of its own; only the optimizer is replaced.\n", *fits(measured)]
    body += ["## Instruction sets\n", "Adam, 10,000 elements in cache, one thread: nanoseconds for each element.\n"]
    body += table(
        ["", "float32", "float64"], [[isa, *(f"{x:.3f}" for x in own)] for isa, own in by_isa(measured).items()]
    )
    intro = [
        "One Adam step of fastadam beside every peer. Times are medians of interleaved rounds, with quartiles. GB/s",
        "counts the seven streams that a fused step reads and writes. The *roofline* is a kernel that moves the same",
        "bytes with almost no arithmetic, in the same run. [Performance](../explanation/performance.md) says what",
        "these figures show.",
    ]
    return page("One step beside its peers", intro, "report.py", measured, body)


def by_isa(measured: Found) -> dict[str, np.ndarray]:
    """Nanoseconds an element of each instruction set, float32 and float64."""
    return {isa: np.median(values, axis=0) for isa, values in measured["instruction sets"].items()}


def fits(measured: Found) -> Lines:
    """Whole fits by each way."""
    lines = []
    for hidden, by_way in measured["training"].items():
        stock = np.median(by_way["stock"])
        for way, taken in by_way.items():
            low, middle, high = np.quantile(taken, [0.25, 0.5, 0.75])
            lines.append([hidden, way, f"{middle:.3f} ({low:.3f} – {high:.3f})", f"{stock / middle:.2f}×"])
    return table(["hidden", "way", "seconds of fit", "times as fast"], lines)


def rules(reports: Reports, where: Path) -> str:
    """The page of all rules."""
    measured = reports["rules"]
    body = shown(where, "rules", "the share of the roofline that a step of each rule reaches, for three sizes")
    body += [
        "",
        *table(
            ["rule", "arrays × elements", OURS, "PyTorch's fastest", "times as fast", "bytes", "of roofline"],
            [rule_line(rule, case) for rule, case in measured["rules"]],
        ),
    ]
    intro = [
        "One step of every rule in float32, beside PyTorch's fastest variant. A rule has the options that choose it,",
        "and defaults for the rest. Times are medians of interleaved rounds. *Bytes* are what the rule reads and",
        "writes for each element. The *roofline* is a kernel that moves as many with almost no arithmetic, in the same",
        "run. If a rule is faster than its roofline, the difference shows how much measurements of one run vary.",
    ]
    return page("Every rule", intro, "report.py --rules", measured, body)


def rule_line(rule: str, case: list[Row]) -> Lines:
    """A line of the table of rules."""
    peers = by_name(case)
    ours, limit = peers.pop(OURS), peers.pop(LIMIT)
    cells = [f"`{rule}`", shape_name(ours.count, ours.size), duration(ours.median), "", ""]
    if peers:
        best = min(peers.values(), key=lambda row: row.median)
        cells[3:] = [f"{duration(best.median)} ({best.name})", times(best.median / ours.median)]
    return [*cells, str(4 * streams(len(RULES[rule].states))), f"{limit.median / ours.median:.2f}"]


# ---------------------------------------------------------------- blocks


def readme(reports: Reports, where: Path) -> Lines:
    """A few sizes beside a few peers."""
    found = cases(reports["steps"])
    there = {name: head for name, head in BESIDE.items() if name in found["float32", *SHAPES[0]]}
    lines = []
    for shape in SHAPES:
        case = found["float32", *shape]
        ours = case[OURS].median
        cells = (f"{duration(case[name].median)} ({short(case[name].median / ours)})" for name in there)
        lines.append([shape_name(*shape), f"**{duration(ours)}**", *cells])
    return [
        *table(["arrays × elements", OURS, *there.values()], lines),
        "In brackets: how many times as long as fastadam.",
        *source(reports, where, "steps", "all sizes, and how it was measured"),
    ]


def short(factor: float) -> str:
    """A factor for a narrow cell."""
    return f"{factor:.2f}×" if factor < 10 else f"{factor:,.0f}×"


def mechanisms(reports: Reports, where: Path) -> Lines:
    """Ways to use two threads: alone, and in a training loop."""
    found, training = cases(reports["steps"]), reports["steps"]["training"]
    rows = {"one thread": (ONE, "fastadam-1"), "OpenMP (Numba's `prange`)": ("numba parallel", "openmp")}
    rows["Python threads (`ThreadPoolExecutor`, a half each)"] = ("fastadam, Python threads", "python-threads")
    rows["this pool"] = (OURS, "fastadam")
    lines = []
    for shown_as, (name, way) in rows.items():
        alone = [duration(found["float32", 1, size][name].median) for size in (100_000, 1_000_000)]
        lines.append([shown_as, *alone, *(duration(float(np.median(by_way[way]))) for by_way in training.values())])
    lines.append(["stock", "", "", *(duration(float(np.median(by_way["stock"]))) for by_way in training.values())])
    head = ["", "100,000 elements", "1,000,000", *(f"`MLPClassifier({hidden})`" for hidden in training)]
    return [*table(head, lines), *source(reports, where, "steps", "one step beside its peers")]


def tensors(reports: Reports, where: Path) -> Lines:
    """The adapter for PyTorch, as a part of the time of `fused=True`."""
    found = cases(reports["steps"])
    shapes = [(100, 16), (100, 1_000), (1_000, 1_000), (1, 100_000), (1, 1_000_000), LARGEST]
    lines = []
    for shape in shapes:
        case = found["float32", *shape]
        mine, theirs = case[TENSORS].median, case[PYTORCH].median
        lines.append([shape_name(*shape), duration(mine), duration(theirs), f"{mine / theirs:.2f}"])
    head = ["tensors × elements", OURS, "torch, `fused=True`", "part of torch's time"]
    return [*table(head, lines), *source(reports, where, "steps", "one step beside its peers")]


#: arrays × elements, whom, and how many times as fast as they at least
GOALS: list[tuple[Shape, str, str, float]] = [
    ((1, 16), OURS, PYTORCH, 50),
    ((1, 16), OURS, THINC, 2.5),
    ((1, 16), OURS, ARTICLE, 15),
    ((100, 16), OURS, PYTORCH, 100),
    ((100, 16), OURS, THINC, 30),
    *(((100, 1_000), OURS, name, 20) for name in (PYTORCH, DEEPSPEED, THINC)),
    ((1, 100_000), OURS, PYTORCH, 2),
    ((1, 100_000), OURS, DEEPSPEED, 2),
    ((1, 1_000_000), OURS, PYTORCH, 1.8),
    ((1, 1_000_000), OURS, DEEPSPEED, 0.95),
    ((1, 1_000_000), OURS, ARTICLE, 40),
    ((1, 1_000_000), ONE, ARTICLE, 25),
    (LARGEST, OURS, PYTORCH, 1),
    (LARGEST, OURS, DEEPSPEED, 1),
    (LARGEST, OURS, ARTICLE, 10),
    (LARGEST, OURS, LIMIT, 0.93),
]


def goals(reports: Reports, where: Path) -> Lines:
    """What was to be reached in float32, and what was measured."""
    found, measured = cases(reports["steps"]), reports["steps"]
    reached = []
    for shape, who, rival, wanted in GOALS:
        case = found["float32", *shape]
        name = shape_name(*shape) + (", 1 thread" if who == ONE else "")
        if rival in case:
            reached.append((name, rival, wanted, case[rival].median / case[who].median))
    for (hidden, by_way), wanted in zip(measured["training"].items(), (3, 1.3), strict=True):
        taken = {way: float(np.median(values)) for way, values in by_way.items()}
        reached.append((f"`MLPClassifier({hidden})`", "its own Adam", wanted, taken["stock"] / taken["fastadam"]))
        reached.append((f"`MLPClassifier({hidden})`", "one thread", 0.9, taken["fastadam-1"] / taken["fastadam"]))
    isas = by_isa(measured)
    if {"v4", "base"} <= set(isas):
        reached.append(
            ("10,000 elements, AVX-512", "the baseline's instructions", 2.5, isas["base"][0] / isas["v4"][0])
        )
    reached += [slowest_rule(reports["rules"], shape) for shape in ((1, 1_000_000), (100, 1_000))]
    lines = [[case, rival, f"{wanted:g}", bold(f"{got:.3g}", got >= wanted)] for case, rival, wanted, got in reached]
    return [
        *table(["arrays × elements", "times as fast as", "at least", "measured"], lines),
        *source(reports, where, "steps", "one step beside its peers"),
    ]


def slowest_rule(measured: Found, shape: Shape) -> tuple[str, str, float, float]:
    """The rule but Adam that is the least ahead of PyTorch's fastest."""
    factors = {}
    for rule, case in measured["rules"]:
        peers = by_name(case)
        ours, _ = peers.pop(OURS), peers.pop(LIMIT)
        if peers and rule != "adam" and (ours.count, ours.size) == shape:
            factors[rule] = min(row.median for row in peers.values()) / ours.median
    rule = min(factors, key=factors.__getitem__)
    return f"{shape_name(*shape)}, the slowest other rule (`{rule}`)", "PyTorch's fastest", 1, factors[rule]


# ---------------------------------------------------------------- pictures


def draw_time_size(measured: Found, theme: Theme) -> Figure:
    """Nanoseconds an element against elements."""
    made, (axes,) = figure(5.8, layout=None)  # the names right of the lines have a place of their own
    made.subplots_adjust(left=0.15, right=0.73, top=0.93, bottom=0.13)
    ends = {}
    for name, label in DRAWN.items():
        points = sorted((r.size, r.median / r.size * 1e9) for r in measured["steps"] if matches(r, name))
        if points:
            colour = theme.ink if name == LIMIT else theme.of(name)
            how = (
                {"ls": "--", "lw": 1.2} if name == LIMIT else {"lw": 3.5 if name == OURS else 2, "marker": "o", "ms": 5}
            )
            axes.loglog(*zip(*points, strict=True), color=colour, zorder=3 if name == OURS else 2, **how)
            ends[label] = (*points[-1], colour)
    axes.set(title="One Adam step, one float32 array", xlabel="elements", ylabel="ns for each element")
    axes.grid()
    plain_numbers(axes.xaxis, (10, 1e3, 1e5, 1e7))
    plain_numbers(axes.yaxis)
    label_ends(axes, ends)
    return made


def matches(row: Row, name: str) -> bool:
    return (row.dtype, row.count, row.name) == ("float32", 1, name)


def draw_rules(measured: Found, theme: Theme) -> Figure:
    """The share of the roofline of each rule, by size."""
    names = list(dict.fromkeys(rule for rule, _ in measured["rules"]))[::-1]
    made, (axes,) = figure(0.36 * len(names) + 1.8)
    sizes: dict[str, dict[str, float]] = {}
    for rule, case in measured["rules"]:
        rows = by_name(case)
        ours = rows[OURS]
        sizes.setdefault(shape_name(ours.count, ours.size), {})[rule] = rows[LIMIT].median / ours.median
    for (size, shares), colour, marker in zip(sizes.items(), theme.ours, "osD", strict=False):
        axes.plot([shares[name] for name in names], names, marker, color=colour, ms=9, label=size)
    axes.axvline(1, color=theme.ink, lw=1.2, ls="--")
    axes.set(xlim=(0, None), xlabel="part of the roofline's speed")
    axes.grid(axis="x")
    made.legend(loc="outside upper center", ncols=3, title="arrays × elements", columnspacing=1, handletextpad=0.2)
    return made


PAGES = {"steps": steps, "rules": rules}
BLOCKS = {"steps": readme, "mechanisms": mechanisms, "tensors": tensors, "goals": goals}
PICTURES = {"time-size": ("steps", draw_time_size), "rules": ("rules", draw_rules)}
