"""States in a folder: refusals, the state after a failure, and states larger than memory.
`test_checkpoint.py` tests that a run continues from a folder bit for bit.
"""

import copy
import errno
import itertools
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from checkpoint_files import B, Change, W, built, command, entry, mapped, npy, run
from places import ROOT

import fastadam

# ---------------------------------------------------------------- a folder of states

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has other modes and links")


def in_folder(folder: Path, cls: Any = fastadam.Adam, params: Any = None, **more: Any) -> fastadam.Optimizer:
    return cls({"W": W.copy(), "b": B.copy()} if params is None else params, state_dir=folder, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an Adam over {"W": 3 x 4 float32, "b": 5 float64}, after two steps."""
    opt = in_folder(tmp_path / "a" / "states")
    for _ in range(2):
        opt.step({"W": W, "b": B})
    return tmp_path / "a" / "states"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folder_holds_plain_arrays(folder: Path) -> None:
    opt = in_folder(str(folder))
    assert sorted(os.listdir(folder)) == ["fastadam.json", "lock", "states.bin"]
    arrays = inside.folder_arrays(folder)
    assert list(arrays) == ["steps", "0.m", "0.v", "1.m", "1.v"]
    assert arrays["steps"].tolist() == [0, 2, 0, 2, 2]
    for k, name in itertools.product(range(2), "mv"):
        array = arrays[f"{k}.{name}"]
        assert array.ctypes.data % 64 == opt.state[name][k].ctypes.data % 64 == 0
        np.testing.assert_array_equal(array, opt.state[name][k])
        assert array.dtype == inside.params(opt)[k].dtype
        assert array.any()


FOREIGN = {
    "optimizer: expected 'AdamW', got 'Adam'": lambda at: in_folder(at, fastadam.AdamW),
    "optimizer: expected 'Adamax'": lambda at: in_folder(at, fastadam.Adamax),
    "rules: expected ['amsgrad'], got ['adam']": lambda at: in_folder(at, amsgrad=True),
    "params: expected [['0', [3, 4]": lambda at: in_folder(at, params=[W.copy(), B.copy()]),
    "params: expected [['b', [5], 'float64'], ['W'": lambda at: in_folder(at, params={"b": B.copy(), "W": W.copy()}),
    "params: expected [['W', [4, 3], ": lambda at: in_folder(at, params={"W": W.T.copy(), "b": B.copy()}),
    "params: expected [['W', [3, 4], 'float64']": lambda at: in_folder(at, params={"W": W.astype("f8"), "b": B.copy()}),
    "params: expected [['W', [3, 4], 'float32']], got": lambda at: in_folder(at, params={"W": W.copy()}),
    "rules: expected ['adam', 'adam'], got ['adam']": lambda at: in_folder(
        at, params=[{"params": {"W": W.copy()}}, {"params": {"b": B.copy()}}]
    ),
    "params: expected [['W', [3, 4], 'float32'], ['b', [5], 'float32']], got": lambda at: in_folder(
        at, params={"W": W.copy(), "b": B.astype("f4")}
    ),
    "master_weights: expected True, got False": lambda at: in_folder(at, master_weights=True),
}  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN)
def test_folder_of_another_optimizer(text: str, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match=re.escape(f"state_dir: {folder / 'fastadam.json'}: {text}")):
        FOREIGN[text](folder)
    assert contents(folder) == before


def test_folder_of_states_in_other_bits(tmp_path: Path) -> None:
    in_folder(tmp_path, params=W.copy())
    with pytest.raises(
        ValueError, match=re.escape("state_dtype: expected [{'m': 'bfloat16', 'v': 'bfloat16'}], got [")
    ):
        in_folder(tmp_path, params=W.copy(), state_dtype="bfloat16")


def file(name: str, data: bytes | Callable[[bytes], bytes] | None) -> Change:
    """Other bytes in a file of the folder, or none."""

    def rewrite(folder: Path) -> None:
        path = folder / name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data(path.read_bytes()) if callable(data) else data)

    return rewrite


def counts(*values: int) -> Change:
    def rewrite(folder: Path) -> None:
        inside.folder_arrays(folder, "r+")["steps"][...] = values

    return rewrite


def told(change: Callable[[Any], Any]) -> Change:
    """The same folder, its description changed."""

    def rewrite(data: bytes) -> bytes:
        change(description := json.loads(data))
        return json.dumps(description).encode()

    return file(META, rewrite)


def row(place: int, value: Any) -> Change:
    """The same folder, its first state described in another way."""
    return told(lambda about: about["arrays"][1].__setitem__(place, value))


META = "fastadam.json"
FOLDERS: list[tuple[str, Change, Any, str]] = [
    ("within a step", counts(1, 2, 0, 2, 2), ValueError, "a process ended within step 3 or a load, so these"),
    ("negative t", counts(0, -1, 0, -1, -1), ValueError, "states.bin: not counts of steps: [-1, 0, -1, -1]"),
    ("negative skipped", counts(0, 2, -1, 2, 2), ValueError, "states.bin: not counts of steps: [2, -1, 2, 2]"),
    ("parameter beyond t", counts(0, 2, 0, 2, 3), ValueError, "states.bin: not counts of steps: [2, 0, 2, 3]"),
    ("parameter before 0", counts(0, 2, 0, -1, 2), ValueError, "states.bin: not counts of steps: [2, 0, -1, 2]"),
    ("no arrays", file("states.bin", None), FileNotFoundError, "states.bin"),
    *((f"{k} tenths", file("states.bin", lambda m, k=k: m[: 32 * k]), ValueError, f"got {32 * k}") for k in range(10)),
    ("too long", file("states.bin", lambda data: data + b"x"), ValueError, "states.bin: expected 320 bytes, got 321"),
    ("another array", told(lambda about: about["arrays"].pop()), ValueError, "arrays: expected [['steps', "),
    ("name", row(0, "0.x"), ValueError, "['0.x', 'float32', [3, 4]]"),
    ("dtype", row(1, "float16"), ValueError, "['0.m', 'float16', [3, 4]]"),
    ("shape", row(2, [2**40] * 2), ValueError, "['0.m', 'float32', [1099511627776, 1099511627776]]"),
    ("order", row(3, "K"), ValueError, "an order, 'C' or 'F'"),
    ("no order", told(lambda about: about["arrays"][1].pop()), ValueError, "an order, 'C' or 'F'"),
    ("arrays that are none", told(lambda about: about.update(arrays=7)), ValueError, "an order, 'C' or 'F'"),
    ("byte order", told(lambda about: about.update(byte_order="middle")), ValueError, "byte_order: expected"),
    ("long description", file(META, b" " * (2 << 20)), ValueError, "bytes, which no description of these states takes"),
    ("empty description", file(META, b""), ValueError, "fastadam.json: not a description of states"),
    ("half a description", file(META, lambda data: data[:50]), ValueError, "fastadam.json: not a description"),
    ("description in no UTF-8", file(META, b'{"version": "\xff"}'), ValueError, "not a description of states"),
    ("deep description", file(META, b"[" * 100_000), ValueError, "fastadam.json: not a description of states"),
    ("description of another kind", file(META, b"[1, 2]"), ValueError, "fastadam.json: expected a dict, got list"),
    ("nothing said", file(META, b"{}"), ValueError, "fastadam.json: version: expected 3, got None"),
    ("version", told(lambda about: about.update(version=99)), ValueError, "version: expected 3, got 99"),
    ("old version", told(lambda about: about.update(version=2)), ValueError,
     "expected 3, got 2; open the folder with the version of fastadam that wrote it and save()"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), [row[1:] for row in FOLDERS], ids=[row[0] for row in FOLDERS])
def test_damaged_folder(
    change: Change, error: Any, text: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change(folder)
    before = contents(folder)
    with pytest.raises(error, match=re.escape(str(folder))) as raised:
        in_folder(folder)
    assert text in str(raised.value)
    assert len(str(raised.value)) < 2500
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["a"]  # nothing was unpickled


def test_killed_within_a_step_of_a_folder(tmp_path: Path) -> None:
    ended = subprocess.run(command("die_in_a_step", tmp_path), check=False)
    assert ended.returncode == -signal.SIGKILL

    def update(p, g, b, lr):
        return p, b

    rule = fastadam.optimizer(update, lambda t, lr: (lr,), ["b"], lr=0.1)
    with pytest.raises(ValueError, match="a process ended within step 3 or a load"):
        rule(np.ones(5), backend="numpy", state_dir=tmp_path)


def test_refused_step_leaves_the_record_clean(folder: Path) -> None:
    opt = in_folder(folder)
    before = contents(folder)
    for bad in ({"W": W}, {"W": W, "b": np.ones(6)}, {"W": W, "b": "b"}, {"W": W, "b": inside.params(opt)[1]}):
        with pytest.raises((TypeError, ValueError)):
            opt.step(bad)
        assert contents(folder) == before
    opt.lr = lambda t: 1 / 0
    with pytest.raises(ZeroDivisionError):
        opt.step({"W": W, "b": B})
    assert contents(folder) == before
    opt.lr = 1e-3
    opt.step({"W": W, "b": np.full(5, np.inf)}, skip_nonfinite=True)
    opt.close()
    assert in_folder(folder).t == 2
    assert in_folder(folder).skipped == 1


def test_step_that_fails_on_its_way_leaves_the_record_open(tmp_path: Path) -> None:
    """Of a rule in Python, whose states may be those of two steps then."""
    failing = False

    def update(p: Any, g: Any, b: Any, lr: Any) -> Any:
        if failing:
            raise KeyboardInterrupt
        return p - lr * g, b + g

    rule = fastadam.optimizer(update, lambda t, lr: (lr,), ["b"], lr=0.1)
    opt = rule(np.ones(5), backend="numpy", state_dir=tmp_path)
    opt.step(np.ones(5))
    failing = True
    with pytest.raises(KeyboardInterrupt):
        opt.step(np.ones(5))
    opt.close()
    with pytest.raises(ValueError, match="a process ended within step 2"):
        rule(np.ones(5), backend="numpy", state_dir=tmp_path)


def test_step_refused_within_a_step_leaves_that_ones_record(tmp_path: Path) -> None:
    """A second thread's: the first is still on its way."""
    within, refused = threading.Event(), threading.Event()

    def update(p: Any, g: Any, b: Any, lr: Any) -> Any:
        if armed:
            within.set()
            assert refused.wait(60)
        return p - lr * g, b + g

    armed = False
    rule = fastadam.optimizer(update, lambda t, lr: (lr,), ["b"], lr=0.1)
    opt = rule(np.ones(5), backend="numpy", state_dir=tmp_path)
    armed = True
    first = threading.Thread(target=opt.step, args=(np.ones(5),))
    first.start()
    assert within.wait(60)
    with pytest.raises(RuntimeError, match="another thread is inside a step"):
        opt.step(np.ones(5))
    assert inside.folder_arrays(tmp_path)["steps"][0] == 1
    refused.set()
    first.join()
    np.testing.assert_array_equal(inside.folder_arrays(tmp_path)["steps"], [0, 1, 0, 1])


def test_a_step_that_failed_within_is_not_forgotten(tmp_path: Path) -> None:
    """The first chunk is stepped when the rule fails in the second."""
    fails = False

    def update(p: Any, g: Any, lr: Any) -> Any:
        if fails and not p.all():
            raise ZeroDivisionError
        return (p - lr * g,)

    sgd = fastadam.optimizer(update, lambda t, lr: (lr,), (), lr=0.5)
    p, g = np.ones(70_000), np.ones(70_000)
    opt = sgd(p, backend="numpy", state_dir=tmp_path)
    good = opt.state_dict()
    p[-1] = 0
    fails = True
    with pytest.raises(ZeroDivisionError):
        opt.step(g)
    assert (p[0], p[-1]) == (0.5, 0)
    fails = False
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"a step failed half-way.*; load a checkpoint"):
            opt.step(g)
    for call in (lambda: opt.save(tmp_path / "a.npz"), opt.state_dict, lambda: copy.deepcopy(opt)):
        with pytest.raises(RuntimeError, match="a step failed half-way"):  # what it has counts for nothing
            call()
    assert (opt.t, p[0]) == (0, 0.5)
    opt.load_state_dict(good)
    with pytest.raises(ValueError, match="expected shape"):
        opt.step(np.ones(3))
    opt.step(g)
    opt.close()
    assert sgd(p, backend="numpy", state_dir=tmp_path).t == 1


def test_construction_that_is_refused_leaves_the_folder_new(tmp_path: Path) -> None:
    w = np.ones(3)
    with pytest.raises(ValueError, match="gradient of params: shares memory with a parameter"):
        fastadam.Adam(w, grads=w, state_dir=tmp_path)
    opt = fastadam.Adam([w, np.ones(2)], state_dir=tmp_path)  # others than those that were refused
    opt.step([w * 1, np.ones(2)])
    opt.close()
    with pytest.raises(ValueError, match="gradient of params"):
        fastadam.Adam([w, np.ones(2)], grads=[w, w[:2]], state_dir=tmp_path)
    assert fastadam.Adam([w, np.ones(2)], state_dir=tmp_path).t == 1


def test_load_is_recorded_in_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built().save(tmp_path / "state.npz", params=True)
    opt = in_folder(folder)
    before = contents(folder)
    with pytest.raises(ValueError, match="expected 'Adamax'"):
        fastadam.Adamax({"W": W.copy(), "b": B.copy()}).load(tmp_path / "state.npz")
    entry("v/b", npy(np.ones(6)))(tmp_path / "state.npz")
    with pytest.raises(ValueError, match="v/b: expected shape"):
        opt.load(tmp_path / "state.npz")
    assert contents(folder) == before
    built().save(tmp_path / "state.npz", params=True)
    opt.load(tmp_path / "state.npz")
    opt.close()
    opt = in_folder(folder)  # before any step
    assert opt.t == 3
    np.testing.assert_array_equal(opt.state["v"][0], built().state["v"][0])
    copyto, calls = np.copyto, []

    def interrupted(*arrays: Any) -> None:
        calls.append(arrays)
        if len(calls) == 2:
            raise KeyboardInterrupt
        copyto(*arrays)

    monkeypatch.setattr(np, "copyto", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.load(tmp_path / "state.npz")
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match="a process ended within step 4 or a load"):
        in_folder(tmp_path / "copy")
    opt.load_state_dict(built().state_dict())  # which is the way out
    opt.close()
    assert in_folder(folder).t == 3


def test_full_disk_at_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said while nothing has happened; left as it is, a page without room on the disk would end the process."""
    kinds = []

    def reserve(handle: int, offset: int, size: int) -> None:
        raise OSError(kinds[-1], os.strerror(kinds[-1]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", reserve)
        kinds.append(errno.ENOSPC)
        with pytest.raises(OSError, match=f"No space left on device: '{re.escape(str(tmp_path))}"):
            in_folder(tmp_path)
        assert os.listdir(tmp_path) == ["lock"]  # what was reserved is given back
        kinds.append(errno.EOPNOTSUPP)  # a file system that cannot reserve is used without
        in_folder(tmp_path / "other").step({"W": W, "b": B})
    opt = in_folder(tmp_path)
    assert opt.t == 0
    assert os.stat(tmp_path / "states.bin").st_blocks * 512 >= 2 * (W.nbytes + B.nbytes)


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers of descriptors are read from /proc")
def test_a_folder_needs_two_descriptors(tmp_path: Path) -> None:
    """One for the lock, and one for the mapping of all arrays."""
    assert run("many_states", tmp_path / "states", 20_000).stdout.splitlines() == ["0: 2 more", "2: 2 more", "right"]


@posix
def test_modes_are_those_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        in_folder(tmp_path / "private" / "states")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "private").rglob("*")}
    assert modes == {"states": 0o700, META: 0o600, "lock": 0o600, "states.bin": 0o600}


@posix
def test_links_that_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    loop, dangling = tmp_path / "loop", tmp_path / "dangling"
    loop.symlink_to("loop")
    dangling.symlink_to("nothing")
    for path in (loop, loop / "states"):
        with pytest.raises(OSError, match=re.escape(str(path))) as raised:
            in_folder(path)
        assert raised.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError, match=re.escape(str(dangling))):
        in_folder(dangling)
    assert sorted(os.listdir(tmp_path)) == ["a", "dangling", "loop"]
    data = (folder / "states.bin").read_bytes()
    for name in (META, "states.bin", "lock"):
        kept = (folder / name).rename(tmp_path / "kept")
        (folder / name).symlink_to(name)
        with pytest.raises(OSError, match="levels of symbolic links"):
            in_folder(folder)
        kept.replace(folder / name)
    assert (folder / "states.bin").read_bytes() == data
    assert in_folder(folder).t == 2


def test_a_new_folder_leaves_arrays_that_are_still_mapped(folder: Path) -> None:
    """Of an optimizer before it. If their file became shorter, to read them would end the process."""
    opt = in_folder(folder)
    opt.close()
    (folder / META).unlink()
    before = [array.copy() for array in opt.state["m"]]
    in_folder(folder, params=np.ones(1)).step(np.ones(1))
    for array, then in zip(opt.state["m"], before, strict=True):
        np.testing.assert_array_equal(array, then)


def test_copy_of_states_in_a_folder_is_in_memory(folder: Path) -> None:
    opt = in_folder(folder)
    before = contents(folder)
    for copied in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        again = copied(opt)
        assert not any(mapped(array) for arrays in again.state.values() for array in arrays)
        again.step({"W": W, "b": B})
        assert (opt.t, again.t) == (2, 3)
        again.add_param_group({"params": np.ones(2)})
    assert contents(folder) == before
    with pytest.raises(ValueError, match="states are kept in a folder; make a new one with all of its groups"):
        opt.add_param_group({"params": np.ones(2)})


def test_folder_is_of_one_optimizer(folder: Path) -> None:
    """Until that one is gone, or closed; and one that failed to be made, or a lock file that was left, is none."""
    in_use = re.escape(f"state_dir: {folder}: another optimizer uses this folder, in this process or another")
    opt = in_folder(folder)
    before = contents(folder)
    with pytest.raises(RuntimeError, match=in_use) as kept:
        in_folder(folder)
    assert contents(folder) == before
    opt.step({"W": W, "b": B})
    del opt
    with pytest.raises(ValueError, match="expected 'AdamW', got 'Adam'") as refused:
        in_folder(folder, fastadam.AdamW)
    params = {"W": W.copy(), "b": B.copy()}
    with pytest.raises(ValueError, match="gradient of params") as unbound:
        in_folder(folder, params=params, grads=params)
    opt = in_folder(folder)
    assert opt.t == 3
    assert [kept, refused, unbound]  # their tracebacks live on


def test_closed_folder(folder: Path) -> None:
    opt, copied = in_folder(folder), copy.deepcopy(in_folder(folder.parent / "other"))
    group = opt.param_groups[0]
    opt.close()
    opt.close()
    before = contents(folder)
    for call in (
        lambda: opt.step({"W": W, "b": B}),
        opt.state_dict,
        lambda: opt.save(folder.parent / "a.npz"),
        lambda: opt.load(folder.parent / "a.npz"),
        lambda: copy.deepcopy(opt),
        lambda: pickle.dumps(opt),
    ):
        with pytest.raises(RuntimeError, match=re.escape(f"state_dir: {folder}: was closed")):
            call()
    assert contents(folder) == before
    assert (opt.t, group["lr"]) == (2, 1e-3)
    assert in_folder(folder).t == 2
    copied.close()  # there is nothing to close
    copied.step({"W": W, "b": B})


def test_folder_stays_locked_within_a_step(folder: Path) -> None:
    opt = in_folder(folder)
    opt.lr = lambda t: opt.close() or 0.1
    with pytest.raises(RuntimeError, match="inside a step"):
        opt.step({"W": W, "b": B})
    with pytest.raises(RuntimeError, match="another optimizer uses this folder"):
        in_folder(folder)


HOLD = """
import sys
import numpy as np, fastadam
opt = fastadam.Adam({"W": np.ones((3, 4), "f4"), "b": np.ones(5)}, state_dir=sys.argv[1])
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_folder_of_another_process(end: str, folder: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RuntimeError, match="another optimizer uses this folder"):
            in_folder(folder)
        if end == "kill":
            other.kill()
        else:
            other.stdin.close()
        other.wait(60)
        assert in_folder(folder).t == 2


def test_file_system_without_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: int) -> Callable[[int], None]:
        def lock(handle: int) -> None:
            raise OSError(error, os.strerror(error))

        return lock

    inside.replace_lock(monkeypatch, fails(errno.ENOLCK))
    assert in_folder(folder).t == 2
    inside.replace_lock(monkeypatch, fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        in_folder(folder)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "states").touch()
    with pytest.raises(FileExistsError):
        in_folder(tmp_path / "states")


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds processes to a limit of memory")


@linux
def test_states_beyond_a_limit_of_memory(tmp_path: Path) -> None:
    """States of 256 MiB in a process that may have 124 MiB: they fail without a folder; in one all goes well."""
    assert run("within_limit", tmp_path).stdout.splitlines() == [
        "MemoryError: Unable to allocate 128. MiB for an array with shape (128, 262144) and data type float32",
        "goes on from 3",
        "right: True",
        "loaded: 2 True",
    ]


@linux
def test_example_of_states_beyond_a_limit(tmp_path: Path) -> None:
    example = [sys.executable, str(ROOT / "examples" / "larger_than_memory.py")]
    said = subprocess.run(
        [*example, "--size=32", "--memory=24"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for text in (
        "memory: 24 MiB more than now",
        "without state_dir: MemoryError: Unable to allocate 32.0 MiB",
        "steps 1 to 3 done",
        "steps 4 to 6 done",
        "where a small array's would be: True",
    ):
        assert text in said
    assert not os.listdir(tmp_path)
    helped = subprocess.run([*example, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--memory MEMORY" in helped
