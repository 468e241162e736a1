"""A coverage-guided fuzzer of loading: `python tools/fuzz_checkpoint.py --seconds 60`. It needs `pip install atheris`.
Its findings are in `tests/data/fuzz`. `test_damaged.py` runs `check` on each of them, without atheris.

An input is two characters and a payload. The first character is the kind (n: an .npz, s: a .safetensors, d: a
state_dict as JSON, f: a zip of the files of a state_dir). The second is the number of the optimizer that loads the
payload. An input must either be loaded completely, or be refused with an error that gives the reason, without a change
of the optimizer. Any other error, a hang, or unpickled code is a finding.
"""

import argparse
import gc
import io
import itertools
import json
import os
import random
import struct
import sys
import tempfile
import types
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside
import numpy as np
import safetensors.numpy
from checkpoint_files import Evil, Raw, deep_schedule, header, npy, snapshot, zipped
from ml_dtypes import bfloat16
from places import DATA

import fastadam
from fastadam import schedules

FOUND = DATA / "fuzz"
META, SUMS = "fastadam.json", "fastadam.crc32"


# ---------------------------------------------------------------- the optimizers that load inputs


def function_of_t(t: int) -> float:
    return 0.1 / t


def arrays(*what: tuple[Any, Any]) -> list[np.ndarray]:
    return [np.ones(shape, dtype) for shape, dtype in what]


def named(more: dict[str, Any]) -> fastadam.Optimizer:
    w, b = arrays(((3, 4), "f4"), (5, "f8"))
    return fastadam.Adam({"W": w, "b": b}, lr=0.5, **more)


def grouped(more: dict[str, Any]) -> fastadam.Optimizer:
    half, brain, scalar = arrays(((3, 2), "f2"), ((2, 2), bfloat16), ((), "f4"))
    groups = [{"params": {"W": half.T}, "lr": schedules.cosine(0.1, 10)}, {"params": [brain, scalar], "eps": 1e-6}]
    return fastadam.AdamW(groups, amsgrad=True, master_weights=True, state_dtype="bfloat16", **more)


def alone(more: dict[str, Any]) -> fastadam.Optimizer:
    return fastadam.RMSprop(arrays((7, "f4"))[0], lr=function_of_t, momentum=0.9, centered=True, **more)


def oddly_named(more: dict[str, Any]) -> fastadam.Optimizer:
    a, b = arrays(((2, 1), "f4"), ((0, 3), "f8"))
    return fastadam.Adagrad({"a/b%\0\\": a, "": b}, lr=schedules.warmup(0.1, 5), **more)


def in_blocks(more: dict[str, Any]) -> fastadam.Optimizer:
    w, b = arrays(((20, 30), "f4"), (5, "f4"))
    return fastadam.Adam({"W": w.T, "b": b}, state_dtype="int8", min_8bit_size=6, **more)


VICTIMS: list[Callable[[dict[str, Any]], fastadam.Optimizer]] = [named, grouped, alone, oddly_named, in_blocks]
#: their numbers, as in inputs
DIGITS = "".join(map(str, range(len(VICTIMS))))


def made(number: int, steps: int, **more: Any) -> fastadam.Optimizer:
    opt = VICTIMS[number](more)
    grads = [np.ones_like(p) for p in inside.params(opt)]
    inside.bind(opt, grads)
    for t in range(steps):
        for g in grads:
            g[...] = 0.5 - t
        opt.step()
    return opt


# ---------------------------------------------------------------- loading and judging an input


class Finding(AssertionError):
    """A fault in loading."""


def check(data: bytes, folder: Path) -> bool:
    """Whether an input was loaded, in an empty folder. Raises a `Finding` if it was neither loaded nor refused
    properly."""
    kind, number = data[:1].decode("latin-1"), data[1:2].decode("latin-1")
    if kind not in LOADERS or not number or number not in DIGITS:
        return False
    return LOADERS[kind](int(number), data[2:], folder)


def loaded(load: Callable[[], Any], before: Callable[[], Any]) -> bool:
    """Whether the call of `load` succeeded. If not, it must raise an error with a message, and change nothing."""
    kept = before()
    try:
        load()
    except (ValueError, TypeError, OSError) as error:
        if not 0 < len(str(error)) < 4000:
            raise Finding(f"refused in {len(str(error))} characters") from error
        if before() != kept:
            raise Finding("refused, but something has changed") from error
        return False
    return True


def check_npz(number: int, payload: bytes, folder: Path) -> bool:
    return check_file(number, payload, folder / "given.npz", np.lib.npyio.NpzFile)


def check_safetensors(number: int, payload: bytes, folder: Path) -> bool:
    return check_file(number, payload, folder / "given.safetensors", safetensors.numpy.load_file)


def check_file(number: int, payload: bytes, path: Path, read: Callable[[Path], Mapping[str, np.ndarray]]) -> bool:
    opt = made(number, steps=1)
    path.write_bytes(payload)
    has_params = b"params/" in payload  # may be wrong for a damaged file, but that is refused anyway
    if not loaded(
        lambda: opt.load(path, params=None if has_params else False),
        lambda: (snapshot(opt), list(path.parent.iterdir())),
    ):
        return False
    check_arrays(opt, read(path))
    check_again(number, opt, path.with_stem("again"))
    return True


def check_dict(number: int, payload: bytes, folder: Path) -> bool:
    try:
        given = decoded(json.loads(payload))
    except (ValueError, RecursionError):
        return False
    opt = made(number, steps=1)
    if not loaded(lambda: opt.load_state_dict(given), lambda: snapshot(opt)):
        return False
    found = {inside.entry_of(key, name): a for key, arrays in given["state"].items() for name, a in arrays.items()}
    check_arrays(opt, found)
    try:
        check_again(number, opt, folder / "again.npz")
    except TypeError as error:
        if "cannot be stored as JSON" not in str(error):  # as `extra` of a group may be, which only a file refuses
            raise
    return True


def check_folder(number: int, payload: bytes, folder: Path) -> bool:
    states = folder / "states"
    states.mkdir()
    (states / "lock").touch()  # opening the folder would make this file
    try:
        for name, data in entries_of(payload).items():
            if "/" not in name and "\0" not in name and len(name) < 99:
                (states / name).write_bytes(data)
    except OSError:  # for a name such as ".."
        return False
    kept: list[fastadam.Optimizer] = []

    def load() -> None:
        kept.append(made(number, steps=0, state_dir=states))

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in states.iterdir()}

    is_new = META not in contents()
    if not loaded(load, lambda: is_new or contents()):
        return False
    check_again(number, kept.pop(), folder / "again.npz")
    made(number, steps=0, state_dir=states)  # after the step in `check_again`, the folder must be complete
    return True


LOADERS = {"n": check_npz, "s": check_safetensors, "d": check_dict, "f": check_folder}


def check_arrays(opt: fastadam.Optimizer, read: Mapping[str, np.ndarray]) -> None:
    """Check that the optimizer's arrays are those that another reader finds in the file."""
    for entry, array in inside.named_arrays(opt, params=any(name.startswith("params/") for name in read)).items():
        if read[entry].tobytes() != array.tobytes():
            raise Finding(f"{entry} was read as another")


def check_again(number: int, opt: fastadam.Optimizer, path: Path) -> None:
    """Check that a loaded state can be saved, loaded and stepped (unless its schedule has no valid rate)."""
    again = made(number, steps=2)
    opt.save(path, params=True)
    again.load(path)
    if snapshot(again) != snapshot(opt):
        raise Finding("saved and loaded again, it is another")
    loaded(opt.step, lambda: snapshot(opt))


# ---------------------------------------------------------------- arrays in JSON


DTYPES = {np.dtype(dtype).name: dtype for dtype in (bfloat16, "f2", "f4", "f8", "u1", "u2", "i8", "c8")}


def encoded(value: Any) -> Any:
    """A state_dict for `json.dumps`, with arrays as dicts."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "data": value.tobytes().hex()}
    if isinstance(value, (list, tuple)):
        return [encoded(part) for part in value]
    return {name: encoded(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def decoded(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"dtype", "shape", "data"}:
        try:
            dtype = DTYPES.get(str(value["dtype"]), "O")  # frombuffer refuses "O"
            return np.frombuffer(bytes.fromhex(value["data"]), dtype).reshape(value["shape"])
        except (ValueError, TypeError):
            return value
    if isinstance(value, list):
        return [decoded(part) for part in value]
    return {name: decoded(part) for name, part in value.items()} if isinstance(value, dict) else value


# ---------------------------------------------------------------- good inputs and mutations

NUMBERS = [0, 1, -1, 2, 3, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**62 - 1, 2**62, 2**63 - 1, 2**64 - 1, 10**400]
VALUES = [*NUMBERS, None, True, 0.5, 1e308, -0.0, float("nan"), float("inf"), "", "x", "\ud800", "\0", [], {}, [[]]]
VALUES += [{"function": "f"}, {"schedule": "join"}, deep_schedule(3), deep_schedule(40), "x" * 5000]
VALUES += [schedule.to_json() for schedule in (schedules.cosine(0.1, 9), schedules.inverse_sqrt(0.1))]
TYPES = [
    "<f4",
    "<f8",
    ">f4",
    "<f2",
    "<u2",
    "|u1",
    "|O",
    "|V4",
    "|S0",
    "M8[s]",
    "float33",
    [("x", "<f4")],
    Raw("-" * 9900),
    Raw("(0L"),
]
SHAPES = [(), (0,), (3, 4), (4, 3), (12,), (5,), (-5,), (2**40, 2**40), (2**62,), (1,) * 65, ("5",), 5, [5], (True,)]


def good(kind: str, number: int, params: bool, folder: Path) -> bytes:
    """The payload that an optimizer writes after three steps."""
    if kind == "f":
        states = folder / f"states{number}"
        made(number, 3, state_dir=states)
        return zipped({path.name: path.read_bytes() for path in states.iterdir()})
    opt = made(number, steps=3)
    if kind == "d":
        return json.dumps(encoded(opt.state_dict()), default=inside.encode).encode()
    path = folder / {"n": "good.npz", "s": "good.safetensors"}[kind]
    opt.save(path, params=params)
    return path.read_bytes()


def entries_of(data: bytes) -> dict[str, bytes]:
    """The entries of a zip, as far as it can be read."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.filename and info.file_size < 1 << 20:
                    found[info.filename] = archive.read(info)
    except Exception:  # zipfile raises many kinds; use the entries found so far
        return found
    return found


class Mutator:
    """Changes an input at meaningful places (entries, headers, JSON), and corrects the checksums."""

    def __init__(self, seed: int, bytes_of: Callable[[bytes], bytes]) -> None:
        self.random = random.Random(seed)
        self.bytes_of = bytes_of  # changes of bytes, by libFuzzer

    def __call__(self, data: bytes) -> bytes:
        change = {b"n": self.zip, b"f": self.zip, b"s": self.safetensors, b"d": self.json}.get(data[:1])
        if change is None or len(data) < 2 or self.random.random() < 0.2:
            return self.bytes_of(data)
        payload = data[2:]
        for _ in range(self.random.choice([1, 1, 2, 3])):
            payload = change(payload)
        number = self.random.choice(DIGITS.encode()) if self.random.random() < 0.03 else data[1]
        return data[:1] + bytes([number]) + payload

    def zip(self, payload: bytes) -> bytes:
        entries = entries_of(payload)
        if not entries or self.random.random() < 0.15:
            return self.field(payload)
        self.entry(entries)
        if self.random.random() < 0.5:
            relist(entries)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of two entries of one name
            payload = zipped(entries, compression=self.random.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))
        return self.field(payload) if self.random.random() < 0.1 else payload

    def field(self, payload: bytes) -> bytes:
        """Change a number after one of a zip's signatures."""
        places = [at for mark in (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6") for at in all_places(payload, mark)]
        if not places:
            return self.bytes_of(payload)
        at, size = self.random.choice(places) + self.random.randrange(4, 46), self.random.choice("BHI")
        value = self.random.choice(NUMBERS[:-1]) % 256 ** struct.calcsize(size)
        return payload[:at] + struct.pack("<" + size, value) + payload[at + struct.calcsize(size) :]

    def entry(self, entries: dict[str, bytes]) -> None:
        name, other = (self.random.choice(list(entries)) for _ in range(2))
        act = self.random.randrange(10)
        if act == 0:
            del entries[name]
        elif act == 1:
            entries[self.random.choice(["../x", "x\0y", "x" * 300, name + "y", name.upper()])] = entries[name]
        elif act == 2:
            entries[name], entries[other] = entries[other], entries[name]
        elif act == 3:
            entries[name] = self.bytes_of(entries[name])
        elif act == 4:
            entries[name] = entries[name][: self.random.randrange(len(entries[name]) + 1)]
        elif act == 5:
            entries[name] = npy(np.full(2, Evil()), allow_pickle=True)
        elif act <= 7 and META in entries:  # a folder's
            entries[META] = self.json(entries[META])
        elif act <= 7 and f"{META}.npy" in entries:
            told = entries[f"{META}.npy"]
            entries[f"{META}.npy"] = npy(np.frombuffer(self.json(told[told.find(b"{", 80) :]), np.uint8))
        else:
            entries[name] = self.array(entries[name])

    def array(self, data: bytes) -> bytes:
        """An ``.npy`` file with another header or other numbers."""
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception:  # NumPy's are many: it is no array any more
            return self.bytes_of(data)
        if array.size > len(data):  # of elements without a byte, more than memory can count
            return self.bytes_of(data)
        if self.random.random() < 0.3:
            special = np.resize(np.array(NUMBERS[:13], np.int64), array.shape).astype(array.dtype)
            return npy(special if self.random.random() < 0.5 else np.asfortranarray(array))
        kind = self.random.choice(TYPES) if self.random.random() < 0.5 else array.dtype.str
        shape = self.random.choice(SHAPES) if self.random.random() < 0.5 else array.shape
        order, version = self.random.choice([False, False, True, 1, "C"]), self.random.choice([b"\1\0"] * 5 + [b"\2\0"])
        return header(kind, shape, array.tobytes(), order, version)

    def safetensors(self, payload: bytes) -> bytes:
        """Change the header or the numbers, with correct checksums or not."""
        try:
            (size,) = struct.unpack_from("<Q", payload)
            told = json.loads(payload[8 : 8 + size])
            body, texts = payload[8 + size :], told["__metadata__"]
            act = self.random.randrange(6)
            if act == 0:
                body = self.bytes_of(body)
            elif act <= 2:
                texts[META] = self.json(texts[META].encode()).decode()
            elif act == 3:
                texts[SUMS] = self.json(texts[SUMS].encode()).decode()
            else:
                told = json.loads(self.json(json.dumps(told).encode()))
            if act != 3 and self.random.random() < 0.9:
                spans = {name: entry["data_offsets"] for name, entry in told.items() if name != "__metadata__"}
                sums = {name: zlib.crc32(body[begin:end]) for name, (begin, end) in spans.items()}
                texts[SUMS] = json.dumps(sums | {META: zlib.crc32(texts[META].encode())})
            text = json.dumps(told).encode()
        except Exception:  # whatever it was changed to before: it is no such file any more
            return self.bytes_of(payload)
        return struct.pack("<Q", len(text)) + text + body

    def json(self, text: bytes) -> bytes:
        """Change a value, a key or the order in a JSON text."""
        try:
            root = [json.loads(text)]
            places = list(places_of(root))
            where, key = self.random.choice(places)
            whence, other = self.random.choice(places)
            act = self.random.randrange(6)
            if act == 0:
                where[key] = whence[other]
            elif act == 1 and where is not root:
                del where[key]
            elif act == 2 and isinstance(where, dict):
                where[self.random.choice([*where, "", "x", "__proto__", "t", "0"])] = where.pop(key)
            elif act == 3 and isinstance(where[key], (int, float)):
                where[key] += self.random.choice([-1, 1, 0.5])
            elif act == 4 and isinstance(where[key], str):
                where[key] = self.bytes_of(where[key].encode()).decode("latin-1")
            else:
                where[key] = self.random.choice(VALUES)
            return json.dumps(root[0]).encode()
        except (ValueError, RecursionError, OverflowError):  # no JSON, or it holds itself now
            return self.bytes_of(text)


def relist(entries: dict[str, bytes]) -> None:
    """Let the description of an .npz file list the entries that it has."""
    try:
        told = json.loads(np.load(io.BytesIO(entries[f"{META}.npy"])).tobytes())
        told["entries"] = [name.removesuffix(".npy") for name in entries if name != f"{META}.npy"]
        entries[f"{META}.npy"] = npy(np.frombuffer(json.dumps(told).encode(), np.uint8))
    except Exception:  # a folder's, or it was changed before: it is no such description any more
        return


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree of dicts and lists: the container, and the key or index."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places_of(value[key])


def all_places(data: bytes, part: bytes) -> Iterator[int]:
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


# ---------------------------------------------------------------- the run


def instrument(*modules: str) -> None:
    """Instrument these modules, so that libFuzzer sees which branches run."""
    for function in [f for f in gc.get_objects() if isinstance(f, types.FunctionType) and f.__module__ in modules]:
        atheris.instrument_func(function)


def refuse_pickles() -> None:
    """Abort the process if anything is unpickled by name. An exception might be caught."""

    def hook(event: str, args: Any) -> None:
        if event == "pickle.find_class":
            print(f"== unpickled {args} ==", file=sys.stderr, flush=True)
            os.abort()

    sys.addaudithook(hook)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long to look for findings")
    parser.add_argument("--corpus", type=Path, help="a folder to keep inputs of new ways through the code in")
    asked = parser.parse_args()
    instrument(*inside.LOADERS, "json.decoder")
    instrument("numpy.lib._format_impl", "numpy.lib.format")
    refuse_pickles()
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # more is a MemoryError: a finding
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        corpus = asked.corpus or Path(work) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for kind, number, params in itertools.product(LOADERS, range(len(VICTIMS)), (False, True)):
            data = f"{kind}{number}".encode() + good(kind, number, params, Path(work))
            (corpus / f"good-{kind}{number}-{params}").write_bytes(data)

        def run(data: bytes) -> None:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                check(data, Path(folder))

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            return Mutator(seed, lambda part: atheris.Mutate(part, max(len(part) + 64, 64)))(data)[:max_size]

        flags = [f"-max_total_time={asked.seconds}", "-timeout=20", "-max_len=65536", f"-artifact_prefix={FOUND}/"]
        atheris.Setup([sys.argv[0], *flags, str(corpus), str(FOUND)], run, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    import resource  # Windows does not have it

    import atheris

    main()
