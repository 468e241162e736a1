"""The checkpoints of a sharded optimizer: a folder with a file of each rank's share. If every rank has all states, only
the first rank writes a file. Any number of ranks can read a checkpoint of any other number: each rank collects its
pieces from the files that have them.
"""

import json
import re
import secrets
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import options
from ..kernel import checks
from ..state import npz
from ..state.atomic import path_from, replacing
from ..state.entries import Fetch, entry_of, in_file, need_version
from ..state.files import need_params
from ..state.fitting import Slot
from ..state.mismatch import mapping, need, need_same, reading
from ..state.numbers import in_blocks
from ..state.places import source, writing
from ..state.snapshot import Check, Loaded, encoded, fit
from .layout import Layout
from .memory import Whole
from .ranks import Ranks
from .shards import Commit, Held, Shard, need_strict, same, stored, whole_steps

_INDEX = "checkpoint.json"
_FILE = re.compile(r"[0-9a-f]{16}-\d+\.npz")
#: the name of a temporary file, which a killed save leaves behind
_TEMPORARY = re.compile(r"\.fastadam-[0-9a-f]{16}\.tmp")


def save(ranks: Ranks, held: Held, path: Any, params: Any, bring: Callable[[], None]) -> None:
    """See `Sharded.save`. `bring` copies the parameters into the pieces."""
    with ExitStack() as stack:
        with ranks.all_or_none("save") as agree:
            shard = stack.enter_context(held())
            path, params = path_from("path", path), checks.flag("params", params)
            agree({"path": str(path), "params": params, **same(shard)})
        index = _index(shard, params, whole_steps("save", ranks, shard))
        token = ranks.comm.bcast(secrets.token_hex(8))
        with ranks.all_or_none("save: the files") as agree:
            bring()
            if shard.is_told_by(ranks.rank):
                _write(shard, path, _name(token, ranks.rank), params)
            agree({})
        with ranks.all_or_none("save: their index") as agree:
            if ranks.rank == 0:
                _commit(path, {**index, "files": [_name(token, rank) for rank in range(shard.layout.n_ranks)]})
            agree({})


def _name(token: str, rank: int) -> str:
    return f"{token}-{rank}.npz"


def _index(shard: Shard, params: bool, steps: Mapping[str, int]) -> dict[str, Any]:
    """The contents of ``checkpoint.json``, except the names of the files."""
    layout = {"n_ranks": shard.layout.n_ranks, "bucket_bytes": shard.layout.bucket_bytes}
    return {**encoded(shard.describe(steps)), "arrays": _arrays(shard.whole), "has_params": params, **layout}


def _arrays(whole: Whole) -> list[list[Any]]:
    """The keys, shapes and dtypes of the whole parameters."""
    return [[key, list(p.shape), p.dtype.name] for key, p in zip(whole.keys, whole.params, strict=True)]


def _write(shard: Shard, path: Path, name: str, params: bool) -> None:
    """Write this rank's file."""
    path.mkdir(parents=True, exist_ok=True)
    arrays = {entry: in_file(array) for entry, array in shard.own.arrays(params).items() if array.size}
    with writing(path / name) as file:
        npz.write(file, {"t": shard.own.t}, arrays)


def _commit(path: Path, index: dict[str, Any]) -> None:
    """Write the index, after a check that all files exist. Then remove the files of older checkpoints."""
    for name in index["files"]:
        if not (path / name).exists():
            raise OSError(f"path: {path}: rank 0 does not see {name}; expected a folder that all ranks share")
    text = json.dumps(index)
    with replacing(path / _INDEX) as temporary:
        temporary.write_text(f'{{"index": {text}, "crc32": {zlib.crc32(text.encode())}}}')
    for file in path.iterdir():
        is_older = _FILE.fullmatch(file.name) and file.name not in index["files"]
        if is_older or _TEMPORARY.fullmatch(file.name):
            with suppress(OSError):  # the next save tries again
                file.unlink()


def load(
    ranks: Ranks, held: Held, path: Any, strict: Any, params: Any, convert: Any, check: Check, commit: Commit
) -> Loaded:
    """See `Sharded.load`."""
    with ranks.all_or_none("load") as agree, held() as shard, ExitStack() as files:
        need_strict(strict)
        wanted, convert = options.flag_or_none("params", params), options.flag("convert", convert)
        path = path_from("path", path)
        shard.whole.need_writeable()
        with reading(str(path)):
            name = str(path / _INDEX)
            index = _read_index(path / _INDEX)
            has_params = _check_index(shard, name, index) and wanted is not False
            entries = shard.own.arrays(has_params)
            fetch = _fetch_by_piece(shard, path, index, files, convert)
            described = shard.of_pieces(name, index)
            found = fit(shard.own, str(path), described, entries, fetch, check, convert=convert)
        need_params(str(path), wanted, index["has_params"], stacklevel=4)
        agree({"number": shard.number, "files": index["files"], "params": has_params, "convert": convert})
        commit(found, has_params)
    return found.loaded


def _read_index(path: Path) -> Mapping[str, Any]:
    read = mapping(str(path), json.loads(path.read_bytes()))
    index = mapping(f"{path}: index", read.get("index"))
    need(zlib.crc32(json.dumps(index).encode()) == read.get("crc32"), f"{path}: its checksum is wrong")
    return index


def _check_index(shard: Shard, source: str, index: Mapping[str, Any]) -> bool:
    """Refuse the index of another optimizer's checkpoint. Return whether the checkpoint has parameters."""
    need_version(source, index.get("version"))
    for name, own in {"optimizer": shard.own.optimizer, "arrays": _arrays(shard.whole)}.items():
        need_same(f"{source}: {name}", index.get(name), own)
    for name in ("n_ranks", "bucket_bytes"):
        value = index.get(name)
        need(type(value) is int and value > 0, f"{source}: {name}: expected a whole number > 0, got {value!r}")
    names: Any = index.get("files")
    good = isinstance(names, list) and all(isinstance(name, str) and _FILE.fullmatch(name) for name in names)
    need(good and len(names) == index["n_ranks"], f"{source}: files: expected one for each rank, got {names!r}")
    return checks.flag(f"{source}: has_params", index.get("has_params"))


def _fetch_by_piece(shard: Shard, path: Path, index: Mapping[str, Any], files: ExitStack, convert: bool) -> Fetch:
    """The function that returns the array of one of this rank's pieces, joined from the files of the ranks that have
    it.

    A file is opened on first use, and closed by `files`. If its states are 8-bit and this rank's are not, they are
    converted here, since blocks are not cut where this rank's pieces are.
    """
    keys = shard.whole.keys
    fetches: dict[int, Fetch] = {}
    wanted = {
        entry_of(key, name): (name, piece, array)
        for (key, p), piece, states in zip(shard.own.params.items(), shard.pieces, shard.states(), strict=True)
        for name, array in {**states, "params": p}.items()
    }

    def of_rank(rank: int) -> Fetch:
        if rank not in fetches:
            file = path / index["files"][rank]
            meta, _, fetches[rank] = files.enter_context(npz.opened(files.enter_context(source(file))))
            need_same(f"{file}: t", meta.get("t"), index["t"])
        return fetches[rank]

    @cache
    def layout() -> Layout:  # called after `fit` has checked the groups' options
        return shard.whole.layout(index["n_ranks"], index["bucket_bytes"], index["param_groups"])

    def fetch(entry: str) -> np.ndarray:
        name, piece, own = wanted[entry]
        parts = []
        for rank, held in layout().holders(piece):
            file, label = str(path / index["files"][rank]), entry_of(held.label(keys[held.param]), name)
            came, size = of_rank(rank)(label), held.end - held.begin
            shape = (stored(came, 0, size).stop,)
            need(came.shape == shape, f"{file}: {label}: expected shape {shape}, got {came.shape}")
            if in_blocks(came) and not in_blocks(own):
                like = np.empty(size, own.dtype)
                came = Slot(like, like, (size,), (0,), convert).taken(file, label, came)
            begin, end = max(piece.begin, held.begin), min(piece.end, held.end)
            parts.append(came[stored(came, begin - held.begin, end - held.begin)])
        return np.concatenate(parts, dtype=parts[0].dtype, casting="no") if parts else in_file(own)

    return fetch
