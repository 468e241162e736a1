"""Both ways to step (each rank its share, or each rank everything): the same results, and the choice of the way."""

import itertools
import sys
import warnings

import inside
import numpy as np

import fastadam
from fastadam.mpi import Sharded

from .stage import (
    arrays_in,
    digest,
    draw,
    error_of,
    everything,
    groups,
    like,
    n_files,
    params_of,
    params_of_blocks,
    refused,
    same_everywhere,
    same_states,
    scene,
    several,
)

DIVIDED, REPLICATED = {"replicate_below": 0}, {"replicate_below": sys.maxsize}


def run(comm, make, whole: bool, steps=3, how=None, **options):
    """An optimizer after some steps, and its parameters."""
    params = make()
    opt = Sharded(fastadam.Adam, params, comm, **options)
    for t in range(steps):
        opt.step(like(params, draw(params, t, comm.rank, whole)), **(how or {}))
    return opt, params


@scene
def both_ways_have_the_same_bits(comm, folder):
    """Where the order of the sum makes no difference: exact sums, two ranks, or what travels in 16 bits."""
    kinds = [
        (lambda: params_of(("float32", "float16", "float64")), {}, {"max_norm_each": 0.5}),
        (lambda: params_of(("float32", "float16")), {"comm_dtype": "bfloat16", "master_weights": True}, {}),
        (groups, {}, {"clip_value": 0.5, "zero_grads": True}),
        (params_of_blocks, {"state_dtype": "int8", "min_8bit_size": 0}, {"max_norm": 0.5}),
    ]
    for (make, options, how), whole in itertools.product(kinds, (True, False)):
        if not (whole or comm.size <= 2 or "comm_dtype" in options):
            continue
        found = []
        for way in (DIVIDED | {"bucket_bytes": 3000}, REPLICATED):
            opt, params = run(comm, make, whole, how=how, **options, **way)
            found.append((digest(arrays_in(params)), opt.grad_norm, opt.state_dict()))
        assert found[0][:2] == found[1][:2]
        same_states(found[0][2], found[1][2])


@scene
def every_rank_has_the_same_bits(comm, folder):
    """Parameters and states, whatever is summed: they would else drift apart."""
    for options in ({}, {"state_dtype": "bfloat16"}, {"comm_dtype": "bfloat16"}):
        opt, params = run(comm, params_of, False, 20, {"max_norm": 0.3}, **options, **REPLICATED)
        same_everywhere(comm, [*params.values(), *inside.state_arrays(opt)])


@scene
def sums_in_the_order_of_the_ranks(comm, folder):
    """Rounded at each rank's, to the bit; and without a warning where they overflow."""
    for dtype in ("float32", "float64"):
        p = np.zeros(50, dtype)
        opt = Sharded(fastadam.SGD, p, comm, lr=1.0, **REPLICATED)
        each = [np.random.default_rng(rank).standard_normal(50).astype(dtype) * 10.0**rank for rank in range(comm.size)]
        opt.step(each[comm.rank].astype(dtype))
        total = each[0].astype(dtype)
        for g in each[1:]:
            total = total + g.astype(dtype)
        np.testing.assert_array_equal(p, -(total * np.dtype(dtype).type(1 / comm.size)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opt.step(np.full(50, np.finfo(dtype).max, dtype))
        assert np.isinf(p).all() == (comm.size > 1)


@scene
def which_way_is_taken(comm, folder):
    """By default below so many bytes over the square of the number of ranks, of all parameters; else as is said."""
    before = inside.replicate_below(800 * comm.size**2)
    try:
        for sizes, options, n in (
            ([199], {}, 1),
            ([200], {}, comm.size),
            ([100, 100], {}, comm.size),
            ([200], {"replicate_below": 801}, 1),
            ([199], {"replicate_below": 796}, comm.size),
            ([1], DIVIDED, comm.size),
            ([10_000], REPLICATED, 1),
        ):
            opt = Sharded(fastadam.Adam, [np.ones(size, np.float32) for size in sizes], comm, **options)
            assert n_files(opt) == n
    finally:
        inside.replicate_below(before)


@scene
def one_exchange_of_gradients(comm, folder):
    """Is all that is sent beside the agreement, whatever a step asks for: no norm, no parameters."""
    for how in ({}, {"max_norm": 1.0}, {"max_norm_each": 1.0, "skip_nonfinite": True}):
        opt = Sharded(fastadam.Adam, np.ones(500), comm, **REPLICATED)
        heard: list[tuple[str, int]] = []
        inside.listen(opt, lambda name, n_bytes, heard=heard: heard.append((name, n_bytes)))
        opt.step(np.ones(500), **how)
        exchange = {1: [], 2: [("Irecv", 4000), ("Isend", 4000)]}.get(comm.size, [("Iallgather", 4000 * comm.size)])
        assert [message for message in heard if message[1] > 200] == exchange
        assert len(heard) == len(exchange) + (comm.size > 1)


@scene
def checkpoints_of_the_other_way(comm, folder):
    """Each reads the other's, and goes on with the same bits."""
    for state_dtype, (one, other) in itertools.product((None, "int8"), itertools.permutations((DIVIDED, REPLICATED))):
        stored = {"state_dtype": state_dtype, "min_8bit_size": 0}
        path = folder / f"{state_dtype}-{one['replicate_below']}"
        writer, params = run(comm, params_of_blocks, True, bucket_bytes=3000, **one, **stored)
        writer.save(path, params=True)
        assert len(list(path.glob("*.npz"))) == n_files(writer) == (comm.size if one is DIVIDED else 1)
        reader, read = run(comm, params_of_blocks, True, 1, bucket_bytes=5000, **other, **stored)
        reader.load(path)
        same_states(reader.state_dict(), writer.state_dict())
        for opt, own in ((writer, params), (reader, read)):
            opt.step(like(own, draw(own, 9, comm.rank, whole=True)))
        assert digest(params.values()) == digest(read.values())
        again, _ = run(comm, params_of_blocks, True, 1, **one, **stored)
        again.load_state_dict(reader.state_dict())
        same_states(again.state_dict(), writer.state_dict())


@scene
def wrong_ways(comm, folder):
    for value, kind in ((-1, ValueError), (1.5, TypeError), ("all", TypeError), (True, TypeError)):
        with refused(comm, "", dict.fromkeys(range(comm.size), (kind, "replicate_below: expected"))):
            Sharded(fastadam.Adam, np.ones(9), comm, replicate_below=value)


@several
def ranks_of_two_ways(comm, folder):
    """Are refused, with nothing changed, also where the same way would be taken."""
    opt, _ = run(comm, params_of, True, **REPLICATED)
    before = everything(opt)
    for values in ((0, sys.maxsize), (sys.maxsize - 1, sys.maxsize)):
        with refused(comm, "disagree in replicate_below"):
            Sharded(fastadam.Adam, np.ones(9), comm, replicate_below=values[comm.rank == 0])
    assert everything(opt) == before


@several
def folders_of_the_other_way(comm, folder):
    """Are refused with the way out, and opened again as they were made."""
    for k, (one, other) in enumerate(itertools.permutations((DIVIDED, REPLICATED))):
        opt, _ = run(comm, params_of, True, state_dir=folder / str(k), **one)
        before = opt.state_dict()
        opt.close()
        error = error_of(lambda k=k, other=other: made_in(comm, folder / str(k), other))
        assert "another replicate_below or bucket_bytes is opened with these" in str(error)
        again = made_in(comm, folder / str(k), one)
        same_states(again.state_dict(), before)


def made_in(comm, folder, way):
    return Sharded(fastadam.Adam, params_of(), comm, state_dir=folder, **way)


@several
def dicts_of_other_states(comm, folder):
    """Where every rank takes all of them, they must be the same on all ranks, which else would drift apart."""
    opt, _ = run(comm, params_of, True, **REPLICATED)
    told, before = opt.state_dict(), everything(opt)
    told["state"]["W float32"]["m"][0, 0] += comm.rank == comm.size - 1
    with refused(comm, "disagree in checksum of the states"):
        opt.load_state_dict(told)
    assert everything(opt) == before
    opt.load_state_dict(opt.state_dict())
