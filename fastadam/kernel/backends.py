"""Makes a kernel from a rule: with sweeps that the build compiled, with sweeps of Numba, or with NumPy's functions.
All run the same source, `fastadam.rules`, and give the same bits.
"""

import os
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..rule import Rule, finish, prepare
from . import _codecs, _cpu, checks, literals, threads
from ._layout import Kernel, is_built_in

#: instruction sets from the most to the least demanding, each with a test whether this CPU has it
_SUPPORTED: dict[str, Callable[[], bool]] = {
    "v4": _cpu.cpu_supports_v4,
    "v3": _cpu.cpu_supports_v3,
    "base": lambda: True,
}


def available_isas() -> list[str]:
    """The instruction sets that were built and that this CPU has, the best first."""
    return [isa for isa, supported in _SUPPORTED.items() if isa in _cpu.BUILT_ISAS and supported()]


def _choose_isa() -> str:
    chosen = os.environ.get("FASTADAM_ISA", "")
    available = available_isas()
    if chosen and chosen not in available:
        raise ImportError(
            f"FASTADAM_ISA={chosen!r}: not available here; use one of {', '.join(available)}, or unset it for the best"
        )
    return chosen or available[0]


#: the instruction set in use: "v4", "v3" or "base"
ISA = _choose_isa()
# Only the chosen module is imported: even its initialisation may use instructions that other CPUs lack.
_MODULE = import_module(f"fastadam.kernel._sweeps_{ISA}")
_SWEEPS: dict[str, tuple[int, int, int]] = _MODULE.ADDRESSES
_MORE = {"packed": _MODULE.PACKED, "idle": _MODULE.IDLE}
_codecs.use_codecs(_MODULE.CODECS)


def sweep_addresses(name: str) -> tuple[int, int, int]:
    """The addresses of a built-in rule's function of scalars, of its float32 sweep and of its float64 sweep."""
    return _SWEEPS[name]


def _cython(rule: Rule) -> Kernel:
    if not is_built_in(rule):
        raise ValueError(f"backend: rule {rule.name!r} is not built in; use backend='numba' or 'numpy'")
    scalars, float32, float64 = sweep_addresses(rule.name)
    more = {name: table[rule.name] for name, table in _MORE.items() if rule.name in table}
    return Kernel(rule, {"float32": float32, "float64": float64}, scalars, **more)


def _numba(rule: Rule) -> Kernel:
    try:
        import numba as _  # noqa: F401
    except ImportError as error:
        raise ImportError("backend='numba' needs Numba: pip install numba") from error
    from .jit import check_counters, compile_rule

    if not is_built_in(rule):
        check_counters(rule)
    return compile_rule(rule)


def _numpy(rule: Rule) -> Kernel:
    update = rule.update if is_built_in(rule) else _on_arrays(rule)

    def sweep(scalars: list[float], p: np.ndarray, g: np.ndarray, *states: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            before, own, after = rule.divided([p.dtype.type(scalar) for scalar in scalars])
            new_p, g = prepare(p, g, *before)
            new_p, *new_states = update(new_p, g, *states, *own)
            for old, new in zip((p, *states), (finish(new_p, *after), *new_states), strict=True):
                old[...] = new

    def scalars(t: int, hyper: list[float]) -> list[float]:
        with np.errstate(all="ignore"):
            return rule.step_scalars(t, hyper)

    return Kernel(rule, python=(sweep, scalars))


def _on_arrays(rule: Rule) -> Callable[..., list[Any]]:
    """A user's update for arrays. It must not change its arguments, so it gets read-only views."""
    n_arrays, n_scalars = 2 + len(rule.states), len(rule.divided(range(rule.n_scalars))[1])
    of_dtype = {real: literals.typed(rule.update, real) for real in (np.float32, np.float64)}

    def update(*given: Any) -> list[Any]:
        arrays = [array.view() for array in given[:n_arrays]]
        for array in arrays:
            array.flags.writeable = False
        # A read-only result is, or views, an old value. It is copied, since other results are written before it.
        results = of_dtype[given[0].dtype.type](*arrays, *given[n_arrays:])
        return [new if np.asarray(new).flags.writeable else np.array(new) for new in results]

    try:
        with np.errstate(all="ignore"):
            update(*np.ones((n_arrays, 2)), *np.ones(n_scalars))
    except Exception as error:
        raise TypeError(
            f"{rule.name!r}: backend='numpy' runs it on arrays, where it fails: {error}; write numpy.where for an if, "
            "and m = b * m for m *= b, or use backend='numba'"
        ) from error
    return update


BACKENDS: dict[str, Callable[[Rule], Kernel]] = {"cython": _cython, "numba": _numba, "numpy": _numpy}


def check(name: str, backend: Any) -> str:
    """Refuse a value that is not the name of a backend."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"{name}: expected one of {', '.join(BACKENDS)}, got {checks.shown(backend)}")
    return backend


def kernel(rule: Rule, backend: str = "cython") -> Kernel:
    """The kernel of `rule` for `backend`. It is compiled at most once in a process, and deleted with the rule."""
    if backend not in rule.kernels:
        rule.kernels[backend] = BACKENDS[backend](rule)
    made: Kernel = rule.kernels[backend]
    return made


def describe() -> dict[str, Any]:
    """The settings in use, for `python -m fastadam info` and for reports."""
    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = "not installed"
    return {
        "instruction set": ISA,
        "instruction sets available": available_isas(),
        "threads": threads.default(),
        "numba": numba,
    }
