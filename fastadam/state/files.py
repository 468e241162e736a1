"""Checkpoints in files, at a path or open: ``.safetensors`` by the suffix, else ``.npz``. Reading goes by content."""

import json
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import options
from . import npz, safetensors
from .entries import MAX_META, in_file
from .mismatch import mapping, need, need_ours, reading
from .places import Source, place_of, source, suffix_of, writing
from .snapshot import Check, Fit, Snapshot, encoded, fit, has_params


def save(path: Any, snapshot: Snapshot, params: bool) -> None:
    """Write a snapshot, with `params` also the parameters. A file at a path is written atomically."""
    place, params = place_of(path, "write"), options.flag("params", params)
    meta = json.dumps(encoded(snapshot.describe())).encode()
    need(len(meta) <= MAX_META, f"{place}: the names and options take {len(meta)} bytes, more than `load` would read")
    arrays = {entry: in_file(array) for entry, array in snapshot.arrays(params).items()}
    form = safetensors if suffix_of(place) == ".safetensors" else npz
    with writing(place) as target:
        form.write(target, meta, arrays)


@contextmanager
def load(
    path: Any, own: Snapshot, check: Check, strict: bool = True, params: bool | None = None, convert: bool = False
) -> Iterator[Fit]:
    """The contents of the file that fit the snapshot `own` of live arrays. Arrays may be views of the file: copy them
    within the block.

    `check(k, name, value)` returns the value to keep for option `name` of group `k`, or raises. For `strict` and
    `convert` see `fit`; for `params` see `Optimizer.load`.
    """
    with ExitStack() as files:
        found = files.enter_context(source(path))
        with reading(found.name):
            meta, entries, fetch = files.enter_context(_format(found).opened(found))
            are_there, described = has_params(entries), mapping(f"{found.name}: description", meta)
            if params is False:
                entries = {entry for entry in entries if not has_params([entry])}
            taken = fit(own, found.name, described, entries, fetch, check, strict, convert)
        need_params(found.name, params, are_there, stacklevel=5)
        yield taken


def need_params(where: str, wanted: bool | None, are_there: bool, stacklevel: int) -> None:
    """Refuse a checkpoint without parameters if `wanted` is True. Warn if it is None."""
    if not are_there and wanted is not False:
        text = f"{where}: was saved without parameters; save(path, params=True) writes them"
        need(wanted is None, text)
        way = "pass params=False if you restore them in another way"
        warnings.warn(f"{text}; they stay as they are: {way}", stacklevel=stacklevel)


def _format(found: Source) -> Any:
    """The module that reads this file."""
    if found.is_zip:
        return npz
    if bytes(found.memory[8:9]) == b"{":  # after the length of its header
        return safetensors
    at = "nothing, from where the file stands; seek(0) first" if found.path is None else "an empty file"
    what = "neither an .npz nor a .safetensors file" if len(found.memory) else at
    need_ours(zipfile.is_zipfile(found.file), found.name, what)  # a zip may begin after other bytes
    return npz
