"""Runs the test suites of other libraries with fastadam's optimizers in the place of their own, and counts outcomes.

    python tools/peers.py                         # all suites that are installed
    python tools/peers.py sklearn thinc           # those that are named
    python tools/peers.py --torch-tests FOLDER    # with torch's tests: the folder `test` of its sources
    python tools/peers.py --fetch                 # the same, of Debian's source package of torch
    python tools/peers.py --write docs/reports/peers.json

A suite runs once with fastadam. A test that fails runs again with the library's own optimizers. tools/peers.toml lists
the differences that are expected, with a reason each. The exit status is 1 if there is another failure.

The columns of the table:

- **passed**: the test made or stepped an optimizer of fastadam, and passed;
- **idle**: the test passed without that, so it says nothing about fastadam;
- **expected**: the test failed, as tools/peers.toml says;
- **theirs**: the test fails with the library's own optimizers, too;
- **failed**: any other failure;
- **skipped**: by the suite itself, for example because it needs a GPU.

There is no network call without `--fetch`. The suites need pytest; those of torch need expecttest, too.
The extra `test` and the dependency group `peers` of pyproject.toml bring all.
"""

import argparse
import fnmatch
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = Path(__file__).resolve().parent
COLUMNS = ("passed", "idle", "expected", "theirs", "failed", "skipped")
#: what a test may end with, the gravest last
GRAVER = ("skipped", "idle", "passed", "failed")
#: files below the folder `test` of torch's sources; test_optim.py imports some of optim/
TORCH_FILES = ("test_*optim.py", "optim/test_*.py", "nn/test_lazy_modules.py")


class Suite(NamedTuple):
    """Test files of a library, and the adapter that takes the place of its optimizers."""

    name: str
    library: str  #: as peers_plugin.py names it
    package: str  #: as pip names it
    folder: Path  #: where pytest starts
    files: tuple[str, ...]


class Expected(NamedTuple):
    """An expected difference."""

    pattern: str
    reason: str


Outcomes = dict[str, tuple[str, str]]  # test -> outcome or column, and what went wrong or why it is expected


def wheel(name: str, package: str, *files: str) -> Suite | None:
    """Tests that the wheel of a library brings; None if it is not installed."""
    try:
        folder = Path(str(importlib.metadata.distribution(package).locate_file("")))
    except importlib.metadata.PackageNotFoundError:
        return None
    return Suite(name, name, package, folder, files)


def suites(torch_tests: Path | None) -> dict[str, Suite | None]:
    """All suites by name, None for those that are not there."""
    mlp = "sklearn/neural_network/tests/test_mlp.py"
    layers = [f"thinc/tests/layers/{name}.py" for name in ("test_sparse_linear", "test_basic_tagger")]
    torch = wheel("torch", "torch")
    found = {
        "sklearn": wheel("sklearn", "scikit-learn", mlp),
        "thinc": wheel("thinc", "thinc", "thinc/tests/test_optimizers.py", *layers),
        "torch": torch and torch._replace(folder=TOOLS, files=("peers_torch.py",)),
        "torch-tests": None,
    }
    if torch and torch_tests:
        found["torch-tests"] = Suite("torch-tests", "torch_tests", "torch", torch_tests, torch_files(torch_tests))
    return found


def torch_files(folder: Path) -> tuple[str, ...]:
    """The files of torch's tests that concern optimizers, without those whose tests test_optim.py imports."""
    first = folder / "test_optim.py"
    if not first.exists():
        raise SystemExit(f"{folder}: expected the folder `test` of torch's sources, with test_optim.py")
    imported = set(re.findall(r"^from optim\.(\w+) import", first.read_text(), re.MULTILINE))
    found = [path for pattern in TORCH_FILES for path in sorted(folder.glob(pattern))]
    return tuple(str(p.relative_to(folder)) for p in found if p.parent.name != "optim" or p.stem not in imported)


def fetch_torch(work: Path, release: str) -> Path:
    """The folder `test` of Debian's source package of torch, with lists of apt's own below a temporary folder."""
    apt, tests = work / "apt", work / "test"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    tests.mkdir()
    (apt / "status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "list").write_text(f"deb-src [signed-by={keys}] http://deb.debian.org/debian {release} main\n")
    options = {"APT::Sandbox::User": "root", "Dir::State": apt, "Dir::State::status": apt / "status"}
    options |= {"Dir::Cache": apt / "cache", "Dir::Etc::sourcelist": apt / "list", "Dir::Etc::sourceparts": "/dev/null"}
    command = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    for arguments in (["update"], ["--download-only", "source", "pytorch"]):
        subprocess.run([*command, *arguments], cwd=apt, check=True, stdout=subprocess.DEVNULL)
    [archive] = apt.glob("pytorch_*.orig.tar.xz")
    unpack = ["tar", "-xJf", archive, "-C", tests, "--strip-components", "2", "--wildcards"]
    subprocess.run([*unpack, *(f"*/test/{name}" for name in TORCH_FILES)], check=True)
    return tests


def play(suite: Suite, library: str, tests: Iterable[str]) -> Outcomes:
    """Run these tests by pytest, with fastadam in the place of this library's optimizers, or of none."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "outcomes")
        out.touch()
        paths = [str(TOOLS), os.environ.get("PYTHONPATH", ""), str(TOOLS.parent)]
        # One thread: torch's threads wait for each other where processors are few.
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        variables |= {"FASTADAM_PEERS": library, "FASTADAM_PEERS_OUT": str(out), "PYTHONDONTWRITEBYTECODE": "1"}
        options = ["-q", "-ppeers_plugin", "-pno:cacheprovider", "-pno:xdist", "--continue-on-collection-errors"]
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, "-c", os.devnull, f"--rootdir={suite.folder}", *tests],
            cwd=suite.folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        found: Outcomes = {}
        for line in out.read_text().splitlines():
            test, outcome, text = json.loads(line)
            if GRAVER.index(outcome) >= GRAVER.index(found.get(test, ("skipped",))[0]):
                found[test] = outcome, text
        if ended.returncode not in (0, 1):  # pytest's own codes for passed and failed tests
            last = (ended.stdout + ended.stderr)[-600:]
            found["pytest"] = "failed", f"ended with {ended.returncode}: {last}"
        return found


def judged(ours: Outcomes, theirs: Outcomes, expected: Iterable[Expected]) -> Outcomes:
    """Test -> its column in the table, with the reason or the error."""
    found = {}
    for test, (outcome, text) in ours.items():
        reason = next((own.reason for own in expected if matches(own, test)), None)
        if outcome != "failed":
            found[test] = outcome, text
        elif theirs.get(test, ("", ""))[0] == "failed":
            found[test] = "theirs", theirs[test][1]
        else:
            found[test] = ("failed", text) if reason is None else ("expected", reason)
    return found


def matches(expected: Expected, test: str) -> bool:
    return fnmatch.fnmatchcase(test, f"*{expected.pattern}")


def stale(found: Outcomes, expected: Iterable[Expected]) -> list[str]:
    """The expected differences that are none, each with what is wrong about it."""
    wrong = []
    for own in expected:
        outcomes = [outcome for test, (outcome, _) in found.items() if matches(own, test)]
        if "expected" not in outcomes:
            wrong.append(f"{own.pattern}: {'passes now' if outcomes else 'is no test of this version'}")
    return wrong


def read_expected(path: Path) -> dict[str, list[Expected]]:
    """Suite -> its expected differences."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        suite: [Expected(pattern, entry["reason"]) for entry in own for pattern in entry["tests"]]
        for suite, own in entries.items()
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The counts as a table of Markdown."""
    titles = ["suite", "version", *COLUMNS]
    lines = [titles, ["---"] * len(titles), *([str(row[title]) for title in titles] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def measure(suite: Suite, expected: list[Expected]) -> dict[str, Any]:
    """The row of a suite. What needs attention is printed."""
    ours = play(suite, suite.library, suite.files)
    # A module that cannot be imported, and pytest itself, have no "::": they fail whatever is replaced.
    failed = [test for test, (outcome, _) in ours.items() if outcome == "failed" and "::" in test]
    found = judged(ours, play(suite, "", failed) if failed else {}, expected)
    for test, (outcome, text) in found.items():
        if outcome == "failed":
            print(f"{suite.name}: FAILED {test}: {text}")
    for line in stale(found, expected):
        print(f"{suite.name}: expected difference {line}")
    counts = Counter(outcome for outcome, _ in found.values())
    reasons = Counter(text for outcome, text in found.values() if outcome == "expected")
    row = {"suite": suite.name, "version": importlib.metadata.version(suite.package)}
    return row | {column: counts[column] for column in COLUMNS} | {"reasons": dict(reasons)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "suites", nargs="*", help="sklearn, thinc, torch (its installed cases), torch-tests; default: all"
    )
    parser.add_argument("--torch-tests", type=Path, metavar="FOLDER", help="the folder `test` of torch's sources")
    parser.add_argument("--fetch", nargs="?", const="trixie", metavar="RELEASE", help="torch's sources, of Debian")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write counts and reasons as JSON; rows of other suites stay"
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        try:
            folder = fetch_torch(Path(work), given.fetch) if given.fetch else given.torch_tests
        except subprocess.CalledProcessError as error:
            parser.error(
                f"--fetch {given.fetch}: {error.cmd[0]} failed; another release of Debian may have the sources"
            )
        known = suites(folder and folder.resolve())
        if unknown := set(given.suites) - known.keys():
            parser.error(f"{', '.join(sorted(unknown))}: no suite; there are {', '.join(known)}")
        missing = [name for name in given.suites or known if known[name] is None]
        print(*(f"{name}: NOT RUN: not there" for name in missing), sep="\n", end="\n" if missing else "")
        expected = read_expected(TOOLS / "peers.toml")
        chosen = [suite for name in given.suites or known if (suite := known[name])]
        rows = [measure(suite, expected.get(suite.name, [])) for suite in chosen]
    print(table(rows))
    if given.write:
        kept = json.loads(given.write.read_text(encoding="utf-8")) if given.write.exists() else []
        by_name = {row["suite"]: row for row in (*kept, *rows)}
        given.write.write_text(json.dumps([*by_name.values()], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(row["failed"] for row in rows) or bool(given.suites and missing) or not rows)


if __name__ == "__main__":
    raise SystemExit(main())
