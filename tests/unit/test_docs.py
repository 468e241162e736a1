"""The examples in docstrings, in the README and in every page of docs/ run and print what they say.
Every public class has one. Every optimizer has a page, and a row in the tables with its costs.
"""

import doctest
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import ROOT

import fastadam
from fastadam.optimizers import CLASSES
from fastadam.rules import RULES

README = ROOT / "README.md"
#: docs/how-to/embedding.md is a program of many files: tests/adapters/test_embedding.py builds and runs it
PAGES = [
    path
    for path in (README, *sorted((ROOT / "docs").rglob("*.md")))
    if "```python\n" in path.read_text() and path.name != "embedding.md"
]
PACKAGE = Path(fastadam.__file__).parent
MODULES = [
    ".".join(("fastadam", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.name.startswith("__")
]
#: adapters whose library the tests do not install, and that library; CI does
NEED = dict.fromkeys(("tensors", "torch", "torch_average", "torch_state", "torch_stepping"), "torch")
NEED |= {"jax": "jax", "autograd": "autograd", "pennylane": "pennylane", "qiskit": "qiskit_algorithms"}
NEED |= {name: name for name in ("river", "climin", "pints", "pybop")}
#: what blocks of pages import that the tests do not install; CI does
OPTIONAL = {*NEED.values(), "statsmodels", "quimb"}
#: modules whose docstrings must have examples
SHOWN = {f"fastadam.{name}" for name in ("schedules", "custom", "functional")}
SHOWN |= {f"fastadam.optimizers.{name}" for name in ("adam", "descent", "recent")}
SHOWN |= {f"fastadam.adapters.{name}" for name in ("article", "scipy", "sklearn", "thinc")}
SHOWN |= {f"fastadam.adapters.{name}" for name in set(NEED) - {"tensors", "torch_average", "pybop"}}


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    library = NEED.get(module.removeprefix("fastadam.adapters."), "numpy")
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0 or module not in SHOWN
    assert outcome.failed == 0


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_optimizer_shows_an_example_and_has_a_page(name):
    text = CLASSES[name].__doc__
    assert ">>> " in text
    assert ".. math::" in text
    page = (ROOT / f"docs/reference/optimizers/{name.lower()}.md").read_text()
    assert f".. autoclass:: fastadam.{name}\n" in page
    assert (ROOT / f"docs/pictures/{name.lower()}.svg").is_file()


def costs(name: str) -> tuple[str, str, str]:
    """States, bytes kept and bytes moved by a step, for each element of float32; a range where options choose.

    A step reads parameter, gradient and states, and writes parameter and states.
    """
    counts = {len(RULES[rule].states) for rule in CLASSES[name].rules}
    least_and_most = sorted({min(counts), max(counts)})
    each = (least_and_most, [4 * n for n in least_and_most], [4 * (3 + 2 * n) for n in least_and_most])
    return tuple(" – ".join(map(str, figures)) for figures in each)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_pages_say_what_an_optimizer_costs(name):
    states, memory, moved = costs(name)
    promised = (
        f"Costs for each element of float32: states {states}, memory {memory} bytes, moved by a step {moved} bytes."
    )
    assert promised in " ".join((ROOT / f"docs/reference/optimizers/{name.lower()}.md").read_text().split())
    row = rf"^\|[^|]*[`\[]{name}[`\]][^|]*\|[^|]*\| (.*) \|$"  # the costs follow the second cell
    (cells,) = re.findall(row, (ROOT / "docs/reference/optimizers/index.md").read_text(), re.M)
    assert cells.split(" | ")[:3] == [states, memory, moved]
    assert f"`{name}`" in README.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_a_page(page, capsys):
    """A block that imports something stands by itself; one that imports nothing goes on from the block before it."""
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        imported = set(re.findall(r"^ *(?:from|import) (\w+)", block, re.M))
        imported |= {NEED.get(name, name) for name in re.findall(r"fastadam\.adapters(?:\.| import )(\w+)", block)}
        if any(find_spec(library) is None for library in imported & OPTIONAL):
            continue
        scope = {} if imported else scope
        exec(block, scope)
        promised = re.findall(r"print\(.*\)  +# (.*)", block)
        assert capsys.readouterr().out.splitlines() == promised


def test_tests_that_pages_name_exist():
    sources = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    named = {name for path in ROOT.glob("docs/**/*.md") for name in re.findall(r"::(test_\w+)`", path.read_text())}
    assert named
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_readme_names_the_two_commands():
    text = README.read_text()
    assert "pip install '.[demo]' && python -m fastadam demo" in text
    assert "pip install '.[test]' && pytest" in text
