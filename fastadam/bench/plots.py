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
    ours: tuple[str, str, str]  #: three lines of fastadam's hue
    fill: str  #: the pale part of fastadam's bars
    rivals: dict[str, str]  #: by the beginning of a name, all of other hues
    greys: tuple[str, str]

    def of(self, name: str) -> str:
        """The colour of a contestant: fastadam's, its rival's own, or grey."""
        if name.startswith(OURS):
            return self.ours[0]
        return next((colour for start, colour in self.rivals.items() if name.startswith(start)), self.greys[0])


#: the rivals' colours on a light and on a dark background
_RIVALS = {
    "PyTorch": ("#d1440c", "#ff8a55"),
    "DeepSpeed": ("#00805c", "#34cfa0"),
    "thinc": ("#b03a8c", "#f390d0"),
    "optax": ("#a06a00", "#e8b949"),
    "article's NumPy": ("#5c3a21", "#d9b08c"),
    "tuned NumPy": ("#6e7781", "#aab4c0"),
    "bitsandbytes": ("#7a8b00", "#c6d94f"),
    "torchao": ("#8a63d2", "#bda4f5"),
}
LIGHT, DARK = (
    Theme(ink, ours, fill, {name: pair[k] for name, pair in _RIVALS.items()}, greys)
    for k, (ink, ours, fill, greys) in enumerate(
        (
            ("#24292f", ("#0a50bf", "#3f8cf0", "#86b9f7"), "#b4d2f9", ("#8c959f", "#d0d7de")),
            ("#d7dee6", ("#6cb0ff", "#c5dfff", "#3d7edb"), "#24508c", ("#8b96a3", "#454d57")),
        )
    )
)


def plain_style(ink: str) -> dict[str, Any]:
    """Matplotlib's settings of all pictures: text in one colour, two axes, no background."""
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(names, ink) | {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.transparent": True,
        "svg.hashsalt": OURS,  # else every run would name the file's elements anew
    }


def style(theme: Theme) -> dict[str, Any]:
    """Text that is legible at half the size of a picture, and paler lines behind the figures."""
    return plain_style(theme.ink) | {
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "font.size": 14,
        "grid.color": theme.greys[0],
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "lines.linewidth": 2,
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
