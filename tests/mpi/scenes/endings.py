"""The end of a job: uncaught errors, and ranks that are killed or leave."""

import itertools
import os
import signal
import sys
import threading
import time

import numpy as np
from mpi4py import MPI

import fastadam
from fastadam.mpi import Disagreement, Sharded

from .stage import ending, everything, refused, tell


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
        with refused(comm, "rank 1 left the job, ranks 0, 2 did not; continue from the last checkpoint"):
            call()
    assert everything(opt) == before
    tell(folder.parent, folder.name, f"rank {comm.rank} was told")
    while len((folder.parent / "results.jsonl").read_text().splitlines()) < comm.size - 1:
        time.sleep(0.01)  # the first that exits like this ends the job
    os._exit(0)


@ending
def ended_before_the_optimizer(comm, folder):
    absent_first(comm, comm, folder, lambda: None)


@ending
def sys_exit_before_the_optimizer(comm, folder):
    absent_first(comm, comm, folder, lambda: sys.exit(3))


@ending
def finalize_before_the_optimizer(comm, folder):
    absent_first(comm, comm, folder, MPI.Finalize)


@ending
def end_of_the_process_before_the_optimizer(comm, folder):
    absent_first(comm, comm, folder, lambda: os._exit(0))


@ending
def late_for_the_optimizer(comm, folder):
    absent_first(comm, comm, folder, lambda: time.sleep(100))


@ending
def ended_before_the_optimizer_of_a_part(comm, folder):
    absent_first(comm, comm.Split(), folder, lambda: None)


def absent_first(comm, of_optimizer, folder, leave):
    """Rank 1 makes no optimizer. Some of the others wait when it leaves, others come later."""
    if comm.rank == 1:
        time.sleep(0.3)
        return leave()
    time.sleep(0.6 * (comm.rank > 1))
    for _ in range(2):
        with refused(comm, "Sharded: rank 1 left the job before; nothing has changed"):
            Sharded(fastadam.Adam, np.ones(9), of_optimizer)
    tell(folder.parent, folder.name, f"rank {comm.rank} was told")


@ending
def part_without_an_optimizer(comm, folder):
    """Rank 1 ends as it may."""
    part = comm.Split(comm.rank == 1)
    if comm.rank != 1:
        Sharded(fastadam.Adam, np.ones(9), part).step(np.ones(9))
        time.sleep(0.3)


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
    opt = Sharded(fastadam.Adagrad, params, comm, bucket_bytes=50_000, replicate_below=0)
    if (folder / "kept/checkpoint.json").exists():  # else the first save was cut off
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
