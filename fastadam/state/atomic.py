"""Atomic replacement of a file: a crash at any moment leaves the old file or the new one."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ..kernel.checks import shown


def path_from(name: str, value: Any, allowed: str = "a path, str or os.PathLike") -> Path:
    """The path that an argument names. `allowed` describes the allowed values."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected {allowed}, got {shown(value)}")
    if not text or "\0" in text:  # an empty path would mean the current folder
        raise ValueError(f"{name}: expected a path that is not empty and has no NUL, got {shown(value)}")
    return Path(text)


def need_regular(path: Path, allowed: str, mode: int) -> None:
    """Refuse folders, and devices, pipes and sockets: reading one may never end."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"expected {allowed}, got a device, pipe or socket", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of an empty file to write to. After the block the file is synced and renamed to
    `path`. It has the mode of the old file, if there is one, from its beginning."""
    path = Path(os.path.realpath(path))  # the target of a link
    temporary, mode = path.with_name(f".fastadam-{secrets.token_hex(8)}.tmp"), None
    with suppress(FileNotFoundError):
        old = os.stat(path).st_mode
        need_regular(path, "a file or a new name", old)
        mode = stat.S_IMODE(old)
    try:
        with _synced(path.parent, os.O_RDONLY) if os.name == "posix" else nullcontext():  # Windows cannot open folders
            # the owner must be able to write to it; the umask may take away more until the end
            first = 0o666 if mode is None else mode & 0o777 | stat.S_IWUSR
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, first))
            yield temporary
            with _synced(temporary, os.O_RDWR):
                if mode is not None:
                    temporary.chmod(mode)
            os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the file may not exist
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary), str(path.parent)):
            error.filename = str(path)  # the name that the caller knows
            del error.filename2  # a None would be printed, too
        raise


@contextmanager
def _synced(path: Path, flags: int) -> Iterator[None]:
    """Sync a file, or the entries of a folder, after the block. It is opened before, so that this fails early."""
    handle = os.open(path, flags)
    try:
        yield
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without sync
                raise
    finally:
        os.close(handle)
