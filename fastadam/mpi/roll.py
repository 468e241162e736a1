"""`Roll`: a roll call of the ranks of a communicator, before the first optimizer there. Only after it they agree on
what they do: a rank whose program ends without an optimizer takes part in nothing else.
"""

import os

import numpy as np
from mpi4py import MPI

from ..kernel import checks

#: what a rank says: it is about to make an optimizer, or its program ends
CAME, LEFT = 1, 2


def limit() -> int:
    """How many seconds a rank waits for the others: ``FASTADAM_MPI_TIMEOUT``, by default half an hour."""
    setting = os.environ.get("FASTADAM_MPI_TIMEOUT") or "1800"
    return checks.whole("FASTADAM_MPI_TIMEOUT", int(setting) if setting.isdecimal() else setting, 1)


class Roll:
    """What each rank says. It sends its word to every other rank itself, so it may end when it has said it."""

    def __init__(self, comm: MPI.Comm, word: int) -> None:
        self._heard = np.zeros(comm.size, np.int64)
        how = [1] * comm.size, range(comm.size), MPI.INT64_T
        words = np.full(comm.size, word, np.int64)
        self.request = comm.Ialltoallv([words, *how], [self._heard, *how])

    def Test(self) -> bool:
        """Whether there is nothing to wait for: every rank has said its word, or one has left."""
        return bool(self.request.Test() or LEFT in self._heard)

    def those(self, word: int) -> list[int]:
        """The ranks that have said this; 0 stands for nothing."""
        return np.flatnonzero(self._heard == word).tolist()
