"""What files call what they hold: the entry of each array, and the entry of the description."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .mismatch import Mismatch, need_same

#: the version of files, folders and dicts; version 1 counted the steps of groups, version 2 counts those of parameters
VERSION = 2
#: the entry that holds all but the arrays, as JSON; a longer one is none of ours
META, MAX_META = "fastadam.json", 1 << 28
#: brings the array of an entry
Fetch = Callable[[str], Any]
#: what no entry's name can hold: a zip ends it at NUL, Windows takes a backslash for a slash, UTF-8 has no surrogates
_ODD = re.compile("[%\0\\\\\ud800-\udfff]")


def entry_of(key: str, name: str) -> str:
    """The entry of an array: the state's name and the parameter's key, odd characters as in a URL."""
    return f"{name}/{_ODD.sub(lambda odd: f'%{ord(odd[0]):02X}', key)}"


def in_file(array: np.ndarray) -> np.ndarray:
    """The array as files know it: bfloat16, which NumPy's format has no name for, as its bits."""
    is_bfloat16 = array.itemsize == 2 and array.dtype.name == "bfloat16"  # whose name takes long to ask for
    return array.view(np.uint16) if is_bfloat16 else array


def need_version(where: str, came: Any) -> None:
    """Refuse what another version wrote."""
    if type(came) is int and came == 1:
        raise Mismatch(
            f"{where}: version: expected {VERSION}, got 1, which counts the steps of each group; version {VERSION} "
            "counts those of each parameter. Begin anew, or load it with the fastadam that wrote it"
        )
    need_same(f"{where}: version", came, VERSION)
