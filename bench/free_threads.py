"""How many times one thread's steps two threads make, each with an optimizer of its own, where Python has no GIL.
Run `python bench/free_threads.py`: it prints medians of interleaved rounds, and whether the GIL is on. Processes
are the yardstick: they share nothing, so what two of them gain is what the machine has to give.
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


def count_steps(n: int, seconds: float, barrier: Any, found: Any) -> None:
    """Make an optimizer of `n` elements here, wait for the others, step it for a while, and tell the steps a second."""
    g, done = np.ones(n, np.float32), 0
    opt = fastadam.Adam(np.zeros(n, np.float32), n_threads=1)
    barrier.wait()
    begin = time.perf_counter()
    while (end := time.perf_counter()) - begin < seconds:
        for _ in range(100):
            opt.step(g)
        done += 100
    found.put(done / (end - begin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2)
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    ways: dict[str, Any] = {"threads": threading, "processes": spawn}
    rounds: dict[tuple[str, int], list[float]] = {(way, count): [] for way in ways for count in (1, 2)}
    for _ in range(given.rounds):
        for (way, count), rates in rounds.items():
            arguments = given.elements, given.seconds, ways[way].Barrier(count), queue
            make = getattr(ways[way], "Process", threading.Thread)
            workers = [make(target=count_steps, args=arguments) for _ in range(count)]
            for worker in workers:
                worker.start()
            rates.append(sum(queue.get() for _ in workers))
            for worker in workers:
                worker.join()
    gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    print(f"Python {sys.version.split()[0]}, GIL {gil}; Adam, {given.elements} float32 elements")
    for way in ways:
        one, two = (statistics.median(rounds[way, count]) for count in (1, 2))
        print(f"{way}: one makes {one:,.0f} steps/s, two {two:,.0f}: {two / one:.2f} times")


if __name__ == "__main__":
    main()
