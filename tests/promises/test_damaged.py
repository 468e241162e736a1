"""Damaged, hostile and foreign checkpoints are refused with a ValueError that names the file, and nothing has changed.
A row of a table has a name, a change of a good file (or dict), and a part of the message.
"""

import itertools
import os
import pickle
import random
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import fuzz_checkpoint
import inside
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import (
    B,
    Change,
    Evil,
    Raw,
    W,
    built,
    cut,
    deep_schedule,
    described,
    directory,
    directory_without,
    duplicate,
    each_suffix,
    entry,
    group,
    header,
    header_of,
    length,
    nested,
    npy,
    put,
    rezip,
    snapshot,
    tar,
    tensors,
    top,
    whole,
    zipped,
)

import fastadam

# ---------------------------------------------------------------- damaged, hostile and foreign files


class Victim:
    """An optimizer that is to load a bad file: it must say so, and be what it was."""

    def __init__(self, suffix: str, tmp_path: Path) -> None:
        self.path = tmp_path / f"state{suffix}"
        self.opt = built(lr=0.125, steps=1)
        self.opt.step({"W": np.full((3, 4), np.nan, np.float32), "b": np.ones(5)}, skip_nonfinite=True)
        self.kept = snapshot(self.opt)
        built().save(self.path, params=True)
        self.good = self.path.read_bytes()

    def refuses(self, error: Any = ValueError, text: str = "") -> None:
        with pytest.raises(error) as raised:
            self.opt.load(self.path)
        assert str(self.path) in str(raised.value)
        assert text in str(raised.value)
        assert len(str(raised.value)) < 2500
        assert snapshot(self.opt) == self.kept
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(self.good)  # and nothing is in the way of a good one
        self.opt.load(self.path)
        assert snapshot(self.opt) == snapshot(built())


#: files of others, by what they are: whatever they are called
NO_FILE_OF_OURS = (
    "not a checkpoint of fastadam: neither an .npz nor a .safetensors file; expected a file that an optimizer's sa"
)
NO_TENSORS_OF_OURS = (
    "not a checkpoint of fastadam: a .safetensors file without fastadam.json; expected a file that an opt"
)
NO_ZIP_OF_OURS = (
    "not a checkpoint of fastadam: a zip without fastadam.json.npy; expected a file that an optimizer's save() wrote"
)
FOREIGN: list[tuple[str, Change, str]] = [
    ("empty", whole(b""), "not a checkpoint of fastadam: an empty file; expected a file that an optimizer's save()"),
    ("text", whole(b"import torch\n" * 100), NO_FILE_OF_OURS),
    ("zeros", whole(bytes(5000)), NO_FILE_OF_OURS),
    ("random bytes", whole(random.Random(0).randbytes(5000)), NO_FILE_OF_OURS),
    ("an .npy file", whole(npy(W)), NO_FILE_OF_OURS),
    ("a tar file", whole(tar()), NO_FILE_OF_OURS),
    ("a pickle", whole(pickle.dumps(Evil())), NO_FILE_OF_OURS),
    ("an empty zip", whole(zipped({})), NO_ZIP_OF_OURS),
    ("an .npz file", whole(zipped({"W.npy": npy(W)})), NO_ZIP_OF_OURS),
    ("a compressed .npz file", whole(zipped({"W.npy": npy(W)}, compression=zipfile.ZIP_DEFLATED)), NO_ZIP_OF_OURS),
    ("a .pt file", whole(zipped({"archive/data.pkl": pickle.dumps(Evil()), "archive/version": b"3"})), NO_ZIP_OF_OURS),
    ("a .safetensors file", whole(safetensors.numpy.save({"W": W})), NO_TENSORS_OF_OURS),
]  # fmt: skip


def renamed(data: bytes) -> bytes:
    """With another name in the directory of a zip."""
    return b"qarams/b".join(data.rsplit(b"params/b", 1))


HUGE, TOO_HUGE = (npy(np.zeros((1 << 24) + more, np.uint8)) for more in (0, 1))
NPZ: list[tuple[str, Change, str]] = [
    *((f"cut to {k} tenths", cut(k), "not a complete zip" if k else "") for k in range(10)),
    ("last byte missing", whole(lambda data: data[:-1]), "not a complete zip"),
    ("first bytes other", whole(lambda data: b"XX" + data[2:]), NO_FILE_OF_OURS),
    *FOREIGN,
    # the description
    ("no description", entry("fastadam.json", None), NO_ZIP_OF_OURS),
    ("description without header", entry("fastadam.json", b"{}"), "ValueError"),
    ("description in two dimensions", entry("fastadam.json", npy(np.ones((2, 2), np.uint8))), "JSONDecodeError"),
    ("description without dimensions", entry("fastadam.json", npy(np.uint8(1))), "JSONDecodeError"),
    ("description of objects", entry("fastadam.json", npy(np.array([Evil()]), allow_pickle=True)), "are not those"),
    ("description without end", entry("fastadam.json", header("|u1", (2**60,), b"{}")), "86 bytes are not those"),
    ("huge description", entry("fastadam.json", HUGE), "JSONDecodeError"),
    ("no JSON", described(b"version 1"), "JSONDecodeError"),
    ("half of JSON", described(b'{"version": 1, "optimizer"'), "JSONDecodeError"),
    ("no UTF-8", described(b'{"version": "\xff"}'), "UnicodeDecodeError"),
    ("empty description", described(b""), "JSONDecodeError"),
    ("a list", described(b"[1]"), "description: expected a dict, got list"),
    ("null", described(b"null"), "description: expected a dict, got NoneType"),
    ("deeply nested", described(nested(100_000)), "RecursionError"),
    ("nested", described(nested(500)), "t: expected a whole number >= 0"),
    ("a number of many digits", described(b'{"version": ' + b"1" * 10_000 + b"}"), "Exceeds the limit"),
    # its counts
    *((f"version {v!r}", top("version", v), "version: expected 2") for v in (99, 0, -1, "2", 2.0, True, None, ..., 1)),
    *((f"optimizer {v!r}", top("optimizer", v), "expected 'Adam'") for v in ("AdamW", "adam", "", None, ["Adam"], ...)),
    *((f"t {v!r:.9}", top("t", v), "t: expected a whole") for v in (-1, 3.5, "3", True, None, 2**63, 10**400, ...)),
    *((f"skipped {v!r}", top("skipped", v), "skipped: expected a whole") for v in (-1, 0.5, "0", False, ...)),
    *((f"seed {v!r}", top("seed", v), "seed: expected a whole number") for v in (-1, 2**64, 1.5, "1", None, ...)),
    ("t before its parameters'", top("t", 2), "steps['W']: expected a whole number >= 0 and <= t = 2, got 3"),
    *((f"of b {v!r}", top("steps", {"W": 3, "b": v}), "steps['b']: expected") for v in (-1, 4, 3.5, "3", True, None)),
    *((f"steps {v!r}", top("steps", v), "steps: expected a dict") for v in ([3, 3], 3, None, ...)),
    *((f"steps {v!r}", top("steps", v), "steps: missing: ") for v in ({}, {"W": 3}, {"W": 3, "b": 3, "c": 3})),
    # its groups
    *((f"groups {v!r}", top("param_groups", v), "expected 1 group, got") for v in ([], {}, None, 1, [{}, {}], ...)),
    *((f"group {v!r}", top("param_groups", [v]), "param_groups[0]: ") for v in ({}, [], None, 1)),
    ("option missing", group("eps", ...), "missing: ['eps']"),
    ("option unknown", group("nesterov", True), "unknown: ['nesterov']"),
    ("option of no name", group("", 0), "unknown: ['']"),
    *((f"lr {v!r:.20}", group("lr", v), "lr: expected a number") for v in (-1, "0.1", True, None, [0.1], 10**400)),
    *((f"lr {v}", group("lr", v), "lr: expected a number") for v in (float("nan"), float("inf"))),
    ("lr of no schedule", group("lr", {"schedule": "os.system", "lr": 1}), "schedule: expected one of constant"),
    ("lr of an empty dict", group("lr", {}), "schedule: expected one of"),
    ("lr of a schedule in words", group("lr", {"schedule": "constant", "lr": "x"}), "expected a number"),
    ("lr of a state in part", group("lr", {"schedule": "plateau", "lr": 1, "state": [1]}), "state: expected nothing"),
    ("lr of a bad state", group("lr", {"schedule": "plateau", "lr": 1, "state": [1, 1, -1, 0]}), "state[2]: expected"),
    ("lr of deep schedules", group("lr", deep_schedule(200)), "nested"),
    ("lr a function", group("lr", {"function": "<function f>"}), "lr: was a function, which files do not store"),
    ("lr a function and more", group("lr", {"function": "f", "x": 1}), "schedule: expected one of"),
    *((f"betas {v!r}", group("betas", v), "betas") for v in ([0.9], [0.9, 1], [0.9, "0.9"], "ab", 0.9, None, [[], []])),
    ("eps", group("eps", -1e-8), "eps: expected a number >= 0"),
    ("weight_decay", group("weight_decay", None), "weight_decay: expected a number"),
    ("beta_decay", group("beta_decay", 1.5), "beta_decay: expected a number >= 0 and <= 1"),
    ("maximize", group("maximize", 1), "maximize: expected True or False"),
    ("another rule", group("amsgrad", True), "amsgrad: True needs other states"),
    *((f"params {v!r}", group("params", v), "['params']: expected ['W', 'b']") for v in (["b", "W"], [], "Wb", None)),
    ("params in a dict", group("params", {"W": 1, "b": 2}), "['params']: expected ['W', 'b']"),
    # its arrays
    *((f"no {name}", entry(name, None), f"missing: ['{name}']") for name in ("m/W", "v/b", "params/W")),
    ("another's array", entry("v_max/W", npy(W)), "unknown: ['v_max/W']"),
    ("master weights", entry("master/W", npy(W)), "unknown: ['master/W']"),
    ("a path", entry("../../etc/x", npy(W)), "unknown: ['../../etc/x']"),
    ("a file that is no array", rezip(lambda entries: entries.update({"README": b"!"})), "unknown: ['README']"),
    ("twice in other spelling", rezip(lambda entries: entries.update({"m/W": npy(W)})), "two entries of one name"),
    ("twice", duplicate, "two entries of one name"),
    ("shape", entry("m/W", npy(np.ones((3, 5), np.float32))), "m/W: expected shape (3, 4), got (3, 5)"),
    ("transposed", entry("m/W", npy(W.T)), "m/W: expected shape (3, 4), got (4, 3)"),
    ("flat", entry("m/W", npy(W.ravel())), "m/W: expected shape (3, 4), got (12,)"),
    ("broadcast", entry("m/b", npy(B[:1])), "m/b: expected shape (5,), got (1,)"),
    ("last of all", entry("params/b", npy(np.ones(6))), "params/b: expected shape (5,), got (6,)"),
    *((f"dtype {d}", entry("m/W", npy(W.astype(d))), "m/W: expected dtype float32") for d in ("f8", "f2", "i4", ">f4")),
    *((f"dtype {d}", entry("v/b", npy(B.astype(d))), "v/b: expected dtype float64") for d in ("c16", "S8", "M8[s]")),
    ("fields", entry("m/W", npy(W.view([("x", "f4")]))), "m/W: expected dtype float32"),
    ("objects", entry("m/W", npy(np.full((3, 4), Evil()), allow_pickle=True)), "are not those of an array"),
    ("pickle for array", entry("m/W", pickle.dumps(Evil())), "ValueError"),
    ("objects in few bytes", entry("m/W", header("|O", (), pickle.dumps(Evil())[:8])), "are not those of an array"),
    ("shape beyond memory", entry("m/W", header("<f4", (2**40, 2**40))), "are not those of an array"),
    ("shape beyond numbers", entry("m/W", header("<f4", (2**70, 2**70))), "are not those of an array"),
    ("shape below zero", entry("m/W", header("<f4", (-3, -4), W.tobytes())), "ValueError: negative dimensions"),
    ("shape in words", entry("m/W", header("<f4", ("3", "4"), W.tobytes())), "ValueError"),
    ("many dimensions", entry("m/W", header("<f4", (1,) * 100, bytes(4))), "not those of an array (1, 1, "),
    ("dtype of no name", entry("m/W", header("float33", (3, 4), W.tobytes())), "ValueError"),
    ("dtype of no size", entry("m/W", header("|S0", (3, 4))), "m/W: expected dtype float32"),
    ("order in words", entry("m/W", header("<f4", (3, 4), W.tobytes(), order="F")), "ValueError"),
    ("header of another kind", entry("m/W", b"\x93NUMPY\1\0\6\0(3, 4)" + W.tobytes()), "ValueError"),
    ("header that is code", entry("m/W", header("<f4", Evil, W.tobytes())), "ValueError"),
    *((f"header of {c}", entry("m/W", header(Raw(c * 9900), ())), "ValueError") for c in "-(\0"),  # - is a MemoryError
    ("header without end", entry("m/W", header(Raw("(0L"), ())), "ValueError"),
    ("header of version 3", entry("m/W", header("<f4", (3, 4), W.tobytes(), version=b"\3\0")), "version (3, 0)"),
    ("header of version 9", entry("m/W", header("<f4", (3, 4), W.tobytes(), version=b"\x09\0")), "ValueError"),
    ("header of a megabyte", entry("m/W", header("<f4" + " " * 10**6, (3, 4), version=b"\2\0")), "Header info length"),
    ("header alone", entry("m/W", npy(W)[:128]), "m/W: 128 bytes are not those of an array (3, 4) of float32"),
    ("half a header", entry("m/W", npy(W)[:50]), "ValueError"),
    ("nothing", entry("m/W", b""), "ValueError"),
    ("too few bytes", entry("m/W", npy(W)[:-4]), "172 bytes are not those"),
    ("too many bytes", entry("m/W", npy(W) + b"more"), "180 bytes are not those"),
    # the zip
    ("compressed", rezip(lambda entries: None, compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted, which"),
    ("compressed by bzip2", rezip(lambda entries: None, compression=zipfile.ZIP_BZIP2), "is compressed"),
    ("bomb", whole(zipped({"fastadam.json.npy": TOO_HUGE}, compression=zipfile.ZIP_DEFLATED)), "is too long"),
    ("encrypted", directory(8, "<H", 1), "is compressed or encrypted"),
    ("of a later zip", directory(6, "<H", 64), "not an entry of a zip of version 6.3 or older"),
    ("listed as something else", directory(0, "<I", 0), "not an entry of a zip of version 6.3 or older"),
    ("without a header", whole(lambda data: b"PK\5\4" + data[4:]), "or no header"),
    ("unknown compression", directory(10, "<H", 99), "is compressed"),
    ("checksum", directory(16, "<I", 0), "fastadam.json: its checksum is wrong"),
    ("size of nothing", directory(24, "<I", 0), "is compressed"),
    ("size of more", directory(24, "<I", 2**31), "a description of 2147483520 bytes is too long"),
    ("packed size of more", directory(20, "<I", 2**31), "is compressed"),
    ("place behind the end", directory(42, "<I", 2**32 - 2), "it ends too early"),
    ("place of another", directory(42, "<I", 700), ""),
    ("name of another", directory(46, "<B", 0x46), NO_ZIP_OF_OURS),
    ("place before the file", whole(lambda data: data[400:]), ""),
    ("behind other bytes", whole(lambda data: b"PK\n" + data), "not a zip from its first byte to its last"),
    ("before other bytes", whole(lambda data: data + bytes(30)), "not a complete zip"),
    ("one entry less", directory_without("params/b"), "missing: ['params/b']"),
    ("no parameters", directory_without("params/"), "missing: ['params/W', 'params/b']"),
    ("an entry of another name", whole(renamed), "unknown: ['qarams/b']"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in NPZ], ids=[row[0] for row in NPZ])
def test_npz_is_refused(change: Change, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    victim = Victim(".npz", tmp_path)
    change(victim.path)
    assert victim.path.read_bytes() != victim.good
    victim.refuses(text=text)
    assert os.listdir(tmp_path) == [victim.path.name]  # nothing was unpickled, nothing unpacked


SAFETENSORS: list[tuple[str, Change, str]] = [
    *((f"cut to {k} tenths", cut(k), "it ends too early" if k else "") for k in range(9)),
    ("cut to 9 tenths", cut(9), "expected "),
    *FOREIGN,
    ("more bytes", whole(lambda data: data + b"more"), "bytes, got"),
    *((f"header of {n}", length(n), "") for n in (0, 1, 2**30, 2**63, 2**64 - 1)),
    ("header of another kind", whole(struct.pack("<Q", 2) + b"[]"), NO_FILE_OF_OURS),
    ("deeply nested header", whole(struct.pack("<Q", 200_000) + b"[" * 200_000), NO_FILE_OF_OURS),
    ("deeply nested in its header", whole(struct.pack("<Q", 2_000_000) + b'{"a":' * 400_000), "RecursionError"),
    ("no texts", tensors(lambda arrays, texts: texts.clear()), NO_TENSORS_OF_OURS),
    ("no description", tensors(lambda arrays, texts: texts.pop("fastadam.json")), NO_TENSORS_OF_OURS),
    ("no checksums", tensors(lambda arrays, texts: texts.pop("fastadam.crc32")), "KeyError: 'fastadam.crc32'"),
    ("checksums of another kind", tensors(lambda arrays, texts: texts.update({"fastadam.crc32": "[]"})), "TypeError"),
    ("no JSON", tensors(lambda arrays, texts: texts.update({"fastadam.crc32": "{"})), "JSONDecodeError"),
    ("another description", tensors(lambda arrays, texts: texts.update({"fastadam.json": "{}"})), "checksum is wrong"),
    ("a digit", header_of(b'\\"lr\\": 0.5', b'\\"lr\\": 0.6'), "fastadam.json: its checksum is wrong"),
    ("an element", tensors(lambda arrays, texts: arrays["v/b"].__setitem__(3, 7)), "v/b: its checksum is wrong"),
    ("another's values", tensors(lambda arrays, texts: arrays.update({"m/W": arrays["v/W"]})), "its checksum is wrong"),
    ("no m/W", tensors(lambda arrays, texts: arrays.pop("m/W")), "missing: ['m/W']"),
    ("another's array", tensors(lambda arrays, texts: arrays.update({"u/W": W})), "unknown: ['u/W']"),
    ("dtype", tensors(lambda arrays, texts: arrays.update({"m/W": W.astype("f8")})), "its checksum is wrong"),
    ("dtype in the header", header_of(b'"F64"', b'"I64"'), "expected dtype float64, got int64"),
    ("dtype of no name", header_of(b'"F32"', b'"F33"'), "not a dtype of NumPy: 'F33'"),
    ("overlapping", header_of(b'"data_offsets":[0,', b'"data_offsets":[8,'), "overlap, or have gaps"),
    ("an array of another name", header_of(b'"params/b"', b'"qarams/b"'), "unknown: ['qarams/b']"),
    ("shape", header_of(b'"shape":[3,4]', b'"shape":[3,5]'), "48 bytes are not those of an array (3, 5) of float32"),
    ("flat", header_of(b'"shape":[3,4]', b'"shape":[12 ]'), "expected shape (3, 4), got (12,)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in SAFETENSORS], ids=[row[0] for row in SAFETENSORS])
def test_safetensors_is_refused(change: Change, text: str, tmp_path: Path) -> None:
    victim = Victim(".safetensors", tmp_path)
    change(victim.path)
    assert victim.path.read_bytes() != victim.good
    victim.refuses(text=text)


@each_suffix
def test_no_file(suffix: str, tmp_path: Path) -> None:
    victim = Victim(suffix, tmp_path)
    victim.path.unlink()
    victim.refuses(FileNotFoundError)
    victim = Victim(suffix, tmp_path)
    victim.path.unlink()
    victim.path.symlink_to(victim.path)
    victim.refuses(OSError)
    victim.path.unlink()
    victim.path.mkdir()
    with pytest.raises(IsADirectoryError, match=re.escape(str(victim.path))):
        victim.opt.load(victim.path)


@each_suffix
def test_each_byte_counts(suffix: str, tmp_path: Path) -> None:
    """Whichever byte of a file is another: it is refused, or, where the byte says nothing, loaded as it was saved."""
    path = tmp_path / f"state{suffix}"
    opt, other = (fastadam.Adagrad(np.ones(2, np.float32), lr=lr) for lr in (0.5, 1))
    opt.step(np.ones(2, np.float32))
    inside.params(opt)[0][...] = inside.params(other)[0]
    opt.save(path)
    right, before, good, kept, refused = snapshot(opt), snapshot(other), path.read_bytes(), other.state_dict(), 0
    for place, mask in itertools.product(range(len(good)), (0x01, 0xFF)):
        path.write_bytes(good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :])
        try:
            other.load(path, params=False)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017  most are refused, not all
            assert snapshot(other) == before
            refused += 1
        else:
            assert snapshot(other) == right, f"byte {place} ^ {mask:#x}"
            other.load_state_dict(kept)
    assert refused > len(good)


@each_suffix
def test_description_without_bounds(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is written that would not be read."""
    victim = Victim(suffix, tmp_path)
    inside.limit_description(monkeypatch, 300)
    with pytest.raises(ValueError, match=r"a description of \d+ bytes is too long"):
        victim.opt.save(victim.path)
    assert victim.path.read_bytes() == victim.good
    with pytest.raises(ValueError, match=r"a description of \d+ bytes is too long"):
        victim.opt.load(victim.path)
    assert snapshot(victim.opt) == victim.kept


@each_suffix
def test_description_at_its_bound(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = Victim(suffix, tmp_path)
    inside.limit_description(monkeypatch, 1)
    with pytest.raises(ValueError, match="is too long") as error:
        victim.opt.save(victim.path)
    [length] = map(int, re.findall(r"a description of (\d+)", str(error.value)))
    inside.limit_description(monkeypatch, length)
    victim.opt.save(victim.path)
    victim.opt.load(victim.path, params=False)
    inside.limit_description(monkeypatch, length - 1)
    for call in (victim.opt.save, victim.opt.load):
        with pytest.raises(ValueError, match="is too long"):
            call(victim.path)


def test_fortran_order_in_a_file_is_read_as_such(tmp_path: Path) -> None:
    victim = Victim(".npz", tmp_path)
    m = built().state["m"][0]
    entry("m/W", npy(np.asfortranarray(m)))(victim.path)
    victim.opt.load(victim.path)
    assert snapshot(victim.opt) == snapshot(built())


#: other optimizers than the one that a file is of, by what the message must hold
OTHERS = {
    "optimizer: expected 'AdamW', got 'Adam'": lambda: fastadam.AdamW({"W": W.copy(), "b": B.copy()}),
    "optimizer: expected 'RMSprop'": lambda: fastadam.RMSprop({"W": W.copy(), "b": B.copy()}),
    "amsgrad: False needs other states": lambda: fastadam.Adam({"W": W.copy(), "b": B.copy()}, amsgrad=True),
    "['params']: expected ['0', '1'], got ['W', 'b']": lambda: fastadam.Adam([W.copy(), B.copy()]),
    "['params']: expected ['b', 'W'], got ['W', 'b']": lambda: fastadam.Adam({"b": B.copy(), "W": W.copy()}),
    "['params']: expected ['W'], got ['W', 'b']": lambda: fastadam.Adam({"W": W.copy()}),
    "expected 2 groups, got 1": lambda: fastadam.Adam([{"params": {"W": W.copy()}}, {"params": {"b": B.copy()}}]),
    "m/W: expected shape (4, 3), got (3, 4)": lambda: fastadam.Adam({"W": W.T.copy(), "b": B.copy()}),
    "m/b: expected dtype float32, got float64": lambda: fastadam.Adam({"W": W.copy(), "b": B.astype("f4")}),
    "expected dtype bfloat16, got float": lambda: fastadam.Adam(
        {"W": W.copy(), "b": B.astype("f4")}, state_dtype="bfloat16"
    ),
    "expected dtype int8, in blocks, got float": lambda: fastadam.Adam(
        {"W": W.copy(), "b": B.astype("f4")}, state_dtype="int8", min_8bit_size=1
    ),
    "missing: ['master/W', 'master/b']": lambda: fastadam.Adam(
        {"W": W.astype("f2"), "b": B.astype("f2")}, master_weights=True
    ),
}  # fmt: skip


@each_suffix
@pytest.mark.parametrize("text", OTHERS)
def test_another_optimizer(text: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    built().save(path)
    opt = OTHERS[text]()
    kept = snapshot(opt)
    with pytest.raises(ValueError, match=re.escape(str(path))) as raised:
        opt.load(path)
    assert text in str(raised.value)
    assert snapshot(opt) == kept


@pytest.mark.parametrize("way", ["npz", "safetensors", "dict"])
def test_read_only_parameters(way: str, tmp_path: Path) -> None:
    """Only where they would be written, and before anything else is."""
    opt, other = built(), built(steps=1)
    inside.params(other)[1].flags.writeable = False
    kept = snapshot(other)
    if way != "dict":
        opt.save(tmp_path / f"all.{way}", params=True)
        with pytest.raises(ValueError, match="params/b: the optimizer's array is read-only"):
            other.load(tmp_path / f"all.{way}")
        assert snapshot(other) == kept
        other.load(tmp_path / f"all.{way}", params=False)
    else:
        other.load_state_dict(opt.state_dict())
    assert other.t == 3


# ---------------------------------------------------------------- dicts


M = ("state", "W", "m")
DICTS = [
    ("version", put("version", 3), ValueError, "state_dict: version: expected 2, got 3"),
    ("optimizer", put("optimizer", "Adamax"), ValueError, "state_dict: optimizer: expected 'Adam', got 'Adamax'"),
    ("no t", put("t", ...), TypeError, "state_dict: t: expected a whole number >= 0 and < 2**63, got None"),
    ("t", put("t", -1), ValueError, "state_dict: t: expected a whole number >= 0"),
    ("t of type", put("t", 3.5), TypeError, "state_dict: t: expected a whole number >= 0 and < 2**63, got 3.5"),
    ("t of many characters", put("t", "1" * 10**4), TypeError, "1…"),
    ("skipped", put("skipped", True), TypeError, "skipped: expected a whole number >= 0 and < 2**63, got True"),
    ("seed", put("seed", 2**64), ValueError, "seed: expected a whole number"),
    ("no groups", put("param_groups", ...), ValueError, "expected 1 group, got None"),
    ("two groups", put("param_groups", [{}, {}]), ValueError, "expected 1 group, got 2"),
    ("a group that is none", put("param_groups", 0, 3), ValueError, "param_groups[0]: expected a dict, got int"),
    ("option missing", put("param_groups", 0, "eps", ...), ValueError, "param_groups[0]: missing: ['eps']"),
    ("option unknown", put("param_groups", 0, 3, 1), ValueError, "param_groups[0]: missing: [], unknown: ['3']"),
    ("option", put("param_groups", 0, "lr", -1), ValueError, "param_groups[0]: lr: expected a number >= 0"),
    ("option of type", put("param_groups", 0, "lr", "1"), TypeError, "param_groups[0]: lr: expected a number >= 0"),
    ("rule", put("param_groups", 0, "amsgrad", True), ValueError, "amsgrad: True needs other states"),
    ("steps", put("steps", "W", 9), ValueError, "steps['W']: expected a whole number >= 0 and <= t = 3, got 9"),
    ("names", put("param_groups", 0, "params", ["W"]), ValueError, "['params']: expected ['W', 'b'], got ['W']"),
    ("no state", put("state", ...), ValueError, "state_dict['state']: expected a dict, got NoneType"),
    ("state of a parameter missing", put("state", "b", ...), ValueError, "state_dict['state']: missing: ['b']"),
    ("state of no parameter", put("state", "c", {}), ValueError, "state_dict['state']: missing: [], unknown: ['c']"),
    ("state of a number", put("state", 0, {}), ValueError, "unknown: ['0']"),
    ("state that is none", put("state", "b", [B, B]), ValueError, "['state']['b']: expected a dict, got list"),
    ("array missing", put(*M, ...), ValueError, "state_dict['state']['W']: missing: ['m']"),
    ("array unknown", put("state", "W", "u", W), ValueError, "['state']['W']: missing: [], unknown: ['u']"),
    ("parameters", put("state", "W", "params", W), ValueError, "unknown: ['params']"),
    ("entries", put("state", "W", "m/W", W), ValueError, "unknown: ['m/W']"),
    ("list for array", put(*M, W.tolist()), ValueError, "state_dict: m/W: expected a numpy array, got list"),
    ("None for array", put(*M, None), ValueError, "expected a numpy array, got NoneType"),
    ("shape", put(*M, W.T), ValueError, "state_dict: m/W: expected shape (3, 4), got (4, 3)"),
    ("broadcast", put(*M, W[:1]), ValueError, "state_dict: m/W: expected shape (3, 4), got (1, 4)"),
    ("dtype", put(*M, W.astype("f8")), ValueError, "state_dict: m/W: expected dtype float32, got float64"),
    ("byte order", put(*M, W.astype(">f4")), ValueError, "expected dtype float32, got >f4"),
    ("objects", put(*M, W.astype(object)), ValueError, "expected dtype float32, got object"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), [row[1:] for row in DICTS], ids=[row[0] for row in DICTS])
def test_dict_is_refused(change: Any, error: type[Exception], text: str) -> None:
    opt, told = built(steps=1), built().state_dict()
    kept = snapshot(opt)
    change(told)
    with pytest.raises(error, match=re.escape(text)) as raised:
        opt.load_state_dict(told)
    assert len(str(raised.value)) < 2500
    assert snapshot(opt) == kept
    opt.load_state_dict(built().state_dict())
    assert opt.t == 3


@pytest.mark.parametrize("given", [None, [], "state", 3, b""])
def test_no_dict_at_all(given: Any) -> None:
    with pytest.raises(TypeError, match="state_dict: expected a dict as state_dict"):
        built().load_state_dict(given)


# ---------------------------------------------------------------- what the fuzzer found


def test_whole_inputs_are_loaded(tmp_path: Path) -> None:
    """The fuzzer's judge knows a good one."""
    for kind, number in itertools.product(fuzz_checkpoint.LOADERS, range(len(fuzz_checkpoint.VICTIMS))):
        folder = tmp_path / f"{kind}{number}"
        folder.mkdir()
        good = fuzz_checkpoint.good(kind, number, params=False, folder=tmp_path)
        assert fuzz_checkpoint.check(f"{kind}{number}".encode() + good, folder)


@pytest.mark.parametrize("path", sorted(fuzz_checkpoint.FOUND.iterdir()), ids=lambda path: path.name)
def test_what_the_fuzzer_found(path: Path, tmp_path: Path) -> None:
    """Named by what came of it when it was found."""
    assert fuzz_checkpoint.check(path.read_bytes(), tmp_path) or not path.name.startswith("loaded")
