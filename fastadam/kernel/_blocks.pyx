# cython: language_level=3, boundscheck=False, wraparound=False
"""States of 8 bits: a contiguous array of bytes, as codecs.h lays out blocks of codes, in the order in which the
elements of their parameter lie in memory. It says itself what its codes mean, so it is plain data.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t

from ._codecs cimport BLOCK as C_BLOCK, BLOCK_HEAD, BLOCKS_NEAREST, bytes_of_blocks

import numpy as np

cnp.import_array()

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

#: how many elements share a scale
BLOCK = C_BLOCK


def n_bytes(Py_ssize_t n):
    """The bytes of n elements, a multiple of `BLOCK` or all."""
    return bytes_of_blocks(n)


def clear(uint8_t[::1] state not None, bint non_negative):
    """Have all elements be zero, in codes for numbers of both signs or of none."""
    np.asarray(state)[...] = 0
    np.asarray(state)[1 :: C_BLOCK + BLOCK_HEAD] = non_negative


def encode(uint8_t[::1] state not None, const float[::1] numbers not None):
    """Round numbers to the nearest codes. What is below zero is zero where there are codes for no sign."""
    cdef Py_ssize_t n = numbers.shape[0]
    cdef uint64_t mode
    need_bytes(state.shape[0], n)
    if n > 0:
        with nogil:
            mode = denormals_off()
            BLOCKS_NEAREST.store(n, <char*> &state[0], 1, &numbers[0], 0, 0)
            denormals_restore(mode)


def decode(const uint8_t[::1] state not None, float[::1] numbers not None):
    """What the codes mean."""
    cdef Py_ssize_t n = numbers.shape[0]
    cdef uint64_t mode
    need_bytes(state.shape[0], n)
    if n > 0:
        with nogil:
            mode = denormals_off()
            BLOCKS_NEAREST.load(n, <const char*> &state[0], 1, &numbers[0])
            denormals_restore(mode)


cdef int need_bytes(Py_ssize_t came, Py_ssize_t n) except -1:
    if came != bytes_of_blocks(n):
        raise ValueError(f"expected {bytes_of_blocks(n)} bytes for {n} elements, got {came}")
    return 0
