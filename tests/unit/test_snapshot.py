"""Snapshots of plain arrays: their description, what fits, and what is refused. No optimizer is needed."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import put

from fastadam import schedules
from fastadam.state import files, snapshot
from fastadam.state.mismatch import Mismatch
from fastadam.state.snapshot import Fit, Loaded, Snapshot

SUFFIXES = (".npz", ".safetensors")


def made(fill: float = 1.0, lr: Any = 0.5, t: int = 3) -> Snapshot:
    """Two groups: W and b, which has missed a step; and c, which has no state."""
    state = {
        "W": {"m": np.full((2, 3), fill, np.float32), "v": np.asfortranarray(np.full((2, 3), fill, np.float32))},
        "b": {"m": np.full(4, fill), "v": np.full(4, fill)},
        "c": {},
    }
    params = {"W": np.full((2, 3), fill, np.float32), "b": np.full(4, fill), "c": np.full((), fill)}
    groups = [{"lr": lr, "eps": 1e-8, "params": ["W", "b"]}, {"lr": 0.25, "eps": 0.0, "params": ["c"]}]
    return Snapshot("Adam", t, 1, 7, groups, {"W": t, "b": t - 1, "c": 0}, state, params)


def check(k: int, name: str, value: Any) -> Any:
    """What a group allows: an lr that is a function, or numbers >= 0."""
    if callable(value):
        return value
    if not isinstance(value, float) or value < 0:
        raise ValueError(f"{name}: expected a number >= 0, got {value!r}")
    return value


def fit_dict(own: Snapshot, given: Any, is_own: Any = lambda array: False) -> Fit:
    return snapshot.fit_dict(own, given, check, is_own)


def all_bytes(one: Snapshot) -> list[bytes]:
    return [array.tobytes() for array in one.arrays(params=True).values()]


# ---------------------------------------------------------------- what is told


def test_dict_tells_all_and_shares_nothing() -> None:
    own = made()
    told = own.as_dict()
    assert list(told) == ["version", "optimizer", "t", "skipped", "seed", "param_groups", "steps", "state"]
    assert told["version"] == 2
    assert told["steps"] == {"W": 3, "b": 2, "c": 0}
    assert told["param_groups"] == own.groups
    told["param_groups"][0]["lr"] = 9.0
    told["param_groups"][0]["params"].clear()
    told["steps"]["W"] = 9
    for arrays in told["state"].values():
        for array in arrays.values():
            array[...] = 9
    assert all_bytes(own) == all_bytes(made())
    assert (own.groups, own.steps) == (made().groups, made().steps)


def test_copy_has_arrays_of_its_own() -> None:
    own = made()
    other = own.copy()
    for array in own.arrays(params=True).values():
        array[...] = 5
    own.steps["W"] = 5
    assert all_bytes(other) == all_bytes(made())
    assert other.describe() == made().describe()


def test_entries() -> None:
    own = made()
    assert list(own.arrays(params=False)) == ["m/W", "v/W", "m/b", "v/b"]
    assert list(own.arrays(params=True)) == ["m/W", "v/W", "m/b", "v/b", "params/W", "params/b", "params/c"]
    assert own.arrays(params=True)["v/W"] is own.state["W"]["v"]


def test_description_is_json() -> None:
    own = made(lr=schedules.constant(0.5))
    told = json.loads(json.dumps(snapshot.encoded(own.describe())))
    assert told["param_groups"][0]["lr"] == {"schedule": "constant", "lr": 0.5}
    assert "state" not in told


# ---------------------------------------------------------------- what fits


def test_dict_fits() -> None:
    own, other = made(fill=0.0, lr=0.125), made(t=5)
    fit = fit_dict(own, other.as_dict())
    assert (fit.t, fit.skipped, fit.seed, fit.steps) == (5, 1, 7, [5, 4, 0])
    assert fit.options == [{"lr": 0.5, "eps": 1e-8}, {"lr": 0.25, "eps": 0.0}]
    assert all_bytes(own) == all_bytes(made(fill=0.0))  # nothing has changed yet
    fit.copy_states()
    assert own.state["W"]["v"].flags.f_contiguous
    for key, arrays in own.state.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, other.state[key][name])
        assert own.params[key].max() == 0


def test_arrays_of_the_optimizer_itself_are_copied_first() -> None:
    own = made()
    own.state["b"]["v"][...] = 2
    given = own.as_dict()
    given["state"]["b"] = {"m": own.state["b"]["v"], "v": own.state["b"]["m"]}  # exchanged
    fit_dict(own, given, is_own=lambda array: any(np.may_share_memory(array, a) for a in own.state["b"].values())
             ).copy_states()  # fmt: skip
    assert (own.state["b"]["m"][0], own.state["b"]["v"][0]) == (2, 1)


@pytest.mark.parametrize("params", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_fits(suffix: str, params: bool, tmp_path: Path) -> None:
    own, path = made(fill=0.0), tmp_path / f"state{suffix}"
    files.save(path, made(), params)
    with files.load(path, own, check, params=params) as fit:
        assert fit.steps == [3, 2, 0]
        assert fit.loaded == Loaded([], [], [], [], params)
        fit.copy_states()
    assert (own.state["W"]["m"] == 1).all()
    assert (own.params["W"] == params).all()


def test_one_state_makes_one_npz(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        files.save(tmp_path / name, made(), True)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bfloat16_goes_through_files_as_its_bits(suffix: str, tmp_path: Path) -> None:
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    values = np.linspace(-3, 3, 7).astype(bfloat16)
    own, other = made(), made()
    for one, array in ((own, np.zeros(7, bfloat16)), (other, values)):
        one.state["b"]["m"] = array
    files.save(tmp_path / f"a{suffix}", other, False)
    with files.load(tmp_path / f"a{suffix}", own, check, params=False) as fit:
        fit.copy_states()
    assert own.state["b"]["m"].tobytes() == values.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_functions(suffix: str, tmp_path: Path) -> None:
    def rate(t: int) -> float:
        return 1 / t

    path = tmp_path / f"state{suffix}"
    files.save(path, made(lr=schedules.constant(0.5)), False)
    with files.load(path, made(), check, params=False) as fit:
        assert isinstance(fit.options[0]["lr"], schedules.Schedule)
    files.save(path, made(lr=rate), False)
    with files.load(path, made(lr=len), check, params=False) as fit:
        assert fit.options[0]["lr"] is len  # which stays
    with (
        pytest.raises(ValueError, match="lr: was a function, which files do not store"),
        files.load(path, made(), check),
    ):
        pass
    assert fit_dict(made(), made(lr=rate).as_dict()).options[0]["lr"] is rate


# ---------------------------------------------------------------- what is refused


def old(told: Any) -> None:
    """As version 1 was: a count in each group."""
    told["version"] = 1
    del told["steps"]
    for group in told["param_groups"]:
        group["t"] = told["t"]


STEPS = "state_dict: steps['b']: expected a whole number >= 0"
REFUSED = [
    ("version 1", old, ValueError, "version: expected 2, got 1, which counts the steps of each group"),
    ("version 3", put("version", 3), ValueError, "state_dict: version: expected 2, got 3"),
    ("version True", put("version", True), ValueError, "state_dict: version: expected 2, got True"),
    ("no version", put("version", ...), ValueError, "state_dict: version: expected 2, got None"),
    ("optimizer", put("optimizer", "AdamW"), ValueError, "state_dict: optimizer: expected 'Adam', got 'AdamW'"),
    ("t", put("t", -1), ValueError, "state_dict: t: expected a whole number >= 0"),
    ("skipped", put("skipped", 0.5), TypeError, "state_dict: skipped: expected a whole number >= 0"),
    ("seed", put("seed", 2**64), ValueError, "state_dict: seed: expected a whole number"),
    ("steps beyond t", put("steps", "b", 4), ValueError, f"{STEPS} and <= t = 3, got 4"),
    ("t below steps", put("t", 2), ValueError, "state_dict: steps['W']: expected a whole number >= 0 and <= t = 2"),
    ("steps before 0", put("steps", "b", -1), ValueError, STEPS),
    *((f"steps {v!r}", put("steps", "b", v), TypeError, STEPS) for v in (3.5, "3", True, None)),
    *((f"all steps {v!r}", put("steps", v), ValueError, "steps: expected a dict") for v in (None, 3, [3, 2, 0], ...)),
    ("steps of one missing", put("steps", "c", ...), ValueError, "state_dict: steps: missing: ['c'], unknown: []"),
    ("steps of another", put("steps", "d", 0), ValueError, "state_dict: steps: missing: [], unknown: ['d']"),
    ("steps of a number", put("steps", 0, 0), ValueError, "state_dict: steps: missing: [], unknown: ['0']"),
    ("groups", put("param_groups", []), ValueError, "state_dict: expected 2 groups, got 0"),
    ("a group that is none", put("param_groups", 1, 3), ValueError, "param_groups[1]: expected a dict, got int"),
    ("option", put("param_groups", 1, "lr", -1.0), ValueError, "param_groups[1]: lr: expected a number >= 0"),
    ("option missing", put("param_groups", 0, "eps", ...), ValueError, "param_groups[0]: missing: ['eps']"),
    ("option unknown", put("param_groups", 0, "t", 3), ValueError, "param_groups[0]: missing: [], unknown: ['t']"),
    ("keys", put("param_groups", 0, "params", ["b", "W"]), ValueError, "expected ['W', 'b'], got ['b', 'W']"),
    ("no state", put("state", ...), ValueError, "state_dict['state']: expected a dict, got NoneType"),
    ("array missing", put("state", "W", "m", ...), ValueError, "state_dict['state']['W']: missing: ['m']"),
    ("array unknown", put("state", "c", "m", np.ones(())), ValueError, "['state']['c']: missing: [], unknown: ['m']"),
    ("list", put("state", "b", "m", [1.0] * 4), ValueError, "state_dict: m/b: expected a numpy array, got list"),
    ("shape", put("state", "b", "v", np.ones(5)), ValueError, "v/b: expected shape (4,), got (5,); strict=False lo"),
    ("dtype", put("state", "b", "v", np.ones(4, ">f8")), ValueError, "v/b: expected dtype float64, got >f8"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_dict_is_refused(change: Any, error: type[Exception], text: str) -> None:
    own, told = made(fill=0.0), made().as_dict()
    change(told)
    with pytest.raises(error, match=re.escape(text)):
        fit_dict(own, told)
    assert all_bytes(own) == all_bytes(made(fill=0.0))


@pytest.mark.parametrize("given", [None, [], "state", 3])
def test_no_dict_at_all(given: Any) -> None:
    with pytest.raises(TypeError, match="state_dict: expected a dict as state_dict"):
        fit_dict(made(), given)


def test_a_message_has_bounds() -> None:
    with pytest.raises(Mismatch) as raised:
        fit_dict(made(), {**made().as_dict(), "optimizer": "x" * 10**5})
    assert len(str(raised.value)) < 2100


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_only_arrays_are_refused_before_any_is_written(suffix: str, tmp_path: Path) -> None:
    own, path = made(fill=0.0), tmp_path / f"state{suffix}"
    own.params["c"].flags.writeable = False
    files.save(path, made(), True)
    with pytest.raises(ValueError, match="params/c: the optimizer's array is read-only"), files.load(path, own, check):
        pass
    with files.load(path, own, check, params=False) as fit:
        fit.copy_states()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_file_is_named(suffix: str, tmp_path: Path) -> None:
    """Whatever byte is cut off; the error of the caller's own work is the caller's."""
    path = tmp_path / f"state{suffix}"
    files.save(path, made(), True)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=re.escape(str(path))), files.load(path, made(), check):
            pass
    path.write_bytes(whole)
    with pytest.raises(ZeroDivisionError), files.load(path, made(), check):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), files.load(tmp_path / f"none{suffix}", made(), check):
        pass


@pytest.mark.parametrize("value", ["", "a\0b", 3, None, b"x"])
def test_paths(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="path: expected a path"):
        files.save(value, made(), False)


# ---------------------------------------------------------------- complex arrays, and data of the user's own


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_complex_arrays(suffix: str, dtype: Any, tmp_path: Path) -> None:
    own, other, path = made(fill=0.0), made(), tmp_path / f"state{suffix}"
    for one, factor in ((own, 0), (other, 1 - 2j)):
        one.state["W"] = {"m": (np.arange(6).reshape(2, 3) * factor).astype(dtype, order="F"), "v": np.zeros(0, dtype)}
        one.state["b"] = {"m": np.array(3 * factor, dtype), "v": np.full((4, 2), 7.0)}  # two reals are no complex one
        one.params["c"] = np.full((), factor, dtype)
    files.save(path, other, True)
    with files.load(path, own, check) as fit:
        fit.copy_states()
    assert all_bytes(own) == all_bytes(other)
    own.state["b"]["m"] = np.zeros((2,), dtype().real.dtype)
    with pytest.raises(ValueError, match=r"m/b: expected shape \(2,\), got \(\)"), files.load(path, own, check):
        pass


def anything(k: int, name: str, value: Any) -> Any:
    return value


EXTRA: list[Any] = [None, {"function": "f"}, {"schedule": "cosine", "lr": 1}, {}, "text", [1, {"a": [True, 0.5]}], "π"]


@pytest.mark.parametrize("extra", EXTRA, ids=repr)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_extra_is_taken_as_it_is(suffix: str, extra: Any, tmp_path: Path) -> None:
    own, other, path = made(), made(), tmp_path / f"state{suffix}"
    for one, value in ((own, 1), (other, extra)):
        for group in one.groups:
            group |= {"extra": value, "frozen": False, "name": None}
    files.save(path, other, True)
    with files.load(path, own, anything) as fit:
        assert fit.options[0] == {name: value for name, value in other.groups[0].items() if name not in snapshot.KEPT}
    assert snapshot.fit_dict(own, other.as_dict(), anything, lambda a: False).options[0]["extra"] == extra


def test_extra_is_shared_by_no_dict() -> None:
    own = made()
    own.groups[0]["extra"], own.groups[1]["extra"] = [[1]], None
    told = own.as_dict()
    fit = snapshot.fit_dict(own, told, anything, lambda a: False)
    told["param_groups"][0]["extra"][0].append(2)
    assert own.groups[0]["extra"] == own.copy().groups[0]["extra"] == fit.options[0]["extra"] == [[1]]


LOOP: list[Any] = []
LOOP.append(LOOP)


OTHERS = [np.ones(2), {1: "a"}, {1, 2}, [b"x"], [{"a": object()}], 1j, LOOP]


@pytest.mark.parametrize("extra", OTHERS, ids=lambda extra: type(extra).__name__)
def test_extra_that_json_has_no_form_for(extra: Any, tmp_path: Path) -> None:
    own, path = made(), tmp_path / "state.npz"
    own.groups[0]["extra"], own.groups[1]["extra"] = None, extra
    with pytest.raises(TypeError, match=r"param_groups\[1\]\['extra'\]: cannot be stored as JSON"):
        files.save(path, own, False)
    assert not path.exists()
