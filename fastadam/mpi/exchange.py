"""What the ranks exchange in a step: gradients are added up where they are stepped, parameters go back to all.
Bucket by bucket: while one is stepped, others travel. Where every rank steps everything, gradients alone travel.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
from mpi4py import MPI

from ..kernel._bfloat16 import add_bfloat16, to_bfloat16
from .layout import Bucket, Layout
from .memory import Memory
from .ranks import Ranks, wait
from .tables import Moved

#: so many buckets of gradients are on their way at a time
_AHEAD = 2


class Exchange:
    """What stands between one rank's `Plan` and the other ranks: see `Plan.step`.

    `shares` are the sums of the gradients that this rank steps, an array a bucket; where bucket k ends among the plan's
    segments is to be told in `ends`. Gradients travel as they are or, `in_bfloat16`, rounded and added up in float32.
    Where every rank steps everything, each adds up the gradients of all, in the order of the ranks, so that the sums
    have the same bits on all. In a step whose rows were `Moved`, buckets travel in `_parts`, without these parameters.
    """

    def __init__(self, ranks: Ranks, memories: Sequence[Memory], layout: Layout, in_bfloat16: bool) -> None:
        buckets = layout.buckets
        self._ranks, self._memories, self._layout, self._buckets = ranks, memories, layout, buckets
        self._number = layout.share_of(ranks.rank)
        self._is_divided, self._in_bfloat16 = layout.n_ranks > 1, in_bfloat16
        self._moved: Moved | None = None
        self._parts = layout.without(())
        self._begin: Callable[[], None] | None = None
        self._zero_grads = False
        self._share = 1.0
        self._coming: Iterator[int] = iter(())
        self._arrived = 0
        self.ends: list[int] = []
        self.n_params = sum(len(memory.grads_by_param()) for memory in memories)
        if ranks.size == 1:  # gradients are stepped where they are written
            self.shares = [memories[bucket.run].grads[bucket.whole] for bucket in buckets]
        else:
            dtypes = [memories[bucket.run].grads.dtype for bucket in buckets]
            self.shares = [np.empty(b.counts[self._number], kind) for b, kind in zip(buckets, dtypes, strict=True)]
        self._rounded: list[np.ndarray] = []
        self._received: list[np.ndarray] = []
        if ranks.size > 1 and buckets and (in_bfloat16 or not self._is_divided):
            ahead = range(min(_AHEAD, len(buckets)))
            most = max(share.size * (2 if in_bfloat16 else share.itemsize) for share in self.shares)
            self._received = [np.empty(most * ranks.size, np.uint8) for _ in ahead]
            if in_bfloat16:
                sent = max(sum(bucket.counts) for bucket in buckets)
                self._rounded = [np.empty(sent, np.uint16) for _ in ahead]

    @contextmanager
    def for_step(self, begin: Callable[[], None], zero_grads: bool, moved: Moved | None = None) -> Iterator[None]:
        """For one step: what it begins with, whether it leaves zeros as gradients, and the rows that it has."""
        self._begin, self._zero_grads, parts = begin, zero_grads, self._parts
        if moved is not None:
            self._moved, self._parts = moved, self._layout.without(moved.params)
        try:
            yield
        finally:  # they know this object, or what it is part of, which would outlive its last use
            self._begin, self._coming, self._moved, self._parts = None, iter(()), None, parts

    def weigh(self, weights: Sequence[float]) -> None:
        """Say what the ranks' gradients weigh in this step, not all 0. Each is multiplied by its weight over the mean
        of all, so that the plain average of these is the weighted one. Equal weights make 1 of it, exactly."""
        self._share = weights[self._ranks.rank] * self._ranks.size / math.fsum(weights)

    def begin(self) -> None:
        """All is well on this rank. If it is on all, gradients go on their way."""
        assert self._begin is not None
        self._begin()
        self.take()
        self._coming = self._arrivals()
        self._arrived = 0

    def take(self) -> None:
        """Bring what this rank steps of the parameters, where they are not communicated from where they are."""
        for part in chain(*self._parts):
            self._memories[part.run].copy_in(part.share(self._number))
        if self._moved is not None:
            self._moved.take()

    def add_up(self, sums: np.ndarray) -> None:
        """Put the sums of all ranks' sums, rounded once, in the places of this rank's: see `Plan.step`."""
        own = sums.ravel().tolist()
        every = np.reshape(self._ranks.all_gather(own) if self._is_divided else own, (-1, *sums.shape))
        exponent = sums[:, 2] = every[..., 2].max(axis=0)
        parts = np.ldexp(every[..., :2], 2 * (every[..., 2:] - exponent[:, None]).astype(int))
        sums[:, 1] = 0
        for k in range(len(sums)):
            own = parts[:, k]
            sums[k, 0] = math.fsum(own.flat) if np.isfinite(own).all() else own[:, 0].sum()

    def parts(self) -> Iterator[int]:
        """The ends of the buckets among the plan's segments, each when its gradients are there."""
        going = []
        for k, end in enumerate(self.ends):
            self._arrive(k)
            yield end
            going += [self._send_back(part) for part in self._parts[k]]
        for request in going:
            wait(request)
        for memory in self._memories:
            memory.copy_out(() if self._moved is None else self._moved.params)
        if self._moved is not None:
            self._moved.send_back()
        for part in chain(*self._parts) if self._zero_grads else ():
            self._memories[part.run].grads[part.whole] = 0

    def arrive(self) -> None:
        """Wait until all gradients are there."""
        self._arrive(len(self._buckets) - 1)

    def _arrive(self, k: int) -> None:
        while self._arrived <= k:
            self._arrived = next(self._coming) + 1

    def _arrivals(self) -> Iterator[int]:
        count = len(self._buckets)
        if self._ranks.size == 1:
            yield from range(count)
            return
        going = deque(self._depart(k) for k in range(min(_AHEAD, count)))
        for k in range(count):
            for request, _ in going[0]:
                wait(request)
            going.popleft()
            self._add_up(k)
            if k + _AHEAD < count:
                going.append(self._depart(k + _AHEAD))
            yield k

    def _depart(self, k: int) -> list[tuple[MPI.Request, np.ndarray]]:
        """Send the gradients of a bucket. What is sent is to be kept until it has come: the request does not."""
        return [self._send(k, part) for part in self._parts[k]]

    def _send(self, k: int, part: Bucket) -> tuple[MPI.Request, np.ndarray]:
        grads, share = self.weighed(self._memories[part.run].grads[part.whole]), self.shares[k][self._own(k, part)]
        comm, size = self._ranks.comm, self._ranks.size
        if not self._received:
            return comm.Ireduce_scatter(grads, share, part.counts, MPI.SUM), grads
        came = self._came(k, part)
        if self._in_bfloat16:
            first = part.bounds[0] - self._buckets[k].bounds[0]
            sent = self._rounded[k % _AHEAD][first : first + grads.size]
            to_bfloat16(grads, sent)
            grads = sent
        if not self._is_divided:
            return comm.Iallgather(grads, came), grads
        request = comm.Ialltoallv(
            [grads, part.counts, part.places, MPI.UINT16_T],
            [came, [share.size] * size, [share.size * rank for rank in range(size)], MPI.UINT16_T],
        )
        return request, grads

    def _own(self, k: int, part: Bucket) -> slice:
        """Where in this rank's share of a bucket its share of a part lies."""
        share, first = part.share(self._number), self._buckets[k].share(self._number).start
        return slice(share.start - first, share.stop - first) if share.start < share.stop else slice(0, 0)

    def _came(self, k: int, part: Bucket) -> np.ndarray:
        """Where the gradients of that come, a row a rank."""
        own, size = self._own(k, part), self._ranks.size
        dtype = np.dtype(np.uint16) if self._in_bfloat16 else self.shares[k].dtype
        row = size * dtype.itemsize
        return self._received[k % _AHEAD][own.start * row : own.stop * row].view(dtype).reshape(size, -1)

    def weighed(self, grads: np.ndarray) -> np.ndarray:
        """These gradients as they go into the sum. Those that weigh 0 are not read: they may be anything."""
        if self._share == 1:
            return grads
        if self._share == 0:
            return np.zeros_like(grads)
        with np.errstate(over="ignore", invalid="ignore"):
            return grads * self._share

    def _add_up(self, k: int) -> None:
        """Sum what came of each rank, in the order of the ranks."""
        for part in self._parts[k] if self._received else ():
            share, came = self.shares[k][self._own(k, part)], self._came(k, part)
            if self._in_bfloat16:
                share[...] = 0
                for row in came:
                    add_bfloat16(row, share)
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    np.add(came[0], came[1], out=share)
                    for row in came[2:]:
                        share += row

    def _send_back(self, part: Bucket) -> MPI.Request:
        """Give each rank's part of the parameters to all."""
        if not self._is_divided:
            return MPI.REQUEST_NULL
        values = self._memories[part.run].values[part.whole]
        counts, places = ([n * values.itemsize for n in numbers] for numbers in (part.counts, part.places))
        return self._ranks.comm.Iallgatherv(MPI.IN_PLACE, [values.view(np.uint8), counts, places, MPI.BYTE])

    def broadcast(self) -> None:
        """Give all parameters of rank 0 to all."""
        for memory in self._memories:
            memory.copy_in(slice(0, memory.values.size))
        if self._ranks.size > 1:
            for bucket in self._buckets:
                values = self._memories[bucket.run].values[bucket.whole].view(np.uint8)
                wait(self._ranks.comm.Ibcast([values, MPI.BYTE]))
            for memory in self._memories:
                memory.copy_out()

    def gather(self) -> None:
        """Give each rank's part of all parameters to all, outside of a step."""
        for request in [self._send_back(bucket) for bucket in self._buckets]:
            wait(request)
        for memory in self._memories:
            memory.copy_out()
