"""A step of `fastadam.mpi` against the number of ranks: time, its parts, memory, bytes; and a model of its cost.
`python bench/scaling.py --out FOLDER` starts mpiexec for each number and writes README.md, scaling.json, scaling.png.

The ways take turns; each time is from a barrier to the end on the slowest rank, and medians are quoted. The model takes
the latency and the bandwidth of each collective, and the time of a sweep, from measurements of these alone.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastadam
from fastadam.bench.tables import duration, machine

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


# ---------------------------------------------------------------- the model


def modelled(size: float, measured: Parts, bucket_bytes: int = 1 << 24) -> float:
    """The seconds of a step of `size` float32 parameters, from what was measured of its parts.

    call + agreement + buckets · latencies + bytes / bandwidth, of gradients and of parameters + the sweep of a share
    """
    n_bytes = 4 * size
    n_buckets = math.ceil(n_bytes / bucket_bytes)
    seconds = measured["call short"] + measured["agree short"]
    for part in ("reduce", "gather"):
        latency = measured[f"{part} short"]
        per_byte = max(measured[f"{part} long"] - latency, 0) / LONG
        seconds += n_buckets * latency + n_bytes * per_byte
    return seconds + size / (LONG / 4) * measured["sweep long"]


#: the machine of the estimate on paper: seconds of latency a message, bytes a second of a rank's network card in each
#: direction, and of its memory
LATENCY, CARD, MEMORY = 5e-6, 25e9, 100e9
#: bytes that a sweep moves for each parameter: p, m and v read and written, g read, all float32
SWEPT = 28


def on_paper(params: float, n_ranks: int, grad_bytes: int, bucket_bytes: float = 1 << 28) -> Parts:
    """The cost of a step on that machine by logarithmic latency and full bandwidth; and the memory of a rank."""
    others = (n_ranks - 1) / n_ranks
    hops = math.ceil(math.log2(n_ranks))
    n_buckets = math.ceil(4 * params / bucket_bytes)
    latency = LATENCY * hops * (1 + 2 * n_buckets)
    return {
        "latency": latency,
        "gradients": grad_bytes * params * others / CARD,
        "parameters": 4 * params * others / CARD,
        "summing": 3 * 4 * params * others / MEMORY,
        "sweep": SWEPT * params / n_ranks / MEMORY,
        "memory": 8 * params + (12 if n_ranks > 1 else 8) * params / n_ranks,
    }


# ---------------------------------------------------------------- writing


def markdown(facts: dict[str, str], found: list[dict[str, Any]]) -> str:
    """The report."""
    lines = ["# A step against the number of ranks", "", "Made by `python bench/scaling.py --out FOLDER`;"]
    lines += ["[scaling](../how-to/scaling.md) says what the model is, and what it says of 1 024 ranks.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- MPI: {found[0]['library']}", ""]
    lines += ["## Time of a step", "", f"float32, one thread a rank. “{COPIES}”: every rank has all states, gradients"]
    lines += [f"are summed by `Allreduce`. “{SHARDED}” as it is by default; it steps in one of two ways, which follow:"]
    lines += [f"“{DIVIDED}” (`replicate_below=0`) and “{REPLICATED}” (`replicate_below` above the size). “better”: of"]
    lines += [f"both. “model”: of “{DIVIDED}”, from the parts below.", ""]
    heads = ["parameters", "ranks", ALONE, COPIES, SHARDED, DIVIDED, REPLICATED, f"{SHARDED} / better"]
    heads += [f"{SHARDED} / {COPIES}", "model", "model / measured", ROUNDED]
    lines += [f"| {' | '.join(heads)} |", "|---:" * len(heads) + "|"]
    lines += [row(size, run) for size, run in product(SIZES, found)]
    lines += ["", "![time and memory against ranks](scaling.png)", "", "## Parts", ""]
    lines += [f"Alone, of {SHORT} bytes and of {LONG >> 20} MiB of parameters in one bucket.", ""]
    names = list(found[0]["parts"])
    lines += [f"| ranks | {' | '.join(names)} |", "|---:" * (len(names) + 1) + "|"]
    for run in found:
        lines.append(f"| {run['ranks']} | {' | '.join(duration(run['parts'][name]) for name in names)} |")
    lines += ["", "## Memory and bytes sent", "", "Of 10 000 000 float32 parameters under Adam, the rank that has the"]
    lines += ["most; “resident” is what the system says the process grew by.", ""]
    names = list(found[0]["memory"])
    lines += [f"| ranks | {' | '.join(names)} |", "|---:" * (len(names) + 1) + "|"]
    for run in found:
        shown = " | ".join(f"{run['memory'][name] / 2**20:.1f} MiB" for name in names)
        lines.append(f"| {run['ranks']} | {shown} |")
    lines += ["", "## Buckets", "", f"A step of {BUCKETS_OF:,} parameters in buckets of so many bytes; 16 MiB is the"]
    lines += ["default.", "", f"| ranks | {' | '.join(f'{n >> 10:,} KiB' for n in BUCKETS)} |"]
    lines += ["|---:" * (len(BUCKETS) + 1) + "|"]
    for run in found[1:]:
        lines.append(f"| {run['ranks']} | {' | '.join(duration(run['buckets'][str(n)]) for n in BUCKETS)} |")
    return "\n".join([*lines, "", *paper(), ""])


def row(size: int, run: dict[str, Any]) -> str:
    """A line of the table of times."""
    taken, model = run["steps"][str(size)], modelled(size, run["parts"])
    own, better = taken[SHARDED], min(taken[way] for way in (DIVIDED, REPLICATED) if way in taken)
    ways = (ALONE, COPIES, SHARDED, DIVIDED, REPLICATED)
    cells = [f"{size:,}", str(run["ranks"]), *(duration(taken[way]) if way in taken else "–" for way in ways)]
    cells += [f"{own / better:.2f}", f"{own / taken[COPIES]:.2f}", duration(model), f"{model / taken[DIVIDED]:.2f}"]
    return f"| {' | '.join([*cells, duration(taken[ROUNDED])])} |"


def paper() -> list[str]:
    """10 billion parameters on more ranks than are here."""
    lines = ["## On paper: 10 billion parameters", "", "Not measured. Each rank is a machine of its own with"]
    lines += [f"{CARD / 1e9:.0f} GB/s of network in each direction, {LATENCY * 1e6:.0f} µs a message and"]
    lines += [
        f"{MEMORY / 1e9:.0f} GB/s of memory; buckets of 256 MiB;",
        "[scaling](../how-to/scaling.md) lists the assumptions.",
        "",
    ]
    lines += [
        "| ranks | memory a rank | latency | gradients, float32 | bfloat16 | parameters | summing | sweep | step |"
    ]
    lines += ["|---:" * 9 + "|"]
    for n_ranks in (1, 8, 64, 256, 1024):
        full, half = (on_paper(1e10, n_ranks, n_bytes) for n_bytes in (4, 2))
        step = sum(seconds for name, seconds in full.items() if name != "memory")
        cells = [
            full["latency"],
            full["gradients"],
            half["gradients"],
            full["parameters"],
            full["summing"],
            full["sweep"],
        ]
        shown = " | ".join(duration(seconds) if seconds else "0" for seconds in [*cells, step])
        lines.append(f"| {n_ranks:,} | {full['memory'] / 1e9:.1f} GB | {shown} |")
    return lines


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Time against size for each number of ranks, with the model; and memory against ranks."""
    figure = Figure(figsize=(16, 6), dpi=110, layout="constrained")
    times, bars = figure.subplots(1, 2, width_ratios=[1.8, 1])
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for run, colour in zip(found, colours, strict=False):
        name = f"{run['ranks']} rank{'s' if run['ranks'] > 1 else ''}"
        for way, style in {SHARDED: "o-", COPIES: "s:"}.items():
            seconds = [run["steps"][str(size)][way] * 1e3 for size in SIZES]
            times.loglog(SIZES, seconds, style, color=colour, label=f"{name}: {way}")
        model = [modelled(size, run["parts"]) * 1e3 for size in SIZES]
        times.loglog(SIZES, model, "--", color=colour, alpha=0.5, label=f"{name}: model")
    times.set(title="A step of Adam, one thread a rank", xlabel="float32 parameters", ylabel="ms")
    times.legend(fontsize=9)
    below = np.zeros(len(found))
    kinds = ("parameters", "gradients", "sums of gradients", "states")
    for kind, colour in zip(kinds, ("0.55", "0.8", "#D55E00", "#0072B2"), strict=True):
        sizes = np.array([run["memory"][kind] / 2**20 for run in found])
        bars.bar([str(run["ranks"]) for run in found], sizes, bottom=below, color=colour, label=kind, width=0.6)
        below += sizes
    resident_ = [run["memory"]["resident"] / 2**20 for run in found]
    bars.plot([str(run["ranks"]) for run in found], resident_, "k_", markersize=40, label="as the system counts")
    bars.set(title="Memory of a rank, 10 million parameters", xlabel="ranks", ylabel="MiB")
    bars.legend(fontsize=9, markerscale=0.4)
    for axes in (times, bars):
        axes.grid(alpha=0.25)
    figure.savefig(path)


def main() -> None:
    """Measure with each number of ranks, and write."""
    parser = argparse.ArgumentParser(description="Measure a step of fastadam.mpi against the number of ranks.")
    parser.add_argument("--out", type=Path, default=Path("scaling"), help="the folder to write (default: %(default)s)")
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
    facts = {name: value for name, value in machine().items() if name in ("processor", "system", "fastadam", "numpy")}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "scaling.json").write_text(json.dumps({"facts": facts, "found": found}, indent=1) + "\n")
    (chosen.out / "README.md").write_text(markdown(facts, found))
    draw(found, chosen.out / "scaling.png")
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
