"""Folders of memory-mapped states, for plain arrays: who may use one, what is kept, and what is refused."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest

from fastadam.state.folder import Folder, Slot

W, B = np.ones((3, 4), np.float32), np.asfortranarray(np.ones((2, 5)))
ABOUT = {"optimizer": "Adam", "params": [["W", [3, 4], "float32"], ["b", [2, 5], "float64"]], "master_weights": False}


SLOTS = [
    Slot("steps", np.dtype(np.int64), (5,)),
    Slot("0.m", W.dtype, W.shape),
    Slot("1.m", B.dtype, B.shape, "F"),
    Slot("2.m", W.dtype, (0, 3)),
]


def opened(path: Path, about: Any = ABOUT, slots: Any = SLOTS) -> Folder:
    return Folder(path, about, slots)


def arrays(folder: Folder) -> list[np.ndarray]:
    return folder.arrays[1:3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder of two steps, of which W missed one."""
    folder = opened(tmp_path / "a" / "states")
    for array in arrays(folder):
        array[...] = 7
    folder.arrays[0][1:] = 2, 1, 1, 2
    folder.commit()
    folder.close()
    return tmp_path / "a" / "states"


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_new_folder_is_zeros(tmp_path: Path) -> None:
    folder = opened(tmp_path / "new")
    assert folder.is_new
    assert folder.arrays[0].tolist() == [0] * 5
    assert folder.arrays[0].dtype == np.int64
    m, other = arrays(folder)
    assert not m.any()
    assert (m.flags.c_contiguous, other.flags.f_contiguous) == (True, True)
    assert folder.arrays[3].shape == (0, 3)
    assert all(array.ctypes.data % 64 == 0 for array in folder.arrays)
    assert not (tmp_path / "new" / "fastadam.json").exists()
    folder.commit()
    assert not folder.is_new
    assert json.loads((tmp_path / "new" / "fastadam.json").read_bytes()) == {
        "version": 3,
        "byte_order": sys.byteorder,
        **ABOUT,
        "arrays": [
            ["steps", "int64", [5], "C"],
            ["0.m", "float32", [3, 4], "C"],
            ["1.m", "float64", [2, 5], "F"],
            ["2.m", "float32", [0, 3], "C"],
        ],
    }


def test_states_outlive_who_made_them(path: Path) -> None:
    folder = opened(path)
    assert not folder.is_new
    assert folder.arrays[0].tolist() == [0, 2, 1, 1, 2]
    assert all((array == 7).all() for array in arrays(folder))
    seen = inside.folder_arrays(path)
    np.testing.assert_array_equal(seen["1.m"], np.full((2, 5), 7))
    arrays(folder)[0][...] = 8
    folder.arrays[0][1] = 3
    assert seen["0.m"].max() == 8
    assert seen["steps"][1] == 3


def test_arrays_keep_the_order_with_which_they_were_made(path: Path) -> None:
    other = [slot._replace(order="F" if slot.order == "C" else "C") for slot in SLOTS]
    assert [array.flags.f_contiguous for array in arrays(opened(path, slots=other))] == [False, True]


def test_states_in_bfloat16_are_their_bits(tmp_path: Path) -> None:
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    slots = [SLOTS[0], Slot("0.m", bfloat16, (3, 4))]
    folder = opened(tmp_path, slots=slots)
    folder.arrays[1][...] = 1.5
    folder.commit()
    folder.close()
    assert (opened(tmp_path, slots=slots).arrays[1] == 1.5).all()
    assert inside.folder_arrays(tmp_path)["0.m"].dtype == bfloat16


def test_uncommitted_folder_is_new_again(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    arrays(folder)[0][...] = 3
    folder.close()
    folder = opened(tmp_path, {"optimizer": "AdamW"}, SLOTS[:2])
    assert folder.is_new
    assert not folder.arrays[1].any()
    folder.commit()
    folder.undo()
    folder.close()
    assert opened(tmp_path).is_new


def test_undo_leaves_what_was_there(path: Path) -> None:
    before = contents(path)
    folder = opened(path)
    folder.commit()
    folder.undo()
    assert contents(path) == before


# ---------------------------------------------------------------- who may use it


def test_one_at_a_time(path: Path) -> None:
    folder = opened(path)
    in_use = re.escape(f"state_dir: {path}: another optimizer uses this folder, in this process or another")
    with pytest.raises(RuntimeError, match=in_use):
        opened(path)
    del folder
    with pytest.raises(ValueError, match="optimizer: expected 'AdamW', got 'Adam'") as kept:
        opened(path, {**ABOUT, "optimizer": "AdamW"})
    assert not opened(path).is_new  # although the traceback lives on
    assert kept


def test_close_tells_its_owner_once(path: Path) -> None:
    folder, told = opened(path), []
    folder.on_leave = told.append
    folder.close()
    folder.close()
    assert told == [f"state_dir: {path}: was closed"]
    opened(path)


def test_owner_that_refuses_keeps_the_folder(path: Path) -> None:
    def refuse(reason: str) -> None:
        raise RuntimeError("inside a step")

    folder = opened(path)
    folder.on_leave = refuse
    with pytest.raises(RuntimeError, match="inside a step"):
        folder.close()
    with pytest.raises(RuntimeError, match="another optimizer uses this folder"):
        opened(path)
    folder.on_leave = None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forked_child_is_told_and_the_parent_keeps_the_lock(path: Path) -> None:
    folder, told = opened(path), []
    folder.on_leave = told.append
    child = os.fork()
    if child == 0:
        right = len(told) == 1 and "those of the process that this one was forked from; make the" in told[0]
        folder.close()  # there is nothing left to close
        os._exit(0 if right and len(told) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert told == []
    with pytest.raises(RuntimeError, match="another optimizer uses this folder"):
        opened(path)


# ---------------------------------------------------------------- what is refused


def file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(change((path / name).read_bytes())) and None


def counts(*values: Any) -> Callable[[Path], None]:
    return lambda path: inside.folder_arrays(path, "r+")["steps"].__setitem__(..., values)


REFUSED = [
    ("under way", counts(1, 2, 0, 2, 2), "a process ended within step 3 or a load, so these states are of two steps"),
    ("negative t", counts(0, -1, 0, 0, 0), "states.bin: not counts of steps: [-1, 0, 0, 0]; expected"),
    ("negative skipped", counts(0, 2, -1, 2, 2), "not counts of steps: [2, -1, 2, 2]"),
    ("beyond t", counts(0, 2, 0, 2, 3), "not counts of steps: [2, 0, 2, 3]"),
    ("below 0", counts(0, 2, 0, -1, 2), "not counts of steps: [2, 0, -1, 2]"),
    ("description that is none", file("fastadam.json", lambda data: data[:9]), "json: not a description of states"),
    ("nothing said", file("fastadam.json", lambda data: b"{}"), "fastadam.json: version: expected 3, got None"),
    ("version 1", file("fastadam.json", lambda data: data.replace(b": 3", b": 2")), "expected 3, got 2; open"),
    ("master weights", file("fastadam.json", lambda data: data.replace(b"false", b"true")), "expected False, got True"),
    ("shape", file("fastadam.json", lambda data: data.replace(b"[3, 4], ", b"[4, 3], ")), "expected [['W', [3, 4]"),
    ("cut", file("states.bin", lambda data: data[:-1]), "states.bin: expected 256 bytes, got 255"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(change: Any, text: str, path: Path) -> None:
    change(path)
    before = contents(path)

    def use() -> None:
        folder = opened(path)
        try:
            arrays(folder)
        finally:
            folder.close()

    with pytest.raises(ValueError, match=re.escape(text)) as raised:
        use()
    assert str(raised.value).startswith(f"state_dir: {path}")
    assert contents(path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_by_name(path: Path) -> None:
    (path / "states.bin").unlink()
    os.mkfifo(path / "states.bin")
    with pytest.raises(ValueError, match=r"states\.bin: expected 256 bytes, got 0"):
        opened(path)
