"""How pictures of measurements look, and the one that `python -m fastadam bench --plot` draws; they need Matplotlib."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.style import context

from .contestants import OURS
from .measure import Row
from .roofline import LIMIT
from .tables import case_name, times


@dataclass(frozen=True)
class Theme:
    """Colours for a light or a dark background, which colour-blind readers can tell apart."""

    ink: str
    ours: tuple[str, str, str]  #: fastadam's hue, from strong to pale
    rivals: dict[str, str]  #: by the beginning of a name, all of other hues
    greys: tuple[str, str]

    def of(self, name: str) -> str:
        """The colour of a contestant: fastadam's, its rival's own, or grey."""
        if name.startswith(OURS):
            return self.ours[0]
        return next((colour for start, colour in self.rivals.items() if name.startswith(start)), self.greys[0])


_RIVALS = ("PyTorch", "DeepSpeed", "thinc", "optax", "article's NumPy", "tuned NumPy", "bitsandbytes", "torchao")
LIGHT = Theme(
    "#24292f",
    ("#0a58ca", "#5a9bf0", "#a9cdf8"),
    dict(
        zip(
            _RIVALS,
            ("#d1440c", "#00805c", "#b03a8c", "#a06a00", "#5c3a21", "#6e7781", "#7a8b00", "#8a63d2"),
            strict=True,
        )
    ),
    ("#8c959f", "#d0d7de"),
)
DARK = Theme(
    "#d7dee6",
    ("#6cb0ff", "#3a7bd0", "#24508c"),
    dict(
        zip(
            _RIVALS,
            ("#ff8a55", "#34cfa0", "#f390d0", "#e8b949", "#d9b08c", "#aab4c0", "#c6d94f", "#bda4f5"),
            strict=True,
        )
    ),
    ("#8b96a3", "#454d57"),
)


def style(theme: Theme) -> dict[str, Any]:
    """Matplotlib's settings: two axes, text that is legible at half the size, no background."""
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(names, theme.ink) | {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "font.size": 14,
        "grid.color": theme.greys[0],
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "savefig.transparent": True,
        "svg.hashsalt": OURS,  # else every run would name the file's elements anew
    }


def draw_factors(cases: list[list[Row]], path: Path) -> None:
    """How many times as long as fastadam each peer takes, a panel a case, one below the other."""
    heights = [0.5 * len(rows) + 1 for rows in cases]
    with context([style(LIGHT), {"savefig.transparent": False}]):
        figure = Figure(figsize=(9, sum(heights)), layout="constrained", dpi=100)
        panels = figure.subplots(len(cases), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, rows in zip(panels, cases, strict=True):
            medians = {row.name: row.median for row in rows}
            ours = medians.pop(OURS)
            factors = {name: median / ours for name, median in medians.items() if LIMIT not in name}
            names = sorted(factors, key=factors.__getitem__)
            bars = axes.barh(names, [factors[name] for name in names], color=[LIGHT.of(name) for name in names])
            axes.bar_label(bars, [times(factors[name]) for name in names], padding=3)
            axes.axvline(1, color=LIGHT.ours[0])
            title = f"{case_name(rows[0].count, rows[0].size)}, {rows[0].dtype}"
            axes.set(title=title, xlabel="time of a step, fastadam = 1", xscale="log")
            axes.set_xlim(min(0.5, *factors.values()), max(2.0, *factors.values()) * 3)
        figure.savefig(path)
