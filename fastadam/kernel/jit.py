"""The rules under Numba: the sweeps of a plan, and the jitted functions that they call.
Imported only when asked for; Numba is an optional dependency.
"""

import inspect
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import numba
import numpy as np
from numba import types

from .. import rules
from ..rules import Rule
from . import generate
from ._layout import Kernel

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
    names = functions(rule) | {"carray": numba.carray}  # type: ignore[attr-defined]
    callbacks = {}
    for dtype in ("float32", "float64"):
        scope = names | {"real": np.dtype(dtype).type}
        exec(source, scope)
        callbacks[dtype] = numba.cfunc(_SWEEP, error_model="numpy")(scope["sweep"])
    step = numba.cfunc(_STEP, error_model="numpy")(scope["step"])
    addresses = {dtype: callback.address for dtype, callback in callbacks.items()}
    return Kernel(rule, addresses, step.address, owner=(callbacks, step))


def functions(rule: Rule) -> dict[str, Any]:
    """What the generated loops call, jitted."""
    return {
        "prepare": jit(rules.prepare),
        "prepare_scalars": jit(rules.prepare_scalars),
        "update": jit(rule.update),
        "scalars_of_step": jit(rule.scalars),
    }


def jit(function: Callable[..., Any]) -> Any:
    """The function under Numba; what Python functions it calls, global or around it, are compiled with it."""

    def jitted(value: Any) -> Any:
        # Itself among its globals: numpy.sign in a function that is called sign looks like that.
        return jit(value) if inspect.isfunction(value) and value is not function else value

    called = {name: jitted(value) for name, value in inspect.getclosurevars(function).globals.items()}
    cells = tuple(CellType(jitted(cell.cell_contents)) for cell in function.__closure__ or ())
    scope = function.__globals__ | called
    made = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells or None)
    return numba.njit(inline="always", error_model="numpy")(made)
