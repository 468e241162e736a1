"""`Ranks`: the ranks of a communicator, how they agree before they act, and how an error on one of them ends the job.
Every act of several ranks begins with an agreement, so that an error on one is an error on all, and never a hang.
"""

import atexit
import hashlib
import io
import marshal
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import cache, partial
from types import TracebackType
from typing import Any

import numpy as np
from mpi4py import MPI

from ..kernel import threads
from .roll import CAME, LEFT, Roll, limit

#: the name of the act with which a rank leaves when its program ends
_LEAVE = "leave"
#: how many seconds a rank waits for the others to end: with an error that all have, before it aborts the job; without
#: an optimizer, before it leaves the waiting to MPI
_PATIENCE = 5.0
#: how many seconds mpiexec gets to show the output of the ranks, before one fails and mpiexec ends the job
_LAST_WORDS = 0.3

#: what the ranks must have in common, by name; or a function that returns it
Items = dict[str, Any] | Callable[[], dict[str, Any]]

_yield = getattr(os, "sched_yield", lambda: None)
_sleep = partial(time.sleep, 0.01)  # where others may need the processor for long


class Disagreement(RuntimeError):
    """The ranks were not about to do the same, or one of them refused. Nothing has changed on any rank."""


def wait(request: "MPI.Request | Roll", patience: float = math.inf, rest: Callable[[], object] = _yield) -> None:
    """Wait until the request is done, at most `patience` seconds. Ranks that share this processor get their turn."""
    end = MPI.Wtime() + patience
    while not request.Test():
        if MPI.Wtime() > end:
            raise TimeoutError
        rest()


class Act:
    """An act of all ranks, in a ``with``: see `Ranks.all_or_none`."""

    def __init__(self, ranks: "Ranks", what: str) -> None:
        self._ranks, self._what = ranks, what
        self._asked = self._agreed = False

    def __enter__(self) -> Callable[..., list[float]]:
        self._ranks.enter(self._what)
        return self._agree

    def _agree(self, items: Items, weight: float = 1.0, values: tuple[Any, ...] | None = None) -> list[float]:
        self._asked = True
        weights = self._ranks.agree(self._what, items, weight, values)
        self._agreed = True
        return weights

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not self._asked:
                self._ranks.agree(self._what, {}, error=error)
            elif error is not None and self._agreed and self._ranks.size > 1:
                _say("".join(traceback.format_exception(error)))
                _abort(f"failed within {self._what}, which the others continue")
        finally:
            del error  # its traceback refers to this name
            self._ranks.exit()


class Ranks:
    """The ranks of a duplicate of a communicator, which is there after `meet`."""

    def __init__(self, comm: MPI.Comm, word: int) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.n_made = 0  # the number of optimizers on this communicator
        self.roll = Roll(comm, word)
        self._ended = ""  # the reason why there are no more agreements
        self._inside = threading.Lock()
        self._process = os.getpid()
        comm.Set_attr(_attribute(), self)

    def meet(self, comm: MPI.Comm) -> None:
        """Wait for the first optimizer of all ranks. It is an error if one has left without, and the end of the job if
        one does not come in time."""
        if self in _all:
            return
        seconds = limit()
        try:
            wait(self.roll, seconds, _sleep)
        except TimeoutError:
            missing = _named(self.roll.those(0))
            _abort(f"waited {seconds} s for {missing} to make the first optimizer (see FASTADAM_MPI_TIMEOUT)")
        if gone := self.roll.those(LEFT):
            raise Disagreement(f"Sharded: {_named(gone)} left the job before; nothing has changed")
        self.comm = comm.Dup()
        self.n_threads = self._n_threads()
        _all.append(self)

    @classmethod
    def of(cls, comm: Any) -> "Ranks":
        """The Ranks of a communicator: the same object at each call."""
        comm = MPI.COMM_WORLD if comm is None else comm
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(f"comm: expected an intracommunicator of mpi4py, got {type(comm).__name__}")
        if comm == MPI.COMM_NULL:
            raise ValueError("comm: is COMM_NULL: this rank is not in the communicator; make no optimizer on it")
        if not _is_up():
            raise RuntimeError("comm: MPI is not running; call MPI.Init() before, and MPI.Finalize() after")
        found: Any = comm.Get_attr(_attribute())
        ranks: Ranks = cls(comm, CAME) if found is None else found
        ranks.meet(comm)
        return ranks

    def free(self) -> None:
        """Free the duplicate, when the original communicator is freed: MPI has a limited number of communicators."""
        if self in _all:
            _all.remove(self)
            self.end("the communicator was freed")
            self.comm.Free()

    def _n_threads(self) -> int:
        """The default number of threads of a step: the ranks of a machine share its processors."""
        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        found = local.allgather(threads.affinity())
        local.Free()
        return threads.default(len(set().union(*found)), len(found))

    def all_or_none(self, what: str) -> "Act":
        """An act of all ranks, in a ``with`` that gives a function. The block first does its checks, then calls the
        function with the items that all ranks must have in common, and then acts. An error before the call is an error
        on every rank. An error after the call ends the job. For an average, the call also takes this rank's weight, and
        returns the weights of all, which are not all 0. For speed, a frequent act passes plain `values` to compare, and
        a function that returns the items if the values differ."""
        return Act(self, what)

    def enter(self, what: str) -> None:
        """Begin an act. Refuse it in a forked process, or while another thread is in an act."""
        if os.getpid() != self._process:
            raise RuntimeError(f"{what}: this process was forked from rank {self.rank}, and is not a rank itself")
        if not self._inside.acquire(blocking=False):
            raise RuntimeError(f"{what}: another thread is inside an act of all ranks; one thread a rank may")

    def exit(self) -> None:
        """End an act."""
        self._inside.release()

    def agree(
        self,
        what: str,
        items: Items,
        weight: float = 1.0,
        values: tuple[Any, ...] | None = None,
        error: BaseException | None = None,
        patience: float = math.inf,
    ) -> list[float]:
        """The weights of all ranks, if all are about to do the same, none has an error, and not all weights are 0.
        Otherwise raise an error on every rank. (With a single rank, the caller raises its own error.)"""
        if self._ended:
            raise Disagreement(f"{what}: {self._ended}") from error
        if self.size == 1 and (weight or error is not None):
            return [weight]
        rest = _sleep if what == _LEAVE else _yield
        compared = repr((what, items)).encode() if values is None else marshal.dumps((what, values), 2)
        act = [_code(compared), float(error is not None)]
        rows: list[list[float]] = self.all_gather([*act, weight], patience, rest).tolist()
        weights = [row[2] for row in rows]
        is_same = error is None and all(row[:2] == act for row in rows)
        if is_same and any(weights):
            return weights
        if is_same:  # an error on all ranks
            error = ValueError("weight: is 0 on every rank; if no rank has a batch, do not call step")
        disagreement = self._disagreement(what, items() if callable(items) else items, error)
        shared = error or disagreement
        shared.__fastadam_ranks__ = self  # type: ignore[attr-defined]  # the ranks that have it, for `_uncaught`
        try:
            raise shared
        finally:  # its traceback refers to these names, and to the optimizer
            del shared, disagreement, error

    def _disagreement(self, what: str, items: dict[str, Any], error: BaseException | None) -> Disagreement:
        """The error that says why the ranks do not agree. If one has left the job, they never will again."""
        reason = None if error is None else f"{type(error).__name__}: {error}"
        told = self.comm.allgather((what, items, reason))
        gone = [rank for rank, (other, *_) in enumerate(told) if other == _LEAVE]
        if gone:
            others = [rank for rank in range(self.size) if rank not in gone]
            self._ended = f"{_named(gone)} left the job, {_named(others)} did not; continue from the last checkpoint"
        return Disagreement(f"{what}: {self._ended or _difference(told)}; nothing has changed")

    def all_gather(
        self, numbers: list[float], patience: float = math.inf, rest: Callable[[], object] = _yield
    ) -> np.ndarray:
        """The numbers of all ranks, one row for each rank. See `wait` for the other arguments."""
        found = np.empty((self.size, len(numbers)))
        found[self.rank] = numbers
        if self.size > 1:
            wait(self.comm.Iallgather(MPI.IN_PLACE, found), patience, rest)
        return found

    def leave(self) -> None:
        """Leave, before MPI ends: ranks that still wait for this one get an error."""
        if self._ended or os.getpid() != self._process or MPI.Is_finalized():
            return
        try:
            self.agree(_LEAVE, {})
        except Disagreement as error:
            _say(f"fastadam.mpi: rank {self.rank} of {self.size}: {error}\n")

    def end(self, why: str) -> None:
        """Allow no more acts of all ranks."""
        self._ended = self._ended or why

    def all_leave(self) -> bool:
        """Whether every rank calls this soon, because all end with the same error."""
        if self._ended:
            return False
        try:
            self.agree(_LEAVE, {}, patience=_PATIENCE)
        except (Disagreement, TimeoutError):
            return False
        self.end("an error ended the job")
        return True


_hook, _process = sys.excepthook, os.getpid()


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception that ends one rank ends the job: otherwise the others would wait for that rank."""
    if os.getpid() != _process or not _is_up() or MPI.COMM_WORLD.size == 1:
        _hook(kind, error, trace)
        return
    with redirect_stderr(io.StringIO()) as told:
        _hook(kind, error, trace)
    _say(told.getvalue())
    shared = getattr(error, "__fastadam_ranks__", None)
    if shared is None or not shared.all_leave():
        _abort(f"was ended by {kind.__name__}: {error}")
    time.sleep(_LAST_WORDS)


sys.excepthook = _uncaught


def _say(text: str) -> None:
    """Write in one call, which mpiexec passes on as one. Otherwise lines of several ranks could be mixed."""
    sys.stderr.write(text)
    sys.stderr.flush()


def _abort(why: str) -> None:
    world = MPI.COMM_WORLD
    _say(f"fastadam.mpi: rank {world.rank} of {world.size} {why}; the job ends: continue from the last checkpoint\n")
    time.sleep(_LAST_WORDS)
    world.Abort(1)


#: the Ranks of all communicators that were not freed
_all: list[Ranks] = []


def _leave_all() -> None:
    for ranks in reversed(_all):
        ranks.leave()
    if os.getpid() == _process and _is_up() and MPI.COMM_WORLD.Get_attr(_attribute()) is None:
        with suppress(TimeoutError):
            wait(Ranks(MPI.COMM_WORLD, LEFT).roll.request, _PATIENCE, _sleep)


def _before_finalize(*_: object) -> None:
    _leave_all()
    while _all:
        _all.pop().end("MPI is finalized")


@cache
def _attribute() -> int:
    """The key under which a communicator keeps its Ranks. The first call also arranges that ranks leave in
    ``MPI.Finalize()``, which first deletes the attributes of COMM_SELF."""
    MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=_before_finalize), None)
    key: int = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, ranks: ranks.free())
    return key


def _is_up() -> bool:
    return MPI.Is_initialized() and not MPI.Is_finalized()


atexit.register(_leave_all)  # before MPI ends with the program
if _is_up():
    _attribute()


def _code(compared: bytes) -> float:
    """A hash of these bytes: a whole number that float64 can hold."""
    return float(int.from_bytes(hashlib.blake2b(compared, digest_size=6).digest(), "little"))


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"


def _difference(told: list[tuple[str, dict[str, Any], str | None]]) -> str:
    """The text that says what differs between ranks, and on which ranks."""
    refused = [rank for rank, (_, _, reason) in enumerate(told) if reason is not None]
    if refused:
        return f"{_named(refused)} refused it: {told[refused[0]][2]}"
    acts = [act for act, _, _ in told]
    if len(set(acts)) > 1:
        return f"the ranks call different things: {_by_value(acts)}"
    names = dict.fromkeys(name for _, items, _ in told for name in items)
    for name in names:
        values = [repr(items.get(name)) for _, items, _ in told]
        if len(set(values)) > 1:
            return f"the ranks disagree in {name}: {_by_value(values)}"
    return "the ranks disagree"


def _by_value(values: list[str]) -> str:
    """Each value with the ranks that have it, the most frequent first."""
    who: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        who.setdefault(value, []).append(rank)
    ordered = sorted(who.items(), key=lambda pair: -len(pair[1]))
    return "; ".join(f"{value[:500]} on {_named(ranks)}" for value, ranks in ordered[:4])
