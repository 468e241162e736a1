"""Seconds to save and load very many small arrays: `python bench/checkpoints.py --count 100000`."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastadam


def timed(what: str, call: Callable[[], Any]) -> Any:
    """The result of the call. Prints its seconds: elapsed, and of the processor."""
    begin, used = time.perf_counter(), time.process_time()
    result = call()
    print(f"{what:20} {time.perf_counter() - begin:6.2f} s, processor {time.process_time() - used:6.2f} s")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="parameters of Adam (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4, help="elements of each (default: %(default)s)")
    asked = parser.parse_args()
    opt = fastadam.Adam([np.ones(asked.size, np.float32) for _ in range(asked.count)])
    opt.step([np.ones(asked.size, np.float32)] * asked.count)
    print(f"{3 * asked.count:,} arrays of {asked.size} elements")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".npz", ".safetensors"):
            path = Path(folder) / f"state{suffix}"
            timed(f"save {suffix}", lambda: opt.save(path, params=True))  # noqa: B023
            timed(f"load {suffix}", lambda: opt.load(path, params=True))  # noqa: B023
    told = timed("state_dict", opt.state_dict)
    timed("load_state_dict", lambda: opt.load_state_dict(told))


if __name__ == "__main__":
    main()
