"""Arrays that came from another process read-only, as joblib maps large ones, are given memory that can be written."""

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np


def make_writeable(values: Iterable[Any]) -> None:
    """Make those of these that are read-only arrays writeable, in place: each stays the object that it is, so that
    whatever else holds it, a model beside its optimizer say, sees what is written."""
    for array in values:
        if not isinstance(array, np.ndarray) or array.flags.writeable:
            continue
        if array.flags.owndata:
            array.flags.writeable = True
            continue
        if not isinstance(array.base, np.ndarray):
            weakref.finalize(array, id, array.base)  # views of the array, if there are any, look into the old memory
        own: Any = np.array(array).__reduce__()[2]
        array.__setstate__(own)  # as a pickle fills an array
