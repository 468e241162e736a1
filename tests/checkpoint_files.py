"""Shared by the tests of checkpoints: an optimizer, its snapshot, and changes of its file.
A `Change` rewrites a file (or a folder of states) in place, as damage or an attacker would.
"""

import io
import json
import mmap
import os
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from cases import arrays_of
from places import TESTS

import fastadam

SUFFIXES = (".npz", ".safetensors")
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)
W, B = np.ones((3, 4), np.float32), np.ones(5)


def snapshot(opt: fastadam.Optimizer) -> tuple[Any, ...]:
    """All that a failed load must leave as it was."""
    arrays = [(array.dtype, array.shape, array.tobytes()) for array in arrays_of(opt)]
    options = [[(name, value) for name, value in group.items() if name != "params"] for group in opt.param_groups]
    steps = inside.plan(opt).steps.tolist()
    return opt.t, opt.skipped, opt.seed, steps, options, arrays


def assert_same_arrays(opt: fastadam.Optimizer, expected: fastadam.Optimizer) -> None:
    for now, then in zip(arrays_of(opt), arrays_of(expected), strict=True):
        assert now.dtype == then.dtype
        if now.dtype.name == "bfloat16":  # whose NaN NumPy does not know for equal
            now, then = now.astype(np.float32), then.astype(np.float32)
        np.testing.assert_array_equal(now, then)


def built(lr: Any = 0.5, steps: int = 3) -> fastadam.Optimizer:
    """What the files below are of, or were before they were changed: {"W": 3 x 4 float32, "b": 5 float64}."""
    opt = fastadam.Adam({"W": np.ones((3, 4), np.float32), "b": np.ones(5)}, lr=lr, seed=steps)
    for t in range(steps):
        opt.step({"W": np.full((3, 4), t - 1.0, np.float32), "b": np.linspace(-1, 1, 5) + t})
    return opt


def run(name: str, *args: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    """A function of `checkpoint_runs.py`, in a process of its own."""
    done = subprocess.run(command(name, *args), capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr
    return done


def command(name: str, *args: Any) -> list[str]:
    return [sys.executable, str(TESTS / "checkpoint_runs.py"), name, *map(str, args)]


def mapped(array: np.ndarray) -> bool:
    """Whether an array's memory is a file's."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


# ---------------------------------------------------------------- changes of files

Entries = dict[str, bytes]
Change = Callable[[Path], None]


def zipped(entries: Entries, **how: Any) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", **how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return memory.getvalue()


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: Any, **how: Any) -> bytes:
    memory = io.BytesIO()
    np.save(memory, array, **how)
    return memory.getvalue()


def header(descr: Any, shape: Any, data: bytes = b"", order: Any = False, version: bytes = b"\1\0") -> bytes:
    """An entry whose header says what no array does."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + data


def rezip(change: Callable[[Entries], Any], **how: Any) -> Change:
    """The same file with other entries."""

    def rewrite(path: Path) -> None:
        entries = entries_of(path)
        change(entries)
        path.write_bytes(zipped(entries, **how))

    return rewrite


def entry(name: str, data: bytes | None) -> Change:
    """The same file with another entry of this name, or none."""
    return rezip(lambda entries: entries.pop(f"{name}.npy") if data is None else entries.update({f"{name}.npy": data}))


def described(data: bytes) -> Change:
    """The same file with this for its description."""
    return entry("fastadam.json", npy(np.frombuffer(data, np.uint8)))


def told(change: Callable[[Any], Any]) -> Change:
    """The same file, its description changed."""

    def rewrite(path: Path) -> None:
        description = json.loads(np.load(path)["fastadam.json"].tobytes())
        change(description)
        described(json.dumps(description).encode())(path)

    return rewrite


def top(name: str, value: Any) -> Change:
    return told(lambda told: told.pop(name) if value is ... else told.update({name: value}))


def group(name: str, value: Any) -> Change:
    def change(told: Any) -> None:
        told["param_groups"][0].pop(name, None)
        if value is not ...:
            told["param_groups"][0][name] = value

    return told(change)


def whole(data: bytes | Callable[[bytes], bytes]) -> Change:
    """Other bytes in place of the file's."""

    def rewrite(path: Path) -> None:
        path.write_bytes(data(path.read_bytes()) if callable(data) else data)

    return rewrite


def cut(tenths: int) -> Change:
    return whole(lambda data: data[: len(data) * tenths // 10])


def directory(place: int, format: str, value: int) -> Change:
    """Another field in the first entry of the zip's directory, whose fields `format` is of."""

    def change(data: bytes) -> bytes:
        at = data.index(b"PK\1\2") + place
        return data[:at] + struct.pack(format, value) + data[at + struct.calcsize(format) :]

    return whole(change)


def directory_without(names: str) -> Change:
    """The same file, whose directory lacks the entries that begin so. Their bytes remain in the file."""

    def change(data: bytes) -> bytes:
        begin = data.index(b"PK\1\2")
        end = data.index(b"PK\6\6")
        listed = [b"PK\1\2" + part for part in data[begin:end].split(b"PK\1\2")[1:]]
        kept = [part for part in listed if not part[46:].startswith(names.encode())]
        assert kept != listed
        listing = b"".join(kept)
        numbers = struct.pack("<4Q", len(kept), len(kept), len(listing), begin)
        return data[:begin] + listing + data[end : end + 24] + numbers + data[end + 56 :]

    return whole(change)


def duplicate(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr("m/W.npy", archive.read("m/W.npy"))


class Raw(str):
    """A text that stands in a header as it is."""

    __repr__ = str.__str__


class Evil:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def nested(depth: int) -> bytes:
    return b'{"version": 2, "optimizer": "Adam", "t": ' + b"[" * depth + b"]" * depth + b"}"


def deep_schedule(depth: int) -> Any:
    made: Any = {"schedule": "constant", "lr": 0.1}
    for _ in range(depth):
        made = {"schedule": "join", "schedules": [made], "boundaries": []}
    return made


def tar() -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w"):
        pass
    return memory.getvalue()


def tensors(change: Callable[[dict[str, Any], dict[str, str]], Any]) -> Change:
    """The same file with other arrays or texts."""

    def rewrite(path: Path) -> None:
        import safetensors.numpy  # which has no wheel for Python without a GIL

        arrays = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata()
        change(arrays, texts)
        safetensors.numpy.save_file(arrays, path, texts)

    return rewrite


def length(value: int) -> Change:
    return whole(lambda data: struct.pack("<Q", value) + data[8:])


def header_of(old: bytes, new: bytes) -> Change:
    """The same file with one text in its header for another, of the same length."""
    assert len(old) == len(new)

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new)

    return whole(change)


def put(*path: Any) -> Callable[[Any], Any]:
    """Puts the last of the path at the keys before it; `...` takes it out."""

    def change(told: Any) -> None:
        *keys, last, value = path
        for key in keys:
            told = told[key]
        told[last] = value
        if value is ...:
            del told[last]

    return change
