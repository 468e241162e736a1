"""How many threads a step may use: what the caller says, the environment, or what this process may run on.
Read when an optimizer is made.
"""

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from . import checks
from ._tiles import MAX_THREADS

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def resolve(name: str, n_threads: int | None) -> int:
    """The number of threads for a new plan; None asks for `default`, and more than a build can use is the most."""
    return default() if n_threads is None else _count(name, n_threads)


def default(processors: int | None = None, sharers: int = 1) -> int:
    """``FASTADAM_NUM_THREADS`` where set, else the processors that affinity and cgroup quota leave to this process;
    where they are left to several, this one's part."""
    setting = os.environ.get("FASTADAM_NUM_THREADS", "")
    if setting:
        return _count("FASTADAM_NUM_THREADS", int(setting) if setting.isdecimal() else setting)
    available = min(len(affinity()) if processors is None else processors, _quota())
    return max(1, min(math.ceil(available / sharers), MAX_THREADS))


def affinity() -> set[int]:
    """The processors that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # macOS and Windows have no such call
        return set(range(os.cpu_count() or 1))


def _count(name: str, value: Any) -> int:
    return min(checks.whole(name, value, 1), MAX_THREADS)


@cache  # reading it takes longer than many a step
def _quota() -> float:
    """The processors that this process's control groups may use on average; infinity where there is no limit."""
    return min((_limit(path) for path in _limit_files()), default=math.inf)


def _limit_files() -> Iterator[Path]:
    """Where Linux keeps the limits: of this process's group and all groups around it, in cgroup v2 and v1."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root, name = (CGROUP, "cpu.max") if not controllers else (CGROUP / "cpu", "cpu.cfs_quota_us")
            group = root / path.lstrip("/")
            yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(root))


def _limit(path: Path) -> float:
    try:
        if path.name == "cpu.max":
            quota, period = path.read_text().split()
        else:
            quota, period = path.read_text(), path.with_name("cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else math.inf
    except (OSError, ValueError):  # a group without a limit has no file
        return math.inf
