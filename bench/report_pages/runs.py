"""Whole runs of other libraries, stock against fastadam: page `whole-runs`, and the tables that other pages show."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fastadam.bench.contestants import OURS
from fastadam.bench.plots import Theme

from .drawing import figure, shown
from .source import Found, Lines, Reports, page, source, spelled, table

STOCK = "stock"
TELLING = [  #: what the README shows: each library once or twice, and what does not gain
    "NumPy loop, 512 hidden",
    "NumPy loop, 8192 hidden",
    "scikit-learn MLP (512,)",
    "scikit-learn MLP (512, 512)",
    "thinc, 2 × 512 hidden",
    "PyTorch, 64 hidden",
    "PyTorch, 3 layers of 512",
    "JAX, 64 hidden",
    "SciPy minimize, 100,000",
    "autograd, 32 hidden",
    "qiskit, least squares",
    "river learn_many, 300 features",
    "climin Adadelta, 1024 hidden",
    "PINTS Adam, logistic model",
]
#: why runs take longer with fastadam, by the beginning of their names
WHY = {
    "JAX": "JAX takes about 25 µs to accept each new array, and its threads and fastadam's share the processors",
    "river learn_one, 10 ": "fewer than 48 features are stepped by river's own code, and the adapter looks first",
    "PINTS Adam, logistic": "a step of two parameters is as long as its Python calls, of which the adapter makes more",
}


def faster(row: Found) -> str:
    return f"{row[STOCK]['seconds'] / row[OURS]['seconds']:.2f}×"


def shares(row: Found) -> Lines:
    return [f"{row[way]['share']:.0%}" for way in (STOCK, OURS)]


def whole_runs(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["whole-runs"]
    lines = []
    for row in measured["runs"]:
        took = [f"{row[way]['seconds']:.3f} ({row[way]['low']:.3f} – {row[way]['high']:.3f})" for way in (STOCK, OURS)]
        losses = ", ".join(f"{row[way]['loss']:.4g}" for way in (STOCK, OURS))
        lines.append([spelled(row["case"]), *took, faster(row), *shares(row), losses])
    intro = [
        "Whole trainings and fits in each library that fastadam works with: once with the library's own optimizer",
        "(*stock*), and once with fastadam's. Each run is a process of its own. The ways take turns, and medians are",
        "quoted. `bench/runs` has the runs: NumPy, scikit-learn, thinc, PyTorch and JAX train a network on digits for",
        "some epochs, the others do what their users do. *Share* is the part of the run that is spent in the",
        "optimizer: with one that takes no time a run would be 1 / (1 − share) times as fast. The *last losses* agree",
        "but for rounding, which a training amplifies.",
        "",
        "PyTorch's own optimizer has `fused=True`, JAX's is optax's, jitted. The NumPy loop has the Adam of the",
        "[article](../how-to/coming-from.md#from-the-article). SciPy has none. There stock is a bare loop of the",
        "article's Adam in float64. It tests no convergence, keeps no best point and checks nothing. fastadam's method",
        "does all that at each step.",
    ]
    head = ["run", "stock, s", "fastadam, s", "times as fast", "share, stock", "share, fastadam", "last losses"]
    picture = shown(where, "whole-runs", "time of whole runs with fastadam, where stock is 1")
    body = [*picture, "", *slower(reports, where), "", *table(head, lines)]
    return page("Whole runs", intro, "endtoend.py", measured, body)


def block(reports: Reports, where: Path, *library: str) -> Lines:
    """The runs of a library, by the beginning of their names; without one, the README's."""
    runs = chosen(reports["whole-runs"], " ".join(library))
    lines = [[spelled(row["case"]), faster(row), *shares(row)] for row in runs]
    head = ["run", "times as fast", "optimizer's share, stock", "with fastadam"]
    return [*table(head, lines), *source(reports, where, "whole-runs", "whole runs")]


def slower(reports: Reports, where: Path) -> Lines:
    """The runs that take longer with fastadam, and why: an item for each reason."""
    names: dict[str, list[str]] = {}
    for row in reports["whole-runs"]["runs"]:
        if row[STOCK]["seconds"] < row[OURS]["seconds"]:
            names.setdefault(reason(row), []).append(f"{spelled(row['case'])} ({faster(row)})")
    if not names:
        return ["No run is slower with fastadam."]
    head = "Slower with fastadam; in brackets, how many times as fast as stock:\n"
    return [head, *(f"- {'; '.join(own)}: {why}." for why, own in names.items())]


def reason(row: Found) -> str:
    """Why it takes longer, as far as that is known."""
    for start, why in WHY.items():
        if row["case"].startswith(start):
            return why
    may_be_noise = row[OURS]["low"] <= row[STOCK]["high"]
    return "the quartiles of the two overlap, so it may be noise" if may_be_noise else "the reason is not known"


def chosen(measured: Found, library: str) -> list[Found]:
    """The runs whose names begin so, or the telling ones."""
    runs: list[Found] = measured["runs"]
    found = [row for row in runs if (row["case"].startswith(library) if library else row["case"] in TELLING)]
    if not found:
        raise ValueError(f"whole-runs {library}: no run has a name that begins so")
    return found


def draw(runs: list[Found], theme: Theme) -> Figure:
    """Each run as two bars, stock = 1: the optimizer's part dark, all else pale."""
    made, (axes,) = figure(0.62 * len(runs) + 1.4)
    colours = {STOCK: theme.greys, OURS: (theme.ours[0], theme.fill)}
    for k, row in enumerate(reversed(runs)):
        unit = row[STOCK]["seconds"]
        for way, offset in ((STOCK, 0.19), (OURS, -0.19)):
            length, (dark, pale) = row[way]["seconds"] / unit, colours[way]
            part = length * row[way]["share"]
            axes.barh(k + offset, part, 0.36, color=dark)
            axes.barh(k + offset, length - part, 0.36, left=part, color=pale)
        axes.text(row[OURS]["seconds"] / unit + 0.02, k - 0.2, faster(row), va="center", fontsize=13)
    longest = max(row[OURS]["seconds"] / row[STOCK]["seconds"] for row in runs)
    axes.set_yticks(range(len(runs)), [spelled(row["case"]) for row in reversed(runs)])
    axes.set_xlabel("time of the whole run, stock = 1\nnumbers: how many times as fast")
    axes.set_xlim(0, max(1.0, longest) + 0.3)
    axes.set_ylim(-0.6, len(runs) - 0.4)
    labels = {
        f"{way}, {part}": shade
        for way, own in colours.items()
        for part, shade in zip(("optimizer", "all else"), own, strict=True)
    }
    handles = [Patch(color=shade, label=label) for label, shade in labels.items()]
    made.legend(handles=handles, loc="outside upper center", ncols=2, columnspacing=1, handlelength=1.2)
    return made


PAGES = {"whole-runs": whole_runs}
BLOCKS = {"whole-runs": block, "slower-runs": slower}
PICTURES = {
    "whole-runs": ("whole-runs", lambda measured, theme: draw(measured["runs"], theme)),
    "whole-runs-short": ("whole-runs", lambda measured, theme: draw(chosen(measured, ""), theme)),
}
