# cython: language_level=3
"""Deferred signals: what must be whole is run while the handlers that are Python functions stand aside."""

import _signal  # without signal's functions in Python, within which handlers could run
from _thread import get_ident
from threading import main_thread

cdef extern from "signals.h":
    ctypedef struct disposition_t:
        pass
    void disposition_read(int number, disposition_t* kept)
    void disposition_restore(int number, const disposition_t* kept)

SIGNALS = sorted(_signal.valid_signals())


cdef class deferred_signals:
    """A context manager: signals that come within the block are handled when it is over.

    Python runs handlers in the main thread alone, between two lines of Python. So there, those that are Python
    functions stand aside, within the block, for one that notes the signal. What a handler raises then, as
    KeyboardInterrupt, is raised at the end of the block, from the block's own error if it has one. In other threads
    and in sub-interpreters, where no handlers run, nothing is done. Blocks may nest; an object serves one block.
    """

    cdef dict aside, came

    def __cinit__(self):
        self.aside, self.came = {}, {}

    def note(self, int number, frame):
        """The handler that stands in."""
        self.came[number] = frame

    def __enter__(self):
        if get_ident() != main_thread().ident:
            return self
        try:
            self.stand_aside()
        except BaseException as error:  # of a handler that ran before it stood aside
            self.end(error)
            raise
        return self

    def __exit__(self, kind, error, traceback):
        if self.aside:
            self.end(error)
        return False

    cdef int end(self, failed) except -1:
        try:
            self.put_back()
        except BaseException as interrupt:
            raise interrupt from failed
        return 0

    cdef int stand_aside(self) except -1:
        note = self.note
        for number in SIGNALS:
            handler = _signal.getsignal(number)
            if callable(handler):
                self.aside[number] = handler
                try:
                    set_handler(number, note)
                except ValueError:  # a sub-interpreter
                    del self.aside[number]
                    return 0
        return 0

    cdef int put_back(self) except -1:
        """And call those whose signals came. (Another such signal would be told to set_wakeup_fd's reader, too.)"""
        cdef object raised = None
        for number, handler in self.aside.items():
            while _signal.getsignal(number) is not handler:
                try:
                    set_handler(number, handler)
                except BaseException as error:  # of another signal's handler, which Python runs before it sets this one
                    raised = error
        for number, frame in self.came.items():
            try:
                self.aside[number](number, frame)
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised
        return 0


cdef int set_handler(int number, handler) except -1:
    """What Python calls at a signal, and nothing else."""
    cdef disposition_t kept
    disposition_read(number, &kept)
    _signal.signal(number, handler)
    disposition_restore(number, &kept)
    return 0
