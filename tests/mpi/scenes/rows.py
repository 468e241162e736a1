"""Gradients of some rows: the ranks' own rows together give the result of one process, and no whole table is sent."""

import itertools
import os

import inside
import numpy as np
from cases import CASES
from ml_dtypes import bfloat16
from scipy.sparse import coo_matrix

import fastadam
from fastadam import Rows
from fastadam.mpi import Sharded, flat

from .stage import arrays_in, digest, everything, refused, same_everywhere, same_states, scene, several
from .steps import random_params

#: of so many ranks: each over the mean of all is exact
EXACT = {1: [4], 2: [1, 3], 3: [1, 2, 0], 4: [1, 2, 0, 5]}


def params_with(dtype="float32", shape=(250, 4)) -> dict[str, np.ndarray]:
    """A table between parameters of its dtype, and one of another."""
    rng = np.random.default_rng(0)
    shapes = {"b": 40, "table": shape, "W": (3, 5)}
    return {name: rng.standard_normal(n).astype(dtype) for name, n in shapes.items()} | {"other": np.ones(9)}


def drawn(p, t: int, rank: int) -> Rows:
    """A rank's rows of step t: some come to several ranks, some several times; every third has none."""
    rng = np.random.default_rng([t, rank])
    n = 0 if (t + rank) % 3 == 2 else 30
    values = rng.standard_normal((n, *p.shape[1:]))
    return Rows(rng.integers(0, len(p) // 4, n) * 3, values.astype(np.float32 if p.itemsize < 8 else np.float64))


def dense(p, t: int, rank: int) -> np.ndarray:
    """A gradient of whole numbers, whose sums are exact."""
    return np.random.default_rng([t, rank]).integers(-9, 10, p.shape).astype(np.float32 if p.itemsize < 8 else float)


def together(rows: list[Rows]) -> Rows:
    return Rows(np.concatenate([own.index for own in rows]), np.concatenate([own.values for own in rows]))


class Beside:
    """An optimizer among ranks, and one process that has the rows of all: the same bits."""

    def __init__(self, comm, make, cls=fastadam.Adam, of_ranks=None, **options) -> None:
        self.comm, self.params, self.plain_params = comm, make(), make()
        self.sharded = Sharded(cls, self.params, comm, **options, **(of_ranks or {}))
        self.plain = cls(self.plain_params, **options)
        self.tries = 0

    def given(self, rank: int) -> dict:
        return {
            name: (drawn if name == "table" else dense)(p, self.tries, rank) for name, p in self.plain_params.items()
        }

    def steps(self, n: int, change=lambda rank, grads: None, weights=None, **how) -> "Beside":
        size = self.comm.size
        for _ in range(n):
            grads = [self.given(rank) for rank in range(size)]
            for rank, own in enumerate(grads):
                change(rank, own)
            own = {"weight": weights[self.comm.rank]} if weights else {}
            self.sharded.step(grads[self.comm.rank], **own, **how)
            weights_of = weights or [1] * size
            self.plain.step(sum_of(grads, [w * size / sum(weights_of) for w in weights_of]), grad_scale=size, **how)
            self.tries += 1
        return self

    def check(self) -> "Beside":
        one, other = self.sharded, self.plain
        assert (one.t, one.skipped, one.grad_norm) == (other.t, other.skipped, other.grad_norm)
        for name, p in self.params.items():
            np.testing.assert_array_equal(p, self.plain_params[name])
        same_states(one.state_dict(), other.state_dict())
        same_everywhere(self.comm, arrays_in(self.params))
        return self


def sum_of(grads: list[dict], shares: list[float]) -> dict:
    """What one process is given: the rows in a row, the sum of arrays. Those of a rank without a share are left out."""
    counted = [
        {
            name: Rows(g.index, g.values * g.values.dtype.type(s)) if isinstance(g, Rows) else g * g.dtype.type(s)
            for name, g in own.items()
        }
        for own, s in zip(grads, shares, strict=True)
        if s
    ]
    every = {name: [own[name] for own in counted] for name in grads[0]}
    return {name: together(found) if isinstance(found[0], Rows) else sum(found) for name, found in every.items()}


@scene
def rows_of_a_table(comm, folder):
    kinds = [
        (fastadam.SGD, {"lr": 0.1, "momentum": 0.9}, "float32", (250, 4)),
        (fastadam.Adam, {"amsgrad": True}, "float64", (250, 2, 3)),
        (fastadam.AdamW, {"weight_decay": 0.1, "master_weights": True}, bfloat16, (300,)),
        (fastadam.ScheduleFreeAdamW, {}, "float32", (250, 4)),  # whose states begin as the parameter
        (fastadam.Adam, {"state_dtype": "bfloat16", "master_weights": True}, "float16", (250, 4)),
        (fastadam.Adam, {"state_dtype": "int8", "min_8bit_size": 10_000}, "float32", (90, 256)),
    ]
    for (cls, options, dtype, shape), is_flat in itertools.product(kinds, (True, False)):

        def make(dtype=dtype, shape=shape, is_flat=is_flat):
            params = params_with(dtype, shape)
            if "float64" not in str(dtype):
                del params["other"]
            return flat(params) if is_flat else params

        bucket_bytes = 2 * make()["table"].nbytes // 3
        beside = Beside(comm, make, cls, {"bucket_bytes": bucket_bytes}, **options).steps(3).check()
        for p in [*arrays_in(beside.params), *arrays_in(beside.plain_params)]:
            p *= p.dtype.type(0.5)  # by others, between steps
        beside.steps(1, max_norm=0.5).steps(1, max_norm_each=0.5).steps(1, clip_value=0.1, skip_nonfinite=True).check()
        before, guilty = digest(arrays_in(beside.params)), comm.size - 1

        def spoil(rank, grads, guilty=guilty):
            rows = Rows([2, 3], np.ones((2, *grads["table"].values.shape[1:]), grads["table"].values.dtype))
            rows.values[1] = np.nan
            grads["table"] = rows if rank == guilty else grads["table"]

        beside.steps(1, change=spoil, skip_nonfinite=True)
        assert digest(arrays_in(beside.params)) == before
        assert beside.sharded.skipped == 1
        beside.steps(2).check()


@scene
def rows_with_weights(comm, folder):
    """Those of a rank that weighs 0 are not looked at, but that they are rows."""
    weights = EXACT[comm.size]

    def spoil(rank, grads):
        if not weights[rank]:
            grads["table"] = Rows([10**9], [1.0])

    beside = Beside(comm, params_with)
    beside.steps(3, change=spoil, weights=weights, max_norm=0.5).check()


@scene
def rows_in_16_bits(comm, folder):
    """Rounded to bfloat16 on their way."""

    def make():
        return {name: p for name, p in params_with().items() if name != "other"}

    beside = Beside(comm, make, of_ranks={"comm_dtype": "bfloat16", "bucket_bytes": 1500})
    for t in range(3):
        rows = [drawn(beside.params["table"], t, rank) for rank in range(comm.size)]
        arrays = {name: dense(p, t, 0) for name, p in beside.params.items() if name != "table"}
        beside.sharded.step({**arrays, "table": rows[comm.rank]})
        whole = together(rows)
        values = whole.values.astype(bfloat16).astype(np.float32) if comm.size > 1 else whole.values
        sums = {name: g * comm.size for name, g in arrays.items()}
        beside.plain.step({**sums, "table": Rows(whole.index, values)}, grad_scale=comm.size)
    beside.check()


@scene
def ways_to_give_rows(comm, folder):
    """Alone; in the place of ``.grads``; as SciPy's; in a step among steps with arrays; in a group that is frozen."""
    table, plain_table = (np.ones((200, 4)) for _ in range(2))
    opt, plain = Sharded(fastadam.Adam, table, comm), fastadam.Adam(plain_table)
    index = np.arange(3) + comm.rank
    rows = np.ones((3, 4))
    matrix = coo_matrix((rows.ravel(), (index.repeat(4), np.tile(np.arange(4), 3))), (200, 4))
    every = [np.arange(3) + rank for rank in range(comm.size)]
    whole = Rows(np.concatenate(every), np.ones((3 * comm.size, 4)))
    for given in (Rows(index, rows), matrix):
        opt.step(given)
        plain.step(whole, grad_scale=comm.size)
        opt.step(table / 8)
        plain.step(plain_table / 8)
        np.testing.assert_allclose(table, plain_table, rtol=1e-12)
    empty = Sharded(fastadam.Adam, [np.ones((0, 4)), np.ones((5, 0)), np.ones((100, 4))], comm)
    nothing = Rows([], np.ones((0, 4)))
    empty.step([nothing, Rows([3], np.ones((1, 0))), np.ones((100, 4))])
    empty.step([nothing, np.ones((5, 0)), nothing])
    empty.step([nothing, np.ones((5, 0)), np.ones((100, 4))])
    assert set(inside.plan(empty).steps.tolist()) == {3}
    groups = [{"params": {"table": np.ones((200, 4))}}, {"params": {"b": np.ones(3)}}]
    opt = Sharded(fastadam.Adam, groups, comm)
    opt.grads[0]["table"] = Rows(index, rows)
    opt.grads[1]["b"][...] = 1
    opt.step(zero_grads=True)
    assert not opt.grads[1]["b"].any()
    changed = np.flatnonzero((groups[0]["params"]["table"] != 1).any(axis=1))
    assert changed.tolist() == list(range(comm.size + 2))
    before = digest([groups[0]["params"]["table"]])
    opt.param_groups[0]["frozen"] = True
    opt.step()
    assert digest([groups[0]["params"]["table"]]) == before
    same_everywhere(comm, [groups[0]["params"]["table"]])


@scene
def rows_through_checkpoints(comm, folder):
    """Of any number of ranks, for any other, between steps with rows: the bits of a run that was never broken."""
    numbers = range(1, comm.size + 1)
    parts = {n: comm.Split(0 if comm.rank < n else 1) for n in numbers}
    for n, m in itertools.product(numbers, numbers):
        path = folder / f"{n}-{m}"
        options = {"state_dtype": "bfloat16", "seed": 5}
        if comm.rank < n:
            writer = Beside(parts[n], params_of_one_dtype, of_ranks={"bucket_bytes": 1500}, **options).steps(2)
            writer.sharded.save(path, params=True)
            whole = writer.plain.state_dict(), writer.plain_params
        comm.Barrier()
        whole = comm.bcast(whole if comm.rank == 0 else None)
        if comm.rank < m:
            reader = Beside(parts[m], params_of_one_dtype, of_ranks={"bucket_bytes": 2500}, **options).steps(1)
            reader.sharded.load(path)
            reader.plain.load_state_dict(whole[0])
            for name, p in reader.plain_params.items():
                p[...] = whole[1][name]
            reader.steps(2).check()


def params_of_one_dtype() -> dict[str, np.ndarray]:
    return {name: p for name, p in params_with().items() if name != "other"}


@scene
def no_table_travels(comm, folder):
    """What ranks send in a step with rows is in proportion to these, whatever the size of the table."""
    for is_flat in (True, False):
        params = {"b": np.ones(5, np.float32), "table": np.ones((20_000, 8), np.float32), "c": np.ones(50, np.float32)}
        params = flat(params) if is_flat else params
        opt = Sharded(fastadam.Adam, params, comm, bucket_bytes=100_000)
        heard: list[int] = []
        original = opt._ranks.comm
        inside.listen(opt, lambda name, n_bytes, heard=heard: heard.append(n_bytes))
        try:
            arrays = {"b": params["b"], "c": params["c"]}
            opt.step({**arrays, "table": Rows(np.arange(9) * 2000 + comm.rank, np.ones((9, 8)))})
            assert sum(heard) < 40 * 9 * 4 * comm.size + 2000
            heard.clear()
            opt.step({**arrays, "table": params["table"]})
            assert comm.size == 1 or sum(heard) >= params["table"].nbytes
        finally:
            opt._ranks.comm = original


@scene
def rows_that_are_refused(comm, folder):
    guilty = comm.size - 1
    beside = Beside(comm, params_with).steps(1)
    opt, good = beside.sharded, beside.given(comm.rank)
    before = everything(opt), digest(inside.grad_views(opt))
    index = "gradient of params['table']: index: expected numbers of rows, 0 … 249, got {} at place 1"
    wrong = {
        index.format(250): Rows([3, 250], np.ones((2, 4))),
        index.format(-1): Rows([3, -1], np.ones((2, 4))),
        "gradient of params['table']: expected shape (2, 4), rows of the parameter, got (2, 5)": Rows(
            [0, 1], np.ones((2, 5))
        ),
        "gradient of params['table']: expected whole rows": coo_matrix(([1.0], ([1], [2])), (250, 4)),
    }
    for said, rows in wrong.items():
        with refused(comm, f"rank {guilty} refused it: ValueError: {said}", {guilty: (ValueError, said)}):
            opt.step({**good, "table": rows} if comm.rank == guilty else good)
        assert (everything(opt), digest(inside.grad_views(opt))) == before
    for how, said in (({"max_norm": -1}, "max_norm"), ({"weight": -1}, "weight")):
        with refused(comm, f"rank {guilty} refused it: ValueError: {said}", {guilty: (ValueError, said)}):
            opt.step(good, **how if comm.rank == guilty else {})
        assert (everything(opt), digest(inside.grad_views(opt))) == before
    with refused(comm, f"rank {guilty} refused it: TypeError: grads", {guilty: (TypeError, "grads")}):
        opt.step(5 if comm.rank == guilty else good)
    assert (everything(opt), digest(inside.grad_views(opt))) == before
    beside.steps(1).check()
    cut = Sharded(fastadam.Adam, [np.ones((4, 400))], comm, bucket_bytes=800 * comm.size, replicate_below=0)
    said = "gradient of params[0]: expected an array, got Rows; its rows of 400 elements are cut"
    if comm.size > 1:
        with refused(comm, said, dict.fromkeys(range(comm.size), (ValueError, said))):
            cut.step([Rows([1], np.ones((1, 400)))])
    said = "rows: 'exact' is not possible with ranks"
    with refused(comm, said, dict.fromkeys(range(comm.size), (ValueError, said))):
        Sharded(fastadam.Adam, np.ones((4, 4)), comm, rows="exact")


@several
def rows_on_one_rank_and_an_array_on_another(comm, folder):
    beside = Beside(comm, params_with).steps(1)
    opt, rows = beside.sharded, beside.given(comm.rank)
    arrays = {name: np.ones(p.shape) for name, p in beside.params.items()}
    before = everything(opt), digest(inside.grad_views(opt))
    with refused(comm, "the ranks call different things"):
        opt.step(arrays if comm.rank == 0 else rows)
    with refused(comm, "the ranks disagree in parameters whose gradients are Rows"):
        opt.step({**rows, "b": Rows([1], [1.0])} if comm.rank == 0 else rows)
    with refused(comm, "the ranks call different things"):
        opt.step(5 if comm.rank == 0 else rows, weight=int(comm.rank != 0))
    assert (everything(opt), digest(inside.grad_views(opt))) == before
    beside.steps(1).check()


@scene
def worlds_of_rows_by_chance(comm, folder):
    """Tables of any shape, dtype and layout in groups, some given as rows and some as arrays, from step to step. More
    of them: FASTADAM_TEST_TRIALS=1000."""
    for trial in range(int(os.environ.get("FASTADAM_TEST_TRIALS", "4"))):
        cls, options = [*CASES.values()][np.random.default_rng([trial, 7]).integers(len(CASES))]
        made = [random_params(np.random.default_rng([trial, 3]), (None, "bfloat16")) for _ in range(2)]
        params, plain_params = flat(made[0]) if trial % 2 else made[0], made[1]
        opt = Sharded(cls, params, comm, bucket_bytes=2 ** (4 + trial % 8), **options)
        plain = cls(plain_params, **options)
        by_rows = inside.layout(opt).by_rows
        for t in range(4):
            which = np.random.default_rng([trial, t])
            is_rows = [
                number in by_rows and p.ndim > 0 and which.random() < 0.5 for number, p in enumerate(arrays_in(params))
            ]
            every = [of_chance(plain_params, is_rows, [trial, t, rank]) for rank in range(comm.size)]
            how = [{}, {"max_norm": 0.5}, {"max_norm_each": 0.5}, {"skip_nonfinite": True}][which.integers(4)]
            opt.step(every[comm.rank], **how)
            whole = [
                together(list(own)) if rows else sum(own)
                for own, rows in zip(zip(*every, strict=True), is_rows, strict=True)
            ]
            plain.step(whole, grad_scale=comm.size, **how)
        for p, expected in zip(arrays_in(params), arrays_in(plain_params), strict=True):
            np.testing.assert_array_equal(p, expected)
        same_states(opt.state_dict(), plain.state_dict())


def of_chance(params, is_rows: list[bool], seed: list[int]) -> list:
    """A rank's gradients, of whole numbers: of some parameters rows, of others arrays."""
    rng, found = np.random.default_rng(seed), []
    for p, rows in zip(arrays_in(params), is_rows, strict=True):
        n = rng.integers(0, 6) if rows and len(p) else 0
        shape = (n, *p.shape[1:]) if rows else p.shape
        values = np.asarray(rng.integers(-9, 10, shape), np.float64 if p.itemsize == 8 else np.float32)
        found.append(Rows(rng.integers(0, max(len(p), 1), n), values) if rows else values)
    return found
