"""What arrays a step accepts, and the errors that say why not: before anything is touched.
Each names the argument, what came, what is allowed, and the way out.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: dtypes of parameters and gradients, by name: bfloat16 comes from ml_dtypes, which need not be here
DTYPES = ("float16", "bfloat16", "float32", "float64")
#: the same by character, but for bfloat16: `dtype.name` takes longer than all else that is asked of an array
_CHARS = "efd"
#: a check takes the name and what came, and returns the value to keep or raises
Check = Callable[[str, Any], Any]
#: up to this many overlapping arrays are compared pair by pair, more by a mask of their bytes
_FEW = 64


def shown(value: Any) -> str:
    """What came, for a message: its repr where it has one, and no more of that than one can read."""
    try:
        text = repr(value)
    except Exception:  # its own, or Python's limit to the digits of a number
        text = object.__repr__(value)
    return text if len(text) <= 500 else f"{text[:500]}…"


def whole(name: str, value: Any, least: int = 0, below: float = math.inf) -> int:
    """Refuse what is no whole number in that range."""
    if type(value) is int and least <= value < below:  # the usual case; a schedule asks at every step
        return value
    allowed = f">= {least}" if below == math.inf else f">= {least} and < 2**{int(below).bit_length() - 1}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a whole number {allowed}, got {shown(value)} of type {type(value).__name__}")
    if not least <= int(value) < below:
        raise ValueError(f"{name}: expected a whole number {allowed}, got {shown(value)}")
    return int(value)


def number(allowed: str, test: Callable[[float], bool]) -> Check:
    """A check for a number that passes `test`; `allowed` says in words which do."""

    def check(name: str, value: Any) -> float:
        if type(value) is float and test(value):  # the usual case, at every step that clips
            return value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: expected a number {allowed}, got {shown(value)} of type {type(value).__name__}")
        try:
            allowed_value = test(float(value))
        except OverflowError:
            allowed_value = False
        if not allowed_value:
            raise ValueError(f"{name}: expected a number {allowed}, got {shown(value)}")
        return float(value)

    return check


def flag(name: str, value: Any) -> bool:
    """Refuse all but True and False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {shown(value)} of type {type(value).__name__}")
    return bool(value)


#: what may stand in a step's arguments, beside None
scale = number("between 2**-126 and 2**126", lambda x: 2.0**-126 <= x <= 2.0**126)
norm = number("> 0, or infinity", lambda x: x > 0)
#: what one rank's gradients may count in an average
weight = number("from 0 to 2**126", lambda x: 0 <= x <= 2.0**126)


def array(name: str, value: Any) -> None:
    """Refuse what is not a plain floating-point array in this machine's byte order."""
    if not isinstance(value, np.ndarray):
        way = "pass .toarray()" if hasattr(value, "toarray") else "convert it once with numpy.asarray(…)"
        raise TypeError(f"{name}: expected a numpy array, got {type(value).__name__}; {way}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array is not supported, its mask would be ignored; use .filled(0)")
    if value.dtype.char not in _CHARS and value.dtype.name not in DTYPES:
        raise TypeError(
            f"{name}: expected dtype float16, bfloat16, float32 or float64, got {value.dtype}; convert with .astype(…)"
        )
    if not value.dtype.isnative:
        raise TypeError(
            f"{name}: dtype {value.dtype.str} is not in this machine's byte order; convert with "
            f".astype(numpy.{value.dtype.name})"
        )


def real(name: str, value: Any) -> np.ndarray:
    """What `numpy.asarray` reads as real numbers, as an array; refuse what would be rounded, parsed or cut to them."""
    try:
        found = np.asarray(value)
    except ValueError as error:  # lists of lists of several lengths
        raise TypeError(f"{name}: expected real numbers, got {shown(value)}: {error}") from error
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array is not supported, its mask would be ignored; use .filled(0)")
    if found.dtype.kind not in "biuf" and found.dtype.name != "bfloat16":
        raise TypeError(f"{name}: expected real numbers, got {found.dtype}")
    return found


def writeable(name: str, value: Any) -> None:
    """Refuse what cannot be written in place."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(value).__name__}")
    if not value.flags.writeable:
        raise ValueError(f"{name}: the array is read-only and would be written in place; pass a writeable copy")


def parameter(name: str, value: Any) -> None:
    """Refuse what cannot be a parameter: it must be an array that can be written, each element in its own place."""
    array(name, value)
    writeable(name, value)
    if value.flags.c_contiguous:
        return
    reach = value.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(value.strides, value.shape, strict=True)):
        if size > 1 and stride < reach and value.size:
            raise ValueError(f"{name}: several of its elements share one place in memory; pass a copy")
        reach += stride * max(size - 1, 0)


def parameters(names: list[str], params: list[Any]) -> None:
    """Refuse arrays that are no parameters, or that share memory with one another."""
    for name, p in zip(names, params, strict=True):
        parameter(name, p)
    for met in _meeting(params):
        shared = _places(params, met) if len(met) > _FEW else None
        for i, k in enumerate(met):
            if shared is None or shared(k).any():
                for other in met[:i]:
                    if shares_memory(params[k], params[other]):
                        raise ValueError(
                            f"{names[k]} and {names[other]} share memory and would be stepped twice; pass each once"
                        )
            if shared is not None:
                shared(k)[...] = True


def _meeting(arrays: list[np.ndarray]) -> Iterator[list[int]]:
    """The numbers of those arrays whose extents in memory meet, each chain of them by itself."""
    met: list[int] = []
    end = 0
    for low, high, k in sorted((*np.lib.array_utils.byte_bounds(a), k) for k, a in enumerate(arrays) if a.size):
        if low >= end:
            if len(met) > 1:
                yield met
            met = []
        met.append(k)
        end = max(end, high)
    if len(met) > 1:
        yield met


def _places(arrays: list[np.ndarray], met: list[int]) -> Callable[[int], np.ndarray]:
    """A mask of the memory that these arrays share, all False: given an array's number, its part of the mask."""
    bounds = [np.lib.array_utils.byte_bounds(arrays[k]) for k in met]
    base, end = min(low for low, _ in bounds), max(high for _, high in bounds)
    steps = {stride for k in met for stride, size in zip(arrays[k].strides, arrays[k].shape, strict=True) if size > 1}
    unit = math.gcd(*(arrays[k].itemsize for k in met), *(arrays[k].ctypes.data - base for k in met), *steps)
    memory = np.zeros((end - base) // unit, bool)

    def places(k: int) -> np.ndarray:
        a = arrays[k]
        strides = [stride // unit if size > 1 else 0 for stride, size in zip(a.strides, a.shape, strict=True)]
        shape = (*a.shape, a.itemsize // unit)
        return np.ndarray(shape, bool, memory, (a.ctypes.data - base) // unit, (*strides, 1))

    return places


def shares_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have an element in common; a case too hard to tell counts as yes."""
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def computed_in(param: np.ndarray) -> np.dtype[Any]:
    """The dtype in which a parameter is stepped and its states are kept: float64 for itself, float32 for all others."""
    return np.dtype(np.float64 if param.dtype == np.float64 else np.float32)


def like(name: str, value: np.ndarray, param: np.ndarray, *dtypes: Any) -> None:
    """Refuse an array that has not the shape of the parameter that it belongs to, or its dtype (or one of these)."""
    if value.shape != param.shape:
        raise ValueError(f"{name}: expected shape {param.shape} like the parameter, got {value.shape}")
    if value.dtype not in (dtypes or (param.dtype,)):
        allowed = [np.dtype(dtype).name for dtype in dtypes or (param.dtype,)]
        like_param = " like the parameter" if param.dtype.name in allowed else f" for a {param.dtype} parameter"
        raise TypeError(
            f"{name}: expected dtype {' or '.join(allowed)}{like_param}, got {value.dtype}; "
            f"convert with .astype(numpy.{allowed[0]})"
        )


def state(name: str, value: np.ndarray, param: np.ndarray) -> None:
    """Refuse what is no state of `param`: the same shape, what it is computed in or, for float32, bfloat16."""
    dtype = computed_in(param)
    is_bfloat16 = value.itemsize == 2 and value.dtype.name == "bfloat16"
    if not (dtype == np.float32 and is_bfloat16 and value.shape == param.shape):
        like(name, value, param, dtype)


def gradient(name: str, value: Any, param: np.ndarray) -> None:
    """Refuse what is no gradient of `param`: the same shape, any memory layout, and no fewer bits than float64 has
    where the parameter is float64."""
    name = f"gradient of {name}"
    if value is None:
        raise TypeError(f"{name}: is None; every parameter is stepped, pass zeros or leave the parameter out")
    array(name, value)
    like(name, value, param, *([param.dtype] if param.dtype == np.float64 else [value.dtype]))


def apart(names: list[str], grads: list[np.ndarray], written: list[np.ndarray]) -> None:
    """Refuse gradients that share memory with an array that the step writes: another parameter's, too."""
    arrays = [*grads, *written]
    found: list[int] = []
    for met in _meeting(arrays):
        read, changed = [k for k in met if k < len(grads)], [k for k in met if k >= len(grads)]
        if len(read) * len(changed) > _FEW**2:
            shared = _places(arrays, met)
            for k in changed:
                shared(k)[...] = True
            found += [k for k in read if shared(k).any()]
        else:
            found += [k for k in read if any(shares_memory(arrays[k], arrays[c]) for c in changed)]
    if found:
        raise ValueError(
            f"gradient of {names[min(found)]}: shares memory with a parameter or a state, which it changes; pass a copy"
        )
