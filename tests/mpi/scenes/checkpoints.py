"""Checkpoints: a checkpoint of any number of ranks is loaded by any other number; dicts of the plain optimizer."""

import itertools
from collections.abc import Callable

import inside
import numpy as np
from ml_dtypes import bfloat16

import fastadam
from fastadam import schedules
from fastadam.mpi import Disagreement, Sharded, flat

from .stage import (
    Twins,
    arrays_in,
    digest,
    draw,
    error_of,
    everything,
    groups,
    like,
    n_files,
    odd_arrays,
    params_of,
    params_of_blocks,
    refused,
    refused_somehow,
    same_everywhere,
    same_states,
    scene,
)


def kinds_of_checkpoints() -> list[tuple[type, dict, Callable, int]]:
    """Optimizers, options, parameters; and how many times larger buckets are."""
    blocks = {"master_weights": True, "state_dtype": "int8", "min_8bit_size": 100}
    narrow = {"master_weights": True, "state_dtype": "bfloat16", "amsgrad": True}
    return [
        (fastadam.Adam, {}, params_of, 1),
        (fastadam.RMSprop, {"momentum": 0.9}, groups_of_one_dtype, 1),
        (fastadam.AdamW, narrow, lambda: params_of(("float32", bfloat16, "float16")), 1),
        (fastadam.Adam, {"master_weights": True}, lambda: flat(params_of(("float64", "float16"))), 1),
        (fastadam.Adam, blocks, lambda: params_of_blocks(("float32", bfloat16)), 50),
    ]


def groups_of_one_dtype() -> list[dict]:
    return [{"params": {"W": np.ones((5, 7))}, "lr": schedules.cosine(0.1, 9)}, {"params": [np.ones(3), np.ones(11)]}]


@scene
def checkpoints_for_other_numbers_of_ranks(comm, folder):
    """What any number of ranks wrote, any other reads, cut into other buckets."""
    numbers = range(1, comm.size + 1)
    parts = {n: comm.Split(0 if comm.rank < n else 1) for n in numbers}
    for place, (cls, options, make, times) in enumerate(kinds_of_checkpoints()):
        for n, m in itertools.product(numbers, numbers):
            if (n + m + place) % comm.size:  # each pair with some kinds
                continue
            path, params = folder / f"{place}-{n}-{m}", (n + place) % 2 == 0
            if comm.rank < n:
                writer = Twins(parts[n], make, cls, of_ranks={"bucket_bytes": times * (60 + n)}, **options).steps(3)
                writer.sharded.lr = 0.125
                writer.sharded.save(path, params=params)
                whole, values = writer.sharded.state_dict(), arrays_in(writer.params)
                assert len(list(path.iterdir())) == n_files(writer.sharded) + 1
            comm.Barrier()
            if comm.rank < m:
                reader = Twins(parts[m], make, cls, of_ranks={"bucket_bytes": times * (100 + 7 * m)}, **options).steps(
                    1
                )
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


@scene
def going_on_from_a_checkpoint(comm, folder):
    """The steps after it are those of a run that was never broken, schedules and random bits included."""
    for state_dtype, times, bucket_bytes in (("bfloat16", 1, 48), ("int8", 40, 3000)):
        _going_on(comm, folder / state_dtype, times, bucket_bytes, {"state_dtype": state_dtype, "min_8bit_size": 0})


def _going_on(comm, path, times, bucket_bytes, states):
    def make():
        return params_of(("float32", "float16"), times=times)

    options = {"lr": schedules.cosine(0.1, 9), "master_weights": True, "seed": 3, **states}
    through = Twins(comm, make, **options).steps(3)
    through.sharded.save(path, params=True)
    through.steps(3)
    own = {**options, "lr": 0.5, "seed": 0}
    resumed = Sharded(fastadam.Adam, (params := make()), comm, bucket_bytes=bucket_bytes, **own)
    resumed.load(path)
    for t in range(3, 6):
        resumed.step(like(params, draw(params, t, comm.rank, whole=True)))
    assert digest(params.values()) == digest(through.params.values())
    same_states(resumed.state_dict(), through.sharded.state_dict())


@scene
def a_rate_that_follows_the_loss(comm, folder):
    """Each rank reports the same losses: the rates are the plain optimizer's, through a checkpoint and a dict too."""

    def rate():
        return schedules.plateau(0.1, factor=0.5, patience=1)

    def report(twins, losses):
        for loss in losses:
            twins.sharded.lr.report(loss)
            twins.plain.lr.report(loss)

    twins = Twins(comm, params_of, lr=rate()).steps(2)
    twins.plain.lr = rate()  # the same object would hear each loss twice
    report(twins, [2.0, 1.0, 1.0])
    twins.sharded.save(folder / "following")
    for again in (Sharded(fastadam.Adam, params_of(), comm, **own) for own in ({"lr": rate()}, {})):
        again.load(folder / "following", params=False)
        assert again.lr == twins.sharded.lr
        again.lr.report(1.0)
        assert again.lr(3) == 0.05
    report(twins, [1.0])
    assert twins.steps(1).sharded.lr(4) == 0.05
    twins.check()
    again.load_state_dict(twins.plain.state_dict())
    assert again.lr == twins.plain.lr
    if comm.rank:
        report(twins, [2.0, 2.0, 2.0])
    if comm.size > 1:
        with refused(comm, "step: the ranks disagree in lr of group 0"):
            twins.sharded.step(like(twins.params, draw(twins.params, 0, comm.rank, whole=True)))


@scene
def dicts_of_the_plain_optimizer(comm, folder):
    def make():
        return params_of(("float32", bfloat16, "float64"))

    for maker, options in (
        (make, {"master_weights": True}),
        (groups, {}),
        (odd_arrays, {}),
        (lambda: params_of(("float16",)), {"state_dtype": "bfloat16"}),
        (params_of_blocks, {"state_dtype": "int8", "min_8bit_size": 0}),
        (params_of_blocks, {"state_dtype": "int8"}),
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
def states_stored_otherwise(comm, folder):
    """Between 32, 16 and 8 bits, from a folder and a dict, where `convert` says so: as the plain optimizer does."""
    for one, other in itertools.permutations((None, "bfloat16", "int8"), 2):
        path = folder / f"{one}-{other}"
        writer = Twins(comm, params_of_blocks, of_ranks={"bucket_bytes": 3000}, **stored_in(one)).steps(3).sharded
        writer.save(path, params=True)
        whole = writer.state_dict()
        plain = fastadam.Adam(params_of_blocks(), **stored_in(other))
        plain.load_state_dict(whole, convert=True)
        for source in (path, whole):
            params = params_of_blocks()
            reader = Sharded(fastadam.Adam, params, comm, bucket_bytes=5000, **stored_in(other))
            load = reader.load_state_dict if source is whole else reader.load
            before = everything(reader)
            refused_somehow(comm, lambda load=load, source=source: load(source), ValueError)
            assert everything(reader) == before
            load(source, convert=True)
            same_states(reader.state_dict(), plain.state_dict())
            reader.step(like(params, draw(params, 9, comm.rank, whole=True)))


def stored_in(state_dtype) -> dict:
    return {"state_dtype": state_dtype, "min_8bit_size": 0}


@scene
def blocks_in_another_order(comm, folder):
    """Those of ranks are in C order, those of a plain optimizer in that of memory: refused, or rounded again."""

    def make():
        return {"F": np.asfortranarray(np.arange(1200, dtype=np.float32).reshape(30, 40))}

    twins, reader = Twins(comm, make, **stored_in("int8")).steps(2), fastadam.Adam(make())

    def numbers(state):
        reader.load_state_dict(state, convert=True)
        return [reader.state[name][0].copy() for name in ("m", "v")]

    ranks, plain = twins.sharded.state_dict(), twins.plain.state_dict()
    for opt, state in ((twins.sharded, plain), (twins.plain, ranks)):
        error = error_of(lambda opt=opt, state=state: opt.load_state_dict(state))
        assert "memory order" in str(error), error
        opt.load_state_dict(state, convert=True)
        for found, expected in zip(numbers(opt.state_dict()), numbers(state), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2**-3)
    twins.sharded.load_state_dict(ranks)
    same_states(twins.sharded.state_dict(), ranks)


@scene
def parameters_that_joined_later(comm, folder):
    """Each parameter goes on from its own count of steps: from the plain optimizer's dict, and from files."""
    rng = np.random.default_rng(3)
    W, b = (rng.integers(-9, 10, shape).astype(float) for shape in ((4, 5), (7,)))
    plain = fastadam.Adam([{"params": {"W": W.copy()}}], lr=0.1)
    plain.step([{"W": W}])
    plain.step([{"W": W}])
    plain.add_param_group({"params": {"b": b.copy()}, "lr": 0.2})
    plain.step([W, b])
    steps = {"0.W": 3, "1.b": 1}

    def sharded(bucket_bytes):
        values = [{"params": {key: p.copy()}} for (key, p) in zip("Wb", inside.params(plain), strict=True)]
        return Sharded(fastadam.Adam, values, comm, bucket_bytes=bucket_bytes)

    one, other = sharded(30), sharded(100)
    one.load_state_dict(plain.state_dict())
    assert one.state_dict()["steps"] == plain.state_dict()["steps"] == steps
    one.save(folder / "kept", params=True)
    other.load(folder / "kept")
    same_states(other.state_dict(), one.state_dict())
    plain.step([W, b])
    for opt in (one, other):
        opt.step([W, b])
        assert opt.state_dict()["steps"] == {"0.W": 4, "1.b": 2}
        for p, expected in zip(inside.whole_params(opt), inside.params(plain), strict=True):
            np.testing.assert_allclose(p, expected, rtol=0 if comm.size in (1, 2, 4) else 1e-12)


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
        (change(version=1), ValueError),
        (change(t=-1), ValueError),
        (change(seed="x"), TypeError),
        (change(param_groups=[]), ValueError),
        (change(param_groups=[{"params": ["x"]}]), ValueError),
        (change(steps=None), ValueError),
        (change(steps={}), ValueError),
        (lambda whole: {**whole, "steps": dict.fromkeys(whole["steps"], 2)}, ValueError),
        (lambda whole: {**whole, "steps": dict.fromkeys(whole["steps"], -1)}, ValueError),
        (lambda whole: {**whole, "steps": dict.fromkeys(whole["steps"], "x")}, TypeError),
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
        with refused(comm, "disagree in steps: ["):
            opt.load_state_dict({**whole, "steps": dict.fromkeys(whole["steps"], min(comm.rank, 1))})
        assert everything(opt) == before
    opt.load_state_dict(opt.state_dict())
    opt.step(params_of())
