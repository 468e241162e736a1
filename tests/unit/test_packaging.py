"""What stands in several files of the packaging agrees: versions, Pythons, packages, files, extras.
A mistake in these would be seen at a release, or by a user.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

import fastadam

WORKFLOWS = ROOT / ".github/workflows"
pytestmark = pytest.mark.skipif(not WORKFLOWS.exists(), reason="this is no clone of the repository")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
METADATA, WHEELS = PROJECT["project"], PROJECT["tool"]["cibuildwheel"]


def found(path: str, pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / path).read_text("utf-8"), re.M)


def test_one_version():
    command = [sys.executable, "-m", "fastadam", "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed == f"fastadam {fastadam.__version__}\n"
    versions = [METADATA["version"], *found("CITATION.cff", "^version: (.*)$")]
    versions += found("recipe/recipe.yaml", "^  version: ([0-9].*)$")
    assert versions == 3 * [fastadam.__version__]


def test_one_summary_of_the_dependencies():
    recipe = found("recipe/recipe.yaml", "^    - ([a-z]+ >=.*)$")
    host = {*PROJECT["build-system"]["requires"], *METADATA["dependencies"]}
    assert {line.replace(" ", "") for line in recipe} == host
    assert found("recipe/recipe.yaml", '^  summary: "(.*)"$') == [METADATA["description"]]
    assert found("recipe/recipe.yaml", '^  python_min: "(.*)"$') == [METADATA["requires-python"].removeprefix(">=")]


def test_pythons_of_the_classifiers_have_wheels_and_are_tested():
    classified = re.findall(r":: (3\.\d+)$", "\n".join(METADATA["classifiers"]), re.M)
    built = [re.sub(r"cp3(\d+t?)-\*", r"3.\1", name) for name in WHEELS["build"]]
    with_gil = [python for python in built if not python.endswith("t")]
    assert with_gil == classified
    assert METADATA["requires-python"] == f">={classified[0]}"
    [row] = found(".github/workflows/tests.yml", r"python: \[(.*)\]$")
    assert re.findall(r'"(.*?)"', row) == classified
    assert set(found(".github/workflows/tests.yml", r"python: (3\.\d+t)")) == set(built) - set(with_gil)


def test_packages_are_the_folders_with_an_init():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "fastadam").rglob("__init__.py")}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(".".join(folder.parts) for folder in folders)


def test_what_wheels_are_tested_with_exists():
    program, *files = shlex.split(WHEELS["test-command"])
    assert program == "pytest"
    assert [name for name in [*files, *WHEELS["test-sources"]] if not (ROOT / name).exists()] == []
    assert WHEELS["test-groups"] in PROJECT["dependency-groups"]


def test_extras_that_texts_name_exist():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fastadam/**/*.py"), *ROOT.glob("bench/*.py")]
    named = {
        extras for path in texts for extras in re.findall(r"'(?:fastadam|\.)\[([\w,]+)\]'", path.read_text("utf-8"))
    }
    assert named  # pip only warns of an extra that there is not
    assert {extra for extras in named for extra in extras.split(",")} <= set(METADATA["optional-dependencies"])


def test_sources_that_are_not_compiled_say_so(tmp_path):
    shutil.copytree(ROOT / "fastadam", tmp_path / "fastadam", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import fastadam"]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "ImportError: fastadam is not compiled for this Python: run `pip install .`" in said
