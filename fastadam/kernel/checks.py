"""The checks of arrays and arguments, with their errors, which are raised before anything is touched.
Each message names the argument, what came, what is allowed, and what to do.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: the names of the dtypes of parameters and gradients; bfloat16 is that of ml_dtypes, which may be missing
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
#: their characters, without bfloat16: `dtype.name` takes longer than all other checks of an array
_CHARS = "efdFD"
#: a check takes a name and a value, and returns the value to keep, or raises
Check = Callable[[str, Any], Any]
#: up to this many overlapping arrays are compared pair by pair, more by a mask of their bytes
_FEW = 64
#: an array of more numbers is described by its shape
_FEW_NUMBERS = 8
#: library -> how to step its arrays or models
_OF_LIBRARY = {
    "torch": "; for PyTorch's tensors and models use fastadam.adapters.torch, for example its Adam(model.parameters())",
    "jax": "; JAX's arrays cannot be written: use fastadam.adapters.jax, for example its Adam(params), or step a copy, "
    "numpy.array(x), and pass the copy to JAX",
    "tensorflow": "; step copies, numpy.array(x) or model.get_weights(), and write them back with x.assign(…) or "
    "model.set_weights(…)",
    "mlx": "; step a copy, numpy.array(x), and convert it back with mlx.core.array(…)",
    "cupy": "; it is in the memory of a GPU: step a copy, cupy.asnumpy(x), and write it back with x.set(…)",
    "pandas": "; step the array from .to_numpy(copy=True), and write it back with x[:] = …",
    "polars": "; step the array from .to_numpy(writable=True), and make a new Series of it",
    "xarray": "; pass its .values, which are its memory",
    "sklearn": "; train scikit-learn's MLPs within fastadam.adapters.sklearn.accelerated()",
    "fastadam": "; pass its .params",
    "thinc": "; train thinc's models with an optimizer of fastadam.adapters.thinc",
}
_OF_LIBRARY |= {"jaxlib": _OF_LIBRARY["jax"], "keras": _OF_LIBRARY["tensorflow"]}
#: the advice for other objects: the first test that is true decides
_OF_KIND: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda x: isinstance(x, (numbers.Number, list, tuple)),
        "; put numbers into an array: numpy.array([1.0])",
    ),
    (lambda x: hasattr(x, "toarray"), "; pass .toarray()"),
    (lambda x: hasattr(x, "__array__"), "; step a copy, numpy.array(x), and write it back"),
    (
        lambda x: hasattr(x, "__array_interface__") or (has_buffer(x) and not isinstance(x, bytes)),
        "; pass numpy.asarray(…) or, if it holds bytes, numpy.frombuffer(…, dtype), which share its memory",
    ),
    (lambda x: hasattr(x, "__dlpack__"), "; step a copy, numpy.array(numpy.from_dlpack(x)), and write it back"),
    (lambda x: hasattr(x, "parameters"), "; an object needs arrays as .parameters and their gradients as .grad"),
)


def shown(value: Any, most: int = 500) -> str:
    """The repr of a value for a message: in one line, and shortened. A large array is described by its shape."""
    if isinstance(value, np.ndarray) and value.size > _FEW_NUMBERS:
        return f"an array of shape {value.shape}"
    try:
        text = repr(value)
    except Exception:  # an error of its own, or Python's limit for the digits of a number
        text = object.__repr__(value)
    text = " ".join(map(str.strip, text.splitlines()))
    return text if len(text) <= most else f"{text[:most]}…"


def came(value: Any) -> str:
    """A value that is not the expected number or flag, for a message: its repr and type, or the shape of an array."""
    axes = getattr(value, "ndim", 0)
    if isinstance(axes, int) and axes > 0:
        return f"an array of shape {tuple(value.shape)}"
    return f"{shown(value, 100)} of type {type(value).__name__}"


def has_buffer(value: Any) -> bool:
    """Whether a value gives access to its memory: bytes, array.array, an array of ctypes, mmap."""
    try:
        memoryview(value).release()
    except (TypeError, ValueError, BufferError):
        return False
    return True


def scalar(value: Any) -> Any:
    """The Python number or flag in a 0-dimensional array of NumPy, JAX, PyTorch, TensorFlow and others.

    Any other value is returned as it is. So is a masked array, since a masked element is not a number.
    """
    if getattr(value, "ndim", None) != 0 or isinstance(value, np.ma.MaskedArray):
        return value
    return value.item() if hasattr(value, "item") else np.asarray(value).item()


def _plain(name: str, value: Any, kind: type, allowed: str) -> Any:
    """The scalar, if it is of that kind. A flag is not a number."""
    try:
        found = scalar(value)
    except Exception as error:  # of the library: while JAX traces, for example, there is no number yet
        raise TypeError(f"{name}: expected {allowed}, got {came(value)}: {error}") from error
    if isinstance(found, kind) and isinstance(found, bool) == (kind is bool):
        return found
    raise TypeError(f"{name}: expected {allowed}, got {came(value)}")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 array, 2 arrays."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def whole(name: str, value: Any, least: int = 0, below: float = math.inf) -> int:
    """Refuse a value that is not a whole number in the range. A float may be whole: 1e4."""
    if type(value) is int and least <= value < below:  # the usual case; schedules call this at every step
        return value
    allowed = f"a whole number >= {least}" + ("" if below == math.inf else f" and < 2**{int(below).bit_length() - 1}")
    found = _plain(name, value, numbers.Real, allowed)
    if found // 1 != found:  # true for infinity and NaN, too
        raise TypeError(f"{name}: expected {allowed}, got {came(value)}")
    if not least <= int(found) < below:
        raise ValueError(f"{name}: expected {allowed}, got {shown(value)}")
    return int(found)


def number(allowed: str, test: Callable[[float], bool]) -> Check:
    """Make a check for a number that passes `test`. `allowed` describes these numbers."""
    allowed = f"a number {allowed}"

    def check(name: str, value: Any) -> float:
        if type(value) is float and test(value):  # the usual case, at every step that clips
            return value
        found = _plain(name, value, numbers.Real, allowed)
        try:
            is_allowed = test(float(found))
        except OverflowError:
            is_allowed = False
        if not is_allowed:
            raise ValueError(f"{name}: expected {allowed}, got {shown(value)}")
        return float(found)

    return check


def flag(name: str, value: Any) -> bool:
    """Refuse everything except True and False."""
    return value if type(value) is bool else _plain(name, value, bool, "True or False")


def one_of(*words: str) -> Check:
    """Make a check for one of these words."""
    allowed = " or ".join(map(repr, words))

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected {allowed}, got {came(value)}")
        if value not in words:
            raise ValueError(f"{name}: expected {allowed}, got {shown(value, 100)}")
        return value

    return check


#: the checks of a step's numbers, which may also be None
scale = number("between 2**-126 and 2**126", lambda x: 2.0**-126 <= x <= 2.0**126)
norm = number("> 0, or infinity", lambda x: x > 0)
#: the check of the weight of a rank's gradients
weight = number("from 0 to 2**126", lambda x: 0 <= x <= 2.0**126)


def of_step(
    grad_scale: Any = 1.0,
    max_norm: Any = None,
    clip_value: Any = None,
    skip_nonfinite: Any = False,
    zero_grads: Any = False,
    max_norm_each: Any = None,
) -> dict[str, Any]:
    """The checked arguments of `Optimizer.step` after the gradients, in this order."""
    checked = {
        "grad_scale": scale("grad_scale", grad_scale),
        "max_norm": _norm_or_none("max_norm", max_norm),
        "clip_value": _norm_or_none("clip_value", clip_value),
        "skip_nonfinite": flag("skip_nonfinite", skip_nonfinite),
        "zero_grads": flag("zero_grads", zero_grads),
        "max_norm_each": _norm_or_none("max_norm_each", max_norm_each),
    }
    if max_norm is not None and max_norm_each is not None:
        raise ValueError(
            f"max_norm_each: expected None beside max_norm={shown(max_norm)}, got {shown(max_norm_each)}; pass one of "
            "them, since the result of both depends on their order"
        )
    return checked


def _norm_or_none(name: str, value: Any) -> float | None:
    return None if value is None else norm(name, value)


def advice(value: Any) -> str:
    """The end of a message that expected an array: what to do with this value. "" if there is no advice."""
    libraries = [kind.__module__.partition(".")[0] for kind in type(value).__mro__]
    of_library = next((_OF_LIBRARY[library] for library in libraries if library in _OF_LIBRARY), "")
    return of_library or next((way for fits, way in _OF_KIND if fits(value)), "")


def array(name: str, value: Any) -> None:
    """Refuse a value that is not a plain floating-point array in this machine's byte order."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(value).__name__}{advice(value)}")
    _need_usual_arithmetic(name, value)
    if value.dtype.char not in _CHARS and value.dtype.name not in DTYPES:
        allowed = f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
        raise TypeError(f"{name}: expected dtype {allowed}, got {value.dtype}; convert with .astype(…)")
    if not value.dtype.isnative:
        raise TypeError(
            f"{name}: dtype {value.dtype.str} is not in this machine's byte order; convert with "
            f".astype(numpy.{value.dtype.name})"
        )


def _need_usual_arithmetic(name: str, value: Any) -> None:
    """Refuse arrays that are more than their numbers, because they have a mask or units."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array is not supported, its mask would be ignored; fill it with .filled(…)")
    if isinstance(value, np.ndarray) and type(value).__array_ufunc__ is not np.ndarray.__array_ufunc__:
        raise TypeError(f"{name}: {type(value).__name__} has its own arithmetic; pass its numbers as a plain array")


def real(name: str, value: Any, kinds: str = "biuf") -> np.ndarray:
    """An array of real numbers, read by `numpy.asarray`. Refuse values that would have to be rounded, parsed or cut.

    It is a view if the value gives access to its memory (buffer protocol, ``__array__`` or ``__dlpack__``).
    """
    expected = f"{name}: expected real {'or complex ' if 'c' in kinds else ''}numbers"
    try:
        by_dlpack = hasattr(value, "__dlpack__") and not hasattr(value, "__array__")
        found = np.from_dlpack(value) if by_dlpack else np.asarray(value)
    except Exception as error:  # of any library: for a tensor on a device, or lists of several lengths
        raise TypeError(f"{expected}, got {shown(value)} of type {type(value).__name__}: {error}") from error
    _need_usual_arithmetic(name, value)
    if found.dtype.kind not in kinds and found.dtype.name != "bfloat16":
        what = type(value).__name__ if found.dtype == object else found.dtype
        raise TypeError(f"{expected}, got {what}")
    return found


def writeable(name: str, value: Any) -> None:
    """Refuse a value that cannot be written in place."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(value).__name__}")
    if not value.flags.writeable:
        raise ValueError(f"{name}: the array is read-only and would be written in place; pass a writeable copy")


def parameter(name: str, value: Any) -> None:
    """Refuse a value that cannot be a parameter. It must be a writeable array whose elements do not share memory."""
    array(name, value)
    writeable(name, value)
    if repeats(value):
        raise ValueError(f"{name}: several of its elements share memory; pass a copy")


def repeats(value: np.ndarray) -> bool:
    """Whether several elements of an array share memory, or may do so."""
    if value.flags.c_contiguous or not value.size:
        return False
    reach = value.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(value.strides, value.shape, strict=True)):
        if size > 1 and stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def parameters(names: list[str], params: list[Any]) -> None:
    """Refuse arrays that cannot be parameters, or that share memory with each other."""
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
    """Lists of numbers of arrays whose extents in memory overlap, one list for each chain of them."""
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
    """A function from an array's number to its part of a mask of the arrays' memory, which is all False at first."""
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
    """Whether two arrays share an element. If that takes too long to find out, the answer is True."""
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def computed_in(param: np.ndarray) -> np.dtype[Any]:
    """The dtype of a parameter's states: float32 for a 16-bit parameter, else its own."""
    return np.dtype(np.float32) if param.dtype.itemsize == 2 else param.dtype


def like(name: str, value: np.ndarray, param: np.ndarray, *dtypes: Any) -> None:
    """Refuse an array without the shape of its parameter, or without its dtype (or one of `dtypes`)."""
    if value.shape != param.shape:
        raise ValueError(f"{name}: expected shape {param.shape} like the parameter, got {value.shape}")
    if value.dtype not in (dtypes or (param.dtype,)):
        allowed = [np.dtype(dtype).name for dtype in dtypes or (param.dtype,)]
        like_param = " like the parameter" if param.dtype.name in allowed else f" for a {param.dtype} parameter"
        raise TypeError(
            f"{name}: expected dtype {' or '.join(allowed)}{like_param}, got {value.dtype}; "
            f"convert with .astype(numpy.{allowed[0]})"
        )


def state(name: str, value: np.ndarray, param: np.ndarray, n_bytes: int) -> None:
    """Refuse a value that cannot be a state of `param`. It has the same shape, and the dtype in which the parameter is
    computed, or bfloat16 for float32. For float32 and complex64 it may also be `n_bytes` bytes of blocks."""
    dtype = computed_in(param)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and dtype.char in "fF":
        writeable(name, value)
        if not (value.shape == (n_bytes,) and value.flags.c_contiguous):
            raise ValueError(f"{name}: expected {n_bytes} bytes of blocks, contiguous, got shape {value.shape}")
        return
    parameter(name, value)
    is_bfloat16 = value.itemsize == 2 and value.dtype.name == "bfloat16"
    if not (dtype == np.float32 and is_bfloat16 and value.shape == param.shape):
        like(name, value, param, dtype)


def gradient(name: str, value: Any, param: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A gradient of `param` as an array that a step can read: the value itself if possible.

    Refuse another shape than the parameter's (or `shape`), and values that are not numbers. Complex numbers are only
    for a complex parameter.
    """
    name = f"gradient of {name}"
    is_complex = param.dtype.kind == "c"
    found = value if isinstance(value, np.ndarray) else real(name, value, kinds="biufc" if is_complex else "biuf")
    if found.dtype.kind == "c" and not is_complex:
        raise TypeError(f"{name}: expected real numbers like the parameter, got {found.dtype}")
    if found.dtype.kind in "biu":
        found = found.astype(computed_in(param))
    elif not found.dtype.isnative:
        found = found.astype(found.dtype.newbyteorder("="))
    array(name, found)
    if is_complex and found.dtype.kind != "c":
        found = found.astype(param.dtype)
    if found.shape != (param.shape if shape is None else shape):
        expected = f"{param.shape} like the parameter" if shape is None else f"{shape}, rows of the parameter"
        raise ValueError(f"{name}: expected shape {expected}, got {found.shape}")
    return found


def row_numbers(name: str, value: Any, hint: str = "") -> np.ndarray:
    """Numbers of rows as an array of int64: the value itself if possible."""
    _need_usual_arithmetic(name, value)
    try:
        found = np.asarray(value, None if np.size(value) else np.int64)
    except Exception as error:  # lists of several lengths, a tensor on a device
        raise TypeError(f"{name}: expected whole numbers, one a row{hint}, got {shown(value)}") from error
    _need_usual_arithmetic(name, value)
    if found.dtype.kind not in "iu":
        way = "; of a mask, pass numpy.flatnonzero(mask)" if found.dtype == bool else ""
        raise TypeError(f"{name}: expected whole numbers, one a row{hint}, got {found.dtype}{way}")
    if found.ndim != 1:
        raise ValueError(f"{name}: expected one axis{hint}, got the shape {found.shape}")
    if found.dtype == np.uint64 and found.size and found.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected numbers of rows{hint}, got {found.max()}")
    return np.ascontiguousarray(found, np.int64)


def numbers_in(name: str, value: Any, param: np.ndarray) -> np.ndarray:
    """Numbers of rows, all of which this parameter has."""
    found = row_numbers(f"rows of {name}", value)
    n_rows = len(param) if param.ndim else 0
    for bad in found[(found < 0) | (found >= n_rows)]:
        allowed = f"0 … {n_rows - 1}" if n_rows else "none, of a parameter without rows"
        raise ValueError(f"rows of {name}: expected numbers of rows, {allowed}, got {bad}")
    return found


def row_values(name: str, index: np.ndarray, values: np.ndarray, param: np.ndarray) -> np.ndarray:
    """The values of some rows of a parameter's gradient, as an array that a step can read; see `gradient`."""
    if param.ndim == 0:
        raise ValueError(f"gradient of {name}: expected an array, got Rows; a 0-dimensional parameter has no rows")
    return gradient(name, values, param, (len(index), *param.shape[1:]))


def apart(names: list[str], grads: list[np.ndarray], written: list[np.ndarray]) -> None:
    """Refuse gradients that share memory with an array that the step writes, of any parameter."""
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
            f"gradient of {names[min(found)]}: shares memory with a parameter or a state, which the step changes; "
            "pass a copy"
        )
