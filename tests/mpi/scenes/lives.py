"""States on disk, communicators that are split and freed, several optimizers, threads of a rank, interrupts."""

import gc
import shutil
import signal
import threading
import time
import weakref
from contextlib import suppress

import inside
import numpy as np
from mpi4py import MPI

import fastadam
from fastadam.mpi import Disagreement, Sharded, flat

from .stage import (
    Twins,
    draw,
    error_of,
    everything,
    like,
    params_of,
    params_of_blocks,
    refused,
    same_everywhere,
    scene,
    several,
)


@scene
def states_in_folders(comm, folder):
    for state_dtype in ("bfloat16", "int8"):
        _states_in_a_folder(comm, folder / state_dtype, {"state_dtype": state_dtype, "min_8bit_size": 0})


def _states_in_a_folder(comm, folder, states):
    def make():
        return params_of_blocks(("float32", "float16"))

    of_ranks = {"state_dir": folder, "bucket_bytes": 3000}
    options = {"master_weights": True, **states}
    through = Twins(comm, make, of_ranks={**of_ranks, "state_dir": folder / "through"}, **options).steps(5).check()
    twins = Twins(comm, make, of_ranks=of_ranks, **options).steps(3)
    kept = make()
    for p, q in zip(kept.values(), twins.params.values(), strict=True):
        p[...] = q
    twins.sharded.close()
    assert sorted(path.name for path in folder.glob("rank-*")) == [
        f"rank-{rank}-of-{comm.size}" for rank in range(comm.size)
    ]
    resumed = Sharded(fastadam.Adam, kept, comm, **of_ranks, **options)
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
def folders_of_different_steps(comm, folder):
    """Equal t, but parts of one parameter that have done unequal steps: refused, and the folders are as they were."""
    params = {"W": np.ones(9)}
    opt = Sharded(fastadam.Adam, params, comm, state_dir=folder)
    opt.step(params)
    opt.step(params)
    opt.close()
    kept, guilty = params["W"].copy(), comm.size - 1
    counts = inside.folder_arrays(folder / f"rank-{comm.rank}-of-{comm.size}", "r+")["steps"]
    if comm.rank == guilty:
        counts[3:] -= 1
    for _ in range(2):
        with refused(comm, f"Sharded: the ranks disagree in the steps of W: 2 on rank 0; 1 on rank {guilty}"):
            Sharded(fastadam.Adam, params, comm, state_dir=folder)
    np.testing.assert_array_equal(params["W"], kept)
    if comm.rank == guilty:
        counts[3:] += 1
    again = Sharded(fastadam.Adam, params, comm, state_dir=folder)
    assert again.state_dict()["steps"] == {"W": 2}


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
def optimizers_of_one_communicator(comm, folder):
    """Share one copy of it: MPI has only some thousand."""
    kinds = (fastadam.Adam, fastadam.Adam, fastadam.SGD)
    first, *others = (inside.ranks(Sharded(kind, np.ones(5), comm)).comm for kind in kinds)
    assert all(other is first for other in others)


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
            opt.save(folder / "kept", params=True)
            opt.load(folder / "kept")
            opt.load_state_dict(opt.state_dict())
            if is_refused:
                for name in ("step", "load_state_dict", "load"):
                    with suppress(TypeError, Disagreement):
                        getattr(opt, name)(5 if comm.rank == 0 else None)
            gone = [weakref.ref(opt), weakref.ref(inside.memories(opt)[0].values), weakref.ref(inside.exchange(opt))]
            del opt
            assert [ref() for ref in gone] == [None] * 3, is_refused
    finally:
        gc.enable()


@scene
def two_threads_of_a_rank(comm, folder):
    """One at a time: the second is refused at once, and the first does what it began."""
    opt = Sharded(fastadam.Adam, np.ones(5), comm, lr=lambda t: (entered.set(), go_on.wait(60), 0.1)[2])
    entered, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=opt.step, args=(np.ones(5),))
    thread.start()
    assert entered.wait(60)
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

    taken = []
    for _ in range(10):
        start = time.perf_counter()
        opt.step(grads)
        taken.append(time.perf_counter() - start)
    before, interrupted = signal.signal(signal.SIGALRM, handler), 0
    try:
        while opt.t < 60 or (comm.allreduce(interrupted) <= 5 and opt.t < 1000):  # a busy machine's timers come late
            t = opt.t
            while opt.t == t:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 2 * min(taken)))
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
    for _ in range(opt.t):
        twin.step(grads)
    for p, expected in zip(params.values(), twin_params.values(), strict=True):
        np.testing.assert_allclose(p, expected, rtol=0 if comm.size in (1, 2, 4) else 1e-5)
    assert comm.allreduce(interrupted) > 5
