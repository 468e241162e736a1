"""Checks of a picture that a program drew: large enough, not blank, and nothing runs over its edge."""

from pathlib import Path

import numpy as np
from matplotlib import image


def check(path: Path, height: int, width: int, n_colours: int) -> None:
    """At least so many pixels and colours, and white corners."""
    pixels = image.imread(path)
    assert pixels.shape[0] >= height
    assert pixels.shape[1] >= width
    colours = np.round(255 * pixels).astype(np.uint8).view(np.uint32)  # a pixel's four numbers as one
    assert len(np.unique(colours)) > n_colours
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 1).all()
