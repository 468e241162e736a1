"""Averages with weights: ranks whose batches have unequal numbers of rows, or none."""

import itertools
import math

import inside
import numpy as np
from ml_dtypes import bfloat16

import fastadam
from fastadam.mpi import Sharded

from .stage import Twins, average, digest, draw, everything, like, params_of, refused, same_everywhere, scene

#: of so many ranks: their sum and their number are powers of two, so that averages of whole numbers are exact
EXACT = {1: [4], 2: [1, 3], 4: [1, 2, 0, 5]}


@scene
def weighted_averages(comm, folder):
    """With all that a step can do to its gradients, which are what they were afterwards."""
    some = {
        "max_norm": (None, 0.5),
        "grad_scale": (1.0, 8.0),
        "skip_nonfinite": (False, True),
        "zero_grads": (False, True),
        "given": (False, True),
    }
    exact, rounded = EXACT.get(comm.size), [0.3, 0, 1e-3, 2.0][: comm.size]
    for weights, bucket_bytes in itertools.product([rounded, *([exact] if exact else [])], (100, 1 << 24)):
        twins = Twins(comm, lambda: params_of(("float32", "float64")), of_ranks={"bucket_bytes": bucket_bytes})
        twins.exact = weights == exact
        for values in itertools.product(*some.values()):
            how = dict(zip(some, values, strict=True))
            for view in inside.grad_views(twins.sharded):
                view[...] = 0
            twins.step(weights=weights, **how)
            mine = draw(twins.params, twins.tries - 1, comm.rank, whole=True)
            is_there = not how["zero_grads"] and (weights[comm.rank] or not how["given"])
            for view, g in zip(inside.grad_views(twins.sharded), mine, strict=True):
                np.testing.assert_array_equal(view, g if is_there else 0)
        twins.check()


@scene
def weighted_averages_in_16_bits(comm, folder):
    """Multiplied, then rounded once to bfloat16."""
    params, plain_params = params_of(), params_of()
    opt = Sharded(fastadam.Adam, params, comm, comm_dtype="bfloat16", bucket_bytes=64)
    plain = fastadam.Adam(plain_params)
    weights = [3, 10, 0, 4][: comm.size]
    shares = np.array(weights, np.float32) / np.float32(np.mean(weights))
    for t in range(3):
        drawn = [draw(params, t, rank, whole=False) for rank in range(comm.size)]
        opt.step(like(params, drawn[comm.rank]), weight=weights[comm.rank])
        if comm.size > 1:
            drawn = [
                [np.asarray(share * g).astype(bfloat16).astype(np.float32) for g in grads]
                for share, grads in zip(shares, drawn, strict=True)
            ]
        plain.step(like(params, average(drawn)))
    for p, expected in zip(params.values(), plain_params.values(), strict=True):
        np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-7)
    same_everywhere(comm, params.values())


@scene
def equal_weights(comm, folder):
    """Have the bits of the plain average, whatever they are."""
    found = set()
    for weight in (None, 1, 3, 0.1, np.float32(0.1), np.int64(1000), 1e-300, 2.0**126):
        params = params_of(("float32", "float64"))
        opt = Sharded(fastadam.Adam, params, comm, bucket_bytes=100)
        for t in range(2):
            grads = like(params, draw(params, t, comm.rank, whole=False))
            opt.step(grads, max_norm=0.3, **({} if weight is None else {"weight": weight}))
        found.add(everything(opt))
    assert len(found) == 1


@scene
def ranks_without_a_batch(comm, folder):
    """What they hold is not looked at; all others have what they would have among themselves."""
    working = comm.size - 1
    weights = [int(rank == working) for rank in range(comm.size)]
    for garbage, comm_dtype in itertools.product(("left", "given", "wrong", "replaced"), (None, "bfloat16")):
        twins = Twins(comm, params_of, of_ranks={"comm_dtype": comm_dtype})
        twins.exact &= comm_dtype is None
        opt = twins.sharded
        for view in inside.grad_views(opt):
            view[...] = math.nan

        def step(t, garbage=garbage, opt=opt, twins=twins, **how):
            grads = like(twins.params, draw(twins.params, t, working, whole=True))
            twins.plain.step({key: g.copy() for key, g in grads.items()}, **how)
            if comm.rank == working:
                opt.step(grads, weight=5, **how)
                return
            if garbage == "replaced":
                opt.grads["b float32"] = None
            given = {"given": {key: p * math.inf for key, p in twins.params.items()}, "wrong": 5}.get(garbage)
            opt.step(given, weight=0, **how)

        with np.errstate(invalid="ignore"):
            step(0)
            step(1, max_norm=0.5, skip_nonfinite=True)
            twins.check()
            if comm.rank != working:
                assert all(np.isnan(view).all() for view in inside.grad_views(opt))
            step(2, zero_grads=True)
        twins.check()
        assert all(not view.any() for view in inside.grad_views(opt))
        assert (opt.t, opt.skipped) == (3, 0)
    twins = Twins(comm, params_of)

    def spoil(rank, grads):
        grads[0].flat[3] = math.nan

    twins.step(weights=weights, change=spoil, skip_nonfinite=True)  # a NaN of one that has weight is seen
    assert (twins.check().sharded.t, twins.sharded.skipped) == (0, 1)


@scene
def weights_that_are_refused(comm, folder):
    guilty = comm.size - 1
    twins = Twins(comm, params_of).steps(1)
    opt = twins.sharded
    good = like(twins.params, draw(twins.params, 99, comm.rank, whole=True))
    before = everything(opt), digest(inside.grad_views(opt))
    for grads in (None, good):
        with refused(comm, "", dict.fromkeys(range(comm.size), (ValueError, "weight: is 0 on every rank"))):
            opt.step(grads, weight=0, zero_grads=True)
        assert (everything(opt), digest(inside.grad_views(opt))) == before
    for weight in (-1, -1e-300, math.nan, math.inf, 2.0**127, 10**400, True, "3", None, [1.0]):
        kind = ValueError if isinstance(weight, (int, float)) and weight is not True else TypeError
        said = "weight: expected a number from 0 to 2**126"
        with refused(comm, f"rank {guilty} refused it: {kind.__name__}: {said}", {guilty: (kind, said)}):
            opt.step(good, weight=weight if comm.rank == guilty else 1)
        assert (everything(opt), digest(inside.grad_views(opt))) == before
    twins.steps(1).check()
