"""State that survives: an optimizer's state as a dict, as a file, and as a folder of memory-mapped arrays.
What is read is checked whole before anything is changed; what is written replaces the old file in one move.
"""

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from . import options, schedules

if TYPE_CHECKING:
    from .kernel._plan import Plan
    from .optimizers import Optimizer

VERSION = 1
#: the entry of a file that holds all but the arrays, as JSON; more bytes of it are no file of ours
_META, _MAX_META = "fastadam.json", 1 << 28
#: brings the array of an entry, which must have the shape and dtype of this one
_Fetch = Callable[[str, np.ndarray], np.ndarray]


def state_dict(optimizer: "Optimizer") -> dict[str, Any]:
    """See `Optimizer.state_dict`."""
    states = zip(optimizer._keys, optimizer._named_states(), strict=True)
    return {
        **_describe(optimizer),
        "state": {key: {name: array.copy() for name, array in arrays.items()} for key, arrays in states},
    }


def load_state_dict(optimizer: "Optimizer", given: Mapping[str, Any]) -> None:
    """See `Optimizer.load_state_dict`."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
    state = _mapping("state_dict['state']", given.get("state"))
    entries: dict[str, np.ndarray] = {}
    for key, arrays in state.items():
        arrays = _mapping(f"state_dict['state'][{key!r}]", arrays)
        entries |= {_entry(key, name): array for name, array in arrays.items()}

    def fetch(entry: str, like: np.ndarray) -> np.ndarray:
        array = entries[entry]
        _need(isinstance(array, np.ndarray), f"{entry}: expected a numpy array, got {type(array).__name__}")
        _need_like(entry, array.shape, array.dtype, like.shape, like.dtype)
        return array

    _restore(optimizer, "state_dict", given, set(entries), fetch)


def save(optimizer: "Optimizer", path: str | os.PathLike[str], params: bool) -> None:
    """See `Optimizer.save`."""
    path, params = Path(path), options.flag("params", params)
    arrays = {entry: _stored(array) for entry, array in _entries(optimizer, params).items()}
    meta = json.dumps(_describe(optimizer), default=_encode).encode()
    with _replacing(path) as temporary:
        if path.suffix == ".safetensors":
            _safetensors().save_file(
                {entry: np.ascontiguousarray(array) for entry, array in arrays.items()},
                temporary,
                {_META: meta.decode()},
            )
        else:
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **{_META: np.frombuffer(meta, np.uint8)}, **arrays)


def load(optimizer: "Optimizer", path: str | os.PathLike[str]) -> None:
    """See `Optimizer.load`."""
    path = Path(path)
    opened = _open_safetensors if path.suffix == ".safetensors" else _open_npz
    try:
        with opened(path) as (meta, entries, fetch):
            _restore(optimizer, str(path), _mapping(f"{path}: description", meta), entries, fetch)
    except (OSError, MemoryError, ImportError, Mismatch):
        raise
    except Exception as error:  # a damaged or hostile file can fail anywhere in zipfile, json or NumPy
        raise ValueError(f"{path}: not a whole checkpoint of fastadam: {type(error).__name__}: {error}") from error


class Mismatch(ValueError):
    """A checkpoint that does not fit the optimizer."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise Mismatch(message)


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    _need(isinstance(value, Mapping), f"{name}: expected a dict, got {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def _need_like(entry: str, shape: Any, dtype: np.dtype[Any], own_shape: Any, own_dtype: np.dtype[Any]) -> None:
    _need(tuple(shape) == own_shape, f"{entry}: expected shape {own_shape}, got {tuple(shape)}")
    _need(dtype == own_dtype, f"{entry}: expected dtype {own_dtype}, got {dtype}")


# ---------------------------------------------------------------- what is saved, and how it is taken back


def _describe(optimizer: "Optimizer") -> dict[str, Any]:
    """All but the arrays."""
    plan, keys = optimizer._plan, iter(optimizer._keys)
    groups = [
        {**group, "params": [next(keys) for _ in group["params"]], "t": plan.steps(k)}
        for k, group in enumerate(optimizer.param_groups)
    ]
    counts = {"t": plan.t, "skipped": plan.skipped, "seed": plan.seed}
    return {"version": VERSION, "optimizer": type(optimizer).__name__, **counts, "param_groups": groups}


def _entry(key: str, name: str) -> str:
    return f"{name}/{key}"


def _entries(optimizer: "Optimizer", params: bool) -> dict[str, np.ndarray]:
    """Entry of a file -> array: the states and, if wanted, the parameters."""
    keys = optimizer._keys
    found = {
        _entry(key, name): array
        for key, arrays in zip(keys, optimizer._named_states(), strict=True)
        for name, array in arrays.items()
    }
    return found | (
        {_entry(key, "params"): p for key, p in zip(keys, optimizer._params, strict=True)} if params else {}
    )


def _restore(optimizer: "Optimizer", source: str, meta: Mapping[str, Any], entries: set[str], fetch: _Fetch) -> None:
    """Give the optimizer the state of `meta` and the arrays that `fetch` brings: all of it, or a ValueError."""
    own = _describe(optimizer)
    for name in ("version", "optimizer"):
        _need(meta.get(name) == own[name], f"{source}: expected {name} {own[name]!r}, got {meta.get(name)!r}")
    t, skipped = (options.count(f"{source}: {name}", meta.get(name)) for name in ("t", "skipped"))
    seed = options.seed(f"{source}: seed", meta.get("seed"))
    groups = meta.get("param_groups")
    count = len(groups) if isinstance(groups, list) else None
    _need(count == len(own["param_groups"]), f"{source}: expected {len(own['param_groups'])} groups, got {count}")
    chosen = []
    for k, (group, mine) in enumerate(zip(optimizer.param_groups, own["param_groups"], strict=True)):
        where = f"{source}: param_groups[{k}]"
        came = _mapping(where, groups[k])  # type: ignore[index]
        _need_names(where, set(came), set(mine))
        _need(came["params"] == mine["params"], f"{where}: expected params {mine['params']}, got {came['params']}")
        steps = options.count(f"{where}['t']", came["t"])
        _need(steps <= t, f"{where}['t']: expected at most t = {t}, got {steps}")
        values = {name: _decode(f"{where}[{name!r}]", came[name], group[name]) for name in optimizer.defaults}
        chosen.append((steps, {name: group.check(name, value) for name, value in values.items()}))
    arrays = _entries(optimizer, params=any(entry.startswith("params/") for entry in entries))
    _need_names(source, entries, set(arrays))
    pairs = [(array, fetch(entry, array)) for entry, array in arrays.items()]

    for array, new in pairs:  # from here on nothing can fail
        np.copyto(array, new)
    plan = optimizer._plan
    plan.t, plan.skipped, plan.seed = t, skipped, seed
    for k, (group, (steps, values)) in enumerate(zip(optimizer.param_groups, chosen, strict=True)):
        plan.set_steps(k, steps)
        group._values.update(values)
        group.apply()


def _need_names(where: str, came: set[str], own: set[str]) -> None:
    missing, unknown = sorted(own - came), sorted(map(str, came - own))
    _need(not missing and not unknown, f"{where}: missing: {missing[:5]}, unknown: {unknown[:5]}")


def _encode(value: Any) -> Any:
    """An option that JSON has no form for: a learning rate that is a function."""
    return value.to_json() if isinstance(value, schedules.Schedule) else {"function": repr(value)}


def _decode(name: str, value: Any, own: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "schedule" in value:
        return schedules.from_json(value)
    _need(callable(own), f"{name}: was a function, which a file does not keep; construct the optimizer with it")
    return own


# ---------------------------------------------------------------- files


def _stored(array: np.ndarray) -> np.ndarray:
    """The array as files know it: bfloat16, which NumPy's format has no name for, as its bits."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; then it is synced and takes the place of `path`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the entry in the folder; Windows opens no folders
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of the ``.npy`` array that begins here."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"unknown version {version} of the .npy format")


@contextmanager
def _open_npz(path: Path) -> Iterator[tuple[Any, set[str], _Fetch]]:
    with zipfile.ZipFile(path) as archive:
        with archive.open(f"{_META}.npy") as file:
            (size,), _, _ = _header(file)
            _need(size <= _MAX_META, f"{path}: a description of {size} bytes is none of ours")
            meta = json.loads(_read(file, size))

        def fetch(entry: str, like: np.ndarray) -> np.ndarray:
            stored = _stored(like)
            with archive.open(f"{entry}.npy") as file:
                shape, is_fortran, dtype = _header(file)
                _need_like(f"{path}: {entry}", shape, dtype, stored.shape, stored.dtype)
                flat = np.frombuffer(_read(file, like.nbytes), dtype)
            return flat.reshape(shape, order="F" if is_fortran else "C").view(like.dtype)

        entries = {name.removesuffix(".npy") for name in archive.namelist()}
        yield meta, entries - {_META}, fetch


def _read(file: IO[bytes], size: int) -> bytes:
    """All that is left of an archive's entry, which must be `size` bytes; reading to the end checks its sum."""
    data = file.read(size)
    if len(data) != size or file.read(1):
        raise ValueError(f"expected an entry of {size} bytes, got {'more' if len(data) == size else len(data)}")
    return data


@contextmanager
def _open_safetensors(path: Path) -> Iterator[tuple[Any, set[str], _Fetch]]:
    _safetensors()
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:

        def fetch(entry: str, like: np.ndarray) -> np.ndarray:
            stored = _stored(like)
            shape = tuple(file.get_slice(entry).get_shape())
            _need(shape == stored.shape, f"{path}: {entry}: expected shape {stored.shape}, got {shape}")
            array = file.get_tensor(entry)
            _need_like(f"{path}: {entry}", array.shape, array.dtype, stored.shape, stored.dtype)
            return array.view(like.dtype)  # type: ignore[no-any-return]

        yield json.loads((file.metadata() or {})[_META]), set(file.keys()), fetch


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("a .safetensors file needs safetensors: pip install 'fastadam[safetensors]'") from error
    return safetensors.numpy


# ---------------------------------------------------------------- a folder of memory-mapped states


class Folder:
    """The states of one optimizer as memory-mapped ``.npy`` files, its step count beside them.

    ``steps.npy`` holds the steps begun, those done, and those skipped: where the first two differ, a process ended
    within a step, some states are of that step and others of the last, and the folder is refused.
    """

    def __init__(self, path: str | os.PathLike[str], optimizer: "Optimizer") -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        params = zip(optimizer._keys, optimizer._params, strict=True)
        self._meta = {
            "version": VERSION,
            "optimizer": type(optimizer).__name__,
            "rules": [group._rule.name for group in optimizer.param_groups],
            "params": {key: [list(p.shape), p.dtype.name] for key, p in params},
            "state_dtype": None if optimizer._state_dtype is None else optimizer._state_dtype.name,
            "master_weights": optimizer._master_weights,
        }
        file = self.path / _META
        self.is_new = not file.exists()
        if not self.is_new:
            found = _loads(file)
            for name, own in self._meta.items():
                _need(found.get(name) == own, f"state_dir: {file}: expected {name} {own!r}, got {found.get(name)!r}")
        self._counts = self._map("steps.npy", (3,), np.dtype(np.int64))
        if not self.is_new:
            begun, done, skipped = self._counts.tolist()
            _need(
                begun == done >= 0 and skipped >= 0,
                f"state_dir: {self.path}: a process ended within step {begun}, so these states are of two steps; "
                "empty the folder, and load a checkpoint",
            )

    def array(self, place: int, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The memory of a state of parameter number `place`."""
        if 0 in shape:
            return np.zeros(shape, dtype)  # nothing to map
        stored = _stored(np.empty(0, dtype)).dtype
        return self._map(f"{place}.{name}.npy", shape, stored).view(dtype)

    def resume(self, plan: "Plan") -> None:
        """Give a new plan the count of steps; the states of a new folder are whole now."""
        if self.is_new:
            with _replacing(self.path / _META) as temporary:
                temporary.write_text(json.dumps(self._meta, indent=1))
            self.is_new = False
        _, plan.t, plan.skipped = self._counts.tolist()
        for k in range(plan.n_groups):
            plan.set_steps(k, plan.t)

    def step(self, plan: "Plan", step: Callable[[Any], None], grads: Any) -> None:
        """A step, and the record of it."""
        self._counts[0] = plan.t + 1
        try:
            step(grads)
        finally:
            self._counts[:] = plan.t, plan.t, plan.skipped

    def _map(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        path = self.path / name
        if self.is_new:
            return np.asarray(np.lib.format.open_memmap(path, "w+", dtype, shape))
        try:
            with open(path, "rb") as file:
                came = _header(file)
                offset = file.tell()
        except ValueError as error:
            raise Mismatch(f"state_dir: {path}: no array: {error}") from error
        _need_like(f"state_dir: {path}", came[0], came[2], shape, dtype)
        size = offset + int(np.prod(shape)) * dtype.itemsize
        _need(path.stat().st_size == size, f"state_dir: {path}: expected {size} bytes, got {path.stat().st_size}")
        return np.asarray(np.memmap(path, dtype, "r+", offset, shape))


def _loads(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Mismatch(f"state_dir: {path}: no description of states: {error}") from error
    return _mapping(f"state_dir: {path}", found)
