"""What all pictures share: a light and a dark file of each, labels that do not meet, legends beside the panels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import NullFormatter

from fastadam.bench.plots import DARK, LIGHT, Theme, style

from .source import Found, Lines, link

WIDTH = 7.2  #: inches: with this size of text a picture is legible on a phone
THEMES = {"light": LIGHT, "dark": DARK}
Draw = Callable[[Found, Theme], Figure]


def save(draw: Draw, measured: Found, folder: Path, name: str) -> None:
    """Both files of a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, theme in THEMES.items():
        with context(style(theme)):
            draw(measured, theme).savefig(folder / f"{name}-{suffix}.svg", metadata={"Date": None})


def shown(where: Path, name: str, alt: str, folder: Path | None = None) -> Lines:
    """The picture, beside the page or in `folder`, within a page: the dark file where the reader's browser is dark."""
    folder = folder or where.parent / "pictures"
    light, dark = (link(where, folder / f"{name}-{suffix}.svg") for suffix in THEMES)
    return [
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">',
        f'<img src="{light}" alt="{alt}"></picture>',
    ]


def figure(
    height: float, panels: int = 1, layout: str | None = "constrained", **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with its panels one below the other."""
    made = Figure(figsize=(WIDTH, height), layout=layout)
    return made, list(made.subplots(panels, 1, squeeze=False, **kwargs).ravel())


def plain_numbers(axis: Axis, ticks: tuple[float, ...] = ()) -> None:
    """Numbers with commas on an axis, not powers of ten; of `ticks`, those within its limits."""
    if ticks:
        low, high = axis.get_view_interval()
        axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(lambda x, place: f"{x:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: dict[str, tuple[float, float, str]], gap: float = 19.0) -> None:
    """A name right of each line's end, in its colour: moved apart up and down, and tied to the end by a thin line."""
    axes.get_xlim(), axes.get_ylim()  # which settles them
    to_points = 72 / axes.figure.dpi
    points = {name: axes.transData.transform((x, y)) * to_points for name, (x, y, _) in ends.items()}
    right = max(x for x, _ in points.values()) + 22
    heights = apart({name: y for name, (_, y) in points.items()}, gap)
    for name, (x, y, colour) in ends.items():
        offset = (right - points[name][0], heights[name] - points[name][1])
        arrow = {"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 2, "shrinkB": 3, "relpos": (0, 0.5)}
        how = {"textcoords": "offset points", "va": "center", "annotation_clip": False, "arrowprops": arrow}
        axes.annotate(name, (x, y), offset, color=colour, **how)


def apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights at least so far apart, in the same order, as near to the old ones as that allows."""
    names = sorted(heights, key=heights.__getitem__)
    groups: list[tuple[float, int]] = []  # the middle of names that touch, and how many they are
    for name in names:
        middle, count = heights[name], 1
        while groups and groups[-1][0] + gap * (groups[-1][1] + count) / 2 > middle:
            other, n = groups.pop()
            middle, count = (middle * count + other * n) / (count + n), count + n
        groups.append((middle, count))
    placed = [middle + gap * (k - (count - 1) / 2) for middle, count in groups for k in range(count)]
    return dict(zip(names, placed, strict=True))
