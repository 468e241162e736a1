cimport numpy as cnp
from libc.stdint cimport uint64_t

# the functions of codecs.h: load a run of elements into a tile, store it, sum the squares of a tile, and sum rows
ctypedef void (*load_t)(Py_ssize_t n, const char* data, Py_ssize_t stride, void* tile) noexcept nogil
ctypedef void (*store_t)(
    Py_ssize_t n, char* data, Py_ssize_t stride, const void* tile, uint64_t key, uint64_t place
) noexcept nogil
ctypedef void (*squares_t)(Py_ssize_t n, const void* tile, double scale, double* sum) noexcept nogil
ctypedef void (*add_t)(
    Py_ssize_t n, void* sums, const char* values, Py_ssize_t stride, const Py_ssize_t* row, Py_ssize_t count
) noexcept nogil

cdef struct Codec:          # the storage of numbers
    Py_ssize_t itemsize
    bint in_blocks          # blocks of BLOCK elements, in a contiguous array of bytes
    bint plain              # stored in the type of computation
    load_t load
    store_t store

cdef extern from "block.h":
    enum: BLOCK
    enum: BLOCK_HEAD

cdef Codec FLOAT16, BFLOAT16, BFLOAT16_RANDOM, FLOAT32, FLOAT64    # for computation in float32
cdef Codec WIDE_FLOAT16, WIDE_BFLOAT16, WIDE_FLOAT32, DOUBLE        # for computation in float64
cdef Codec BLOCKS, BLOCKS_NEAREST                                   # for computation in float32, too
cdef squares_t squares32, squares64
cdef add_t add32, add64

cdef Py_ssize_t bytes_of_blocks(Py_ssize_t n) noexcept nogil
cdef const Codec* codec_of(int computed, cnp.ndarray array) noexcept
