"""Checkpoints as ``.npz`` files: plain arrays in a zip, each with a checksum.

`zipfile` and `numpy.save` take 25 µs and more for an array, and an optimizer may have 300,000. So the records of a zip
are written and read here. `zipfile` and `numpy.load` read these files, and files that they write are read here.
"""

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any

import numpy as np

from .entries import META, Fetch, array_in, description, need_all, need_short, pieces
from .mismatch import need, need_ours
from .places import Source

# The records of a zip, as in PKWARE's APPNOTE.TXT: before and after an entry, in the directory, and at the end.
_BEFORE, _AFTER = struct.Struct("<4s5H3I2H"), struct.Struct("<4sI2Q")
_LISTED, _END = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_END64, _LOCATOR = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
#: where a number has 32 bits, this says that it stands in a field of 64 bits
_MAX = 2**32 - 1
#: entries that end before this byte are listed in 32 bits, which is faster to read
_LARGE = _MAX
_BEFORE_64, _LISTED_64 = struct.Struct("<2H2Q"), struct.Struct("<2H3Q")
#: of an entry: the checksum follows it, and its name is UTF-8
_FLAGS = 0x808
#: 1980-01-01, so that the same state makes the same file
_DATE = 33
#: versions of zip, times 10: the one that is needed to read the file, and the newest that zipfile and NumPy read
_ZIP, _NEWEST = 45, 63


def write(file: IO[bytes], meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the description `meta` and the arrays, by entry."""
    directory, begin = [], 0
    for entry, array in {META: np.frombuffer(description(meta, arrays), np.uint8), **arrays}.items():
        name = f"{entry}.npy".encode()
        need(len(name) < 2**16, f"{entry[:50]}…: too long a key for an .npz file")
        header = _header(array.shape, array.dtype, array.flags.f_contiguous and not array.flags.c_contiguous)
        size, crc = len(header) + array.nbytes, zlib.crc32(header)
        before = _BEFORE.pack(b"PK\3\4", _ZIP, _FLAGS, 0, 0, _DATE, 0, _MAX, _MAX, len(name), _BEFORE_64.size)
        file.write(b"".join((before, name, _BEFORE_64.pack(1, 16, 0, 0), header)))
        for piece in pieces(array):
            file.write(piece)
            crc = zlib.crc32(piece, crc)
        file.write(_AFTER.pack(b"PK\7\10", crc, size, size))
        end = begin + len(before) + len(name) + _BEFORE_64.size + size + _AFTER.size
        shown, where, more = (
            (size, begin, b"") if end < _LARGE else (_MAX, _MAX, _LISTED_64.pack(1, 24, size, size, begin))
        )
        listed = (_ZIP, _ZIP, _FLAGS, 0, 0, _DATE, crc, shown, shown, len(name), len(more), 0, 0, 0, 0, where)
        directory.append(_LISTED.pack(b"PK\1\2", *listed) + name + more)
        begin = end
    listing, count = b"".join(directory), len(directory)
    file.write(listing)
    file.write(_END64.pack(b"PK\6\6", _END64.size - 12, _ZIP, _ZIP, 0, 0, count, count, len(listing), begin))
    file.write(_LOCATOR.pack(b"PK\6\7", 0, begin + len(listing), 1))
    file.write(_END.pack(b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, _MAX, _MAX, 0))


@lru_cache(4096)
def _header(shape: tuple[int, ...], dtype: np.dtype[Any], is_fortran: bool) -> bytes:
    """The header of an ``.npy`` array."""
    file = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": is_fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, list[str], Fetch]]:
    """The description, the entries in their order, and the function that returns the array of an entry."""
    where, places = source.name, _directory(source)
    need_ours(META in places, where, f"a zip without {META}.npy")

    def fetch(entry: str) -> np.ndarray:
        begin, size, crc, is_plain = places[entry]
        if not is_plain:  # messages are slow to make
            need(False, f"{where}: {entry}: is compressed or encrypted, which `save` never does")
        at, name = begin + _BEFORE.size, f"{entry}.npy".encode()
        signature, *_, length, more = _BEFORE.unpack(source.view(begin, _BEFORE.size))
        if signature != b"PK\3\4" or source.view(at, length) != name:
            need(False, f"{where}: {entry}: has another name in the directory of the zip, or no header")
        data = source.view(at + length + more, size)
        if zlib.crc32(data) != crc:
            need(False, f"{where}: {entry}: its checksum is wrong")
        first = 10 if data[6:7] == b"\1" else 12  # after the length of the header, which has 4 bytes in version 2
        head = bytes(data[: first + int.from_bytes(data[8:first], "little")])
        return array_in(where, entry, data, *_parsed(head), len(head))

    need_short(f"{where}: ", places[META][1] - len(_header((1,), np.dtype("u1"), False)), len(places) - 1)
    meta, names = json.loads(fetch(META).tobytes()), [entry for entry in places if entry != META]
    need(sum(place[1] for place in places.values()) <= source.size, f"{where}: its entries overlap")
    need_all(where, meta, names)
    yield meta, names, fetch


def _directory(source: Source) -> dict[str, tuple[int, int, int, bool]]:
    """Entry -> where it begins, its size, its checksum, and whether it is neither compressed nor encrypted."""
    where, at = source.name, source.size - _END.size
    signature, *_, count, length, begin, comment = _END.unpack(source.view(at, _END.size))
    need(signature == b"PK\5\6" and not comment, f"{where}: not a complete zip: it has no end")
    if _MAX in (length, begin) or (count == 2**16 - 1 and begin + length != at):  # zipfile has so many without more
        at -= _LOCATOR.size + _END64.size
        signature, *_, count, length, begin = _END64.unpack(source.view(at, _END64.size))
        need(signature == b"PK\6\6", f"{where}: not a complete zip: its end says less than it should")
    need(begin + length == at, f"{where}: not a zip from its first byte to its last; give each checkpoint its own file")
    listing, first = source.view(begin, length), 0
    places: dict[str, tuple[int, int, int, bool]] = {}
    for _ in range(count):
        signature, _, needed, flags, method, _, _, crc, packed, size, n, more, note, _, _, _, begin = (
            _LISTED.unpack_from(listing, first)
        )
        first += _LISTED.size + n
        entry = str(listing[first - n : first], "utf-8").removesuffix(".npy")
        if _MAX in (size, packed, begin):  # those that are _MAX stand in the next field, in this order
            wide = iter(struct.unpack_from(f"<{(size, packed, begin).count(_MAX)}Q", listing, first + 4))
            size, packed, begin = (next(wide) if number == _MAX else number for number in (size, packed, begin))
        first += more + note
        is_plain = not method and size == packed and not flags & ~_FLAGS
        if signature != b"PK\1\2" or needed > _NEWEST:
            need(False, f"{where}: {entry}: not an entry of a zip of version {_NEWEST / 10} or older")
        if entry in places:
            need(False, f"{where}: {entry}: has two entries of one name")
        places[entry] = begin, size, crc, is_plain
    need(first == length, f"{where}: its directory has other entries than it counts")
    return dict(sorted(places.items(), key=lambda pair: pair[1]))  # so that the file is read from front to back


@lru_cache(4096)
def _parsed(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether it is in Fortran order, and the dtype that the header of an ``.npy`` array says."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"unknown version {version} of the .npy format")
    try:
        return read(file)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy parses it as Python, which fails in many ways (a deep nesting: MemoryError)
        raise ValueError(f"the header is no array's: {type(error).__name__}: {error}") from error
