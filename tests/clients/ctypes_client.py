"""A client of fastadam's C interface with ctypes, without a compiler: Adam on x**2, in place.
tests/adapters/test_embedding.py runs it, and compares it with the Python class.
"""

import ctypes

import numpy as np

from fastadam import capi


class Options(ctypes.Structure):
    """fastadam_options."""

    _fields_ = [("size", ctypes.c_size_t), *((name, ctypes.c_double) for name in capi.MEMBERS)]


def function(name, *taken):
    """A function of fastadam.h. A call lets go of the GIL."""
    return ctypes.CFUNCTYPE(ctypes.c_int, *taken)(capi.address(name))


ARRAY = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
fill = function("fastadam_adam_defaults", ctypes.POINTER(Options), ctypes.c_size_t)
check = function("fastadam_adam_check", ctypes.POINTER(Options), ctypes.c_char_p, ctypes.c_size_t)
step = function("fastadam_adam_f64", ctypes.POINTER(Options), ctypes.c_int64, ctypes.c_int64, *[ARRAY] * 4)


def descend(x, steps, lr):
    options, reason = Options(), ctypes.create_string_buffer(200)
    fill(options, ctypes.sizeof(options))
    options.lr = lr
    if check(options, reason, len(reason)):
        raise ValueError(reason.value.decode())
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in range(1, steps + 1):
        code = step(options, t, x.size, x, 2 * x, m, v)
        if code:
            raise ValueError(f"fastadam_adam_f64 returned {code}")
