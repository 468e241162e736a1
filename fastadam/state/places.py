"""The places that checkpoints are written to and read from: a path, or an open binary file of the caller."""

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..kernel.checks import shown
from .atomic import need_file, path_from, replacing
from .mismatch import reading

#: the type of the argument `path` of `save` and `load`
Place = str | os.PathLike[str] | IO[bytes]


@dataclass(frozen=True)
class Source:
    """A checkpoint to read: its name in errors, its bytes as a file and in memory, and its path, if it has one."""

    name: str
    file: IO[bytes]
    memory: Any
    path: Path | None = None

    @property
    def is_zip(self) -> bool:
        """Whether it begins like a zip file."""
        return bytes(self.memory[:2]) == b"PK"


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


def writing(place: Any) -> AbstractContextManager[Path | IO[bytes]]:
    """The target to write to: a temporary path, which is renamed after the block, or the open file."""
    return replacing(place) if isinstance(place, Path) else io.BufferedWriter(_Sink(place))


@contextmanager
def source(value: Any) -> Iterator[Source]:
    """The source for a path, or for an open file from its present position to its end."""
    place = place_of(value, "read")
    if not isinstance(place, Path):
        name = shown(place)
        with reading(name):  # a truncated .gz fails here
            data = place.read()
        yield Source(name, io.BytesIO(data), data)
        return
    need_file(place, "a file (open another thing yourself, and give what open() returns)")
    with open(place, "rb") as file:
        is_empty = not os.fstat(file.fileno()).st_size  # mmap refuses an empty file
        memory = b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        yield Source(str(place), file, memory, place)
