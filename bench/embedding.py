"""What one Adam step of float32 elements costs through each door, from 16 elements to 16 million.
`python bench/embedding.py --out FOLDER` builds the Cython client of the tests (it needs cython and gcc) and writes
doors.json: nanoseconds of a step. The doors take turns; medians are quoted.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit
from results import arguments, write

import fastadam
from fastadam import functional, rules
from fastadam.numba import adam_step

SIZES = (16, 1_000, 100_000, 1_000_000, 16_000_000)
CLIENTS = Path(__file__).parents[1] / "tests/clients"
OPTIONS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "beta_decay": 1.0, "eps_hat": False}
#: so many steps, of the arrays p, g, m and v
Run = Callable[..., None]


@njit(nogil=True)
def repeat(count, p, g, m, v):
    for t in range(1, count + 1):
        adam_step(p, g, m, v, t, 1e-3, 0.9, 0.999, 1e-8, 1.0, False)


def of_step(step: Callable) -> Run:
    """`count` calls from Python."""

    def run(count, p, g, m, v):
        for t in range(1, count + 1):
            step(p, g, m, v, t)

    return run


def of_class(cls, size: int) -> Run:
    bound = cls(np.ones(size, np.float32)).step

    def run(count, p, g, m, v):
        for _ in range(count):
            bound(g)

    return run


def cython_client(folder: str):
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    path = {"PYTHONPATH": str(Path(fastadam.__file__).parents[1])}
    subprocess.run(command, cwd=folder, env=os.environ | path, check=True, stdout=subprocess.DEVNULL)
    [path] = Path(folder).glob("cython_client.*.so")
    spec = importlib.util.spec_from_file_location("cython_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def doors(size: int, client, own) -> dict[str, Run]:
    """Each door by what stands in the table."""
    return {
        "`fastadam.Adam(p).step(g)`": of_class(fastadam.Adam, size),
        "a rule of your own, `.step(g)`": of_class(own, size),
        "`functional.adam(p, g, m, v, t)`": of_step(functional.adam),
        "`adam_step(…)` within `@njit`": repeat,
        "`fastadam_adam_f32(…)` in C or Cython": client.repeat,
    }


def nanoseconds(runs: dict[str, Run], size: int, rounds: int) -> dict[str, float]:
    """Of a step by each door: the median of rounds of some 20 ms each, or of one step where that is longer."""
    p = np.ones(size, np.float32)
    g = np.random.default_rng(0).standard_normal(size, np.float32)
    m, v = np.zeros_like(p), np.zeros_like(p)
    counts = {}
    for name, run in runs.items():
        run(3, p, g, m, v)
        start = time.perf_counter()
        run(3, p, g, m, v)
        counts[name] = max(1, int(0.06 / (time.perf_counter() - start)))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(counts[name], p, g, m, v)
            taken[name].append((time.perf_counter() - start) / counts[name] * 1e9)
    return {name: float(np.median(own)) for name, own in taken.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of each size (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = fastadam.optimizer(rules.adam, rules.adam_scalars, ["m", "v"], **OPTIONS)
        client = cython_client(folder)
        found = {str(size): nanoseconds(doors(size, client, own), size, options.rounds) for size in SIZES}
    write(options.out, "doors", {"nanoseconds": found})


if __name__ == "__main__":
    main()
