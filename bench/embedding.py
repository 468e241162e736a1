"""What one Adam step of 16 float32 elements costs through each door, and one's own rule beside the built-in one.
`python bench/embedding.py` builds the Cython client of the tests (it needs cython and gcc) and prints a Markdown table.
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

import fastadam
from fastadam import functional, rules
from fastadam.numba import adam_step

SIZE = 16
CLIENTS = Path(__file__).parents[1] / "tests/clients"
OPTIONS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "beta_decay": 1.0, "eps_hat": False}


@njit(nogil=True)
def repeat(count, p, g, m, v):
    for t in range(1, count + 1):
        adam_step(p, g, m, v, t, 1e-3, 0.9, 0.999, 1e-8, 1.0, False)


def of_step(step: Callable) -> Callable[..., None]:
    """`count` calls from Python."""

    def run(count, p, g, m, v):
        for t in range(1, count + 1):
            step(p, g, m, v, t)

    return run


def of_class(cls, **options) -> Callable[..., None]:
    p = np.ones(SIZE, np.float32)
    bound = cls(p, n_threads=1, **options).step
    return of_step(lambda p, g, m, v, t: bound(g))


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


def nanoseconds(run: Callable[..., None], count: int) -> float:
    """The median of 21 rounds of `count` calls, a call."""
    p, g, m, v = np.ones((4, SIZE), np.float32)
    run(count, p, g, m, v)
    rounds = []
    for _ in range(21):
        start = time.perf_counter()
        run(count, p, g, m, v)
        rounds.append((time.perf_counter() - start) / count * 1e9)
    return float(np.median(rounds))


def own_rule_share(cls, size: int) -> tuple[float, float]:
    """Microseconds of a step by the built-in Adam and by the same rule as one's own, default threads, in turn."""
    g = np.random.default_rng(0).standard_normal(size, np.float32)
    optimizers = [fastadam.Adam(np.ones(size, np.float32)), cls(np.ones(size, np.float32))]
    taken: list[list[float]] = [[], []]
    calls = max(3, 20_000_000 // (size + 20_000))
    for _ in range(11):
        for k, optimizer in enumerate(optimizers):
            optimizer.step(g)
            start = time.perf_counter()
            for _ in range(calls):
                optimizer.step(g)
            taken[k].append((time.perf_counter() - start) / calls * 1e6)
    built_in, own = np.median(taken, axis=1)
    return float(built_in), float(own)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        own = fastadam.optimizer(rules.adam, rules.adam_scalars, ["m", "v"], **OPTIONS)
        doors = [
            ("`fastadam.Adam(p).step(g)`", of_class(fastadam.Adam), 20_000),
            ("a rule of your own, `.step(g)`", of_class(own), 20_000),
            ("`functional.adam(p, g, m, v, t)`", of_step(functional.adam), 2_000),
            ("`adam_step(…)` within `@njit`", repeat, 200_000),
            ("`fastadam_adam_f32(…)` in C or Cython", cython_client(folder).repeat, 200_000),
        ]
        print("| one Adam step of 16 float32 elements | ns |\n|---|---|")
        for name, run, count in doors:
            print(f"| {name} | {nanoseconds(run, count):,.0f} |")
    print("\n| Adam as a rule of your own | built-in, µs | own, µs | own / built-in |\n|---|---|---|---|")
    for size in (10_000, 1_000_000, 16_000_000):
        built_in, mine = own_rule_share(own, size)
        print(f"| {size:,} elements | {built_in:,.1f} | {mine:,.1f} | {mine / built_in:.2f} |")


if __name__ == "__main__":
    main()
