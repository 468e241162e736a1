"""A picture of what was measured; it needs Matplotlib."""

from pathlib import Path

from matplotlib.figure import Figure

from .contestants import OURS
from .measure import Row
from .roofline import LIMIT
from .tables import case_name, times


def draw_factors(cases: list[list[Row]], path: Path) -> None:
    """How many times as long as fastadam each peer takes, a panel a case."""
    figure = Figure(figsize=(16, 4 * -(-len(cases) // 3)), layout="constrained", dpi=100)
    panels = figure.subplots(-(-len(cases) // 3), 3, squeeze=False).ravel()
    for axes in panels[len(cases) :]:
        axes.remove()
    for axes, rows in zip(panels, cases, strict=False):
        medians = {row.name: row.median for row in rows}
        ours = medians.pop(OURS)
        factors = {name: median / ours for name, median in medians.items() if LIMIT not in name}
        names = sorted(factors, key=factors.__getitem__)
        bars = axes.barh(names, [factors[name] for name in names], color="tab:blue")
        axes.bar_label(bars, [times(factors[name]) for name in names], padding=3, fontsize=8)
        axes.axvline(1, color="tab:red")
        title = f"{case_name(rows[0].count, rows[0].size)}, {rows[0].dtype}"
        axes.set(title=title, xlabel="time, fastadam = 1", xscale="log")
        axes.set_xlim(min(0.5, *factors.values()), max(2.0, *factors.values()) * 5)
        axes.tick_params(labelsize=8)
    figure.savefig(path)
