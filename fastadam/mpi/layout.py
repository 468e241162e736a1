"""Which rank steps which elements: parameters in runs of one dtype, runs in buckets, buckets in shares of the ranks.
Arithmetic alone: it knows neither memory nor a communicator, and says the same on every rank.
"""

import sys
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import numpy as np

#: parameters of fewer bytes than this over the square of the number of ranks are cheaper for every rank to step as a
#: whole than to divide (bench/scaling.py)
REPLICATE_BELOW = 1 << 22
#: bytes of a bucket that holds a whole run
ALL = sys.maxsize
#: parameters are cut between rows where a rank's share of a bucket is as large as so many of them
_MANY = 16


class Array(NamedTuple):
    """What the layout knows of a parameter; it is cut at multiples of `grain` elements alone, and between rows, of
    `row` elements, where these are small beside a share."""

    size: int
    dtype: str
    grain: int = 1
    row: int = 1

    def cut_for(self, n_ranks: int, share: int) -> int:
        """At multiples of how many elements it is cut, where a rank's share of a bucket has so many."""
        is_small = n_ranks == 1 or _MANY * self.row <= share
        return self.row if is_small and self.row % self.grain == 0 else self.grain


class Piece(NamedTuple):
    """Consecutive elements of a parameter, in C order."""

    param: int
    begin: int
    end: int

    def label(self, key: str) -> str:
        """What the piece of the parameter `key` is called."""
        return f"{key}[{self.begin}:{self.end}]"


class Run(NamedTuple):
    """Parameters of one dtype, one behind the other: their numbers, where each begins and the last ends, and the grains
    at which each may be cut."""

    params: list[int]
    starts: list[int]
    grains: list[int]
    dtype: str

    def cut(self, begin: int, end: int, parts: int) -> list[int]:
        """Where so many parts of the run's elements begin … end lie, about equal: each begins, and the last ends."""
        return [*(self._border(begin + (end - begin) * k // parts) for k in range(parts)), end]

    def _border(self, place: int) -> int:
        """Where the run may be cut, at this place or before it."""
        k = bisect_right(self.starts, place) - 1
        return place - (place - self.starts[k]) % self.grains[k]

    def pieces(self, begin: int, end: int) -> Iterator[tuple[Piece, int]]:
        """The parts of parameters among the run's elements begin … end, and where in the run each begins."""
        k = bisect_right(self.starts, begin) - 1
        while begin < end:
            stop = min(end, self.starts[k + 1])
            if begin < stop:
                yield Piece(self.params[k], begin - self.starts[k], stop - self.starts[k]), begin
                begin = stop
            k += 1


class Bucket(NamedTuple):
    """Consecutive elements of a run, which travel together; rank r steps those from bounds[r] to bounds[r + 1]."""

    run: int
    bounds: list[int]

    @property
    def counts(self) -> list[int]:
        """How many elements each rank steps."""
        return [end - begin for begin, end in pairwise(self.bounds)]

    @property
    def places(self) -> list[int]:
        """Where in the bucket each rank's elements begin."""
        return [begin - self.bounds[0] for begin in self.bounds[:-1]]

    @property
    def whole(self) -> slice:
        """Where in the run it lies."""
        return slice(self.bounds[0], self.bounds[-1])

    def within(self, begin: int, end: int) -> "Bucket":
        """Those of its elements that are among begin … end of the run."""
        return Bucket(self.run, [min(max(bound, begin), end) for bound in self.bounds])

    def share(self, rank: int) -> slice:
        """Where in the run the elements lie that this rank steps."""
        return slice(self.bounds[rank], self.bounds[rank + 1])


class Layout:
    """The layout of groups of parameters for so many ranks, in buckets of about so many bytes. One for a single rank,
    on several, says that each of these steps everything.

    Runs follow the order of the groups, and within a group that of the dtypes. `by_rows` are the parameters of which
    all pieces are whole rows.
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
        """As which rank of the layout this one acts: as itself, or as the only one."""
        return rank % self.n_ranks

    def pieces(self, rank: int) -> Iterator[tuple[int, Piece, int]]:
        """What a rank steps: the number of the bucket, the piece, and where in the run that begins."""
        for k, bucket in enumerate(self.buckets):
            share = bucket.share(rank)
            for piece, place in self.runs[bucket.run].pieces(share.start, share.stop):
                yield k, piece, place

    def without(self, params: Collection[int]) -> list[list[Bucket]]:
        """Each bucket without the elements of these parameters: what is left, in parts of consecutive elements."""
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
        """Who steps the elements of a piece: ranks, and those of their pieces that have elements of it."""
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
        """Parameter -> its run, and where in that it begins."""
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
    """Where the buckets of a run begin and end: equal ones of so many elements at most, but for the grains,
    and none of no elements."""
    size = run.starts[-1]
    return pairwise(dict.fromkeys(run.cut(0, size, -(-size // most))) if size else ())


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
