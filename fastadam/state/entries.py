"""Names in files: the entry of each array, and the entry of the description."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .mismatch import Mismatch, need_same

#: the version of files, folders and dicts: version 1 counted the steps of groups, version 2 counts those of parameters
VERSION = 2
#: the entry with everything except the arrays, as JSON, and its greatest length in bytes
META, MAX_META = "fastadam.json", 1 << 28
#: returns the array of an entry
Fetch = Callable[[str], Any]
#: not possible in an entry's name: a zip ends it at NUL, Windows reads a backslash as a slash, UTF-8 has no surrogates
_ODD = re.compile("[%\0\\\\\ud800-\udfff]")


def entry_of(key: str, name: str) -> str:
    """The entry of an array: the state's name and the parameter's key, with odd characters encoded as in a URL."""
    return f"{name}/{_ODD.sub(lambda odd: f'%{ord(odd[0]):02X}', key)}"


def in_file(array: np.ndarray) -> np.ndarray:
    """The array as it is stored in files. bfloat16 is stored as its bits, since NumPy's format does not know it."""
    is_bfloat16 = array.itemsize == 2 and array.dtype.name == "bfloat16"  # dtype.name is slow, so it comes second
    return array.view(np.uint16) if is_bfloat16 else array


def need_version(where: str, came: Any) -> None:
    """Refuse data of another version."""
    if type(came) is int and came == 1:
        raise Mismatch(
            f"{where}: version: expected {VERSION}, got 1, which counts the steps of each group; version {VERSION} "
            "counts those of each parameter. Start a new run, or load it with the version of fastadam that wrote it"
        )
    need_same(f"{where}: version", came, VERSION)
