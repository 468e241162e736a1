"""Stored state: dicts, files, pickles, copies and folders of states, from which a run continues bit for bit.
Damaged, hostile and foreign ones are refused, and the optimizer does not change.
"""

import copy
import errno
import itertools
import json
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoint_runs
import inside
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from cases import CASES, gradients
from checkpoint_files import (
    SUFFIXES,
    assert_same_arrays,
    built,
    command,
    each_suffix,
    mapped,
    run,
    snapshot,
)

import fastadam
from fastadam import schedules

each_case = pytest.mark.parametrize("case", CASES)


# ---------------------------------------------------------------- a resumed run is the uninterrupted one

#: dtype of the parameters, and how states are kept
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float64": ("float64", {}),
    "float16": ("float16", {"master_weights": True}),
    "bfloat16": ("bfloat16", {}),
    "bfloat16-states": ("float32", {"state_dtype": "bfloat16", "seed": 7}),
    "bfloat16-all": ("bfloat16", {"state_dtype": "bfloat16", "seed": 2**64 - 1, "master_weights": True}),
    "int8": ("float32", {"state_dtype": "int8", "min_8bit_size": 8, "seed": 5}),
    "int8-half": ("float16", {"state_dtype": "int8", "min_8bit_size": 0, "master_weights": True}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
HALF = 4  # steps before and after


def rate(t: int) -> float:
    """A learning rate that pickles."""
    return 0.1 / (1 + t)


def parameters(dtype: str) -> dict[Any, np.ndarray]:
    """Arrays in many layouts, under names that files and zips are not used to."""
    values = np.random.default_rng(0).standard_normal(60)
    base = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return {
        "W": base.reshape(5, 12).copy(),
        "": base[:1].copy().reshape(()),
        "empty": np.zeros((0, 3), base.dtype),
        1: np.asfortranarray(base.reshape(12, 5)),
        "1": base.copy()[::-3],
        "a/b.npy": base.reshape(3, 4, 5).copy()[:, ::2],
        "../permuted": base.reshape(3, 4, 5).copy().transpose(1, 2, 0),
    }


def new(case: str, kind: str, params: Any = None, **more: Any) -> fastadam.Optimizer:
    """The case's optimizer; its rate, where it is a function, has a name."""
    dtype, how = KINDS[kind]
    cls, options = CASES[case]
    if callable(options.get("lr")):
        options = options | {"lr": rate}
    return cls(parameters(dtype) if params is None else params, **options, **how, **more)


def steps_of(opt: fastadam.Optimizer, first: int, last: int) -> None:
    """Steps with gradients that hang on the number of the step alone; among them NaN, infinities and denormals."""
    for t in range(first, last + 1):
        dtype = "float64" if inside.params(opt)[0].dtype == np.float64 else "float32"
        made = [gradients(np.random.default_rng([t, p.size]), p.size, 2, dtype)[t % 2] for p in inside.params(opt)]
        grads = [g.reshape(p.shape) for g, p in zip(made, inside.params(opt), strict=True)]
        opt.step(dict(zip(parameters("float32"), grads, strict=True)))


def by_dict(opt: fastadam.Optimizer, again: fastadam.Optimizer, at: Path) -> fastadam.Optimizer:
    for p, original in zip(inside.params(again), inside.params(opt), strict=True):
        p[...] = original
    given = opt.state_dict()
    again.load_state_dict(given)
    for state in given["state"].values():
        for array in state.values():
            array[...] = 1  # neither it nor the other has the other's memory
    return again


def by_file(suffix: str) -> Any:
    def through(opt: fastadam.Optimizer, again: fastadam.Optimizer, at: Path) -> fastadam.Optimizer:
        opt.save(at / f"state{suffix}", params=True)
        again.load(at / f"state{suffix}")
        return again

    return through


def by_pickle(opt: fastadam.Optimizer, again: fastadam.Optimizer, at: Path) -> fastadam.Optimizer:
    return pickle.loads(pickle.dumps(opt))


def by_deepcopy(opt: fastadam.Optimizer, again: fastadam.Optimizer, at: Path) -> fastadam.Optimizer:
    return copy.deepcopy(opt)


WAYS = {"dict": by_dict, "npz": by_file(".npz"), "safetensors": by_file(".safetensors")}
WAYS |= {"pickle": by_pickle, "deepcopy": by_deepcopy}


#: of case, kind and way all pairs, and all three of Adam
TRIPLES = [
    (case, kind, way)
    for (k, case), (n, kind), (w, way) in itertools.product(*map(enumerate, (CASES, KINDS, WAYS)))
    if case == "adam" or w == (k + n) % len(WAYS)
]


@pytest.mark.parametrize(("case", "kind", "way"), TRIPLES)
def test_resumption(case: str, kind: str, way: str, tmp_path: Path) -> None:
    opt = new(case, kind)
    if way == "pickle" and "state_dtype" in KINDS[kind][1]:
        # NumPy pickles an array in C or Fortran order; noise and blocks go by the order in memory: then another
        opt = new(case, kind, {**parameters(KINDS[kind][0]), "../permuted": np.ones(3, inside.params(opt)[0].dtype)})
    steps_of(opt, 1, HALF)
    other = new(case, kind, backend="numpy")  # what a file says holds, whatever it is loaded into
    for name, value in {"lr": 0.7, "weight_decay": 0.3, "bounds": (0, 1)}.items():
        if name in other.options and not other.options[name].fixed and not callable(getattr(other, name)):
            setattr(other, name, value)
    steps_of(other, 1, 2)
    again = WAYS[way](opt, other, tmp_path)
    assert again is not opt
    assert snapshot(again) == snapshot(opt)
    for o in (opt, again):
        steps_of(o, HALF + 1, 2 * HALF)
    assert_same_arrays(again, opt)
    assert again.t == 2 * HALF


@each_kind
@each_case
def test_resumption_from_a_folder(case: str, kind: str, tmp_path: Path) -> None:
    whole = new(case, kind)
    steps_of(whole, 1, 3 * HALF)
    params = parameters(KINDS[kind][0])
    for k in range(3):
        opt = new(case, kind, params, state_dir=tmp_path)
        assert opt.t == k * HALF
        assert all(mapped(array) for array in inside.state_arrays(opt) if array.size)
        steps_of(opt, k * HALF + 1, (k + 1) * HALF)
        opt.close()
    assert_same_arrays(opt, whole)


@each_suffix
def test_file_that_another_process_wrote(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    run("run", path, 3)
    opt = checkpoint_runs.make()
    opt.load(path)
    assert opt.t == 3
    checkpoint_runs.advance(opt, 6)
    run("run", path, 6)
    expected = checkpoint_runs.make()
    checkpoint_runs.advance(expected, 6)
    assert_same_arrays(opt, expected)
    opt.load(path)
    assert_same_arrays(opt, expected)


# ---------------------------------------------------------------- what is kept, and how


def test_dict_tells_all() -> None:
    opt = fastadam.Adam([{"params": {"W": np.ones(2)}, "lr": 0.5}, {"params": [np.ones(3)]}], seed=5)
    opt.step([np.ones(2), np.ones(3)])
    opt.step([np.full(2, np.nan), np.ones(3)], skip_nonfinite=True)
    told = opt.state_dict()
    assert {name: told[name] for name in told if name not in ("param_groups", "state")} == {
        "version": 2,
        "optimizer": "Adam",
        "t": 1,
        "skipped": 1,
        "seed": 5,
        "steps": {"0.W": 1, "1.0": 1},
    }
    assert told["param_groups"] == [{**opt.defaults, "lr": 0.5, "params": ["0.W"]},
                                    {**opt.defaults, "params": ["1.0"]}]  # fmt: skip
    assert {key: list(arrays) for key, arrays in told["state"].items()} == {"0.W": ["m", "v"], "1.0": ["m", "v"]}
    told["state"]["0.W"]["m"][:] = 9
    told["param_groups"][0]["lr"] = 9
    assert opt.state["m"][0].max() < 1
    assert opt.lr == 0.5


def test_npz_is_plain_arrays_by_name(tmp_path: Path) -> None:
    params = {"W": np.ones((2, 3), np.float32), 3: np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    opt = fastadam.Adam(params)
    opt.step({key: np.cos(p) for key, p in params.items()})
    opt.save(tmp_path / "state.npz", params=True)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        assert sorted(file) == sorted(["fastadam.json", "m/W", "v/W", "params/W", "m/3", "v/3", "params/3"])
        np.testing.assert_array_equal(file["params/3"], params[3])
        np.testing.assert_array_equal(file["v/W"], opt.state["v"][0])
        told = json.loads(file["fastadam.json"].tobytes())
    assert (told["version"], told["optimizer"], told["t"], told["param_groups"][0]["params"]) == (
        2,
        "Adam",
        1,
        ["W", "3"],
    )
    before = (tmp_path / "state.npz").read_bytes()
    opt.save(tmp_path / "state.npz", params=True)
    assert (tmp_path / "state.npz").read_bytes() == before  # one state, one file


def test_safetensors_is_plain_arrays_by_name(tmp_path: Path) -> None:
    opt = fastadam.Adam({"W": np.ones((2, 3), np.float32), "scalar": np.array(2.0)})
    opt.step({"W": np.ones((2, 3), np.float32), "scalar": np.array(1.0)})
    opt.save(str(tmp_path / "state.safetensors"))
    file = safetensors.numpy.load_file(tmp_path / "state.safetensors")
    assert {name: array.shape for name, array in file.items()} == {
        "m/W": (2, 3), "v/W": (2, 3), "m/scalar": (), "v/scalar": (),
    }  # fmt: skip


def test_the_package_reads_what_is_written_here_and_writes_what_is_read(tmp_path: Path) -> None:
    """Every dtype that a file can have, among them pairs for complex numbers."""
    dtypes = ("f2", "f4", "f8", "c8", "c16", ml_dtypes.bfloat16)
    made = [fastadam.Adam([np.ones((3, 2), dtype).T for dtype in dtypes], master_weights=True) for _ in range(2)]
    made[0].step([np.full((2, 3), 0.5, dtype) for dtype in dtypes])
    path = tmp_path / "state.safetensors"
    made[0].save(path, params=True)
    with safetensors.safe_open(path, "np") as file:
        texts, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, array in inside.named_arrays(made[0], params=True).items():
        assert arrays[name].tobytes() == array.tobytes()
    safetensors.numpy.save_file(arrays, path, texts)  # in another order
    made[1].load(path)
    assert snapshot(made[1]) == snapshot(made[0])


class Same:
    """A key whose text is that of others."""

    def __repr__(self) -> str:
        return "Same()"


KEYS = {
    "number and its text": [1, "1"],
    "number and texts": [1, "1", "'1'"],
    "unicode": ["θ", "重み", "é", "e\u0301", "🚀"],
    "surrogate": ["\ud800", "%D800"],
    "slashes": ["a/b", "a//b", "/a", "a/", "/"],
    "backslashes": ["a\\b", "a/b", "\\"],
    "dots": [".", "..", "a.b", "0.a"],
    "empty": ["", " ", "\n"],
    "nul": ["a\0b", "a", "\0"],
    "percent": ["%", "%25", "%00", "\0"],
    "long": ["x" * 10_000, "x" * 10_001],
    "arguments": ["file", "args", "kwds", "allow_pickle", "self", "arr_0"],
    "ours": ["fastadam.json", "fastadam.json.npy", "fastadam.crc32", "params", "m", "master", "state", "__metadata__"],
    "entries": ["m/W", "W", "params/W", "v/m/W", "W.npy", "m/W.npy"],
    "paths": ["../x", "/etc/passwd", "C:\\x", "~/x"],
    "objects": [None, (1, 2), 2.5, b"x", True, frozenset([1])],
    "objects of one text": [Same(), Same(), "Same()"],
    "case": ["w", "W"],
}  # fmt: skip


@each_suffix
@pytest.mark.parametrize("kind", KEYS)
def test_keys(kind: str, suffix: str, tmp_path: Path) -> None:
    keys = KEYS[kind]
    path = tmp_path / f"state{suffix}"

    def made() -> fastadam.Optimizer:
        return fastadam.Adam({key: np.full(k + 1, 1.0) for k, key in enumerate(keys)})

    opt, again, by_dict = made(), made(), made()
    opt.step({key: np.linspace(k, k + 1, k + 1) for k, key in enumerate(keys)})
    opt.save(path, params=True)
    again.load(path)
    assert snapshot(again) == snapshot(opt)
    by_dict.load_state_dict(opt.state_dict())
    np.testing.assert_array_equal(by_dict.state["v"][-1], opt.state["v"][-1])
    assert os.listdir(tmp_path) == [path.name]
    if kind != "long":  # zipfile and safetensors themselves see the same entries
        names = zipfile.ZipFile(path).namelist() if suffix == ".npz" else safetensors.numpy.load_file(path)
        assert len(names) == 3 * len(keys) + (suffix == ".npz")


def test_key_too_long_for_a_zip(tmp_path: Path) -> None:
    opt = fastadam.Adam({"x" * 70_000: np.ones(2)})
    with pytest.raises(ValueError, match=r"too long a key for an \.npz file"):
        opt.save(tmp_path / "state.npz")
    assert not list(tmp_path.iterdir())
    opt.save(tmp_path / "state.safetensors")
    opt.load(tmp_path / "state.safetensors", params=False)


def test_arrays_go_from_one_layout_to_another(tmp_path: Path) -> None:
    base = np.arange(24.0).reshape(2, 3, 4)
    layouts = [base.copy(), np.asfortranarray(base), base.copy().transpose(2, 0, 1).copy().transpose(1, 2, 0)]
    for k, (one, other) in enumerate(itertools.product(layouts, layouts)):
        opt, again = fastadam.Adam(one.copy(order="K")), fastadam.Adam(np.zeros_like(other, order="K"))
        opt.step(np.cos(base))
        opt.save(tmp_path / f"{k}.npz", params=True)
        again.load(tmp_path / f"{k}.npz")
        assert_same_arrays(again, opt)
        folder = tmp_path / f"states{k}"
        fastadam.Adam(one.copy(order="K"), state_dir=folder).step(np.cos(base))
        resumed = fastadam.Adam(inside.params(again)[0], state_dir=folder)
        assert_same_arrays(resumed, opt)
        np.testing.assert_array_equal(inside.folder_arrays(folder)["0.m"], opt.state["m"][0])


def test_saved_parameters_are_loaded_and_others_stay(tmp_path: Path) -> None:
    opt = fastadam.Adam(p := np.ones(3))
    opt.step(np.ones(3))
    opt.save(tmp_path / "all.npz", params=True)
    opt.save(tmp_path / "states.npz")
    there, five = p.copy(), np.full(3, 5.0)
    for name, wanted, expected in (
        ("states.npz", False, five),
        ("all.npz", False, five),
        ("all.npz", None, there),
        ("all.npz", True, there),
    ):
        p[:] = 5
        assert opt.load(tmp_path / name, params=wanted).params is (expected is there)
        np.testing.assert_array_equal(p, expected)
    with pytest.raises(TypeError, match="params: expected True or False, got 1"):
        opt.save(tmp_path / "all.npz", params=1)  # type: ignore[arg-type]


def test_counts_seed_and_options_are_kept(tmp_path: Path) -> None:
    opt = fastadam.RMSprop(np.ones(3, np.float32), lr=0.25, alpha=0.5, seed=2**64 - 1, state_dtype="bfloat16")
    for g in (np.ones(3), np.full(3, np.nan), np.ones(3), np.full(3, np.inf)):
        opt.step(g.astype(np.float32), skip_nonfinite=True)
    opt.save(tmp_path / "state.npz")
    again = fastadam.RMSprop(np.ones(3, np.float32), state_dtype="bfloat16")
    again.load(tmp_path / "state.npz", params=False)
    for o in (again, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert (o.t, o.skipped, o.seed, o.lr, o.alpha) == (2, 2, 2**64 - 1, 0.25, 0.5)


@pytest.mark.parametrize("count", [2**53 + 1, 2**62, 2**63 - 1])
def test_t_is_exact(count: int, tmp_path: Path) -> None:
    opt = fastadam.Adam(np.ones(2))
    inside.set_counts(opt, count, count)
    for suffix in SUFFIXES:
        opt.save(tmp_path / f"state{suffix}")
        again = fastadam.Adam(np.ones(2))
        again.load(tmp_path / f"state{suffix}", params=False)
        assert (again.t, inside.steps(again, 0)) == (count, count)


@pytest.mark.parametrize("options", [{}, {"backend": "numpy"}, {"in_parts": True}, {"skips": True}], ids=str)
def test_the_last_step_that_can_be_counted(options: dict[str, Any]) -> None:
    opt = fastadam.Adam([np.ones(2)], backend=options.get("backend", "cython"))
    least = 0 if "skips" in options else 2**63 - 2
    inside.set_counts(opt, least, least)
    opt.load_state_dict({**opt.state_dict(), "skipped": 2**63 - 2 if "skips" in options else 0})
    extras = {"skip_nonfinite": True} if "skips" in options else {}

    def step() -> None:
        if "in_parts" in options:
            with opt.stepping() as arrived:
                arrived("0", np.ones(2))
        else:
            opt.step([np.full(2, np.inf if extras else 1.0)], **extras)

    step()
    again = fastadam.Adam([np.ones(2)], backend=opt.backend)
    again.load_state_dict(opt.state_dict())
    assert max(again.t, again.skipped) == 2**63 - 1
    before = opt.state_dict()
    with pytest.raises(OverflowError, match=r"t, skipped: expected counts of steps < 2\*\*63; call reset\(\)"):
        step()
    np.testing.assert_equal(opt.state_dict(), before)
    opt.reset()
    step()
    assert (opt.t, opt.skipped) == (("skips" not in options) * 1, ("skips" in options) * 1)


@each_suffix
def test_groups_and_one_that_was_added(suffix: str, tmp_path: Path) -> None:
    def arrays() -> tuple[np.ndarray, np.ndarray]:
        return np.linspace(-1, 1, 5), np.linspace(1, 2, 3)

    path, (a, b) = tmp_path / f"state{suffix}", arrays()
    opt = fastadam.Adam([a], lr=0.1)
    for t in range(3):
        opt.step([np.sin(a + t)])
    opt.add_param_group({"params": {"b": b}, "amsgrad": True, "lr": lambda t: 1 / t})
    for t in range(2):
        opt.step([np.sin(a + t), np.cos(b + t)])
    opt.save(path, params=True)
    c, d = arrays()
    again = fastadam.Adam([{"params": [c]}, {"params": {"b": d}, "amsgrad": True, "lr": lambda t: 1 / t}])
    again.load(path)
    assert [inside.steps(again, k) for k in range(2)] == [5, 2]
    # the same in a folder, which keeps each group's count as well
    e, f = arrays()
    mapped = None
    for _ in range(2):
        del mapped
        mapped = fastadam.Adam(
            [{"params": [e]}, {"params": {"b": f}, "amsgrad": True, "lr": lambda t: 1 / t}],
            lr=0.1,
            state_dir=tmp_path / "states",
        )
        if mapped.t == 0:
            mapped.load(path)
        assert [inside.steps(mapped, k) for k in range(2)] == [5, 2]
    for t in range(3):
        for o, x, y in ((opt, a, b), (again, c, d), (mapped, e, f), (deep := copy.deepcopy(opt), *inside.params(deep))):
            o.step([np.sin(x + t), np.cos(y + t)])
    for o in (again, mapped):
        assert_same_arrays(o, opt)
    assert deep.t == opt.t == 8


@each_suffix
def test_schedules_are_kept(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    lr = schedules.join([schedules.warmup(0.4, 3), schedules.cosine(0.4, 190)], [3])
    opt = fastadam.Adam([{"params": np.ones(3)}, {"params": np.ones(2), "lr": schedules.constant(0.25)}], lr=lr)
    opt.step([np.ones(3), np.ones(2)])
    opt.save(path, params=True)
    again = fastadam.Adam([{"params": np.ones(3), "lr": 0.5}, {"params": np.ones(2)}])
    again.load(path)
    assert [group["lr"] for group in again.param_groups] == [lr, schedules.constant(0.25)]
    for o in (opt, again):
        for _ in range(5):
            o.step([np.ones(3), np.ones(2)])
    assert_same_arrays(again, opt)


@each_suffix
def test_functions_are_not_kept_in_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    fastadam.Adam(np.ones(3), lr=lambda t: 1 / t).save(path)
    opt = fastadam.Adam(np.ones(3), lr=0.5)
    with pytest.raises(ValueError, match="lr: was a function, which files do not store; assign it before you load"):
        opt.load(path)
    assert opt.lr == 0.5
    opt.lr = rate
    opt.load(path, params=False)
    assert opt.lr is rate
    given = fastadam.Adam(np.ones(3), lr=rate).state_dict()  # a dict keeps it
    opt.lr = 0.5
    opt.load_state_dict(given)
    assert opt.lr is rate


def test_an_own_rule(tmp_path: Path) -> None:
    sgd = fastadam.optimizer(
        lambda p, g, b, lr, mu: (p - lr * (mu * b + g), mu * b + g), lambda t, lr, mu: (lr, mu), ["b"], lr=0.1, mu=0.5
    )
    opt = sgd(np.ones(3), backend="numpy")
    opt.step(np.ones(3))
    opt.save(tmp_path / "state.npz", params=True)
    again = sgd(np.zeros(3), mu=0.75, backend="numpy")
    again.load(tmp_path / "state.npz")
    for o in (again, copied := copy.deepcopy(opt), opt):
        o.step(np.ones(3))
    for o in (again, copied):
        assert_same_arrays(o, opt)
    for name in ("params", "master"):
        named: dict[str, Any] = {}
        exec(f"def rule(p, g, {name}, lr): return p, {name}", named)
        with pytest.raises(ValueError, match=f"'rule': '{name}' means another array in checkpoints"):
            fastadam.optimizer(named["rule"], lambda t, lr: (lr,), [name], lr=0.1)


@each_suffix
def test_a_file_without_parameters_says_so(suffix: str, tmp_path: Path) -> None:
    path, opt = tmp_path / f"state{suffix}", built()
    opt.save(path)
    again = built(steps=1)
    kept = snapshot(again)
    with pytest.raises(ValueError, match=r"was saved without parameters; save\(path, params=True\) writes them"):
        again.load(path, params=True)
    with pytest.raises(UserWarning, match="was saved without parameters"):  # an error in these tests
        again.load(path)
    assert snapshot(again) == kept
    with pytest.warns(UserWarning, match=r"they stay as they are: pass params=False") as warned:
        again.load(path)
    assert [w.filename for w in warned] == [__file__]
    assert again.t == opt.t


# ---------------------------------------------------------------- writing: the old file or the new one


def saved(tmp_path: Path, suffix: str) -> tuple[Path, bytes]:
    """A file of the run of `checkpoint_runs`, after two steps."""
    path = tmp_path / f"state{suffix}"
    opt = checkpoint_runs.make()
    checkpoint_runs.advance(opt, 2)
    opt.save(path, params=True)
    return path, path.read_bytes()


#: where in `save` a process ends: the call of which function it does not survive, and whether the new file is there
DEATHS = [
    (".npz", "crc32", 1, False),
    (".npz", "crc32", 9, False),
    (".npz", "fsync", 1, False),
    (".npz", "replace", 1, False),
    (".npz", "fsync", 2, True),
    (".safetensors", "crc32", 9, False),
    (".safetensors", "fsync", 1, False),
    (".safetensors", "replace", 1, False),
    (".safetensors", "fsync", 2, True),
]


@pytest.mark.parametrize(("suffix", "name", "count", "is_new"), DEATHS)
def test_killed_within_a_save(suffix: str, name: str, count: int, is_new: bool, tmp_path: Path) -> None:
    path, old = saved(tmp_path, suffix)
    ended = subprocess.run(command("die", path, name, count), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (path.read_bytes() == old) is not is_new
    opt, expected = checkpoint_runs.make(), checkpoint_runs.make()
    opt.load(path)
    checkpoint_runs.advance(expected, 3 if is_new else 2)
    assert_same_arrays(opt, expected)
    for left in tmp_path.iterdir():
        assert left == path or re.fullmatch(r"\.fastadam-\w{16}\.tmp", left.name)


@pytest.fixture
def small_files() -> Iterator[None]:
    """As on a full disk: no file may grow beyond 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@each_suffix
def test_full_disk(suffix: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path, old = saved(tmp_path, suffix)
    opt = checkpoint_runs.make()
    checkpoint_runs.advance(opt, 3)
    kept = snapshot(opt)
    request.getfixturevalue("small_files")
    with pytest.raises(OSError, match=rf"File too large.*: '{re.escape(str(path))}'$"):
        opt.save(path, params=True)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]
    assert snapshot(opt) == kept


@each_suffix
@pytest.mark.parametrize(("name", "kind"), [("fsync", errno.EIO), ("replace", errno.EACCES)])
def test_failure_at_the_end_of_a_save(
    name: str, kind: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = saved(tmp_path, suffix)

    def failing(*args: Any) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(os, name, failing)
    with pytest.raises(OSError, match=re.escape(os.strerror(kind))):
        checkpoint_runs.make().save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


@each_suffix
def test_folders_that_cannot_be_written(suffix: str, tmp_path: Path) -> None:
    opt = fastadam.Adam(np.ones(3))
    (tmp_path / "file").touch()
    for folder, kind in ((tmp_path / "none", FileNotFoundError), (tmp_path / "file", NotADirectoryError)):
        with pytest.raises(kind):
            opt.save(folder / f"state{suffix}")
    with pytest.raises(OSError):  # noqa: PT011  IsADirectoryError, PermissionError: systems differ
        opt.save(tmp_path)
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(OSError, match=rf": '{re.escape(str(tmp_path / f'folder{suffix}'))}'$"):
        opt.save(tmp_path / f"folder{suffix}")
    assert sorted(os.listdir(tmp_path)) == ["file", f"folder{suffix}"]


@each_suffix
def test_folder_without_permission(suffix: str) -> None:
    """Root may write everywhere, so it becomes nobody for a moment."""
    with tempfile.TemporaryDirectory() as name:
        path, old = saved(Path(name), suffix)
        os.chmod(path, 0o644)
        os.chmod(name, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match="Permission denied"):
                checkpoint_runs.make().save(path)
        finally:
            os.seteuid(user)
            os.chmod(name, 0o755)
        assert os.listdir(name) == [path.name]
        assert path.read_bytes() == old


def test_names_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.npz"
    fastadam.Adam(np.ones(2)).save(path)
    fastadam.Adam(np.ones(2)).load(path, params=False)


# ---------------------------------------------------------------- pickles and copies

COPIES = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}
each_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@each_copy
def test_copy_of_groups_is_apart(copied: Callable[[Any], Any]) -> None:
    opt = fastadam.Adam(
        [{"params": np.ones(3), "amsgrad": True, "lr": 0.5}, {"params": {"b": np.ones(2)}}], n_threads=2
    )
    opt.step([np.ones(3), np.ones(2)])
    opt.add_param_group({"params": [np.ones(4)], "weight_decay": 0.1})
    opt.step([np.ones(3), np.ones(2), np.ones(4)])
    again, kept = copied(opt), snapshot(opt)
    assert snapshot(again) == kept
    assert (again.backend, again.n_threads, repr(again)) == (opt.backend, opt.n_threads, repr(opt))
    again.lr = 0.25
    again.step([np.ones(3), {"b": np.ones(2)}, [np.ones(4)]])
    assert snapshot(opt) == kept
    opt.lr = 0.25
    opt.step([np.ones(3), np.ones(2), np.ones(4)])
    assert snapshot(again) == snapshot(opt)
    for o in (opt, again):  # and it can go on as any other
        o.add_param_group({"params": np.ones(1)})
        o.step([np.ones(3), np.ones(2), np.ones(4), np.ones(1)])
    assert snapshot(again) == snapshot(opt)


@each_copy
def test_copy_reads_its_own_bound_gradients(copied: Callable[[Any], Any]) -> None:
    p, g = np.ones(3), np.ones(3)
    opt = fastadam.Adam([p], grads=[g])
    opt.step()
    again = copied(opt)
    assert not np.shares_memory(inside.bound(again)[0], g)
    g[:] = -5
    again.step()
    expected = np.ones(3)
    alone = fastadam.Adam([expected])
    for _ in range(2):
        alone.step([np.ones(3)])
    np.testing.assert_array_equal(inside.params(again)[0], expected)
    again.zero_grad()
    assert (g == -5).all()
    assert opt.t == 1


@each_copy
def test_copied_together_they_belong_together(copied: Callable[[Any], Any]) -> None:
    params, grads = {"W": np.ones((2, 3)), "b": np.ones(2, np.float32)}, {"W": np.ones((2, 3)), "b": np.ones(2, "f4")}
    opt = fastadam.Adam(params, grads=grads)
    opt.step()
    own, own_grads, again = copied((params, grads, opt))
    own_grads["W"][:] = 3
    again.step()
    assert inside.params(again)[0] is own["W"]
    assert own["W"].max() < params["W"].min()
    assert opt.t == 1


class Instance:
    """An object of the article's protocol."""

    def __init__(self) -> None:
        self.parameters, self.grad = np.ones(3), np.ones(3)


@each_copy
def test_copy_steps_its_own_object(copied: Callable[[Any], Any]) -> None:
    x = Instance()
    opt = fastadam.Adam(x)
    opt.step()
    y, again = copied((x, opt))
    again.step()
    assert inside.held_object(again) is y
    assert y.parameters.max() < x.parameters.min()
    y.parameters = y.parameters.copy()  # as the protocol allows
    again.step()
    opt.step()
    opt.step()
    np.testing.assert_array_equal(y.parameters, x.parameters)
    alone = copied(opt)
    alone.step()
    assert inside.held_object(alone) is not x
    assert inside.held_object(alone).parameters.max() < x.parameters.min()


def test_pickle_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "opt.pickle").write_bytes(pickle.dumps(built()))
    script = "import pickle, sys; opt = pickle.load(open(sys.argv[1], 'rb')); opt.save(sys.argv[2], params=True)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "opt.pickle", tmp_path / "state.npz"], check=True)
    opt = built(steps=1)
    opt.load(tmp_path / "state.npz")
    assert snapshot(opt) == snapshot(built())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("first", [0, 1])
def test_groups_that_are_copied_with_their_optimizer_are_its_own(copied, first) -> None:
    """As of a schedule that keeps them."""
    opt = fastadam.Adam(np.ones(3), lr=1.0)
    pair = [opt, opt.param_groups]
    again = copied([pair[first], pair[1 - first]])
    other, groups = again[first], again[1 - first]
    groups[0]["lr"] = 0.5
    assert (other.lr, opt.lr) == (0.5, 1.0)


@pytest.mark.skipif(os.name != "posix", reason="Windows has none of them")
def test_what_is_no_file_is_neither_replaced_by_one_nor_read(tmp_path, monkeypatch) -> None:
    opt = fastadam.Adam(np.ones(3))
    monkeypatch.chdir(tmp_path)  # the name of a socket is at most 107 bytes
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")
        for path in (tmp_path / "pipe", tmp_path / "socket", Path(os.devnull)):
            before = path.lstat().st_mode
            for call, allowed in (
                (opt.save, "a file or a new name"),
                (opt.load, r"a file \(open another thing yourself.*"),
            ):
                with pytest.raises(OSError, match=f"expected {allowed}, got a device, pipe or socket") as error:
                    call(path)
                assert error.value.filename == str(path)
            assert path.lstat().st_mode == before


def test_folder_that_cannot_be_synced_is_known_before_the_old_file_goes(tmp_path, monkeypatch) -> None:
    opt = fastadam.Adam(np.ones(3))
    opt.save(tmp_path / "a.npz")
    old = (tmp_path / "a.npz").read_bytes()
    opt.step(np.ones(3))
    really = os.open

    def no_folders(path, *args, **kwargs):
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", no_folders)
    with pytest.raises(PermissionError):
        opt.save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == old
    assert os.listdir(tmp_path) == ["a.npz"]


def test_what_cannot_be_copied() -> None:
    opt = fastadam.Adam(np.ones(3), lr=lambda t: 1 / t)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(opt)
    assert copy.deepcopy(opt).lr is opt.lr
    with pytest.raises(TypeError, match=re.escape("use copy.deepcopy")):
        copy.copy(opt)
    assert type(copy.copy(opt.param_groups[0])) is dict  # a plain one: nobody listens to its changes
    [group] = copy.deepcopy(opt.param_groups)
    group["lr"] = 1.0  # of groups of its own
    assert list(group) == list(opt.param_groups[0])
    assert opt.lr is not group["lr"]
