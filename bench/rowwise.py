"""The contestants that `rows.py` measures, and the batches of rows that they are given."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from compiled import compiled

import fastadam
from fastadam import Rows
from fastadam.bench.measure import Turn

WIDTH = 64  # of a row; rows.c is written for it
BAG = 8  # rows that an EmbeddingBag sums


class Groups(NamedTuple):
    """Rows of one number together: the different numbers, and where the rows of each begin in `order`, which has the
    places of these rows in the batch."""

    row: np.ndarray
    begin: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Setting:
    """A table, and how batches of its rows are drawn."""

    n_rows: int = 1_000_000
    given: int = 4_096  # rows of a batch, repeats among them
    exponent: float = 1.2  # the row that comes k-th most often comes as often as k ** -exponent
    lag: float = 100.0  # steps that a row has missed when it comes back, in the mean of all visits


class Feed:
    """What a training loop gives a step: numbers of rows and their gradients, written anew into the same memory.

    Batches come in turn, again and again. A row that is in c of B batches misses B / c - 1 steps, on average. There are
    as many batches as give all visits a mean of `lag`.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, rng = setting, np.random.default_rng(0)
        often = np.cumsum(np.arange(1.0, setting.n_rows + 1) ** -setting.exponent)
        names = rng.permutation(setting.n_rows)  # rows that come often lie anywhere
        seen, visits = np.zeros(setting.n_rows, bool), 0
        self.batches: list[np.ndarray] = []
        while len(self.batches) < 20 or seen.sum() < (setting.lag + 1) * visits / len(self.batches):
            batch = names[np.searchsorted(often, rng.random(setting.given) * often[-1])]
            self.batches.append(batch)
            seen[batch] = True
            visits += len(np.unique(batch))
        self.different = visits / len(self.batches)  # rows of a batch, in the mean
        self.fresh = rng.standard_normal((20, setting.given, WIDTH), np.float32)
        self.index, self.values = np.empty(setting.given, np.int64), np.empty(self.fresh.shape[1:], np.float32)

    def write(self, k: int) -> None:
        """Have the gradient of step k in memory."""
        np.copyto(self.index, self.batches[k % len(self.batches)])
        np.copyto(self.values, self.fresh[k % len(self.fresh)])

    def rows(self) -> Rows:
        return Rows(self.index, self.values)

    def table(self, value: float = 0.0) -> np.ndarray:
        return np.full((self.setting.n_rows, WIDTH), value, np.float32)


Make = Callable[[Feed], Turn]

# ---------------------------------------------------------------- fastadam


def by_rows(feed: Feed, opt: fastadam.Adam) -> Turn:
    """A step of rows; each step makes its `Rows` anew."""
    return Turn(lambda: opt.step(feed.rows()), feed.write)


def dense(feed: Feed, n_threads: int) -> Turn:
    """A step of the whole table, by a gradient that is zero in all rows but those of the batch."""
    opt, g, last = fastadam.Adam(feed.table(1.0), n_threads=n_threads), feed.table(), np.empty(0, np.int64)

    def before(k: int) -> None:
        nonlocal last
        feed.write(k)
        g[last] = 0
        np.add.at(g, feed.index, feed.values)
        last = feed.index.copy()

    return Turn(lambda: opt.step(g), before)


# ---------------------------------------------------------------- PyTorch


def sparse_adam(feed: Feed) -> Turn:
    """PyTorch's optimizer of sparse gradients. The sparse tensor is made before the time begins."""
    import torch

    table = torch.from_numpy(feed.table(1.0)).requires_grad_()
    index, values = torch.from_numpy(feed.index[None]), torch.from_numpy(feed.values)

    def before(k: int) -> None:
        feed.write(k)
        table.grad = torch.sparse_coo_tensor(index, values, table.shape, check_invariants=False)

    return Turn(torch.optim.SparseAdam([table], lr=1e-3).step, before)


def training_step(feed: Feed, optimizer: Callable[..., Any]) -> Turn:
    """A whole step of training of an EmbeddingBag: forward pass, backward pass from a given gradient, step."""
    import torch

    table, index = torch.from_numpy(feed.table(1.0)), torch.from_numpy(feed.index)
    bags = torch.nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="sum", sparse=True)
    first = torch.arange(0, len(index), BAG)
    back, opt = torch.from_numpy(feed.values[: len(first)]), optimizer(bags.parameters(), lr=1e-3)

    def step() -> None:
        opt.zero_grad()
        bags(index, first).backward(back)
        opt.step()

    return Turn(step, feed.write)


def adapter_takes_rows() -> bool:
    """Whether the adapter of PyTorch steps sparse gradients."""
    import torch

    from fastadam.adapters.torch import Adam

    table = torch.ones(2, 1, requires_grad=True)
    table.grad = torch.sparse_coo_tensor([[0]], torch.ones(1, 1), (2, 1), check_invariants=False)
    try:
        Adam([table]).step()
    except TypeError:  # it says what it takes
        return False
    return True


# ---------------------------------------------------------------- NumPy

Summed = tuple[np.ndarray, np.ndarray]


def with_add_at(index: np.ndarray, values: np.ndarray) -> Summed:
    rows, place = np.unique(index, return_inverse=True)
    sums = np.zeros((len(rows), WIDTH), np.float32)
    np.add.at(sums, place, values)
    return rows, sums


def sorted_rows(index: np.ndarray) -> Groups:
    """Rows sorted by number. The sort is not stable, since that is faster."""
    order = np.argsort(index)
    ordered = index[order]
    begin = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return Groups(ordered[begin], begin, order)


def with_reduceat(index: np.ndarray, values: np.ndarray) -> Summed:
    rows, begin, order = sorted_rows(index)
    return rows, np.add.reduceat(values[order], begin, axis=0)


def with_reduceat_of_repeats(index: np.ndarray, values: np.ndarray) -> Summed:
    """Rows that come once are copied, not summed."""
    rows, begin, order = sorted_rows(index)
    counts = np.diff(np.append(begin, len(index)))
    sums, repeated = values[order[begin]], counts > 1
    if repeated.any():
        first = np.cumsum(counts[repeated]) - counts[repeated]
        sums[repeated] = np.add.reduceat(values[order[np.repeat(repeated, counts)]], first, axis=0)
    return rows, sums


def one_after_another(index: np.ndarray, values: np.ndarray) -> Summed:
    """Add the second row of each number that has one, then the third, …; where few are left, the rest of each."""
    rows, begin, order = sorted_rows(index)
    counts = np.diff(np.append(begin, len(index)))
    sums, left, done = values[order[begin]], np.flatnonzero(counts > 1), 1
    while len(left) > 8:
        sums[left] += values[order[begin[left] + done]]
        done += 1
        left = left[counts[left] > done]
    for k in left:
        sums[k] += np.add.reduce(values[order[begin[k] + done : begin[k] + counts[k]]], axis=0)
    return rows, sums


def of_numpy(feed: Feed, summed: Callable[[np.ndarray, np.ndarray], Summed]) -> Turn:
    """Adam in NumPy on the rows of a batch: gathered into work arrays, stepped there in place, and put back."""
    p, m, v = feed.table(1.0), feed.table(), feed.table()
    work = np.empty((3, feed.setting.given, WIDTH), np.float32)
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        rows, g = summed(feed.index, feed.values)
        a, b, c = work[:, : len(rows)]
        np.take(m, rows, axis=0, out=a, mode="clip")
        a *= 0.9
        np.multiply(g, 0.1, out=b)
        a += b
        m[rows] = a
        np.take(v, rows, axis=0, out=b, mode="clip")
        b *= 0.999
        np.multiply(g, g, out=g)
        g *= 0.001
        b += g
        v[rows] = b
        np.sqrt(b, out=b)
        b += 1e-8
        a *= 1e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        a /= b
        np.take(p, rows, axis=0, out=c, mode="clip")
        c -= a
        p[rows] = c

    return Turn(step, feed.write)


#: ways of summing repeated rows; the fastest takes part
SUMS: dict[str, Make] = {
    "np.add.at": partial(of_numpy, summed=with_add_at),
    "np.add.reduceat": partial(of_numpy, summed=with_reduceat),
    "np.add.reduceat of repeats": partial(of_numpy, summed=with_reduceat_of_repeats),
    "one after another": partial(of_numpy, summed=one_after_another),
}

# ---------------------------------------------------------------- the roofline


class Moved(ctypes.Structure):
    """`Rows` of rows.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("p", "m", "v", "values", "row", "begin", "order")]
    _fields_ += [(name, ctypes.c_int64) for name in ("n", "ahead")]


class Roofline:
    """C that sums repeated rows, reads and writes those of p, m and v, and does nothing else."""

    def __init__(self, feed: Feed, often_first: bool, ahead: int, n_threads: int) -> None:
        self.feed, self.n_threads = feed, n_threads
        self.groups = [self.grouped(batch, often_first) for batch in feed.batches]
        self.now = Groups(*(np.empty(feed.setting.given + 1, np.int64) for _ in Groups._fields))
        self.tables = [feed.table(1.0), feed.table(), feed.table()]
        addresses = [array.ctypes.data for array in (*self.tables, feed.values, *self.now)]
        self.moved = Moved(*addresses, 0, ahead)
        self.call = compiled("rows.c").move_rows

    @staticmethod
    def grouped(index: np.ndarray, often_first: bool) -> Groups:
        row, counts = np.unique(index, return_counts=True)
        order, begin = np.argsort(index, kind="stable"), np.cumsum(counts) - counts
        if often_first:
            by_count = np.argsort(-counts, kind="stable")
            order = np.concatenate([order[begin[k] : begin[k] + counts[k]] for k in by_count])
            row, counts = row[by_count], counts[by_count]
        return Groups(row, np.concatenate(([0], np.cumsum(counts))), order)

    def before(self, k: int) -> None:
        """The groups are ready when the time begins."""
        self.feed.write(k)
        groups = self.groups[k % len(self.groups)]
        for array, given in zip(self.now, groups, strict=True):
            array[: len(given)] = given
        self.moved.n = len(groups.row)

    def step(self) -> None:
        self.call(ctypes.byref(self.moved), self.n_threads)


def roofline(feed: Feed, often_first: bool = False, ahead: int = 0, n_threads: int = 2) -> Turn:
    limit = Roofline(feed, often_first, ahead, n_threads)
    return Turn(limit.step, limit.before)


#: orders of the rows, and how many are fetched ahead; the fastest is the limit
LIMITS: dict[str, dict[str, Any]] = {
    f"{'often first' if often else 'by number'}, {f'{ahead} rows' if ahead else 'none'} ahead": {
        "often_first": often,
        "ahead": ahead,
    }
    for often, ahead in product((False, True), (0, 4, 12))
}
