"""`Layout`: which rank steps which elements. Parameters form runs of one dtype, runs are cut into buckets, and buckets
into shares of the ranks. It is pure arithmetic, without memory or communicator, and the same on every rank.
"""

import sys
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import numpy as np

#: if the parameters have fewer bytes than this over the square of the number of ranks, it is faster that every rank
#: steps all of them (bench/scaling.py)
REPLICATE_BELOW = 1 << 22
#: the bucket_bytes for buckets that hold whole runs
ALL = sys.maxsize
#: a parameter is cut between rows if a rank's share of a bucket has at least this many rows
_MANY = 16


class Array(NamedTuple):
    """What the layout knows about a parameter. It is cut only at multiples of `grain` elements, and between rows of
    `row` elements if a row is small compared to a share."""

    size: int
    dtype: str
    grain: int = 1
    row: int = 1

    def cut_for(self, n_ranks: int, share: int) -> int:
        """The number of elements at whose multiples it is cut, for a rank's `share` of a bucket, in elements."""
        is_small = n_ranks == 1 or _MANY * self.row <= share
        return self.row if is_small and self.row % self.grain == 0 else self.grain


class Piece(NamedTuple):
    """Consecutive elements of a parameter, in C order."""

    param: int
    begin: int
    end: int

    def label(self, key: str) -> str:
        """The name of this piece of the parameter `key`."""
        return f"{key}[{self.begin}:{self.end}]"


class Run(NamedTuple):
    """Parameters of one dtype in a row: their numbers, where each begins and the last ends, and the grains at which
    each may be cut."""

    params: list[int]
    starts: list[int]
    grains: list[int]
    dtype: str

    def cut(self, begin: int, end: int, parts: int) -> list[int]:
        """Cut the run's elements begin … end into about equal parts: where each part begins, and the last ends."""
        return [*(self._border(begin + (end - begin) * k // parts) for k in range(parts)), end]

    def _border(self, place: int) -> int:
        """The last place up to this one where the run may be cut."""
        k = bisect_right(self.starts, place) - 1
        return place - (place - self.starts[k]) % self.grains[k]

    def pieces(self, begin: int, end: int) -> Iterator[tuple[Piece, int]]:
        """The pieces of parameters in the run's elements begin … end, and where in the run each begins."""
        k = bisect_right(self.starts, begin) - 1
        while begin < end:
            stop = min(end, self.starts[k + 1])
            if begin < stop:
                yield Piece(self.params[k], begin - self.starts[k], stop - self.starts[k]), begin
                begin = stop
            k += 1


class Bucket(NamedTuple):
    """Consecutive elements of a run, which are sent together. Rank r steps those from bounds[r] to bounds[r + 1]."""

    run: int
    bounds: list[int]

    @property
    def counts(self) -> list[int]:
        """The number of elements that each rank steps."""
        return [end - begin for begin, end in pairwise(self.bounds)]

    @property
    def places(self) -> list[int]:
        """Where in the bucket each rank's elements begin."""
        return [begin - self.bounds[0] for begin in self.bounds[:-1]]

    @property
    def whole(self) -> slice:
        """The elements of the bucket in the run."""
        return slice(self.bounds[0], self.bounds[-1])

    def within(self, begin: int, end: int) -> "Bucket":
        """The part of the bucket within the run's elements begin … end."""
        return Bucket(self.run, [min(max(bound, begin), end) for bound in self.bounds])

    def share(self, rank: int) -> slice:
        """The elements in the run that this rank steps."""
        return slice(self.bounds[rank], self.bounds[rank + 1])


class Layout:
    """The layout of groups of parameters for `n_ranks`, in buckets of about `bucket_bytes`. With n_ranks = 1 on several
    ranks, each rank steps everything.

    Runs follow the order of the groups, and within a group that of the dtypes. `by_rows` has the parameters whose
    pieces are all whole rows.
    """

    def __init__(self, groups: Sequence[Sequence[Array]], n_ranks: int, bucket_bytes: int) -> None:
        self.n_ranks, self.bucket_bytes = n_ranks, bucket_bytes
        numbered: list[tuple[int, Array]] = []
        for group in groups:
            numbered += sorted(enumerate(group, start=len(numbered)), key=lambda pair: pair[1].dtype)
        self.runs = []
        self.by_rows: set[int] = set()
        most = {dtype: max(bucket_bytes // _itemsize(dtype), 1) for dtype in {array.dtype for _, array in numbered}}
        for dtype, members in groupby(numbered, key=lambda pair: pair[1].dtype):
            params, arrays = zip(*members, strict=True)
            starts = [0, *accumulate(array.size for array in arrays)]
            share = min(most[dtype], starts[-1]) // n_ranks
            grains = [array.cut_for(n_ranks, share) for array in arrays]
            self.runs.append(Run(list(params), starts, grains, dtype))
            every = zip(params, arrays, grains, strict=True)
            self.by_rows |= {number for number, array, grain in every if grain % array.row == 0}
        self.buckets = [
            Bucket(number, run.cut(begin, end, n_ranks))
            for number, run in enumerate(self.runs)
            for begin, end in _ends(run, most[run.dtype])
        ]

    def share_of(self, rank: int) -> int:
        """The rank of the layout whose share this rank steps: its own, or that of the only one."""
        return rank % self.n_ranks

    def pieces(self, rank: int) -> Iterator[tuple[int, Piece, int]]:
        """The pieces that a rank steps: the number of the bucket, the piece, and where in the run it begins."""
        for k, bucket in enumerate(self.buckets):
            share = bucket.share(rank)
            for piece, place in self.runs[bucket.run].pieces(share.start, share.stop):
                yield k, piece, place

    def without(self, params: Collection[int]) -> list[list[Bucket]]:
        """Each bucket without the elements of these parameters, as parts of consecutive elements."""
        found = []
        for bucket in self.buckets:
            spans: list[tuple[int, int]] = []
            for piece, begin in self.runs[bucket.run].pieces(bucket.bounds[0], bucket.bounds[-1]):
                if piece.param not in params:
                    is_next = spans and spans[-1][1] == begin
                    first = spans.pop()[0] if is_next else begin
                    spans.append((first, begin + piece.end - piece.begin))
            found.append([bucket.within(*span) for span in spans])
        return found

    def holders(self, wanted: Piece) -> Iterator[tuple[int, Piece]]:
        """The ranks that step elements of a piece, each with its own piece that has these elements."""
        number, start = self._starts[wanted.param]
        place, run = start + wanted.begin, self.runs[number]
        k = bisect_right(self._edges, (number, place)) - 1
        while place < start + wanted.end:
            bounds = self.buckets[k].bounds
            rank = bisect_right(bounds, place) - 1
            if rank == len(bounds) - 1:
                k += 1
                continue
            for piece, _ in run.pieces(bounds[rank], bounds[rank + 1]):
                if piece.param == wanted.param:
                    yield rank, piece
            place = bounds[rank + 1]

    @cached_property
    def _starts(self) -> dict[int, tuple[int, int]]:
        """Parameter -> its run, and where in the run it begins."""
        return {
            param: (number, start)
            for number, run in enumerate(self.runs)
            for param, start in zip(run.params, run.starts, strict=False)
        }

    @cached_property
    def _edges(self) -> list[tuple[int, int]]:
        """Where the buckets begin."""
        return [(bucket.run, bucket.bounds[0]) for bucket in self.buckets]


def _ends(run: Run, most: int) -> Iterator[tuple[int, int]]:
    """Where the buckets of a run begin and end. They are equal, except for the grains, have at most `most` elements,
    and none is empty."""
    size = run.starts[-1]
    return pairwise(dict.fromkeys(run.cut(0, size, -(-size // most))) if size else ())


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
