"""Adam with parameters and states that are larger than the memory of the process: all of them are memory-mapped files.
Run it (--help lists the options). It limits its own memory, steps, and then continues from the folder of the states.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fastadam

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def limit_memory(more: int) -> bool:
    """Allow this process `more` MiB in addition to its present memory. Mapped files do not count. Linux only."""
    status = Path("/proc/self/status")
    if resource is None or not status.exists():
        return False
    (has,) = (int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (has + (more << 20), resource.RLIM_INFINITY))
    return True


def descend(params: np.ndarray, grads: np.ndarray, states: Path, steps: int) -> None:
    """Minimize |params - 1|² / 2 by `steps` steps, which continue from the states in the folder."""
    opt = fastadam.Adam(params, lr=0.1, grads=grads, state_dir=states, n_threads=2)
    begun = opt.t
    for _ in range(steps):
        np.subtract(params, 1, out=grads)
        opt.step()
    print(f"  steps {begun + 1} to {opt.t} done: params[0] = {params.flat[0]:.6f}")


def run(folder: Path, size: int, memory: int, steps: int) -> None:
    """Run the whole example, with files of `size` MiB."""
    shape = (size, 1 << 18)  # each row is one MiB of float32
    is_limited = limit_memory(memory)
    print(f"memory: {f'{memory} MiB more than now' if is_limited else 'not limited on this system'}")
    print(f"params: {size} MiB, as much of gradients, twice as much of states")
    params, grads = (np.memmap(folder / name, np.float32, "w+", shape=shape) for name in ("params", "grads"))
    try:
        fastadam.Adam(params)
    except MemoryError as error:
        print(f"without state_dir: MemoryError: {error}")
    print("with state_dir:")
    descend(params, grads, folder / "states", steps)
    print("another optimizer goes on from that folder, as another process would:")
    descend(params, grads, folder / "states", steps)
    alone = np.zeros(1, np.float32)
    opt = fastadam.Adam(alone, lr=0.1)
    for _ in range(2 * steps):
        opt.step(alone - 1)
    print(f"every element is where a small array's would be: {all((row == alone).all() for row in params)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="MiB of parameters (default: %(default)s)")
    parser.add_argument("--memory", type=int, default=48, help="MiB that may be used for all else (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps of each optimizer (%(default)s)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="larger-than-memory-", ignore_cleanup_errors=True) as folder:
        run(Path(folder), chosen.size, chosen.memory, chosen.steps)


if __name__ == "__main__":
    main()
