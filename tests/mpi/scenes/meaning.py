"""The same result as in one process: every optimizer, precision, group, rate and number of threads, for some steps."""

import itertools

import numpy as np
from cases import CASES
from ml_dtypes import bfloat16

import fastadam
from fastadam import schedules
from fastadam.mpi import flat

from .stage import OwnRule, Twins, groups, params_of, params_of_blocks, scene


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


@scene
def states_of_8_bits(comm, folder):
    """Their blocks are those of whole parameters, whoever steps them, however they are cut into buckets."""
    ways = {"bucket_bytes": 1000}, {"bucket_bytes": 5000, "comm_dtype": "bfloat16"}, {}  # the gradients have few bits
    for of_ranks, (cls, options) in itertools.product(
        ways, [CASES["adam"], CASES["rmsprop_centered_momentum"], (OwnRule, {"backend": "numpy"})]
    ):
        twins = Twins(
            comm,
            lambda: params_of_blocks(("float32", "float16", bfloat16)),
            cls,
            state_dtype="int8",
            min_8bit_size=0,
            master_weights=True,
            seed=7,
            of_ranks=of_ranks,
            **options,
        )
        twins.steps(4).check()


@scene
def groups_of_other_states(comm, folder):
    """Which states are of 8 bits is said by the sizes of whole parameters, not of a rank's pieces."""

    def make():
        small = {"min_8bit_size": 1000}
        return [
            {"params": params_of_blocks(), "state_dtype": "int8"},
            {"params": [np.ones(999, np.float32), np.ones(1000, np.float32)], "state_dtype": "int8", **small},
            {"params": [np.ones((30, 40), np.float32)], "state_dtype": "bfloat16", **small},
            {"params": [np.ones(1500), np.ones(1500, np.float32)]},
        ]

    twins = Twins(comm, make, of_ranks={"bucket_bytes": 3000}).steps(3, max_norm=1.0).check()
    states = [arrays["m"] for arrays in twins.sharded.state_dict()["state"].values()]
    assert [m.size for m in states if m.dtype == np.uint8] == [1008]
    twins.sharded.reset()
    twins.plain.reset()
    twins.steps(2).check()


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
