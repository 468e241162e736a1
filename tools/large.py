"""Arrays of more elements than 32 bits count, in steps and a file: each element is what small arrays give.
`python tools/large.py [--memory GiB]` does what fits in that much, by default in what is free, and says what it did.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastadam

GIB = 1 << 30
BEYOND = (1 << 31) + 8192 * 3 + 5  # the last tile is not whole
#: elements around these begin with values of their own, all others with zero
BORDERS = (0, 1 << 16, 1 << 31, 1 << 32)
WINDOW = 5_000


def descent(p: Any, g: Any, lr: Any) -> Any:
    """Gradient descent, which has no state to take memory."""
    return (p - lr * g,)


Descent = fastadam.optimizer(descent, lambda t, lr: (lr,), (), lr=0.25)


class Case(NamedTuple):
    """An array to be stepped."""

    name: str
    cls: type[fastadam.Optimizer]
    dtype: str
    shape: tuple[int, ...]
    memory: float  # in GiB, of the array and its states
    rest: int = 1  # as many elements of a buffer are stepped over as make this a stride
    in_file: bool = False


CASES = [
    Case("float16, to a file and back", Descent, "float16", (BEYOND,), 4.2, in_file=True),
    Case("float32 in rows", Descent, "float32", (BEYOND // 4099 + 1, 4099), 8.2),
    Case("every second of float16", Descent, "float16", (BEYOND,), 8.2, rest=2),
    Case("float16 beyond 2**32", Descent, "float16", ((1 << 32) + 77,), 8.2),
    Case("float16 and a float32 state", fastadam.Adagrad, "float16", (BEYOND,), 12.3),
    Case("float32 and its state", fastadam.Adagrad, "float32", (BEYOND,), 16.4),
    Case("float32 and two states", fastadam.Adam, "float32", (BEYOND,), 24.5),
]


def windows(size: int) -> list[slice]:
    """Around the borders, and at the end."""
    inner = [slice(max(0, k - WINDOW), k + WINDOW) for k in BORDERS if k + WINDOW < size - WINDOW]
    return [*inner, slice(size - WINDOW, size)]


def expected(case: Case, first: np.ndarray, grads: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """What a small array becomes, and its states."""
    p = first.copy()
    opt = case.cls(p, lr=0.25, n_threads=1)
    for g in grads:
        opt.step(g)
    return p, [arrays[0] for arrays in opt.state.values()]


def check(case: Case, opt: fastadam.Optimizer, p: np.ndarray, steps: list[np.ndarray]) -> None:
    """Compare every element of the parameter and the states; `steps` are the rows of gradients that there were."""
    width = case.shape[-1] if len(case.shape) > 1 else 1
    flat = [array.reshape(-1) if array.flags.c_contiguous else array for array in (p, *of_state(opt))]
    zero, its_states = expected(case, np.zeros(width, case.dtype), steps)
    rows = (1 << 22) // width
    differ = np.zeros(0, np.int64)
    for array, value in zip(flat, (zero, *its_states), strict=True):
        pattern = np.tile(value, rows)
        for begin in range(0, array.size, pattern.size):
            part = array[begin : begin + pattern.size]
            found = np.flatnonzero(part != pattern[: part.size]) + begin
            differ = np.union1d(differ, found) if found.size else differ
    inside = np.zeros(differ.shape, bool)
    for window in windows(p.size):
        inside |= (differ >= window.start) & (differ < window.stop)
        place = np.arange(window.start, window.stop) % width
        own = expected(case, start(case, window), [g[place] for g in steps])
        for array, value in zip(flat, (own[0], *own[1]), strict=True):
            np.testing.assert_array_equal(array[window], value)
    assert inside.all(), f"wrong at {differ[~inside][:10]}"


def of_state(opt: fastadam.Optimizer) -> list[np.ndarray]:
    return [arrays[0] for arrays in opt.state.values()]


def start(case: Case, window: slice) -> np.ndarray:
    """The values that the elements of a window begin with."""
    rng = np.random.default_rng(window.start)
    return (rng.standard_normal(window.stop - window.start) + 3).astype(case.dtype)


def play(case: Case) -> None:
    """Two steps of a fresh array, the second with the norm measured; and a file, where there is room for one."""
    size = int(np.prod(case.shape))
    p = np.zeros(size * case.rest, case.dtype)[:: case.rest]
    for window in windows(size):
        p[window] = start(case, window)
    p = p.reshape(case.shape)
    row = np.sin(np.arange(case.shape[-1])).astype(case.dtype) + 1 if p.ndim > 1 else np.full(1, 0.5, case.dtype)
    opt = case.cls(p, lr=0.25)
    opt.step(np.broadcast_to(row, p.shape))
    opt.step(np.broadcast_to(row, p.shape), max_norm=np.inf)
    norm = np.sqrt(np.square(row, dtype=np.float64).sum() * (size / row.size))
    assert abs(opt.grad_norm / norm - 1) < 1e-12, (opt.grad_norm, norm)
    check(case, opt, p, [row, row])
    if case.in_file:
        with tempfile.TemporaryDirectory() as folder:
            if shutil.disk_usage(folder).free < 1.2 * case.memory * GIB:
                print("    no room for the file")
                return
            opt.save(Path(folder) / "large.npz", params=True)
            p[...] = 7
            opt.load(Path(folder) / "large.npz")
            check(case, opt, p, [row, row])


def free() -> float:
    """GiB that may be taken, by the machine's and the control group's word."""
    words = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = [int(words["MemAvailable"].split()[0]) * 1024]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=float, default=free() * 0.9, help="in GiB")
    memory = parser.parse_args().memory
    done = 0
    for case in CASES:
        said = f"{case.name}: {int(np.prod(case.shape)):,} elements, {case.cls.__name__}"
        if case.memory > memory:
            print(f"{said}: LEFT OUT, takes {case.memory} GiB of the {memory:.1f} there are", flush=True)
            continue
        begin = time.perf_counter()
        play(case)
        print(f"{said}: right, {time.perf_counter() - begin:.0f} s", flush=True)
        done += 1
    print(f"large: {done} of {len(CASES)} cases right, {len(CASES) - done} left out")


if __name__ == "__main__":
    main()
