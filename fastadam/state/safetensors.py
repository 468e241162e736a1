"""Checkpoints as ``.safetensors`` files. The format has no checksums, so these are stored as metadata.

A file has the length of the header in 8 bytes, the header as JSON, and the arrays. It is written and read here, because
the package safetensors ends the process if memory is short, or if another process shortens a file while it is read.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import IO, Any

import numpy as np

from .entries import META, Fetch, array_in, description, need_all, need_short, pieces
from .mismatch import mapping, need, need_ours
from .places import Source

#: entry -> CRC-32, as JSON
_SUMS = "fastadam.crc32"
#: in the description: the entries of complex arrays, which are stored as pairs of real numbers
_COMPLEX = "complex"
#: dtypes, by their names in the format
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
#: the greatest length of a header that the package reads
_MAX_HEADER = 100_000_000


def write(file: IO[bytes], meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the description `meta` and the arrays, by entry."""
    arrays = dict(sorted(arrays.items(), key=lambda pair: -pair[1].itemsize))  # so that all are aligned
    pairs = [entry for entry, array in arrays.items() if array.dtype.kind == "c"]
    text = description({**meta, **({_COMPLEX: pairs} if pairs else {})}, arrays)
    sums, told, end = {META: zlib.crc32(text)}, {}, 0
    for entry, array in arrays.items():
        is_pair = array.dtype.kind == "c"
        shape, dtype = (*array.shape, 2) if is_pair else array.shape, array.real.dtype if is_pair else array.dtype
        told[entry] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": (end, end + array.nbytes)}
        sums[entry], end = _crc(array), end + array.nbytes
    texts = {META: text.decode(), _SUMS: json.dumps(sums)}
    header = json.dumps({"__metadata__": texts, **told}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    need(len(header) <= _MAX_HEADER, f"the names take {len(header)} bytes, more than a .safetensors file can have")
    file.write(len(header).to_bytes(8, "little") + header)
    for entry, array in arrays.items():
        crc = 0
        for piece in pieces(array, order="C"):
            file.write(piece)
            crc = zlib.crc32(piece, crc)
        need(crc == sums[entry], f"{entry}: another thread changed the array while it was saved")


def _crc(array: np.ndarray) -> int:
    return reduce(lambda crc, piece: zlib.crc32(piece, crc), pieces(array, order="C"), 0)


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, list[str], Fetch]]:
    """The description, the entries in their order, and the function that returns the array of an entry."""
    where, length = source.name, int.from_bytes(source.view(0, 8), "little")
    need(length <= _MAX_HEADER, f"{where}: a header of {length} bytes is too long")
    told, first = json.loads(bytes(source.view(8, length))), 8 + length
    texts = told.pop("__metadata__", None) or {}
    need_ours(META in texts, where, f"a .safetensors file without {META}")
    sums, end = json.loads(texts[_SUMS]), 0
    told = dict(sorted(told.items(), key=lambda pair: pair[1]["data_offsets"]))  # read from front to back
    for at in (tensor["data_offsets"] for tensor in told.values()):
        need(at[0] == end <= at[1], f"{where}: its arrays overlap, or have gaps between them")
        end = at[1]
    need(first + end == source.size, f"{where}: expected {first + end} bytes, got {source.size}")

    def check(entry: str, data: Any) -> None:
        if zlib.crc32(data) != sums[entry]:  # messages are slow to make
            need(False, f"{where}: {entry}: its checksum is wrong")

    def fetch(entry: str) -> np.ndarray:
        begin, end = told[entry]["data_offsets"]
        data, name = source.view(first + begin, end - begin), told[entry]["dtype"]
        check(entry, data)
        if name not in _DTYPES:
            need(False, f"{where}: {entry}: not a dtype of NumPy: {name!r}")
        array = array_in(where, entry, data, tuple(told[entry]["shape"]), False, np.dtype(_DTYPES[name]))
        return array.view(np.result_type(array, np.complex64))[..., 0] if entry in pairs else array

    need_short(f"{where}: ", len(texts[META]), len(told))
    check(META, texts[META].encode())
    meta = mapping(f"{where}: description", json.loads(texts[META]))
    pairs = set(meta.get(_COMPLEX, ()))
    need_all(where, meta, told)
    yield meta, list(told), fetch
