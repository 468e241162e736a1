"""A client of fastadam's C interface with cffi, without a compiler: Adam on x**2, in place.
tests/adapters/test_embedding.py runs it, and compares it with the Python class.
"""

import cffi
import numpy as np

from fastadam import capi

ffi = cffi.FFI()
members = "".join(f"double {name};" for name in capi.MEMBERS)
ffi.cdef(f"typedef struct {{ size_t size; {members} }} fastadam_options;")


def function(name, taken):
    """A function of fastadam.h. A call lets go of the GIL."""
    return ffi.cast(f"int (*)({taken})", capi.address(name))


fill = function("fastadam_adam_defaults", "fastadam_options *, size_t")
check = function("fastadam_adam_check", "const fastadam_options *, char *, size_t")
step = function(
    "fastadam_adam_f64", "const fastadam_options *, int64_t, int64_t, double *, const double *, double *, double *"
)


def descend(x, steps, lr):
    options, reason = ffi.new("fastadam_options *"), ffi.new("char[200]")
    fill(options, ffi.sizeof("fastadam_options"))
    options.lr = lr
    if check(options, reason, len(reason)):
        raise ValueError(ffi.string(reason).decode())
    g = np.empty_like(x)
    pointers = [ffi.from_buffer("double[]", array) for array in (x, g, np.zeros_like(x), np.zeros_like(x))]
    for t in range(1, steps + 1):
        g[:] = 2 * x
        code = step(options, t, x.size, *pointers)
        if code:
            raise ValueError(f"fastadam_adam_f64 returned {code}")
