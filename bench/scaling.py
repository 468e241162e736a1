"""A step of `fastadam.mpi` against the number of ranks: time, its parts, memory and bytes.
`python bench/scaling.py --out FOLDER` starts mpiexec for each number and writes scaling.json.

The ways take turns; each time is from a barrier to the end on the slowest rank, and medians are quoted. A model of the
cost takes the latency and the bandwidth of each collective, and the time of a sweep; these are measured alone, too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results import arguments, write
from tqdm import tqdm

import fastadam

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside

SIZES = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 50_000_000)
BUCKETS = (1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28)
BUCKETS_OF = 10_000_000  # parameters
SHARDED, ROUNDED, COPIES, ALONE = "Sharded", "Sharded, bfloat16", "Allreduce and all states", "no other rank"
DIVIDED, REPLICATED = "each its share", "each everything"
#: how `Sharded` is made for each
OPTIONS: dict[str, dict[str, Any]] = {
    SHARDED: {},
    DIVIDED: {"replicate_below": 0},
    REPLICATED: {"replicate_below": sys.maxsize},
    ROUNDED: {"comm_dtype": "bfloat16"},
}
#: of more parameters, states and gradients of all ranks on each rank are not measured: memory is short for them
MOST_REPLICATED = 10_000_000
#: of two lengths: bytes of the parameters whose exchange tells latency and bandwidth
SHORT, LONG = 1 << 10, 1 << 26

Parts = dict[str, float]


# ---------------------------------------------------------------- on every rank


def worker() -> None:
    """Measure on the ranks of COMM_WORLD; rank 0 prints what was found as JSON."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    found: dict[str, Any] = {"ranks": comm.size, "library": MPI.Get_library_version().split("\n")[0].strip("\0, ")}
    found["memory"] = memory(comm, 10_000_000)  # first, while nothing that was used can be used again
    found["parts"] = parts(comm)
    found["steps"] = {str(size): steps(comm, size) for size in SIZES}
    found["buckets"] = buckets(comm) if comm.size > 1 else {}
    if comm.rank == 0:
        print(json.dumps(found))


def medians(comm: Any, ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each, on the slowest rank; the first round is left out."""
    from mpi4py import MPI

    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            comm.Barrier()
            start = time.perf_counter()
            way()
            taken[name].append(comm.allreduce(time.perf_counter() - start, MPI.MAX))
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def steps(comm: Any, size: int) -> dict[str, float]:
    """A step of so many float32 parameters in each way that is measured of so many."""
    from mpi4py import MPI

    from fastadam.mpi import Sharded

    ways: dict[str, Callable[[], object]] = {}
    for name, options in OPTIONS.items():
        if name == REPLICATED and size > MOST_REPLICATED:
            continue
        opt = Sharded(fastadam.Adam, np.ones(size, np.float32), n_threads=1, **options)
        opt.grads[...] = 1e-3
        ways[name] = opt.step
    g = np.full(size, 1e-3, np.float32)
    alone = fastadam.Adam(np.ones(size, np.float32), grads=g, n_threads=1)
    ways[ALONE] = alone.step

    def copies() -> None:
        comm.Allreduce(MPI.IN_PLACE, g, MPI.SUM)
        alone.step(grad_scale=float(comm.size))

    ways[COPIES] = copies
    return medians(comm, ways, rounds=max(5, min(200, 30_000_000 // size)))


def parts(comm: Any) -> Parts:
    """What the model takes: the seconds of a call, an agreement, and exchanges and sweeps of few and of many bytes."""
    from mpi4py import MPI

    from fastadam.mpi import Sharded

    found: Parts = {}
    for name, size in {"short": SHORT // 4, "long": LONG // 4}.items():
        p = np.ones(size, np.float32)
        opt = Sharded(fastadam.Adam, p, n_threads=1, bucket_bytes=LONG, **OPTIONS[DIVIDED])
        exchange = inside.exchange(opt)

        def reduce(exchange: Any = exchange) -> None:
            with exchange.for_step(lambda: None, zero_grads=False):
                exchange.begin()
                exchange.arrive()

        g = np.ones(-(-size // comm.size), np.float32)
        share = fastadam.Adam(g.copy(), grads=g, n_threads=1)
        agree = partial(inside.agree, opt, "bench", {"t": 0})
        call = Sharded(fastadam.Adam, np.ones(SHORT // 4, np.float32), MPI.COMM_SELF, n_threads=1).step
        ways = {"reduce": reduce, "gather": exchange.gather, "agree": agree, "sweep": share.step, "call": call}
        rounds = 300 if name == "short" else 9
        found |= {f"{part} {name}": seconds for part, seconds in medians(comm, ways, rounds).items()}
    return found


def buckets(comm: Any) -> dict[str, float]:
    """A step in buckets of each size."""
    from fastadam.mpi import Sharded

    ways = {}
    for n_bytes in BUCKETS:
        p = np.ones(BUCKETS_OF, np.float32)
        opt = Sharded(fastadam.Adam, p, n_threads=1, bucket_bytes=n_bytes, **OPTIONS[DIVIDED])
        ways[str(n_bytes)] = opt.step
    return medians(comm, ways, rounds=9)


def memory(comm: Any, size: int) -> dict[str, int]:
    """Bytes of so many float32 parameters on the rank that has the most: by arrays, and by the system."""
    from mpi4py import MPI

    from fastadam.mpi import Sharded

    before = resident()
    p = np.ones(size, np.float32)
    opt = Sharded(fastadam.Adam, p, n_threads=1, **OPTIONS[DIVIDED])
    opt.grads[...] = 1e-3
    opt.step()
    states = [state for arrays in opt.state.values() for state in arrays]
    sums = inside.exchange(opt).shares if comm.size > 1 else []
    kept = {
        "parameters": p.nbytes,
        "gradients": opt.grads.nbytes,
        "sums of gradients": sum(share.nbytes for share in sums),
        "states": sum(state.nbytes for state in states),
        "resident": resident() - before,
        "sent": sent(opt),
    }
    return {name: comm.allreduce(value, MPI.MAX) for name, value in kept.items()}


def sent(opt: Any) -> int:
    """The bytes that a rank must send in a step, at least: gradients that others sum, its parameters to each once."""
    rank, size = inside.ranks(opt).rank, inside.ranks(opt).size
    own = sum(bucket.counts[rank] for bucket in inside.layout(opt).buckets)
    whole = sum(sum(bucket.counts) for bucket in inside.layout(opt).buckets)
    return 4 * (whole - own) + 4 * own * (size - 1)


def resident() -> int:
    """The memory of this process that is in use."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Measure with each number of ranks, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks (default: 1 2 4)")
    parser.add_argument("--mpiexec", default="mpiexec", help="what starts the ranks (default: %(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker()
        return
    found = []
    for n in tqdm(chosen.ranks, desc="measuring", unit="run"):
        command = [*chosen.mpiexec.split(), "-n", str(n), sys.executable, __file__, "--worker"]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(run.stdout.splitlines()[-1]))
    write(chosen.out, "scaling", {"found": found})


if __name__ == "__main__":
    main()
