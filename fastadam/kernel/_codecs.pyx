# cython: language_level=3
"""The codecs, which load and store numbers: the functions of codecs.h, compiled for the chosen instruction set."""

cimport numpy as cnp

cnp.import_array()


def use_codecs(dict addresses):
    """Use the functions of codecs.h at these addresses: name -> address, for the chosen instruction set."""
    global FLOAT16, BFLOAT16, BFLOAT16_RANDOM, FLOAT32, FLOAT64, squares32, squares64, add32, add64
    global WIDE_FLOAT16, WIDE_BFLOAT16, WIDE_FLOAT32, DOUBLE, BLOCKS, BLOCKS_NEAREST
    FLOAT16 = codec(2, False, addresses["load_float16"], addresses["store_float16"])
    BFLOAT16 = codec(2, False, addresses["load_bfloat16"], addresses["store_bfloat16"])
    BFLOAT16_RANDOM = codec(2, False, addresses["load_bfloat16"], addresses["store_bfloat16_random"])
    FLOAT32 = codec(4, True, addresses["load_float32"], addresses["store_float32"])
    FLOAT64 = codec(8, False, addresses["load_float64"], addresses["store_float64"])
    WIDE_FLOAT16 = codec(2, False, addresses["widen_load_float16"], addresses["narrow_store_float16"])
    WIDE_BFLOAT16 = codec(2, False, addresses["widen_load_bfloat16"], addresses["narrow_store_bfloat16"])
    WIDE_FLOAT32 = codec(4, False, addresses["widen_load_float32"], addresses["narrow_store_float32"])
    DOUBLE = codec(8, True, addresses["load_double"], addresses["store_double"])
    BLOCKS = codec(1, False, addresses["load_blocks"], addresses["store_blocks"])
    BLOCKS_NEAREST = codec(1, False, addresses["load_blocks"], addresses["store_blocks_nearest"])
    BLOCKS.in_blocks = BLOCKS_NEAREST.in_blocks = True
    squares32 = <squares_t> <size_t> addresses["squares_float32"]
    squares64 = <squares_t> <size_t> addresses["squares_float64"]
    add32, add64 = <add_t> <size_t> addresses["add_float32"], <add_t> <size_t> addresses["add_float64"]


cdef Codec codec(Py_ssize_t itemsize, bint plain, size_t load, size_t store):
    return Codec(itemsize, False, plain, <load_t> load, <store_t> store)


cdef Py_ssize_t bytes_of_blocks(Py_ssize_t n) noexcept nogil:
    """The number of bytes of n elements in blocks, where n is a multiple of BLOCK, or the number of all elements."""
    return n + (n + BLOCK - 1) // BLOCK * BLOCK_HEAD


cdef const Codec* codec_of(int computed, cnp.ndarray array) noexcept:
    """The codec for the elements of an array that are computed in the type `computed`.

    The array has passed `checks.array`, so any other type is bfloat16. Complex numbers are pairs of real ones.
    """
    cdef int typenum = cnp.PyArray_TYPE(array)
    cdef bint is_wide = computed == cnp.NPY_DOUBLE
    if typenum == cnp.NPY_UINT8:
        return &BLOCKS
    if typenum == cnp.NPY_DOUBLE or typenum == cnp.NPY_CDOUBLE:
        return &DOUBLE if is_wide else &FLOAT64
    if typenum == cnp.NPY_FLOAT or typenum == cnp.NPY_CFLOAT:
        return &WIDE_FLOAT32 if is_wide else &FLOAT32
    if cnp.PyTypeNum_ISUSERDEF(typenum):
        return &WIDE_BFLOAT16 if is_wide else &BFLOAT16
    return &WIDE_FLOAT16 if is_wide else &FLOAT16
