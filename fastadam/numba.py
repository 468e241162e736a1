"""The rules under Numba, for a user's own ``@njit`` code.
Imported only when asked for; Numba is an optional dependency (``pip install 'fastadam[numba]'``).

For every rule, ``adam`` say, three jitted functions can be imported from here and called without the interpreter:

``adam(p, g, m, v, step_size, …)``
    the update of one element, as in `fastadam.rules`;
``adam_scalars(t, lr, beta1, …)``
    the scalars of a step, in float64; t is a float;
``adam_step(p, g, m, v, t, lr, beta1, …, weight_decay=0.0, …)``
    one step of whole contiguous arrays, in place, on the calling thread: the arrays, the step count from 1, the
    arguments of the rule's scalars function, then by name what all rules share: ``weight_decay=0.0,
    decoupled=False, maximize=False, low=-inf, high=inf``, the bounds of p, and ``factor=1.0, clip_value=inf``, the
    gradients' factor and bound. The bits are those of the class. Arrays of another dtype, shape or order than p's,
    and t < 1, are refused.
"""

from typing import Any

import numpy as np

try:
    import numba
    from llvmlite import binding
    from numba import types
    from numba.extending import models, register_model
except ImportError as error:
    raise ImportError("fastadam.numba needs Numba: pip install 'fastadam[numba]'") from error

from .kernel import generate
from .kernel._tiles import DENORMALS
from .kernel.jit import functions, jit
from .names import offer
from .rule import OF_THE_STEP, Rule, arguments, signature_of
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

#: what is refused of an array; Numba's own errors call no argument by its name
_CHECK = """
    if not {0}.dtype == p.dtype or p.dtype.type(0.5) != 0.5 or np.iscomplexobj(p):
        raise TypeError("{1}_step: {0}: expected float32 or float64, the same for all arrays, got another dtype")
    if {0}.shape != p.shape or not {0}.flags.c_contiguous:
        raise ValueError("{1}_step: {0}: expected the shape of p in C order; see numpy.ascontiguousarray")"""


class _Compiled(types.ExternalFunction):
    """A compiled function that jitted code calls by name, not by address: what Numba caches holds in the next process.
    A pickle of one imports this module, which tells the names."""


register_model(_Compiled)(models.OpaqueModel)
_SET_MODE = {
    "denormals_off": _Compiled("fastadam_denormals_off", types.uint64()),
    "denormals_restore": _Compiled("fastadam_denormals_restore", types.void(types.uint64)),
}
for _function, _address in zip(_SET_MODE.values(), DENORMALS, strict=True):
    binding.add_symbol(_function.symbol, _address)


def _whole_step(rule: Rule) -> Any:
    """The step of whole arrays, for a user's jitted code."""
    arrays, names = generate.arrays(rule), ("p", "g", *rule.states)
    own = [str(p.replace(annotation=p.empty)) for p in signature_of(rule.scalars).parameters.values()][1:]
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
    """``adam``, ``adam_scalars``, ``adam_step``, …: compiled when first asked for."""
    rule = RULES.get(name.removesuffix("_step").removesuffix("_scalars"))
    if rule is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {offer(name, RULES, 'it has rules')}")
    made = _whole_step(rule) if name.endswith("_step") else jit(rule.scalars if "_scalars" in name else rule.update)
    globals()[name] = made
    return made
