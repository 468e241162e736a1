"""The rules under Numba: the sweeps of a plan, and the jitted functions that they call.
It is imported only when it is needed, since Numba is an optional dependency.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import ir

from .. import rule as shared
from ..rule import Rule, arguments
from . import generate, literals
from ._layout import Kernel

_SWEEP = types.void(types.intp, types.CPointer(types.voidptr), types.voidptr)
_STEP = types.void(types.float64, types.CPointer(types.float64), types.CPointer(types.float64))

# Source text, because the number of arguments depends on the rule, and Numba cannot unroll argument lists in C
# callbacks.
_SOURCE = """
def sweep(n, arrays, scalars):
    s = carray(scalars, {n_scalars}, real)
{views}
{sweep_body}

def step(t, hyper, out):
{step_body}
"""


def compile_rule(rule: Rule) -> Kernel:
    """A kernel of `rule`, with sweeps and a function of scalars that Numba has compiled."""
    views = (f"    {name} = carray(arrays[{k}], n, real)" for k, name in enumerate(generate.arrays(rule)))
    source = _SOURCE.format(
        n_scalars=rule.n_scalars,
        views="\n".join(views),
        sweep_body=generate.sweep_body(rule, "update"),
        step_body=generate.step_body(rule, "scalars_of_step"),
    )
    callbacks = {}
    for dtype in ("float32", "float64"):
        real = np.dtype(dtype).type
        scope: dict[str, Any] = functions(rule, real) | {"real": real, "carray": numba.carray}  # type: ignore[attr-defined]
        exec(source, scope)
        callbacks[dtype] = numba.cfunc(_SWEEP, error_model="numpy")(scope["sweep"])
    step = numba.cfunc(_STEP, error_model="numpy")(scope["step"])
    addresses = {dtype: callback.address for dtype, callback in callbacks.items()}
    return Kernel(rule, addresses, step.address, owner=(callbacks, step))


def functions(rule: Rule, real: literals.Real = None) -> dict[str, Any]:
    """The jitted functions that the generated loops call. The update has its numbers in the dtype `real`."""
    return {
        **{name: jit(getattr(shared, name)) for name in ("prepare", "prepare_scalars", "finish", "finish_scalars")},
        "update": jit(rule.update, real),
        "scalars_of_step": jit(rule.scalars),
    }


def jit(function: Callable[..., Any], real: literals.Real = None) -> Any:
    """The jitted function. Python functions that it calls are jitted, too."""
    made = numba.njit(inline="always", error_model="numpy")
    return literals.typed(function, real, made, [(np.where, _where)])


def _where(condition, a, b):  # type: ignore[no-untyped-def]
    """numpy.where for numbers. Numba would make an array if the condition is a comparison."""
    return a if condition else b


def check_counters(rule: Rule) -> None:
    """Refuse an update in which a whole number that is not a literal, such as a loop counter, widens float32."""
    update, taken = jit(rule.update, np.float32), (types.float32,) * len(arguments(rule.update))
    update.compile(taken)
    annotation = update.overloads[taken].type_annotation
    for done in (done for block in annotation.blocks.values() for done in block.find_insts(ir.Assign)):
        found = {annotation.typemap[variable.name] for variable in done.list_vars() if variable != done.target}
        widens = annotation.typemap[done.target.name] == types.float64 and types.float32 in found
        if widens and any(isinstance(of, types.Integer) for of in found):
            raise TypeError(
                f"{rule.name!r}, line {done.loc.line} of {done.loc.filename}: a whole number that is no literal, such "
                "as a loop's counter, beside a float32: Numba computes in float64 there, NumPy does not; count with a "
                "float (k = 0.0, then k = k + 1.0)"
            )
