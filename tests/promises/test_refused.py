"""Bad input at every way in: the error names the argument, what came, what is allowed; and everything, arrays, states,
counters, options and files, is bit for bit as before; then a good call makes of it what it makes where nothing was bad.
"""

import copy
import itertools
import os
import pickle
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import inside
import numpy as np
import pytest
import scipy.sparse
from ml_dtypes import float8_e5m2
from numpy.lib.stride_tricks import as_strided
from refused import worlds
from refused.worlds import Refused, as_groups, as_list, as_mapping, fresh, running, seen

import fastadam
from fastadam import Adam, functional, schedules

inf, nan, ones = np.inf, np.nan, np.ones


class Case(NamedTuple):
    """A bad call in a world: its error, and how that begins; "…" stands for anything, "{folder}" for the world's."""

    name: str
    world: Callable[[Path], Any]
    call: Callable[[Any], Any]
    error: type[BaseException]
    text: str


def test_every_case_is_another_one() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) - len(FIFTY_SEVENTH) >= 150


def refused(case: Case, folder: Path) -> None:
    made = []
    for name in ("bad", "good"):
        (folder / name).mkdir()
        made.append(case.world(folder / name))
    bad, good = made
    before = seen(bad)
    assert before == seen(good)
    with pytest.raises(case.error) as raised:
        case.call(bad)
    said = str(raised.value)
    text = case.text.replace("{folder}", str(bad.folder))
    assert re.match(".*".join(map(re.escape, text.split("…"))), said, re.S), said
    assert len(said) < 2500
    assert seen(bad) == before
    for world in made:
        world.go_on()
    assert seen(bad) == seen(good) != before


# ---------------------------------------------------------------- numbers, flags and names, wherever they are given


class Odd:
    """What has no repr."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


RATE, BELOW_ONE, UP_TO_ONE = "a number >= 0 and finite", "a number >= 0 and < 1", "a number >= 0 and <= 1"
#: option, a value that it cannot have, the error, what is allowed, and what came, where it is not the repr
OPTIONS: list[tuple[Any, str, Any, Any, str, str]] = [
    (Adam, "lr", -1e-3, ValueError, RATE, ""),
    (Adam, "lr", nan, ValueError, RATE, ""),
    (Adam, "lr", inf, ValueError, RATE, ""),
    (Adam, "lr", 10**400, ValueError, RATE, "1000"),
    (Adam, "lr", 10**5000, ValueError, RATE, "<int object"),
    (Adam, "lr", "0.1", TypeError, RATE, ""),
    (Adam, "lr", True, TypeError, RATE, ""),
    (Adam, "lr", None, TypeError, RATE, ""),
    (Adam, "lr", 1j, TypeError, RATE, ""),
    (Adam, "lr", ones(2), TypeError, RATE, ""),
    (Adam, "lr", [0.1] * 10**5, TypeError, RATE, "[0.1, 0.1"),
    (Adam, "lr", Odd(), TypeError, RATE, "<test_refused.Odd object"),
    (Adam, "betas", (1.0, 0.9), ValueError, BELOW_ONE, "1.0"),
    (Adam, "betas", (0.9, -0.1), ValueError, BELOW_ONE, "-0.1"),
    (Adam, "betas", (0.9, nan), ValueError, BELOW_ONE, "nan"),
    (Adam, "betas", (0.9, None), TypeError, BELOW_ONE, "None"),
    (Adam, "betas", (0.9,), ValueError, "a pair of numbers", "1 of them: (0.9,)"),
    (Adam, "betas", (0.9, 0.9, 0.9), ValueError, "a pair of numbers", "3 of them: "),
    (Adam, "betas", np.array(0.9), ValueError, "a pair of numbers", "1 of them: array(0.9)"),
    (Adam, "betas", 0.9, TypeError, "a pair of numbers", ""),
    (Adam, "betas", "ab", TypeError, "a pair of numbers", ""),
    (Adam, "betas", {0.9, 0.99}, TypeError, "a pair of numbers", ""),
    (Adam, "betas", {0.9: 0.99, 0.8: 0}, TypeError, "a pair of numbers", ""),
    (Adam, "eps", -1e-8, ValueError, RATE, ""),
    (Adam, "weight_decay", -0.1, ValueError, RATE, ""),
    (Adam, "weight_decay", lambda t: 0.1, TypeError, RATE, "<function"),
    (Adam, "amsgrad", 1, TypeError, "True or False", ""),
    (Adam, "maximize", "no", TypeError, "True or False", ""),
    (Adam, "decoupled_weight_decay", None, TypeError, "True or False", ""),
    (Adam, "beta_decay", 1.5, ValueError, UP_TO_ONE, ""),
    (Adam, "alpha_decay", 0, TypeError, "True or False", ""),
    (Adam, "eps_hat", None, TypeError, "True or False", ""),
    (fastadam.AdamW, "weight_decay", inf, ValueError, RATE, ""),
    (fastadam.AdamW, "lr", -1, ValueError, RATE, ""),
    (fastadam.Adamax, "betas", (0.9, 1), ValueError, BELOW_ONE, "1"),
    (fastadam.Adamax, "eps", nan, ValueError, RATE, ""),
    (fastadam.Adagrad, "lr_decay", -1, ValueError, RATE, ""),
    (fastadam.Adagrad, "initial_accumulator_value", -1, ValueError, RATE, ""),
    (fastadam.RMSprop, "alpha", 1.5, ValueError, UP_TO_ONE, ""),
    (fastadam.RMSprop, "momentum", -0.5, ValueError, RATE, ""),
    (fastadam.RMSprop, "centered", "yes", TypeError, "True or False", ""),
    (fastadam.RMSprop, "eps_in_sqrt", 2, TypeError, "True or False", ""),
    (fastadam.Adadelta, "rho", -0.1, ValueError, UP_TO_ONE, ""),
    (fastadam.Adadelta, "rho", [], TypeError, UP_TO_ONE, ""),
]  # fmt: skip


def assign_attribute(w: Any, name: str, value: Any) -> None:
    setattr(w.opt, name, value)


def assign_in_group(w: Any, name: str, value: Any) -> None:
    w.opt.param_groups[0][name] = value


def assign_many(w: Any, name: str, value: Any) -> None:
    own = {"lr": 0.5, "weight_decay": 0.25, "maximize": True}
    w.opt.param_groups[0].update({**own, name: value})


def add_group(w: Any, name: str, value: Any) -> None:
    w.opt.add_param_group({"params": ones(2), "lr": 0.5, name: value})


def of_options() -> list[Case]:
    """Each at construction, and where it is assigned or in a group that is added."""
    made = []
    for k, (cls, name, value, error, allowed, came) in enumerate(OPTIONS):
        text = f"{name}…: expected {allowed}, got {came or repr(value)}"
        label = f"{cls.__name__} {name} {k}"
        construct = partial(lambda w, cls, given: cls([w.p, w.q], **given), cls=cls, given={name: value})
        made.append(Case(f"{label}", partial(fresh, cls=cls), construct, error, text))
        for way in (assign_attribute, assign_in_group, assign_many, add_group):
            labelled = text.replace(name, f"params[1]['{name}']", 1) if way is add_group else text
            call = partial(way, name=name, value=value)
            made.append(Case(f"{label} {way.__name__}", partial(running, cls=cls), call, error, labelled))
    return made


SEED, THREADS = "a whole number >= 0 and < 2**64", "a whole number >= 1"
#: how a step is made: the argument, the value, the error, what is allowed
HOW: list[tuple[str, Any, Any, str]] = [
    ("backend", "cuda", ValueError, "one of cython, numba, numpy"),
    ("backend", "Cython", ValueError, "one of cython, numba, numpy"),
    ("backend", ["numpy"], ValueError, "one of cython, numba, numpy"),
    ("backend", None, ValueError, "one of cython, numba, numpy"),
    ("n_threads", 0, ValueError, THREADS),
    ("n_threads", -4, ValueError, THREADS),
    ("n_threads", 0.5, TypeError, THREADS),
    ("n_threads", True, TypeError, THREADS),
    ("n_threads", "2", TypeError, THREADS),
    ("seed", -1, ValueError, SEED),
    ("seed", 2**64, ValueError, SEED),
    ("seed", 1.0, TypeError, SEED),
    ("seed", None, TypeError, SEED),
    ("master_weights", 1, TypeError, "True or False"),
    ("state_dtype", "float16", ValueError, "None or 'bfloat16'"),
    ("state_dtype", np.float32, ValueError, "None or 'bfloat16'"),
    ("state_dtype", ["bfloat16"], ValueError, "None or 'bfloat16'"),
    ("state_dtype", ones(2), ValueError, "None or 'bfloat16'"),
    ("state_dir", 3, TypeError, "a path, str or os.PathLike"),
    ("state_dir", b"states", TypeError, "a path, str or os.PathLike"),
    ("state_dir", "", ValueError, "a path that is not empty and has no NUL"),
    ("state_dir", "a\0b", ValueError, "a path that is not empty and has no NUL"),
]  # fmt: skip
SCALE, NORM, FLAG = "a number between 2**-126 and 2**126", "a number > 0, or infinity", "True or False"
#: what a step does to its gradients, likewise
EXTRAS: list[tuple[str, Any, Any, str]] = [
    *(("grad_scale", value, ValueError, SCALE) for value in (0, -1.0, nan, inf, 1e-39)),
    *(("grad_scale", value, TypeError, SCALE) for value in ("8", None, True, False, 1j, ones(1), ones(3), [1.0])),
    *(("max_norm", value, ValueError, NORM) for value in (0, -1, nan, -inf)),
    *(("max_norm", value, TypeError, NORM) for value in ("1", True, ones(3), [1.0], 1j)),
    *(("clip_value", value, ValueError, NORM) for value in (0.0, -2.5, nan)),
    *(("clip_value", value, TypeError, NORM) for value in ("1", False, ones(1), [1], {})),
    *(("skip_nonfinite", value, TypeError, FLAG) for value in (1, 0, None, "no", (), nan, ones(3))),
    *(("zero_grads", value, TypeError, FLAG) for value in (1, 0, None, "yes", [], nan, ones(3))),
]  # fmt: skip


def of_arguments() -> list[Case]:
    made = []
    for name, value, error, allowed in HOW:
        call = partial(lambda w, given: Adam([w.p, w.q], **given), given={name: value})
        made.append(Case(f"{name}={value!r:.20}", fresh, call, error, f"{name}: expected {allowed}, got {value!r}"))
    for name, value, error, allowed in EXTRAS:
        call = partial(lambda w, given: w.opt.step(w.good, **given), given={"max_norm": 1.0, name: value})
        text = f"{name}: expected {allowed}, got {value!r}"
        made.append(Case(f"step {name}={value!r}", running, call, error, text))
    return made


# ---------------------------------------------------------------- parameters

ARRAY = "expected a numpy array, got "
DTYPE = "expected dtype float16, bfloat16, float32 or float64, got "
ONE_PLACE = "params: several of its elements share one place in memory; pass a copy"
OWN = "it has lr, betas, eps, weight_decay, amsgrad, maximize,"
CONSTRUCTION: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("number", lambda w: Adam(3.0), TypeError, f"params: {ARRAY}float; convert it once with numpy.asarray("),
    ("numbers", lambda w: Adam([1.0, 2.0]), TypeError, f"params[0]: {ARRAY}float"),
    ("None", lambda w: Adam(None), TypeError, f"params: {ARRAY}NoneType"),
    ("text", lambda w: Adam("weights"), TypeError, f"params: {ARRAY}str"),
    ("empty list", lambda w: Adam([]), ValueError, "params: expected at least one array, got an empty list"),
    ("empty dict", lambda w: Adam({}), ValueError, "params: expected at least one array, got an empty dict"),
    ("set", lambda w: Adam({1, 2}), TypeError, "params: a set has no order by which arrays are matched; pass a list"),
    ("nested list", lambda w: Adam([[w.p]]), TypeError, f"params[0]: {ARRAY}list"),
    ("bytes in memory", lambda w: Adam([memoryview(w.p)]), TypeError, f"params[0]: {ARRAY}memoryview"),
    ("sparse", lambda w: Adam(scipy.sparse.eye(3)), TypeError, f"params: {ARRAY}dia_matrix; pass .toarray()"),
    ("integers", lambda w: Adam(ones(3, int)), TypeError, f"params: {DTYPE}int64; convert with .astype("),
    ("complex", lambda w: Adam(ones(3, complex)), TypeError, f"params: {DTYPE}complex128"),
    ("eight bits", lambda w: Adam(ones(3, float8_e5m2)), TypeError, f"params: {DTYPE}float8_e5m2"),
    ("more bits", lambda w: Adam(ones(3, np.longdouble)), TypeError, f"params: {DTYPE}float128"),
    ("objects", lambda w: Adam(np.array([None])), TypeError, f"params: {DTYPE}object"),
    ("fields", lambda w: Adam(ones(3, [("x", "f8")])), TypeError, f"params: {DTYPE}[('x', '<f8')]"),
    ("byte order", lambda w: Adam(ones(3, ">f8")), TypeError,
     "params: dtype >f8 is not in this machine's byte order; c"),
    ("masked", lambda w: Adam(np.ma.ones(3)), TypeError, "params: a masked array is not supported, its mask would be"),
    ("read-only", lambda w: Adam([w.p, w.frozen]), ValueError,
     "params[1]: the array is read-only and would be written"),
    ("broadcast", lambda w: Adam(as_strided(w.p, (3, 2), (8, 0))), ValueError, ONE_PLACE),
    ("windows", lambda w: Adam(as_strided(w.p, (2, 2), (8, 8))), ValueError, ONE_PLACE),
    ("twice", lambda w: Adam([w.p, w.p]), ValueError,
     "params[1] and params[0] share memory and would be stepped twice"),
    ("overlap", lambda w: Adam({"a": w.p, "b": w.p[1:]}), ValueError, "params['b'] and params['a'] share memory and"),
    ("names twice", lambda w: Adam([("a", w.p), ("a", w.g)]), ValueError, "params: expected different names, got ['a'"),
    ("57th of 100", lambda w: Adam([*(ones(2) for _ in range(56)), None, w.p]), TypeError, f"params[56]: {ARRAY}None"),
    ("group without params", lambda w: Adam([{"lr": 1.0}]), ValueError, "params[0]: expected a group with the key 'pa"),
    ("group of none", lambda w: Adam([{"params": []}]), ValueError, "params[0]['params']: expected at least one array"),
    ("group of None", lambda w: Adam([{"params": None}]), TypeError, f"params[0]['params']: {ARRAY}NoneType"),
    ("group of a set", lambda w: Adam([{"params": {1}}]), TypeError, "params[0]['params']: a set has no order"),
    ("group and array", lambda w: Adam([{"params": w.p}, w.g]), TypeError, f"params[0]: {ARRAY}dict"),
    ("unknown option of a group", lambda w: Adam([{"params": w.p, "rate": 1}]), ValueError,
     "params[0]['rate']: unknown option; a group has lr, betas"),
    ("last group", lambda w: Adam([{"params": w.p}, {"params": w.g, "lr": -1}]), ValueError,
     f"params[1]['lr']: expected {RATE}, got -1"),
    ("another rule", lambda w: Adam(w.p, nesterov=True), TypeError, f"nesterov: unknown option of Adam; {OWN}"),
    ("nothing", lambda w: Adam(), TypeError, "Adam.__init__() missing 1 required positional argument: 'params'"),
    ("base class", lambda w: fastadam.Optimizer(w.p, {}), TypeError, "Optimizer has no rule; use Adam, AdamW, Adamax"),
    ("bound shape", lambda w: Adam(w.p, grads=ones(4)), ValueError, "gradient of params: expected shape (3,) like the"),
    ("bound sequence", lambda w: Adam([w.p], grads=w.g), TypeError,
     "grads: expected a sequence like params, got ndarr"),
    ("bound number", lambda w: Adam(w.p, grads=np.float64(1)), TypeError, f"gradient of params: {ARRAY}float64"),
    ("bound parameter", lambda w: Adam(w.p, grads=w.p), ValueError,
     "gradient of params: shares memory with a paramete"),
    ("object and gradients", lambda w: Adam(worlds.Instance(w.p, w.g), grads=w.g), ValueError,
     "grads: an object brings its own gradients as .grad; leave grads out"),
    ("16 bits for 64", lambda w: Adam(w.p, state_dtype="bfloat16"), ValueError,
     "state_dtype: params is float64, whose states are, too; leave state_dtype out"),
]  # fmt: skip

ADDED: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("list", lambda w: [ones(2)], TypeError, "params[1]: expected a group as a dict with the key 'params', got list"),
    ("None", lambda w: None, TypeError, "params[1]: expected a group as a dict with the key 'params', got NoneType"),
    ("no params", lambda w: {"lr": 0.1}, ValueError, "params[1]: expected a group with the key 'params', got the keys"),
    ("no array", lambda w: {"params": []}, ValueError,
     "params[1]['params']: expected at least one array, got an empty"),
    ("integers", lambda w: {"params": ones(2, int)}, TypeError, f"params[1]['params']: {DTYPE}int64"),
    ("unknown", lambda w: {"params": ones(2), "rate": 1}, ValueError, "params[1]['rate']: unknown option; a group has"),
    ("own", lambda w: {"params": w.params[1][:2]}, ValueError, "params[1] and params[1]['params'] share memory"),
    ("state", lambda w: {"params": w.opt.state["m"][1]}, ValueError, "…a state of params[1]…share memory"),
    ("frozen", lambda w: {"params": np.broadcast_to(1.0, 3)}, ValueError, "params[1]['params']: the array is read-on"),
    ("gradients", lambda w: {"params": ones(2), "grads": ones(2)}, ValueError,
     "params[1]['grads']: this optimizer has no bound gradients; pass them to step()"),
    ("second array", lambda w: {"params": {"a": ones(2), "b": None}}, TypeError,
     f"params[1]['params']['b']: {ARRAY}NoneType"),
]  # fmt: skip

# ---------------------------------------------------------------- gradients

SHAPE = "expected shape (4,) like the parameter, got "
#: the third step's gradients, of shapes (2, 3), (4,) and (3,), as they should be -> what is given instead
GRADIENTS: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few", lambda g: g[:2], ValueError, "grads: expected 3 gradients, one a parameter, got 2"),
    ("too many", lambda g: [*g, g[0]], ValueError, "grads: expected 3 gradients, one a parameter, got 4"),
    ("none", lambda g: [], ValueError, "grads: expected 3 gradients, one a parameter, got 0"),
    ("one array", lambda g: g[0], TypeError, "grads: expected a sequence like params, got ndarray"),
    ("mapping", lambda g: dict(enumerate(g)), TypeError, "grads: expected a sequence like params, got dict"),
    ("number", lambda g: 1.0, TypeError, "grads: expected a sequence like params, got float"),
    ("text", lambda g: "abc", TypeError, "grads: expected a sequence like params, got str"),
    ("set", lambda g: {1, 2, 3}, TypeError, "grads: a set has no order by which arrays are matched; pass a list or"),
    ("float32 for float64", lambda g: [g[0], g[1].astype("f4"), g[2]], TypeError,
     "gradient of params[1]: expected dtype float64 like the parameter, got float32; convert with .astype(numpy.flo"),
    ("transposed", lambda g: [g[0].T, *g[1:]], ValueError, "gradient of params[0]: expected shape (2, 3) like the p"),
    ("first two", lambda g: [g[1], g[0], g[2]], ValueError, "gradient of params[0]: expected shape (2, 3) like the p"),
]  # fmt: skip

#: gradient number 56 of a hundred, which should be float32 of shape (4,); `w.good[55]` and `w.params` are others
WRONG: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "shape": (lambda w: ones(5, "f4"), ValueError, f"{SHAPE}(5,)"),
    "broadcastable": (lambda w: ones(1, "f4"), ValueError, f"{SHAPE}(1,)"),
    "dimensions": (lambda w: ones((4, 1), "f4"), ValueError, f"{SHAPE}(4, 1)"),
    "without axes": (lambda w: np.float32(1), (TypeError, ValueError), "expected …, got "),
    "integers": (lambda w: ones(4, int), TypeError, f"{DTYPE}int64; convert with .astype("),
    "flags": (lambda w: ones(4, bool), TypeError, f"{DTYPE}bool"),
    "complex": (lambda w: ones(4, "c8"), TypeError, f"{DTYPE}complex64"),
    "objects": (lambda w: ones(4, object), TypeError, f"{DTYPE}object"),
    "byte order": (lambda w: ones(4, ">f4"), TypeError, "dtype >f4 is not in this machine's byte order; convert with"),
    "masked": (lambda w: np.ma.ones(4, "f4"), TypeError, "a masked array is not supported, its mask would be ignored"),
    "None": (lambda w: None, TypeError, "is None; every parameter is stepped, pass zeros or leave the parameter out"),
    "list": (lambda w: [1.0] * 4, TypeError, f"{ARRAY}list; convert it once with numpy.asarray("),
    "memory": (lambda w: memoryview(ones(4, "f4")), TypeError, f"{ARRAY}memoryview; convert it once with numpy.asarr"),
    "sparse": (lambda w: scipy.sparse.coo_array(ones(4, "f4")), TypeError, f"{ARRAY}coo_array; pass .toarray()"),
    "parameter": (lambda w: w.params[56], ValueError, "shares memory with a parameter or a state, which it changes; p"),
    "another's": (
        lambda w: w.params[6],
        ValueError,
        "shares memory with a parameter or a state, which it changes; pas",
    ),
    "state": (lambda w: w.opt.state["v"][6], ValueError, "shares memory with a parameter or a state, which it changes"),
}  # fmt: skip
#: likewise, where gradients are to be left zero
NOT_ZEROED: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "read-only": (
        lambda w: np.broadcast_to(np.float32(1), 4),
        ValueError,
        "the array is read-only and would be written",
    ),
    "one place": (
        lambda w: as_strided(ones(4, "f4"), (4,), (0,)),
        ValueError,
        "several of its elements share one place",
    ),
    "another": (lambda w: w.good[51], ValueError, "gradient of …share memory"),
}  # fmt: skip
ALL = {"grad_scale": 2.0, "max_norm": 1.0, "clip_value": 0.5, "skip_nonfinite": True, "zero_grads": True}
NAMES = {
    as_list: "params[56]",
    as_mapping: "params['layer56']",
    as_groups: "params[1]['params']['layer23']",
}


def fifty_seventh() -> list[Case]:
    """Every manner in every structure, with nothing and all that a step may do to gradients; in a list, with each."""
    made = []
    for (shape, place), (wrong, row) in itertools.product(NAMES.items(), (WRONG | NOT_ZEROED).items()):
        give, error, text = row
        text = text if text.startswith("gradient") else f"gradient of {place}: {text}"
        alone = [{name: value} for name, value in ALL.items()] if shape is as_list else []
        ways = [{}, *alone, ALL]
        for extras in ways:
            if wrong in NOT_ZEROED and "zero_grads" not in extras:
                continue
            call = partial(lambda w, extras: w.opt.step(w.given, **extras), extras=extras)
            name = f"57th of 100, {shape.__name__}, {wrong}, {'+'.join(extras) or 'plain'}"
            made.append(Case(name, partial(worlds.hundred, shape=shape, wrong=give), call, error, text))
    return made


def broken_off(grads: Any) -> Any:
    yield from grads[:56]
    raise OSError("the disk is gone")


class Torn(dict):
    """A mapping that fails at its 57th key."""

    def __getitem__(self, key: str) -> Any:
        if key == "layer56":
            raise OSError("the disk is gone")
        return super().__getitem__(key)


GONE = "the disk is gone"
a_hundred = partial(worlds.hundred, wrong=lambda w: ones(4, "f4"))
in_groups = partial(running, shape=as_groups)
in_mapping = partial(running, shape=as_mapping)
STRUCTURES = [
    Case("generator that fails", partial(a_hundred, shape=as_list), lambda w: w.opt.step(broken_off(w.good)), OSError,
     GONE),
    Case("generator that ends", partial(a_hundred, shape=as_list), lambda w: w.opt.step(iter(w.good[:56]), **ALL),
     ValueError, "grads: expected 100 gradients, one a parameter, got 56"),
    Case("mapping that fails", partial(a_hundred, shape=as_mapping), lambda w: w.opt.step(Torn(w.given), **ALL),
     OSError, GONE),
    Case("mapping without the 57th", partial(a_hundred, shape=as_mapping),
     lambda w: w.opt.step({key: g for key, g in w.given.items() if key != "layer56"}, **ALL), ValueError,
     "grads: expected the keys of params; missing: ['layer56'], unknown: []"),
    Case("mapping of other names", in_mapping, lambda w: w.opt.step(dict(zip("abc", w.good, strict=True))), ValueError,
     "grads: expected the keys of params; missing: ['layer0', 'layer1', 'layer2'], unknown: ['a', 'b', 'c']"),
    Case("mapping of none", partial(a_hundred, shape=as_mapping), lambda w: w.opt.step({}), ValueError,
     "grads: expected the keys of params; missing: ['layer0', 'layer1', …, unknown: []"),
    Case("list for mapping", in_mapping, lambda w: w.opt.step(w.good), TypeError,
     "grads: expected a mapping like params, got list"),
    Case("set for mapping", in_mapping, lambda w: w.opt.step({"layer0"}), TypeError, "grads: a set has no order"),
    Case("pairs of one name", in_mapping, lambda w: w.opt.step([("layer0", w.good[0])] * 3), ValueError,
     "grads: expected different names, got ['layer0', 'layer0', 'layer0']"),
    Case("two groups of three", in_groups, lambda w: w.opt.step(as_groups(w.good)[:2]), ValueError,
     "grads: expected 3 groups (or all 3 arrays in order), got 2 entries"),
    Case("None for a group", in_groups, lambda w: w.opt.step([w.good[:1], None, w.good[2:]]), TypeError,
     "grads[1]: expected a mapping like params, got NoneType"),
    Case("list for a group's mapping", in_groups, lambda w: w.opt.step([w.good[:1], w.good[1:2], w.good[2:]]),
     TypeError, "grads[1]: expected a mapping like params, got list"),
    Case("too many in the last group", in_groups, lambda w: w.opt.step([*as_groups(w.good)[:2], [w.good[2]] * 2]),
     ValueError, "grads[2]: expected 1 gradients, one a parameter, got 2"),
    Case("array for groups", in_groups, lambda w: w.opt.step(w.good[0]), TypeError,
     "grads: expected a sequence with an entry for each group, got ndarray"),
    Case("no gradients", running, lambda w: w.opt.step(), RuntimeError,
     "grads: none were given and none are bound; call step(grads), or construct with grads="),
    Case("none to zero", running, lambda w: w.opt.zero_grad(), RuntimeError,
     "zero_grad: no gradients are bound; zero y"),
    Case("bound, read-only, zero_grad", worlds.bound, lambda w: w.opt.zero_grad(), ValueError,
     "gradient of params[1]: the array is read-only and would be written in place; pass a writeable copy"),
    Case("bound, read-only, zero_grads", worlds.bound, lambda w: w.opt.step(zero_grads=True), ValueError,
     "gradient of params[1]: the array is read-only and would be written in place; pass a writeable copy"),
    Case("bound, others given", worlds.bound, lambda w: w.opt.step([w.good[0], None, w.good[2]]), TypeError,
     "gradient of params[1]: is None; every parameter is stepped"),
    Case("bound, group without gradients", worlds.bound, lambda w: w.opt.add_param_group({"params": ones(2)}),
     ValueError, "params[1]['grads']: expected gradients to bind, as for the other groups"),
    Case("bound, group with another's shape", worlds.bound,
     lambda w: w.opt.add_param_group({"params": ones(2), "grads": ones(3)}), ValueError,
     "gradient of params[1]['params']: expected shape (2,) like the parameter, got (3,)"),
    Case("object without a gradient", partial(worlds.of_object, grad=None), lambda w: w.opt.zero_grad(), TypeError,
     f"gradient of params: {ARRAY}NoneType"),
    Case("object of another shape", partial(worlds.of_object, parameters=ones(4)), lambda w: w.opt.step(), ValueError,
     "params: expected shape (3,) like the parameter, got (4,)"),
    Case("object of another dtype", partial(worlds.of_object, parameters=ones(3, int)), lambda w: w.opt.step(),
     TypeError, f"params: {DTYPE}int64"),
    Case("object and a group", worlds.of_object, lambda w: w.opt.add_param_group({"params": ones(2)}), ValueError,
     "add_param_group: this optimizer's parameters are those of an object; make a new one with all of its groups"),
]  # fmt: skip

# ---------------------------------------------------------------- groups, rates and schedules


def zero_division(t: int) -> float:
    return 1 / 0


def set_lr(*rates: Any) -> Callable[[Any], Any]:
    """A step for which the groups have these rates; then they have their own again."""

    def call(w: Any) -> None:
        before = [group["lr"] for group in w.opt.param_groups]
        for group, rate in zip(w.opt.param_groups, rates, strict=True):
            group["lr"] = rate
        try:
            w.opt.step(as_groups(w.good), **ALL)
        finally:
            for group, rate in zip(w.opt.param_groups, before, strict=True):
                group["lr"] = rate

    return call


good_rate = schedules.cosine(0.5, 10)
GROUPS = [
    *(
        Case(f"rate of the second of three groups: {name}", in_groups, set_lr(good_rate, rate, 0.5), error, text)
        for name, rate, error, text in (
            ("below zero", lambda t: -1.0, ValueError, f"lr(3): expected {RATE}, got -1.0"),
            ("NaN", lambda t: nan, ValueError, f"lr(3): expected {RATE}, got nan"),
            ("infinite", lambda t: inf, ValueError, f"lr(3): expected {RATE}, got inf"),
            ("None", lambda t: None, TypeError, f"lr(3): expected {RATE}, got None of type NoneType"),
            ("an array", lambda t: ones(2), TypeError, f"lr(3): expected {RATE}, got array([1., 1.]) of type ndarray"),
            ("a text", lambda t: "0.1", TypeError, f"lr(3): expected {RATE}, got '0.1' of type str"),
            ("a schedule", lambda t: good_rate, TypeError, f"lr(3): expected {RATE}, got cosine(lr=0.5, steps=10"),
            ("that fails", zero_division, ZeroDivisionError, "division by zero"),
            ("of no argument", lambda: 0.1, TypeError, "…takes 0 positional arguments but 1 was given"),
            ("too large", schedules.exponential(1e300, 1e10), ValueError,
             "exponential(lr=1e+300, factor=10000000000.0)"),
        )
    ),
    Case("option that needs other states", running, lambda w: setattr(w.opt, "amsgrad", True), ValueError,
     "amsgrad: True needs other states; it is chosen at construction"),
    Case("momentum that ends", partial(running, cls=fastadam.RMSprop, momentum=0.5),
     lambda w: setattr(w.opt, "momentum", 0.0), ValueError,
     "momentum: 0.0 needs other states; it is chosen at construction"),
    Case("accumulators that have begun", partial(running, cls=fastadam.Adagrad),
     lambda w: setattr(w.opt, "initial_accumulator_value", 0.5), ValueError,
     "initial_accumulator_value: 0.5 needs other states; it is chosen at construction"),
    Case("parameters of a group", running, lambda w: w.opt.param_groups[0].update(params=[ones(2)]), ValueError,
     "params: unknown option; a group has lr, betas"),
    Case("option taken out", running, lambda w: w.opt.param_groups[0].pop("lr"), TypeError,
     "lr: a group's options are f"),
    Case("all taken out", running, lambda w: w.opt.param_groups[0].clear(), TypeError,
     "params: a group's options are fi"),
    Case("count of steps", running, lambda w: setattr(w.opt, "t", 0), AttributeError,
     "property 't' of 'Adam' object has"),
    Case("shallow copy", running, lambda w: copy.copy(w.opt), TypeError,
     "a shallow copy would step the same arrays with"),
    Case("schedule of no steps", running, lambda w: setattr(w.opt, "lr", schedules.cosine(0.1, 0)), ValueError,
     "steps: expected a whole number >= 1, got 0"),
    Case("schedule of half a step", running, lambda w: setattr(w.opt, "lr", schedules.step(0.1, 2.5)), TypeError,
     "every: expected a whole number >= 1, got 2.5 of type float"),
    Case("schedule of a text", running, lambda w: setattr(w.opt, "lr", schedules.linear("0.1", 0, 5)), TypeError,
     f"start: expected {RATE}, got '0.1' of type str"),
    Case("schedules in disorder", running, lambda w: setattr(w.opt, "lr", schedules.join([good_rate] * 3, [5, 5])),
     ValueError, "boundaries: expected whole numbers, each larger than the one before, got [5, 5]"),
]  # fmt: skip

# ---------------------------------------------------------------- checkpoints: what tests/test_damaged.py has not


def put(*path: Any) -> Callable[[Any], Any]:
    """Loads the dict with the last of the path at the keys before it."""

    def call(w: Any) -> None:
        *keys, last, value = path
        at = told = copy.deepcopy(w.told)
        for key in keys:
            at = at[key]
        at[last] = value
        w.opt.load_state_dict(told)

    return call


def unpickled(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Makes an optimizer of what a pickle of another version, or another hand, may hold."""

    def call(w: Any) -> None:
        state = copy.deepcopy(w.opt.__getstate__())
        change(state)
        type(w.opt).__new__(type(w.opt)).__setstate__(state)

    return call


def as_nobody(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The call of a user who may not write here: root could."""

    def as_other(w: Any) -> None:
        mode, user = w.folder.stat().st_mode, os.geteuid()
        w.folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            call(w)
        finally:
            os.seteuid(user)
            w.folder.chmod(mode)

    return as_other


saved, PATH = worlds.saved, "path: expected a path"
CHECKPOINTS = [
    *(
        Case(
            f"{way} {name}",
            saved,
            partial(lambda w, way, path: getattr(w.opt, way)(path), way=way, path=path),
            error,
            text,
        )
        for way in ("save", "load")
        for name, path, error, text in (
            ("None", None, TypeError, f"{PATH}, str or os.PathLike, got None"),
            ("number", 3, TypeError, f"{PATH}, str or os.PathLike, got 3"),
            ("bytes", b"a.npz", TypeError, f"{PATH}, str or os.PathLike, got b'a.npz'"),
            ("empty", "", ValueError, f"{PATH} that is not empty and has no NUL, got ''"),
            ("NUL", "a\0b.npz", ValueError, f"{PATH} that is not empty and has no NUL, got 'a\\x00b.npz'"),
            ("long name", "x" * 300, OSError, "[Errno 36] File name too long: '…xxx'"),
        )
    ),
    *(
        Case(f"save {name}", saved, call, error, text)
        for name, call, error, text in (
            ("to no folder", lambda w: w.opt.save(w.folder / "no" / "a.npz"), FileNotFoundError,
             "[Errno 2] No such file or directory: '{folder}/no/a.npz'"),
            ("to no folder, safetensors", lambda w: w.opt.save(w.folder / "no" / "a.safetensors"), FileNotFoundError,
             "[Errno 2] No such file or directory: '{folder}/no/a.safetensors'"),
            ("below a file", lambda w: w.opt.save(w.folder / "state.npz" / "a.npz"), NotADirectoryError,
             "[Errno 20] Not a directory: '{folder}/state.npz/a.npz'"),
            ("to a folder", lambda w: w.opt.save(w.folder / "folder.npz"), IsADirectoryError,
             "[Errno 21] Is a directory: '{folder}/folder.npz'"),
            ("to a place of others", as_nobody(lambda w: w.opt.save(w.folder / "state.npz")), PermissionError,
             "[Errno 13] Permission denied: '{folder}/state.npz'"),
            ("to a place of others, safetensors", as_nobody(lambda w: w.opt.save(w.folder / "state.safetensors")),
             PermissionError, "[Errno 13] Permission denied: '{folder}/state.safetensors'"),
            ("params=1", lambda w: w.opt.save(w.folder / "a.npz", params=1), TypeError,
             "params: expected True or False, got 1 of type int"),
        )
    ),
    *(
        Case(f"load {name}", saved, partial(lambda w, name: w.opt.load(w.folder / name), name=name), error, text)
        for name, error, text in (
            ("no.npz", FileNotFoundError, "[Errno 2] No such file or directory: '{folder}/no.npz'"),
            ("no.safetensors", FileNotFoundError, "[Errno 2] No such file or directory: '{folder}/no.safetensors'"),
            ("folder.npz", IsADirectoryError, "[Errno 21] Is a directory: '{folder}/folder.npz'"),
            ("cut.npz", ValueError, "{folder}/cut.npz: no whole checkpoint of this optimizer: BadZipFile"),
            ("text.safetensors", ValueError, "{folder}/text.safetensors: no whole checkpoint of this optimizer: Safet"),
        )
    ),
    Case("load into another class", partial(saved, cls=fastadam.Adamax),
     lambda w: Adam(worlds.params()).load(w.folder / "state.npz"), ValueError,
     "{folder}/state.npz: optimizer: expected 'Adam', got 'Adamax'"),
    *(
        Case(f"dict {name}", saved, call, error, text)
        for name, call, error, text in (
            ("None", lambda w: w.opt.load_state_dict(None), TypeError,
             "state_dict: expected a dict as state_dict() giv"),
            ("empty", lambda w: w.opt.load_state_dict({}), ValueError, "state_dict: version: expected 1, got None"),
            ("of torch", put("optimizer", "SGD"), ValueError, "state_dict: optimizer: expected 'Adam', got 'SGD'"),
            ("t", put("t", -1), ValueError, "state_dict: t: expected a whole number >= 0 and < 2**62, got -1"),
            ("skipped", put("skipped", nan), TypeError,
             "state_dict: skipped: expected a whole number >= 0 and < 2**62, g"),
            ("eps", put("param_groups", 0, "eps", nan), ValueError,
             f"state_dict: param_groups[0]: eps: expected {RATE}"),
            ("betas", put("param_groups", 0, "betas", (0.9, nan)), ValueError,
             "state_dict: param_groups[0]: betas[1]: ex"),
            ("steps", put("param_groups", 0, "t", 10**9), ValueError,
             "state_dict: param_groups[0]: t: expected at mo"),
            ("last array", put("state", "2", "v", ones(4, "f4")), ValueError,
             "state_dict: v/2: expected shape (3,), got"),
            ("last dtype", put("state", "2", "v", ones(3)), ValueError,
             "state_dict: v/2: expected dtype float32, got flo"),
            ("last missing", put("state", "2", {"m": ones(3)}), ValueError,
             "state_dict['state']['2']: missing: ['v'], un"),
        )
    ),
    *(
        Case(f"pickle {name}", saved, call, error, text)
        for name, call, error, text in (
            ("cut", lambda w: pickle.loads(w.data[:-100]), pickle.UnpicklingError, "pickle data was truncated"),
            ("empty", lambda w: pickle.loads(b""), EOFError, "Ran out of input"),
            ("of integers",
             unpickled(lambda s: inside.change_pickled_params(s, (ones((2, 3), int), ones(4), ones(3)))),
             TypeError,
             f"params[0]: {DTYPE}int64"),
            ("of another shape", unpickled(has_states(ones(5), ones(4))), ValueError,
             "a state of params[1]: expected shape (4,) like the parameter, got (5,)"),
            ("of another dtype", unpickled(lambda s: inside.pickled_states(s).__setitem__(1, [ones(4, "f4"), ones(4)])),
             TypeError, "a state of params[1]: expected dtype float64 like the parameter, got float32"),
            ("of too few states", unpickled(lambda s: inside.pickled_states(s).__setitem__(1, [ones(4)])), ValueError,
             "expected 2 states a parameter, got 1"),
            ("of one array twice", unpickled(lambda s: inside.pickled_states(s)[1].__setitem__(1, inside.pickled_states(s)[1][0])),
             ValueError, "a state of params[1] and a state of params[1] share memory"),
        )
    ),
    Case("folder of another", worlds.in_folder, lambda w: Adam(ones(3), state_dir=w.folder / "others"), ValueError,
     "state_dir: {folder}/others/fastadam.json: optimizer: expected 'Adam', got 'Adamax'"),
    Case("folder that is a file", worlds.in_folder, lambda w: Adam(ones(3), state_dir=w.folder / "file"),
     FileExistsError, "[Errno 17] File exists: '{folder}/file'"),
    Case("folder and a group", worlds.in_folder, lambda w: w.opt.add_param_group({"params": ones(2)}), ValueError,
     "add_param_group: this optimizer's states are kept in a folder; make a new one with all of its groups"),
    Case("folder and a gradient", worlds.in_folder, lambda w: w.opt.step([*w.good[:2], None], **ALL), TypeError,
     "gradient of params[2]: is None; every parameter is stepped"),
    Case("folder and an option", worlds.in_folder, lambda w: w.opt.step(w.good, max_norm=nan), ValueError,
     f"max_norm: expected {NORM}, got nan"),
    Case("folder and a dict", worlds.in_folder, lambda w: w.opt.load_state_dict({**w.opt.state_dict(), "state": {}}),
     ValueError, "state_dict['state']: missing: ['0', '1', '2'], unknown: []"),
]  # fmt: skip

# ---------------------------------------------------------------- functions, own rules, Numba


def of_function(**changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A call with some of the arguments, or options, made of those that there are."""
    return lambda w: functional.adam(**(w.a | {name: change(w.a) for name, change in changes.items()}))


FUNCTION: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few g", of_function(g=lambda a: a["g"][:1]), ValueError, "g: expected 2 arrays, as many as p, got 1"),
    ("too many v", of_function(v=lambda a: a["v"] + a["m"]), ValueError, "v: expected 2 arrays, as many as p, got 4"),
    ("none", lambda w: functional.adam([], [], [], [], 1), ValueError,
     "p: expected at least one array, got an empty l"),
    ("nothing", lambda w: functional.adam(), TypeError, "adam() takes (p, g, m, v, t), got 0 of them"),
    ("no t", lambda w: functional.adam(*list(w.a.values())[:4]), TypeError,
     "adam() takes (p, g, m, v, t), got 4 of th"),
    ("mapping", of_function(p=lambda a: dict(enumerate(a["p"]))), ValueError,
     "g: expected 1 arrays, as many as p, got"),
    ("shape of m", of_function(m=lambda a: [a["m"][0], ones((2, 3))]), ValueError,
     "m[1]: expected shape (2, 2) like t"),
    ("shape of g", of_function(g=lambda a: [a["g"][0], ones((2, 3))]), ValueError,
     "gradient of p[1]: expected shape (2, 2)"),
    ("dtype of v", of_function(v=lambda a: [a["v"][0], ones((2, 2), "f4")]), TypeError, "v[1]: expected dtype float64"),
    ("dtype of g", of_function(g=lambda a: [a["g"][0], ones((2, 2), "f4")]), TypeError,
     "gradient of p[1]: expected dtype float64 like the parameter, got float32"),
    ("None as g", of_function(g=lambda a: [a["g"][0], None]), TypeError,
     "gradient of p[1]: is None; every parameter is"),
    ("list as m", of_function(m=lambda a: [a["m"][0], [[0.0] * 2] * 2]), TypeError, f"m[1]: {ARRAY}list"),
    ("integers", of_function(p=lambda a: [a["p"][0], ones((2, 2), int)]), TypeError, f"p[1]: {DTYPE}int64"),
    ("read-only v", of_function(v=lambda a: [a["v"][0], np.broadcast_to(1.0, (2, 2))]), ValueError,
     "v[1]: the array is read-only"),
    ("v is m", of_function(v=lambda a: [a["v"][0], a["m"][1]]), ValueError,
     "v[1] and m[1] share memory and would be st"),
    ("g is m", of_function(g=lambda a: [a["g"][0], a["m"][1]]), ValueError,
     "gradient of p[1]: shares memory with a parameter or a state"),
    *(
        (f"t = {t!r:.9}", of_function(t=lambda a, t=t: t), error, "t: expected a whole number >= 1 and < 2**62, got ")
        for t, error in ((0, ValueError), (-1, ValueError), (2**70, ValueError), (1.0, TypeError), (True, TypeError))
    ),
    ("lr", of_function(lr=lambda a: -1.0), ValueError, f"lr: expected {RATE}, got -1.0"),
    ("schedule", of_function(lr=lambda a: good_rate), TypeError, f"lr: expected {RATE}, got cosine("),
    ("betas", of_function(betas=lambda a: (0.9, 1.0)), ValueError, f"betas[1]: expected {BELOW_ONE}, got 1.0"),
    ("threads", of_function(n_threads=lambda a: 0), ValueError, f"n_threads: expected {THREADS}, got 0"),
    ("amsgrad", of_function(amsgrad=lambda a: True), TypeError,
     "amsgrad: adam() has no such option; it has lr, betas,"),
    ("momentum", of_function(momentum=lambda a: 0.9), TypeError,
     "momentum: adam() has no such option; it has lr, betas"),
]  # fmt: skip


def two(p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p - lr * g, m


def rate(t: Any, lr: Any) -> Any:
    return (lr,)


def in_place(p: Any, g: Any, m: Any, lr: Any) -> Any:
    m *= lr
    return p - m, m


def made(update: Any = two, scalars: Any = rate, states: Any = ("m",), **more: Any) -> Callable[[Any], Any]:
    """Makes an optimizer of a rule, and a step with it."""

    def call(w: Any) -> None:
        fastadam.optimizer(update, scalars, states, **{"lr": 0.1} | more)(w.p, backend="numpy").step(w.g)

    return call


OTHER_NAME = "means something else in an optimizer; give this hyper-parameter another name"
RETURNS = "'<lambda>': expected it to return one real number for "
RULES: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("update None", made(None), TypeError, "update: expected a Python function, got None"),
    ("update builtin", made(max), TypeError, "update: expected a Python function, got <built-in function max>"),
    ("scalars None", made(scalars=None), TypeError, "scalars: expected a Python function, got None"),
    ("states text", made(states="m"), TypeError, "states: expected a list of names, such as ['m', 'v'], got 'm'"),
    ("states None", made(states=None), TypeError, "states: expected a list of names, such as ['m', 'v'], got None"),
    ("states numbers", made(states=[1]), TypeError, "states: expected a list of names, such as ['m', 'v'], got [1]"),
    ("states others", made(states=["v"]), TypeError,
     "'two': expected the arguments p, g, v, then scalars; got ('p', 'g"),
    ("states twice", made(states=["m", "m"]), TypeError, "'two': expected the arguments p, g, m, m, then scalars; got"),
    ("states none", made(states=[]), TypeError, "scalars of 'two': expected a tuple of 2 numbers, as 'two' takes, got"),
    ("few arguments", made(lambda p: (p,), states=[]), TypeError, "'<lambda>': expected the arguments p, g, "),
    ("one result", made(lambda p, g, m, lr: p), TypeError,
     "'<lambda>': expected it to return a tuple of 2, (p, m), got"),
    ("no result", made(lambda p, g, m, lr: None), TypeError,
     "'<lambda>': expected it to return a tuple of 2, (p, m), g"),
    ("three results", made(lambda p, g, m, lr: (p, m, m)), TypeError, "…a tuple of 2, (p, m), got 3 values"),
    ("result of a shape", made(lambda p, g, m, lr: (p, ones(2))), TypeError, f"{RETURNS}m, got array([1., 1.])"),
    ("result complex", made(lambda p, g, m, lr: (p * 1j, m)), TypeError, f"{RETURNS}p, got array("),
    ("result None", made(lambda p, g, m, lr: (None, m)), TypeError, f"{RETURNS}p, got None"),
    ("update that fails", made(lambda p, g, m, lr: (p / m.none, m)), AttributeError, "'numpy.ndarray' object has no"),
    ("scalars without t", made(scalars=lambda lr: (lr,)), TypeError, "scalars of 'two': expected t as its first argum"),
    ("scalars too many", made(scalars=lambda t, lr: (lr, lr)), TypeError,
     "scalars of 'two': expected a tuple of 1 numb"),
    ("scalars no tuple", made(scalars=lambda t, lr: lr), TypeError,
     "scalars of 'two': expected a tuple of 1 numbers, a"),
    ("scalars text", made(scalars=lambda t, lr: ("1",)), TypeError, "scalars of 'two': …takes, got ('1',)"),
    ("scalars array", made(scalars=lambda t, lr: (ones(1),)), TypeError, "scalars of 'two': …takes, got (array([1.]),"),
    ("scalars None in", made(scalars=lambda t, lr: (None,)), TypeError, "scalars of 'two': …takes, got (None,)"),
    ("scalars without default", made(scalars=lambda t, lr, b: (lr,)), TypeError,
     "scalars of 'two': its argument 'b' has"),
    ("default for nothing", made(beta=0.9), TypeError,
     "beta: not an argument of the scalars of 'two', which are ('lr'"),
    ("default text", made(lr="x"), TypeError, f"lr: expected {RATE}, got 'x' of type str"),
    ("default infinite", made(scalars=lambda t, lr, beta: (lr,), beta=inf), ValueError,
     "beta: expected a number that is finite, got inf"),
    ("decoupled", made(decoupled_weight_decay="yes"), TypeError,
     "decoupled_weight_decay: expected True or False, got 'y"),
    ("called step", made(scalars=lambda t, lr, step: (lr,), step=1.0), ValueError, f"step: {OTHER_NAME}"),
    ("called seed", made(scalars=lambda t, lr, seed: (lr,), seed=1.0), ValueError, f"seed: {OTHER_NAME}"),
    ("called params", made(scalars=lambda t, lr, params: (lr,), params=1.0), ValueError, f"params: {OTHER_NAME}"),
    ("called factor", made(scalars=lambda t, lr, factor: (lr,), factor=1.0), ValueError, f"factor: {OTHER_NAME}"),
    ("state called master", made(lambda p, g, master, lr: (p, master), states=["master"]), ValueError,
     "'<lambda>': 'master' means another array in checkpoints; give this state another name"),
    ("called betas", made(scalars=lambda t, lr, betas: (lr,), betas=0.5), ValueError, f"betas: {OTHER_NAME}"),
    ("default a pair", made(scalars=lambda t, lr, betas: (lr,), betas=(0.5, 0.5)), TypeError,
     "betas: expected a number that is finite, got (0.5, 0.5) of type tuple"),
    *(
        (f"mixing by {name}", made(update), ValueError,
         "'<lambda>': expected what it returns for an element to depend on that element alone, but it changes")
        for name, update in (
            ("norm", lambda p, g, m, lr: (p - lr * g / np.sqrt((g * g).sum()), m)),
            ("mean in a state", lambda p, g, m, lr: (p - lr * g, m + np.mean(g))),
            ("largest", lambda p, g, m, lr: (p - lr * g / np.max(g), m)),
            ("sums so far", lambda p, g, m, lr: (p - lr * np.cumsum(g), m)),
            ("size", lambda p, g, m, lr: (p - lr * g / g.size, m)),
        )
    ),
    ("if in NumPy", made(lambda p, g, m, lr: (p - lr if g > m else p + lr, m)), TypeError,
     "'<lambda>': backend='numpy' runs it on arrays, where it fails: The truth value … write numpy.where for an if"),
    ("in place in NumPy", made(in_place), TypeError,
     "'in_place': backend='numpy' runs it on arrays, where it fails: output array is read-only; write numpy.where"),
    ("unknown option", lambda w: fastadam.optimizer(two, rate, ["m"], lr=0.1)(w.p, beta=0.9, backend="numpy"),
     TypeError, "beta: unknown option of two; it has lr, weight_decay, maximize, grads, backend,"),
    ("compiled", lambda w: fastadam.optimizer(two, rate, ["m"], lr=0.1)(w.p, backend="cython"), ValueError,
     "backend: rule 'two' is not built in; use backend='numba' or 'numpy'"),
]  # fmt: skip
#: scalars that go wrong at the second step, where a group before has had its own
LATER: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few", lambda lr: (), ValueError, "scalars of 'heavy' at t = 2: expected 5, got 4"),
    ("too many", lambda lr: (lr, lr), ValueError, "scalars of 'heavy' at t = 2: expected 5, got 6"),
    ("text", lambda lr: ("x",), ValueError, "could not convert string to float: 'x'"),
    ("failing", zero_division, ZeroDivisionError, "division by zero"),
    ("failing in the second group", lambda lr: (lr / (lr - 0.5),), ZeroDivisionError, "float division by zero"),
]  # fmt: skip

STEP = "adam_step: "
NUMBA: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("t = 0", lambda w: w.step(t=0), ValueError, f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("t = -3", lambda w: w.step(t=-3), ValueError, f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("t = nan", lambda w: w.step(t=nan), ValueError,
     f"{STEP}t: expected a count of steps, which begins at 1, got less"),
    ("shape of g", lambda w: w.step(g=ones((2, 4))), ValueError, f"{STEP}g: expected the shape of p in C order"),
    ("axes of v", lambda w: w.step(v=ones(6)), ValueError,
     f"{STEP}v: expected the shape of p in C order; see numpy.asc"),
    ("order of m", lambda w: w.step(m=ones((3, 2)).T), ValueError, f"{STEP}m: expected the shape of p in C order; see"),
    ("dtype of g", lambda w: w.step(g=ones((2, 3), "f4")), TypeError,
     f"{STEP}g: expected float32 or float64, the same"),
    ("integers", lambda w: w.step(p=ones((2, 3), int)), TypeError,
     f"{STEP}p: expected float32 or float64, the same for"),
    ("complex", lambda w: w.step(**{name: ones((2, 3), complex) for name in "pgmv"}), TypeError,
     f"{STEP}p: expected float32 or float64, the same for"),
    ("another rule", lambda w: __import__("fastadam.numba").numba.sgd_step, AttributeError,
     "module 'fastadam.numba' has no attribute 'sgd_step'; it has rules adam, amsgrad,"),
]  # fmt: skip

#: the C interface: its codes, by both clients
C: list[tuple[str, Callable[[Any], Any], str]] = [
    ("options NULL", lambda w: w.step(null=-1), "BAD_OPTIONS"),
    ("size 0", lambda w: w.step(size=0), "BAD_OPTIONS"),
    ("size of an older header", lambda w: w.step(size=8 + 8 * 11), "BAD_OPTIONS"),
    ("size of a newer header", lambda w: w.step(size=8 + 8 * 13), "BAD_OPTIONS"),
    ("n = -1", lambda w: w.step(n=-1), "BAD_LENGTH"),
    ("n = -2**62", lambda w: w.step(n=-(2**62)), "BAD_LENGTH"),
    ("t = 0", lambda w: w.step(t=0), "BAD_STEP"),
    ("t = -1", lambda w: w.step(t=-1), "BAD_STEP"),
    ("p NULL", lambda w: w.step(null=0), "NULL_POINTER"),
    ("g NULL", lambda w: w.step(null=1), "NULL_POINTER"),
    ("m NULL", lambda w: w.step(null=2), "NULL_POINTER"),
    ("v NULL", lambda w: w.step(null=3), "NULL_POINTER"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("call", "code"), [row[1:] for row in C], ids=[row[0] for row in C])
def test_refused_in_c(call: Any, code: str, dtype: str, client: Any, tmp_path: Path) -> None:
    refused(Case("", partial(worlds.in_c, client=client, dtype=dtype), call, Refused, f"FASTADAM_{code}"), tmp_path)


# ---------------------------------------------------------------- adapters

OF_STATE = "like instance.parameters, got "
ARTICLE: list[tuple[str, dict[str, Any], Any, str]] = [
    ("shape", {"grad": ones(5)}, ValueError, f"instance.grad: expected shape (3,) {OF_STATE}(5,)"),
    ("None", {"grad": None}, TypeError, "instance.grad: expected real numbers, got object"),
    ("masked", {"grad": np.ma.ones(3)}, TypeError,
     "instance.grad: a masked array is not supported, its mask would be i"),
    ("complex", {"grad": ones(3, complex)}, TypeError, "instance.grad: expected real numbers, got complex128"),
    ("text", {"grad": "1.0"}, TypeError, "instance.grad: expected real numbers, got <U3"),
    ("lists", {"grad": [[1.0], [1.0, 2.0]]}, TypeError,
     "instance.grad: expected real numbers, got [[1.0], [1.0, 2.0]]"),
    ("parameters None", {"parameters": None}, TypeError, "instance.parameters: expected real numbers, got object"),
    ("parameters whole", {"parameters": ones(3, int)}, TypeError, f"instance.parameters: {DTYPE}int64"),
    ("parameters frozen", {"parameters": np.broadcast_to(1.0, 3)}, ValueError,
     "instance.parameters: the array is read-only"),
    ("m", {"m": ones(5)}, ValueError, f"the state m: expected shape (3,) {OF_STATE}(5,)"),
    ("v", {"v": "x"}, TypeError, "the state v: expected real numbers, got <U1"),
    ("alpha", {"alpha": "3"}, TypeError, "alpha: expected a number, got '3'"),
    ("epsilon", {"epsilon": None}, TypeError, "epsilon: expected a number, got None"),
]  # fmt: skip

CANNOT = "Adam cannot use it; leave it out, or take SciPy's method="
SCIPY: list[tuple[str, dict[str, Any], Any, str]] = [
    ("hess", {"hess": lambda x: x}, ValueError, f"hess: {CANNOT}'Newton-CG'"),
    ("constraints", {"constraints": {"type": "eq", "fun": sum}}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ("an array of constraints", {"constraints": np.array([sum, sum])}, ValueError, f"constraints: {CANNOT}'SLSQP'"),
    ("callback", {"callback": 5}, TypeError, "callback: expected a function, got 5 of type int"),
    ("tol", {"tol": nan}, ValueError, f"tol: expected {RATE}, got nan"),
    ("maxiter", {"options": {"maxiter": 1e4}}, TypeError,
     "maxiter: expected a whole number >= 0 and < 2**62, got 10000."),
    ("gtol", {"options": {"gtol": 1}}, TypeError, "gtol: unknown option of Adam as a method; it has lr, betas, eps,"),
    ("lr", {"options": {"lr": -1}}, ValueError, f"lr: expected {RATE}, got -1"),
    ("bounds", {"bounds": [(0, 1)] * 3}, ValueError,
     "bounds: expected Bounds, or a pair (low, high) for each of the 2"),
    ("crossed bounds", {"bounds": [(0, 1), (2, 1)]}, ValueError,
     "bounds: expected low <= high, with numbers between, go"),
    ("x0", {"x0": [1, nan]}, ValueError, "x0: expected finite numbers, got nan at 1"),
    ("complex x0", {"x0": [1j, 0]}, TypeError, "x0: expected real numbers, got complex128"),
]  # fmt: skip


def coefs(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    """Trains on, the second layer's weights being others; a fit puts back what it was given."""

    def call(w: Any) -> None:
        good = w.model.coefs_[1]
        w.model.coefs_[1] = change(good)
        try:
            w.fit()
        finally:
            w.model.coefs_[1] = good

    return call


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


SKLEARN: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("integers", coefs(lambda c: c.astype(int)), TypeError, f"coefs_[1]: {DTYPE}int64"),
    ("frozen", coefs(frozen), ValueError, "coefs_[1]: the array is read-only and would be written in place"),
    ("windows", coefs(lambda c: as_strided(c, c.shape, (0, 0))), ValueError,
     "coefs_[1]: several of its elements share"),
]  # fmt: skip

THINC: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("weights", lambda w: w.opt(w.key, [1.0], w.g), TypeError,
     "weights of (1, 'W'): expected a numpy array, got builtins"),
    ("gradient", lambda w: w.opt(w.key, w.w, [1.0]), TypeError,
     "gradient of (1, 'W'): expected a numpy array, got built"),
    ("shape", lambda w: w.opt(w.key, w.w, w.g[:2]), ValueError,
     "gradient of (1, 'W'): expected shape (3,) like the para"),
    ("integers", lambda w: w.opt(w.key, w.w.astype(int), w.g), TypeError, f"weights of (1, 'W'): {DTYPE}int64"),
    ("float16", lambda w: w.opt((9, "W"), w.w.astype("f2"), w.g.astype("f2")), TypeError,
     "weights of (9, 'W'): expected float32 or float64, got float16; use .astype('float32')"),
    ("frozen", lambda w: w.opt(w.key, w.w, frozen(w.g)), ValueError,
     "gradient of (1, 'W'): the array is read-only and"),
    ("itself", lambda w: w.opt(w.key, w.w, w.w), ValueError,
     "gradient of (1, 'W'): shares memory with a parameter or a"),
    ("grown", lambda w: w.opt(w.key, ones(5, "f4"), ones(5, "f4")), ValueError,
     "mom1[(1, 'W')]: expected an array of 5"),
    ("lr_scale", lambda w: w.opt(w.key, w.w, w.g, lr_scale=-1.0), ValueError, f"lr_scale: expected {RATE}, got -1.0"),
    ("lr_scale text", lambda w: w.opt(w.key, w.w, w.g, lr_scale="1"), TypeError,
     f"lr_scale: expected {RATE}, got '1' of"),
]  # fmt: skip


def in_group(**wrong: Any) -> Callable[[Any], Any]:
    """Puts options into the second group of a torch optimizer; returns what takes them out again."""

    def change(w: Any) -> Any:
        good = {name: w.group[name] for name in wrong}
        w.group.update(wrong)
        return lambda: w.group.update(good)

    return change


def in_state(name: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Puts a state of the second tensor in the place of its own."""

    def change(w: Any) -> Any:
        good = w.state[name]
        w.state[name] = make(good)
        return lambda: w.state.__setitem__(name, good)

    return change


def in_grad(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(w: Any) -> None:
        w.b.grad = make(w)

    return change


SECOND = "param_groups[1]['params'][0]"
STEPS = f"the state of {SECOND}['step']: expected a whole number >= 0 and < 2**62, got "
#: changes before a step, with steps before and, where no state is needed, without
TORCH: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("lr text", in_group(lr="x"), TypeError, f"param_groups[1]['lr']: expected {RATE}, got 'x' of type str"),
    ("lr", in_group(lr=-1.0), ValueError, f"param_groups[1]['lr']: expected {RATE}, got -1.0"),
    ("lr NaN", in_group(lr=nan), ValueError, f"param_groups[1]['lr']: expected {RATE}, got nan"),
    ("lr function", in_group(lr=good_rate), TypeError, f"param_groups[1]['lr']: expected {RATE}, got cosine("),
    ("betas", in_group(betas=(0.9,)), ValueError, "param_groups[1]['betas']: expected a pair of numbers, got 1 of the"),
    ("betas 2", in_group(betas=(0.9, 2.0)), ValueError, f"param_groups[1]['betas'][1]: expected {BELOW_ONE}, got 2.0"),
    ("eps", in_group(eps=None), TypeError, f"param_groups[1]['eps']: expected {RATE}, got None of type NoneType"),
    ("decay", in_group(weight_decay=-1), ValueError, f"param_groups[1]['weight_decay']: expected {RATE}, got -1"),
    ("maximize", in_group(maximize="no"), TypeError, "param_groups[1]['maximize']: expected True or False, got 'no'"),
    ("sparse", in_grad(lambda w: w.b.detach().to_sparse()), TypeError,
     f"gradient of {SECOND} is sparse (torch.sparse_coo"),
    ("itself", in_grad(lambda w: w.b.detach()), ValueError,
     f"gradient of {SECOND}: shares memory with a parameter or a"),
]  # fmt: skip
TORCH_STATES: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("shape", in_state("exp_avg", lambda m: m[:1]), ValueError,
     f"a state of {SECOND}: expected shape (2, 2) like the par"),
    ("text", in_state("exp_avg", lambda m: "x"), TypeError,
     f"the state of {SECOND}: 'exp_avg': expected a tensor, got st"),
    ("step NaN", in_state("step", lambda t: t * nan), TypeError, f"{STEPS}nan of type float"),
    ("step -1", in_state("step", lambda t: t - 2), ValueError, f"{STEPS}-1"),
    ("step 1.5", in_state("step", lambda t: t * 1.5), TypeError, f"{STEPS}1.5 of type float"),
    ("amsgrad", in_group(amsgrad=True), ValueError,
     f"the state of {SECOND}: expected 'max_exp_avg_sq' after step 1, got ['exp_avg', 'exp_avg_sq', 'step"),
]  # fmt: skip
FROM_TORCH: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("nothing", lambda s: {}, ValueError, "state_dict: expected the keys 'state' and 'param_groups', got []"),
    ("None", lambda s: None, TypeError, "state_dict: expected torch_optimizer.state_dict(), got NoneType"),
    ("a group", lambda s: s | {"param_groups": []}, ValueError, "state_dict: expected 1 groups, got 0"),
    ("a state", lambda s: s | {"state": {0: s["state"][0]}}, ValueError,
     "state_dict['param_groups'][0]: parameter 0 has"),
    ("an array", lambda s: s | {"state": {0: s["state"][0], 1: {"step": 1.0}}}, ValueError, "…missing: ['m', 'v']"),
    ("a rate", lambda s: s | {"param_groups": [s["param_groups"][0] | {"lr": nan}]}, ValueError,
     f"state_dict: param_groups[0]: lr: expected {RATE}, got nan"),
]  # fmt: skip


def step(w: Any) -> None:
    w.opt.step()


def of_torch() -> list[Case]:
    """Those that need torch, which the tests' extra does not bring; CI does."""
    if find_spec("torch") is None:
        return []
    from fastadam.adapters.torch_state import import_state

    made = [
        Case(f"torch {name}, {'warm' if warm else 'cold'}", partial(worlds.torch, warm=warm, change=change), step, *row)
        for table, starts in ((TORCH, (True, False)), (TORCH_STATES, (True,)))
        for name, change, *row in table
        for warm in starts
    ]
    for name, change, error, text in FROM_TORCH:
        call = partial(lambda w, change: import_state(w.opt, change(w.state)), change=change)
        made.append(Case(f"from torch {name}", worlds.from_torch, call, error, text))
    return made


# ---------------------------------------------------------------- all of them


def of_rows(table: str, world: Callable[[Path], Any], rows: list[Any]) -> list[Case]:
    return [Case(f"{table} {name}", world, *row) for name, *row in rows]


FIFTY_SEVENTH = fifty_seventh()
CASES = [
    *of_options(),
    *of_arguments(),
    *of_rows("params", fresh, CONSTRUCTION),
    *(
        Case(f"added {name}", running, partial(lambda w, give: w.opt.add_param_group(give(w)), give=give), error, text)
        for name, give, error, text in ADDED
    ),
    *(
        Case(f"grads {name}", partial(running, give=give), lambda w: w.opt.step(w.given, **ALL), error, text)
        for name, give, error, text in GRADIENTS
    ),
    *FIFTY_SEVENTH,
    *STRUCTURES,
    *GROUPS,
    *CHECKPOINTS,
    *of_rows("functional", worlds.function, FUNCTION),
    *of_rows("rule", fresh, RULES),
    *(
        Case(f"scalars {name}", partial(worlds.own_rule, scalars=scalars), lambda w: w.call(), error, text)
        for name, scalars, error, text in LATER
    ),
    *of_rows("numba", worlds.jitted, NUMBA),
    *(
        Case(
            f"article {name}, {'warm' if warm else 'cold'}",
            partial(worlds.article, warm=warm, **wrong),
            step,
            error,
            text,
        )
        for name, wrong, error, text in ARTICLE
        for warm in (True, False)
    ),
    *(
        Case(f"scipy {name}", worlds.scipy, partial(lambda w, given: w.call(**given), given=given), error, text)
        for name, given, error, text in SCIPY
    ),
    *of_rows("sklearn", worlds.sklearn, SKLEARN),
    *of_rows("thinc", worlds.thinc, THINC),
    *of_torch(),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_refused(case: Case, tmp_path: Path) -> None:
    refused(case, tmp_path)
