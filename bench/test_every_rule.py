"""pytest-benchmark: one step of every rule, in every backend, at a size that lies in cache.
Run `pytest bench`; the cases are those of the tests.
"""

import sys
from pathlib import Path

import pytest

from fastadam.bench.measure import arrays

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cases import CASES, make


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
@pytest.mark.parametrize("case", CASES)
def test_rule(benchmark, case, backend):
    benchmark.group = f"one step of {case}, float32, 1 array of 10,000 elements"
    params, grads = arrays(1, 10_000, "float32")
    opt = make(case, params, backend=backend)
    opt.step(grads)
    benchmark.pedantic(opt.step, args=(grads,), rounds=30, iterations=20)
