"""Copies of the tree with a fault in them, for tools/mutate.py: made, rebuilt in part, tested, restored."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
#: a test, or a file of tests, in what pytest prints
TEST = r"tests/[^\s:]+(?:::[^\s\[]+(?:\[.*?\])?(?=\s|$))?"
#: by a system that is short of memory, or by a person: the tests run once more
FROM_OUTSIDE = "ended from outside"
#: a test hangs if it uses so many seconds of processors, or lasts so long: other programs may run beside
HANGS, STANDS_STILL = 60, 300

# What setup.py would build, for the baseline of instructions only, with little optimization.
BUILD = """
import sys
from distutils.core import run_setup
import setuptools
wanted = sys.argv[1].split()
made = run_setup("setup.py", ["-q", "build_ext", "--inplace", "--force"], stop_after="commandline")
Build = made.cmdclass["build_ext"]
scope = Build.build_extensions.__globals__
scope["ISAS"][:] = ["base"]
Build.flags = lambda self, isa: ["-O1", "-g0", *scope["GCC"][1:]]
made.ext_modules = [
    e for e in made.ext_modules if not e.name.endswith(("_v3", "_v4")) and (not wanted or e.name in wanted)
]
made.run_commands()
"""


def listed() -> list[str]:
    """The tree's files, without what git ignores."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def stamp() -> str:
    """A hash of all that is tested."""
    digest = hashlib.sha256()
    for name in listed():
        if name.startswith("fastadam/") or name == "setup.py":
            digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()


def copy_tree(place: Path) -> bool:
    """Bring the tree's files there; whether it must be built."""
    known = place.with_name("sources")
    if changed := not known.exists() or known.read_text() != stamp():
        shutil.rmtree(place, ignore_errors=True)
        known.unlink(missing_ok=True)
    for name in listed():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)
    return changed


def restore(clean: Path, place: Path) -> None:
    """Make a copy as the clean tree is."""
    place.mkdir(exist_ok=True)
    for path in clean.rglob("*"):
        own = place / path.relative_to(clean)
        if path.is_dir():
            own.mkdir(parents=True, exist_ok=True)
        elif "__pycache__" not in path.parts:
            a, b = path.stat(), own.stat() if own.exists() else None
            if b is None or (a.st_mtime_ns, a.st_size) != (b.st_mtime_ns, b.st_size):
                shutil.copy2(path, own)


def build(place: Path, modules: list[str], log: Path) -> bool:
    """Build extension modules in a copy, or all; whether it worked."""
    command = [sys.executable, "-c", BUILD, " ".join(modules)]
    with log.open("w") as out:
        return subprocess.run(command, cwd=place, stdout=out, stderr=out, check=False).returncode == 0


def dependents(place: Path, file: str, is_generator: bool) -> list[str]:
    """The extension modules whose machine code a source goes into; the generators' own modules with them."""
    texts = {
        path: path.read_text("utf-8")
        for suffix in ("pyx", "pxd", "h")
        for path in place.rglob(f"fastadam/**/*.{suffix}")
    }
    texts |= {path: path.read_text("utf-8") for path in place.glob("build/temp*/generated/*.pyx")}
    if is_generator:
        return ["fastadam.kernel._sweeps_base", "fastadam.capi", "fastadam.kernel._norms"]
    reached = {place / file}
    while True:
        names = [path.name if path.suffix == ".h" else path.stem for path in reached if path.suffix in (".h", ".pxd")]
        pattern = re.compile(
            r"^.*\b(?:cimport|include|extern from)\b.*\b(?:" + "|".join(map(re.escape, names or ["$"])) + r")\b", re.M
        )
        more = {path for path, text in texts.items() if pattern.search(text)} - reached
        if not more:
            break
        reached |= more
    stems = {path.stem for path in reached if path.suffix != ".h"}
    built = {path.name.split(".")[0]: path for path in (place / "fastadam").rglob("*.so")}
    return sorted(
        ".".join([*path.relative_to(place).parts[:-1], stem]) for stem, path in built.items() if stem in stems
    )


def same_modules(clean: Path, place: Path, modules: list[str]) -> bool:
    """Whether extension modules are the same, byte for byte."""
    paths = [path for name in modules for path in clean.glob(name.replace(".", "/") + ".*.so")]
    return all(path.read_bytes() == (place / path.relative_to(clean)).read_bytes() for path in paths)


class Tests:
    """Runs tests in a copy, and knows which of them fail without any fault."""

    def __init__(self, clean: Path) -> None:
        self.clean, self.lock, self.fails = clean, threading.Lock(), dict[str, bool]()

    def failed(self, place: Path, calls: Iterable[list[str]], limit: float) -> str:
        """The first test that fails in a copy but not in the clean tree, or hangs; empty if none does. All calls of
        pytest together may use so many seconds of processors.
        """
        calls = [*calls]
        while calls and limit > 0:
            unsound = [
                f"--{'deselect' if '::' in test else 'ignore'}={test}" for test, fails in self.fails.items() if fails
            ]
            test, used = self.first(place, calls[0] + unsound, limit)
            if test == FROM_OUTSIDE:
                test, used = self.first(place, calls[0] + unsound, limit)
            limit -= used
            if test and not self.fails_without(test):
                return test
            if not test:
                del calls[0]
        return ""

    def fails_without(self, test: str) -> bool:
        """Whether this test fails without a fault, too."""
        test = re.sub(r" \((hangs|ends the process)\)$", "", test)
        with self.lock:
            if test.startswith("tests/") and test not in self.fails:
                again, _ = self.first(self.clean, [test], 600)
                self.fails[test] = again.startswith("tests/")
                if self.fails[test]:
                    print(f"left out, since it fails without a fault: {test}", flush=True)
            return self.fails.get(test, False)

    def first(self, place: Path, arguments: list[str], limit: float) -> tuple[str, float]:
        """The first test that fails or hangs, empty if none does, and the seconds of processors that it took."""
        kept = place.with_suffix(".tmp")
        shutil.rmtree(kept, ignore_errors=True)
        command = [sys.executable, "-m", "pytest", "-x", "-v", "-n", "0", "-p", "no:cacheprovider", "--tb=no"]
        run = subprocess.Popen(
            [*command, f"--basetemp={kept}", *arguments],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(place), "PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # no file: a test limits the size of files
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        lines: list[str] = []
        reader = threading.Thread(target=collect, args=[run.stdout, lines], daemon=True)
        reader.start()
        ended, used = waited(run, lines, limit)
        reader.join(5)
        said = "".join(lines)
        place.with_suffix(".log").write_text(said)
        if ended == "late":  # what fails then, fails because it was interrupted
            return "", used
        if found := re.search(rf"^(?:FAILED|ERROR) ({TEST})", said, re.M):
            return found[1], used
        started = re.findall(rf"^{TEST}", said, re.M)
        last = started[-1] if started else "the collection of the tests"
        if ended == "hangs":
            return f"{last} (hangs)", used
        if run.returncode in (-signal.SIGKILL, -signal.SIGTERM) and ended == "by itself":
            return FROM_OUTSIDE, used
        return f"{last} (ends the process)" if ended == "by itself" and run.returncode not in (0, 5) else "", used


def collect(stream: IO[str], lines: list[str]) -> None:
    """Read lines until nobody writes any more."""
    with stream:
        for line in stream:
            lines.append(line)  # noqa: PERF402  another thread counts them


def waited(run: subprocess.Popen, lines: list[str], limit: float) -> tuple[str, float]:
    """Until the tests have ended; what hangs, or has had its time, is ended. How, and the seconds of processors."""
    size, since, spent_then, used = -1, time.monotonic(), 0.0, 0.0
    while run.poll() is None:
        now, length, used = time.monotonic(), len(lines), spent(run.pid)
        if length != size:
            size, since, spent_then = length, now, used
        hangs = used - spent_then > HANGS or now - since > STANDS_STILL
        if hangs or used > limit:
            for sent in (signal.SIGINT, signal.SIGKILL):  # by the first, pytest ends what it has started
                os.killpg(run.pid, sent)
                try:
                    run.wait(10)
                    break
                except subprocess.TimeoutExpired:
                    continue
            return "hangs" if hangs else "late", used
        time.sleep(0.05)
    return "by itself", used


def spent(process: int) -> float:
    """The seconds of processors that a process has used, with those of its children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
