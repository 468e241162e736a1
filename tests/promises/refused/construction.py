"""Parameters that cannot be stepped, and arguments of the constructor that are not options of a group."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from ml_dtypes import float8_e5m2
from numpy import ones
from numpy.lib.stride_tricks import as_strided

import fastadam
from fastadam import Adam

from .case import ARRAY, DTYPE, RATE, THREADS, Case, of_rows
from .worlds import Instance, fresh

ONE_PLACE = "params: several of its elements share memory; pass a copy"
OWN = "it has params, lr, betas, eps, weight_decay, amsgrad, maximize,"
CONSTRUCTION: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("number", lambda w: Adam(3.0), TypeError, f"params: {ARRAY}float; put numbers into an array: numpy.array("),
    ("numbers", lambda w: Adam([1.0, 2.0]), TypeError, f"params[0]: {ARRAY}float"),
    ("None", lambda w: Adam(None), TypeError, f"params: {ARRAY}NoneType"),
    ("text", lambda w: Adam("weights"), TypeError, f"params: {ARRAY}str"),
    ("empty list", lambda w: Adam([]), ValueError, "params: expected at least one array, got an empty list"),
    ("empty dict", lambda w: Adam({}), ValueError, "params: expected at least one array, got an empty dict"),
    ("set", lambda w: Adam({1, 2}), TypeError, "params: a set has no order by which arrays are matched; pass a list"),
    ("nested list", lambda w: Adam([[w.p, [1.0]]]), TypeError, f"params[0][1][0]: {ARRAY}float"),
    ("bytes in memory", lambda w: Adam([memoryview(w.p)]), TypeError, f"params[0]: {ARRAY}memoryview"),
    ("sparse", lambda w: Adam(scipy.sparse.eye(3)), TypeError, f"params: {ARRAY}dia_matrix; pass .toarray()"),
    ("integers", lambda w: Adam(ones(3, int)), TypeError, f"params: {DTYPE}int64; convert with .astype("),
    ("complex", lambda w: Adam(ones(3, np.clongdouble)), TypeError, f"params: {DTYPE}complex256"),
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
    ("group without params", lambda w: Adam([{"lr": 1.0}]), TypeError, f"params[0]['lr']: {ARRAY}float"),
    ("group of None", lambda w: Adam([{"params": None}]), TypeError, f"params[0]['params']: {ARRAY}NoneType"),
    ("group of a set", lambda w: Adam([{"params": {1}}]), TypeError, "params[0]['params']: a set has no order"),
    ("group and array", lambda w: Adam([{"params": w.p}, w.g]), TypeError,
     "params[1]: expected a group as a dict with the key 'params', got ndarray"),
    ("unknown option of a group", lambda w: Adam([{"params": w.p, "rate": 1}]), ValueError,
     "params[0]['rate']: unknown option; did you mean lr?"),
    ("last group", lambda w: Adam([{"params": w.p}, {"params": w.g, "lr": -1}]), ValueError,
     f"params[1]['lr']: expected {RATE}, got -1"),
    ("another rule", lambda w: Adam(w.p, nesterov=True), TypeError, f"nesterov: unknown option of Adam; {OWN}"),
    ("nesterov alone", lambda w: fastadam.SGD(w.p, nesterov=True), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.0, dampening=0.0"),
    ("nesterov dampened", lambda w: fastadam.SGD(w.p, momentum=0.9, dampening=0.5, nesterov=True), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.9, dampening=0.5"),
    ("nesterov of a group", lambda w: fastadam.SGD([{"params": w.p}, {"params": w.g, "nesterov": True}]), ValueError,
     "nesterov: needs a momentum above 0 and a dampening of 0, got momentum=0.0, dampening=0.0"),
    ("nothing", lambda w: Adam(), TypeError, "Adam: missing a required argument: 'params'; it takes (params, lr"),
    ("base class", lambda w: fastadam.Optimizer(w.p, {}), TypeError, "Optimizer has no rule; use a class of f"),
    ("bound shape", lambda w: Adam(w.p, grads=ones(4)), ValueError, "gradient of params: expected shape (3,) like the"),
    ("bound sequence", lambda w: Adam([w.p], grads=w.g), TypeError,
     "grads: expected a sequence like params, got ndarr"),
    ("bound number", lambda w: Adam(w.p, grads=np.float64(1)), ValueError, "gradient of params: expected shape (3,)"),
    ("bound parameter", lambda w: Adam(w.p, grads=w.p), ValueError,
     "gradient of params: shares memory with a paramete"),
    ("object and gradients", lambda w: Adam(Instance(w.p, w.g), grads=w.g), ValueError,
     "grads: an object brings its own gradients as .grad; leave grads out"),
    ("16 bits for 64", lambda w: Adam(w.p, state_dtype="bfloat16"), ValueError,
     "state_dtype: params is float64, which has no states of bfloat16; leave state_dtype out"),
    ("8 bits for 64", lambda w: Adam([ones(3).astype("f4"), w.p], state_dtype="int8"), ValueError,
     "state_dtype: params[1] is float64, which has no states of …; leave state_dtype out, or give it a group with"),
    ("16 bits for complex", lambda w: Adam(w.p.astype("c8"), state_dtype="bfloat16"), ValueError,
     "state_dtype: params is complex64, which has no states of bfloat16"),
    ("8 bits for complex128", lambda w: Adam(w.p.astype("c16"), state_dtype="int8", min_8bit_size=999), ValueError,
     "state_dtype: params is complex128, which has no states of …"),
    ("8 bits of a group", lambda w: Adam([{"params": w.p, "state_dtype": "uint8"}]), ValueError,
     "params[0]['state_dtype']: expected None, 'bfloat16' or 'int8', got 'uint8'"),
    ("8 bits of a size", lambda w: Adam([{"params": w.p, "min_8bit_size": -1}]), ValueError,
     "params[0]['min_8bit_size']: expected a whole number >= 0 and < 2**62, got -1"),
]  # fmt: skip


def model(**members: Any) -> Any:
    """An object of a class with these members, and with gradients."""
    return type("Model", (), {"grad": ones(3), **members})()


def failing(self: Any) -> Any:
    raise OSError("the disk is gone")


OF_OBJECT = "; an object needs arrays as .parameters and their gradients as .grad"
#: what is no pair of a name and an array, or no object of the protocol
LIKE_OTHERS: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    *(
        (f"{what} as a name, {where}", partial(lambda w, key, wrap: Adam(wrap([(key, w.p)])), key=key, wrap=wrap),
         TypeError, f"params{place}[0][0]: {ARRAY}{kind}")
        for what, key, kind in (
            ("a number", 1, "int"), ("bytes", b"W", "bytes"), ("None", None, "NoneType"), ("a flag", True, "bool"),
        )
        for where, wrap, place in (
            ("alone", list, ""), ("in a dict", lambda own: {"layer": own}, "['layer']"),
            ("in a group", lambda own: [{"params": own}], "[0]['params']"),
        )
    ),
    ("a name and a number", lambda w: Adam([("W", w.p), (1, w.g)]), TypeError, f"params[0][0]: {ARRAY}str"),
    ("a number and a name", lambda w: Adam([(1, w.p), ("W", w.g)]), TypeError, f"params[0][0]: {ARRAY}int"),
    ("a pair and an array", lambda w: Adam([("W", w.p), w.g]), TypeError, f"params[0][0]: {ARRAY}str"),
    ("a name alone", lambda w: Adam([("W",), ("b",)]), TypeError, f"params[0][0]: {ARRAY}str"),
    ("three entries", lambda w: Adam([("W", w.p, w.g)]), TypeError, f"params[0][0]: {ARRAY}str"),
    ("a pair as a list", lambda w: Adam([["W", w.p]]), TypeError, f"params[0][0]: {ARRAY}str"),
    ("a pair whose array is none", lambda w: Adam([("W", 1.0)]), TypeError, f"params['W']: {ARRAY}float"),
    ("numbers for names, of gradients", lambda w: Adam({1: w.p}, grads=[(1, w.g)]), TypeError,
     "grads: expected a mapping like params, got list"),
    ("bytes for names, of gradients", lambda w: Adam({b"W": w.p}).step([(b"W", w.g)]), TypeError,
     "grads: expected a mapping like params, got list"),
    ("three entries, of gradients", lambda w: Adam({"W": w.p}).step([("W", w.g, w.g)]), TypeError,
     "grads: expected a mapping like params, got list"),
    *(
        (f"object whose parameters are {name}", partial(lambda w, give: Adam(give(w)), give=give), error, text)
        for name, give, error, text in (
            ("a method", lambda w: model(parameters=lambda self: [w.p]), TypeError, f"params: {ARRAY}Model{OF_OBJECT}"),
            ("a class's method", lambda w: model(parameters=classmethod(lambda cls: [w.p])), TypeError,
             f"params: {ARRAY}Model{OF_OBJECT}"),
            ("a generator's method", lambda w: model(parameters=lambda self: (yield w.p)), TypeError,
             f"params: {ARRAY}Model{OF_OBJECT}"),
            ("a method that fails", lambda w: model(parameters=failing), TypeError, f"params: {ARRAY}Model{OF_OBJECT}"),
            ("a method of a class", lambda w: type(model(parameters=lambda self: [w.p])), TypeError,
             f"params: {ARRAY}type{OF_OBJECT}"),
            ("a method, of a list", lambda w: type("Model", (list,), {"parameters": failing})([w.p]), TypeError,
             f"params: {ARRAY}Model; "),
            ("a method, of what is read once", lambda w: type("Model", (), {"parameters": failing,
             "__iter__": lambda self: iter([w.p])})(), TypeError, f"params: {ARRAY}Model{OF_OBJECT}"),
            ("a property that fails", lambda w: model(parameters=property(failing)), OSError, "the disk is gone"),
            ("None", lambda w: model(parameters=None), TypeError, f"params: {ARRAY}NoneType"),
            ("no arrays", lambda w: model(parameters=()), ValueError, "params: expected at least one array, got an em"),
            ("a number", lambda w: model(parameters=property(lambda self: 1.0)), TypeError, f"params: {ARRAY}float"),
            ("in a list", lambda w: [model(parameters=lambda self: [w.p])], TypeError,
             f"params[0]: {ARRAY}Model{OF_OBJECT}"),
            ("those of an object in a list", lambda w: [Instance(w.p, w.g)], TypeError,
             f"params[0]: {ARRAY}Instance{OF_OBJECT}"),
            ("arrays, without gradients", lambda w: type("Model", (), {"parameters": [w.p]})(), TypeError,
             f"params: {ARRAY}Model{OF_OBJECT}"),
        )
    ),
]  # fmt: skip

SEED = "a whole number >= 0 and < 2**64"
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
    ("seed", 1.5, TypeError, SEED),
    ("seed", None, TypeError, SEED),
    ("master_weights", 1, TypeError, "True or False"),
    ("state_dtype", "float16", ValueError, "None, 'bfloat16' or 'int8'"),
    ("state_dtype", np.float32, ValueError, "None, 'bfloat16' or 'int8'"),
    ("state_dtype", ["bfloat16"], ValueError, "None, 'bfloat16' or 'int8'"),
    ("state_dtype", ones(2), ValueError, "None, 'bfloat16' or 'int8'"),
    ("state_dtype", np.uint8, ValueError, "None, 'bfloat16' or 'int8'"),
    ("min_8bit_size", -1, ValueError, "a whole number >= 0 and < 2**62"),
    ("min_8bit_size", 0.5, TypeError, "a whole number >= 0 and < 2**62"),
    ("min_8bit_size", None, TypeError, "a whole number >= 0 and < 2**62"),
    ("state_dir", 3, TypeError, "a path, str or os.PathLike"),
    ("state_dir", b"states", TypeError, "a path, str or os.PathLike"),
    ("state_dir", "", ValueError, "a path that is not empty and has no NUL"),
    ("state_dir", "a\0b", ValueError, "a path that is not empty and has no NUL"),
]  # fmt: skip


def of_arguments() -> list[Case]:
    made = []
    for name, value, error, allowed in HOW:
        call = partial(lambda w, given: Adam([w.p, w.q], **given), given={name: value})
        made.append(Case(f"{name}={value!r:.20}", fresh, call, error, f"{name}: expected {allowed}, got {value!r}"))
    return made


CASES = [*of_arguments(), *of_rows("params", fresh, CONSTRUCTION + LIKE_OTHERS)]
