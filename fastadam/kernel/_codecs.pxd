cimport numpy as cnp
from libc.stdint cimport uint64_t

# codecs.h: a run of elements from memory to a tile and back, the sum of a tile's squares, and those of rows
ctypedef void (*load_t)(Py_ssize_t n, const char* data, Py_ssize_t stride, void* tile) noexcept nogil
ctypedef void (*store_t)(
    Py_ssize_t n, char* data, Py_ssize_t stride, const void* tile, uint64_t key, uint64_t place
) noexcept nogil
ctypedef void (*squares_t)(Py_ssize_t n, const void* tile, double scale, double* sum) noexcept nogil
ctypedef void (*add_t)(
    Py_ssize_t n, void* sums, const char* values, Py_ssize_t stride, const Py_ssize_t* row, Py_ssize_t count
) noexcept nogil

cdef struct Codec:          # how numbers are stored
    Py_ssize_t itemsize
    bint in_blocks          # of BLOCK elements each, in a contiguous array of bytes
    bint plain              # as they are computed
    load_t load
    store_t store

cdef extern from "block.h":
    enum: BLOCK
    enum: BLOCK_HEAD

cdef Codec FLOAT16, BFLOAT16, BFLOAT16_RANDOM, FLOAT32, FLOAT64    # what is computed in float32
cdef Codec WIDE_FLOAT16, WIDE_BFLOAT16, WIDE_FLOAT32, DOUBLE        # what is computed in float64
cdef Codec BLOCKS, BLOCKS_NEAREST                                   # computed in float32, too
cdef squares_t squares32, squares64
cdef add_t add32, add64

cdef Py_ssize_t bytes_of_blocks(Py_ssize_t n) noexcept nogil
cdef const Codec* codec_of(int computed, cnp.ndarray array) noexcept
