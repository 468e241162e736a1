"""The rules as Numba functions, to call from your own ``@njit`` code.
This module needs Numba, an optional dependency (``pip install numba``). `fastadam` imports it on first access.

Each rule, for example ``adam``, has three jitted functions here. They run without the interpreter:

``adam(p, g, m, v, step_size, …)``
    the update of one element, as in `fastadam.rules`;
``adam_scalars(t, lr, beta1, …)``
    the scalars of a step, in float64; t is a float;
``adam_step(p, g, m, v, t, lr, beta1, …, weight_decay=0.0, …)``
    one step of whole contiguous arrays, in place, on the calling thread. The arguments are the arrays, the step count
    t from 1, the arguments of the rule's scalars function, then by name those that all rules share:
    ``weight_decay=0.0, decoupled=False, maximize=False``, the bounds of p ``low=-inf, high=inf``, a factor for the
    gradients ``factor=1.0``, and the largest magnitude of their elements ``clip_value=inf``. The bits are those of the
    class. A TypeError or ValueError refuses arrays whose dtype, shape or order is not that of p, and t < 1.
"""

import inspect
from typing import Any

import numpy as np

try:
    import numba
    from llvmlite import binding
    from numba import types
    from numba.extending import models, register_model
except ImportError as error:
    raise ImportError("fastadam.numba needs Numba: pip install numba") from error

from .kernel import generate
from .kernel._tiles import DENORMALS
from .kernel.jit import functions, jit
from .names import offer
from .rule import OF_THE_STEP, Rule, arguments
from .rules import RULES

_STEP_SOURCE = """
def loop(n, s, {arrays}):
{sweep_body}

def {name}_step(
    {taken}
):
{checks}
    if not t >= 1:
        raise ValueError("{name}_step: t: expected a count of steps, which begins at 1, got less")
    n = p.size
    real = p.real.dtype.type
    hyper = ({hyper},)
    out = np.empty({n_scalars})
    t = float(t)
{step_body}
    mode = denormals_off()
    loop(n, ({rounded},), {flat})
    denormals_restore(mode)
"""

#: the checks of one array; errors of Numba itself do not name the argument
_CHECK = """
    if not {0}.dtype == p.dtype or p.dtype.type(0.5) != 0.5 or np.iscomplexobj(p):
        raise TypeError("{1}_step: {0}: expected float32 or float64, the same for all arrays, got another dtype")
    if {0}.shape != p.shape or not {0}.flags.c_contiguous:
        raise ValueError("{1}_step: {0}: expected the shape of p in C order; see numpy.ascontiguousarray")"""


class _Compiled(types.ExternalFunction):
    """A compiled function that jitted code calls by name, not by address, so that Numba's cache is valid in the next
    process. Unpickling one imports this module, which registers the names."""


register_model(_Compiled)(models.OpaqueModel)
_SET_MODE = {
    "denormals_off": _Compiled("fastadam_denormals_off", types.uint64()),
    "denormals_restore": _Compiled("fastadam_denormals_restore", types.void(types.uint64)),
}
for _function, _address in zip(_SET_MODE.values(), DENORMALS, strict=True):
    binding.add_symbol(_function.symbol, _address)


def _whole_step(rule: Rule) -> Any:
    """The jitted step of whole arrays."""
    arrays, names = generate.arrays(rule), ("p", "g", *rule.states)
    own = [str(p.replace(annotation=p.empty)) for p in inspect.signature(rule.scalars).parameters.values()][1:]
    nothing = dict.fromkeys(rule.hyper, 0.0) | dict.fromkeys(rule.flags, False) | rule.defaults
    shared = [f"{name}={nothing[name]}" for name in (*rule.hyper, *OF_THE_STEP) if name not in arguments(rule.scalars)]
    source = _STEP_SOURCE.format(
        name=rule.name,
        arrays=", ".join(arrays),
        sweep_body=generate.sweep_body(rule, "update"),
        taken=", ".join((*names, "t", *own, *shared)),
        checks="".join(_CHECK.format(name, rule.name) for name in names),
        hyper=", ".join((*OF_THE_STEP, *rule.hyper)),
        n_scalars=rule.n_scalars,
        step_body=generate.step_body(rule, "scalars_of_step"),
        rounded=", ".join(f"real(out[{k}])" for k in range(rule.n_scalars)),
        flat=", ".join(f"{name}.reshape(-1).real" for name in names),
    )
    scope = functions(rule) | _SET_MODE | {"np": np, "inf": np.inf}
    exec(source, scope)
    scope["loop"] = numba.njit(error_model="numpy")(scope["loop"])
    return numba.njit(error_model="numpy")(scope[f"{rule.name}_step"])


def __getattr__(name: str) -> Any:
    """``adam``, ``adam_scalars``, ``adam_step``, …: compiled at the first access."""
    rule = RULES.get(name.removesuffix("_step").removesuffix("_scalars"))
    if rule is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {offer(name, RULES, 'it has rules')}")
    made = _whole_step(rule) if name.endswith("_step") else jit(rule.scalars if "_scalars" in name else rule.update)
    globals()[name] = made
    return made
