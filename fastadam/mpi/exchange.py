"""The exchange of a step: gradients are summed on the ranks that step them, and stepped parameters go to all ranks.
It works bucket by bucket: while one bucket is stepped, others are in transfer. If every rank steps everything, only
gradients are sent.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from ..kernel._bfloat16 import add, add_bfloat16, to_bfloat16
from .layout import Bucket, Layout
from .memory import Memory
from .ranks import Ranks, wait
from .tables import Moved

#: the number of buckets of gradients in transfer at a time
_AHEAD = 2


class Way(NamedTuple):
    """The arrays for the transfer of a part of a bucket: this rank's gradients, and the sums of those that it steps.

    If this rank computes the sums itself, `came` receives the gradients of all ranks, one row for each. If they are
    sent in 16 bits, `rounded` holds this rank's.
    """

    part: Bucket
    grads: np.ndarray
    share: np.ndarray
    came: np.ndarray | None
    rounded: np.ndarray | None


class Exchange:
    """The connection between one rank's `Plan` and the other ranks; see `Plan.step`.

    `shares` has the sums of the gradients that this rank steps, one array for each bucket. The caller sets ``ends[k]``
    to the place among the plan's segments where bucket k ends. Gradients are sent unchanged or, `in_bfloat16`, rounded,
    and summed in float32. If every rank steps everything, each rank sums the gradients of all, in the order of the
    ranks, so that the sums have the same bits on all. In a step with `Moved` rows, buckets leave these parameters out.
    """

    def __init__(self, ranks: Ranks, memories: Sequence[Memory], layout: Layout, in_bfloat16: bool) -> None:
        buckets = layout.buckets
        self._ranks, self._memories, self._layout, self._buckets = ranks, memories, layout, buckets
        self._number = layout.share_of(ranks.rank)
        self._is_divided, self._in_bfloat16 = layout.n_ranks > 1, in_bfloat16
        self._moved: Moved | None = None
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
        self._whole_ways = self._ways = self._without(())

    def _without(self, params: Collection[int]) -> list[list[Way]]:
        """The ways of each bucket without these parameters."""
        return [[self._way(k, part) for part in parts] for k, parts in enumerate(self._layout.without(params))]

    def _way(self, k: int, part: Bucket) -> Way:
        own, first = part.share(self._number), self._buckets[k].share(self._number).start
        begin, end = (own.start - first, own.stop - first) if own.start < own.stop else (0, 0)
        grads, share = self._memories[part.run].grads[part.whole], self.shares[k][begin:end]
        came = rounded = None
        if self._received:
            dtype = np.dtype(np.uint16) if self._in_bfloat16 else share.dtype
            row = self._ranks.size * dtype.itemsize
            came = self._received[k % _AHEAD][begin * row : end * row].view(dtype).reshape(self._ranks.size, -1)
        if self._rounded:
            place = part.bounds[0] - self._buckets[k].bounds[0]
            rounded = self._rounded[k % _AHEAD][place : place + grads.size]
        return Way(part, grads, share, came, rounded)

    def for_step(self, begin: Callable[[], None], zero_grads: bool, moved: Moved | None = None) -> "Exchange":
        """This object for one step, in a ``with``: the function to begin with, whether to zero gradients, and the
        rows."""
        self._begin, self._zero_grads, self._moved = begin, zero_grads, moved
        if moved is not None:
            self._ways = self._without(moved.params)
        return self

    def __enter__(self) -> None:
        """Begin the block of a step."""

    def __exit__(self, *_: object) -> None:
        """Drop the step's function: it refers to the optimizer, which refers to this object."""
        self._begin, self._coming = None, iter(())
        if self._moved is not None:
            self._moved, self._ways = None, self._whole_ways

    def weigh(self, weights: Sequence[float]) -> None:
        """Set the weights of the ranks' gradients in this step; not all are 0. Each gradient is multiplied by its
        weight over the mean weight, so that their plain average is the weighted one. Equal weights give exactly 1."""
        self._share = weights[self._ranks.rank] * self._ranks.size / math.fsum(weights)

    def begin(self) -> None:
        """Called when this rank is ready. If all ranks are, begin to send gradients."""
        assert self._begin is not None
        self._begin()
        self.take()
        self._coming = self._arrivals()
        self._arrived = 0

    def take(self) -> None:
        """Copy this rank's share of the parameters into the buffers, if there are buffers."""
        for way in chain(*self._ways):
            self._memories[way.part.run].copy_in(way.part.share(self._number))
        if self._moved is not None:
            self._moved.take()

    def add_up(self, sums: np.ndarray) -> None:
        """Replace this rank's sums by those over all ranks, rounded once; see `Plan.step`."""
        own = sums.ravel().tolist()
        every = np.reshape(self._ranks.all_gather(own) if self._is_divided else own, (-1, *sums.shape))
        exponent = sums[:, 2] = every[..., 2].max(axis=0)
        parts = np.ldexp(every[..., :2], 2 * (every[..., 2:] - exponent[:, None]).astype(int))
        sums[:, 1] = 0
        for k in range(len(sums)):
            own = parts[:, k]
            sums[k, 0] = math.fsum(own.flat) if np.isfinite(own).all() else own[:, 0].sum()

    def parts(self) -> Iterator[int]:
        """The ends of the buckets among the plan's segments, each when its gradients have arrived."""
        going: list[MPI.Request] = []
        for k, end in enumerate(self.ends):
            self._arrive(k)
            yield end
            if self._is_divided:
                going += [self._send_back(way.part) for way in self._ways[k]]
        for request in going:
            wait(request)
        for memory in self._memories:
            memory.copy_out(() if self._moved is None else self._moved.params)
        if self._moved is not None:
            self._moved.send_back()
        for way in chain(*self._ways) if self._zero_grads else ():
            way.grads[...] = 0

    def arrive(self) -> None:
        """Wait until all gradients have arrived."""
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
            for way, (requests, sent) in zip(self._ways[k], going.popleft(), strict=True):
                for request in requests:
                    wait(request)
                self._add_up(way, sent)
            if k + _AHEAD < count:
                going.append(self._depart(k + _AHEAD))
            yield k

    def _depart(self, k: int) -> list[tuple[list[MPI.Request], np.ndarray]]:
        """Send the gradients of a bucket. The caller keeps the sent arrays until they have arrived: requests do not."""
        return [self._send(way) for way in self._ways[k]]

    def _send(self, way: Way) -> tuple[list[MPI.Request], np.ndarray]:
        comm, size, counts = self._ranks.comm, self._ranks.size, way.part.counts
        sent = self.weighed(way.grads)
        if way.came is None:
            return [comm.Ireduce_scatter(sent, way.share, counts, MPI.SUM)], sent
        if way.rounded is not None:
            to_bfloat16(sent, way.rounded)
            sent = way.rounded
        if self._is_divided:
            own = way.share.size
            came = [way.came, [own] * size, [own * rank for rank in range(size)], MPI.UINT16_T]
            return [comm.Ialltoallv([sent, counts, way.part.places, MPI.UINT16_T], came)], sent
        if size > 2:
            return [comm.Iallgather(sent, way.came)], sent
        other = 1 - self._ranks.rank  # two ranks are faster without a collective
        return [comm.Irecv(way.came[other], other), comm.Isend(sent, other)], sent

    def weighed(self, grads: np.ndarray) -> np.ndarray:
        """These gradients times this rank's weight. Gradients of weight 0 are not read: they may be anything."""
        if self._share == 1:
            return grads
        if self._share == 0:
            return np.zeros_like(grads)
        with np.errstate(over="ignore", invalid="ignore"):
            return grads * self._share

    def _add_up(self, way: Way, sent: np.ndarray) -> None:
        """Sum the gradients of all ranks, in the order of the ranks."""
        if way.came is None:
            return
        rows = list(way.came)
        if not self._is_divided:  # between two ranks, its own gradients are only in the sent array
            rows[self._ranks.rank] = sent
        if self._in_bfloat16:
            way.share[...] = 0
            for row in rows:
                add_bfloat16(row, way.share)
        else:
            add(rows[0], rows[1], way.share)
            for row in rows[2:]:
                add(way.share, row, way.share)

    def _send_back(self, part: Bucket) -> MPI.Request:
        """Send each rank's part of the parameters to all."""
        values = self._memories[part.run].values[part.whole]
        counts, places = ([n * values.itemsize for n in numbers] for numbers in (part.counts, part.places))
        return self._ranks.comm.Iallgatherv(MPI.IN_PLACE, [values.view(np.uint8), counts, places, MPI.BYTE])

    def broadcast(self) -> None:
        """Send all parameters of rank 0 to all."""
        for memory in self._memories:
            memory.copy_in(slice(0, memory.values.size))
        if self._ranks.size > 1:
            for bucket in self._buckets:
                values = self._memories[bucket.run].values[bucket.whole].view(np.uint8)
                wait(self._ranks.comm.Ibcast([values, MPI.BYTE]))
            for memory in self._memories:
                memory.copy_out()

    def gather(self) -> None:
        """Send each rank's part of all parameters to all, outside of a step."""
        for request in [self._send_back(bucket) for bucket in self._buckets if self._is_divided]:
            wait(request)
        for memory in self._memories:
            memory.copy_out()
