# cython: language_level=3, boundscheck=False, wraparound=False
"""8-bit states: each is a contiguous array of bytes with the blocks of codes of codecs.h, in the memory order of its
parameter. The blocks contain their scales, so the array is plain data.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t

from ._codecs cimport BLOCK as C_BLOCK, BLOCK_HEAD, BLOCKS_NEAREST, bytes_of_blocks

import numpy as np

cnp.import_array()

cdef extern from "denormals.h":
    uint64_t denormals_off() nogil
    void denormals_restore(uint64_t mode) nogil

#: the number of elements that share a scale
BLOCK = C_BLOCK


def n_bytes(Py_ssize_t n):
    """The number of bytes of n elements, where n is a multiple of `BLOCK`, or the number of all elements."""
    return bytes_of_blocks(n)


def clear(uint8_t[::1] state not None, bint non_negative):
    """Set all elements to zero, in codes with or without sign."""
    np.asarray(state)[...] = 0
    np.asarray(state)[1 :: C_BLOCK + BLOCK_HEAD] = non_negative


def encode(uint8_t[::1] state not None, const float[::1] numbers not None):
    """Round numbers to the nearest codes. Codes without sign store a negative number as zero."""
    cdef Py_ssize_t n = numbers.shape[0]
    cdef uint64_t mode
    need_bytes(state.shape[0], n)
    if n > 0:
        with nogil:
            mode = denormals_off()
            BLOCKS_NEAREST.store(n, <char*> &state[0], 1, &numbers[0], 0, 0)
            denormals_restore(mode)


def decode(const uint8_t[::1] state not None, float[::1] numbers not None):
    """Write the numbers that the codes stand for."""
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
