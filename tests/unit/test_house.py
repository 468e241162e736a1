"""tools/house.py, run on a small package whose faults are known."""

import importlib.util
import subprocess
import sys

import pytest
from places import ROOT, TOOLS

TOOL = TOOLS / "house.py"

SOURCES = {
    "__init__.py": "from .optimizers import Adamax\n",
    "rules.py": "from . import options\n\ndef adamax(p): return p\n",
    "options.py": "def option(default): return default\n",
    "kernel/__init__.py": "",
    "kernel/_plan.pyx": (
        '"""A docstring: if if if, Plan(1)."""\n'
        "from ..rules import adamax\n"
        "from . cimport _tiles, _layout\n\n"
        "cdef class Plan:\n"
        "    cdef int _count(self, int n=1):\n"
        "        return n if n and n > 2 or n < 0 else 0  # if\n\n"
        "def another(): return Plan(1)\n"
    ),
    "kernel/_tiles.pyx": "",
    "kernel/_layout.pyx": "",
    "kernel/pool.h": "/* adamax */ int pool;\n",
    "optimizer.py": (
        "from .kernel._plan import Plan\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from . import groups\n\n"
        "class Optimizer:\n"
        '    """Not a set: \'lr\', \'eps\'."""\n'
        "    def __init__(self):\n        self._plan, self.lr = Plan(2), 1\n"
        "    @property\n    def t(self): return self._plan.t\n"
    ),
    "groups.py": (
        "def of(optimizer, other):\n    from .optimizer import Optimizer\n    optimizer._plan.t = 3\n"
        "    return other._strange\n"
    ),
    "optimizers.py": (
        "from .optimizer import Optimizer\nfrom .options import option\n\n"
        "class Adamax(Optimizer):\n"
        "    lr: float = option(1e-3)\n    eps: float = option(1e-8)\n    rho: float = option(0.9)\n"
    ),
    "adapters/__init__.py": "",
    "adapters/torch.py": (
        "# Adamax in a comment\nNAMES = {'lr': 1, 'eps': 2, 'rho': 3}\nFEW = ('lr', 'eps')\n\n"
        "def long(x):\n"
        "    def inner(): return 1 if x else 2\n"
        "    return [y for y in x if y and (y or x)] or [z async for z in x]\n"
    ),
    "capi.pxd": "# Generated from rules.py\n" + "\n" * 999,
}

EXPECTED = {
    "lines of the optimizer's module": (11, ["optimizer"]),
    "lines of the longest module": (11, ["optimizer"]),
    "methods of Optimizer": (2, ["optimizer:6 __init__", "optimizer:6 t"]),
    "attributes of Optimizer": (2, ["optimizer:6 _plan", "optimizer:6 lr"]),
    "private names read elsewhere": (1, ["groups:3 optimizer._plan"]),
    "places that make a Plan": (2, ["optimizer:9 Plan(…)", "kernel._plan:9 Plan("]),
    "writes into a plan from outside": (1, ["groups:3 optimizer._plan.t"]),
    "option sets kept by hand": (1, ["adapters.torch:2 lr, eps, rho"]),
    "files that name one optimizer": (4, ["__init__", "kernel._plan", "optimizers", "rules"]),
    "import circles": (1, ["groups ↔ optimizer"]),
    "imports upwards": (2, ["groups → optimizer", "rules → options"]),
    "most decisions in one function": (4, ["adapters.torch:5 long 4", "kernel._plan:6 _count 3"]),
}


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", TOOL)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "small"


def test_figures(house, package):
    figures = house.measure(house.read(package))
    assert figures.keys() == house.LIMITS.keys()
    for name, (value, places) in EXPECTED.items():
        assert figures[name][0] == value, name
        assert figures[name][1][: len(places)] == places
    written = sum(text.count("\n") for name, text in SOURCES.items() if name != "capi.pxd")
    assert figures["lines in all"][0] == written


def test_imports_of_cython(house, package):
    assert house.read(package).imports["kernel._plan"] == {"rules", "kernel._tiles", "kernel._layout"}


def test_a_limit_that_is_broken(house, package, capsys, monkeypatch):
    monkeypatch.setattr(house, "LIMITS", dict.fromkeys(house.LIMITS, 10_000))
    assert house.main([str(package), "--check"]) == 0
    monkeypatch.setitem(house.LIMITS, "import circles", 0)
    assert house.main([str(package), "--check"]) == 1
    assert "import circles: 1, at most 0\n  groups ↔ optimizer\n" in capsys.readouterr().out


@pytest.mark.skipif(not (ROOT / "fastadam").exists(), reason="the sources are not here")
def test_layers_of_this_tree():
    printed = subprocess.run([sys.executable, TOOL, "--layers"], capture_output=True, text=True, check=True).stdout
    assert "| formulas | `rule` |  |" in printed
