"""`Tables`: parameters whose gradients are `Rows`. The rows of each rank are sent to the ranks that step them. The
stepped rows are sent to all ranks. No temporary array is as large as a table.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from ..kernel import checks, sparse
from ..kernel._bfloat16 import add_bfloat16, to_bfloat16
from ..kernel._rows import Rows
from .layout import Layout, Piece
from .memory import Whole, row_size
from .ranks import Ranks, wait


class Part(NamedTuple):
    """A piece of this rank that consists of whole rows: its place in the plan, its array, its first row."""

    place: int
    values: np.ndarray
    first: int


class Tables:
    """The parameters of all ranks. `own` are this rank's pieces, `arrays` their arrays, in the order of the plan."""

    def __init__(
        self,
        ranks: Ranks,
        whole: Whole,
        layout: Layout,
        own: Sequence[Piece],
        arrays: Sequence[np.ndarray],
        in_bfloat16: bool,
    ) -> None:
        self.ranks, self.whole = ranks, whole
        self._layout, self._in_bfloat16 = layout, in_bfloat16 and ranks.size > 1
        self.is_divided = layout.n_ranks > 1
        self._parts: dict[int, list[Part]] = {}
        for place, (piece, values) in enumerate(zip(own, arrays, strict=True)):
            if values.size and piece.param in layout.by_rows:
                part = Part(place, values, piece.begin // row_size(whole.params[piece.param]))
                self._parts.setdefault(piece.param, []).append(part)
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def among(self, grads: Any) -> dict[int, Any]:
        """Number of a parameter -> its gradient, for gradients that are rows. Empty if `grads` do not fit: the step
        will refuse them."""
        try:
            flat = self.whole.flat_grads(grads)
        except Exception:
            return {}
        others = {number: g for number, g in enumerate(flat) if type(g) is not np.ndarray}
        return {number: g for number, g in others.items() if type(g) is Rows or sparse.is_sparse(g)}

    def fitting(self, number: int, given: Any, has_weight: bool) -> Rows:
        """The checked rows of a parameter, with values in the dtype of computation. No rows for a rank without
        weight."""
        name, p = self.whole.names[number], self.whole.params[number]
        if number not in self._layout.by_rows:
            raise ValueError(
                f"gradient of {name}: expected an array, got Rows; its rows of {row_size(p)} elements are cut, since "
                "16 are more than a rank's share of a bucket, or they cut 8-bit blocks; raise bucket_bytes, change "
                "state_dtype, or pass an array"
            )
        if not has_weight:
            return Rows([], np.empty((0, *p.shape[1:]), checks.computed_in(p)))
        rows = given if type(given) is Rows else sparse.as_rows(f"gradient of {name}", given, p.shape)
        assert rows is not None
        values = checks.row_values(name, rows.index, rows.values, p)
        wrong = np.flatnonzero((rows.index < 0) | (rows.index >= len(p)))
        if len(wrong):
            allowed = f"0 … {len(p) - 1}" if len(p) else "none, of a parameter without rows"
            came = f"{rows.index[wrong[0]]} at place {wrong[0]}"
            raise ValueError(f"gradient of {name}: index: expected numbers of rows, {allowed}, got {came}")
        with np.errstate(over="ignore"):
            return Rows(rows.index, values.astype(checks.computed_in(p), copy=False))

    def move(self, given: Mapping[int, Rows], weighed: Callable[[np.ndarray], np.ndarray]) -> "Moved":
        """Send each row to the rank that steps it, or to all. They arrive in the order of the ranks. All ranks call
        this.
        """
        moved, comm = Moved(self, given), self.ranks.comm
        sent = [self._sorted(number, given[number], weighed) for number in moved.numbers]
        counts = np.array([own for _, own in sent], np.int64).reshape(len(sent), comm.size).T.copy()
        counts_of = np.empty_like(counts)  # the numbers of rows that the others send to this rank
        wait(comm.Ialltoall(counts, counts_of))
        if self.is_divided:
            came = [np.empty(n, records.dtype) for n, (records, _) in zip(counts_of.sum(axis=0), sent, strict=True)]
            ways = zip(sent, came, counts_of.T, strict=True)
            for request in [comm.Ialltoallv(_message(*own), _message(into, n)) for own, into, n in ways]:
                wait(request)
        else:
            came = _told_to_all(comm, [records for records, _ in sent], counts_of)
        for number, records in zip(moved.numbers, came, strict=True):
            moved.grads |= self._dealt_out(number, records)
        return moved

    def parts(self, number: int) -> list[Part]:
        """This rank's parts of a parameter."""
        return self._parts.get(number, [])

    def _holders(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The first row of each piece of a parameter, and the rank that has it."""
        if number not in self._found:
            p = self.whole.params[number]
            ranks, pieces = zip(*self._layout.holders(Piece(number, 0, p.size)), strict=True)
            self._found[number] = np.array([piece.begin // row_size(p) for piece in pieces]), np.array(ranks)
        return self._found[number]

    def _sorted(
        self, number: int, rows: Rows, weighed: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a parameter in the form to send, sorted by the rank that steps them, with the number for each
        rank."""
        firsts, holders = self._holders(number)
        to = holders[np.searchsorted(firsts, rows.index, "right") - 1]
        order = np.argsort(to, kind="stable")
        values = weighed(rows.values[order])
        if self._in_bfloat16:
            bits = np.empty(values.shape, np.uint16)
            to_bfloat16(values.reshape(-1), bits.reshape(-1))
            values = bits
        records = _records(rows.index[order], values, row_size(self.whole.params[number]))
        if not self.is_divided:
            return records, np.full(self.ranks.size, len(records))
        return records, np.bincount(to, minlength=self.ranks.size)

    def _dealt_out(self, number: int, records: np.ndarray) -> Iterator[tuple[int, Rows]]:
        """For each of this rank's parts of a parameter: its place in the plan, and its rows."""
        index, values = records["row"], np.ascontiguousarray(records["values"])
        if self._in_bfloat16:
            bits, values = values, np.zeros(values.shape, np.float32)
            add_bfloat16(bits.reshape(-1), values.reshape(-1))
        for part in self.parts(number):
            is_here = (index >= part.first) & (index < part.first + len(part.values))
            own = values[is_here].reshape(-1, *part.values.shape[1:])
            yield part.place, Rows(index[is_here] - part.first, own)


class Moved:
    """The rows that this rank steps. `grads` maps a place in the plan to its rows. `params` has the numbers of all
    their parameters, `numbers` those of parameters with elements."""

    def __init__(self, tables: Tables, params: Collection[int]) -> None:
        self._tables, self.params = tables, params
        self.numbers = [number for number in params if tables.whole.params[number].size]
        self.grads: dict[int, Rows] = {}

    def take(self) -> None:
        """Copy the rows to step from the parameters into the parts that do not share memory with them."""
        for number in self.numbers:
            p = self._tables.whole.params[number]
            for part in self._tables.parts(number):
                if not np.may_share_memory(part.values, p):
                    index = self.grads[part.place].index
                    part.values[index] = p[index + part.first]

    def send_back(self) -> None:
        """Send the rows that this rank has stepped to all ranks, and receive theirs."""
        ranks = self._tables.ranks
        sent = [self._stepped(number) for number in self.numbers]
        came = sent
        if self._tables.is_divided:
            counts = ranks.all_gather([float(len(records)) for records in sent]).astype(np.int64)
            came = _told_to_all(ranks.comm, sent, counts)
        for number, records in zip(self.numbers, came, strict=True):
            p = self._tables.whole.params[number]
            p.view(_bits(p))[records["row"]] = records["values"].reshape(-1, *p.shape[1:])

    def _stepped(self, number: int) -> np.ndarray:
        """The rows of a parameter that this rank has stepped."""
        p = self._tables.whole.params[number]
        found = [_records(np.empty(0, np.int64), np.empty(0, _bits(p)), row_size(p))]
        for part in self._tables.parts(number):
            rows = np.unique(self.grads[part.place].index)
            found.append(_records(rows + part.first, part.values[rows].view(_bits(p)), row_size(p)))
        return np.concatenate(found)


def _records(index: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Rows in the form to send: each has its number and its values."""
    records = np.empty(len(index), [("row", np.int64), ("values", values.dtype, (width,))])
    records["row"], records["values"] = index, values.reshape(-1, width)
    return records


def _told_to_all(comm: MPI.Comm, sent: Sequence[np.ndarray], counts: np.ndarray) -> list[np.ndarray]:
    """Send records to all ranks, and receive theirs. `counts` has a row for each rank, and a number for each table."""
    came = [np.empty(n, records.dtype) for n, records in zip(counts.sum(axis=0), sent, strict=True)]
    ways = zip(sent, came, counts.T, strict=True)
    for request in [comm.Iallgatherv(records.view(np.uint8), _message(into, n)) for records, into, n in ways]:
        wait(request)
    return came


def _message(records: np.ndarray, counts: np.ndarray) -> list[Any]:
    """The message that sends or receives records, `counts` of them to or from each rank."""
    n_bytes = counts * records.itemsize
    places = np.cumsum(n_bytes) - n_bytes
    return [records.view(np.uint8), n_bytes.tolist(), places.tolist(), MPI.BYTE]


def _bits(p: np.ndarray) -> np.dtype[Any]:
    """The unsigned dtype of the same size: a structured array can hold it, unlike some dtypes of parameters."""
    return np.dtype(f"u{p.itemsize}")
