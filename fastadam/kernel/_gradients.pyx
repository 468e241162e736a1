# cython: language_level=3, cdivision=True
"""The admission of gradients to a step: in C where they are beyond doubt, by `checks` where not."""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from ._layout cimport Layout
from ._segments cimport Extent, Operand, Segment, extent_at, extent_of, note_directness, set_operand, sort_extents

from . import checks

cnp.import_array()

cdef extern from "Python.h":
    PyObject* PySequence_Fast_GET_ITEM(object, Py_ssize_t)  # of a list or tuple, borrowed
    Py_ssize_t PySequence_Fast_GET_SIZE(object)


cdef int admit(Layout layout, grads, int n_threads) except -1:
    """Check the gradients, a list or tuple that nobody changes meanwhile, and note where they lie."""
    cdef bint gathers
    cdef Py_ssize_t n = layout.job.n_segments
    if PySequence_Fast_GET_SIZE(grads) != n:
        raise ValueError(f"grads: expected {n} gradients, one a parameter, got {len(grads)}")
    layout.converted = layout.doubtful = None
    try:
        gathers = admit_each(layout, grads)
        if layout.doubtful is not None:
            names = [layout.names[i] for i in layout.doubtful]
            doubtful = [(layout.converted or {}).get(i, grads[i]) for i in layout.doubtful]
            checks.apart(names, doubtful, layout.written())
    except BaseException:
        for i in layout.doubtful or ():  # look at them again
            layout.job.segments[<Py_ssize_t> i].operands[1].data = NULL
        raise
    if gathers:
        layout.need_buffers(n_threads)
    return 0


cdef int admit_each(Layout layout, grads) except -1:
    """Admit the gradients one by one; whether any array is to be gathered."""
    cdef Py_ssize_t i
    cdef bint gathers = False
    cdef Segment* segment
    cdef PyObject* g
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        g = PySequence_Fast_GET_ITEM(grads, i)
        if segment.absent != (<object> g is None):
            segment.absent = not segment.absent
            layout.grads_apart = False  # it was told of others
        if segment.absent:
            continue
        if not is_stepped_still(segment):
            if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> segment.p):
                checks.parameter(layout.names[i], <cnp.ndarray> segment.p)
            dtype = (<object> segment.p).dtype
            raise TypeError(f"{layout.names[i]}: its dtype was changed to {dtype}; make a new optimizer")
        if not check_fast(layout, segment, <object> g):
            check_slow(layout, i, <object> g)
        gathers |= note_directness(segment)
    return gathers


cdef bint admit_at(Layout layout, const int64_t[::1] addresses, int n_threads) except -1:
    """Admit gradients that lie at these addresses, each laid out as the last one of its segment.

    False calls for a closer look at them: then nothing that a step reads or writes has changed.
    """
    cdef Py_ssize_t i
    cdef bint gathers = False
    cdef Segment* segment
    if not layout.compiled or addresses.shape[0] != layout.job.n_segments:
        return False
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if not (is_stepped_still(segment) and check_address(layout, segment, <char*> <size_t> addresses[i])):
            return False
        if segment.absent:
            segment.absent = layout.grads_apart = False
        gathers |= note_directness(segment)
    if gathers:
        layout.need_buffers(n_threads)
    return True


cdef inline bint is_stepped_still(Segment* segment) noexcept:
    """Whether the parameter can be written, and has the dtype that it was laid out with."""
    return (
        cnp.PyArray_ISWRITEABLE(<cnp.ndarray> segment.p)
        and cnp.PyArray_TYPE(<cnp.ndarray> segment.p) == segment.p_typenum
        and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> segment.p)
    )


cdef inline bint check_fast(Layout layout, Segment* segment, g) noexcept:
    """True if `g` is beyond doubt a gradient that fits, laid out as the last one; False calls for a closer look."""
    cdef int k
    cdef char* data
    cdef Operand* operand = &segment.operands[1]
    if not cnp.PyArray_CheckExact(g):
        return False
    if (
        cnp.PyArray_TYPE(<cnp.ndarray> g) != segment.grad_typenum
        or cnp.PyArray_NDIM(<cnp.ndarray> g) != segment.p_ndim
        or not cnp.PyArray_ISALIGNED(<cnp.ndarray> g)
        or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray> g)
    ):
        return False
    for k in range(segment.p_ndim):
        if cnp.PyArray_DIM(<cnp.ndarray> g, k) != segment.p_shape[k]:
            return False
    for k in range(segment.ndim - segment.is_complex):
        if cnp.PyArray_STRIDE(<cnp.ndarray> g, <int> segment.axes[k]) != operand.strides[k]:
            return False
    data = cnp.PyArray_BYTES(<cnp.ndarray> g)
    return data == operand.data or move_to(layout, segment, data)


cdef inline bint check_address(Layout layout, Segment* segment, char* data) noexcept:
    """The same of a gradient that is known to be laid out as the last one, and to lie at `data`."""
    cdef Operand* operand = &segment.operands[1]
    if operand.data is NULL:  # there was none yet
        return False
    return data == operand.data or (
        <size_t> data % <size_t> operand.codec.itemsize == 0 and move_to(layout, segment, data)
    )


cdef bint move_to(Layout layout, Segment* segment, char* data) noexcept:
    """Note where an aligned gradient lies that is laid out as the last one; False where a step may write there."""
    cdef Operand* operand = &segment.operands[1]
    cdef Extent extent = extent_at(segment, operand, data)
    if segment.n > 0 and layout.meets_written(extent.low, extent.high):
        return False
    layout.grads_apart = False
    operand.data = data
    operand.in_place = operand.contiguous
    operand.direct = operand.contiguous and operand.codec.plain
    return True


cdef int check_slow(Layout layout, Py_ssize_t i, g) except -1:
    """Admit a gradient in any layout, or say what is wrong with it."""
    cdef Segment* segment = &layout.job.segments[i]
    cdef int k
    cdef Extent extent
    cdef cnp.ndarray p = <cnp.ndarray> segment.p
    for k in range(segment.p_ndim):
        if cnp.PyArray_NDIM(p) != segment.p_ndim or cnp.PyArray_DIM(p, k) != segment.p_shape[k]:
            shape = (<object> p).shape
            raise ValueError(f"{layout.names[i]}: its shape was changed to {shape}; make a new optimizer")
    found = checks.gradient(layout.names[i], g, p)
    if found is not g:
        layout.converted = {**(layout.converted or {}), i: found}
        g = found
    set_operand(segment, 1, g)
    extent = extent_of(segment, 1)
    if segment.n > 0 and layout.meets_written(extent.low, extent.high):
        layout.doubtful = [*(layout.doubtful or ()), i]
    layout.grads_apart = False
    segment.grad_typenum = cnp.PyArray_TYPE(<cnp.ndarray> g)
    return 0


cdef int admit_zeroing(Layout layout, grads) except -1:
    """Refuse gradients that cannot be left zero: read-only, or sharing memory, so that one's zeros are read."""
    cdef Py_ssize_t i
    cdef PyObject* g
    cdef bint good = True
    for i in range(layout.job.n_segments):
        g = PySequence_Fast_GET_ITEM(grads, i)
        if not layout.job.segments[i].absent:
            good &= cnp.PyArray_Check(<object> g) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> g)
    if layout.converted is not None:
        name, kind = layout.names[min(layout.converted)], type(grads[min(layout.converted)]).__name__
        raise TypeError(
            f"zero_grads: the gradient of {name} came as {kind}, and was read as another array; zero it yourself, or "
            "pass a NumPy array of floats"
        )
    if good and layout.grads_apart:
        return 0
    if not (good and lie_apart(layout)):
        named = {f"gradient of {name}": given for name, given in zip(layout.names, grads) if given is not None}
        checks.parameters(list(named), list(named.values()))
    layout.grads_apart = True
    return 0


cdef bint lie_apart(Layout layout) except -1:
    """Whether all gradients are contiguous and no two meet; False calls for a closer look."""
    cdef Py_ssize_t i, n = 0
    cdef bint apart = True
    cdef Segment* segment
    cdef Extent* found = <Extent*> PyMem_Malloc((2 * layout.job.n_segments + 1) * sizeof(Extent))
    if found is NULL:
        raise MemoryError
    for i in range(layout.job.n_segments):
        segment = &layout.job.segments[i]
        if segment.absent:
            continue
        apart &= segment.operands[1].contiguous
        if segment.n > 0:
            found[n] = extent_of(segment, 1)
            n += 1
    sort_extents(found, found + n, n)
    for i in range(n - 1):
        apart &= found[i].high <= found[i + 1].low
    PyMem_Free(found)
    return apart
