"""What real ranks play: each scene asserts, on every rank, what `fastadam.mpi` promises; test_mpi.py runs them.
By hand: ``mpiexec -n N python tests/mpi/ranks.py FOLDER [SCENE …]``; results are added to FOLDER/results.jsonl.
"""

import faulthandler
import gc
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import inside
import numpy as np
from cases import CASES
from ml_dtypes import bfloat16
from mpi4py import MPI

import fastadam
from fastadam import schedules
from fastadam.mpi import Disagreement, Sharded, flat

#: what `several` marks needs more than one rank; what `ending` marks ends the job, and is run by itself
SCENES: dict[str, Callable[[MPI.Intracomm, Path], None]] = {}
ENDINGS: set[str] = set()
#: seconds after which a rank that hangs shows where, and ends
LIMIT = 50


def scene(play):
    SCENES[play.__name__] = play
    return play


def ending(play):
    ENDINGS.add(play.__name__)
    return scene(play)


several = scene


def main(folder: Path, *names: str) -> None:
    """Play scenes one after the other; one that fails on a single rank, so that the others would wait, ends the job."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    comm = MPI.COMM_WORLD
    for name in names:
        place, failure, start = folder / name, "", time.perf_counter()
        place.mkdir(exist_ok=True)
        comm.Barrier()
        if name in ENDINGS:
            SCENES[name](comm, place)
            return
        try:
            SCENES[name](comm, place)
        except Exception:
            failure = f"rank {comm.rank} of {comm.size}:\n{traceback.format_exc()}"
            tell(folder, name, failure)
        if not all_come(comm, patience=5 if failure else LIMIT):
            print(f"{name}: {failure}", file=sys.stderr, flush=True)
            comm.Abort(1)
        if not any(comm.allgather(failure)) and comm.rank == 0:
            tell(folder, name, "", time.perf_counter() - start)


def tell(folder: Path, name: str, failure: str, seconds: float = 0) -> None:
    """Ranks write in turn: a line is added by one call of the system."""
    line = json.dumps({"scene": name, "failure": failure, "seconds": seconds}) + "\n"
    handle = os.open(folder / "results.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode())
    os.close(handle)


def all_come(comm: MPI.Intracomm, patience: float) -> bool:
    request, end = comm.Ibarrier(), time.monotonic() + patience
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(1e-4)
    return True


# ---------------------------------------------------------------- an optimizer among ranks, and its plain twin


def own_rule(p, g, m, lr, beta, one_minus_beta):
    m = beta * m + one_minus_beta * g
    return p - lr * np.sign(m), m


def own_scalars(t, lr, beta):
    return lr / np.sqrt(t), beta, 1.0 - beta


OwnRule = fastadam.optimizer(own_rule, own_scalars, ("m",), lr=0.01, beta=0.9)


def params_of(dtypes=("float32",), order="C") -> dict[str, np.ndarray]:
    """Parameters of each dtype: some elements, one without axes, one that is empty, and a matrix."""
    rng = np.random.default_rng(0)
    shapes = {"W": (13, 7), "scalar": (), "empty": (0, 3), "b": (7,)}
    return {
        f"{name} {dtype}": np.asarray(rng.standard_normal(shape), order=order).astype(dtype)
        for dtype in map(np.dtype, dtypes)
        for name, shape in shapes.items()
    }


def arrays_in(params) -> list[np.ndarray]:
    if isinstance(params, np.ndarray):
        return [params]
    values = params.values() if isinstance(params, dict) else params
    return [array for value in values for array in (arrays_in(value["params"]) if isinstance(value, dict) else [value])]


def like(params, arrays: list[np.ndarray]):
    """These arrays in the structure of the parameters; of groups, all of them in a row."""
    if isinstance(params, np.ndarray):
        return arrays[0]
    return dict(zip(params, arrays, strict=True)) if isinstance(params, dict) else arrays


def draw(params, t: int, rank: int, whole: bool) -> list[np.ndarray]:
    """A rank's gradients of step t, whose sums over ranks are exact if they are `whole`."""
    rng = np.random.default_rng([t, rank])
    found = []
    for p in arrays_in(params):
        g = rng.integers(-9, 10, p.shape) if whole else rng.standard_normal(p.shape)
        found.append(np.asarray(g, np.float64 if p.dtype == np.float64 else np.float32))
    return found


def average(gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.asarray(sum(parts[1:], parts[0]) / len(parts), parts[0].dtype) for parts in zip(*gradients, strict=True)]


class Twins:
    """The same parameters stepped by all ranks, and by a plain optimizer on each that knows all ranks' gradients."""

    def __init__(self, comm, make, optimizer=fastadam.Adam, whole=True, of_ranks=None, **options) -> None:
        self.comm, self.whole = comm, whole
        self.params, self.plain_params = make(), make()
        self.sharded = Sharded(optimizer, self.params, comm, **options, **(of_ranks or {}))
        options.pop("state_dir", None)
        self.plain = optimizer(self.plain_params, **options)
        self.tries = 0
        #: where the ranks' sums are exact, so is the average of 2**k of them
        self.exact = comm.size == 1 or (whole and comm.size in (2, 4))

    def steps(self, n: int = 3, **how) -> "Twins":
        for _ in range(n):
            self.step(**how)
        return self

    def step(self, given=True, change=lambda rank, grads: None, **how) -> None:
        drawn = [draw(self.params, self.tries, rank, self.whole) for rank in range(self.comm.size)]
        for rank, grads in enumerate(drawn):
            change(rank, grads)
        self.tries += 1
        mine = drawn[self.comm.rank]
        if given:
            self.sharded.step(like(self.params, mine), **how)
        else:
            for view, g in zip(inside.grad_views(self.sharded), mine, strict=True):
                view[...] = g
            self.sharded.step(**how)
        with np.errstate(invalid="ignore"):
            self.plain.step(like(self.plain_params, average(drawn)), **how)

    def check(self) -> "Twins":
        """That they are the same, and all ranks too: to the bit where sums are exact, else to rounding."""
        sharded, plain = self.sharded, self.plain
        assert (sharded.t, sharded.skipped, sharded.seed) == (plain.t, plain.skipped, plain.seed)
        if plain.grad_norm is None:
            assert sharded.grad_norm is None
        else:
            np.testing.assert_allclose(sharded.grad_norm, plain.grad_norm, rtol=0 if self.exact else 1e-6)
        for p, expected in zip(arrays_in(self.params), arrays_in(self.plain_params), strict=True):
            self.same(p, expected)
        one, other = sharded.state_dict(), plain.state_dict()
        assert one.keys() == other.keys()
        assert one["state"].keys() == other["state"].keys()
        for key, arrays in other["state"].items():
            assert one["state"][key].keys() == arrays.keys(), key
            for name, array in arrays.items():
                self.same(one["state"][key][name], array)
        same_everywhere(self.comm, arrays_in(self.params))
        return self

    def same(self, array: np.ndarray, expected: np.ndarray) -> None:
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        if self.exact:
            np.testing.assert_array_equal(array, expected)
        else:
            near = 0.03 if expected.itemsize == 2 else 1e-4
            np.testing.assert_allclose(array.astype(float), expected.astype(float), rtol=near, atol=near / 100)


def digest(arrays) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(array.tobytes())
    return total.hexdigest()


def same_everywhere(comm, arrays) -> None:
    assert len(set(comm.allgather(digest(arrays)))) == 1


def everything(opt) -> str:
    """All that a refused call must leave as it was, on this rank."""
    states = [array for arrays in inside.named_states(opt) for array in arrays.values()]
    values = [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]
    return f"{digest([*inside.whole_params(opt), *states])} {opt.t} {opt.skipped} {values}"


# ---------------------------------------------------------------- the same meaning as one process


@scene
def every_optimizer(comm, folder):
    for (cls, options), whole in itertools.product(
        [*CASES.values(), (OwnRule, {"backend": "numpy", "maximize": True})], (True, False)[: 2 if comm.size < 4 else 1]
    ):
        Twins(comm, lambda: params_of(("float32", "float64")), cls, whole, **options).steps(3).check()


@scene
def backends(comm, folder):
    for backend in ("numpy", "cython", "numba") if comm.size == 2 else ("numpy", "cython"):  # Numba compiles for long
        twins = Twins(comm, params_of, backend=backend, of_ranks={"bucket_bytes": 64}).steps(2, max_norm=0.5).check()
        assert twins.sharded.backend == backend


@scene
def mixed_precision(comm, folder):
    dtypes = ("float16", "float32", bfloat16, "float64")
    for master_weights, bucket_bytes in itertools.product((False, True), (40, 1 << 24)):
        twins = Twins(
            comm,
            lambda: params_of(dtypes),
            fastadam.AdamW,
            master_weights=master_weights,
            of_ranks={"bucket_bytes": bucket_bytes},
        )
        twins.steps(3, grad_scale=8.0, max_norm=1.0).check()


@scene
def states_of_16_bits(comm, folder):
    """Rounded up or down by random bits, which belong to an element and not to the rank that has it."""
    for bucket_bytes, (cls, options) in itertools.product(
        (40, 1 << 24), [CASES["amsgrad"], CASES["rmsprop_centered_momentum"], (OwnRule, {"backend": "numpy"})]
    ):
        twins = Twins(
            comm,
            lambda: params_of(("float32", "float16", bfloat16)),
            cls,
            state_dtype="bfloat16",
            master_weights=True,
            seed=7,
            of_ranks={"bucket_bytes": bucket_bytes},
            **options,
        )
        twins.steps(4).check()


def groups() -> list[dict]:
    """Of options of their own, fewer elements than ranks, none at all, and several dtypes."""
    rng = np.random.default_rng(1)
    return [
        {"params": rng.standard_normal((9, 5)), "lr": 0.1},
        {"params": {"one": np.ones(1), "none": np.ones(0)}, "weight_decay": 0.5, "betas": (0.5, 0.6)},
        {"params": [rng.standard_normal(30).astype(dtype) for dtype in ("float32", "float64", "float32")]},
        {"params": np.ones((0, 2), np.float32), "amsgrad": True},
        {"params": [np.ones(3, np.float32)], "amsgrad": True, "maximize": True},
    ]


@scene
def groups_of_parameters(comm, folder):
    for make in (groups, lambda: flat(groups())):
        twins = Twins(comm, make, of_ranks={"bucket_bytes": 50}).steps(3).check()
        for opt in (twins.sharded, twins.plain):
            opt.param_groups[1].update(lr=0.3, weight_decay=0.0)
            opt.weight_decay = 0.01
        twins.steps(2, max_norm=0.1).check()
        assert [group["lr"] for group in twins.sharded.param_groups] == [0.1, 0.3, 1e-3, 1e-3, 1e-3]


@scene
def rates(comm, folder):
    schedule = schedules.join([schedules.warmup(0.1, 3), schedules.cosine(0.1, 5)], [3])
    for lr in (schedule, lambda t: 0.1 / t, 0.1):
        twins = Twins(comm, params_of, lr=lr).steps(3)
        for opt in (twins.sharded, twins.plain):
            opt.lr = 0.01
        twins.steps(2).check()


@scene
def arguments_of_a_step(comm, folder):
    some = {
        "max_norm": (None, 0.1, math.inf),
        "clip_value": (None, 0.5),
        "grad_scale": (1.0, 3.0),
        "skip_nonfinite": (False, True),
        "zero_grads": (False, True),
    }
    combined = [dict(zip(some, values, strict=True)) for values in itertools.product(*some.values())]
    for whole in (True, False):
        twins = Twins(comm, lambda: params_of(("float32", "float64")), whole=whole, of_ranks={"bucket_bytes": 100})
        for number, how in enumerate(combined):
            twins.step(given=number % 2 == 0, **how)
            assert all(not g.any() for g in inside.grad_views(twins.sharded)) == how["zero_grads"]
        twins.check()


@scene
def what_is_not_finite_on_one_rank(comm, folder):
    for value, guilty, of_ranks in itertools.product(
        (np.nan, np.inf), range(comm.size), ({}, {"comm_dtype": "bfloat16", "bucket_bytes": 40})
    ):
        twins = Twins(comm, params_of, of_ranks=of_ranks)
        twins.exact &= not of_ranks

        def spoil(rank, grads, value=value, guilty=guilty):
            if rank == guilty:
                grads[0].flat[17] = value

        twins.step(skip_nonfinite=True)
        before = digest(arrays_in(twins.params))
        twins.step(change=spoil, skip_nonfinite=True, zero_grads=True)
        assert digest(arrays_in(twins.params)) == before
        assert (twins.sharded.t, twins.sharded.skipped) == (1, 1)
        assert any(g.any() for g in inside.grad_views(twins.sharded))
        twins.step(skip_nonfinite=True)
        twins.check()
        twins.step(change=spoil, max_norm=1.0)  # as in one process, where nobody asked to skip it
        with np.errstate(invalid="ignore"):
            twins.exact = False
            twins.check()
        assert np.isnan(arrays_in(twins.params)[0]).any()


@scene
def norms_beyond_the_numbers(comm, folder):
    """Of float64, squares overflow and vanish before the numbers do: also in the sum over the ranks."""
    for scale in (2.0**511, 2.0**600, 2.0**1000, 2.0**-540, 2.0**-600, 2.0**-1060):

        def grow(rank, grads, scale=scale):
            for g in grads:
                g *= scale

        twins = Twins(comm, lambda: params_of(("float64",)), fastadam.Adagrad, of_ranks={"bucket_bytes": 64})
        twins.steps(2, change=grow, max_norm=1.0, skip_nonfinite=True).check()
        assert twins.sharded.t == 2


@scene
def the_same_bits_at_each_run(comm, folder):
    found = []
    for _ in range(2):
        twins = Twins(comm, params_of, whole=False, of_ranks={"bucket_bytes": 100}).steps(4, max_norm=0.3)
        found.append(everything(twins.sharded))
    assert found[0] == found[1]


@scene
def gradients_of_16_bits(comm, folder):
    """Rounded to bfloat16 on their way, added up in float32: a plain step of the average of what was rounded."""
    for bucket_bytes in (32, 1 << 24):
        params, plain_params = params_of(), params_of()
        opt = Sharded(fastadam.Adam, params, comm, comm_dtype="bfloat16", bucket_bytes=bucket_bytes)
        plain = fastadam.Adam(plain_params)
        for t in range(3):
            drawn = [draw(params, t, rank, whole=False) for rank in range(comm.size)]
            opt.step(like(params, drawn[comm.rank]), max_norm=0.4)
            rounded = [[g.astype(bfloat16).astype(np.float32) if comm.size > 1 else g for g in one] for one in drawn]
            plain.step(like(params, average(rounded)), max_norm=0.4)
        for p, expected in zip(params.values(), plain_params.values(), strict=True):
            np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-7)
        same_everywhere(comm, params.values())


@scene
def threads_of_a_rank(comm, folder):
    """Buckets are swept one by one: with any number of threads, and tiles cut elsewhere, to the same bits."""

    def make():
        return [np.linspace(-1, 1, 100_003, dtype=np.float32), np.ones(40_001, np.float16)]

    options = {"state_dtype": "bfloat16", "master_weights": True}
    for n_threads, bucket_bytes in ((1, 1 << 24), (3, 100_000)):
        twins = Twins(comm, make, n_threads=n_threads, of_ranks={"bucket_bytes": bucket_bytes}, **options)
        assert twins.sharded.n_threads == n_threads
        twins.steps(2, max_norm=1.0).check()


def random_params(rng) -> list[dict]:
    """One to four groups of a few arrays, of any dtype, shape and layout, some with options of their own."""
    dtypes = (np.float16, bfloat16, np.float32, np.float64)[: rng.integers(1, 5)]

    def array():
        shape = tuple(rng.choice((0, 1, 2, 3, 5, 17), rng.integers(0, 4), p=(0.04, 0.16, 0.2, 0.2, 0.2, 0.2)))
        p = rng.standard_normal(shape).astype(dtypes[rng.integers(len(dtypes))])
        return np.repeat(p, 2, axis=0)[::2] if rng.random() < 0.2 and shape else p

    groups = []
    for _ in range(rng.integers(1, 5)):
        options = {"weight_decay": 0.1} if rng.random() < 0.3 else {}
        groups.append({"params": [array() for _ in range(rng.integers(1, 5))], **options})
    return groups


@scene
def worlds_by_chance(comm, folder):
    """More of them: FASTADAM_TEST_TRIALS=1000."""
    for trial in range(int(os.environ.get("FASTADAM_TEST_TRIALS", "4"))):
        rng = np.random.default_rng([trial, 77])
        cls, options = [*CASES.values()][rng.integers(len(CASES))]
        is_flat = rng.random() < 0.5

        def make(trial=trial, is_flat=is_flat):
            made = random_params(np.random.default_rng(trial))
            return flat(made) if is_flat else made

        has_double = any(p.dtype == np.float64 for p in arrays_in(make()))
        if not has_double and rng.random() < 0.5:
            options = {**options, "state_dtype": "bfloat16", "seed": int(rng.integers(9))}
        options = {**options, "master_weights": bool(rng.random() < 0.5)}
        how = {
            "grad_scale": 2.0 ** int(rng.integers(-3, 4)),
            "max_norm": [None, 0.5][rng.integers(2)],
            "clip_value": [None, 0.25][rng.integers(2)],
            "skip_nonfinite": bool(rng.integers(2)),
            "zero_grads": bool(rng.integers(2)),
        }
        buckets = [{"bucket_bytes": int(2 ** rng.integers(3, 12))} for _ in range(2)]
        twins = Twins(comm, make, cls, of_ranks=buckets[0], **options).steps(2, **how)
        twins.sharded.save(folder / str(trial), params=True)
        resumed = Twins(comm, make, cls, of_ranks=buckets[1], **options)
        resumed.sharded.load(folder / str(trial))
        resumed.plain, resumed.plain_params, resumed.tries = twins.plain, twins.plain_params, twins.tries
        resumed.steps(2, **how).check()


# ---------------------------------------------------------------- memory


def one_buffer() -> list[np.ndarray]:
    memory = np.arange(60, dtype=np.float32) / 7
    return [memory[:24].reshape(4, 6), memory[24:25].reshape(()), memory[25:25], memory[25:60].reshape(5, 7)]


def odd_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "Fortran": np.asfortranarray(rng.standard_normal((6, 5))),
        "strided": rng.standard_normal((8, 9))[::-2, 1::3],
        "transposed": rng.standard_normal((3, 4, 5)).transpose(2, 0, 1),
        "none": rng.standard_normal((0, 4)),
        "scalar": np.array(2.0),
        "C": rng.standard_normal((2, 9)),
    }


@scene
def layouts_of_parameters(comm, folder):
    one = np.linspace(-1, 1, 50, dtype=np.float32)
    makers = {
        "array": (lambda: one.copy(), False),
        "matrix": (lambda: one.reshape(10, 5).copy(), False),
        "without axes": (lambda: np.array(1.5), False),
        "nothing": (lambda: np.ones((3, 0)), True),
        "fewer elements than ranks": (lambda: [np.ones(1), np.ones(1, np.float32)], False),
        "list": (lambda: [np.ones(3), np.ones((2, 2))], True),
        "dict": (params_of, True),
        "pairs": (lambda: list(params_of().items()), True),
        "one buffer": (one_buffer, False),
        "part of a buffer": (lambda: one_buffer()[1:], False),
        "another order": (lambda: one_buffer()[::-1], True),
        "with a gap": (lambda: one_buffer()[::3], True),
        "odd": (odd_arrays, True),
        "flat": (lambda: flat(params_of()), False),
        "flat of odd": (lambda: flat(odd_arrays()), False),
        "flat of dtypes": (lambda: flat(params_of(("float16", "float64", "float16"))), False),
        "flat array": (lambda: flat(one.reshape(5, 10)), False),
        "flat list": (lambda: flat([one, one.copy()]), False),
    }
    for (name, (make, is_buffer)), bucket_bytes in itertools.product(makers.items(), (1, 1 << 24)):
        if name == "pairs":
            twins = Twins(comm, lambda make=make: dict(make()), of_ranks={"bucket_bytes": bucket_bytes})
        else:
            twins = Twins(comm, make, of_ranks={"bucket_bytes": bucket_bytes})
        assert {memory.is_buffer for memory in inside.memories(twins.sharded)} == {is_buffer}, name
        twins.steps(2).steps(1, max_norm=0.1, given=False)
        twins.exact &= "odd" not in name  # another order of summation for the norm
        twins.check()


@scene
def flat_of_a_million(comm, folder):
    start = time.perf_counter()
    made = flat([np.ones(1_000_000, np.float32), np.ones(5)])
    assert time.perf_counter() - start < 0.5
    assert made[0].sum() == 1_000_000


@scene
def gradients_as_they_come(comm, folder):
    kinds = {
        "float16": lambda g, view: g.astype(np.float16),
        "bfloat16": lambda g, view: g.astype(bfloat16),
        "float64": lambda g, view: g.astype(np.float64),
        "Fortran": lambda g, view: np.asarray(g, order="F"),
        "backwards": lambda g, view: np.flip(np.flip(g).copy()),
        "broadcast": lambda g, view: np.broadcast_to(g.flat[0] if g.size else np.float32(0), g.shape),
        "in .grads": lambda g, view: view,
        "in .grads, backwards": lambda g, view: np.flip(view),
    }
    for name, kind in kinds.items():
        params, plain_params = params_of(), params_of()
        opt, plain = Sharded(fastadam.Adam, params, comm), fastadam.Adam(plain_params)
        for t in range(2):
            for view, g in zip(inside.grad_views(opt), draw(params, t, comm.rank, whole=True), strict=True):
                view[...] = g
            given = [kind(g.copy(), g) if "in" not in name else kind(g, g) for g in inside.grad_views(opt)]
            all_given = comm.allgather([np.array(g, np.float32) for g in given])
            kept = [g.copy() for g in given]
            opt.step(like(params, given))
            assert "in" in name or digest(given) == digest(kept)
            plain.step(like(plain_params, average(all_given)))
        for p, expected in zip(params.values(), plain_params.values(), strict=True):
            np.testing.assert_allclose(p, expected, rtol=0 if comm.size in (1, 2, 4) else 1e-5, err_msg=name)


@scene
def gradients_among_the_gradients(comm, folder):
    """Given ones that lie where those of others are put."""
    params, plain_params = [np.ones(4), np.ones(4)], [np.ones(4), np.ones(4)]
    opt, plain = Sharded(fastadam.Adagrad, params, comm), fastadam.Adagrad(plain_params)
    opt.grads[0][...], opt.grads[1][...] = np.arange(4.0) + 1, -np.arange(4.0) * 3
    plain_grads = [g.copy() for g in opt.grads]
    opt.step(opt.grads[::-1])
    plain.step(plain_grads[::-1])
    np.testing.assert_allclose(params, plain_params, rtol=1e-12)


@scene
def gradients_that_were_replaced(comm, folder):
    """An entry of `.grads` is to be written to; another array in its place would never be read."""
    params = params_of()
    for replace in (
        lambda opt: opt.grads.update({"b float32": np.ones(7, np.float32)}),
        lambda opt: setattr(opt, "grads", params_of()),
    ):
        opt = Sharded(fastadam.Adam, params, comm)
        if comm.rank == comm.size - 1:
            replace(opt)
        before = everything(opt)
        with refused(comm, "grads", {comm.size - 1: (TypeError, "write to")}):
            opt.step()
        assert everything(opt) == before
        opt.step(params_of())
        assert opt.t == 1


@scene
def values_of_the_first_rank(comm, folder):
    """And master weights of these values, not of those that a rank had."""
    for make in (params_of, lambda: flat(params_of()), lambda: params_of(("float16",))):
        params = make()
        expected = [p.copy() for p in params.values()]
        for p in params.values():
            p += comm.rank
        opt = Sharded(fastadam.Adam, params, comm, master_weights=True, lr=0.0)
        for p, values in zip(params.values(), expected, strict=True):
            np.testing.assert_array_equal(p, values)
        opt.step(opt.grads)
        for p, values in zip(params.values(), expected, strict=True):
            np.testing.assert_array_equal(p, values)


@scene
def arrays_that_cannot_be_written_any_more(comm, folder):
    for make in (params_of, lambda: flat(params_of())):
        params = make()
        opt = Sharded(fastadam.Adam, params, comm)
        opt.save(folder / "kept", params=True)
        before = everything(opt)
        if comm.rank == 0:
            params["W float32"].flags.writeable = False
        for call, argument in ((opt.step, params_of()), (opt.load, folder / "kept")):
            with refused(comm, "read-only", {0: (ValueError, "W float32")}):
                call(argument)
        assert everything(opt) == before
        params["W float32"].flags.writeable = True
        opt.step(params_of())


# ---------------------------------------------------------------- states on disk


@scene
def states_in_folders(comm, folder):
    def make():
        return params_of(("float32", "float16"))

    options = {"master_weights": True, "state_dtype": "bfloat16", "state_dir": folder}
    through = Twins(comm, make, **{**options, "state_dir": folder / "through"}).steps(5).check()
    twins = Twins(comm, make, **options).steps(3)
    kept = make()
    for p, q in zip(kept.values(), twins.params.values(), strict=True):
        p[...] = q
    twins.sharded.close()
    assert sorted(path.name for path in folder.glob("rank-*")) == [
        f"rank-{rank}-of-{comm.size}" for rank in range(comm.size)
    ]
    resumed = Sharded(fastadam.Adam, kept, comm, **options)
    assert resumed.t == 3
    for t in (3, 4):
        resumed.step(like(kept, draw(kept, t, comm.rank, whole=True)))
    assert everything(resumed) == everything(through.sharded)
    same_everywhere(comm, kept.values())


@several
def folders_of_makers_that_disagree(comm, folder):
    """What was new is still free for those who agree; what had states has them."""
    with refused(comm, "disagree in shape and dtype"):
        Sharded(fastadam.Adam, np.ones(9 + (comm.rank == 1)), comm, state_dir=folder)
    opt = Sharded(fastadam.Adam, np.ones(9), comm, state_dir=folder)
    opt.step(np.ones(9))
    opt.close()
    with refused(comm, "disagree in lr of group 0"):
        Sharded(fastadam.Adam, np.ones(9), comm, state_dir=folder, lr=1.0 + comm.rank)
    assert Sharded(fastadam.Adam, np.ones(9), comm, state_dir=folder).t == 1


@several
def folder_in_use_on_one_rank(comm, folder):
    taken = None
    if comm.rank == 1:
        taken = fastadam.Adam(np.ones(3), state_dir=folder / f"rank-1-of-{comm.size}")
    comm.Barrier()
    error = error_of(lambda: Sharded(fastadam.Adam, np.ones(9), comm, state_dir=folder))
    assert isinstance(error, RuntimeError if comm.rank == 1 else Disagreement)
    assert "another optimizer uses this folder" in str(error)
    if taken is not None:
        taken.close()
        shutil.rmtree(folder / f"rank-1-of-{comm.size}")
    comm.Barrier()
    opt = Sharded(fastadam.Adam, np.ones(9), comm, state_dir=folder)
    opt.step(np.ones(9))
    assert opt.t == 1


# ---------------------------------------------------------------- communicators


@scene
def part_of_the_ranks(comm, folder):
    part = comm.Split(comm.rank % 2)
    twins = Twins(part, params_of, lr=0.1 * (1 + comm.rank % 2)).steps(3, max_norm=1.0).check()
    assert twins.sharded.comm is part
    if comm.rank % 2 == 0:  # the others do nothing meanwhile
        twins.steps(2).check()
    twins.sharded.save(folder / f"{comm.rank % 2}")
    comm.Barrier()
    of_all = Twins(comm, params_of).steps(1).check()
    assert of_all.sharded.t == 1


@scene
def communicators_that_are_freed(comm, folder):
    """And the optimizer's own with them: MPICH has room for 2048."""
    part = comm.Dup()
    opt = Sharded(fastadam.Adam, np.ones(3), part)
    part.Free()
    assert inside.ranks(opt).comm == MPI.COMM_NULL
    before = everything(opt)
    with refused(comm, "step: the communicator was freed"):
        opt.step(np.ones(3))
    assert everything(opt) == before


@scene
def two_optimizers(comm, folder):
    one, other = Twins(comm, params_of), Twins(comm, lambda: flat(params_of()), fastadam.RMSprop)
    for _ in range(3):
        one.step()
        other.step(max_norm=0.1)
        comm.allreduce(1)  # a program's own messages
    one.check()
    other.check()
    if comm.size > 1:
        first, second = (one, other) if comm.rank else (other, one)
        for twins in (first, second):
            before = everything(twins.sharded)
            with refused(comm, "disagree in number"):
                twins.sharded.step(params_of())
            assert everything(twins.sharded) == before
    one.steps(1).check()


@scene
def optimizers_that_are_let_go(comm, folder):
    """At once, and not when Python looks for cycles: states are large, and a folder is locked."""
    gc.collect()
    gc.disable()
    try:
        for is_refused in (False, True, False):
            opt = Sharded(fastadam.Adam, params_of(), comm, state_dir=folder, bucket_bytes=64)
            opt.step(params_of(), max_norm=1.0)
            opt.step(params_of())
            if is_refused:
                with suppress(TypeError, Disagreement):
                    opt.step(5 if comm.rank == 0 else None)
            gone = [weakref.ref(opt), weakref.ref(inside.memories(opt)[0].values), weakref.ref(inside.exchange(opt))]
            del opt
            assert [ref() for ref in gone] == [None] * 3, is_refused
    finally:
        gc.enable()


@scene
def two_threads_of_a_rank(comm, folder):
    """One at a time: the second is refused at once, and the first does what it began."""
    opt = Sharded(fastadam.Adam, np.ones(5), comm, lr=lambda t: (entered.set(), go_on.wait(10), 0.1)[2])
    entered, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=opt.step, args=(np.ones(5),))
    thread.start()
    assert entered.wait(10)
    for call in (lambda: opt.step(np.ones(5)), opt.state_dict, lambda: opt.save(folder / "x")):
        try:
            call()
        except RuntimeError as error:
            assert "another thread" in str(error)  # noqa: PT017  there is no pytest among ranks
        else:
            raise AssertionError("two threads within one rank's acts")
    go_on.set()
    thread.join()
    assert opt.t == 1


# ---------------------------------------------------------------- checkpoints


def kinds_of_checkpoints() -> list[tuple[type, dict, Callable]]:
    narrow = {"master_weights": True, "state_dtype": "bfloat16", "amsgrad": True}
    return [
        (fastadam.Adam, {}, params_of),
        (fastadam.RMSprop, {"momentum": 0.9}, groups_of_one_dtype),
        (fastadam.AdamW, narrow, lambda: params_of(("float32", bfloat16, "float16"))),
        (fastadam.Adam, {"master_weights": True}, lambda: flat(params_of(("float64", "float16")))),
    ]


def groups_of_one_dtype() -> list[dict]:
    return [{"params": {"W": np.ones((5, 7))}, "lr": schedules.cosine(0.1, 9)}, {"params": [np.ones(3), np.ones(11)]}]


@scene
def checkpoints_for_other_numbers_of_ranks(comm, folder):
    """What any number of ranks wrote, any other reads, cut into other buckets."""
    numbers = range(1, comm.size + 1)
    parts = {n: comm.Split(0 if comm.rank < n else 1) for n in numbers}
    for place, (cls, options, make) in enumerate(kinds_of_checkpoints()):
        for n, m in itertools.product(numbers, numbers):
            if (n + m + place) % comm.size:  # each pair with some kinds
                continue
            path, params = folder / f"{place}-{n}-{m}", (n + place) % 2 == 0
            if comm.rank < n:
                writer = Twins(parts[n], make, cls, of_ranks={"bucket_bytes": 60 + n}, **options).steps(3)
                writer.sharded.lr = 0.125
                writer.sharded.save(path, params=params)
                whole, values = writer.sharded.state_dict(), arrays_in(writer.params)
                assert len(list(path.iterdir())) == n + 1
            comm.Barrier()
            if comm.rank < m:
                reader = Twins(parts[m], make, cls, of_ranks={"bucket_bytes": 100 + 7 * m}, **options).steps(1)
                reader.sharded.load(path)
                assert reader.sharded.t == 3
                assert reader.sharded.lr == 0.125
                if comm.rank < n:
                    same_states(reader.sharded.state_dict(), whole)
                else:
                    reader.sharded.state_dict()
                if params:
                    same_everywhere(parts[m], arrays_in(reader.params))
                    if comm.rank < n:
                        assert digest(arrays_in(reader.params)) == digest(values)
                reader.sharded.step(like(reader.params, draw(reader.params, 9, comm.rank, whole=True)))


def same_states(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"state", "param_groups"}:
        assert one[name] == other[name]
    for mine, theirs in zip(one["param_groups"], other["param_groups"], strict=True):
        assert repr(mine) == repr(theirs)
    for key, arrays in other["state"].items():
        for name, array in arrays.items():
            assert one["state"][key][name].dtype == array.dtype
            np.testing.assert_array_equal(one["state"][key][name], array)


@scene
def going_on_from_a_checkpoint(comm, folder):
    """The steps after it are those of a run that was never broken, schedules and random bits included."""

    def make():
        return params_of(("float32", "float16"))

    options = {"lr": schedules.cosine(0.1, 9), "state_dtype": "bfloat16", "master_weights": True, "seed": 3}
    through = Twins(comm, make, **options).steps(3)
    through.sharded.save(folder / "kept", params=True)
    through.steps(3)
    resumed = Sharded(fastadam.Adam, (params := make()), comm, bucket_bytes=48, **{**options, "lr": 0.5, "seed": 0})
    resumed.load(folder / "kept")
    for t in range(3, 6):
        resumed.step(like(params, draw(params, t, comm.rank, whole=True)))
    assert digest(params.values()) == digest(through.params.values())
    same_states(resumed.state_dict(), through.sharded.state_dict())


@scene
def dicts_of_the_plain_optimizer(comm, folder):
    def make():
        return params_of(("float32", bfloat16, "float64"))

    for maker, options in (
        (make, {"master_weights": True}),
        (groups, {}),
        (odd_arrays, {}),
        (lambda: params_of(("float16",)), {"state_dtype": "bfloat16"}),
    ):
        twins = Twins(comm, maker, **options).steps(3)
        other = Twins(comm, maker, of_ranks={"bucket_bytes": 70}, **options).steps(1)
        other.sharded.load_state_dict(twins.plain.state_dict())
        other.plain.load_state_dict(twins.sharded.state_dict())
        other.exact = twins.exact
        other.comm.Barrier()
        one, plain = other.sharded.state_dict(), other.plain.state_dict()
        if twins.exact:
            same_states(one, plain)
        assert other.sharded.t == other.plain.t == 3
        other.sharded.step(like(other.params, draw(other.params, 5, comm.rank, whole=True)))


@scene
def dicts_that_do_not_fit(comm, folder):
    opt = Sharded(fastadam.Adam, params_of(), comm)
    opt.step(params_of())
    guilty = comm.size - 1
    before = everything(opt)

    def change(**changes):
        return lambda whole: {**whole, **changes}

    def without_v(whole):
        return {**whole, "state": {**whole["state"], "W float32": {"m": whole["state"]["W float32"]["m"]}}}

    def of_another_shape(whole):
        return {**whole, "state": {key: dict.fromkeys(s, np.ones(2)) for key, s in whole["state"].items()}}

    for spoil, kind in (
        (lambda whole: None, TypeError),
        (lambda whole: {}, ValueError),
        (change(optimizer="RMSprop"), ValueError),
        (change(version=2), ValueError),
        (change(t=-1), ValueError),
        (change(seed="x"), TypeError),
        (change(param_groups=[]), ValueError),
        (change(param_groups=[{"params": ["x"]}]), ValueError),
        (change(state={}), ValueError),
        (change(state=None), ValueError),
        (of_another_shape, ValueError),
    ):
        whole = opt.state_dict()
        with refused(comm, f"rank {guilty} refused it", {guilty: (kind, "")}):
            opt.load_state_dict(spoil(whole) if comm.rank == guilty else whole)
        assert everything(opt) == before
    whole = opt.state_dict()
    caught = error_of(lambda: opt.load_state_dict(without_v(whole)))  # by the ranks that step some of it
    assert isinstance(caught, ValueError | Disagreement)
    assert everything(opt) == before
    if comm.size > 1:
        whole = opt.state_dict()
        with refused(comm, "disagree in t: 2 on rank 0; 3 on rank 1"):
            opt.load_state_dict({**whole, "t": 2 + comm.rank})
        assert everything(opt) == before
    opt.load_state_dict(opt.state_dict())
    opt.step(params_of())


@scene
def damaged_checkpoints(comm, folder):
    """Refused on every rank, or, where a byte means nothing, read as they were; never half of one."""
    make, path = params_of, folder / "kept"
    writer = Twins(comm, make, of_ranks={"bucket_bytes": 100}).steps(2).sharded
    writer.save(path, params=True)
    reader = Sharded(fastadam.Adam, make(), comm, bucket_bytes=64)
    before, whole = everything(reader), writer.state_dict()
    files = sorted(path.iterdir())
    rng = np.random.default_rng(5)

    def cut(data):
        return data[: rng.integers(len(data))]

    def flip(data):
        place = int(rng.integers(len(data)))
        return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]

    n_refused = 0
    for number, spoil in enumerate([lambda _: None, lambda _: b"", cut, *[flip] * 25]):
        for file in files if number < 12 else files[-1:]:  # the index, whose every byte means something
            good, bad = file.read_bytes(), spoil(file.read_bytes())
            comm.Barrier()
            if comm.rank == 0:
                file.unlink() if bad is None else file.write_bytes(bad)
            comm.Barrier()
            error = error_of(partial(reader.load, path))
            told = comm.allgather(type(error).__name__)
            if error is None:
                assert spoil is flip, number
                assert set(told) == {"NoneType"}
                same_states(reader.state_dict(), whole)
                reader = Sharded(fastadam.Adam, make(), comm, bucket_bytes=64)
            else:
                n_refused += 1
                assert isinstance(error, ValueError | OSError | Disagreement), repr(error)
                assert "NoneType" not in told
                assert set(told) != {"Disagreement"}
                assert everything(reader) == before
            comm.Barrier()
            if comm.rank == 0:
                file.write_bytes(good)
            comm.Barrier()
    assert n_refused > 6 * len(files) + 5
    reader.load(path)
    same_states(reader.state_dict(), whole)


@scene
def checkpoints_of_others(comm, folder):
    """Another optimizer's, other parameters', another form of file; an index of other files."""
    opt = Sharded(fastadam.Adam, {"W": np.ones((4, 5))}, comm)
    opt.step({"W": np.ones((4, 5))})
    before = everything(opt)
    opt.save(folder / "good", params=True)
    others = {
        "optimizer": Sharded(fastadam.RMSprop, {"W": np.ones((4, 5))}, comm),
        "rule": Sharded(fastadam.Adam, {"W": np.ones((4, 5))}, comm, amsgrad=True),
        "shape": Sharded(fastadam.Adam, {"W": np.ones((5, 4))}, comm),
        "key": Sharded(fastadam.Adam, {"V": np.ones((4, 5))}, comm),
        "dtype": Sharded(fastadam.Adam, {"W": np.ones((4, 5), np.float32)}, comm),
        "more": Sharded(fastadam.Adam, {"W": np.ones((4, 5)), "b": np.ones(3)}, comm),
        "groups": Sharded(fastadam.Adam, [{"params": {"W": np.ones((4, 5))}}, {"params": np.ones(2)}], comm),
    }
    for name, other in others.items():
        other.save(folder / name)
        refused_somehow(comm, lambda name=name: opt.load(folder / name), ValueError)
        assert everything(opt) == before, name
    refused_somehow(comm, lambda: opt.load(folder / "missing"), FileNotFoundError)
    if comm.rank == 0:
        fastadam.Adam(np.ones(3)).save(folder / "plain.npz")
    comm.Barrier()
    refused_somehow(comm, lambda: opt.load(folder / "plain.npz"), OSError)
    opt.step({"W": np.ones((4, 5))})
    opt.save(folder / "later", params=True)
    if comm.rank == 0:  # files of a later step, under the names of these
        for old, new in zip(*(sorted((folder / name).glob("*.npz")) for name in ("good", "later")), strict=True):
            shutil.copy(new, old)
    comm.Barrier()
    before = everything(opt)
    refused_somehow(comm, lambda: opt.load(folder / "good"), ValueError)
    assert everything(opt) == before
    opt.load(folder / "later")


@scene
def what_a_save_leaves(comm, folder):
    """The files of the last save, and those that are not ours: not older ones, nor what a crash left."""
    path = folder / "kept"
    opt = Sharded(fastadam.Adam, np.ones(50), comm)
    opt.save(path)
    if comm.rank == 0:
        (path / f"{'0' * 16}-0.npz").write_bytes(b"of a save that was killed")
        (path / f".fastadam-{'0' * 16}.tmp").write_bytes(b"and this")
        (path / "notes.txt").write_text("a user's own")
    for _ in range(2):
        opt.step(np.ones(50))
        opt.save(path)
        comm.Barrier()
    names = {file.name for file in path.iterdir()}
    assert len(names) == comm.size + 2
    assert {"checkpoint.json", "notes.txt"} < names
    assert f"{'0' * 16}-0.npz" not in names


@scene
def saves_that_fail(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(50), comm)
    opt.save(folder / "kept")
    opt.step(np.ones(50))
    (folder / "file").write_text("no folder")
    refused_somehow(comm, lambda: opt.save(folder / "file"), OSError)
    guilty = comm.size - 1
    for path in (3, ""):
        with refused(comm, f"rank {guilty} refused it: ", {guilty: ((TypeError, ValueError), "path")}):
            opt.save(path if comm.rank == guilty else folder / "kept")
    with refused(comm, f"rank {guilty} refused it: ", {guilty: (TypeError, "params")}):
        opt.save(folder / "kept", params=None if comm.rank == guilty else True)
    other = Sharded(fastadam.Adam, np.ones(50), comm)
    other.load(folder / "kept")
    assert other.t == 0
    opt.save(folder / "kept")
    other.load(folder / "kept")
    assert other.t == 1


@several
def checkpoints_that_ranks_disagree_in(comm, folder):
    opt, mine = Sharded(fastadam.Adam, np.ones(50), comm), folder / str(comm.rank % 2)
    for name in "01":
        opt.save(folder / name)
    before = everything(opt)
    with refused(comm, "disagree in path"):
        opt.save(mine)
    with refused(comm, "disagree in params"):
        opt.save(folder / "0", params=comm.rank == 0)
    with refused(comm, "disagree in files"):
        opt.load(mine)
    assert everything(opt) == before
    opt.load(folder / "1")


# ---------------------------------------------------------------- faults


def error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


@contextmanager
def refused(comm, text: str, own: dict | None = None) -> Iterator[None]:
    """What is refused on every rank: by a Disagreement, or where it is a rank's `own` fault by its error."""
    try:
        yield
    except Exception as error:
        kind, said = (own or {}).get(comm.rank, (Disagreement, text))
        assert isinstance(error, kind), repr(error)  # noqa: PT017
        assert said in str(error), str(error)  # noqa: PT017
        assert isinstance(error, Disagreement) == (comm.rank not in (own or {}))  # noqa: PT017
    else:
        raise AssertionError(f"was not refused on rank {comm.rank}")


def refused_somehow(comm, call: Callable[[], object], kind: type[Exception]) -> None:
    """On every rank, with the true reason on one at least."""
    error = error_of(call)
    assert isinstance(error, kind | Disagreement), repr(error)
    assert any(comm.allgather(isinstance(error, kind)))


@several
def makers_that_disagree(comm, folder):
    def make(**changes):
        given = {"optimizer": fastadam.Adam, "params": {"W": np.ones((4, 5)), "b": np.ones(5)}, **changes}
        return Sharded(given.pop("optimizer"), given.pop("params"), comm, **given)

    guilty = comm.size - 1
    W, b = np.ones((4, 5)), np.ones(5)
    differing = [
        ("shape and dtype of W", {"params": {"W": np.ones((5, 4)), "b": b}}),
        ("shape and dtype of W", {"params": {"W": np.ones((4, 5), np.float32), "b": b}}),
        ("shape and dtype of b", {"params": {"W": W, "c": b}}),
        ("keys of the parameters", {"params": {"b": b, "W": W}}),
        ("shape and dtype of b", {"params": {"W": W}}),
        ("keys of the parameters", {"params": {"W": W, "b": b, "c": b + 1}}),
        ("shape and dtype of", {"params": [W, b]}),
        ("shape and dtype of", {"params": [{"params": W}, {"params": b}]}),
        ("lr of group 0", {"lr": 0.5}),
        ("lr of group 0", {"lr": lambda t: 0.1}),
        ("betas of group 0", {"betas": (0.5, 0.9)}),
        ("amsgrad of group 0", {"amsgrad": True}),
        ("maximize of group 0", {"maximize": True}),
        ("seed", {"seed": 1}),
        ("state_dtype", {"state_dtype": "bfloat16", "params": {"W": W.astype("f4"), "b": b.astype("f4")}}),
        ("master_weights", {"master_weights": True}),
        ("bucket_bytes", {"bucket_bytes": 100}),
        ("optimizer", {"optimizer": fastadam.Adamax}),
        ("optimizer", {"optimizer": fastadam.RMSprop}),
    ]
    for name, changes in differing:
        base = {"params": {"W": W.astype("f4"), "b": b.astype("f4")}} if name == "state_dtype" else {}
        with refused(comm, f"disagree in {name}"):
            make(**(changes if comm.rank == guilty else base))
    with refused(comm, "disagree in comm_dtype"):
        make(params=W.astype("f4"), comm_dtype="bfloat16" if comm.rank == guilty else None)
    wrong = [
        (TypeError, "optimizer", {"optimizer": None}),
        (TypeError, "optimizer", {"optimizer": fastadam.Optimizer}),
        (TypeError, "lr", {"lr": "x"}),
        (ValueError, "lr", {"lr": -1}),
        (TypeError, "learning_rate", {"learning_rate": 1}),
        (TypeError, "params", {"params": None}),
        (ValueError, "params", {"params": []}),
        (TypeError, "params", {"params": {"W": W.astype(int), "b": b}}),
        (ValueError, "share memory", {"params": {"W": W, "b": W[0]}}),
        (ValueError, "comm_dtype", {"comm_dtype": "bfloat16"}),
        (ValueError, "comm_dtype", {"comm_dtype": "int8"}),
        (ValueError, "bucket_bytes", {"bucket_bytes": 0}),
        (ValueError, "grads", {"grads": None}),
        (ValueError, "backend", {"backend": "fortran"}),
        (ValueError, "state_dtype", {"state_dtype": "bfloat16"}),
        (TypeError, "state_dir", {"state_dir": 3}),
    ]
    for kind, said, changes in wrong:
        with refused(comm, f"rank {guilty} refused it: {kind.__name__}", {guilty: (kind, said)}):
            make(**(changes if comm.rank == guilty else {}))
    opt = make()
    opt.step({"W": W, "b": b})
    assert opt.t == 1


@several
def steps_that_disagree(comm, folder):
    guilty = comm.size - 1
    is_guilty = comm.rank == guilty
    twins = Twins(comm, params_of).steps(2)
    opt = twins.sharded
    good = like(twins.params, draw(twins.params, 99, comm.rank, whole=True))

    def bad(**changes):
        return {**good, **changes} if is_guilty else good

    def calls() -> Iterator[tuple[Callable[[], object], str, dict | None]]:
        for name, how in (
            ("factor", {"grad_scale": 2.0}),
            ("max_norm", {"max_norm": 1.0}),
            ("clip_value", {"clip_value": 1.0}),
            ("skip_nonfinite", {"skip_nonfinite": True}),
            ("zero_grads", {"zero_grads": True}),
        ):
            yield lambda how=how: opt.step(good, **(how if is_guilty else {})), f"disagree in {name}", None
        for call in (lambda: opt.save(folder / "no"), opt.state_dict):
            yield lambda call=call: call() if is_guilty else opt.step(good), "the ranks call different things", None
        yield (
            lambda: opt.load(folder / "no") if is_guilty else opt.step(good),
            f"rank {guilty} refused it",
            {guilty: (FileNotFoundError, "no")},
        )
        wrong = [
            (TypeError, "max_norm", lambda: opt.step(good, max_norm="x" if is_guilty else 1.0)),
            (ValueError, "grad_scale", lambda: opt.step(good, grad_scale=0.0 if is_guilty else 1.0)),
            (ValueError, "gradient of", lambda: opt.step(bad(**{"b float32": np.ones(6, np.float32)}))),
            (TypeError, "gradient of", lambda: opt.step(bad(**{"b float32": np.ones(7, int)}))),
            (TypeError, "gradient of", lambda: opt.step(bad(**{"b float32": None}))),
            (ValueError, "grads", lambda: opt.step(bad(more=np.ones(7)))),
            (TypeError, "grads", lambda: opt.step(5 if is_guilty else good)),
        ]
        for kind, said, call in wrong:
            yield call, f"rank {guilty} refused it: {kind.__name__}", {guilty: (kind, said)}

    before = everything(opt)
    for call, text, own in calls():
        with refused(comm, text, own):
            call()
        assert everything(opt) == before
    twins.steps(1).check()
    if is_guilty:
        opt.lr = 0.5
    before = everything(opt)
    for call in (lambda: opt.step(good), lambda: opt.save(folder / "no"), opt.state_dict):
        with refused(comm, f"disagree in lr of group 0: 0.001 on rank{'s' if guilty > 1 else ''} 0"):
            call()
    assert everything(opt) == before
    for both in (twins.sharded, twins.plain):
        both.lr = 0.25
    twins.steps(1).check()
    for both in (twins.sharded, twins.plain):
        both.lr = lambda t: 0.125
    if is_guilty:
        opt.lr = lambda t: -1.0
    before = (digest(twins.params.values()), opt.t)
    with refused(comm, f"rank {guilty} refused it: ValueError: lr(5)", {guilty: (ValueError, "lr(5)")}):
        opt.step(good)
    assert (digest(twins.params.values()), opt.t) == before
    opt.lr = lambda t: 0.125
    twins.steps(1).check()
    if is_guilty:
        inside.set_t(opt, opt.t + 1)
    with refused(comm, "disagree in t"):
        opt.step(good)


@several
def errors_name_no_step_that_was(comm, folder):
    """A rule of one's own whose scalars fail at some step: on all ranks, before anything is touched."""

    def scalars(t, lr):
        return (lr,) if t < 3 else (lr, lr)

    def update(p, g, lr):
        return (p - lr * g,)

    cls = fastadam.optimizer(update, scalars, (), lr=0.5)
    params = np.ones(9)
    opt = Sharded(cls, params, comm, backend="numpy")
    opt.step(np.ones(9))
    opt.step(np.ones(9))
    before = everything(opt)
    for how in ({}, {"max_norm": 1.0}):
        error = error_of(lambda how=how: opt.step(np.ones(9), **how))
        assert isinstance(error, ValueError), repr(error)
        assert everything(opt) == before


@scene
def interrupted_steps(comm, folder):
    """Each rank at moments of its own: a step is whole on all of them, or begun on none, and can be made again."""
    rng = np.random.default_rng(comm.rank)
    params = {"W": np.zeros(3000, np.float32), "b": np.zeros((30, 10))}
    opt = Sharded(fastadam.AdamW, params, comm, bucket_bytes=2000)
    twin_params = {key: p.copy() for key, p in params.items()}
    twin = fastadam.AdamW(twin_params)
    grads = {"W": np.ones(3000, np.float32), "b": np.full((30, 10), -2.0)}

    def handler(*_):
        raise KeyboardInterrupt

    before, interrupted = signal.signal(signal.SIGALRM, handler), 0
    try:
        for t in range(1, 61):
            while opt.t < t:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-3))
                    opt.step(grads)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        raise AssertionError("a timer that was stopped") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for _ in range(60):
        twin.step(grads)
    for p, expected in zip(params.values(), twin_params.values(), strict=True):
        np.testing.assert_allclose(p, expected, rtol=0 if comm.size in (1, 2, 4) else 1e-5)
    assert comm.allreduce(interrupted) > 5


# ---------------------------------------------------------------- a network


class Network:
    """64 → 32 → 10 on digits: parameters, and gradients of the mean cross-entropy of a batch."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.params = flat(
            {
                "W1": rng.normal(scale=0.2, size=(64, 32)),
                "b1": np.zeros(32),
                "W2": rng.normal(scale=0.2, size=(32, 10)),
                "b2": np.zeros(10),
            }
        )

    def forward(self, x):
        p = self.params
        hidden = np.maximum(x @ p["W1"] + p["b1"], 0)
        scores = hidden @ p["W2"] + p["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def backward(self, x, labels, grads) -> float:
        hidden, log_p = self.forward(x)
        error = (np.exp(log_p) - np.eye(10)[labels]) / len(x)
        back = error @ self.params["W2"].T * (hidden > 0)
        grads["W1"][...], grads["b1"][...] = x.T @ back, back.sum(axis=0)
        grads["W2"][...], grads["b2"][...] = hidden.T @ error, error.sum(axis=0)
        return float(-log_p[np.arange(len(x)), labels].mean())

    def accuracy(self, x, labels) -> float:
        return float((self.forward(x)[1].argmax(axis=1) == labels).mean())


@scene
def digits(comm, folder):
    """A network learns from parts of each batch as it does from whole ones."""
    with np.load(folder.parent / "digits.npz") as data:
        x, labels = data["x"] / 16, data["labels"]
    train, test = slice(0, 1400), slice(1400, None)
    alone, shared = Network(), Network()
    options = {"lr": schedules.cosine(0.03, 160), "weight_decay": 1e-4}
    grads = {key: np.zeros_like(p) for key, p in alone.params.items()}
    plain = fastadam.AdamW(alone.params, grads=grads, **options)
    opt = Sharded(fastadam.AdamW, shared.params, comm, bucket_bytes=4000, **options)
    rng, curves = np.random.default_rng(1), ([], [])
    for _ in range(160):
        batch = rng.permutation(train.stop)[:60]
        mine = np.array_split(batch, comm.size)[comm.rank]
        curves[0].append(alone.backward(x[batch], labels[batch], grads))
        plain.step(max_norm=1.0)
        loss = shared.backward(x[mine], labels[mine], opt.grads)
        opt.step(max_norm=1.0)
        curves[1].append(loss)
    shared_curve = comm.allreduce(np.array(curves[1])) / comm.size
    np.testing.assert_allclose(shared_curve, curves[0], rtol=1e-7, atol=1e-9)
    assert np.mean(curves[0][-10:]) < 0.1 * curves[0][0]
    assert shared.accuracy(x[test], labels[test]) == alone.accuracy(x[test], labels[test]) > 0.9


# ---------------------------------------------------------------- what ends the job


@ending
def uncaught_beside_a_message(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    opt.step(np.ones(9))
    if comm.rank == 1:
        raise ZeroDivisionError("a bug in the data of rank 1")
    comm.allreduce(1)


@ending
def uncaught_beside_a_step(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    opt.save(folder / "kept")
    if comm.rank == 1:
        raise ZeroDivisionError("a bug in the data of rank 1")
    opt.step(np.ones(9))


@ending
def uncaught_before_the_optimizer(comm, folder):
    if comm.rank == 1:
        raise ZeroDivisionError("a bug in the data of rank 1")
    Sharded(fastadam.Adam, np.ones(9), comm)


@ending
def uncaught_on_all(comm, folder):
    """Each says it itself; nobody is to be ended for it."""
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    opt.step(np.ones(8 if comm.rank == 1 else 9))


@ending
def uncaught_on_one_that_others_caught(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    try:
        opt.step(np.ones(8 if comm.rank == 1 else 9))
    except Disagreement:
        opt.step(np.ones(9))


@ending
def killed(comm, folder):
    opt = Sharded(fastadam.Adam, (params := np.ones(9)), comm)
    for t in itertools.count(1):
        if t > 3 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        opt.step(np.ones(9))
        if t <= 3:
            opt.save(folder / "kept", params=True)
            if comm.rank == 1:  # the others are ended at any moment
                np.save(folder / f"{t}.npy", params)


@ending
def resumed_after_a_kill(comm, folder):
    opt = Sharded(fastadam.Adam, (params := np.zeros(9)), comm)
    opt.load(folder.parent / "killed/kept")
    assert opt.t == 3
    np.testing.assert_array_equal(params, np.load(folder.parent / "killed/3.npy"))
    opt.step(np.ones(9))


@ending
def left_by_sys_exit(comm, folder):
    left(comm, folder, lambda: sys.exit(0))


@ending
def left_by_finalize(comm, folder):
    left(comm, folder, MPI.Finalize)


def left(comm, folder, leave):
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    opt.step(np.ones(9))
    if comm.rank == 1:
        return leave()
    before = everything(opt)
    for call in (lambda: opt.step(np.ones(9)), lambda: opt.save(folder / "kept"), opt.state_dict):
        with refused(comm, "rank 1 left the job, ranks 0, 2 did not; go on from the last checkpoint"):
            call()
    assert everything(opt) == before
    tell(folder.parent, folder.name, f"rank {comm.rank} was told")
    while len((folder.parent / "results.jsonl").read_text().splitlines()) < comm.size - 1:
        time.sleep(0.01)  # the first that exits like this ends the job
    os._exit(0)


@ending
def one_step_more_on_one_rank(comm, folder):
    opt = Sharded(fastadam.Adam, np.ones(9), comm)
    for _ in range(3 + (comm.rank == 0)):
        opt.step(np.ones(9))


@ending
def saves_until_killed(comm, folder):
    """A checkpoint that is written all the time, its parameters known at each step; a rank is killed in the middle."""
    delay, guilty = float(os.environ["KILL_AFTER"]), comm.size - 1
    params = {"W": np.zeros(40_000), "b": np.zeros(7, np.float32)}
    opt = Sharded(fastadam.Adagrad, params, comm, bucket_bytes=50_000)
    if (folder / "kept").exists():
        opt.load(folder / "kept")
        plain_params = {key: np.zeros_like(p) for key, p in params.items()}
        plain = fastadam.Adagrad(plain_params)
        for _ in range(opt.t):
            plain.step({key: np.ones_like(p) for key, p in params.items()})
        for key, p in params.items():
            np.testing.assert_allclose(p, plain_params[key], rtol=1e-5)
        for key, arrays in opt.state_dict()["state"].items():
            np.testing.assert_array_equal(arrays["v"], np.full(params[key].shape, opt.t))
    if delay and comm.rank == guilty:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        opt.step({key: np.ones_like(p) for key, p in params.items()})
        opt.save(folder / "kept", params=True)
        if not delay:
            break
    comm.Barrier()
    assert len(list((folder / "kept").iterdir())) == comm.size + 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or [name for name in SCENES if name not in ENDINGS]))
