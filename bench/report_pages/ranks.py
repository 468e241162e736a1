"""A step of `fastadam.mpi` against the number of ranks, and a model of its cost: page `scaling`, and what others show.

The model takes the latency and the bandwidth of each collective, and the time of a sweep, from measurements of these
alone.
"""

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scaling import ALONE, BUCKETS_OF, COPIES, DIVIDED, LONG, REPLICATED, ROUNDED, SHARDED, SHORT, Parts

from fastadam.bench.plots import Theme
from fastadam.bench.tables import duration

from .drawing import figure, plain_numbers, shown
from .source import Found, Lines, Reports, page, source, table

#: the machine of the estimate on paper: seconds of latency a message, bytes a second of a rank's network card in each
#: direction, and of its memory
LATENCY, CARD, MEMORY = 5e-6, 25e9, 100e9
#: bytes that a sweep moves for each parameter: p, m and v read and written, g read, all float32
SWEPT = 28

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


def on_paper(params: float, n_ranks: int, grad_bytes: int, bucket_bytes: float = 1 << 28) -> Parts:
    """The cost of a step on that machine by logarithmic latency and full bandwidth; and the memory of a rank."""
    others = (n_ranks - 1) / n_ranks
    hops = math.ceil(math.log2(n_ranks))
    n_buckets = math.ceil(4 * params / bucket_bytes)
    return {
        "latency": LATENCY * hops * (1 + 2 * n_buckets),
        "gradients": grad_bytes * params * others / CARD,
        "parameters": 4 * params * others / CARD,
        "summing": 3 * 4 * params * others / MEMORY,
        "sweep": SWEPT * params / n_ranks / MEMORY,
        "memory": 8 * params + (12 if n_ranks > 1 else 8) * params / n_ranks,
    }


# ---------------------------------------------------------------- the page


def scaling(reports: Reports, where: Path) -> str:
    """The page."""
    measured = reports["scaling"]
    found = measured["found"]
    library = " ".join(found[0]["library"].replace("Version:", "").split())
    intro = [
        "The time of a step of `fastadam.mpi.Sharded` with one, two and more processes, its parts, memory and bytes.",
        f"float32, one thread for each process (*rank*), {library}. [Scaling](../explanation/scaling.md) explains the",
        "model, and what it says of 1,024 ranks.",
    ]
    body = [*shown(where, "scaling", "time of a step against the number of parameters, for each number of ranks"), ""]
    body += ["## Time of a step\n", f"“{COPIES}”: every rank has all states, gradients are summed by `Allreduce`."]
    body += [f"“{SHARDED}” as it is by default; it steps in one of two ways, which follow: “{DIVIDED}”"]
    body += [
        f"(`replicate_below=0`) and “{REPLICATED}” (`replicate_below` above the size). “better”: of both. “model”: of"
    ]
    body += [f"“{DIVIDED}”, from the parts below.\n"]
    heads = ["parameters", "ranks", ALONE, COPIES, SHARDED, DIVIDED, REPLICATED, f"{SHARDED} / better"]
    heads += [f"{SHARDED} / {COPIES}", "model", "model / measured", ROUNDED]
    body += table(heads, [line(size, run) for size, run in product(found[0]["steps"], found)])
    body += ["## Parts\n", f"Alone, of {SHORT:,} bytes and of {LONG >> 20} MiB of parameters in one bucket.\n"]
    body += by_rank(found, "parts", duration)
    body += [
        "## Memory and bytes sent\n",
        *shown(where, "scaling-memory", "memory of a rank against the number of ranks"),
        "",
    ]
    body += [
        "Of 10,000,000 float32 parameters under Adam, the rank that has the most; “resident” is what the system says"
    ]
    body += ["the process grew by.\n", *by_rank(found, "memory", lambda n: f"{n / 2**20:.1f} MiB"), "## Buckets\n"]
    body += [f"A step of {BUCKETS_OF:,} parameters in buckets of so many bytes; 16 MiB is the default.\n"]
    several = [run | {"buckets": {f"{int(n) >> 10:,} KiB": s for n, s in run["buckets"].items()}} for run in found[1:]]
    body += by_rank(several, "buckets", duration) if several else []
    return page("Time of a step against the number of ranks", intro, "scaling.py", measured, [*body, *paper()])


def by_rank(found: list[Found], what: str, spell: Callable[[float], str]) -> Lines:
    """A line for each number of ranks."""
    names = list(found[0][what])
    return table(["ranks", *names], [[str(run["ranks"]), *(spell(run[what][name]) for name in names)] for run in found])


def line(size: str, run: Found) -> Lines:
    """A line of the table of times."""
    taken, model = run["steps"][size], modelled(int(size), run["parts"])
    own, better = taken[SHARDED], min(taken[way] for way in (DIVIDED, REPLICATED) if way in taken)
    ways = (ALONE, COPIES, SHARDED, DIVIDED, REPLICATED)
    cells = [f"{int(size):,}", str(run["ranks"]), *(duration(taken[way]) if way in taken else "–" for way in ways)]
    cells += [f"{own / better:.2f}", f"{own / taken[COPIES]:.2f}", duration(model), f"{model / taken[DIVIDED]:.2f}"]
    return [*cells, duration(taken[ROUNDED])]


def paper() -> Lines:
    """10 billion parameters on more ranks than are here."""
    lines = []
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
        shown_ = [duration(seconds) if seconds else "0" for seconds in (*cells, step)]
        lines.append([f"{n_ranks:,}", f"{full['memory'] / 1e9:.1f} GB", *shown_])
    head = [
        "ranks",
        "memory a rank",
        "latency",
        "gradients, float32",
        "bfloat16",
        "parameters",
        "summing",
        "sweep",
        "step",
    ]
    return [
        "## On paper: 10 billion parameters\n",
        f"Not measured. Each rank is a machine of its own with {CARD / 1e9:.0f} GB/s of network in each direction,",
        f"{LATENCY * 1e6:.0f} µs a message and {MEMORY / 1e9:.0f} GB/s of memory; buckets of 256 MiB.",
        "[Scaling](../explanation/scaling.md) lists the assumptions.\n",
        *table(head, lines),
    ]


# ---------------------------------------------------------------- blocks


def small_models(reports: Reports, where: Path) -> Lines:
    """A small model on two ranks, each way."""
    (run,) = (run for run in reports["scaling"]["found"] if run["ranks"] == 2)
    names = {SHARDED: "`Sharded`, as it is by default", DIVIDED: "each rank steps its share", COPIES: COPIES}
    sizes = ("10000", "100000", "1000000")
    lines = [[text, *(duration(run["steps"][size][name]) for size in sizes)] for name, text in names.items()]
    worst = max(
        run["steps"][size][SHARDED] / min(own[way] for way in (DIVIDED, REPLICATED) if way in own)
        for run in reports["scaling"]["found"]
        for size, own in run["steps"].items()
    )
    return [
        *table(["a step on two ranks, of so many parameters", *(f"{int(size):,}" for size in sizes)], lines),
        f"In all that was measured the default takes at most {worst:.2f} times the better of both ways.",
        *source(reports, where, "scaling", "time of a step against the number of ranks"),
    ]


# ---------------------------------------------------------------- pictures


def draw_times(measured: Found, theme: Theme) -> Figure:
    """Time against size, a panel for each number of ranks, with the model."""
    found = measured["found"]
    made, panels = figure(3.7 * len(found) + 1.2, len(found), sharex=True, sharey=True)
    ways = {SHARDED: (theme.ours[0], "o-"), COPIES: (theme.of("PyTorch"), "s-"), ALONE: (theme.ours[1], "^:")}
    for run, axes in zip(found, panels, strict=True):
        sizes = [int(size) for size in run["steps"]]
        for way, (colour, marks) in ways.items():
            axes.loglog(sizes, [own[way] * 1e3 for own in run["steps"].values()], marks, color=colour, label=way)
        model = [modelled(size, run["parts"]) * 1e3 for size in sizes]
        axes.loglog(sizes, model, "--", color=theme.ink, lw=1.2, label=f"model of “{SHARDED}”")
        axes.set(title=f"{run['ranks']} rank{'s' if run['ranks'] > 1 else ''}", ylabel="ms")
        axes.grid()
        plain_numbers(axes.yaxis)
    plain_numbers(panels[-1].xaxis, (1e3, 1e5, 1e7))
    panels[-1].set_xlabel("float32 parameters")
    made.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, columnspacing=1)
    return made


def draw_memory(measured: Found, theme: Theme) -> Figure:
    """Memory of a rank against the number of ranks."""
    found = measured["found"]
    made, (axes,) = figure(4.6)
    kinds = dict(
        zip(
            ("parameters", "gradients", "sums of gradients", "states"),
            (*theme.greys, theme.fill, theme.ours[0]),
            strict=True,
        )
    )
    ranks, below = [str(run["ranks"]) for run in found], np.zeros(len(found))
    for kind, colour in kinds.items():
        sizes = np.array([run["memory"][kind] / 2**20 for run in found])
        axes.bar(ranks, sizes, bottom=below, color=colour, label=kind, width=0.6)
        below += sizes
    resident = [run["memory"]["resident"] / 2**20 for run in found]
    axes.plot(ranks, resident, "_", color=theme.ink, ms=55, mew=2, label="as the system counts")
    axes.set(title="Memory of a rank, 10,000,000 parameters", xlabel="ranks", ylabel="MiB")
    made.legend(loc="outside lower center", ncols=2, columnspacing=1, markerscale=0.3)
    return made


PAGES = {"scaling": scaling}
BLOCKS = {"small-models": small_models}
PICTURES = {"scaling": ("scaling", draw_times), "scaling-memory": ("scaling", draw_memory)}
