"""Checkpoints as files, by suffix: ``.safetensors``, or ``.npz`` for all others."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import options
from . import npz, safetensors
from .atomic import path_from, replacing
from .entries import MAX_META, in_file
from .mismatch import mapping, need, reading
from .snapshot import Check, Fit, Snapshot, encode, fit


def save(path: Any, snapshot: Snapshot, params: bool) -> None:
    """Write a snapshot, with `params` also the parameters, to a file: whole, or not at all."""
    path, params = path_from("path", path), options.flag("params", params)
    meta = json.dumps(snapshot.describe(), default=encode).encode()
    need(len(meta) <= MAX_META, f"{path}: the names and options take {len(meta)} bytes, more than `load` would read")
    arrays = {entry: in_file(array) for entry, array in snapshot.arrays(params).items()}
    with replacing(path) as temporary:
        _format(path.suffix).write(temporary, meta, arrays)


@contextmanager
def load(path: Any, own: Snapshot, check: Check) -> Iterator[Fit]:
    """What the file has for the snapshot `own` of live arrays. Its arrays may be views of the file: copy them within.

    `check(k, name, value)` returns the value to keep for option `name` of group `k`, or raises.
    """
    path = path_from("path", path)
    with ExitStack() as files:
        with reading(path):
            meta, entries, fetch = files.enter_context(_format(path.suffix).opened(path))
            found = fit(own, str(path), mapping(f"{path}: description", meta), entries, fetch, check)
        yield found


def _format(suffix: str) -> Any:
    return safetensors if suffix == ".safetensors" else npz
