# cython: language_level=3, cdivision=True
"""Segments: the places of their operands' elements in memory, the order of these, and their ranges of addresses."""

cimport numpy as cnp
from libc.string cimport memcpy

from ._codecs cimport bytes_of_blocks, codec_of

import numpy as np

from . import checks

cnp.import_array()

cdef enum:
    ALONE = 16              # rows of fewer elements are gathered, since a call for each row would take longer


def state_like(cnp.ndarray p, dtype=None, allocate=np.zeros):
    """A new array with p's shape and p's memory order.

    Its default dtype is that in which p is computed. `allocate(shape, dtype)` makes the memory.
    """
    cdef Py_ssize_t order[MAX_DIMS]
    cdef int k
    memory_order(p, order)
    axes = [order[k] for k in range(cnp.PyArray_NDIM(p))]
    shape = tuple([cnp.PyArray_DIM(p, axis) for axis in axes])
    state = allocate(shape, checks.computed_in(p) if dtype is None else dtype)
    return state.transpose(np.argsort(axes)) if axes else state


cdef void memory_order(cnp.ndarray p, Py_ssize_t* axes) noexcept:
    """p's axes from the slowest to the fastest in memory. For equal strides, C order."""
    cdef int k, place
    cdef Py_ssize_t stride
    for k in range(cnp.PyArray_NDIM(p)):
        place = k
        if not cnp.PyArray_IS_C_CONTIGUOUS(p):
            stride = reach(p, k)
            while place > 0 and reach(p, axes[place - 1]) < stride:
                axes[place] = axes[place - 1]
                place -= 1
        axes[place] = k


cdef inline Py_ssize_t reach(cnp.ndarray p, Py_ssize_t axis) noexcept:
    """The distance of neighbours on this axis; 0 if there are none."""
    cdef Py_ssize_t stride = cnp.PyArray_STRIDE(p, <int> axis)
    return 0 if cnp.PyArray_DIM(p, <int> axis) <= 1 else -stride if stride < 0 else stride


cdef void fill_axes(Segment* segment, cnp.ndarray p) noexcept:
    """Set the axes of a segment: those of p whose length is not 1, and an axis for complex numbers."""
    cdef int k
    for k in range(segment.p_ndim):
        segment.p_shape[k] = cnp.PyArray_DIM(p, k)
    memory_order(p, segment.axes)
    for k in range(segment.p_ndim):
        if segment.p_shape[segment.axes[k]] != 1:
            segment.axes[segment.ndim] = segment.axes[k]
            segment.shape[segment.ndim] = segment.p_shape[segment.axes[k]]
            segment.ndim += 1
    if segment.is_complex:
        segment.axes[segment.ndim], segment.shape[segment.ndim] = -1, 2
        segment.ndim += 1


cdef void fill_row(Segment* segment) noexcept:
    """Set the shape of one row of the first axis, its number of elements, and how many of them are consecutive."""
    cdef int k
    segment.inner = 1
    for k in range(segment.ndim - 1, -1, -1):
        segment.row_shape[k] = segment.shape[k]
    for k in range(segment.ndim - 1, -1, -1):
        if segment.axes[k] == 0:
            segment.row_shape[k] = 1
            break
        segment.inner *= segment.shape[k]
    if segment.p_ndim > 0:
        segment.n_rows = segment.p_shape[0]
        segment.width = segment.n // segment.n_rows if segment.n_rows > 0 else 0


cdef void set_operand(Segment* segment, int which, cnp.ndarray array, Py_ssize_t* shape) noexcept:
    """Set an operand: the strides of its elements in the order of the segment's axes, and their storage.

    `shape` is that of the segment, or that of one row for an array with any number of rows.
    """
    cdef Operand* operand = &segment.operands[which]
    cdef Py_ssize_t next_stride = 0  # the stride that would continue the faster axes; 0 if there are none
    cdef bint is_first = True
    cdef int k
    operand.data, operand.shape = cnp.PyArray_BYTES(array), shape
    operand.codec = codec_of(segment.typenum, array)
    operand.uniform = True
    operand.step = operand.codec.itemsize
    if operand.codec.in_blocks:  # an array of bytes has its own, single axis
        operand.contiguous = True
        return
    for k in range(segment.ndim - 1, -1, -1):
        operand.strides[k] = 0
        if shape[k] == 1:
            continue
        if segment.axes[k] < 0:
            operand.strides[k] = operand.codec.itemsize
        else:
            operand.strides[k] = cnp.PyArray_STRIDE(array, <int> segment.axes[k])
        if is_first:
            operand.step = operand.strides[k]
        elif operand.strides[k] != next_stride:
            operand.uniform = False
        is_first = False
        next_stride = operand.strides[k] * shape[k]
    operand.contiguous = operand.uniform and operand.step == operand.codec.itemsize
    operand.in_place = operand.contiguous and cnp.PyArray_ISALIGNED(array)
    operand.direct = operand.in_place and operand.codec.plain


cdef bint note_directness(Segment* segment) noexcept:
    """Note whether the gradient, too, is read in place. Return whether buffers may be needed."""
    cdef Operand* operand = &segment.operands[1]
    segment.direct = segment.others_direct and operand.direct and segment.rows.n < 0
    segment.packs = segment.packed is not NULL
    if segment.rows.n < 0:
        segment.packs = segment.packs and operand.in_place and operand.codec == segment.packed_gradient
    else:  # the sums of rows have the dtype of computation
        segment.packs = segment.packs and segment.packed_gradient.plain
        segment.rows_alone = segment.inner >= ALONE and (segment.others_direct or segment.packs)
    return not segment.direct


cdef Extent extent_of(Segment* segment, int which) noexcept:
    """The range of addresses of an operand's elements."""
    return extent_at(segment, &segment.operands[which], segment.operands[which].data)


cdef Extent extent_at(Segment* segment, Operand* operand, char* data) noexcept:
    """The same as if the operand were at `data`."""
    cdef Extent extent = Extent(data, data + operand.codec.itemsize)
    cdef Py_ssize_t far
    cdef int k
    if operand.codec.in_blocks:
        extent.high = data + bytes_of_blocks(segment.n)
        return extent
    for k in range(segment.ndim):
        far = operand.strides[k] * (operand.shape[k] - 1)
        if far < 0:
            extent.low += far
        else:
            extent.high += far
    return extent


cdef void sort_extents(Extent* extents, Extent* spare, Py_ssize_t n) noexcept:
    """Sort by `low`: merge sorted runs, two at a time, until there is one.

    Arrays that were made one after another mostly lie in that order in memory, so there are few runs.
    """
    cdef Py_ssize_t first, middle, last, i, k, at
    while run_end(extents, 0, n) < n:
        first = 0
        while first < n:
            middle = run_end(extents, first, n)
            last = run_end(extents, middle, n)
            i, k = first, middle
            for at in range(first, last):
                if k >= last or (i < middle and extents[i].low <= extents[k].low):
                    spare[at] = extents[i]
                    i += 1
                else:
                    spare[at] = extents[k]
                    k += 1
            first = last
        memcpy(extents, spare, n * sizeof(Extent))


cdef inline Py_ssize_t run_end(Extent* extents, Py_ssize_t first, Py_ssize_t n) noexcept:
    """Where the sorted run that begins at `first` ends."""
    while first + 1 < n and extents[first].low <= extents[first + 1].low:
        first += 1
    return min(first + 1, n)
