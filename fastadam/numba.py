"""The rules under Numba: each compiled to a sweep with the C signature that plans call.
Imported only when asked for; Numba is an optional dependency (``pip install 'fastadam[numba]'``).
"""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import types

from . import rules
from .kernel import generate
from .kernel._plan import Kernel
from .rules import Rule

_SWEEP = types.void(types.intp, types.CPointer(types.voidptr), types.voidptr)
_STEP = types.void(types.float64, types.CPointer(types.float64), types.CPointer(types.float64))

# As text: the arity differs from rule to rule, and Numba unrolls no argument lists in a C callback.
_SOURCE = """
def sweep(n, arrays, scalars):
    s = carray(scalars, {n_scalars}, real)
{views}
{sweep_body}

def step(t, hyper, out):
{step_body}
"""


def compile_rule(rule: Rule) -> Kernel:
    """A kernel of `rule` whose sweeps and step scalars are machine code by Numba."""
    views = (f"    {name} = carray(arrays[{k}], n, real)" for k, name in enumerate(generate.arrays(rule)))
    source = _SOURCE.format(
        n_scalars=rule.n_scalars,
        views="\n".join(views),
        sweep_body=generate.sweep_body(rule, "update"),
        step_body=generate.step_body(rules, rule, "scalars_of_step"),
    )
    names = {
        "prepare": _jit(rules.prepare),
        "prepare_scalars": _jit(rules.prepare_scalars),
        "update": _jit(rule.update),
        "scalars_of_step": _jit(rule.scalars),
        "carray": numba.carray,  # type: ignore[attr-defined]
    }
    callbacks = {}
    for dtype in ("float32", "float64"):
        scope = names | {"real": np.dtype(dtype).type}
        exec(source, scope)
        callbacks[dtype] = numba.cfunc(_SWEEP, error_model="numpy")(scope["sweep"])
    step = numba.cfunc(_STEP, error_model="numpy")(scope["step"])
    addresses = {dtype: callback.address for dtype, callback in callbacks.items()}
    return Kernel(rule, addresses, step.address, owner=(callbacks, step))


def _jit(function: Callable[..., Any]) -> Any:
    """The function under Numba; whatever Python functions of its module it calls are compiled with it."""
    called = {
        name: _jit(value)
        for name, value in inspect.getclosurevars(function).globals.items()
        if inspect.isfunction(value)
    }
    if called:
        function = FunctionType(function.__code__, function.__globals__ | called, function.__name__)
    return numba.njit(inline="always", error_model="numpy")(function)
