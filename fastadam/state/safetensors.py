"""Checkpoints as ``.safetensors`` files. The format has no checksums, so these are stored as metadata."""

import errno
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from .entries import META, Fetch
from .mismatch import need, need_ours
from .places import Source

#: entry -> CRC-32, as JSON
_SUMS = "fastadam.crc32"
#: the entries of complex arrays, as JSON; the format has no complex128, so they are stored as pairs of real numbers
_COMPLEX = "fastadam.complex"


def write(place: Path | IO[bytes], meta: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the description `meta` and the arrays, by entry."""
    # the package would corrupt arrays that are not in C order
    plain = {entry: _real(np.asarray(array, order="C")) for entry, array in arrays.items()}
    sums = {META: zlib.crc32(meta), **{entry: zlib.crc32(array.data) for entry, array in plain.items()}}
    texts = {META: meta.decode(), _SUMS: json.dumps(sums)}
    pairs = [entry for entry, array in arrays.items() if np.iscomplexobj(array)]
    texts |= {_COMPLEX: json.dumps(pairs)} if pairs else {}
    package = _package()
    if not isinstance(place, Path):
        place.write(package.numpy.save(plain, texts))
        return
    place.touch()  # so that a path that cannot be written raises Python's own OSError
    try:
        package.numpy.save_file(plain, place, texts)
    except package.SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(place)) from error


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, set[str], Fetch]]:
    """The description, the entries, and the function that returns the array of an entry."""
    package, where = _package(), source.name
    with ExitStack() as stack:
        if source.path is None:
            arrays = package.numpy.load(source.memory)
            names, get = set(arrays), arrays.__getitem__
        else:
            file = stack.enter_context(package.safe_open(source.path, framework="numpy"))
            names, get = set(file.keys()), file.get_tensor
        size = int.from_bytes(source.memory[:8], "little")  # of the header; the package has checked it
        texts = json.loads(source.memory[8 : 8 + size]).get("__metadata__") or {}
        need_ours(META in texts, where, f"a .safetensors file without {META}")
        sums, pairs = json.loads(texts[_SUMS]), json.loads(texts.get(_COMPLEX, "[]"))

        def check(entry: str, data: Any) -> None:
            need(zlib.crc32(data) == sums[entry], f"{where}: {entry}: its checksum is wrong")

        def fetch(entry: str) -> np.ndarray:
            array: np.ndarray = get(entry)
            check(entry, array.data)
            return _complex(array) if entry in pairs else array

        check(META, texts[META].encode())
        yield json.loads(texts[META]), names, fetch


def _real(array: np.ndarray) -> np.ndarray:
    """A complex array in C order, as its real and imaginary parts along a new last axis."""
    return array[..., np.newaxis].view(array.real.dtype) if np.iscomplexobj(array) else array


def _complex(array: np.ndarray) -> np.ndarray:
    """The inverse of `_real`."""
    return array.view(np.result_type(array, np.complex64))[..., 0]


def _package() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("a .safetensors file needs safetensors: pip install safetensors") from error
    return safetensors
