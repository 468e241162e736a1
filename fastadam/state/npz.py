"""Checkpoints as ``.npz`` files: plain arrays in a zip, each with a checksum."""

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .entries import MAX_META, META, Fetch
from .mismatch import need, need_ours
from .places import Source


def write(place: Path | IO[bytes], meta: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the description `meta` and the arrays, by entry."""
    with zipfile.ZipFile(place, "w") as archive:
        for entry, array in {META: np.frombuffer(meta, np.uint8), **arrays}.items():
            name = f"{entry}.npy"
            need(len(name.encode()) < 2**16, f"{entry[:50]}…: too long a key for an .npz file")
            # without a date, so that the same state makes the same file
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, set[str], Fetch]]:
    """The description, the entries, and the function that returns the array of an entry.

    An array is a view of the file, so that arrays larger than memory can be loaded.
    """
    with zipfile.ZipFile(source.file) as archive:
        where, names = source.name, archive.namelist()
        need_ours(f"{META}.npy" in names, where, f"a zip without {META}.npy")

        def fetch(entry: str) -> np.ndarray:
            info = archive.getinfo(f"{entry}.npy")
            need(info.compress_type == zipfile.ZIP_STORED, f"{where}: {entry}: is compressed, which `save` never does")
            with archive.open(info) as member:
                first = source.file.tell()
                shape, is_fortran, dtype = read_header(member)
                first += member.tell()
                size = member.tell() + math.prod(shape) * dtype.itemsize
                need(
                    size == info.file_size == info.compress_size and not dtype.hasobject,
                    f"{where}: {entry}: {info.file_size} bytes are not those of an array {shape} of {dtype}",
                )
                while member.read(1 << 20):  # zipfile compares the checksum at the end
                    pass
            return np.ndarray(shape, dtype, source.memory, first, order="F" if is_fortran else "C")

        meta = fetch(META)
        need(meta.nbytes <= MAX_META, f"{where}: a description of {meta.nbytes} bytes is too long")
        entries = [name.removesuffix(".npy") for name in names]
        need(len(set(entries)) == len(entries), f"{where}: has two entries of one name")
        first_zip = min(info.header_offset for info in archive.infolist())
        need(not (source.is_zip and first_zip), f"{where}: holds another zip before this one; give each its own file")
        yield json.loads(meta.tobytes()), set(entries) - {META}, fetch


def read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether it is in Fortran order, and the dtype of the ``.npy`` array that begins here."""
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
