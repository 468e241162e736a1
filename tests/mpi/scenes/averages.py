"""Averages of weights among ranks: those that each rank keeps of whole parameters, and those of a sharded optimizer."""

from functools import partial

import inside
import numpy as np
from ml_dtypes import bfloat16

import fastadam
from fastadam.mpi import Disagreement, flat

from .stage import Twins, arrays_in, error_of, everything, odd_arrays, params_of, same_everywhere, scene, several

ASGD = {"lr": 0.125, "t0": 1}


@scene
def average_on_each_rank(comm, folder):
    """The same bits on all ranks, those of one process; one rank writes the checkpoint, all go on from it."""
    twins = Twins(comm, params_of)
    ours = fastadam.Average(twins.params, 0.75)
    plain = fastadam.Average(twins.plain_params, 0.75)
    for _ in range(4):
        twins.step()
        ours.update()
        plain.update()
    for average, expected in zip(arrays_in(ours.params), arrays_in(plain.params), strict=True):
        twins.same(average, expected)
    same_everywhere(comm, arrays_in(ours.params))
    if comm.rank == 0:
        ours.save(folder / "average.npz")
    comm.Barrier()
    again = fastadam.Average(twins.params)
    again.load(folder / "average.npz")
    twins.step()
    for average in (ours, again):
        average.update()
    before = [p.copy() for p in arrays_in(twins.params)]
    with again.swapped():
        same_everywhere(comm, arrays_in(twins.params))
        for p, average in zip(arrays_in(twins.params), arrays_in(ours.params), strict=True):
            np.testing.assert_array_equal(p, average)
    for p, was in zip(arrays_in(twins.params), before, strict=True):
        np.testing.assert_array_equal(p, was)
    twins.check()


@scene
def averages_of_a_sharded_optimizer(comm, folder):
    """Within the block all ranks have the averages of all, and after it what they had, to the bit."""
    narrow = {"master_weights": True}
    for cls, make, options in (
        (fastadam.ASGD, params_of, ASGD),
        (fastadam.ASGD, lambda: flat(params_of()), ASGD),
        (fastadam.ASGD, odd_arrays, ASGD),
        (fastadam.ScheduleFreeAdamW, params_of, {"lr": 0.25}),
        (fastadam.ASGD, lambda: params_of(("float32", bfloat16)), ASGD | narrow),
        (fastadam.ASGD, lambda: flat(params_of((bfloat16, "float64"))), ASGD),
    ):
        twins = Twins(comm, make, cls, **options).steps(3)
        before = everything(twins.sharded)
        with twins.sharded.swapped(), twins.plain.swapped():
            for p, expected in zip(arrays_in(twins.params), arrays_in(twins.plain_params), strict=True):
                twins.same(p, expected)
            same_everywhere(comm, arrays_in(twins.params))
        assert everything(twins.sharded) == before
        error = error_of(partial(fails_within, twins.sharded))
        assert isinstance(error, ZeroDivisionError), repr(error)
        assert everything(twins.sharded) == before
        twins.steps(2).check()


def fails_within(opt):
    with opt.swapped():
        assert isinstance(error_of(opt.step), RuntimeError)
        assert isinstance(error_of(opt.state_dict), RuntimeError)
        raise ZeroDivisionError


@scene
def only_optimizers_that_keep_averages_are_swapped(comm, folder):
    assert not hasattr(Twins(comm, params_of).sharded, "swapped")
    assert inside.plan(Twins(comm, params_of, fastadam.ASGD).sharded).t == 0


@several
def one_rank_alone_is_not_swapped(comm, folder):
    """What one rank refuses, none does."""
    twins = Twins(comm, params_of, fastadam.ASGD, **ASGD).steps(2)
    before = everything(twins.sharded)
    if comm.rank == 0:
        arrays_in(twins.params)[0].flags.writeable = False
    error = error_of(lambda: enter(twins.sharded))
    assert isinstance(error, ValueError if comm.rank == 0 else Disagreement), repr(error)
    arrays_in(twins.params)[0].flags.writeable = True
    assert everything(twins.sharded) == before
    enter(twins.sharded)
    assert everything(twins.sharded) == before
    twins.steps(1).check()


def enter(opt):
    with opt.swapped():
        pass
