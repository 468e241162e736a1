# cython: language_level=3
"""Which instruction sets the sweeps were built for, and which of them this machine runs."""

include "built.pxi"  # BUILT_ISAS: what setup.py built sweeps for

cdef extern from "cpu.h":
    int cpu_has_v3()
    int cpu_has_v4()


def cpu_supports_v3() -> bool:
    """Whether this CPU and its operating system run x86-64-v3 code (AVX2)."""
    return bool(cpu_has_v3())


def cpu_supports_v4() -> bool:
    """Whether this CPU and its operating system run x86-64-v4 code (AVX-512)."""
    return bool(cpu_has_v4())
