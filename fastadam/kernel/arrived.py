"""Makes read-only arrays from another process writeable, such as the large ones that joblib maps into memory."""

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np


def make_writeable(values: Iterable[Any]) -> None:
    """Make the read-only arrays among these writeable, in place. Each stays the same object, so that others that refer
    to it, such as the model of an optimizer, see what is written."""
    for array in values:
        if not isinstance(array, np.ndarray) or array.flags.writeable:
            continue
        if array.flags.owndata:
            array.flags.writeable = True
            continue
        if not isinstance(array.base, np.ndarray):
            weakref.finalize(array, id, array.base)  # keeps the old memory alive for views of the array
        own: Any = np.array(array).__reduce__()[2]
        array.__setstate__(own)  # gives the array new memory, as unpickling does
