"""The examples in docstrings, in the README and in pages of docs run and print what they say.
Every public class has one.
"""

import doctest
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastadam

OPTIMIZERS = sorted(name for name in set(fastadam.__all__) - {"Optimizer"} if isinstance(getattr(fastadam, name), type))
ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *(ROOT / "docs" / f"{name}.md" for name in ("adapters", "schedules", "scipy", "training"))]

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed; CI installs it")


@pytest.mark.parametrize(
    "module",
    [
        "fastadam.optimizers",
        "fastadam.schedules",
        "fastadam.custom",
        "fastadam.functional",
        "fastadam.adapters.article",
        "fastadam.adapters.scipy",
        "fastadam.adapters.sklearn",
        "fastadam.adapters.thinc",
        pytest.param("fastadam.adapters.torch", marks=needs_torch),
        pytest.param("fastadam.adapters.torch_state", marks=needs_torch),
    ],
)
def test_docstrings(module):
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_shows_an_example(name):
    text = getattr(fastadam, name).__doc__
    assert ">>> " in text
    assert ".. math::" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_a_page(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
        promised = re.findall(r"print\(.*\)  +# (.*)", block)
        assert capsys.readouterr().out.splitlines() == promised


def test_readme_names_the_two_commands():
    text = README.read_text()
    assert "pip install '.[demo]' && python -m fastadam demo" in text
    assert "pip install '.[test]' && pytest" in text
