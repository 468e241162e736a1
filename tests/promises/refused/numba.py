"""`fastadam.numba`: arguments of its jitted steps that do not fit."""

from collections.abc import Callable
from typing import Any

from numpy import nan, ones

from .case import of_rows
from .worlds import jitted

STEP = "adam_step: "
NUMBA: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("t = 0", lambda w: w.step(t=0), ValueError, f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("t = -3", lambda w: w.step(t=-3), ValueError, f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("t = nan", lambda w: w.step(t=nan), ValueError,
     f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("shape of g", lambda w: w.step(g=ones((2, 4))), ValueError, f"{STEP}g: expected the shape of p in C order"),
    ("axes of v", lambda w: w.step(v=ones(6)), ValueError,
     f"{STEP}v: expected the shape of p in C order; see numpy.asc"),
    ("order of m", lambda w: w.step(m=ones((3, 2)).T), ValueError, f"{STEP}m: expected the shape of p in C order; see"),
    ("dtype of g", lambda w: w.step(g=ones((2, 3), "f4")), TypeError,
     f"{STEP}g: expected float32 or float64, the same"),
    ("integers", lambda w: w.step(p=ones((2, 3), int)), TypeError,
     f"{STEP}p: expected float32 or float64, the same for"),
    ("complex", lambda w: w.step(**{name: ones((2, 3), complex) for name in "pgmv"}), TypeError,
     f"{STEP}p: expected float32 or float64, the same for"),
    ("another rule", lambda w: __import__("fastadam.numba").numba.lamb_step, AttributeError,
     "module 'fastadam.numba' has no attribute 'lamb_step'; it has rules adam, amsgrad,"),
]  # fmt: skip

CASES = of_rows("numba", jitted, NUMBA)
