"""Random work for some minutes: memory, threads and descriptors must not grow, and each result must be the serial one.
`python tools/soak.py --seconds 60 [--seed 0]`; Linux only, whose /proc tells what a process has.
"""

import argparse
import contextlib
import copy
import gc
import os
import pickle
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside
import numpy as np
from cases import CASES, arrays_of, make

import fastadam

#: what memory may grow by once every kind of work has been done: the allocator's own unrest
ALLOWED_MIB = 32
WARM_UP = 0.25  # of the time
SHAPES = [(3,), (0,), (), (4, 5), (40_000,), (1000, 33), (70_001,)]


class Run:
    """One optimizer, the gradients that its steps have had, and what it may be put through."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.rng, self.folder = rng, folder
        self.case = rng.choice(sorted(CASES.keys() - {"schedule"}))  # a lambda cannot be pickled
        self.dtype = rng.choice(["float32", "float64", "float16"])
        self.shapes = rng.choices(SHAPES, k=rng.randint(1, 6))
        self.had: list[float] = []
        self.more: dict[str, Any] = {"master_weights": rng.random() < 0.3}
        if self.dtype != "float64" and rng.random() < 0.3:
            self.more["state_dtype"] = "bfloat16"
        self.opt = self.made(
            backend=rng.choices(["cython", "numba", "numpy"], [8, 2, 1])[0],
            n_threads=rng.choice([1, 2, 4, 8]),
            **({"state_dir": folder / "states"} if rng.random() < 0.2 else {}),
        )

    def made(self, **how: Any) -> fastadam.Optimizer:
        return make(self.case, [np.ones(shape, self.dtype) for shape in self.shapes], **self.more, **how)

    def grads(self, value: float) -> list[np.ndarray]:
        return [np.full(shape, value, self.dtype) for shape in self.shapes]

    def step(self) -> None:
        self.had.append(self.rng.uniform(-1, 1))
        self.opt.step(self.grads(self.had[-1]), zero_grads=self.rng.random() < 0.2)

    def check(self) -> None:
        """The same as so many steps of another one."""
        other = self.made(n_threads=1)
        assert self.opt.t == len(self.had)
        for value in self.had:
            other.step(self.grads(value))
        for one, another in zip(arrays_of(self.opt), arrays_of(other), strict=True):
            np.testing.assert_array_equal(one, another)

    # What may be done, each by chance.

    def steps(self) -> None:
        for _ in range(self.rng.randint(1, 5)):
            self.step()

    def by_file(self) -> None:
        path = self.folder / self.rng.choice(["a.npz", "a.safetensors"])
        self.opt.save(path, params=True)
        self.step()
        self.opt.load(path)
        self.had.pop()

    def by_dict(self) -> None:
        params, told = copy.deepcopy(inside.params(self.opt)), self.opt.state_dict()
        self.step()
        self.opt.load_state_dict(told)
        self.had.pop()
        for p, kept in zip(inside.params(self.opt), params, strict=True):
            p[...] = kept

    def copies(self) -> None:
        copied = self.rng.choice([copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
        self.opt = copied(self.opt)

    def errors(self) -> None:
        file = self.folder / "file"
        file.touch()
        for call in (
            lambda: self.opt.step([]),
            lambda: self.opt.step(["no gradient"] * len(self.shapes)),
            lambda: setattr(self.opt, "lr", -1),
            lambda: self.opt.load(file),
            lambda: self.opt.load_state_dict({"optimizer": "Adam"}),
            lambda: self.opt.add_param_group({"params": [np.ones(2, int)]}),
            lambda: fastadam.Adam(np.ones(3), state_dir=file),
        ):
            try:
                call()
            except (TypeError, ValueError, OSError):
                continue
            raise AssertionError("a mistake was taken")

    def groups(self) -> None:
        """Of another optimizer, since one that is added later counts its own steps."""
        params = [np.ones(shape) for shape in self.shapes]
        opt = fastadam.AdamW(params[:1], lr=lambda t: 1 / t)
        for k in range(1, len(params)):
            opt.add_param_group({"params": [params[k]], "lr": 0.1})
            opt.step([[np.ones(p.shape)] for p in params[: k + 1]], max_norm=1.0)
        assert opt.t == len(params) - 1

    def locked(self) -> None:
        """A folder that is in use is refused, and free again when the optimizer is gone."""
        opt = fastadam.Adam(np.ones(5), state_dir=self.folder / "other")
        with contextlib.suppress(RuntimeError):
            fastadam.Adam(np.ones(5), state_dir=self.folder / "other")
            raise AssertionError("two optimizers in one folder")
        opt.step(np.ones(5))

    def in_threads(self) -> None:
        """Three at once in one optimizer: what is not refused has been done."""

        def work() -> None:
            for _ in range(3):
                with contextlib.suppress(RuntimeError):
                    self.opt.step(self.grads(0.5))
                    self.had.append(0.5)
                with contextlib.suppress(RuntimeError):
                    self.opt.state_dict()

        together([work] * 3)

    def in_a_child(self) -> None:
        """A fork steps a copy of its own."""
        copied = copy.deepcopy(self.opt)
        pid = os.fork()
        if pid == 0:
            try:
                copied.step(self.grads(0.5))
                os._exit(0 if copied.t == self.opt.t + 1 else 3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def together(works: list[Callable[[], None]]) -> None:
    workers = [threading.Thread(target=work) for work in works]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


WORK: list[Callable[[Run], None]] = [
    Run.steps,
    Run.by_file,
    Run.by_dict,
    Run.copies,
    Run.errors,
    Run.groups,
    Run.locked,
    Run.in_threads,
    Run.in_a_child,
]


def rounds(seed: int, count: Counter[str], do: int = 8) -> None:
    """One optimizer's life: made, put through some of all this, compared with one that only steps."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(rng, Path(folder))
        for work in rng.choices(WORK, k=do):
            work(run)
            count[work.__name__] += 1
        run.check()
        count["optimizers"] += 1


def several(seed: int, count: Counter[str]) -> None:
    """Four lives at once, a thread each; without forks, whose children would have half of the others' steps."""
    failed: list[BaseException] = []

    def life(k: int) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                run = Run(random.Random(seed * 4 + k), Path(folder))
                for work in (run.steps, run.by_file, run.copies, run.errors):
                    work()
                run.check()
        except BaseException as error:
            failed.append(error)

    together([lambda k=k: life(k) for k in range(4)])  # type: ignore[misc]
    if failed:
        raise failed[0]
    count["four at once"] += 1


class Measured:
    """What this process has now."""

    def __init__(self) -> None:
        gc.collect()
        self.mib = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        self.threads = len(os.listdir("/proc/self/task"))
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.maps = len(Path("/proc/self/maps").read_text().splitlines())

    def __str__(self) -> str:
        return f"{self.mib:.0f} MiB, {self.threads} threads, {self.descriptors} descriptors, {self.maps} mappings"


def warm(count: Counter[str]) -> None:
    """Every rule on every backend once: what is compiled and kept is no leak."""
    for case in CASES:
        for backend in ("cython", "numba", "numpy"):
            for dtype in ("float32", "float64"):
                opt = make(case, [np.ones(100_000 if backend == "cython" else 10, dtype)], backend=backend, n_threads=8)
                opt.step([np.ones(inside.params(opt)[0].size, dtype)])
    for seed in range(20):
        rounds(-1 - seed, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    count: Counter[str] = Counter()
    warm(count)
    begin = time.monotonic()
    before = None
    seed = given.seed * 1_000_000
    while time.monotonic() < begin + given.seconds:
        several(seed, count) if seed % 5 == 0 else rounds(seed, count)
        seed += 1
        if before is None and time.monotonic() > begin + WARM_UP * given.seconds:
            before = Measured()
    assert before is not None, "more seconds are needed"
    after = Measured()
    done = ", ".join(f"{n} {name}" for name, n in sorted(count.items()))
    print(f"soak: {time.monotonic() - begin:.0f} s, seeds {given.seed * 1_000_000} to {seed - 1}: {done}")
    print(f"soak: {before}; then {after}")
    assert after.mib <= before.mib + ALLOWED_MIB, "memory grows"
    assert after.threads <= before.threads, "threads are left"
    assert after.descriptors <= before.descriptors, "descriptors are left"
    assert after.maps <= before.maps + 100, "mappings are left"


if __name__ == "__main__":
    main()
