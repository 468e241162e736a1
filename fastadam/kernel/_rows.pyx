# cython: language_level=3, cdivision=True
"""`Rows`: a gradient of some rows of a parameter, and how rows of the same number are grouped."""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

from . import checks

cnp.import_array()

cdef enum:
    QUICK = 4096            # grouping at most so many numbers takes less time than releasing the GIL
    MOST = 1 << 30          # the most rows of values
    HANDS = 8               # the number of parts that rows are dealt out to


@cython.final
cdef class Rows:
    """A gradient that is zero in most rows of a parameter: the numbers of the other rows, and their values.

    Parameters
    ----------
    index : array of int, of shape (k,)
        The number of each row along the parameter's first axis, from 0. A number may occur several times. Rows of the
        same number are summed first, in the order given.
    values : array, of shape (k, …)
        The gradient of each of these rows. Each has the shape of a row of the parameter. Dtype and memory layout may
        be any that a gradient can have.

    Attributes
    ----------
    index : array of int64
    values : array
        Arrays are kept, not copied; an `index` only if it is contiguous and of int64. A step reads their contents at
        that time.

    Raises
    ------
    TypeError, ValueError
        For an index that is not of whole numbers, or whose length is not that of the values. The step checks both
        against the parameter, and refuses a number out of range before anything is touched.

    Notes
    -----
    ``Rows`` may take the place of any gradient. The option `rows` of a group says what a step does to the other rows.
    Norms are those of the summed rows. Rows are summed in float32, or in float64 for parameters of float64 and
    complex128.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> table = np.zeros((1000, 2))
    >>> opt = fastadam.SGD(table, lr=0.5)
    >>> opt.step(fastadam.Rows([7, 3, 7], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    >>> table[[3, 7]]
    array([[-1., -1.],
           [-2., -2.]])
    """

    def __cinit__(self, index, values):
        if not is_plain(index):
            index = checks.row_numbers("index", index)
        if not cnp.PyArray_CheckExact(values):
            values = checks.real("values", values, "biufc")
        self.index, self.values = index, values
        if cnp.PyArray_NDIM(self.values) == 0 or cnp.PyArray_DIM(self.values, 0) != cnp.PyArray_DIM(self.index, 0):
            n, shape = cnp.PyArray_DIM(self.index, 0), (<object> self.values).shape
            raise ValueError(f"values: expected {checks.counted(n, 'row')}, one for each index, got the shape {shape}")

    cdef Py_ssize_t n_values(self) noexcept:
        return cnp.PyArray_SIZE(self.values)

    def __reduce__(self):
        return Rows, (self.index, self.values)

    def __len__(self):
        return cnp.PyArray_DIM(self.index, 0)

    def __repr__(self):
        shape, dtype = (<object> self.values).shape, (<object> self.values).dtype
        return f"Rows(index={checks.shown(self.index)}, values: {dtype} of shape {shape})"


cdef bint is_plain(index) noexcept:
    """Whether this array can be read directly as numbers of rows: one axis, contiguous, int64."""
    return (
        cnp.PyArray_CheckExact(index)
        and cnp.PyTypeNum_ISSIGNED(cnp.PyArray_TYPE(<cnp.ndarray> index))  # several types of C may be int64
        and cnp.PyArray_ITEMSIZE(<cnp.ndarray> index) == sizeof(int64_t)
        and cnp.PyArray_NDIM(<cnp.ndarray> index) == 1
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> index)
    )


cdef int group(Grouped* rows, cnp.ndarray index, Py_ssize_t n_rows, name) except -1:
    """Group rows of the same number. A number outside of the `n_rows` of this parameter is refused."""
    if not is_plain(index):
        raise ValueError(
            f"gradient of {name}: index: its dtype or shape was changed, to {checks.shown(index)}; make new Rows"
        )
    cdef Py_ssize_t n = cnp.PyArray_DIM(index, 0), bad
    cdef const int64_t* numbers = <const int64_t*> cnp.PyArray_DATA(index)
    cdef Py_ssize_t n_slots = 4
    if n > MOST:
        raise ValueError(f"gradient of {name}: index: expected at most 2**30 rows, got {n}")
    while n_slots < 2 * n:
        n_slots *= 2
    need_memory(rows, n, n_slots)
    if n <= QUICK:
        bad = group_into(rows, numbers, n, n_rows, n_slots)
    else:
        with nogil:
            bad = group_into(rows, numbers, n, n_rows, n_slots)
    if bad >= 0:
        rows.n = -1
        allowed = f"0 … {n_rows - 1}" if n_rows else "none, of a parameter without rows"
        raise ValueError(
            f"gradient of {name}: index: expected numbers of rows, {allowed}, got {numbers[bad]} at place {bad}"
        )
    return 0


cdef int need_memory(Grouped* rows, Py_ssize_t n, Py_ssize_t n_slots) except -1:
    """Ensure memory for n rows, and for the hash table of their numbers."""
    cdef size_t size = (4 * n + 1) * sizeof(int64_t) + (n + n_slots) * sizeof(int32_t)
    if size > rows.size:
        PyMem_Free(rows.memory)
        rows.size = 0
        rows.memory = PyMem_Malloc(size)
        if rows.memory is NULL:
            raise MemoryError
        rows.size = size
    rows.row = <int64_t*> rows.memory
    rows.order = <Py_ssize_t*> (rows.row + n)
    rows.begin = rows.order + n
    return 0


cdef Py_ssize_t group_into(
    Grouped* rows, const int64_t* numbers, Py_ssize_t n, Py_ssize_t n_rows, Py_ssize_t n_slots
) noexcept nogil:
    """Group the rows. Return the place of a number that is out of range, or -1.

    A hash of a number leads to its slot in a table. The slot says which of the different numbers it is. The rows of
    each number are counted, and the counts say where in `order` its rows go.
    """
    cdef int64_t* found = <int64_t*> (rows.begin + n + 1)  # the different numbers, in the order in which they come
    cdef int32_t* which = <int32_t*> (found + n)
    cdef int32_t* slots = which + n
    cdef uint64_t mask = n_slots - 1, slot
    cdef Py_ssize_t i, different = 0
    memset(slots, 0, n_slots * sizeof(int32_t))
    memset(rows.order, 0, n * sizeof(Py_ssize_t))
    for i in range(n):
        if <uint64_t> numbers[i] >= <uint64_t> n_rows:
            return i
        slot = (<uint64_t> numbers[i] * <uint64_t> 0x9E3779B97F4A7C15) >> 32 & mask
        while slots[slot] != 0 and found[slots[slot] - 1] != numbers[i]:
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            found[different] = numbers[i]
            different += 1
            slots[slot] = <int32_t> different
        which[i] = slots[slot] - 1
        rows.order[which[i]] += 1
    rows.n = different
    spread(rows, found)
    for i in range(n):
        rows.order[found[which[i]]] = i
        found[which[i]] += 1
    return -1


cdef void spread(Grouped* rows, int64_t* found) noexcept nogil:
    """Lay out the different numbers, whose counts are in `order`. Leave in `found` where the rows of each begin.

    Frequent numbers mostly come early in a batch. Numbers are dealt out in turn, so that no thread gets all of those.
    """
    cdef Py_ssize_t first, k, place = 0, end = 0
    for first in range(HANDS):
        k = first
        while k < rows.n:
            rows.row[place] = found[k]
            rows.begin[place] = found[k] = end
            end += rows.order[k]
            place += 1
            k += HANDS
    rows.begin[rows.n] = end
