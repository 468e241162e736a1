"""The atomic replace of a file: a crash at any moment leaves the old file or the new one."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ..kernel.checks import shown


def path_from(name: str, value: Any, allowed: str = "a path, str or os.PathLike") -> Path:
    """The path that an argument gives; `allowed` says in words what it may be."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected {allowed}, got {shown(value)}")
    if not text or "\0" in text:  # an empty one would be the folder in which Python runs
        raise ValueError(f"{name}: expected a path that is not empty and has no NUL, got {shown(value)}")
    return Path(text)


def need_file(path: Path, allowed: str) -> None:
    """Refuse what is there but no file: a device may have no end, a pipe nobody who writes. A folder is seen later."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, f"expected {allowed}, got a device, pipe or socket", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. After the block that file is synced and takes the place and mode of `path`."""
    path = Path(os.path.realpath(path))  # of what a link leads to
    need_file(path, "a file or a new name")
    temporary = path.with_name(f".fastadam-{secrets.token_hex(8)}.tmp")
    try:
        with _synced(path.parent, os.O_RDONLY) if os.name == "posix" else nullcontext():  # Windows opens no folders
            yield temporary
            with _synced(temporary, os.O_RDWR):
                if path.exists():
                    temporary.chmod(path.stat().st_mode)
            os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # of where it could not be made
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary), str(path.parent)):
            error.filename = str(path)  # which the caller knows
            del error.filename2  # None would be said, too
        raise


@contextmanager
def _synced(path: Path, flags: int) -> Iterator[None]:
    """Sync a file, or the entries of a folder, after the block. It is opened first: a failure of that costs nothing."""
    handle = os.open(path, flags)
    try:
        yield
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
                raise
    finally:
        os.close(handle)
