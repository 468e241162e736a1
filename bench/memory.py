"""What Adam's states take of a process's memory, as Linux counts it: at rest, and at the peak of its steps.
`python bench/memory.py 100000000 int8` prints bytes a float32 parameter: of the arrays, resident, at the peak.
"""

import sys
from pathlib import Path

import numpy as np

import fastadam

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import inside

MOST = 2.13  #: of two states of 8 bits, with all that a step needs


def resident(peak: bool = False) -> int:
    """The memory of this process that is in use, or the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM" if peak else "VmRSS"))


def bytes_a_parameter(size: int, **options: object) -> tuple[float, float, float]:
    """Of one array: what its states' arrays have, what the process grew by, and by how much at the most."""
    fastadam.Adam(np.ones(100_000, np.float32), **options).step(np.ones(100_000))  # the code itself is in memory now
    p, g = np.ones(size, np.float32), np.full(size, 1e-3, np.float32)
    before = resident()
    opt = fastadam.Adam(p, **options)
    opt.step(g)
    opt.step(g, max_norm=1.0, skip_nonfinite=True)
    arrays = sum(state.nbytes for state in inside.state_arrays(opt))
    return arrays / size, (resident() - before) / size, (resident(peak=True) - before) / size


if __name__ == "__main__":
    print(*bytes_a_parameter(int(sys.argv[1]), state_dtype=sys.argv[2] if len(sys.argv) > 2 else None))
