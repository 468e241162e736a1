"""The places that checkpoints are written to and read from: a path, or an open binary file of the caller."""

import io
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from ..kernel.checks import shown
from .atomic import need_regular, path_from, replacing
from .mismatch import need, need_ours, reading

#: the type of the argument `path` of `save` and `load`
Place = str | os.PathLike[str] | IO[bytes]
#: so many bytes tell what a file is, and so many of an open file are read at a time
_HEAD, _PIECE = 9, 1 << 18


class Source:
    """A checkpoint to read: its name in errors, its size, and the function that reads bytes: `read(first, count)`."""

    def __init__(self, name: str, size: int, read: Callable[[int, int], Any]) -> None:
        self.name, self.size, self._read = name, size, read
        #: the bytes that were read for the last small part, and where they begin: mostly the next one is there, too
        self._window, self._begin = memoryview(b""), 0

    def view(self, first: int, count: int) -> Any:
        """These bytes, which another process can no longer change. Refuses a source that ends before them."""
        at = first - self._begin
        if 0 <= at <= len(self._window) - count:
            return self._window[at : at + count]
        is_small, is_there = count < _PIECE // 16, 0 <= first <= self.size - count
        wanted = min(_PIECE, self.size - first) if is_small else count
        data = memoryview(self._read(first, wanted) if is_there else b"")
        need(len(data) >= count, f"{self.name}: not a complete checkpoint: it ends too early")
        if is_small:  # its memory lives as long as any of its parts
            self._window, self._begin = data, first
        return data[:count]


class _Sink(io.RawIOBase):
    """Writes to a file sequentially, and leaves it open. Some files, such as those of ``gzip``, cannot seek back."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        written = self._file.write(bytes(data))
        return len(data) if written is None else written  # a file whose write() returns None has written everything


def place_of(value: Any, method: str) -> Any:
    """The checked argument ``path``: a Path, or an open file that has `method`. Nothing is read or written."""
    if isinstance(value, (str, os.PathLike)) or not hasattr(value, method):
        return path_from("path", value, f"a path, str or os.PathLike, or an open binary file with .{method}()")
    try:
        is_binary = value.read(0) == b"" if method == "read" else value.write(b"") in (None, 0)
    except TypeError:  # a text file refuses bytes
        is_binary = False
    except ValueError as error:  # the file is closed, or open in the other direction
        raise ValueError(f"path: {shown(value)}: {error}") from error
    if not is_binary:
        raise TypeError(f"path: expected a file that is open in binary mode, got {shown(value)}")
    return value


def suffix_of(place: Any) -> str:
    """The suffix of a path, or of an open file's name, if it has one."""
    name = place if isinstance(place, Path) else getattr(place, "name", "")
    return Path(name).suffix if isinstance(name, (str, Path)) else ""


@contextmanager
def writing(place: Any) -> Iterator[IO[bytes]]:
    """The file to write to: a temporary one, which is renamed after the block, or the open file."""
    if isinstance(place, Path):
        with replacing(place) as temporary, open(temporary, "wb") as file:
            yield file
    else:
        with io.BufferedWriter(_Sink(place)) as file:
            yield file


@contextmanager
def source(value: Any) -> Iterator[Source]:
    """The source for a path, or for an open file from its present position to its end.

    What is read is copied into memory, and checked there: if another process shortened a mapped file, the system would
    end this process. A file is mapped only if it is larger than half of the memory, or if an array finds no memory.
    """
    place, most = place_of(value, "read"), _memory() // 2
    if not isinstance(place, Path):
        name = shown(place)
        with reading(name):  # a truncated .gz fails here
            data = memoryview(_all_of(place, name, most))
        yield Source(name, len(data), lambda first, count: data[first : first + count])
        return
    need_regular(place, "a file (open another thing yourself, and give what open() returns)", os.stat(place).st_mode)
    with open(place, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        need_regular(place, "a file", status.st_mode)  # another one may have come there
        _need_known(str(place), file.read(_HEAD) if status.st_size else b"", "an empty file")

        is_small = status.st_size <= most

        @cache
        def mapped() -> memoryview:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

        def read(first: int, count: int) -> Any:
            try:
                file.seek(first)
                return file.read(count) if is_small else mapped()[first : first + count]
            except MemoryError:
                return mapped()[first : first + count]

        yield Source(str(place), status.st_size, read)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, but do not wait for the writer of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _all_of(file: Any, name: str, most: int) -> bytearray:
    """The rest of an open file, of at most so many bytes."""
    data, if_empty = bytearray(), "nothing, from where the file stands; seek(0) first"
    while piece := file.read(_PIECE):
        data += piece
        if len(data) >= _HEAD:
            _need_known(name, data, if_empty)
        need(
            len(data) <= most, f"{name}: more than {most} bytes, half of the memory; write it to a file, give its path"
        )
    _need_known(name, data, if_empty)
    return data


def _need_known(name: str, head: Any, if_empty: str) -> None:
    """Refuse what does not begin like a checkpoint, before more is read."""
    is_known = is_zip(head) or head[8:_HEAD] == b"{"
    need_ours(is_known, name, "neither an .npz nor a .safetensors file" if head else if_empty)


def is_zip(head: Any) -> bool:
    """Whether a file with these first bytes is a zip. A .safetensors file has the length of its header there."""
    return bytes(head[:2]) == b"PK"


def _memory() -> int:
    """The bytes of memory that this process may have, as far as the system tells."""
    if not hasattr(os, "sysconf"):  # Windows, which refuses to give more memory than there is
        return sys.maxsize
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        limit = min(limit, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return limit
