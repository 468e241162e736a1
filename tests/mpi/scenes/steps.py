"""The same result as in one process: arguments of a step, values that are not finite, norms, bits, and random cases."""

import itertools
import math
import os

import inside
import numpy as np
from cases import CASES
from ml_dtypes import bfloat16

import fastadam
from fastadam.mpi import Sharded, flat

from .stage import Twins, arrays_in, average, digest, draw, everything, like, params_of, same_everywhere, scene


@scene
def arguments_of_a_step(comm, folder):
    some = {
        "max_norm": (None, 0.1, math.inf),
        "clip_value": (None, 0.5),
        "grad_scale": (1.0, 3.0),
        "skip_nonfinite": (False, True),
        "zero_grads": (False, True),
        "max_norm_each": (None, 0.1),
    }
    combined = [dict(zip(some, values, strict=True)) for values in itertools.product(*some.values())]
    combined = [how for how in combined if None in (how["max_norm"], how["max_norm_each"])]
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
        for name in ("max_norm_each", "max_norm"):  # as in one process, where nobody asked to skip it
            twins.step(change=spoil, **{name: 1.0})
            with np.errstate(invalid="ignore"):
                twins.exact &= name == "max_norm_each"
                twins.check()
            spoiled = [np.isnan(p).any() for p in arrays_in(twins.params) if p.size]
            assert spoiled == [True, *[name == "max_norm" and np.isnan(value)] * (len(spoiled) - 1)]


@scene
def norms_beyond_the_numbers(comm, folder):
    """Of float64, squares overflow and vanish before the numbers do: also in the sum over the ranks, and where the
    parts of an array are of many sizes."""
    scales = (2.0**511, 2.0**600, 2.0**1000, 2.0**-540, 2.0**-600, 2.0**-1060)
    for scale, part, name in itertools.product(scales, (1, 3), ("max_norm", "max_norm_each")):

        def grow(rank, grads, scale=scale, part=part):
            for g in grads:
                g.reshape(-1)[: -(-g.size // part)] *= scale

        twins = Twins(comm, lambda: params_of(("float64",)), fastadam.Adagrad, of_ranks={"bucket_bytes": 64})
        twins.steps(2, change=grow, skip_nonfinite=True, **{name: 1.0}).check()
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


def random_params(rng, state_dtypes) -> list[dict]:
    """One to four groups of a few arrays, of any dtype, shape and layout, some with options of their own."""
    dtypes = (np.float16, bfloat16, np.float32, np.float64)[: rng.integers(1, 5)]

    def array():
        shape = tuple(rng.choice((0, 1, 2, 3, 5, 17), rng.integers(0, 4), p=(0.04, 0.16, 0.2, 0.2, 0.2, 0.2)))
        p = rng.standard_normal(shape).astype(dtypes[rng.integers(len(dtypes))])
        return np.repeat(p, 2, axis=0)[::2] if rng.random() < 0.2 and shape else p

    groups = []
    for _ in range(rng.integers(1, 5)):
        options = {"maximize": True} if rng.random() < 0.3 else {}
        arrays = [array() for _ in range(rng.integers(1, 5))]
        if rng.random() < 0.5 and not any(p.dtype == np.float64 for p in arrays):
            options |= {"state_dtype": rng.choice(state_dtypes), "min_8bit_size": int(rng.choice((0, 100)))}
        groups.append({"params": arrays, **options})
    return groups


@scene
def worlds_by_chance(comm, folder):
    """More of them: FASTADAM_TEST_TRIALS=1000."""
    for trial in range(int(os.environ.get("FASTADAM_TEST_TRIALS", "4"))):
        rng = np.random.default_rng([trial, 77])
        cls, options = [*CASES.values()][rng.integers(len(CASES))]
        is_flat = rng.random() < 0.5
        # where sums are rounded otherwise, another 8-bit code is a quarter more
        state_dtypes = (None, "bfloat16") if comm.size == 3 else (None, "bfloat16", "int8")

        def make(trial=trial, is_flat=is_flat, state_dtypes=state_dtypes):
            made = random_params(np.random.default_rng(trial), state_dtypes)
            return flat(made) if is_flat else made

        has_double = any(p.dtype == np.float64 for p in arrays_in(make()))
        if not has_double and rng.random() < 0.5:
            options = {**options, "state_dtype": rng.choice(state_dtypes), "seed": int(rng.integers(9))}
        options = {**options, "master_weights": bool(rng.random() < 0.5)}
        how = {
            "grad_scale": 2.0 ** int(rng.integers(-3, 4)),
            **[{}, {"max_norm": 0.5}, {"max_norm_each": 0.5}][rng.integers(3)],
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
