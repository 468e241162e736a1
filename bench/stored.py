"""Adam's step by how parameters, gradients and states are stored, beside peers and the machine's limit: what `bits.py`
reports. `python bench/stored.py SIZE…` prints the cases of this process's instruction set as JSON, in the last line.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_dtypes import bfloat16
from tqdm import tqdm

import fastadam
from fastadam.bench.contestants import deepspeed_cpu, over_tensors
from fastadam.bench.measure import Arrays, Contestant, Step, arrays, measure
from fastadam.bench.roofline import LIMIT, limit_of
from fastadam.kernel import backends, threads

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside


class Stored(NamedTuple):
    """How numbers are stored: the dtypes of parameters and gradients, options, and when to choose it."""

    params: Any
    grads: Any
    options: dict[str, Any]
    when: str


PLAIN, HALF_STATES, BLOCKS = "float32", "float32, bfloat16 states", "float32, 8-bit states"
HALF, MASTER = "bfloat16, bfloat16 states", "bfloat16, float32 master"
STORED = {
    PLAIN: Stored("float32", "float32", {}, "take it first: no state is rounded"),
    "float32, float16 gradients": Stored("float32", "float16", {}, "where gradients come in float16"),
    HALF_STATES: Stored(
        "float32", "float32", {"state_dtype": "bfloat16"}, "for large models: half of the states' memory"
    ),
    BLOCKS: Stored(
        "float32", "float32", {"state_dtype": "int8"}, "where memory is short: a quarter of the states' memory"
    ),
    "bfloat16, float32 states": Stored(
        bfloat16, bfloat16, {}, "where steps are longer than half a unit of the weights' last place"
    ),
    HALF: Stored(bfloat16, bfloat16, {"state_dtype": "bfloat16"}, "as above, with half of the states' memory"),
    "bfloat16, 8-bit states": Stored(bfloat16, bfloat16, {"state_dtype": "int8"}, "as above, with a quarter of it"),
    MASTER: Stored(bfloat16, bfloat16, {"master_weights": True}, "for 16-bit models: no small step is lost"),
    f"{MASTER}, bfloat16 states": Stored(
        bfloat16,
        bfloat16,
        {"master_weights": True, "state_dtype": "bfloat16"},
        "as above, with half of the states' memory",
    ),
}
TORCH, TORCH_HALF, DEEPSPEED = "PyTorch fused", "PyTorch fused, bfloat16", "DeepSpeed CPUAdam"
BITSANDBYTES, TORCHAO = "bitsandbytes Adam8bit", "torchao Adam8bit"
PEERS = [
    Contestant(TORCH, over_tensors("torch.optim", "Adam", fused=True), "torch"),
    Contestant(TORCH_HALF, over_tensors("torch.optim", "Adam", "bfloat16", fused=True), "torch"),
    Contestant(DEEPSPEED, deepspeed_cpu, "deepspeed"),
    Contestant(BITSANDBYTES, over_tensors("bitsandbytes.optim", "Adam8bit"), "bitsandbytes"),
    Contestant(TORCHAO, over_tensors("torchao.optim", "Adam8bit"), "torchao"),
]
EXTRAS = {"max_norm": {"max_norm": 1.0}, "skip_nonfinite": {"skip_nonfinite": True}}

# ---------------------------------------------------------------- who is measured


def stored(name: str, params: Arrays, grads: Arrays, **options: object) -> tuple[fastadam.Adam, Arrays]:
    """An optimizer of arrays stored in this way, and its gradients."""
    how = STORED[name]
    opt = fastadam.Adam([p.astype(how.params) for p in params], **how.options, **options)
    return opt, [g.astype(how.grads) for g in grads]


def way(name: str, n_threads: int, **extra: object) -> Contestant:
    """A step of arrays stored in this way, with options of a step."""

    def make(params: Arrays, grads: Arrays) -> Step:
        opt, given = stored(name, params, grads, n_threads=n_threads)
        return lambda: opt.step(given, **extra)

    return Contestant(", ".join([name, *extra]), make)


def costs(name: str) -> dict[str, float]:
    """Bytes an element, of the arrays themselves: what a step moves, and what the states keep.

    Everything is read; all but the gradients is written.
    """
    opt, given = stored(name, *arrays(1, 1 << 16, "float32"))
    params, states, grads = (
        sum(a.nbytes for a in some) for some in (inside.params(opt), inside.state_arrays(opt), given)
    )
    return {"moved": (2 * (params + states) + grads) / (1 << 16), "kept": states / (1 << 16)}


def limit(moved: float, n_threads: int) -> Contestant:
    """The roofline of as many bytes an element."""
    return replace(limit_of(moved, 2, n_threads), name=limit_name(moved))


def limit_name(moved: float) -> str:
    return f"{LIMIT} of {moved:.4g} bytes"


# ---------------------------------------------------------------- measuring


def cases(sizes: list[int], with_peers: bool) -> list[dict[str, Any]]:
    """Every size, on one thread and on all; and what else a step is asked for, on all."""
    found = []
    most = threads.default()
    bytes_moved = sorted({costs(name)["moved"] for name in STORED})
    for n_threads in dict.fromkeys((1, most)):
        for size in tqdm(sizes, desc=f"{backends.ISA}, {n_threads} threads", unit="size"):
            field = [way(name, n_threads) for name in STORED] + [limit(n, n_threads) for n in bytes_moved]
            found.append(case(field + (PEERS if with_peers and n_threads == most else []), size, n_threads, "steps"))
            if n_threads == most:
                asked = [
                    way(name, most, **extra)
                    for name in (PLAIN, HALF_STATES, BLOCKS)
                    for extra in ({}, *EXTRAS.values())
                ]
                found.append(case(asked, size, most, "extras"))
    return found


def case(field: list[Contestant], size: int, n_threads: int, kind: str) -> dict[str, Any]:
    """One case, of contestants that take turns."""
    if find_spec("torch"):
        import torch

        torch.set_num_threads(n_threads)
    rows = measure([c for c in field if c.installed], "float32", 1, size)
    return {"kind": kind, "isa": backends.ISA, "threads": n_threads, "size": size, "rows": rows}


def in_a_process(isa: str, sizes: list[int]) -> list[dict[str, Any]]:
    """The cases of one instruction set; peers beside the best."""
    command = [sys.executable, __file__, *map(str, sizes)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"FASTADAM_ISA": isa}
    )
    return json.loads(done.stdout.splitlines()[-1])


def errors(size: int = 20_000, steps: int = 2_000) -> dict[str, dict[str, float]]:
    """How far m, v and the step of an element are from float32's, once all have seen the same gradients.

    Root mean squares: of m relative to √v, of v relative to v, of the step relative to the root mean square of all
    steps. The gradients are normal, over three orders of magnitude.
    """
    rng = np.random.default_rng(0)
    scale = 10 ** rng.uniform(-3, 0, size)
    made = {name: stored(name, [np.ones(size, np.float32)], [np.empty(0)])[0] for name in STORED}
    for _ in range(steps):
        g = (rng.standard_normal(size, np.float32) * scale).astype(np.float32)
        for name, opt in made.items():
            opt.step([g.astype(STORED[name].grads)])

    def of(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m, v = (made[name].state[state][0].astype(np.float64) for state in "mv")
        return m, v, m / np.sqrt(v)

    m, v, step = of(PLAIN)
    found = {}
    for name in STORED:
        m_, v_, step_ = of(name)
        found[name] = {"m": rms((m_ - m) / np.sqrt(v)), "v": rms(v_ / v - 1), "step": rms(step_ - step) / rms(step)}
    return found


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def memory(size: int) -> dict[str, tuple[float, float, float]]:
    """Of Adam's states, each in a process of its own: bytes a parameter of arrays, resident, at the peak."""
    found = {}
    for name in (PLAIN, HALF_STATES, BLOCKS):
        command = [sys.executable, str(Path(__file__).with_name("memory.py")), str(size)]
        command += STORED[name].options.values()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = [float(word) for word in done.stdout.split()]
    return found


if __name__ == "__main__":
    print(
        json.dumps(
            cases([int(word) for word in sys.argv[1:]], backends.available_isas()[0] == backends.ISA), default=asdict
        )
    )
