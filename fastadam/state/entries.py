"""What is in files: the entry of each array, the entry of the description, and the bytes of an array."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from .mismatch import Mismatch, mapping, need, need_names, need_same

#: the version of files and dicts: version 1 counted the steps of groups, version 2 counts those of parameters
VERSION = 2
#: the entry with everything except the arrays, as JSON
META = "fastadam.json"
#: the most bytes of it: so many, and so many more for each array
_MOST, _MOST_EACH = 1 << 24, 1 << 11
#: in the description: the names of all other entries, so that none can get lost without notice
_LISTED = "entries"
#: returns the array of an entry
Fetch = Callable[[str], Any]
#: not possible in an entry's name: a zip ends it at NUL, Windows reads a backslash as a slash, UTF-8 has no surrogates
_ODD = re.compile("[%\0\\\\\ud800-\udfff]")
#: the most axes of an array of NumPy
_MOST_AXES = 64
#: the most bytes of an array that are copied at a time
_PIECE = 1 << 20


def entry_of(key: str, name: str) -> str:
    """The entry of an array: the state's name and the parameter's key, with odd characters encoded as in a URL."""
    return f"{name}/{_ODD.sub(lambda odd: f'%{ord(odd[0]):02X}', key)}"


def in_file(array: np.ndarray) -> np.ndarray:
    """The array as it is stored in files. bfloat16 is stored as its bits, since NumPy's format does not know it."""
    is_bfloat16 = array.itemsize == 2 and array.dtype.name == "bfloat16"  # dtype.name is slow, so it comes second
    return array.view(np.uint16) if is_bfloat16 else array


def pieces(array: np.ndarray, order: str = "K") -> Iterator[bytes]:
    """The bytes of an array, by copies of its parts. The order "K" is Fortran's where the array has that, else C's."""
    flags = array.flags
    if not (flags.c_contiguous or (flags.f_contiguous and order == "K")):
        parts = np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=_PIECE // 16, order="C")
        yield from (np.asarray(part).tobytes() for part in parts)
    elif array.nbytes <= _PIECE:
        yield array.tobytes("A")
    else:
        flat = array.ravel("K").view(np.uint8)  # a view
        yield from (flat[k : k + _PIECE].tobytes() for k in range(0, array.nbytes, _PIECE))


def array_in(
    where: str, entry: str, data: Any, shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype[Any], first: int = 0
) -> np.ndarray:
    """The array that takes all bytes of `data` from number `first` on. It is a view."""
    is_long = len(shape) > _MOST_AXES  # a product of many numbers is slow
    if is_long or len(data) != first + math.prod(shape) * dtype.itemsize or dtype.hasobject:  # so is the message
        need(False, f"{where}: {entry}: {len(data)} bytes are not those of an array {shape} of {dtype}")
    return np.ndarray(shape, dtype, data, first, order="F" if is_fortran else "C")


def description(meta: Mapping[str, Any], entries: Collection[str]) -> bytes:
    """The description of a file with these entries, as JSON."""
    text = json.dumps({**meta, _LISTED: list(entries)}).encode()
    need_short("", len(text), len(entries))
    return text


def need_short(where: str, length: int, n_entries: int) -> None:
    """Refuse a description that is longer than the names and options of so many arrays can need."""
    most = _MOST + _MOST_EACH * n_entries
    need(length <= most, f"{where}a description of {length} bytes is too long: {n_entries} arrays may have {most}")


def need_all(where: str, meta: Any, entries: Collection[str]) -> None:
    """Refuse a file whose entries are not those that its description lists."""
    need_names(where, entries, set(mapping(f"{where}: description", meta).get(_LISTED, entries)))


def need_version(where: str, came: Any) -> None:
    """Refuse data of another version."""
    if type(came) is int and came == 1:
        raise Mismatch(
            f"{where}: version: expected {VERSION}, got 1, which counts the steps of each group; version {VERSION} "
            "counts those of each parameter. Start a new run, or load it with the version of fastadam that wrote it"
        )
    need_same(f"{where}: version", came, VERSION)
