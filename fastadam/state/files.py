"""Checkpoints in files, at a path or open: ``.safetensors`` by the suffix, else ``.npz``. Reading goes by content."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import options
from . import npz, safetensors
from .entries import in_file
from .mismatch import mapping, need, reading
from .places import is_zip, place_of, source, suffix_of, writing
from .snapshot import Check, Fit, Snapshot, encoded, fit, has_params


def save(path: Any, snapshot: Snapshot, params: bool) -> None:
    """Write a snapshot, with `params` also the parameters. A file at a path is written atomically."""
    place, params = place_of(path, "write"), options.flag("params", params)
    meta, form = encoded(snapshot.describe()), safetensors if suffix_of(place) == ".safetensors" else npz
    arrays = {entry: in_file(array) for entry, array in snapshot.arrays(params).items()}
    with writing(place) as file:
        form.write(file, meta, arrays)


@contextmanager
def load(
    path: Any, own: Snapshot, check: Check, strict: bool = True, params: bool | None = None, convert: bool = False
) -> Iterator[Fit]:
    """The contents of the file that fit the snapshot `own` of live arrays. Arrays may be views of the file, if
    it is mapped: copy them within the block.

    `check(k, name, value)` returns the value to keep for option `name` of group `k`, or raises. For `strict` and
    `convert` see `fit`; for `params` see `Optimizer.load`.
    """
    with ExitStack() as files:
        found = files.enter_context(source(path))
        with reading(found.name):
            form = npz if is_zip(found.view(0, 2)) else safetensors
            meta, entries, fetch = files.enter_context(form.opened(found))
            are_there, described = has_params(entries), mapping(f"{found.name}: description", meta)
            if params is False:
                entries = [entry for entry in entries if not has_params([entry])]
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
