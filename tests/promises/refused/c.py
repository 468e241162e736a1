"""The C interface: arguments that it refuses, and the code that it returns."""

from collections.abc import Callable
from typing import Any

#: the call, and the end of its code's name
CALLS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("options NULL", lambda w: w.step(null=-1), "BAD_OPTIONS"),
    ("size 0", lambda w: w.step(size=0), "BAD_OPTIONS"),
    ("size of no header", lambda w: w.step(size=8 + 8 * 12), "BAD_OPTIONS"),
    ("size of a newer header", lambda w: w.step(size=8 + 8 * 32), "BAD_OPTIONS"),
    ("n = -1", lambda w: w.step(n=-1), "BAD_LENGTH"),
    ("n = -2**62", lambda w: w.step(n=-(2**62)), "BAD_LENGTH"),
    ("t = 0", lambda w: w.step(t=0), "BAD_STEP"),
    ("t = -1", lambda w: w.step(t=-1), "BAD_STEP"),
    ("p NULL", lambda w: w.step(null=0), "NULL_POINTER"),
    ("g NULL", lambda w: w.step(null=1), "NULL_POINTER"),
    ("m NULL", lambda w: w.step(null=2), "NULL_POINTER"),
    ("v NULL", lambda w: w.step(null=3), "NULL_POINTER"),
]  # fmt: skip
