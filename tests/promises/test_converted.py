"""Low-bit states from elsewhere: from a file or a dict of another dtype, or with another memory order.
Without ``convert=True`` they are refused, never scrambled. test_checkpoint.py tests that runs continue bit for bit.
"""

import copy
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import SUFFIXES, each_suffix, mapped, snapshot

import fastadam

#: how states are kept
KEPT: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"state_dtype": "bfloat16"},
    "int8": {"state_dtype": "int8", "min_8bit_size": 1},
    "int8, but for small arrays": {"state_dtype": "int8"},
}
#: the same numbers in another order of memory
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda a: a.copy(),
    "F": lambda a: np.asfortranarray(a),
    "permuted": lambda a: np.ascontiguousarray(a.transpose(1, 0, 2)).transpose(1, 0, 2),
    "strided": lambda a: np.repeat(np.ascontiguousarray(a.transpose(2, 0, 1)), 2, axis=1).transpose(1, 2, 0)[::2],
}
NUMBERS = np.random.default_rng(0).standard_normal((7, 9, 11)) * np.geomspace(1e-6, 1e3, 11)


def made(kept: str, layout: str, steps: int = 0, dtype: str = "float32") -> fastadam.Optimizer:
    """An Adam over one array of that layout, after so many steps."""
    values = NUMBERS * (1 + 2j) if dtype.startswith("complex") else NUMBERS
    opt = fastadam.Adam({"W": LAYOUTS[layout](values.astype(dtype))}, **KEPT[kept])
    for t in range(steps):
        opt.step({"W": (values * np.cos(t)).astype(dtype)})
    return opt


def by_dict(old: fastadam.Optimizer, new: fastadam.Optimizer, at: Path, **how: Any) -> Any:
    return new.load_state_dict(old.state_dict(), **how)


def by_file(suffix: str) -> Callable[..., Any]:
    def through(old: fastadam.Optimizer, new: fastadam.Optimizer, at: Path, **how: Any) -> Any:
        old.save(at / f"state{suffix}", params=True)
        return new.load(at / f"state{suffix}", **how)

    return through


WAYS = {"dict": by_dict} | {suffix: by_file(suffix) for suffix in SUFFIXES}
each_way = pytest.mark.parametrize("way", WAYS)


def stored_as(opt: fastadam.Optimizer, state: str) -> Any:
    """Of the first parameter: what a state is stored in, and in which order where that matters."""
    array = inside.named_states(opt)[0][state]
    return array.dtype, array.dtype == np.uint8 and inside.order_of(inside.planned(opt)[0])


PAIRS = [*itertools.product(KEPT, KEPT)]


@each_way
@pytest.mark.parametrize(("layout", "other"), [*itertools.product(LAYOUTS, LAYOUTS)])
def test_states_are_converted_where_that_is_said(layout: str, other: str, way: str, tmp_path: Path) -> None:
    for before, after in PAIRS:
        kept_as = KEPT[after]
        old, new, expected = made(before, layout, steps=3), made(after, other, steps=1), made(after, other)
        for name in "mv":
            expected.state[name][0] = old.state[name][0]  # rounded to nearest
        kept = snapshot(new)
        if stored_as(old, "m") == stored_as(new, "m"):
            WAYS[way](old, new, tmp_path)
            expected = old
        else:
            with pytest.raises(ValueError, match=r"m/W: expected .*; convert=True rounds states to what the optimizer"):
                WAYS[way](old, new, tmp_path)
            assert WAYS[way](old, new, tmp_path, strict=False).unfit == ["W"]
            assert snapshot(new) == kept
            assert WAYS[way](old, new, tmp_path, strict=False, convert=True).unfit == []
        WAYS[way](old, new, tmp_path, convert=True)
        for ours, theirs in zip(inside.state_arrays(new), inside.state_arrays(expected), strict=True):
            assert ours.tobytes() == theirs.tobytes()
        assert (new.t, new.state_dtype, new.min_8bit_size) == (
            3,
            kept_as.get("state_dtype"),
            kept_as.get("min_8bit_size", 4096),
        )


@each_way
@pytest.mark.parametrize(("layout", "other"), [*itertools.product(("C", "F"), LAYOUTS)])
def test_complex_states_are_converted(layout: str, other: str, way: str, tmp_path: Path) -> None:
    for before, after in itertools.product(("float32", "int8"), repeat=2):
        old, new = (made(kept, at, 2, "complex64") for kept, at in ((before, layout), (after, other)))
        new.reset()
        numbers = old.state["m"][0].copy()
        WAYS[way](old, new, tmp_path, convert=True)
        error = abs(new.state["m"][0] - numbers).max() / abs(numbers).max()
        assert error <= (0 if stored_as(old, "m") == stored_as(new, "m") or after == "float32" else 1 / 8)


def test_states_of_double_precision_are_rounded() -> None:
    old, new = made("float32", "C", 3, "float64"), made("float32", "F")
    new.load_state_dict(old.state_dict(), convert=True)
    for name in "mv":
        np.testing.assert_array_equal(new.state[name][0], old.state[name][0].astype(np.float32))
    again = made("float32", "C", 0, "float64")
    again.load_state_dict(new.state_dict(), convert=True)
    np.testing.assert_array_equal(again.state["v"][0], new.state["v"][0])
    eight = made("int8", "C", steps=1)
    again.load_state_dict(eight.state_dict(), convert=True)
    np.testing.assert_array_equal(again.state["v"][0], eight.state["v"][0])


@each_suffix
def test_parameters_are_never_converted(suffix: str, tmp_path: Path) -> None:
    old, new = made("float32", "C", 1, "float64"), made("float32", "C")
    kept = snapshot(new)
    with pytest.raises(ValueError, match=r"params/W: expected dtype float32, got float64; strict=False loads"):
        by_file(suffix)(old, new, tmp_path, convert=True)
    assert snapshot(new) == kept


def test_averages_are_converted(tmp_path: Path) -> None:
    model = {"W": NUMBERS.copy()}
    averages = [fastadam.Average({"W": p}) for p in (model["W"], NUMBERS.astype(np.float32))]
    model["W"] *= 2
    averages[0].update()
    averages[0].save(tmp_path / "average.npz")
    with pytest.raises(ValueError, match="average/W: expected dtype float32, got float64; convert=True"):
        averages[1].load(tmp_path / "average.npz")
    averages[1].load(tmp_path / "average.npz", convert=True)
    np.testing.assert_array_equal(averages[1].params["W"], averages[0].params["W"].astype(np.float32))


# ---------------------------------------------------------------- what files and folders hold


@each_suffix
def test_states_of_8_bits_are_kept_as_bytes(suffix: str, tmp_path: Path) -> None:
    """Their shape and order are in the description, as bytes tell neither."""
    eight = {"W": np.ones((5, 100), np.float32), "F": np.asfortranarray(np.ones((20, 30), np.float32))}
    opt = fastadam.Adam([{"params": eight, "state_dtype": "int8", "min_8bit_size": 1}, {"params": np.ones(3)}])
    opt.step([{key: np.cos(np.arange(p.size)).reshape(p.shape) for key, p in eight.items()}, np.ones(3)])
    told = opt.state_dict()
    assert told["shapes"] == {"0.W": [5, 100], "0.F": [20, 30]}
    assert told["orders"] == {"0.F": [1, 0]}
    opt.save(tmp_path / f"state{suffix}")
    file = (np.load if suffix == ".npz" else safetensors.numpy.load_file)(tmp_path / f"state{suffix}")
    for key, name in itertools.product(eight, "mv"):
        assert file[f"{name}/0.{key}"].shape == (eight[key].size + 2 * -(-eight[key].size // 256),)
        assert file[f"{name}/0.{key}"].tobytes() == told["state"][f"0.{key}"][name].tobytes()
    assert file["m/1.0"].dtype == np.float64
    assert {"shapes", "orders"}.isdisjoint(made("bfloat16", "F").state_dict())


def test_an_axis_of_one_element_has_no_order() -> None:
    old, new = (fastadam.Adam({"W": p}, **KEPT["int8"]) for p in (np.ones((1, 40), "f4"), np.ones((40, 1), "f4").T))
    old.step({"W": np.arange(40.0).reshape(1, 40)})
    new.load_state_dict(old.state_dict())
    assert snapshot(new)[-1][1:] == snapshot(old)[-1][1:]


def test_a_folder_holds_the_order_of_bytes(tmp_path: Path) -> None:
    opt = fastadam.Adam(LAYOUTS["F"](NUMBERS.astype("f4")), **KEPT["int8"], state_dir=tmp_path)
    opt.step(NUMBERS)
    told = opt.state_dict()["state"]["0"]
    opt.close()
    for layout in ("C", "permuted", "strided"):
        with pytest.raises(ValueError, match=r"orders: expected .*, got \{'0': \[2, 1, 0\]\}"):
            fastadam.Adam(LAYOUTS[layout](NUMBERS.astype("f4")), **KEPT["int8"], state_dir=tmp_path)
    again = fastadam.Adam(LAYOUTS["F"](NUMBERS.astype("f4")), **KEPT["int8"], state_dir=tmp_path)
    for name, state in inside.named_states(again)[0].items():
        assert mapped(state)
        assert state.tobytes() == told[name].tobytes()


# ---------------------------------------------------------------- copies, and other arrays in the place of one


@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_have_the_same_states(layout: str, kept: str) -> None:
    """A pickle brings a permuted array in C order, so its blocks are others: rounded once more, and not scrambled."""
    opt = made(kept, layout, steps=3)
    for again in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        is_same = stored_as(again, "m") == stored_as(opt, "m")
        assert is_same or (kept == "int8" and layout in ("permuted", "strided"))
        for name in "mv":
            own, theirs = (np.asarray(one.state[name][0], np.float32) for one in (opt, again))
            if is_same:
                np.testing.assert_array_equal(own, theirs)
            else:
                np.testing.assert_allclose(theirs, own, rtol=1 / 8, atol=2.0**-27 * abs(own).max())
        again.step({"W": NUMBERS})


@pytest.mark.parametrize(("layout", "other"), [*itertools.product(LAYOUTS, LAYOUTS)])
@pytest.mark.parametrize("way", ["structure", "replace", "replace rows", "fewer rows"])
def test_another_order_in_the_place_of_an_array(way: str, layout: str, other: str) -> None:
    opt = made("int8", layout, steps=3)
    expected = {name: opt.state[name][0].copy() for name in "mv"}
    rows = np.arange(3 if way == "fewer rows" else 7)[::-1]
    array = LAYOUTS[other](NUMBERS.astype("f4")[: len(rows)])
    if way == "structure":
        opt.params["W"] = array
    elif way == "replace":
        opt.replace("W", array)
    else:
        opt.replace("W", array, rows=rows)
        expected = {name: own[rows] for name, own in expected.items()}
    for name, own in expected.items():
        np.testing.assert_allclose(opt.state[name][0], own, rtol=1 / 8, atol=2.0**-27 * abs(own).max())
    opt.step({"W": NUMBERS[: len(rows)]})
