"""Refuses an sdist or a wheel that lacks a file that it should hold, or holds one that it should not.
What they should hold is what git has. Usage: check_dist.py FILE...
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

#: what the build generates for users of the C interface
GENERATED = {"fastadam/capi.pxd", "fastadam/include/fastadam.h"}
#: what no user of an sdist needs
LEFT_OUT = (".", "recipe/")
#: what a wheel holds of the sources
IN_WHEEL = ("*.py", "*.pyi", "fastadam/*.pxd", "py.typed")
COMPILED = (".so", ".pyd")


def names(path: str) -> set[str]:
    """The files that a distribution holds."""
    if path.endswith(".whl"):
        return set(zipfile.ZipFile(path).namelist())
    with tarfile.open(path) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}


def faults(path: str, tracked: set[str]) -> list[str]:
    """What is wrong with one distribution."""
    held = names(path)
    compiled = {name for name in held if name.endswith(COMPILED)}
    if path.endswith(".whl"):
        package = [Path(name) for name in tracked if name.startswith("fastadam/")]
        wanted = {file.as_posix() for file in package if any(file.match(pattern) for pattern in IN_WHEEL)}
        unwanted = {name for name in held if name.endswith((".c", ".pyx"))}
        missing = [] if compiled else [f"{path} holds no compiled module"]
    else:
        wanted, unwanted, missing = {name for name in tracked if not name.startswith(LEFT_OUT)}, compiled, []
    lacks = [f"{path} lacks {name}" for name in sorted(wanted | GENERATED) if name not in held]
    return missing + lacks + [f"{path} holds {name}" for name in sorted(unwanted)]


def main(paths: list[str]) -> int:
    """Print what is wrong; the exit status."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    wrong = [fault for path in paths for fault in faults(path, set(listed.stdout.splitlines()))]
    print("\n".join(wrong) or f"{len(paths)} distributions hold what they should")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
