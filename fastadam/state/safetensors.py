"""Checkpoints as ``.safetensors`` files. The format has no checksums, so these have their own."""

import errno
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .entries import META, Fetch
from .mismatch import need

#: entry -> CRC-32, as JSON
_SUMS = "fastadam.crc32"


def write(path: Path, meta: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the description `meta` and the arrays, by entry."""
    plain = {entry: np.asarray(array, order="C") for entry, array in arrays.items()}  # others would be corrupted
    sums = {META: zlib.crc32(meta), **{entry: zlib.crc32(array.data) for entry, array in plain.items()}}
    package = _package()
    path.touch()  # an OSError that is Python's own
    try:
        package.numpy.save_file(plain, path, {META: meta.decode(), _SUMS: json.dumps(sums)})
    except package.SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, set[str], Fetch]]:
    """The description, the entries, and what brings the array of one."""
    package = _package()
    with open(path, "rb"):  # an OSError that is Python's own
        pass
    with package.safe_open(path, framework="numpy") as file:
        texts = file.metadata() or {}
        sums = json.loads(texts[_SUMS])

        def check(entry: str, data: Any) -> None:
            need(zlib.crc32(data) == sums[entry], f"{path}: {entry}: its checksum is wrong")

        def fetch(entry: str) -> np.ndarray:
            array: np.ndarray = file.get_tensor(entry)
            check(entry, array.data)
            return array

        check(META, texts[META].encode())
        yield json.loads(texts[META]), set(file.keys()), fetch


def _package() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("a .safetensors file needs safetensors: pip install 'fastadam[safetensors]'") from error
    return safetensors
