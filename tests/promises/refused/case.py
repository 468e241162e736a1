"""A bad call, and parts that the tables share: texts that several errors have, and options for many calls.
A table is a list of rows in a module of this package, one for each interface. `CASES` there is made from its rows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastadam import schedules


class Case(NamedTuple):
    """A bad call in a world: its error, and how that begins; "…" stands for anything, "{folder}" for the world's."""

    name: str
    world: Callable[[Path], Any]
    call: Callable[[Any], Any]
    error: type[BaseException]
    text: str


def of_rows(table: str, world: Callable[[Path], Any], rows: list[Any]) -> list[Case]:
    """The cases of a table whose rows are a name, a call, the error and how it begins."""
    return [Case(f"{table} {name}", world, *row) for name, *row in rows]


RATE, BELOW_ONE, UP_TO_ONE = "a number >= 0 and finite", "a number >= 0 and < 1", "a number >= 0 and <= 1"
FINITE, END = "a number that is finite", "a number or None, and no NaN"
NORM, FLAG, THREADS = "a number > 0, or infinity", "True or False", "a whole number >= 1"
ARRAY = "expected a numpy array, got "
DTYPE = "expected dtype float16, bfloat16, float32, float64, complex64 or complex128, got "
#: all that a step may do to gradients
ALL = {"grad_scale": 2.0, "max_norm": 1.0, "clip_value": 0.5, "skip_nonfinite": True, "zero_grads": True}
good_rate = schedules.cosine(0.5, 10)


def zero_division(t: int) -> float:
    return 1 / 0


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def step(w: Any) -> None:
    w.opt.step()
