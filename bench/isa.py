"""The time of one Adam step of 10,000 elements, in cache, on one thread, in the instruction set of this process.
`FASTADAM_ISA=base python bench/isa.py` prints its name and nanoseconds an element, float32 and float64.
"""

import time

import numpy as np

from fastadam.bench.contestants import of_fastadam
from fastadam.bench.measure import arrays
from fastadam.kernel import backends


def nanoseconds(dtype: str, size: int = 10_000) -> float:
    """The median of 15 rounds, an element."""
    step = of_fastadam(n_threads=1)(*arrays(1, size, dtype))
    rounds = []
    for _ in range(15):
        start = time.perf_counter()
        for _ in range(500):
            step()
        rounds.append((time.perf_counter() - start) / 500 / size * 1e9)
    return float(np.median(rounds))


if __name__ == "__main__":
    print(backends.ISA, nanoseconds("float32"), nanoseconds("float64"))
