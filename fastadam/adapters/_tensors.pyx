# cython: language_level=3
"""`Watch`: remembers the tensors and options of a torch optimizer, and does a quick step if they have not changed.

torch is neither linked nor imported. The memory of its tensors is read through DLPack's table of C functions, which
torch has from 2.10 on. Without the table, and for tensors of other types, their methods are called.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.dict cimport PyDict_Next
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject, Py_TYPE
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from ..kernel._entry cimport Entry

from array import array

from ..kernel._signals import deferred_signals
from ..kernel._stepper import are_same

cdef extern from *:
    """
    /* DLPack 1: the description of a tensor, and the table of functions that fill it. */
    typedef struct { int32_t type, id; } dl_device_t;
    typedef struct { uint8_t code, bits; uint16_t lanes; } dl_dtype_t;
    typedef struct {
        void *data; dl_device_t device; int32_t ndim; dl_dtype_t dtype; int64_t *shape, *strides; uint64_t byte_offset;
    } dl_tensor_t;
    typedef struct dl_table {
        struct { uint32_t major, minor; } version;
        struct dl_table *previous;
        void *allocate, *owned_from_object, *owned_to_object;
        int (*from_object)(void *object, dl_tensor_t *out);
        void *stream;
    } dl_table_t;
    static uint32_t dl_major(dl_table_t *table) { return table->version.major; }
    """
    ctypedef struct dl_device_t:
        int32_t type
    ctypedef struct dl_dtype_t:
        uint8_t code
    ctypedef struct dl_tensor_t:
        void* data
        dl_device_t device
        int32_t ndim
        dl_dtype_t dtype
        int64_t* shape
        int64_t* strides
        uint64_t byte_offset
    ctypedef struct dl_table_t:
        dl_table_t* previous
        int (*from_object)(void* object, dl_tensor_t* out)
    uint32_t dl_major(dl_table_t* table)

cdef enum:
    DLPACK = 1      # the version that this module knows
    ON_CPU = 1
    COMPLEX = 5     # DLPack's code of complex dtypes
    MAX_NDIM = 8    # tensors of more axes are read by their methods

cdef size_t MAX_OFFSET = 0xffffffff  # few systems allocate memory at lower addresses

cdef struct Place:          # how a tensor lies in memory
    size_t address
    dl_dtype_t dtype
    int ndim                        # -1: only its methods tell more than the address
    int64_t sizes[2 * MAX_NDIM]     # its shape, then its strides

cdef object ANY = object()  # in place of what is not compared
cdef dl_table_t* table = NULL
cdef object kept_alive = None
cdef object DATA_PTR = None, STRIDE = None, IS_NEG = None, IS_CONJ = None  # torch.Tensor's methods
cdef object CHANGED = None  # tells autograd that tensors were written
cdef PyObject* tensor_type = NULL
cdef PyObject* parameter_type = NULL


def read_by(capsule, tensor, parameter, changed):
    """Read tensors of exactly these two types by this table of functions, or by methods where it is no table.

    `changed` is called with tensors that a step has written, so that autograd knows.
    """
    global table, kept_alive, tensor_type, parameter_type, DATA_PTR, STRIDE, IS_NEG, IS_CONJ, CHANGED
    kept_alive, CHANGED = (tensor, parameter), changed
    DATA_PTR, STRIDE, IS_NEG, IS_CONJ = tensor.data_ptr, tensor.stride, tensor.is_neg, tensor.is_conj
    tensor_type, parameter_type = <PyObject*> tensor, <PyObject*> parameter
    table = NULL
    if PyCapsule_IsValid(capsule, "dlpack_exchange_api"):
        table = <dl_table_t*> PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
    while table is not NULL and (dl_major(table) != DLPACK or table.from_object is NULL):
        table = table.previous


cdef bint read(tensor, dl_tensor_t* found) noexcept:
    """Whether the tensor lies in this machine's memory, and where."""
    cdef PyObject* kind = <PyObject*> Py_TYPE(tensor)
    if table is NULL or (kind != tensor_type and kind != parameter_type):
        return False
    if table.from_object(<void*> tensor, found) != 0:  # it is sparse, or on another device
        PyErr_Clear()
        return False
    return found.device.type == ON_CPU and found.ndim <= MAX_NDIM


cdef inline bint is_conjugate(tensor, dl_tensor_t* found) except -1:
    """Whether what lies in memory is the conjugate of the tensor."""
    return found.dtype.code == COMPLEX and IS_CONJ(tensor)


cdef inline char* address(dl_tensor_t* found) noexcept:
    return <char*> found.data + found.byte_offset


cdef bint has_memory(tensor, dl_tensor_t* found) except -1:
    """Whether there is memory at the address. In a freed storage, and of zeros not computed, it is an offset."""
    if <size_t> address(found) > MAX_OFFSET or not tensor.numel():
        return True
    return tensor.untyped_storage().nbytes() != 0 and not tensor._is_zerotensor()


cdef void keep(Place* place, dl_tensor_t* found) noexcept:
    cdef int k
    place.address = <size_t> address(found)
    place.dtype = found.dtype
    place.ndim = found.ndim
    for k in range(found.ndim):
        place.sizes[k] = found.shape[k]
        place.sizes[MAX_NDIM + k] = found.strides[k]


cdef bint is_laid_out(Place* place, dl_tensor_t* found) noexcept:
    """Whether a tensor has the dtype, shape and strides of one that was kept."""
    cdef size_t size = found.ndim * sizeof(int64_t)
    return (
        place.ndim == found.ndim
        and memcmp(&place.dtype, &found.dtype, sizeof(dl_dtype_t)) == 0
        and memcmp(&place.sizes[0], found.shape, size) == 0
        and memcmp(&place.sizes[MAX_NDIM], found.strides, size) == 0
    )


cdef class Lent:
    """The memory of a torch storage as a buffer, which keeps the storage alive.

    ``Tensor.numpy()`` marks a storage, so that it cannot be resized ever after. This leaves no mark. So whoever uses
    the buffer later must know that the storage still has this memory.
    """

    cdef object storage
    cdef void* data
    cdef Py_ssize_t size

    def __init__(self, storage):
        self.storage, self.size = storage, storage.nbytes()
        self.data = <void*> <size_t> storage.data_ptr()

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if self.data is NULL or not self.size:  # NumPy would not look at the size, or allocate memory
            raise BufferError("the storage has no memory")
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 0, flags)


@cython.final
cdef class Watch:
    """The tensors, options and states of a torch optimizer at its last step.

    `params` has the parameters with gradients, a list for each group, in the plan's order. `states` has the tensors of
    their states, and then those of torch's numbers. `counters` are tensors with the version counters of all of them:
    the last has that of the numbers. `counts` are two arrays of step counts, torch's and the plan's. `carried` are the
    other numbers that a step reads and changes, one row for each, and an array into which the caller writes their next
    values before the step. `read_options` has the names of the options that a step reads.
    """

    cdef list params, noted_options, noted_states, grads, written, counters, layouts
    cdef object addresses, counts, steps, read_options, carried, following
    cdef int64_t[::1] at        # the addresses
    cdef bytes counted
    cdef Place* written_places  # the places of the tensors that a step writes
    cdef Place* grad_places     # the places of the gradients that the plan has admitted last
    cdef bint plain             # whether the options are numbers and the like, which do not change in place
    cdef bint carries           # whether there are numbers that change with each step
    cdef Py_ssize_t n

    def __init__(self, list params, list states, list counters, tuple counts, tuple carried, read_options):
        cdef Py_ssize_t i
        cdef dl_tensor_t found
        self.params, self.counters, self.read_options = params, counters, read_options
        self.n = sum(map(len, params))
        self.at = self.addresses = array("q", bytes(8 * self.n))
        self.noted_options, self.noted_states, self.grads = [], [], [None] * self.n
        (self.counts, self.steps), (self.carried, self.following) = counts, carried
        self.carries = len(self.carried)
        self.counted = self.counted_now()
        self.written = [p for group in params for p in group] + states
        self.layouts = [(p.stride(), p.shape) for group in params for p in group]
        self.grad_places = <Place*> PyMem_Calloc(self.n, sizeof(Place))
        self.written_places = <Place*> PyMem_Calloc(len(self.written), sizeof(Place))
        if self.grad_places is NULL or self.written_places is NULL:
            raise MemoryError
        for i in range(self.n):
            self.grad_places[i].ndim = -1
        for i, tensor in enumerate(self.written):
            if read(tensor, &found):
                keep(&self.written_places[i], &found)
            else:
                self.written_places[i].ndim, self.written_places[i].address = -1, DATA_PTR(tensor)

    def __dealloc__(self):
        PyMem_Free(self.grad_places)
        PyMem_Free(self.written_places)

    def note_options(self, list groups):
        """Note the options that the plan has."""
        cdef list noted = []
        self.plain = True
        for group in groups:
            for name, value in group.items():
                noted += [name, ANY if name == "params" else value]
                self.plain &= name not in self.read_options or is_plain(value)
        self.noted_options = noted

    def note_states(self, state):
        """Note the states and counts that the plan has."""
        cdef list noted = []
        for p, own in state.items():
            noted += [p, own]
            for name, value in own.items():
                noted += [name, value]
        self.noted_states = noted
        self.counted = self.counted_now()

    def note_gradient(self, Py_ssize_t i, grad, size_t data):
        """Note a gradient that the plan has admitted, and read at `data`. None stands for rows, which have no place."""
        cdef dl_tensor_t found
        self.grad_places[i].ndim = -1
        if grad is None:  # of a sparse tensor the table would say so by an exception, in a millisecond
            return
        if read(grad, &found) and <size_t> address(&found) == data:  # else it was a copy, of what is not computed yet
            keep(&self.grad_places[i], &found)

    def finds(self, list params, state):
        """Whether these tensors (a list for each group), their memory, states and counts are the same as before."""
        return are_same(self.params, params) and self.finds_memory() and self.finds_states(state)

    def finds_options(self, list groups):
        """Whether everything that the plan takes, except the tensors, is certainly unchanged."""
        cdef Py_ssize_t i = 0, at, n = len(self.noted_options)
        cdef PyObject* name
        cdef PyObject* value
        if self.carries or not self.plain:
            return False
        for group in groups:
            if type(group) is not dict:
                return False
            at = 0
            with cython.critical_section(group):  # other threads may change it
                while PyDict_Next(group, &at, &name, &value):
                    if i + 2 > n or name != same(self.noted_options, i):
                        return False
                    if value != same(self.noted_options, i + 1) and self.noted_options[i + 1] is not ANY:
                        return False
                    i += 2
        return i == n

    cdef bint finds_params(self, list groups) except -1:
        cdef Py_ssize_t i = 0, k, j
        cdef list params, expected
        if len(groups) != len(self.params):
            return False
        for k in range(len(self.params)):
            params, expected, j = groups[k]["params"], self.params[k], 0
            for p in params:
                grad = p.grad
                if grad is None:
                    continue
                if j >= len(expected) or p is not expected[j]:
                    return False
                self.grads[i] = grad
                j += 1
                i += 1
            if j != len(expected):
                return False
        return True

    cdef bint finds_states(self, state) except -1:
        cdef Py_ssize_t i = 0, at = 0, inner
        cdef Py_ssize_t n = len(self.noted_states)
        cdef list noted = self.noted_states
        cdef PyObject* p
        cdef PyObject* own
        cdef PyObject* name
        cdef PyObject* value
        if not isinstance(state, dict) or self.counted_now() != self.counted:
            return False
        with cython.critical_section(state):  # other threads may change these
            while PyDict_Next(state, &at, &p, &own):
                if i + 2 > n or p != same(noted, i) or own != same(noted, i + 1):
                    return False
                named = noted[i + 1]  # which is `own`
                if not isinstance(named, dict):
                    return False
                i += 2
                inner = 0
                with cython.critical_section(named):
                    while PyDict_Next(named, &inner, &name, &value):
                        if i + 2 > n or name != same(noted, i) or value != same(noted, i + 1):
                            return False
                        i += 2
        return i == n

    cdef bint finds_memory(self) except -1:
        """Whether the tensors have moved: assigning to ``.data`` gives a tensor another memory, shape or strides, and
        sharing a tensor moves it."""
        cdef Py_ssize_t i
        for i in range(len(self.written)):
            if not self.finds_at(i):
                return False
        return True

    cdef bint finds_at(self, Py_ssize_t i) except -1:
        """Whether number `i` of the tensors that a step writes (parameters, states, numbers) has not moved."""
        cdef dl_tensor_t found
        cdef Place* place = &self.written_places[i]
        tensor = self.written[i]
        if place.ndim < 0:
            is_there = <size_t> DATA_PTR(tensor) == place.address
            return is_there and (i >= self.n or (STRIDE(tensor), tensor.shape) == self.layouts[i])
        if not read(tensor, &found) or not is_laid_out(place, &found):
            return False
        return <size_t> address(&found) == place.address and not is_conjugate(tensor, &found)

    cdef bint finds_gradients(self) except -1:
        """Whether each gradient has the layout of the last one. Notes its address."""
        cdef dl_tensor_t found
        cdef Py_ssize_t i
        for i in range(self.n):
            grad = self.grads[i]
            if self.grad_places[i].ndim < 0 or not read(grad, &found):
                return False
            if not is_laid_out(&self.grad_places[i], &found) or IS_NEG(grad):
                return False
            if is_conjugate(grad, &found) or not has_memory(grad, &found):
                return False
            self.at[i] = <int64_t> <size_t> address(&found)
        return True

    def step(self, Entry door not None, plan, list groups, state, take):
        """Make a step if all is as it was, but for options, which `take` gives to the plan; else return False.

        Nothing of Python runs between the step and its counts, so no signal's handler does. (`take` is called before.)
        """
        door.hold()
        try:
            if not self.finds_options(groups):
                if not take(groups):
                    return False
            if not (self.finds_params(groups) and self.finds_memory() and self.finds_states(state)):
                return False
            if not (self.finds_gradients() and plan.step_at(self.addresses)):
                return False
            self.count(True)
            return True
        finally:
            for i in range(self.n):
                self.grads[i] = None
            door.release()

    cpdef count(self, bint is_whole):
        """Update torch's numbers: all these parameters have done a step. Tell autograd that it has written the tensors;
        only the numbers unless the step `is_whole`."""
        self.counts[:] = self.steps
        if self.carries:
            self.carried[:] = self.following
        self.counted = self.counted_now()
        tell_autograd(self.counters if is_whole else self.counters[-1:])

    cdef bytes counted_now(self):
        return self.counts.tobytes() + self.carried.tobytes() if self.carries else self.counts.tobytes()


cdef class Block:
    """A context manager that enters and leaves by these two functions; `leave` is told of an error, or of None.

    It is compiled, so a signal's handler runs before `enter`, in the block, or after `leave`, but not in between. Where
    it does all the same (see `kernel._entry.Visit`), Python lets go of this object, which then leaves.
    """

    cdef object enter, leave
    cdef bint is_in

    def __init__(self, enter, leave):
        self.enter, self.leave = enter, leave

    def __enter__(self):
        cdef bint entered = False
        try:
            with deferred_signals():
                self.enter()
                entered = self.is_in = True
        except BaseException as error:
            if entered:  # a signal came meanwhile
                self.is_in = False
                self.leave(error)
            raise

    def __del__(self):
        if self.is_in:
            self.leave(GeneratorExit())

    def __exit__(self, kind, error, traceback):
        cdef bint left = False
        self.is_in = False
        try:
            with deferred_signals():
                left = True
                self.leave(error)
        except BaseException as interrupt:
            if not left:  # a signal came before handlers stood aside
                self.leave(interrupt)
            raise


cdef class Arrival:
    """A hook of torch's: steps tensor number `place` of a plan by its gradient, lets go of that, and tells autograd
    that the tensor and its states are others. `places` are their numbers among all that `watch` knows.

    It is compiled, so no signal's handler runs between the first two.
    """

    cdef object parts, read, name
    cdef Watch watch
    cdef list places, written
    cdef Py_ssize_t place

    def __init__(self, parts, Watch watch not None, Py_ssize_t place, list places, read, name):
        self.parts, self.watch, self.place, self.places = parts, watch, place, places
        self.read, self.name, self.written = read, name, [watch.written[i] for i in places]

    def __call__(self, p):
        grad = p.grad
        if grad is None:
            raise RuntimeError(
                f"{self.name}: expected a tensor, got None; another hook took it, as a second optimizer's block does: "
                "step one optimizer in a block, the other by step()"
            )
        for i in self.places:
            if not self.watch.finds_at(i):
                raise RuntimeError(
                    f"{self.name}: its parameter, or a state of it, has other memory than when the block of stepping() "
                    "began; change .data and storages before or after the block"
                )
        self.parts.step(self.place, self.read(self.name, grad))
        grad = p.grad = None
        tell_autograd(self.written)


cdef int tell_autograd(list tensors) except -1:
    """Tell it that these tensors were written, also where a signal's handler raises meanwhile."""
    try:
        CHANGED(tensors)
    except BaseException:
        CHANGED(tensors)
        raise
    return 0


cdef inline PyObject* same(list noted, Py_ssize_t i):
    return <PyObject*> noted[i]


cdef bint is_plain(value):
    kind = type(value)
    if kind is tuple:
        return all([is_plain(part) for part in value])
    return value is None or kind is float or kind is int or kind is bool or kind is str
