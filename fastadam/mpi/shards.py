"""The state of a sharded optimizer: as checkpoints that each rank writes its share of, and whole, as a dict.
Any number of ranks reads what any other number wrote: what each needs is put together from the files that have it.
"""

import json
import re
import secrets
import zlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checkpoint, options, schedules
from ..checkpoint import need, need_same
from .ranks import Ranks

if TYPE_CHECKING:
    from .sharded import Sharded

_INDEX = "checkpoint.json"
_FILE = re.compile(r"[0-9a-f]{16}-\d+\.npz")
#: what a save that was killed leaves beside such files
_TEMPORARY = re.compile(r"\.fastadam-[0-9a-f]{16}\.tmp")


def state_dir(value: Any, ranks: Ranks) -> Path:
    """Where this rank keeps its states, within the folder of all."""
    return checkpoint.path_from("state_dir", value) / f"rank-{ranks.rank}-of-{ranks.size}"


# ---------------------------------------------------------------- what the ranks must agree on


def description(optimizer: "Sharded") -> dict[str, Any]:
    """What all ranks must have alike when an optimizer is made."""
    arrays = zip(optimizer._whole.keys, optimizer._whole.params, strict=True)
    described = describe(optimizer)
    del described["param_groups"]
    return {
        **{f"shape and dtype of {key}": (p.shape, p.dtype.name) for key, p in arrays},
        "keys of the parameters": optimizer._whole.keys,
        "bucket_bytes": optimizer._bucket_bytes,
        "state_dtype": str(optimizer._state_dtype),
        "master_weights": optimizer._master_weights,
        **described,
        **chosen(optimizer),
    }


def chosen(optimizer: "Sharded") -> dict[str, Any]:
    """The groups as checkpoints describe them: options, keys and counts of steps."""
    return {
        f"{name} of group {k}": value.to_json() if isinstance(value, schedules.Schedule) else _said(value)
        for k, group in enumerate(describe(optimizer)["param_groups"])
        for name, value in group.items()
    }


def _said(value: Any) -> Any:
    return "a function" if callable(value) else value


def numbers(optimizer: "Sharded") -> dict[str, Any]:
    """What all ranks must have alike in a step: the counts, and the hyper-parameters as they are in it."""
    plan = optimizer._plan
    found: dict[str, Any] = {"t": plan.t, "seed": plan.seed}
    for k, group in enumerate(optimizer.param_groups):
        found[f"steps of group {k}"] = plan.steps(k)
        named = zip(group._rule.hyper, plan.hyper(k), strict=True)
        found |= {f"{name} of group {k}": value for name, value in named}
    return found


def describe(optimizer: "Sharded") -> dict[str, Any]:
    """All but the arrays, as the plain optimizer's checkpoints have it: of whole parameters."""
    described, whole = checkpoint.describe(optimizer), optimizer._whole
    for k, group in enumerate(described["param_groups"]):
        group["params"] = [key for key, number in zip(whole.keys, whole.group_of, strict=True) if number == k]
    return described


def _described_by_pieces(optimizer: "Sharded", source: str, came: Mapping[str, Any]) -> dict[str, Any]:
    """A description of whole parameters as one of this rank's pieces, if it is of these parameters."""
    own, mine = describe(optimizer)["param_groups"], checkpoint.describe(optimizer)["param_groups"]
    groups = came.get("param_groups")
    need(isinstance(groups, list) and len(groups) == len(own), f"{source}: expected {len(own)} groups")
    found = []
    for k, (group, whole, pieces) in enumerate(zip(groups, own, mine, strict=True)):  # type: ignore[arg-type]
        group = checkpoint.mapping(f"{source}: param_groups[{k}]", group)
        need_same(f"{source}: param_groups[{k}]['params']", group.get("params"), whole["params"])
        found.append({**group, "params": pieces["params"]})
    return {**came, "param_groups": found}


# ---------------------------------------------------------------- whole, as a dict


def state_dict(optimizer: "Sharded") -> dict[str, Any]:
    """See `Sharded.state_dict`."""
    ranks, whole = optimizer._ranks, optimizer._whole
    with ExitStack() as stack:
        with ranks.all_or_none("state_dict") as agree:
            stack.enter_context(optimizer._held())
            agree({"number": optimizer._number, **numbers(optimizer), **chosen(optimizer)})
        own = list(zip(optimizer._own, optimizer._named_states(), strict=True))
        state: dict[str, dict[str, np.ndarray]] = {key: {} for key in whole.keys}
        for pieces in ranks.comm.allgather(own):
            for piece, arrays in pieces:
                p = whole.params[piece.param]
                for name, array in arrays.items():
                    found = state[whole.keys[piece.param]].setdefault(name, np.empty(p.shape, array.dtype))
                    found.reshape(-1)[piece.begin : piece.end] = array
        return {**describe(optimizer), "state": state}


def load_state_dict(optimizer: "Sharded", given: Any) -> None:
    """See `Sharded.load_state_dict`."""
    with optimizer._ranks.all_or_none("load_state_dict") as agree, optimizer._held(is_load=True):
        if not isinstance(given, Mapping):
            raise TypeError(f"state_dict: expected a dict as state_dict() gives, got {type(given).__name__}")
        described = _described_by_pieces(optimizer, "state_dict", given)
        whole, state = optimizer._whole, checkpoint.mapping("state_dict['state']", given.get("state"))
        checkpoint.need_names("state_dict['state']", set(state), set(whole.keys))
        pieces = {}
        for key, piece in zip(optimizer._keys, optimizer._own, strict=True):
            where = f"state_dict['state'][{whole.keys[piece.param]!r}]"
            arrays = checkpoint.mapping(where, state[whole.keys[piece.param]])
            shape = whole.params[piece.param].shape
            for name, array in arrays.items():
                need(isinstance(array, np.ndarray), f"{where}[{name!r}]: expected a numpy array")
                need(array.shape == shape, f"{where}[{name!r}]: expected shape {shape}, got {array.shape}")
            pieces[key] = {name: array.reshape(-1)[piece.begin : piece.end] for name, array in arrays.items()}
        commit = checkpoint.checked_state_dict(optimizer, {**described, "state": pieces})
        agree({"number": optimizer._number, **{name: given[name] for name in ("t", "skipped", "seed")}})
        commit()


# ---------------------------------------------------------------- as files, one a rank


def save(optimizer: "Sharded", path: Any, params: Any) -> None:
    """See `Sharded.save`."""
    ranks = optimizer._ranks
    with ExitStack() as stack:
        with ranks.all_or_none("save") as agree:
            stack.enter_context(optimizer._held())
            path, params = checkpoint.path_from("path", path), options.flag("params", params)
            index = _index(optimizer, params)
            same = numbers(optimizer) | chosen(optimizer)
            agree({"number": optimizer._number, "path": str(path), "params": params, **same})
        token = ranks.comm.bcast(secrets.token_hex(8))
        with ranks.all_or_none("save: the files") as agree:
            _write(optimizer, path, token, params)
            agree({})
        with ranks.all_or_none("save: their index") as agree:
            if ranks.rank == 0:
                _commit(path, {**index, "files": [_name(token, rank) for rank in range(ranks.size)]})
            agree({})


def _name(token: str, rank: int) -> str:
    return f"{token}-{rank}.npz"


def _index(optimizer: "Sharded", params: bool) -> dict[str, Any]:
    """What ``checkpoint.json`` holds, but for the names of the files."""
    whole = optimizer._whole
    arrays = [[key, list(p.shape), p.dtype.name] for key, p in zip(whole.keys, whole.params, strict=True)]
    layout = {"n_ranks": optimizer._ranks.size, "bucket_bytes": optimizer._bucket_bytes}
    return {**describe(optimizer), "arrays": arrays, "has_params": params, **layout}


def _write(optimizer: "Sharded", path: Path, token: str, params: bool) -> None:
    """This rank's file."""
    path.mkdir(parents=True, exist_ok=True)
    optimizer._exchange.take()
    arrays = {name: checkpoint.in_file(a) for name, a in checkpoint.named_arrays(optimizer, params).items() if a.size}
    with checkpoint.replacing(path / _name(token, optimizer._ranks.rank)) as temporary:
        checkpoint.write_npz(temporary, json.dumps({"t": optimizer.t}).encode(), arrays)


def _commit(path: Path, index: dict[str, Any]) -> None:
    """The index of files that are all there; then files of older ones go."""
    for name in index["files"]:
        if not (path / name).exists():
            raise OSError(f"path: {path}: rank 0 does not see {name}; expected a folder that all ranks share")
    text = json.dumps(index, default=checkpoint.encode)
    with checkpoint.replacing(path / _INDEX) as temporary:
        temporary.write_text(f'{{"index": {text}, "crc32": {zlib.crc32(text.encode())}}}')
    for file in path.iterdir():
        is_older = _FILE.fullmatch(file.name) and file.name not in index["files"]
        if is_older or _TEMPORARY.fullmatch(file.name):
            with suppress(OSError):  # the next save tries again
                file.unlink()


def load(optimizer: "Sharded", path: Any) -> None:
    """See `Sharded.load`."""
    with optimizer._ranks.all_or_none("load") as agree, optimizer._held(is_load=True), ExitStack() as files:
        path = checkpoint.path_from("path", path)
        optimizer._whole.need_writeable()
        with checkpoint.reading(path):
            index = _read_index(path / _INDEX)
            has_params = _check_index(optimizer, str(path / _INDEX), index)
            commit = checkpoint.checked(
                optimizer,
                str(path),
                _described_by_pieces(optimizer, str(path / _INDEX), index),
                lambda: set(checkpoint.named_arrays(optimizer, has_params)),
                _Files(optimizer, path, index, files).fetch,
            )
        agree({"number": optimizer._number, "files": index["files"]})
        commit()
        if has_params:
            optimizer._exchange.gather()


def _read_index(path: Path) -> Mapping[str, Any]:
    read = checkpoint.mapping(str(path), json.loads(path.read_bytes()))
    index = checkpoint.mapping(f"{path}: index", read.get("index"))
    need(zlib.crc32(json.dumps(index).encode()) == read.get("crc32"), f"{path}: its checksum is wrong")
    return index


def _check_index(optimizer: "Sharded", source: str, index: Mapping[str, Any]) -> bool:
    """Refuse the index of another optimizer's checkpoint; whether it is one with parameters."""
    for name, own in _index(optimizer, False).items():
        if name in ("version", "optimizer", "arrays"):
            need_same(f"{source}: {name}", index.get(name), own)
    for name in ("n_ranks", "bucket_bytes"):
        value = index.get(name)
        need(type(value) is int and value > 0, f"{source}: {name}: expected a whole number > 0, got {value!r}")
    names: Any = index.get("files")
    good = isinstance(names, list) and all(isinstance(name, str) and _FILE.fullmatch(name) for name in names)
    need(good and len(names) == index["n_ranks"], f"{source}: files: expected one of each rank, got {names!r}")
    return options.flag(f"{source}: has_params", index.get("has_params"))


class _Files:
    """The files of a checkpoint, each opened when it is first asked for, and who wrote what into which."""

    def __init__(self, optimizer: "Sharded", path: Path, index: Mapping[str, Any], opened: ExitStack) -> None:
        self._path, self._names, self._t, self._opened = path, index["files"], index["t"], opened
        self._layout = optimizer._whole.layout(index["n_ranks"], index["bucket_bytes"])
        self._keys = optimizer._whole.keys
        self._fetch: dict[int, Any] = {}
        own = zip(optimizer._keys, optimizer._own, optimizer._named_states(), optimizer._params, strict=True)
        self._wanted = {
            checkpoint.entry_of(key, name): (name, piece, array)
            for key, piece, states, p in own
            for name, array in {**states, "params": p}.items()
        }

    def fetch(self, entry: str) -> np.ndarray:
        """The array of one of this rank's pieces, put together from those of the ranks that wrote it."""
        name, piece, own = self._wanted[entry]
        found = np.empty_like(checkpoint.in_file(own))
        for rank, held in self._layout.holders(piece):
            stored = checkpoint.entry_of(held.label(self._keys[held.param]), name)
            came = self._of_rank(rank)(stored)
            where = f"{self._path / self._names[rank]}: {stored}"
            need(came.shape == (held.end - held.begin,), f"{where}: expected {held.end - held.begin} elements")
            need(came.dtype == found.dtype, f"{where}: expected dtype {found.dtype}, got {came.dtype}")
            begin, end = max(piece.begin, held.begin), min(piece.end, held.end)
            found[begin - piece.begin : end - piece.begin] = came[begin - held.begin : end - held.begin]
        return found

    def _of_rank(self, rank: int) -> Any:
        if rank not in self._fetch:
            opened = checkpoint.open_npz(self._path / self._names[rank])
            meta, _, self._fetch[rank] = self._opened.enter_context(opened)
            need_same(f"{self._path / self._names[rank]}: t", meta.get("t"), self._t)
        return self._fetch[rank]
