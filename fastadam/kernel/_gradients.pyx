# cython: language_level=3, cdivision=True
"""The admission of gradients to a step: in C where they are beyond doubt, by `checks` where not."""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t

from ._codecs cimport BLOCK
from ._layout cimport Layout
from ._rows cimport Rows, group
from ._segments cimport Extent, Operand, Segment, extent_at, extent_of, note_directness, set_operand, sort_extents
from ._tiles cimport expect

from . import checks, sparse

cnp.import_array()

cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object, Py_ssize_t)  # borrowed
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
        gathers = admit_each(layout, grads, n_threads)
        if layout.doubtful is not None:
            names = [layout.names[i] for i in layout.doubtful]
            doubtful = [array_of((layout.converted or {}).get(i, grads[i])) for i in layout.doubtful]
            checks.apart(names, doubtful, layout.written())
    except BaseException:
        for i in layout.doubtful or ():  # look at them again
            layout.job.segments[<Py_ssize_t> i].operands[1].data = NULL
        raise
    layout.cut()
    if gathers:
        layout.need_buffers(n_threads)
    return 0


cdef int admit_one(Layout layout, Py_ssize_t i, g, int n_threads) except -1:
    """Check the gradient of one parameter, and note where it lies; nothing is cut anew."""
    cdef bint gathers
    layout.converted = layout.doubtful = None
    try:
        gathers = admit_gradient(layout, i, g, n_threads)
        if layout.doubtful is not None:
            checks.apart([layout.names[i]], [array_of((layout.converted or {}).get(i, g))], layout.written())
    except BaseException:
        layout.job.segments[i].operands[1].data = NULL  # look at the next one
        raise
    if gathers:
        layout.need_buffers(n_threads)
    return 0


cdef int admit_each(Layout layout, grads, int n_threads) except -1:
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
        if not segment.absent:
            gathers |= admit_gradient(layout, i, <object> g, n_threads)
    return gathers


cdef inline int admit_gradient(Layout layout, Py_ssize_t i, g, int n_threads) except -1:
    """Admit one gradient; whether an array is to be gathered for it."""
    cdef Segment* segment = &layout.job.segments[i]
    need_stepped_still(layout, i)
    if type(g) is Rows:
        expect((<Rows> g).n_values(), n_threads)
        admit_rows(layout, i, <Rows> g)
    elif not check_fast(layout, segment, g):
        check_slow(layout, i, g)
    return note_directness(segment)


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
        if segment.rows.n >= 0:
            return False
        if not (is_stepped_still(layout, segment) and check_address(layout, segment, <char*> <size_t> addresses[i])):
            return False
        if segment.absent:
            segment.absent = layout.grads_apart = False
        gathers |= note_directness(segment)
    layout.cut()  # gradients that were refused since may have changed what is worked on
    if gathers:
        layout.need_buffers(n_threads)
    return True


cdef int need_stepped_still(Layout layout, Py_ssize_t i) except -1:
    """Refuse a parameter that can no longer be stepped."""
    cdef Segment* segment = &layout.job.segments[i]
    if is_stepped_still(layout, segment):
        return 0
    for name, array in zip(layout.names + layout.state_names(), layout.written(), strict=True):
        checks.writeable(name, array)
    dtype = (<object> segment.p).dtype
    raise TypeError(f"{layout.names[i]}: its dtype was changed to {dtype}; make a new optimizer")


cdef int need_lagging_still(Layout layout) except -1:
    """The same of all parameters that have rows that may lag."""
    cdef Py_ssize_t i
    for i in range(layout.job.n_segments):
        if layout.job.segments[i].visits is not NULL and layout.job.segments[i].visits[layout.job.segments[i].n_rows]:
            need_stepped_still(layout, i)
    return 0


cdef inline bint is_stepped_still(Layout layout, Segment* segment) noexcept:
    """Whether the parameter and its states can be written, and it has the dtype that it was laid out with."""
    cdef Py_ssize_t k
    for k in range(segment.held + 1, segment.held + segment.n_operands - 1 + segment.has_master):
        if not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> PyList_GET_ITEM(layout.held, k)):
            return False
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
    cdef cnp.ndarray p = <cnp.ndarray> segment.p
    need_shape(layout, i)
    if not cnp.PyArray_Check(g):
        rows = sparse.as_rows(f"gradient of {layout.names[i]}", g, (<object> p).shape)
        if rows is not None:
            layout.converted = {**(layout.converted or {}), i: rows}
            return admit_rows(layout, i, <Rows?> rows)
    found = checks.gradient(layout.names[i], g, p)
    if found is not g:
        layout.converted = {**(layout.converted or {}), i: found}
    segment.rows.n = -1
    layout.set_work(segment, segment.n)
    set_operand(segment, 1, found, segment.shape)
    segment.grad_typenum = cnp.PyArray_TYPE(<cnp.ndarray> found)
    note_extent(layout, i)
    return 0


cdef int admit_rows(Layout layout, Py_ssize_t i, Rows g) except -1:
    """Admit a gradient of some rows, or say what is wrong with it."""
    cdef Segment* segment = &layout.job.segments[i]
    cdef cnp.ndarray values = g.values
    need_shape(layout, i)
    if segment.in_blocks and (segment.width % BLOCK != 0 or segment.inner != segment.width):
        raise ValueError(
            f"gradient of {layout.names[i]}: expected an array, got Rows; its 8-bit states are in blocks of {BLOCK} "
            f"elements, which rows of {segment.width} cut; give it a group with state_dtype='bfloat16' or None"
        )
    if not row_values_fit(segment, g):
        values = checks.row_values(layout.names[i], g.index, values, <cnp.ndarray> segment.p)
        if values is not g.values:
            layout.converted = {**(layout.converted or {}), i: values}
    segment.operands[1].data = NULL  # until it is known to fit: else `admit_at` would go on from rows
    group(&segment.rows, g.index, segment.n_rows, layout.names[i])
    segment.rows.stride = cnp.PyArray_STRIDE(values, 0)
    segment.grad_typenum = cnp.NPY_NOTYPE  # an array calls for a closer look
    layout.set_work(segment, segment.rows.n * segment.width)
    set_operand(segment, 1, values, segment.row_shape)
    note_extent(layout, i)
    return 0


cdef bint row_values_fit(Segment* segment, Rows g) noexcept:
    """Whether the values are beyond doubt those of rows of this parameter."""
    cdef int k, typenum = cnp.PyArray_TYPE(g.values)
    if (
        cnp.PyArray_NDIM(g.values) != segment.p_ndim
        or segment.p_ndim == 0
        or not cnp.PyArray_CheckExact(g.values)
        or not cnp.PyArray_ISALIGNED(g.values)
        or not cnp.PyArray_ISNOTSWAPPED(g.values)
        or segment.is_complex
        or not (typenum == cnp.NPY_FLOAT or typenum == cnp.NPY_DOUBLE)
        or cnp.PyArray_DIM(g.values, 0) != cnp.PyArray_DIM(g.index, 0)
    ):
        return False
    for k in range(1, segment.p_ndim):
        if cnp.PyArray_DIM(g.values, k) != segment.p_shape[k]:
            return False
    return True


cdef int note_extent(Layout layout, Py_ssize_t i) except -1:
    """Note whether a gradient that was looked at closely may share memory with an array that is written."""
    cdef Segment* segment = &layout.job.segments[i]
    cdef Extent extent = extent_of_gradient(segment)
    if segment.work > 0 and layout.meets_written(extent.low, extent.high):
        layout.doubtful = [*(layout.doubtful or ()), i]
    layout.grads_apart = False
    return 0


cdef Extent extent_of_gradient(Segment* segment) noexcept:
    """The addresses between which its numbers lie."""
    cdef Extent extent = extent_of(segment, 1)
    cdef Py_ssize_t far
    if segment.rows.n > 0:
        far = segment.rows.stride * (segment.rows.begin[segment.rows.n] - 1)
        extent.low += min(far, 0)
        extent.high += max(far, 0)
    return extent


cdef object array_of(g):
    """The array of a gradient: of one of rows its values."""
    return (<Rows> g).values if type(g) is Rows else g


cdef int need_shape(Layout layout, Py_ssize_t i) except -1:
    """Refuse a parameter whose shape is not that which was laid out."""
    cdef Segment* segment = &layout.job.segments[i]
    cdef cnp.ndarray p = <cnp.ndarray> segment.p
    cdef int k
    for k in range(segment.p_ndim):
        if cnp.PyArray_NDIM(p) != segment.p_ndim or cnp.PyArray_DIM(p, k) != segment.p_shape[k]:
            shape = (<object> p).shape
            raise ValueError(f"{layout.names[i]}: its shape was changed to {shape}; make a new optimizer")
    return 0


cdef int admit_zeroing(Layout layout, grads) except -1:
    """Refuse gradients that cannot be left zero: read-only, or sharing memory, so that one's zeros are read."""
    cdef Py_ssize_t i
    cdef PyObject* g
    cdef bint good = True
    for i in range(layout.job.n_segments):
        g = PySequence_Fast_GET_ITEM(grads, i)
        if not layout.job.segments[i].absent:
            good &= is_writeable(<object> g)
    if layout.converted is not None:
        i = min(layout.converted)
        refuse_converted(layout.names[i], grads[i])
    if good and layout.grads_apart:
        return 0
    if not (good and lie_apart(layout)):
        every = {f"gradient of {name}": given for name, given in zip(layout.names, grads)}
        named = {name: array_of(given) for name, given in every.items() if given is not None}
        checks.parameters(list(named), list(named.values()))
    layout.grads_apart = True
    return 0


cdef int admit_zeroing_of(Layout layout, Py_ssize_t i, g) except -1:
    """The same of one gradient, which is stepped by before another is read."""
    cdef Segment* segment = &layout.job.segments[i]
    if layout.converted is not None:
        refuse_converted(layout.names[i], g)
    if not (is_writeable(g) and segment.operands[1].contiguous and segment.rows.n <= 0):
        checks.parameters([f"gradient of {layout.names[i]}"], [array_of(g)])
    return 0


cdef inline bint is_writeable(g) noexcept:
    array = array_of(g)
    return cnp.PyArray_Check(array) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array)


cdef int refuse_converted(str name, g) except -1:
    """Refuse to leave zeros in what was read as another array."""
    raise TypeError(
        f"zero_grads: the gradient of {name} came as {type(g).__name__}, and was read as another array; zero it "
        "yourself, or pass a NumPy array of floats"
    )


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
        apart &= segment.operands[1].contiguous and segment.rows.n <= 0  # values may be one row that stands for all
        if segment.work > 0:
            found[n] = extent_of_gradient(segment)
            n += 1
    sort_extents(found, found + n, n)
    for i in range(n - 1):
        apart &= found[i].high <= found[i + 1].low
    PyMem_Free(found)
    return apart
