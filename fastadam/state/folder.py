"""`Folder`: memory-mapped states in files. They may be larger than memory, and they outlive the process.
One optimizer at a time may use a folder.
"""

import errno
import json
import math
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import numbers
from .atomic import path_from, replacing
from .entries import META, VERSION, in_file, need_version
from .mismatch import Mismatch, mapping, need, need_same, saying
from .npz import read_header

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FORKED = (
    "its states are those of the process that this one was forked from; make the optimizer in the child, or "
    "copy.deepcopy it before the fork, which keeps the copy's states in memory"
)


class Folder:
    """The states and the counts of one optimizer, as memory-mapped ``.npy`` files.

    Parameters
    ----------
    path : path
        The folder. It is made if it does not exist.
    description : dict
        A description of the optimizer and its arrays, in JSON types. A folder with another description is refused.
    counts_len : int
        The number of counts.

    Attributes
    ----------
    counts : array
        ``steps.npy``: whether a step (or a load) is under way, the steps done, the steps skipped, and the steps of each
        parameter. The owner of the folder writes it. If a process ended during a step, some states have done that step
        and others have not: the folder is refused.
    is_new : bool
        Whether the folder had no committed states. Then the arrays are zeros, to be set before `commit`.
    on_leave : callable, optional
        Called with the reason when the folder must not be used any more: because it was closed, or because this process
        is a fork of the one that opened it. If it raises, the folder is not closed. It must not refer to the owner of
        the folder: the folder is closed when its owner is deleted.

    Notes
    -----
    ``lock`` is an empty file that the optimizer has locked. The system unlocks it when the process ends, in any way.
    """

    on_leave: Callable[[str], object] | None = None
    _handle: int | None = None
    _began = False

    def __init__(self, path: str | os.PathLike[str], description: Mapping[str, Any], counts_len: int) -> None:
        self.path = path_from("state_dir", path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._handle = self._locked()
        _used.add(self)
        try:
            self._open(description, counts_len)
        except BaseException:
            self.close()
            raise

    def _open(self, description: Mapping[str, Any], counts_len: int) -> None:
        self._meta = {"version": VERSION, **description}
        file = self.path / META
        self.is_new = not file.exists()
        if not self.is_new:
            found = {"exact_rows": [], **_loads(file)}  # folders of older versions do not have exact_rows
            need_version(f"state_dir: {file}", found.get("version"))
            for name, own in description.items():
                need_same(f"state_dir: {file}: {name}", found.get(name), own)
        self.counts = self._map("steps.npy", (counts_len,), np.dtype(np.int64))
        if not self.is_new:
            is_open, t, skipped, *steps = self.counts.tolist()
            need(
                not is_open,
                f"state_dir: {self.path}: a process ended within step {t + 1} or a load, so these states are of two "
                "steps; empty the folder, and load a checkpoint",
            )
            need(
                skipped >= 0 and all(0 <= count <= t for count in steps),
                f"state_dir: {self.path / 'steps.npy'}: not counts of steps: {[t, skipped, *steps]}; expected "
                "skipped >= 0, and the steps of each parameter >= 0 and <= t",
            )

    def array(self, place: int, name: str, p: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The array of a state of the parameter `p`, number `place`. It is in C or Fortran order, like p."""
        shape, dtype = numbers.memory_of(p, dtype)
        if p.size == 0:
            return np.zeros(shape, dtype)  # nothing to map
        stored = in_file(np.empty(0, dtype)).dtype
        return self._map(f"{place}.{name}.npy", shape, stored, np.isfortran(p)).view(dtype)

    def plain(self, place: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An array for other data of that parameter. In a new folder it is zeros."""
        return self._map(f"{place}.{name}.npy", shape, dtype)

    def commit(self) -> None:
        """Mark the states of a new folder as complete. Before that, the folder counts as empty."""
        if self.is_new:
            with replacing(self.path / META) as temporary:
                temporary.write_text(json.dumps(self._meta, indent=1))
            self.is_new, self._began = False, True

    def undo(self) -> None:
        """Undo `commit` in this process: the folder counts as empty again, and any optimizer may use it."""
        if self._began:
            (self.path / META).unlink()
            self.is_new, self._began = True, False

    @property
    def is_open(self) -> bool:
        """Whether this process may use the folder."""
        return self._handle is not None

    def close(self) -> None:
        """Unlock the folder for another optimizer."""
        if self._handle is not None:
            self._tell("was closed")
            handle, self._handle = self._handle, None
            _unlock(handle)
            os.close(handle)

    __del__ = close

    def leave(self) -> None:
        """Close the inherited handle in a forked child. The lock remains with the parent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)
            self._tell(_FORKED)

    def _tell(self, why: str) -> None:
        if self.on_leave is not None:
            self.on_leave(f"state_dir: {self.path}: {why}")

    def _locked(self) -> int:
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(handle)
                raise RuntimeError(
                    f"state_dir: {self.path}: another optimizer uses this folder, in this process or another; let that "
                    "one go first (del it, call its close(), or end its process), or take another folder"
                ) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
                os.close(handle)
                raise
        return handle

    def _map(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], is_fortran: bool = False) -> np.ndarray:
        path = self.path / name
        if self.is_new:
            try:
                array = np.lib.format.open_memmap(path, "w+", dtype, shape, is_fortran)
                _reserve(path)
            except OSError as error:
                error.filename = str(path)
                raise
            return np.asarray(array)
        with saying(f"state_dir: {path}: no array"), open(path, "rb") as file:
            found, is_fortran, kind = read_header(file)
            first = file.tell()
        need(found == shape and kind == dtype, f"state_dir: {path}: expected {shape} of {dtype}, got {found} of {kind}")
        size = first + math.prod(shape) * dtype.itemsize
        need(path.stat().st_size == size, f"state_dir: {path}: expected {size} bytes, got {path.stat().st_size}")
        return np.asarray(np.memmap(path, dtype, "r+", first, shape, "F" if is_fortran else "C"))


#: the folders that optimizers of this process use
_used: weakref.WeakSet[Folder] = weakref.WeakSet()


def _leave_all() -> None:
    for folder in list(_used):
        folder.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def _lock(handle: int) -> None:
    """Lock a file against all other handles, or fail at once."""
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(handle: int) -> None:
    """Unlock a file. This works even if a child process has inherited the handle and not closed it yet."""
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _reserve(path: Path) -> None:
    """Reserve the disk space of a sparse file. A full disk is then an error here; later it would end the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without this call
                raise


def _loads(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"state_dir: {path}: not a description of states: {error}") from error
    return mapping(f"state_dir: {path}", found)
