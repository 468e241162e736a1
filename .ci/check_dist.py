"""Refuses a wheel that holds sources it should not, or lacks what it should; and an sdist that lacks sources.
Usage: check_dist.py FILE...
"""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def names(path: str) -> list[str]:
    """The files that a distribution holds."""
    if path.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            return wheel.namelist()
    with tarfile.open(path) as sdist:
        return [name.partition("/")[2] for name in sdist.getnames()]


def main(paths: list[str]) -> int:
    """Print what is wrong; the exit status."""
    wrong = []
    for path in paths:
        held = names(path)
        wheel = path.endswith(".whl")
        wanted = [str(module.relative_to(ROOT)) for module in (ROOT / "fastadam").rglob("*.py")]
        wanted += ["fastadam/py.typed", "fastadam/kernel/_plan.pyi", "fastadam/adapters/_tensors.pyi"]
        wanted += ["fastadam/capi.pxd", "fastadam/__init__.pxd", "fastadam/include/fastadam.h"]
        wanted += (
            []
            if wheel
            else [
                "setup.py",
                "fastadam/kernel/_plan.pyx",
                "fastadam/adapters/_tensors.pyx",
                "fastadam/kernel/pool.h",
                "tests/cases.py",
                "tools/soak.py",
                "bench/report.py",
            ]
        )
        wrong += [f"{path} lacks {name}" for name in wanted if name not in held]
        wrong += [f"{path} holds {name}" for name in held if name.endswith(".so") and not wheel]
        wrong += [f"{path} holds {name}" for name in held if wheel and name.endswith(".c")]
        wrong += [f"{path} holds no compiled module"] if wheel and not any(".so" in name for name in held) else []
    print("\n".join(wrong) or f"{len(paths)} distributions hold what they should")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
