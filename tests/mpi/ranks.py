"""Runs scenes on real ranks. Each scene asserts, on every rank, what `fastadam.mpi` promises. test_mpi.py starts them.
By hand: ``mpiexec -n N python tests/mpi/ranks.py FOLDER [SCENE …]``. Results are added to FOLDER/results.jsonl.
FASTADAM_TEST_WAY is the default way in which optimizers step: "divided" or "replicated".
The scenes are in scenes/, with a file for each kind of promise.
"""

import faulthandler
import os
import sys
import time
import traceback
from pathlib import Path

from mpi4py import MPI

sys.path.append(str(Path(__file__).parents[1]))
import inside
from scenes import (  # noqa: F401
    averages,
    changes,
    checkpoints,
    endings,
    faults,
    files,
    lives,
    meaning,
    memory,
    network,
    rows,
    steps,
    ways,
    weights,
)
from scenes.stage import ENDINGS, SCENES, tell

#: seconds after which a rank that hangs shows where, and ends
LIMIT = 300
#: below how many bytes every rank steps everything
WAYS = {"divided": 0, "replicated": sys.maxsize}


def main(folder: Path, *names: str) -> None:
    """Play scenes one after the other; one that fails on a single rank, so that the others would wait, ends the job."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    if way := os.environ.get("FASTADAM_TEST_WAY"):
        inside.replicate_below(WAYS[way])
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


def all_come(comm: MPI.Intracomm, patience: float) -> bool:
    request, end = comm.Ibarrier(), time.monotonic() + patience
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(1e-4)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(sys.argv[2:] or [name for name in SCENES if name not in ENDINGS]))
