"""A new optimizer needs a rule in rules.py and a class in a module of optimizers/: every interface then has it.
A copy of the sources gets both, is built, and is used through each interface by another process.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from places import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not here")

#: into rules.py, above the registry, and as the registry's last line
RULE = """
def sign_descent(p, g, m, lr, beta1, one_minus_beta1):
    m = beta1 * m + one_minus_beta1 * g
    p = p - lr * where(m, m / absolute(m), m)
    return p, m


def sign_descent_scalars(t, lr, beta1, slowness=1.0, twice: bool = False):
    lr = 2.0 * lr if twice else lr
    return lr / slowness, beta1, 1.0 - beta1

"""
REGISTERED = '        Rule(sign_descent, sign_descent_scalars, ("m",)),\n'

#: into a module of optimizers/, above a class that is there; its name, as the first of `__all__`
NAME = '"SignDescent", '
CLASS = '''class SignDescent(Optimizer):
    """Steps of one size: the sign of the first moment."""

    lr: Rate = option(default=1e-3, check=rate_or_schedule)
    beta1: float = option(default=0.9, check=up_to_one)
    weight_decay: float = option(default=0.0, check=non_negative)
    twice: bool = option(default=False, check=flag)

    rules: ClassVar = ("sign_descent",)
    constants: ClassVar = {"slowness": 1.0}


'''

#: into pyproject.toml: thinc's name, which no code can give
ENTRY = '"fastadam.SignDescent.v1" = "fastadam.adapters.thinc:SignDescent"\n'

#: begins every use: a problem, and what NumPy makes of it
USE = """
import numpy as np
import fastadam
from pathlib import Path

p, g, m = np.array([1.0, -2.0, 0.5]), np.array([3.0, -1.0, 0.0]), np.zeros(3)
expected = p - 0.2 * np.sign(g)
folder = str(Path(fastadam.__file__).parents[1])
assert folder == FOLDER, folder
"""

USES = {
    "class": """
fastadam.SignDescent(p, lr=0.1, twice=True).step(g)
""",
    "numpy": """
fastadam.SignDescent(p, lr=0.1, twice=True, backend="numpy").step(g)
""",
    "checkpoint": """
opt = fastadam.SignDescent(p, lr=0.1, twice=True)
fastadam.SignDescent(p, lr=5).load_state_dict(opt.state_dict())
opt.step(g)
assert list(opt.state) == ["m"]
""",
    "functional": """
from fastadam import functional
functional.sign_descent(p, g, m, 1, lr=0.1, twice=True)
""",
    "numba": """
from fastadam.numba import sign_descent, sign_descent_scalars, sign_descent_step
assert callable(sign_descent) and sign_descent_scalars(1.0, 0.1, 0.9) == (0.1, 0.9, 1.0 - 0.9)
sign_descent_step(p, g, m, 1, 0.1, 0.9, 1.0, True)
""",
    "numba as a backend": """
fastadam.SignDescent(p, lr=0.1, twice=True, backend="numba").step(g)
""",
    "scipy": """
from scipy.optimize import minimize
from fastadam.adapters import scipy
result = minimize(lambda x: g @ x, p, jac=lambda x: g, method=scipy.signdescent, options={"lr": 0.2, "maxiter": 1})
p = result.x
""",
    "thinc": """
from thinc.api import registry
from fastadam.adapters import thinc
by_name = registry.get("optimizers", "fastadam.SignDescent.v1")
assert by_name is thinc.SignDescent
step = by_name(0.2, grad_clip=0.0)
p = step((1, "W"), p.astype("float32"), g.astype("float32"))[0]
""",
    "C": """
import ctypes
header = Path(fastadam.get_include(), "fastadam.h").read_text()
assert "double slowness" not in header
assert "    double twice; /* a flag: zero or not */\\n} fastadam_options;" in header
from fastadam import capi
import client
client.step(p, g, m, 0.1)
""",
}
NEEDS = {"numba as a backend": "numba", "scipy": "scipy", "thinc": "thinc", "numba": "numba"}

CLIENT = """
# cython: language_level=3
from fastadam.capi cimport fastadam_options, fastadam_sign_descent_f64

def step(double[::1] p, double[::1] g, double[::1] m, double lr):
    cdef fastadam_options options = fastadam_options(size=sizeof(fastadam_options), lr=lr, beta1=0.9, twice=1)
    assert fastadam_sign_descent_f64(&options, 1, p.shape[0], &p[0], &g[0], &m[0]) == 0
"""
CLIENT_SETUP = """
import fastadam
from Cython.Build import cythonize
from setuptools import Extension, setup
modules = [Extension("client", ["client.pyx"], include_dirs=[fastadam.get_include()])]
setup(name="client", py_modules=[], ext_modules=cythonize(modules, quiet=True))
"""


def python(*arguments, cwd, path) -> str:
    """Run another Python, which imports from `path` first. A build compiles one set of instructions: the generators
    are the same for all."""
    environment = os.environ | {"PYTHONPATH": str(path), "FASTADAM_ISAS": "base"}
    run = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def insert(path, text: str, place: str) -> None:
    """Put `text` before the one place that fits the pattern."""
    before = path.read_text("utf-8")
    [place] = re.finditer(place, before, re.M)
    path.write_text(before[: place.start()] + text + before[place.start() :], "utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The sources with the optimizer, built. An earlier build is taken along: only what changed is compiled."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)
    for name in ("fastadam", "build"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*_v[34].*"))
    insert(folder / "fastadam/rules.py", RULE, "^# -+ the registry")
    insert(folder / "fastadam/rules.py", REGISTERED, r"^    \)\n\}")
    insert(folder / "fastadam/optimizers/descent.py", CLASS, "^class Rprop")
    insert(folder / "fastadam/optimizers/descent.py", NAME, r"(?<=^__all__ = \[)")
    insert(folder / "pyproject.toml", ENTRY, '^"fastadam.Adam.v1"')
    setup = folder / "setup.py"
    setup.write_text(setup.read_text("utf-8").replace('"-O3"', '"-O0"'), "utf-8")  # no speed is tested here
    python("setup.py", "-q", "build_ext", "--inplace", "-j2", cwd=folder, path=folder)
    return folder


@pytest.fixture(scope="module")
def use(tree):
    """Runs one of `USES`, and compares what it made of p."""

    def run(code: str) -> None:
        code = f"FOLDER = {str(tree)!r}\n{USE}\n{code}\nnp.testing.assert_allclose(p, expected, rtol=1e-7)\n"
        python("-W", "ignore", "-c", code, cwd=tree / "build", path=tree)

    return run


@pytest.mark.parametrize("door", sorted(USES.keys() - {"C", "thinc"}))
def test_door(use, door):
    pytest.importorskip(NEEDS.get(door, "numpy"))
    use(USES[door])


def test_thinc_by_name(tree, use):
    pytest.importorskip("thinc")
    python("setup.py", "-q", "egg_info", cwd=tree, path=tree)
    use(USES["thinc"])


def test_c(tree, use):
    folder = tree / "build"
    (folder / "client.pyx").write_text(CLIENT)
    (folder / "setup_client.py").write_text(CLIENT_SETUP)
    python("setup_client.py", "-q", "build_ext", "--inplace", "-j2", cwd=folder, path=tree)
    use(USES["C"])
