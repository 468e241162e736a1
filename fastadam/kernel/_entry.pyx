# cython: language_level=3
"""Entry to a plan: one thread at a time, by one atomic exchange."""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

import os

cdef int64_t process = 1  # a number for this process: a forked child has another


def in_child():
    """Know that this process is a forked child now."""
    global process
    process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=in_child)


cdef class Entry:
    """What one thread of one process may be inside of; whoever comes meanwhile is refused."""

    cdef int hold(self) except -1:
        if not self.hold_if_free():
            self.refuse()
        if self.closed is not None:
            self.release()
            self.refuse()
        return 0

    cdef bint hold_if_free(self) noexcept:
        if atomic_swap_if(&self.holder, 0, process) != 0:
            return False
        atomic_set(&self.holding_thread, <int64_t> PyThread_get_thread_ident())
        return True

    cdef void release(self) noexcept:
        atomic_set(&self.holding_thread, 0)
        atomic_set(&self.holder, 0)

    cdef bint is_mine(self) noexcept:
        """Whether this thread holds the plan already."""
        return (
            atomic_get(&self.holder) == process
            and atomic_get(&self.holding_thread) == <int64_t> PyThread_get_thread_ident()
        )

    cdef bint is_of_parent(self) noexcept:
        """Whether a thread holds the plan that this forked process does not have."""
        cdef int64_t holder = atomic_get(&self.holder)
        return holder != 0 and holder != process

    cdef int refuse(self) except -1:
        if self.closed is not None:
            raise RuntimeError(self.closed)
        if self.is_of_parent():
            raise RuntimeError(
                "this process was forked while another thread was inside a step of this optimizer, or read or changed "
                "it: its arrays may be of two steps here; make a new one, from a checkpoint"
            )
        if self.is_mine():
            raise RuntimeError(
                "this thread is inside a step of this optimizer already, or a load: what runs meanwhile, a schedule or "
                "a signal's handler, cannot step, save, load or copy it"
            )
        raise RuntimeError("another thread is inside a step of this optimizer; give each thread its own, or a lock")

    def close(self, str reason not None):
        """Refuse every later entry, with this as the reason."""
        self.closed = reason

    def __enter__(self):
        """Keep steps out until `__exit__`: for who reads or changes the arrays between steps."""
        self.hold()
        return self

    def __exit__(self, *error):
        self.release()

    def visit(self):
        """The same as a context manager whose block an interrupt may end, where signals are not deferred."""
        return Visit(self)


cdef class Visit:
    """See `Entry.visit`. Since Python 3.14, a signal's handler can run after `__enter__` and before the block. If it
    raises, there is no `__exit__`, but Python lets go of this object."""

    cdef Entry entry
    cdef bint is_in

    def __init__(self, Entry entry not None):
        self.entry = entry

    def __enter__(self):
        self.entry.hold()
        self.is_in = True

    def __exit__(self, *error):
        self.leave()

    def __del__(self):
        self.leave()

    cdef void leave(self) noexcept:
        if self.is_in:
            self.is_in = False
            self.entry.release()
