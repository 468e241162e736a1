"""The ranks of a communicator: what they agree on before they act, and how one that fails ends the job.
Every act of several ranks begins with an agreement, so that an error is an error on each of them, and never a hang.
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
from contextlib import redirect_stderr
from functools import cache, partial
from types import TracebackType
from typing import Any

import numpy as np
from mpi4py import MPI

from ..kernel import threads

#: what a rank says when its program ends
_LEAVE = "leave"
#: seconds that an error which all ranks have waits for the others to end by it, before it ends the job
_PATIENCE = 5.0
#: seconds that mpiexec is given to show what the ranks wrote, before one ends with an error and mpiexec ends the job
_LAST_WORDS = 0.3

#: what ranks agree on, by name; or what brings that
Items = dict[str, Any] | Callable[[], dict[str, Any]]

_yield = getattr(os, "sched_yield", lambda: None)


class Disagreement(RuntimeError):
    """The ranks were not about to do the same, or another rank refused it: nothing has changed on any."""


def wait(request: MPI.Request, patience: float = math.inf, rest: Callable[[], object] = _yield) -> None:
    """Until it is done, for so many seconds at most. Where ranks share processors, who is waited for gets its turn."""
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
                _abort(f"failed within {self._what}, which the others go on with")
        finally:
            del error  # its traceback knows this name
            self._ranks.exit()


class Ranks:
    """The ranks of a communicator of its own, a copy of that which it is for."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.n_made = 0  # of optimizers on this communicator
        self.n_threads = self._n_threads()
        self._ended = ""  # why there are no more agreements
        self._inside = threading.Lock()
        self._process = os.getpid()
        _all.append(self)

    @classmethod
    def of(cls, comm: Any) -> "Ranks":
        """Those of a communicator: the same ones at each call."""
        comm = MPI.COMM_WORLD if comm is None else comm
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(f"comm: expected an intracommunicator of mpi4py, got {type(comm).__name__}")
        if comm == MPI.COMM_NULL:
            raise ValueError("comm: is COMM_NULL: this rank is not of the communicator, and makes no optimizer on it")
        if not _is_up():
            raise RuntimeError("comm: MPI is not up; call MPI.Init() before, and MPI.Finalize() after")
        key = _attribute()
        found: Any = comm.Get_attr(key)
        ranks: Ranks = cls(comm) if found is None else found
        if found is None:
            comm.Set_attr(key, ranks)
        return ranks

    def free(self) -> None:
        """With the communicator that theirs is a copy of: MPI has room for so many."""
        if self in _all:
            _all.remove(self)
            self.end("the communicator was freed")
            self.comm.Free()

    def _n_threads(self) -> int:
        """How many threads a step may use by default: the ranks of a machine share its processors."""
        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        found = local.allgather(threads.affinity())
        local.Free()
        return threads.default(len(set().union(*found)), len(found))

    def all_or_none(self, what: str) -> "Act":
        """An act of all ranks. The block checks what it can, calls what it is given, with that on which all must agree,
        and then acts: an error before that is one on every rank, an error after it ends the job. Where an act averages,
        that call takes this rank's weight, too, and returns the weights of all: one of them at least is not 0. An act
        that is often made gives plain `values` for comparison, and a function that names them where they differ."""
        return Act(self, what)

    def enter(self, what: str) -> None:
        """Begin an act, where this process and this thread may."""
        if os.getpid() != self._process:
            raise RuntimeError(f"{what}: this process was forked from rank {self.rank}, and is no rank itself")
        if not self._inside.acquire(blocking=False):
            raise RuntimeError(f"{what}: another thread is inside an act of all ranks; one thread a rank may")

    def exit(self) -> None:
        """End it."""
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
        """The weights of all ranks, where all are about to do the same, none has an error and not all weigh 0; else
        raise, on every rank. (An error of the only one is its caller's to raise.)"""
        if self._ended:
            raise Disagreement(f"{what}: {self._ended}") from error
        if self.size == 1 and (weight or error is not None):
            return [weight]
        rest = partial(time.sleep, 0.01) if what == _LEAVE else _yield  # who has ended leaves the processor to others
        compared = repr((what, items)).encode() if values is None else marshal.dumps((what, values), 2)
        act = [_code(compared), float(error is not None)]
        rows: list[list[float]] = self.all_gather([*act, weight], patience, rest).tolist()
        weights = [row[2] for row in rows]
        is_same = error is None and all(row[:2] == act for row in rows)
        if is_same and any(weights):
            return weights
        if is_same:  # an error that all have
            error = ValueError("weight: is 0 on every rank; where no rank had a batch, make no step")
        disagreement = self._disagreement(what, items() if callable(items) else items, error)
        shared = error or disagreement
        shared.__fastadam_ranks__ = self  # type: ignore[attr-defined]  # who have it: see `uncaught`
        try:
            raise shared
        finally:  # its traceback knows these names, and all that is being made or stepped
            del shared, disagreement, error

    def _disagreement(self, what: str, items: dict[str, Any], error: BaseException | None) -> Disagreement:
        """Why the ranks do not agree, as each of them is told; after one that left, they never will."""
        reason = None if error is None else f"{type(error).__name__}: {error}"
        told = self.comm.allgather((what, items, reason))
        gone = [rank for rank, (other, *_) in enumerate(told) if other == _LEAVE]
        if gone:
            others = [rank for rank in range(self.size) if rank not in gone]
            self._ended = f"{_named(gone)} left the job, {_named(others)} did not; go on from the last checkpoint"
        return Disagreement(f"{what}: {self._ended or _difference(told)}; nothing has changed")

    def all_gather(
        self, numbers: list[float], patience: float = math.inf, rest: Callable[[], object] = _yield
    ) -> np.ndarray:
        """These numbers of every rank, a row each; `wait` has the other arguments."""
        found = np.empty((self.size, len(numbers)))
        found[self.rank] = numbers
        if self.size > 1:
            wait(self.comm.Iallgather(MPI.IN_PLACE, found), patience, rest)
        return found

    def leave(self) -> None:
        """Before MPI ends: who still waits for this rank hears that it has gone."""
        if self._ended or os.getpid() != self._process or MPI.Is_finalized():
            return
        try:
            self.agree(_LEAVE, {})
        except Disagreement as error:
            _say(f"fastadam.mpi: rank {self.rank} of {self.size}: {error}\n")

    def end(self, why: str) -> None:
        """From now on there are no acts of all ranks."""
        self._ended = self._ended or why

    def all_leave(self) -> bool:
        """Whether every rank comes here, in a moment, to end by an error that all have."""
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
    """An exception that ends a rank ends the job: the others would wait for that rank, in whatever they do next."""
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
    """In one write, which mpiexec passes on as one: the lines of several ranks would else stand in one another."""
    sys.stderr.write(text)
    sys.stderr.flush()


def _abort(why: str) -> None:
    world = MPI.COMM_WORLD
    _say(f"fastadam.mpi: rank {world.rank} of {world.size} {why}; the job ends: go on from the last checkpoint\n")
    time.sleep(_LAST_WORDS)
    world.Abort(1)


#: those of all communicators that were not freed
_all: list[Ranks] = []


def _leave_all() -> None:
    for ranks in reversed(_all):
        ranks.leave()


def _before_finalize(*_: object) -> None:
    _leave_all()
    while _all:
        _all.pop().end("MPI is finalized")


@cache
def _attribute() -> int:
    """Under which a communicator keeps its Ranks. Who asks first sees to it that ranks leave before MPI ends: with the
    program, or by ``MPI.Finalize()``, which begins by deleting what COMM_SELF has."""
    atexit.register(_leave_all)
    MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=_before_finalize), None)
    key: int = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, ranks: ranks.free())
    return key


def _is_up() -> bool:
    return MPI.Is_initialized() and not MPI.Is_finalized()


def _code(compared: bytes) -> float:
    """A number that is another where these bytes are: a whole one, which float64 holds."""
    return float(int.from_bytes(hashlib.blake2b(compared, digest_size=6).digest(), "little"))


def _named(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"


def _difference(told: list[tuple[str, dict[str, Any], str | None]]) -> str:
    """What is not the same on all ranks, and on which."""
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
    """Who says what: those who say the same together, the most first."""
    who: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        who.setdefault(value, []).append(rank)
    ordered = sorted(who.items(), key=lambda pair: -len(pair[1]))
    return "; ".join(f"{value[:500]} on {_named(ranks)}" for value, ranks in ordered[:4])
