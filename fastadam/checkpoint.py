"""State that survives: an optimizer's state as a dict, as a file, and as a folder of memory-mapped arrays.
What is read is checked whole before anything is changed; what is written replaces the old file in one move.
"""

import errno
import json
import math
import mmap
import os
import re
import secrets
import sys
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import options, schedules
from .kernel._plan import uninterrupted
from .kernel.checks import shown

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from .base import Optimizer
    from .kernel._plan import Plan

VERSION = 1
#: the entry of a file that holds all but the arrays, as JSON; more bytes of it are no file of ours
_META, _MAX_META = "fastadam.json", 1 << 28
#: safetensors has no checksums of its own: entry -> CRC-32, as JSON
_SUMS = "fastadam.crc32"
#: what no entry's name can hold: a zip ends it at NUL, Windows takes a backslash for a slash, UTF-8 has no surrogates
_ODD = re.compile("[%\0\\\\\ud800-\udfff]")
#: brings the array of an entry
_Fetch = Callable[[str], np.ndarray]


def state_dict(optimizer: "Optimizer") -> dict[str, Any]:
    """See `Optimizer.state_dict`."""
    states = zip(optimizer._keys, optimizer._named_states(), strict=True)
    return {
        **describe(optimizer),
        "state": {key: {name: array.copy() for name, array in arrays.items()} for key, arrays in states},
    }


def load_state_dict(optimizer: "Optimizer", given: Mapping[str, Any]) -> None:
    """See `Optimizer.load_state_dict`."""
    uninterrupted(checked_state_dict(optimizer, given))


def checked_state_dict(optimizer: "Optimizer", given: Mapping[str, Any]) -> Callable[[], None]:
    """What loads it, and cannot fail."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
    found: dict[str, Any] = {}

    def entries() -> set[str]:
        state = mapping("state_dict['state']", given.get("state"))
        need_names("state_dict['state']", set(state), set(optimizer._keys))
        for key, own in zip(optimizer._keys, optimizer._named_states(), strict=True):
            where = f"state_dict['state'][{key!r}]"
            arrays = mapping(where, state[key])
            need_names(where, set(arrays), set(own))
            found.update({entry_of(key, name): array for name, array in arrays.items()})
        return set(found)

    def fetch(entry: str) -> Any:
        array = found[entry]  # it may be the state of another name, and be overwritten before it is read
        is_own = isinstance(array, np.ndarray) and optimizer._plan.writes(array)
        return array.copy() if is_own else array

    return checked(optimizer, "state_dict", given, entries, fetch)


def save(optimizer: "Optimizer", path: str | os.PathLike[str], params: bool) -> None:
    """See `Optimizer.save`."""
    path, params = path_from("path", path), options.flag("params", params)
    meta = json.dumps(describe(optimizer), default=encode).encode()
    need(len(meta) <= _MAX_META, f"{path}: the names and options take {len(meta)} bytes, more than `load` would read")
    arrays = {entry: in_file(array) for entry, array in named_arrays(optimizer, params).items()}
    write = _write_safetensors if path.suffix == ".safetensors" else write_npz
    with replacing(path) as temporary:
        write(temporary, meta, arrays)


def load(optimizer: "Optimizer", path: str | os.PathLike[str]) -> None:
    """See `Optimizer.load`."""
    path = path_from("path", path)
    opened = _open_safetensors if path.suffix == ".safetensors" else open_npz
    with ExitStack() as files:
        with reading(path):
            meta, entries, fetch = files.enter_context(opened(path))
            commit = checked(optimizer, str(path), mapping(f"{path}: description", meta), lambda: entries, fetch)
        uninterrupted(commit)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes fail is a ValueError that names it."""
    try:
        yield
    except (MemoryError, ImportError, Mismatch):
        raise
    except Exception as error:  # a damaged or hostile file can fail anywhere in zipfile, json or NumPy
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is: the file tells of a place before it
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(_cut(f"{path}: no whole checkpoint of this optimizer: {what}")) from error


def path_from(name: str, value: Any) -> Path:
    """The path that an argument gives."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a path, str or os.PathLike, got {shown(value)}")
    if not text or "\0" in text:  # an empty one would be the folder in which Python runs
        raise ValueError(f"{name}: expected a path that is not empty and has no NUL, got {shown(value)}")
    return Path(text)


class Mismatch(ValueError):
    """A checkpoint that does not fit the optimizer."""


def need(condition: bool, message: str) -> None:
    """Refuse a checkpoint unless this is so."""
    if not condition:
        raise Mismatch(_cut(message))


def _cut(message: str) -> str:
    """A message of bounded length: it quotes what came."""
    return message if len(message) <= 2000 else f"{message[:2000]}…"


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """Errors within say where, at a bounded length."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else Mismatch
        raise kind(_cut(f"{where}: {error}")) from error


def need_same(where: str, came: Any, own: Any) -> None:
    """Refuse a value that is not the optimizer's own."""
    need(type(came) is type(own) and came == own, f"{where}: expected {own!r}, got {came!r}")


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """The value, if it is a mapping."""
    need(isinstance(value, Mapping), f"{name}: expected a dict, got {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def _like(where: str, came: Any, own: np.ndarray) -> np.ndarray:
    """An array that came, which may be in the `in_file` form, as one of the optimizer's own: it must fit."""
    need(isinstance(came, np.ndarray), f"{where}: expected a numpy array, got {type(came).__name__}")
    need(came.shape == own.shape, f"{where}: expected shape {own.shape}, got {came.shape}")
    need(in_file(came).dtype == in_file(own).dtype, f"{where}: expected dtype {own.dtype}, got {came.dtype}")
    return came.view(own.dtype)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- what is saved, and how it is taken back


def describe(optimizer: "Optimizer") -> dict[str, Any]:
    """All but the arrays."""
    plan, keys = optimizer._plan, iter(optimizer._keys)
    groups = [
        {**group, "params": [next(keys) for _ in group["params"]], "t": plan.steps(k)}
        for k, group in enumerate(optimizer.param_groups)
    ]
    counts = {"t": plan.t, "skipped": plan.skipped, "seed": plan.seed}
    return {"version": VERSION, "optimizer": type(optimizer).__name__, **counts, "param_groups": groups}


def entry_of(key: str, name: str) -> str:
    """What files call an array: the state's name and the parameter's key, odd characters as in a URL."""
    return f"{name}/{_ODD.sub(lambda odd: f'%{ord(odd[0]):02X}', key)}"


def named_arrays(optimizer: "Optimizer", params: bool) -> dict[str, np.ndarray]:
    """Entry of a file -> array: the states and, if wanted, the parameters."""
    keys = optimizer._keys
    found = {
        entry_of(key, name): array
        for key, arrays in zip(keys, optimizer._named_states(), strict=True)
        for name, array in arrays.items()
    }
    return found | (
        {entry_of(key, "params"): p for key, p in zip(keys, optimizer._params, strict=True)} if params else {}
    )


def checked(
    optimizer: "Optimizer",
    source: str,
    meta: Mapping[str, Any],
    entries: Callable[[], set[str]],
    fetch: _Fetch,
) -> Callable[[], None]:
    """What gives the optimizer the state of `meta` and the arrays that `fetch` brings; an error, if they do not fit."""
    own = describe(optimizer)
    for name in ("version", "optimizer"):
        need_same(f"{source}: {name}", meta.get(name), own[name])
    with _saying(source):
        t, skipped = (options.count(name, meta.get(name)) for name in ("t", "skipped"))
        seed = options.seed("seed", meta.get("seed"))
    groups = meta.get("param_groups")
    count = len(groups) if isinstance(groups, list) else None
    need(count == len(own["param_groups"]), f"{source}: expected {len(own['param_groups'])} groups, got {count}")
    chosen = []
    for k, (group, mine) in enumerate(zip(optimizer.param_groups, own["param_groups"], strict=True)):
        where = f"{source}: param_groups[{k}]"
        came = mapping(where, groups[k])  # type: ignore[index]
        need_names(where, set(came), set(mine))
        need_same(f"{where}['params']", came["params"], mine["params"])
        with _saying(where):
            steps = options.count("t", came["t"])
            need(steps <= t, f"t: expected at most t = {t}, got {steps}")
            values = {name: group.check(name, _decode(name, came[name], group[name])) for name in optimizer.defaults}
        chosen.append((steps, values))
    came_entries = entries()
    arrays = named_arrays(optimizer, params=any(entry.startswith("params/") for entry in came_entries))
    need_names(source, came_entries, set(arrays))
    for entry, array in arrays.items():
        need(array.flags.writeable, f"{source}: {entry}: the optimizer's array is read-only")
    pairs = [(array, _like(f"{source}: {entry}", fetch(entry), array)) for entry, array in arrays.items()]

    plan, folder = optimizer._plan, optimizer._folder

    def commit() -> None:  # nothing can fail here
        if folder is not None:
            folder.begin()
        for array, new in pairs:
            np.copyto(array, new)
        plan.changes += 1
        plan.torn = False
        plan.t, plan.skipped, plan.seed = t, skipped, seed
        for k, (group, (steps, values)) in enumerate(zip(optimizer.param_groups, chosen, strict=True)):
            plan.set_steps(k, steps)
            optimizer._assign([group], values)
        if folder is not None:
            folder.end(plan)

    return commit


def need_names(where: str, came: set[str], own: set[str]) -> None:
    """Refuse other names than the optimizer's own."""
    missing, unknown = sorted(own - came), sorted(map(str, came - own))
    need(not missing and not unknown, f"{where}: missing: {missing[:5]}, unknown: {unknown[:5]}")


def encode(value: Any) -> Any:
    """An option that JSON has no form for: a learning rate that is a function."""
    return value.to_json() if isinstance(value, schedules.Schedule) else {"function": repr(value)}


def _decode(name: str, value: Any, own: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) != {"function"}:
        return schedules.from_json(value)
    need(callable(own), f"{name}: was a function, which a file does not keep; assign it first")
    return own


# ---------------------------------------------------------------- files


def in_file(array: np.ndarray) -> np.ndarray:
    """The array as files know it: bfloat16, which NumPy's format has no name for, as its bits."""
    is_bfloat16 = array.itemsize == 2 and array.dtype.name == "bfloat16"  # whose name takes long to ask for
    return array.view(np.uint16) if is_bfloat16 else array


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; then it is synced and takes the place, and the mode, of `path`."""
    path = Path(os.path.realpath(path))  # of what a link leads to
    if path.exists() and not (path.is_file() or path.is_dir()):  # a folder is refused where it is to be replaced
        raise OSError(errno.EINVAL, "expected a file or a new name, got a device, pipe or socket", str(path))
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
    """A file, or the entries of a folder, after what is done within; what cannot be opened is an error before that."""
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


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of the ``.npy`` array that begins here."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"unknown version {version} of the .npy format")
    try:
        return read(file)
    except (OSError, ValueError):
        raise
    except Exception as error:  # NumPy parses it as Python, which fails in many ways: for its own stack by MemoryError
        raise ValueError(f"the header is no array's: {type(error).__name__}: {error}") from error


def write_npz(path: Path, meta: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """A file of arrays by entry, and the description `meta`."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry, array in {_META: np.frombuffer(meta, np.uint8), **arrays}.items():
            name = f"{entry}.npy"
            need(len(name.encode()) < 2**16, f"{entry[:50]}…: too long a key for an .npz file")
            # of no date, so that the same state makes the same file
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


@contextmanager
def open_npz(path: Path) -> Iterator[tuple[Any, set[str], _Fetch]]:
    """Arrays are views of the file: one larger than memory can be loaded into another."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

        def fetch(entry: str) -> np.ndarray:
            info = archive.getinfo(f"{entry}.npy")
            need(info.compress_type == zipfile.ZIP_STORED, f"{path}: {entry}: is compressed, which `save` never does")
            with archive.open(info) as member:
                first = file.tell()
                shape, is_fortran, dtype = _header(member)
                first += member.tell()
                size = member.tell() + math.prod(shape) * dtype.itemsize
                need(
                    size == info.file_size == info.compress_size and not dtype.hasobject,
                    f"{path}: {entry}: {info.file_size} bytes are not those of an array {shape} of {dtype}",
                )
                while member.read(1 << 20):  # at its end the checksum is compared
                    pass
            return np.ndarray(shape, dtype, memory, first, order="F" if is_fortran else "C")

        meta = fetch(_META)
        need(meta.nbytes <= _MAX_META, f"{path}: a description of {meta.nbytes} bytes is none of ours")
        entries = [name.removesuffix(".npy") for name in archive.namelist()]
        need(len(set(entries)) == len(entries), f"{path}: has two entries of one name")
        yield json.loads(meta.tobytes()), set(entries) - {_META}, fetch


def _write_safetensors(path: Path, meta: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    plain = {entry: np.asarray(array, order="C") for entry, array in arrays.items()}
    sums = {_META: zlib.crc32(meta), **{entry: zlib.crc32(array.data) for entry, array in plain.items()}}
    package = _safetensors()
    path.touch()  # an OSError that is Python's own
    try:
        package.numpy.save_file(plain, path, {_META: meta.decode(), _SUMS: json.dumps(sums)})
    except package.SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


@contextmanager
def _open_safetensors(path: Path) -> Iterator[tuple[Any, set[str], _Fetch]]:
    package = _safetensors()
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

        check(_META, texts[_META].encode())
        yield json.loads(texts[_META]), set(file.keys()), fetch


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("a .safetensors file needs safetensors: pip install 'fastadam[safetensors]'") from error
    return safetensors


# ---------------------------------------------------------------- a folder of memory-mapped states


class Folder:
    """The states of one optimizer as memory-mapped ``.npy`` files, its step counts beside them.

    ``steps.npy`` holds whether a step (or a load) is under way, the steps done, those skipped, and each group's: where
    a process ended under way, some states are of that step and others of the last, and the folder is refused.
    ``lock`` is an empty file that the one optimizer which uses the folder has locked: the system lets go of it when the
    process ends, however it does.
    """

    _lock: int | None = None
    _began = False
    _why_not = "was closed"

    def __init__(self, path: str | os.PathLike[str], optimizer: "Optimizer") -> None:
        self.path = path_from("state_dir", path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        _used.add(self)
        try:
            self._open(optimizer)
        except BaseException:
            self.close()
            raise

    def _open(self, optimizer: "Optimizer") -> None:
        params = zip(optimizer._keys, optimizer._params, strict=True)
        groups = optimizer.param_groups
        self._meta = {
            "version": VERSION,
            "optimizer": type(optimizer).__name__,
            "rules": [group._rule.name for group in groups],
            "params": [[key, list(p.shape), p.dtype.name] for key, p in params],
            "state_dtype": None if optimizer._state_dtype is None else optimizer._state_dtype.name,
            "master_weights": optimizer._master_weights,
        }
        file = self.path / _META
        self.is_new = not file.exists()
        if not self.is_new:
            found = _loads(file)
            for name, own in self._meta.items():
                need_same(f"state_dir: {file}: {name}", found.get(name), own)
        self._counts = self._map("steps.npy", (3 + len(groups),), np.dtype(np.int64))
        if not self.is_new:
            is_open, t, skipped, *steps = self._counts.tolist()
            need(
                not is_open,
                f"state_dir: {self.path}: a process ended within step {t + 1} or a load, so these states are of two "
                "steps; empty the folder, and load a checkpoint",
            )
            need(
                skipped >= 0 and all(0 <= count <= t for count in steps),
                f"state_dir: {self.path / 'steps.npy'}: no counts of steps: {[t, skipped, *steps]}",
            )

    def array(self, place: int, name: str, p: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The memory of a state of the parameter `p`, which is number `place`: in C or Fortran order, as p is."""
        if p.size == 0:
            return np.zeros(p.shape, dtype)  # nothing to map
        stored = in_file(np.empty(0, dtype)).dtype
        return self._map(f"{place}.{name}.npy", p.shape, stored, np.isfortran(p)).view(dtype)

    def resume(self, plan: "Plan") -> None:
        """Give a new plan the counts of steps; the states of a new folder are whole now."""
        if self.is_new:
            with replacing(self.path / _META) as temporary:
                temporary.write_text(json.dumps(self._meta, indent=1))
            self.is_new, self._began = False, True
        _, plan.t, plan.skipped, *steps = self._counts.tolist()
        for k, count in enumerate(steps):
            plan.set_steps(k, count)

    def check(self) -> None:
        """Refuse the states where they are another optimizer's now, or of the process that this one is a fork of."""
        if self._lock is None:
            raise RuntimeError(f"state_dir: {self.path}: {self._why_not}")

    def undo(self) -> None:
        """Leave a folder that was new as it was: nothing in it counts, and any optimizer may begin there."""
        if self._began:
            (self.path / _META).unlink()

    def close(self) -> None:
        """Let another optimizer use the folder."""
        handle, self._lock = self._lock, None
        if handle is not None:
            _unlock(handle)
            os.close(handle)

    __del__ = close

    def leave(self) -> None:
        """In a forked child: let go of what it inherited; the lock stays the parent's."""
        handle, self._lock = self._lock, None
        if handle is not None:
            os.close(handle)
            self._why_not = (
                "its states are those of the process that this one was forked from; make the optimizer in the child, "
                "or copy.deepcopy it before the fork, which keeps the copy's states in memory"
            )

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
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system that cannot
                os.close(handle)
                raise
        return handle

    def begin(self) -> None:
        """What follows changes states."""
        self.check()
        self._counts[0] = 1

    def end(self, plan: "Plan") -> None:
        """The states are whole again, and those of the plan's counts."""
        self._counts[1:] = plan.t, plan.skipped, *(plan.steps(k) for k in range(plan.n_groups))
        self._counts[0] = 0

    def step(self, plan: "Plan", step: Callable[..., None], before: Callable[[], None] | None) -> None:
        """A step, and the record of it. What `step` is given, and calls once it has the plan, begins the record and
        calls `before`: a step that is refused, since another is under way, leaves that one's record."""
        begun = False

        def begin() -> None:
            nonlocal begun
            self.begin()
            begun = True
            if before is not None:
                before()

        def recorded() -> None:
            try:
                step(before=begin)
            finally:
                if begun and not plan.torn:
                    self.end(plan)

        uninterrupted(recorded)

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
        try:
            with open(path, "rb") as file:
                found, is_fortran, kind = _header(file)
                first = file.tell()
        except ValueError as error:
            raise Mismatch(_cut(f"state_dir: {path}: no array: {error}")) from error
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
    """Lock a file against all other handles of it, or fail at once."""
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(handle: int) -> None:
    """Even where a process that is being started has inherited the handle, and not closed it yet."""
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _reserve(path: Path) -> None:
    """Take the room of a file that is all hole: a full disk is an error now, and would end the process later."""
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
                raise


def _loads(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"state_dir: {path}: no description of states: {error}") from error
    return mapping(f"state_dir: {path}", found)
