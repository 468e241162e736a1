"""How many threads a step may use: what the caller says, the environment, or what this process may run on.
Read when an optimizer is made.
"""

import math
import os
from pathlib import Path
from typing import Any

#: where Linux (cgroup v2) says how much processor time this process's control group may use
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def resolve(n_threads: int | None) -> int:
    """The number of threads for a new plan; None asks for `default`."""
    return default() if n_threads is None else _positive("n_threads", n_threads)


def default() -> int:
    """``FASTADAM_NUM_THREADS`` where set, else the processors that affinity and cgroup quota leave to this process."""
    setting = os.environ.get("FASTADAM_NUM_THREADS", "")
    if setting:
        return _positive("FASTADAM_NUM_THREADS", int(setting) if setting.isdecimal() else setting)
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        processors = os.cpu_count() or 1
    return max(1, math.ceil(min(processors, _quota())))


def _quota() -> float:
    """The processors that this process's control group may use on average; infinity where there is no limit."""
    try:
        quota, period = CPU_MAX.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # no cgroup v2
        return math.inf


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number >= 1, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
    return value
