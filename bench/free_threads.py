"""How many times one thread's steps two threads make, each with an optimizer of its own, where Python has no GIL.
Run `python bench/free_threads.py`: it prints the medians of interleaved rounds, and whether the GIL is on.

Processes are the yardstick: they share nothing, so what two of them gain is what this machine has to give.
"""

import argparse
import multiprocessing
import statistics
import sys
import threading
import time
from typing import Any

import numpy as np

import fastadam

SECONDS = 0.2


def steps_per_second(n: int, barrier: Any, found: Any) -> None:
    """Make an optimizer of `n` elements here, wait for the others, and step it for a while."""
    p, g = np.zeros(n, np.float32), np.ones(n, np.float32)
    opt = fastadam.Adam(p, n_threads=1)
    done = 0
    barrier.wait()
    begin = time.perf_counter()
    while (end := time.perf_counter()) - begin < SECONDS:
        for _ in range(100):
            opt.step(g)
        done += 100
    found.put(done / (end - begin))


def total(kind: Any, barrier_of: Any, queue: Any, workers: int, n: int) -> float:
    """The steps per second of so many workers together, each a thread or a process."""
    barrier = barrier_of(workers)
    all_workers = [kind(target=steps_per_second, args=(n, barrier, queue)) for _ in range(workers)]
    for worker in all_workers:
        worker.start()
    rates = [queue.get() for _ in all_workers]
    for worker in all_workers:
        worker.join()
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    ways = {"threads": (threading.Thread, threading.Barrier), "processes": (spawn.Process, spawn.Barrier)}
    rounds: dict[tuple[str, int], list[float]] = {(way, workers): [] for way in ways for workers in (1, 2)}
    for _ in range(given.rounds):
        for (way, workers), rates in rounds.items():
            rates.append(total(*ways[way], queue, workers, given.elements))
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, GIL {'on' if gil else 'off'}; {given.elements} float32 elements, Adam")
    for way in ways:
        one, two = (statistics.median(rounds[way, workers]) for workers in (1, 2))
        print(f"{way}: one makes {one:,.0f} steps/s, two {two:,.0f}: {two / one:.2f} times")


if __name__ == "__main__":
    main()
