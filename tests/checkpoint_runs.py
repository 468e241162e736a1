"""The processes that `test_checkpoint.py` starts, ends and limits: python tests/checkpoint_runs.py NAME ARGUMENT...
Each function is one process, called with its arguments as text. The test compares them with `make` and `gradients`.
"""

import os
import signal
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import Any

import inside
import ml_dtypes
import numpy as np

import fastadam


def make() -> fastadam.Optimizer:
    """Two groups, of several dtypes, states in 16 bits and master weights, at their start."""
    first = {"W": np.linspace(-1, 1, 60_000, dtype=np.float32).reshape(200, 300), "b": np.ones(7, ml_dtypes.bfloat16)}
    last = [np.linspace(1, 2, 5, dtype=np.float32)]
    return fastadam.Adam(
        [{"params": first, "lr": 0.05}, {"params": last, "amsgrad": True}],
        state_dtype="bfloat16",
        master_weights=True,
        seed=3,
        n_threads=1,
    )


def gradients(opt: fastadam.Optimizer, t: int) -> list[np.ndarray]:
    """Those of step t."""
    return [np.sin(p.astype(np.float32) + t) for p in inside.planned(opt)]


def advance(opt: fastadam.Optimizer, last: int) -> None:
    """All steps up to `last`."""
    while opt.t < last:
        opt.step(gradients(opt, opt.t + 1))


def run(path: str, last: str) -> None:
    """Go on from the file, where there is one, up to step `last`, saving after each."""
    opt = make()
    if Path(path).exists():
        opt.load(path)
    print("begins", flush=True)
    while opt.t < int(last):
        advance(opt, opt.t + 1)
        opt.save(path, params=True)


def die(path: str, name: str, count: str) -> None:
    """Make a step and save it, but end as if killed at the `count`th call of a function within `save`."""
    opt = make()
    opt.load(path)
    advance(opt, opt.t + 1)
    of = {"crc32": zlib, "fsync": os, "replace": os}[name]
    real, calls = getattr(of, name), 0

    def deadly(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(of, name, deadly)
    opt.save(path, params=True)


def die_in_a_step(folder: str) -> None:
    """End as if killed within the third step of states in a folder."""

    begun = []

    def rate(t: float, lr: float) -> tuple[float]:
        begun.append(t)
        return (lr,)

    def update(p: Any, g: Any, b: Any, lr: Any) -> tuple[Any, Any]:
        if begun[-1:] == [3.0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return p - lr * (b + g), b + g

    dying = fastadam.optimizer(update, rate, ["b"], lr=0.1)
    opt = dying(np.ones(5), backend="numpy", state_dir=folder)
    while True:
        opt.step(np.ones(5))


def many_states(folder: str, n: str) -> None:
    """Many parameters with states in a folder, under a limit of descriptors that is far below their number."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    params, others, grads = ([np.full(3, k, np.float32) for k in range(int(n))] for _ in range(3))
    opt = None
    for _ in range(2):
        opt = None  # the folder is unlocked
        before = len(os.listdir("/proc/self/fd"))
        opt = fastadam.Adam(params, state_dir=folder)
        print(f"{opt.t}: {len(os.listdir('/proc/self/fd')) - before} more")
        opt.step(grads)
        opt.step(grads)
    twin = fastadam.Adam(others)
    for _ in range(4):
        twin.step(grads)
    pairs = zip(opt.state["v"], twin.state["v"], strict=True)
    print("right" if all((one == other).all() for one, other in pairs) else "wrong")


def within_limit(folder: str) -> None:
    """Parameters mapped from a file, whose states do not fit in memory: in a folder they step, are saved and loaded."""
    import resource

    mib, at = 128, Path(folder)
    status = Path("/proc/self/status").read_text().splitlines()
    (has,) = (int(line.split()[1]) for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, ((has << 10) + ((mib - 4) << 20), resource.RLIM_INFINITY))
    p, g = (np.memmap(at / name, np.float32, "w+", shape=(mib, 1 << 18)) for name in ("p", "g"))
    g[:] = np.linspace(-1, 1, p.shape[1], dtype=np.float32)
    try:
        fastadam.Adam(p, n_threads=2)
    except MemoryError as error:
        print(f"MemoryError: {error}")
    opt = fastadam.Adam(p, n_threads=2, state_dir=at / "states")
    opt.step(g)
    opt.step(g)
    opt.save(at / "state.npz")
    opt.step(g)
    del opt
    opt = fastadam.Adam(p, n_threads=2, state_dir=at / "states")
    print("goes on from", opt.t)
    opt.step(g)
    row = np.zeros(p.shape[1], np.float32)
    small = fastadam.Adam(row)
    for _ in range(4):
        small.step(g[0].copy())
    arrays = [p, opt.state["m"][0], opt.state["v"][0]]
    expected = [row, small.state["m"][0], small.state["v"][0]]
    print("right:", all((found == right).all() for a, right in zip(arrays, expected, strict=True) for found in a))
    del opt, arrays
    back = fastadam.Adam(p, n_threads=2, state_dir=at / "others")
    back.load(at / "state.npz", params=False)
    beginning = fastadam.Adam(np.zeros_like(row))
    for _ in range(2):
        beginning.step(g[0].copy())
    print("loaded:", back.t, all((found == beginning.state["v"][0]).all() for found in back.state["v"][0]))


def _limited(more: int) -> None:
    """Allow this process so many bytes of addresses in addition to those that it has."""
    import resource

    (has,) = (
        int(line.split()[1]) << 10
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmSize:")
    )
    resource.setrlimit(resource.RLIMIT_AS, (has + more, resource.RLIM_INFINITY))


def _large(value: float) -> fastadam.Optimizer:
    """An optimizer of two arrays of 64 MiB, the second in rows that are not contiguous."""
    strided = np.full((1 << 10, 1 << 14), value, np.float32)[:, ::2][:, : 1 << 13]
    return fastadam.SGD({"W": np.full((1 << 10, 1 << 14), value, np.float32), "s": strided}, lr=0.1, n_threads=1)


def save_in_little_memory(path: str) -> None:
    """Save where there is no memory for a copy of an array, and load the file afterwards."""
    import resource

    opt, again = _large(0.5), _large(0.0)
    _limited(24 << 20)
    opt.save(path, params=True)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again.load(path)
    print("right" if all((p == 0.5).all() for p in inside.params(again)) else "wrong")


def load_in_little_memory(path: str) -> None:
    """Load where there is no memory for an array: it fails, and nothing has changed. Python without a GIL may have
    so many addresses in reserve that all is loaded."""
    _large(0.5).save(path, params=True)
    opt, expected = _large(0.0), 0.5 if sysconfig.get_config_var("Py_GIL_DISABLED") else np.nan
    _limited(24 << 20)
    try:
        opt.load(path)
    except (MemoryError, OSError):
        expected = 0.0
    print("right" if all((p == expected).all() for p in inside.params(opt)) else "wrong")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
