# cython: language_level=3
"""`Memory`: memory that is lent to other libraries by DLPack, and that knows whether it is still lent.
A library may return memory on its own thread, and while Python ends. So returning needs no GIL. The last holder, the
lender or a library, frees the memory.
"""

cimport numpy as cnp
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc

import numpy as np

cnp.import_array()

cdef extern from "atomics.h":
    int64_t atomic_add(int64_t* word, int64_t some) nogil
    int64_t atomic_get(int64_t* word) nogil

cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/mman.h>
    /* Ask for huge pages, as NumPy does for its own large arrays. */
    static void use_huge_pages(char *begin, size_t size) {
        size_t skipped = -(uintptr_t)begin & 4095;
        if (size >= (1u << 22)) madvise(begin + skipped, size - skipped, MADV_HUGEPAGE);
    }
    #else
    static void use_huge_pages(char *begin, size_t size) { (void)begin; (void)size; }
    #endif
    """
    void use_huge_pages(char* begin, size_t size) nogil

# DLPack's structures, version 0: https://dmlc.github.io/dlpack/latest/c_api.html
cdef struct Device:
    int32_t kind
    int32_t number

cdef struct DataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes

cdef struct Tensor:
    void* data
    Device device
    int32_t ndim
    DataType dtype
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset

cdef struct Managed:
    Tensor tensor
    void* context
    void (*deleter)(Managed*) noexcept nogil

cdef struct Block:
    int64_t holders     # the number of holders: the Memory, and every lent tensor
    char* allocated

cdef enum:
    CPU = 1
    ALIGNMENT = 64

#: kind of numbers -> its code in DLPack
CODES = {"f": 2, "c": 5, "bfloat16": 4}


cdef void leave(Block* block) noexcept nogil:
    """Remove one holder. The last one frees the memory."""
    if atomic_add(&block.holders, -1) == 0:
        free(block.allocated)
        free(block)


cdef void give_back(Managed* lent) noexcept nogil:
    """The function that a library calls when it does not need a tensor any more."""
    leave(<Block*> lent.context)
    free(lent)


cdef void drop(object capsule) noexcept:
    """The destructor of a capsule: return the tensor if no library took it."""
    cdef Managed* lent
    if PyCapsule_IsValid(capsule, "dltensor"):
        lent = <Managed*> PyCapsule_GetPointer(capsule, "dltensor")
        lent.deleter(lent)


cdef class Memory:
    """An array in C order, aligned to 64 bytes, that other libraries can view by DLPack."""

    cdef Block* block
    cdef char* data
    cdef Py_ssize_t size
    cdef readonly object dtype
    cdef readonly tuple shape

    def __cinit__(self, dtype, tuple shape):
        self.dtype, self.shape = np.dtype(dtype), shape
        self.size = self.dtype.itemsize
        for length in shape:
            self.size *= length
        self.block = <Block*> malloc(sizeof(Block))
        if self.block is NULL:
            raise MemoryError()
        self.block.holders = 1
        self.block.allocated = <char*> malloc(self.size + ALIGNMENT)
        if self.block.allocated is NULL:
            raise MemoryError()
        self.data = self.block.allocated + (-<uintptr_t> self.block.allocated) % ALIGNMENT
        use_huge_pages(self.data, self.size)

    def __dealloc__(self):
        if self.block is not NULL:
            leave(self.block)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 0, flags)

    @property
    def array(self):
        """The memory as a NumPy array. It may be written only while nothing is lent."""
        return np.ndarray(self.shape, self.dtype, self)

    @property
    def is_lent(self):
        """Whether a library still views the memory. If not, none of its computations reads the memory any more."""
        return atomic_get(&self.block.holders) > 1

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, *, stream=None):
        """Lend the memory as a DLPack capsule."""
        cdef Py_ssize_t ndim = len(self.shape)
        cdef Managed* lent = <Managed*> malloc(sizeof(Managed) + ndim * sizeof(int64_t))
        if lent is NULL:
            raise MemoryError()
        lent.tensor.data, lent.tensor.ndim, lent.tensor.byte_offset = self.data, <int32_t> ndim, 0
        lent.tensor.device.kind, lent.tensor.device.number = CPU, 0
        lent.tensor.dtype.code = CODES[self.dtype.name if self.dtype.kind == "V" else self.dtype.kind]
        lent.tensor.dtype.bits, lent.tensor.dtype.lanes = <uint8_t> (8 * self.dtype.itemsize), 1
        lent.tensor.shape, lent.tensor.strides = <int64_t*> (lent + 1), NULL
        for k in range(ndim):
            lent.tensor.shape[k] = self.shape[k]
        lent.context, lent.deleter = self.block, give_back
        atomic_add(&self.block.holders, 1)
        return PyCapsule_New(lent, "dltensor", drop)
