"""The same meaning as one process: every optimizer, precision, group, rate, number of threads, each at some steps."""

import itertools

from cases import CASES
from ml_dtypes import bfloat16

import fastadam
from fastadam import schedules
from fastadam.mpi import flat

from .stage import OwnRule, Twins, groups, params_of, scene


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
