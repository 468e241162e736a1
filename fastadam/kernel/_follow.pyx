# cython: language_level=3
"""The call that an optimizer makes at each step. It reads anew what may have changed since the last one: which arrays
stand in the structure that was given, where gradients stand, and the options. Then it steps the plan.
Structures are walked by nodes (see `fastadam.tree`), without a line of Python where nothing has changed.
"""

from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.list cimport PyList_Append, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from ._plan cimport Extras, Plan, read_extras

from ._signals import deferred_signals

cdef enum:  # the kinds of nodes, as `fastadam.tree` has them
    SEQUENCE = 0
    MAPPING = 1
    ITEM = 2
    ATTRIBUTE = 3


cdef class Cell:
    """A value that is replaced whole: by whoever knows the value that was there."""

    cdef public object value

    def __init__(self, value):
        self.value = value

    def swap(self, old, new):
        """Put `new` in the place of `old`; False where another value came first."""
        if self.value is not old:
            return False
        self.value = new
        return True

    def __reduce__(self):
        return Cell, (self.value,)


cdef class Follower:
    """Steps one plan by what stands in a structure of parameters.

    `source` is the structure as it was given, `source_node` its node, `grads_node` that of its gradients; `bound` are
    gradients that were given once, `owner` an object that brings them as ``.grad``. A subclass brings the slower ways:
    ``follow()`` when another array stands in the structure, ``refresh()`` when the options are others than those that
    it `took`, ``flatten(grads)`` for gradients in a structure that is not of plain lists, tuples and dicts.
    """

    cdef readonly Plan plan
    cdef public object source, source_node, grads_node, bound, owner
    cdef public Cell cell
    cdef public object took

    def __init__(self, Plan plan, Cell cell):
        self.plan = plan
        self.cell = cell

    def step(
        self, grads=None, grad_scale=1.0, max_norm=None, clip_value=None, skip_nonfinite=False, zero_grads=False
    ):
        """One step; see `Optimizer.step`."""
        cdef Extras extras
        read_extras(&extras, 1.0, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads)
        if grads is None:
            grads = self.bound if self.owner is None else self.owner.grad
        flat = self.flat(grads)
        if self.plan.layout.compiled:
            self.step_flat(flat, &extras)
        else:
            with deferred_signals():
                self.step_flat(flat, &extras)

    cdef int step_flat(self, list flat, Extras* extras) except -1:
        self.plan.hold()
        try:
            self.update()
            self.plan.step_held(flat, extras, None, None)
        finally:
            self.plan.release()
        return 0

    cdef int update(self) except -1:
        if not stand_in(self.source_node, self.source, self.plan.layout.params):
            self.follow()
        if self.cell.value is not self.took:
            self.refresh()
        return 0

    def read_anew(self):
        """Follow the structure and the options, as a step does first; the caller holds the plan."""
        self.update()

    cdef list flat(self, grads):
        cdef list found = None if grads is None else flattened(self.grads_node, grads)
        return self.flatten(grads) if found is None else found


def are_same(list some, list others):
    """Whether two lists hold the same objects, or lists of the same objects."""
    cdef Py_ssize_t k
    if len(some) != len(others):
        return False
    for k in range(len(some)):
        if some[k] is not others[k] and not (
            type(some[k]) is list and type(others[k]) is list and are_same(some[k], others[k])
        ):
            return False
    return True


cpdef bint stand_in(object node, object structure, list arrays) except -1:
    """Whether these arrays, and no others, stand in a structure, which `node` describes."""
    cdef Py_ssize_t place = 0
    try:
        return is_same(node, structure, arrays, &place)
    except Exception:  # a key that is gone: who follows the structure says so
        return False


cdef bint is_same(object node, object value, list arrays, Py_ssize_t* place) except -1:
    """Whether the leaves of a structure are these arrays, from number `place` on."""
    cdef Py_ssize_t k, n, position = 0
    cdef PyObject* key
    cdef PyObject* child
    cdef tuple keys
    cdef object children
    if node is None:
        place[0] += 1
        return value is <object> PyList_GET_ITEM(arrays, place[0] - 1)
    kind, keys, children, n = node
    if kind == SEQUENCE:
        if type(value) is list:
            if PyList_GET_SIZE(value) != n:
                return False
            if children is None:
                for k in range(n):
                    if PyList_GET_ITEM(value, k) != PyList_GET_ITEM(arrays, place[0] + k):
                        return False
                place[0] += n
                return True
        elif type(value) is not tuple:
            value = list(value)
        if len(value) != n:
            return False
        for k in range(n):
            if not is_same(None if children is None else children[k], value[k], arrays, place):
                return False
        return True
    if kind == MAPPING:
        if type(value) is dict:
            if len(<dict> value) != n:
                return False
            k = 0
            while PyDict_Next(value, &position, &key, &child):
                if key != <PyObject*> PyTuple_GET_ITEM(keys, k):
                    break  # in another order, or by equal keys that are other objects
                if children is None:
                    if child != <PyObject*> PyList_GET_ITEM(arrays, place[0]):
                        return False
                    place[0] += 1
                elif not is_same(children[k], <object> child, arrays, place):
                    return False
                k += 1
            keys = keys[k:]
            children = None if children is None else children[k:]
        elif len(value) != n:
            return False
        for k in range(PyTuple_GET_SIZE(keys)):
            if not is_same(None if children is None else children[k], value[keys[k]], arrays, place):
                return False
        return True
    value = value[keys[0]] if kind == ITEM else getattr(value, keys[0])
    return is_same(None if children is None else children[0], value, arrays, place)


cpdef list flattened(object node, object structure):
    """What stands in a structure, which `node` describes; None where it is not of plain lists, tuples and dicts."""
    cdef list found
    if node is None:
        return [structure]
    found = []
    return found if flatten(node, structure, found) else None


cdef bint flatten(object node, object value, list found) except -1:
    """Add the leaves of a structure of plain lists, tuples and dicts to `found`; False where it is of anything else."""
    cdef Py_ssize_t k, n
    cdef PyObject* child
    cdef tuple keys
    cdef object children
    if node is None:
        PyList_Append(found, value)
        return True
    kind, keys, children, n = node
    if kind == SEQUENCE:
        if (type(value) is not list and type(value) is not tuple) or len(value) != n:
            return False
        for k in range(n):
            if children is None:
                PyList_Append(found, value[k])
            elif not flatten(children[k], value[k], found):
                return False
        return True
    if type(value) is not dict or len(<dict> value) != n:
        return False
    for k in range(n):
        child = PyDict_GetItemWithError(value, <object> PyTuple_GET_ITEM(keys, k))
        if child is NULL:
            return False
        if children is None:
            PyList_Append(found, <object> child)
        elif not flatten(children[k], <object> child, found):
            return False
    return True
