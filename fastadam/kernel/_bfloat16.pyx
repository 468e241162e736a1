# cython: language_level=3, boundscheck=False, wraparound=False
"""Sums of arrays that processes exchange, and the conversion of float32 numbers to and from the bits of bfloat16."""

from cython cimport floating
from libc.stdint cimport uint16_t

from ._codecs cimport BFLOAT16

cdef enum:
    CHUNK = 1024  # how many numbers are decoded at a time


def to_bfloat16(const float[::1] source, uint16_t[::1] bits):
    """Round float32 numbers to nearest even, and write the bits of bfloat16."""
    cdef Py_ssize_t n = source.shape[0]
    need_as_many(n, bits.shape[0])
    if n > 0:
        with nogil:
            BFLOAT16.store(n, <char*> &bits[0], 2, &source[0], 0, 0)


def add_bfloat16(const uint16_t[::1] bits, float[::1] target):
    """Add bfloat16 numbers, given as bits, to float32 numbers."""
    cdef float tile[CHUNK]
    cdef float* sums
    cdef Py_ssize_t first = 0, k, n
    need_as_many(target.shape[0], bits.shape[0])
    with nogil:
        while first < target.shape[0]:
            n = min(target.shape[0] - first, <Py_ssize_t> CHUNK)
            sums = &target[first]
            BFLOAT16.load(n, <const char*> &bits[first], 2, tile)
            for k in range(n):
                sums[k] += tile[k]
            first += n


def add(const floating[::1] one, const floating[::1] other, floating[::1] target):
    """Write the sum of two arrays into `target`, which may be one of them: like numpy.add, but without warnings."""
    cdef Py_ssize_t k, n = target.shape[0]
    need_as_many(n, one.shape[0])
    need_as_many(n, other.shape[0])
    with nogil:
        for k in range(n):
            target[k] = one[k] + other[k]


cdef int need_as_many(Py_ssize_t expected, Py_ssize_t came) except -1:
    if came != expected:
        raise ValueError(f"expected {expected} elements, got {came}")
    return 0
