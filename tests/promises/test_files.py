"""Files of checkpoints and what other processes do to them: short memory, files that are cut while they are read,
modes, devices, pipes, and very many arrays.
"""

import copy
import errno
import io
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from checkpoint_files import built, directory_without, each_suffix, run, snapshot, whole, zipped

import fastadam

MIB = 1 << 20


def large(value: float = 1.0) -> fastadam.Optimizer:
    """An optimizer with 16 MiB of parameters in Fortran order, and a small strided array."""
    opt = fastadam.Adam({"W": np.full((2048, 1024), value).T, "b": np.full(9, value)[::2]}, n_threads=1)
    opt.step({"W": np.full((1024, 2048), value), "b": np.arange(5.0)})
    return opt


# ---------------------------------------------------------------- short memory


@each_suffix
@pytest.mark.parametrize("name", ["save_in_little_memory", "load_in_little_memory"])
def test_short_memory_is_an_error_and_nothing_is_lost(name: str, suffix: str, tmp_path: Path) -> None:
    """Under a limit of the address space, a save needs no copy of an array. A load may fail, but changes nothing."""
    path = tmp_path / f"state{suffix}"
    assert run(name, path).stdout.split() == ["right"]
    assert os.listdir(tmp_path) == [path.name]


# ---------------------------------------------------------------- files that others change


@each_suffix
@pytest.mark.parametrize("at", [0.001, 0.3, 0.9])
def test_a_file_that_is_cut_while_it_is_read(
    at: float, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the description has been read, the first array, or a later one: an error, or all of it."""
    path, opt = tmp_path / f"state{suffix}", large()
    large(2.0).save(path, params=True)
    good, kept = path.read_bytes(), snapshot(opt)
    real, calls = zlib.crc32, 0
    for moment in (1, 2, 7):
        calls = 0

        def cutting(*args: Any) -> int:
            nonlocal calls
            calls += 1
            if calls == moment:  # noqa: B023
                os.truncate(path, int(len(good) * at))
            return real(*args)

        path.write_bytes(good)
        with monkeypatch.context() as patch:
            patch.setattr(zlib, "crc32", cutting)
            try:
                opt.load(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017  not all are refused
                assert snapshot(opt) == kept
            else:
                assert snapshot(opt) == snapshot(large(2.0))
                opt = large()
    path.write_bytes(good)
    assert opt.load(path).params


@each_suffix
def test_a_thread_cuts_the_file_again_and_again(suffix: str, tmp_path: Path) -> None:
    path, opt = tmp_path / f"state{suffix}", large()
    opt.save(path, params=True)
    good, stopped = path.read_bytes(), threading.Event()

    def cut() -> None:
        while not stopped.is_set():
            os.truncate(path, 5000)
            path.write_bytes(good)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        kept = snapshot(opt)
        for _ in range(20):
            try:
                opt.load(path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
        assert snapshot(opt) == kept
    finally:
        stopped.set()
        thread.join()


@each_suffix
def test_a_file_larger_than_memory_is_mapped(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opt = tmp_path / f"state{suffix}", large()
    large(2.0).save(path, params=True)
    inside.limit_memory(monkeypatch, 30 * MIB)
    opt.load(path)
    assert snapshot(opt) == snapshot(large(2.0))
    with (
        path.open("rb") as file,
        pytest.raises(ValueError, match="half of the memory; write it to a file, give its path"),
    ):
        opt.load(file)


@each_suffix
@pytest.mark.parametrize("place", [MIB + 1, 5 * MIB, -3 * MIB])
def test_a_byte_behind_the_first_mebibyte(place: int, suffix: str, tmp_path: Path) -> None:
    path, opt = tmp_path / f"state{suffix}", large()
    large(2.0).save(path, params=True)
    kept, size = snapshot(opt), path.stat().st_size
    with path.open("r+b") as file:
        file.seek(place % size)
        byte = file.read(1)[0]
        file.seek(place % size)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        opt.load(path)
    assert snapshot(opt) == kept


def test_an_entry_that_got_lost_is_missed_by_a_partial_load(tmp_path: Path) -> None:
    """Without the list of entries it would pass for a parameter that does not fit."""
    path, opt = tmp_path / "state.npz", built(steps=1)
    built().save(path, params=True)
    kept, good = snapshot(opt), path.read_bytes()
    for lost in ("m/W", "params/"):
        path.write_bytes(good)
        directory_without(lost)(path)
        for how in ({"strict": False}, {"params": False}, {"strict": False, "params": False}):
            with pytest.raises(ValueError, match=f"missing: \\['{lost}"):
                opt.load(path, **how)
    assert snapshot(opt) == kept


# ---------------------------------------------------------------- modes


class Watch:
    """Records the modes of all files in a folder at each call of `zlib.crc32`, which a save calls for each part."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: set[tuple[str, int]] = set()
        real = zlib.crc32

        def watching(*args: Any) -> int:
            self.seen |= {(file.suffix, stat.S_IMODE(file.stat().st_mode)) for file in folder.iterdir()}
            return real(*args)

        monkeypatch.setattr(zlib, "crc32", watching)


@each_suffix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_file_has_the_mode_of_the_old_one_from_its_beginning(
    mode: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opt = tmp_path / f"state{suffix}", built()
    opt.save(path)
    path.chmod(mode)
    watch = Watch(tmp_path, monkeypatch)
    opt.save(path, params=True)
    assert {seen for suffix, seen in watch.seen if suffix == ".tmp"} == {mode | 0o200}  # the owner writes to it
    assert stat.S_IMODE(path.stat().st_mode) == mode


@each_suffix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(
    mask: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, watch = tmp_path / f"state{suffix}", Watch(tmp_path, monkeypatch)
    before = os.umask(mask)
    try:
        built().save(path)
    finally:
        os.umask(before)
    assert watch.seen == {(".tmp", 0o666 & ~mask)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


# ---------------------------------------------------------------- what is no regular file


def test_pipes_and_sockets_are_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opt, kept = built(), snapshot(built())
    monkeypatch.chdir(tmp_path)  # the name of a socket is at most 107 bytes
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")
        for name in ("pipe", "link", "socket", "/dev/zero", "/dev/null"):
            for call in (opt.load, opt.save):
                with pytest.raises(OSError, match="got a device, pipe or socket"):
                    call(name)
    # a pipe that comes between the look and the opening
    monkeypatch.setattr(os, "stat", lambda *args, **how: os.lstat(__file__))
    with pytest.raises(OSError, match="got a device, pipe or socket"):
        opt.load("pipe")
    assert snapshot(opt) == kept


def test_files_of_the_kernel_are_no_checkpoints() -> None:
    for name in ("/proc/version", "/proc/self/mem", "/proc/kcore"):
        if os.access(name, os.R_OK):
            with pytest.raises((ValueError, OSError)) as raised:
                built().load(name)
            assert name in str(raised.value)


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.symlink_to(path)
    for call in (built().load, built().save):
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            call(path)
    assert path.is_symlink()


class Endless:
    """An open file that never ends. It counts what is read."""

    def __init__(self, first: bytes) -> None:
        self.first, self.count = first, 0

    def read(self, n: int) -> bytes:
        self.count += n
        data, self.first = (self.first + bytes(n))[:n], self.first[n:]
        return data


@pytest.mark.parametrize("first", [b"", b"PK", bytes(8) + b"{"])
def test_open_files_are_read_to_a_bound(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opt = Endless(first), built()
    inside.limit_memory(monkeypatch, 30 * MIB)
    with pytest.raises(ValueError, match="half of the memory" if first else "neither an .npz nor a .safetensors"):
        opt.load(file)  # type: ignore[arg-type]
    assert file.count < (17 * MIB if first else MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers of descriptors are read from /proc")
@each_suffix
def test_a_checkpoint_leaves_no_descriptor(suffix: str, tmp_path: Path) -> None:
    opt, path = built(), tmp_path / f"state{suffix}"
    opt.save(path, params=True)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        opt.save(path, params=True)
        opt.load(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Broken:
    """An open file on a disk that fails."""

    def read(self, n: int) -> bytes:
        if n == 0:
            return b""
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_read_that_fails_names_the_file() -> None:
    with pytest.raises(OSError, match="Broken object") as raised:
        built().load(Broken())  # type: ignore[arg-type]
    assert raised.value.errno == errno.EIO


def test_a_checkpoint_through_a_pipe(tmp_path: Path) -> None:
    path, opt = tmp_path / "a.npz", large()
    large(2.0).save(path, params=True)
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        opt.load(process.stdout)
    assert snapshot(opt) == snapshot(large(2.0))


# ---------------------------------------------------------------- many arrays, large files, long names


@each_suffix
def test_many_arrays_cost_no_header_and_no_read_each(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9,000 arrays of two shapes: their headers are parsed once for each shape, and they are read in large parts."""
    shapes = [(3,), (2, 2)] * 1500
    opts = [fastadam.Adam([np.full(shape, value) for shape in shapes]) for value in (1.0, 2.0)]
    path, calls = tmp_path / f"state{suffix}", 0
    real = np.lib.format.read_array_header_1_0

    def counting(file: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", counting)
    opts[0].save(path, params=True)
    reads = inside.count_reads(monkeypatch)
    opts[1].load(path)
    assert snapshot(opts[1]) == snapshot(opts[0])
    assert calls <= 3
    assert len(reads) < 40


def dealt(items: list[Any]) -> list[Any]:
    """The same items, by turns of the first and of the second half."""
    half = len(items) // 2
    return [item for pair in zip(items[:half], items[half:], strict=False) for item in pair] + items[2 * half :]


def with_other_order(data: bytes) -> bytes:
    """The same file, whose directory (or header) has another order than its arrays."""
    if data[:2] == b"PK":
        begin, end = data.index(b"PK\1\2"), data.index(b"PK\6\6")
        listed = [b"PK\1\2" + part for part in data[begin:end].split(b"PK\1\2")[1:]]
        return data[:begin] + b"".join(dealt(listed)) + data[end:]
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(dict(dealt(list(json.loads(data[8 : 8 + length]).items()))), separators=(",", ":"))
    return data[:8] + header.encode().ljust(length) + data[8 + length :]


@each_suffix
def test_another_order_of_the_directory_costs_nothing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small arrays are read in large parts, which they keep alive: one part for each would be a gibibyte here."""
    opts = [fastadam.Adam([np.full(100, value) for _ in range(1200)]) for value in (1.0, 2.0)]
    path = tmp_path / f"state{suffix}"
    opts[0].save(path, params=True)
    whole(with_other_order)(path)
    reads = inside.count_reads(monkeypatch)
    opts[1].load(path)
    assert snapshot(opts[1]) == snapshot(opts[0])
    assert len(reads) < 40


def test_a_large_directory_is_read_once(tmp_path: Path) -> None:
    """A directory of nothing, such as a sparse file has, takes the memory of the file and no more."""
    path, length, opt = tmp_path / "state.npz", 16 * MIB, built()
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, length, 2)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, 2 + length, 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(b"PK" + bytes(length) + end)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not an entry of a zip"):
            opt.load(path)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


def test_entries_of_one_place_are_refused(tmp_path: Path) -> None:
    """A small file could else be a large load."""
    path = tmp_path / "state.npz"
    large().save(path, params=True)
    with zipfile.ZipFile(path, "a") as archive:
        info = archive.getinfo("m/W.npy")
        archive.filelist += [other := copy.copy(info)]
        other.filename = "m/X.npy"
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="its entries overlap"):
        large().load(path, strict=False)


def test_a_shape_of_very_many_numbers_is_refused_without_their_product(tmp_path: Path) -> None:
    path, opt = tmp_path / "state.safetensors", built()
    opt.save(path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b"[3,4]", str([10**4000] * 2000).encode())  # its product takes a minute
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    begin = time.process_time()
    with pytest.raises(ValueError, match="48 bytes are not those of an array"):
        opt.load(path)
    assert time.process_time() - begin < 10


def test_entries_beyond_four_gibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 1,500 bytes were four gibibytes: the numbers of later entries have 64 bits, which `zipfile` reads, too."""
    path, opt = tmp_path / "state.npz", built(steps=1)
    inside.limit_zip(monkeypatch, 1500)
    built().save(path, params=True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        wide = [bool(info.extra) for info in archive.infolist()]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert wide == sorted(wide)
    assert set(wide) == {False, True}
    [end] = re.findall(b"PK\6\6(.{8})", path.read_bytes(), re.S)
    assert end == struct.pack("<Q", 44)  # the size of the record that begins so
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["v/b"], built().state["v"][1])
    opt.load(path)
    assert snapshot(opt) == snapshot(built())


def test_what_numpy_writes_anew_is_read(tmp_path: Path) -> None:
    """A file whose arrays someone edited with NumPy: one of an earlier version, if there is no list of entries."""
    path, opt = tmp_path / "state.npz", built(steps=1)
    built().save(path, params=True)
    with np.load(path) as file:
        np.savez(tmp_path / "edited.npz", **{**file, "params/b": np.full(5, 7.0)})
    opt.load(tmp_path / "edited.npz")
    np.testing.assert_array_equal(opt.params["b"], np.full(5, 7.0))


def test_a_zip_of_65535_entries_needs_no_wide_end(tmp_path: Path) -> None:
    """For `zipfile` it is the greatest number that has no field of 64 bits."""
    path, opt = tmp_path / "state.npz", built()
    opt.save(path, params=True)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries |= {f"x/{k}": b"" for k in range(2**16 - 1 - len(entries))}
    path.write_bytes(zipped(entries))
    with pytest.raises(ValueError, match=r"unknown: \['x/0', 'x/1'"):
        opt.load(path)


@each_suffix
def test_messages_are_short_whatever_the_names(suffix: str, tmp_path: Path) -> None:
    long, path = "x" * 60_000, tmp_path / f"state{suffix}"
    fastadam.Adam({f"{long}{k}": np.ones(2) for k in range(9)}).save(path, params=True)
    for other in ({f"{long}y": np.ones(2)}, {f"{long}{k}": np.ones(3) for k in range(9)}, np.ones(3)):
        with pytest.raises(ValueError, match=r"expected|missing") as raised:
            fastadam.Adam(other).load(path)
        assert len(str(raised.value)) < 2500
    whole(lambda data: data[:-1])(path)
    for wrong in (path, tmp_path / ("y" * 250)):
        with pytest.raises((ValueError, OSError)) as error:
            fastadam.Adam(np.ones(3)).load(wrong)
        assert len(str(error.value)) < 2500
    file = io.BytesIO(b"PK" + bytes(3000))
    with pytest.raises(ValueError, match="not a complete"):
        fastadam.Adam(np.ones(3)).load(file)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2"])
def test_swapped_bytes_are_refused_by_all(dtype: str, tmp_path: Path) -> None:
    """As parameters, and as arrays of a file or a dict; `np.load` of a file from another machine gives them."""
    if sys.byteorder == "big":
        pytest.skip("these are native here")
    with pytest.raises(TypeError, match=re.escape(f"{dtype}")):
        fastadam.Adam(np.ones(3, dtype))
    opt = fastadam.Adam({"W": np.ones(3, dtype[1:])})
    opt.save(tmp_path / "a.npz", params=True)
    with np.load(tmp_path / "a.npz") as file:
        swapped = {name: array if array.dtype == np.uint8 else array.astype(dtype) for name, array in file.items()}
    np.savez(tmp_path / "b.npz", **swapped)
    told = opt.state_dict()
    told["state"]["W"]["m"] = told["state"]["W"]["m"].astype(dtype)
    kept = snapshot(opt)
    for call in (lambda: opt.load(tmp_path / "b.npz"), lambda: opt.load_state_dict(told)):
        with pytest.raises(ValueError, match=f"got {dtype}"):
            call()
        assert snapshot(opt) == kept
