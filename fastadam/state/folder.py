"""`Folder`: states in one memory-mapped file. They may be larger than memory, and they outlive the process.
One optimizer at a time may use a folder.
"""

import errno
import json
import math
import mmap
import operator
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from .atomic import path_from, replacing
from .entries import META
from .mismatch import Mismatch, mapping, need, need_same

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: the version of folders: up to version 2, each array had a file
VERSION = 3
#: the file of all arrays. Each begins at a multiple of ALIGNED bytes
ARRAYS, ALIGNED = "states.bin", 64

#: the most bytes of a description, and the most for each array, besides twice what the optimizer says
_MOST_TOLD = 1 << 20, 2000

_FORKED = (
    "its states are those of the process that this one was forked from; make the optimizer in the child, or "
    "copy.deepcopy it before the fork, which keeps the copy's states in memory"
)


#: the name of a dtype; kept, because NumPy makes it anew each time, slowly
name_of = cache(operator.attrgetter("name"))


class Slot(NamedTuple):
    """One array of a folder."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    @property
    def room(self) -> int:
        """Its bytes in the file, up to the next array."""
        return -(-math.prod(self.shape) * self.dtype.itemsize // ALIGNED) * ALIGNED


class Folder:
    """The counts and the states of one optimizer, in one file that is mapped once. So they need one file descriptor.

    Parameters
    ----------
    path : path
        The folder. It is made if it does not exist.
    description : dict
        A description of the optimizer and its arrays, in JSON types. A folder with another description is refused.
    slots : sequence of Slot
        The arrays. The first is that of the counts. A folder with others is refused, but for their memory order: an
        array keeps the order with which it was made.

    Attributes
    ----------
    arrays : list of arrays
        An array for each slot. In a new folder they are zeros, to be set before `commit`. The first has the counts:
        whether a step (or a load) is under way, the steps done, the steps skipped, and the steps of each parameter. The
        owner of the folder writes it. If a process ended during a step, some states have done that step and others have
        not: the folder is refused.
    is_new : bool
        Whether the folder had no committed states.
    on_leave : callable, optional
        Called with the reason when the folder must not be used any more: because it was closed, or because this process
        is a fork of the one that opened it. If it raises, the folder is not closed. It must not refer to the owner of
        the folder: the folder is closed when its owner is deleted.

    Notes
    -----
    ``lock`` is an empty file that the optimizer has locked. The system unlocks it when the process ends, in any way.
    ``fastadam.json`` has the description, and the name, dtype, shape and order of each array in ``states.bin``.
    """

    on_leave: Callable[[str], object] | None = None
    _handle: int | None = None
    _began = False

    def __init__(self, path: str | os.PathLike[str], description: Mapping[str, Any], slots: Sequence[Slot]) -> None:
        self.path = path_from("state_dir", path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            self.path.stat()  # of a link: why it leads nowhere
            raise
        self._handle = self._locked()
        _used.add(self)
        try:
            self._open(description, slots)
        except BaseException:
            self.close()
            raise

    def _open(self, description: Mapping[str, Any], slots: Sequence[Slot]) -> None:
        file = self.path / META
        self.is_new = not _is_there(file)
        own = {"byte_order": sys.byteorder, **description}
        if self.is_new:
            self._meta = {"version": VERSION, **own, "arrays": [[*_told(slot), slot.order] for slot in slots]}
        else:
            most = _MOST_TOLD[0] + 2 * len(json.dumps(own)) + _MOST_TOLD[1] * len(slots)
            slots = _agreed(f"state_dir: {file}", _loads(file, most), own, slots)
        *begins, size = accumulate((slot.room for slot in slots), initial=0)
        memory = self._mapped(size)
        self.arrays: list[np.ndarray] = [
            np.ndarray(slot.shape, slot.dtype, memory, begin, order=slot.order)
            for slot, begin in zip(slots, begins, strict=True)
        ]
        if not self.is_new:
            self._need_whole()

    def _need_whole(self) -> None:
        is_open, t, skipped, *steps = self.arrays[0].tolist()
        need(
            not is_open,
            f"state_dir: {self.path}: a process ended within step {t + 1} or a load, so these states are of two "
            "steps; empty the folder, and load a checkpoint",
        )
        need(
            skipped >= 0 and all(0 <= count <= t for count in steps),
            f"state_dir: {self.path / ARRAYS}: not counts of steps: {[t, skipped, *steps]}; expected skipped >= 0, and "
            "the steps of each parameter >= 0 and <= t",
        )

    def commit(self) -> None:
        """Mark the states of a new folder as complete. Before that, the folder counts as empty."""
        if self.is_new:
            with replacing(self.path / META) as temporary:
                temporary.write_text(json.dumps(self._meta))
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

    def _mapped(self, size: int) -> mmap.mmap:
        """The memory of the file. A new file is a file of zeros, also if an old one is still mapped somewhere."""
        path = self.path / ARRAYS
        try:
            if self.is_new:
                path.unlink(missing_ok=True)
            with open(path, "x+b" if self.is_new else "r+b", buffering=0) as file:
                if self.is_new:
                    file.truncate(size)
                    _reserve(file, size)
                found = os.fstat(file.fileno()).st_size
                need(found == size, f"state_dir: {path}: expected {size} bytes, got {found}")
                return mmap.mmap(file.fileno(), size)
        except OSError as error:
            if self.is_new:
                path.unlink(missing_ok=True)  # a disk that was too small is not left full
            error.filename = str(path)
            raise


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


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve the disk space of a sparse file. A full disk is then an error here; later it would end the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system without this call
            raise


def _is_there(path: Path) -> bool:
    """Whether this file exists. `Path.exists` says so of a loop of links, too."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _told(slot: Slot) -> list[Any]:
    """What must be equal in the description and the optimizer."""
    return [slot.name, name_of(slot.dtype), list(slot.shape)]


def _agreed(where: str, found: Mapping[str, Any], own: Mapping[str, Any], slots: Sequence[Slot]) -> list[Slot]:
    """The slots in the orders of the found description. Refuses another description than one's own."""
    version = found.get("version")
    need(
        type(version) is int and version == VERSION,
        f"{where}: version: expected {VERSION}, got {version!r}; open the folder with the version of fastadam that "
        "wrote it and save(); then load() that checkpoint with an empty folder",
    )
    for name, value in own.items():
        need_same(f"{where}: {name}", found.get(name), value)
    rows: Any = found.get("arrays")
    is_list = isinstance(rows, list) and all(isinstance(row, list) and row[3:] in (["C"], ["F"]) for row in rows)
    need(is_list, f"{where}: arrays: expected lists of a name, a dtype, a shape and an order, 'C' or 'F'")
    need_same(f"{where}: arrays", [row[:3] for row in rows], [_told(slot) for slot in slots])
    every = zip(slots, rows, strict=True)
    return [slot if slot.order == row[3] else slot._replace(order=row[3]) for slot, row in every]


def _loads(path: Path, most: int) -> Mapping[str, Any]:
    """The description in a file of at most so many bytes."""
    need(path.is_file(), f"state_dir: {path}: expected a file")
    with open(path, "rb") as file:
        text = file.read(most + 1)
    need(len(text) <= most, f"state_dir: {path}: more than {most} bytes, which no description of these states takes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"state_dir: {path}: not a description of states: {error}") from error
    return mapping(f"state_dir: {path}", found)
