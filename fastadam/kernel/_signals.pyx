# cython: language_level=3
"""`deferred_signals`: a block during which no Python signal handler runs, so that no interrupt can come within it."""

import _signal  # not signal, whose functions are in Python, so that handlers could run within them
from _thread import get_ident
from threading import main_thread

cdef extern from "signals.h":
    ctypedef struct disposition_t:
        pass
    void disposition_read(int number, disposition_t* kept)
    void disposition_restore(int number, const disposition_t* kept)

SIGNALS = sorted(_signal.valid_signals())


cdef class Note:
    """In place of a handler: within the block it notes the signal. After the block it is that handler, for code that
    read it within the block and sets it later."""

    cdef object handler
    cdef dict came

    def __call__(self, int number, frame):
        if self.came is None:
            return self.handler(number, frame)
        self.came[self] = number, frame


cdef class deferred_signals:
    """A context manager: signals that arrive within the block are handled after it.

    Python runs handlers only in the main thread, between two instructions. There, handlers that are Python functions
    are replaced within the block by one that notes the signal. At the end of the block they are restored and called.
    A handler that code within the block has set stays. If a handler then raises, for example KeyboardInterrupt, that is
    raised from the block's own error, if it has one. In other threads and in sub-interpreters no handlers run, so
    nothing is done. Blocks may be nested. An object serves one block.
    """

    cdef dict aside, came

    def __cinit__(self):
        self.aside, self.came = {}, {}

    def __enter__(self):
        if get_ident() != main_thread().ident:
            return self
        try:
            self.stand_aside()
        except BaseException as error:  # from a handler that ran before it was replaced
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
        cdef Note note
        for number in SIGNALS:
            found = handler = _signal.getsignal(number)
            if callable(found):
                while type(handler) is Note and (<Note> handler).came is None:  # of an earlier block: no chain of them
                    handler = (<Note> handler).handler
                note = Note.__new__(Note)
                note.handler, note.came = handler, self.came
                self.aside[number] = note
                try:
                    replace(number, found, note)
                except ValueError:  # a sub-interpreter
                    del self.aside[number]
                    return 0
        return 0

    cdef int put_back(self) except -1:
        """Restore the handlers, and call those whose signals have arrived. (Sending the signals again would also notify
        the reader of set_wakeup_fd.)"""
        cdef object raised = None
        cdef Note note
        for number, note in self.aside.items():
            while _signal.getsignal(number) is note:
                try:
                    replace(number, note, note.handler)
                except BaseException as error:  # of another signal's handler, which Python runs before it sets this one
                    raised = error
        for note in self.aside.values():
            note.came = None
        for note, (number, frame) in self.came.items():
            try:
                note.handler(number, frame)
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised
        return 0


cdef int replace(int number, old, new) except -1:
    """Set the Python function for a signal, and change nothing else of its disposition.

    Python first runs the handlers of signals that have arrived. If one of them sets another function than `old`, that
    one stays.
    """
    cdef disposition_t kept
    disposition_read(number, &kept)
    found = _signal.signal(number, new)
    if found is old:
        disposition_restore(number, &kept)
    while found is not old:
        old, new = new, found
        found = _signal.signal(number, new)
    return 0
