# cython: language_level=3
"""The call that an optimizer makes at each step. It reads anew what may have changed since the last one: which arrays
stand in the structure that was given, where gradients stand, and the options. Then it steps the plan.
Structures are walked by nodes (see `fastadam.tree`), without a line of Python where nothing has changed.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from ._extras cimport Extras, read_extras
from ._segments cimport Segment

from ._signals import deferred_signals

cdef enum:  # the kinds of nodes, as `fastadam.tree` has them
    SEQUENCE = 0
    MAPPING = 1
    ITEM = 2
    ATTRIBUTE = 3
    PAIR = 4


cdef class Cell:
    """A value that is replaced whole: by whoever knows the value that was there."""

    def __init__(self, value):
        self.held = value

    @property
    def value(self):
        """The value that is there now."""
        with cython.critical_section(self):
            return self.held

    cdef bint holds(self, value) noexcept:
        with cython.critical_section(self):
            return self.held is value

    def swap(self, old, new):
        """Put `new` in the place of `old`; False where another value came first."""
        with cython.critical_section(self):
            if self.held is not old:
                return False
            self.held = new  # the caller keeps `old` alive meanwhile
        return True

    def __reduce__(self):
        return Cell, (self.value,)


cdef class Follower:
    """Steps one plan by what stands in a structure of parameters.

    `source` is the structure as it was given, `source_node` its node, `grads_node` that of its gradients; `bound` are
    gradients that were given once, `owner` an object that brings them as ``.grad``. A subclass brings the slower ways:
    ``follow()`` when another array stands in the structure, ``refresh()`` when the options are others than those that
    it `took`, which also says which parameters are `frozen`, and ``flatten(grads)`` for gradients in a structure that
    is not of plain lists, tuples and dicts.
    """

    def __init__(self, Plan plan, Cell cell):
        self.plan = plan
        self.cell = cell
        self.frozen = []

    def step(self, grads, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each):
        """One step; see `Optimizer.step`."""
        cdef Extras extras
        read_extras(&extras, 1.0, grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads, max_norm_each)
        if grads is None:
            grads = self.bound_grads() if self.owner is None else self.owner.grad
        if not self.plan.compiled or not self.hold_and_step(grads, &extras, False):
            with deferred_signals():
                self.hold_and_step(grads, &extras, True)

    cdef bint hold_and_step(self, grads, Extras* extras, bint by_python) except -1:
        """One step; False, and none, where only Python's code can read the gradients, unless `by_python`."""
        cdef list flat
        self.plan.hold()
        try:
            flat = None if grads is None else flattened(self.grads_node, grads)
            if flat is None:
                if not by_python:
                    return False
                flat = self.flatten(grads)
            self.update()
            for k in self.frozen:
                flat[k] = None
            self.plan.step_held(flat, extras, None, None)
        finally:
            self.plan.release()
        return True

    @property
    def bound(self):
        """The gradients that were bound."""
        return self.bound_grads()

    @bound.setter
    def bound(self, grads):
        with cython.critical_section(self):
            _old, self.grads = self.grads, grads  # kept alive until nobody takes it

    cdef object bound_grads(self):
        with cython.critical_section(self):
            return self.grads

    cdef int update(self) except -1:
        self.follow_structure()
        if not self.cell.holds(self.took):
            self.refresh()
            self.follow_structure()  # a schedule may have put another array there
        return 0

    cdef int follow_structure(self) except -1:
        cdef bint same
        cdef Place place
        place.next = self.plan.layout.job.segments
        place.end = place.next + self.plan.layout.job.n_segments
        try:
            same = is_same(self.source_node, <PyObject*> self.source, &place)
        except Exception:  # a key that is gone: `follow` says so
            same = False
        if not same:
            self.follow()
        return 0

    def read_anew(self):
        """Follow the structure, as a step does first; the caller holds the plan."""
        self.follow_structure()

    def prepare_step(self):
        """Follow the structure and the options, as a step does first; the caller holds the plan."""
        self.update()


cdef struct Place:          # which parameters come next
    Segment* next
    Segment* end


cdef bint is_same(object node, PyObject* value, Place* place) except -1:
    """Whether the leaves of a structure are the parameters that come next in the plan."""
    if node is None:
        if place.next == place.end or place.next.p != <void*> value:
            return False
        place.next += 1
        return True
    kind = node[0]
    if kind == MAPPING and type(<object> value) is dict:
        return is_same_dict(node, <dict> value, place)
    if kind == SEQUENCE and type(<object> value) is list:
        return is_same_list(node, <list> value, place)
    return is_same_by_key(node, <object> value, place)


cdef bint is_same_list(tuple node, list values, Place* place) except -1:
    """Other threads may change the list meanwhile, and so may the code of children, which are of any type."""
    cdef Py_ssize_t k, n = <Py_ssize_t> node[3]
    cdef object child, children = node[2]
    with cython.critical_section(values):
        if n != PyList_GET_SIZE(values) or n > place.end - place.next:
            return False
        for k in range(n):
            if children is not None:
                if k >= PyList_GET_SIZE(values):
                    return False
                child = <object> PyList_GET_ITEM(values, k)
                if not is_same(children[k], <PyObject*> child, place):
                    return False
            elif place.next[k].p != <void*> PyList_GET_ITEM(values, k):
                return False
    if children is None:
        place.next += n
    return True


cdef bint is_same_dict(tuple node, dict values, Place* place) except -1:
    """The keys mostly stand in their old order; where they do not, the structure is read by key."""
    cdef Py_ssize_t position = 0, k = 0
    cdef tuple keys = node[1]
    cdef object part, children = node[2]
    cdef PyObject* key
    cdef PyObject* child
    cdef Place begin = place[0]
    if len(values) != PyTuple_GET_SIZE(keys):
        return False
    with cython.critical_section(values):  # other threads may change it
        while PyDict_Next(values, &position, &key, &child):
            if k >= PyTuple_GET_SIZE(keys) or key != PyTuple_GET_ITEM(keys, k):
                place[0] = begin
                return is_same_by_key(node, values, place)
            if children is not None:
                part = <object> child
                if not is_same(children[k], <PyObject*> part, place):
                    return False
            elif place.next == place.end or place.next.p != <void*> child:
                return False
            else:
                place.next += 1
            k += 1
    return k == PyTuple_GET_SIZE(keys)


cdef bint is_same_by_key(tuple node, object values, Place* place) except -1:
    """Of a container of any type."""
    kind, keys, children, n = node
    if kind == SEQUENCE:
        parts = list(values)
    elif kind == ATTRIBUTE:
        parts = [getattr(values, keys[0])]
    elif kind == PAIR:
        parts = [values[1]] if values[0] == keys[0] else []
    else:
        parts = [values[key] for key in keys]
        if kind == MAPPING and len(values) != n:
            return False
    if len(parts) != n:
        return False
    for k, part in enumerate(parts):
        if not is_same(None if children is None else children[k], <PyObject*> part, place):
            return False
    return True


cpdef list flattened(object node, object structure):
    """What stands in a structure, which `node` describes; None where it is not of plain lists, tuples and dicts."""
    cdef list found
    if node is None:
        return None if is_container(structure) else [structure]
    found = []
    return found if flatten(node, structure, found) else None


cdef bint flatten(object node, object value, list found) except -1:
    """Add the leaves of a structure of plain lists, tuples and dicts to `found`; False where it is of anything else."""
    cdef Py_ssize_t k
    if node is None:
        found.append(value)
        return not is_container(value)
    parts = (None,) * node[3] if value is None else parts_of(node, value)
    if parts is None:
        return False
    children = node[2]
    if children is None:
        k = len(found)
        found.extend(parts)
        return len(found) - k == <Py_ssize_t> node[3]  # another thread may have changed the list
    for k in range(len(parts)):
        if not flatten(children[k], parts[k], found):
            return False
    return True


cdef inline bint is_container(object value):
    return type(value) is dict or type(value) is list or type(value) is tuple


cdef object parts_of(tuple node, object value):
    """The children of a plain list, tuple or dict, in the order of the node; None where they are not those."""
    cdef tuple keys = node[1]
    cdef PyObject* child
    if node[0] == SEQUENCE:
        is_plain = type(value) is list or type(value) is tuple
        return value if is_plain and len(value) == node[3] else None
    if node[0] == ITEM and type(value) is tuple:  # a name with an array
        return value[1:] if len(value) == 2 else None
    if type(value) is not dict or (node[0] == MAPPING and len(<dict> value) != PyTuple_GET_SIZE(keys)):
        return None
    parts = []
    with cython.critical_section(value):  # what is found is borrowed
        for key in keys:
            child = PyDict_GetItemWithError(value, key)
            if child is NULL:
                return None
            parts.append(<object> child)
    return parts
