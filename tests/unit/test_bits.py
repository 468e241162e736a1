"""The same bits from every backend and instruction set: compared with `array_equal`, without a tolerance.
The reference is the rule itself, run by NumPy.
"""

import hashlib
import os
import subprocess
import sys
from functools import cache, lru_cache

import digests
import inside
import numpy as np
import pytest
from cases import BY_RULE, CASES, DTYPES, SIZES, arrays_of, bits, gradients, make
from inside import backends
from ml_dtypes import bfloat16
from places import ROOT

from fastadam.rules import RULES

STEPS = 12  # beyond every rule's warmup


def run(case: str, dtype: str, n: int, backend: str, special: bool = True, **options) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    opt = make(case, rng.standard_normal(n).astype(options.pop("param_dtype", dtype)), backend=backend, **options)
    for g in gradients(rng, n, STEPS, dtype, special):
        before = g.copy()
        opt.step(g)
        np.testing.assert_array_equal(g, before)
    return arrays_of(opt)


def test_every_rule_has_a_case():
    assert set(BY_RULE) == set(RULES)
    for name, (cls, options) in BY_RULE.items():
        assert inside.rule_of(cls(np.ones(1), **options)) is RULES[name]


@lru_cache(len(SIZES))
def reference(case: str, dtype: str, n: int) -> list[np.ndarray]:
    return run(case, dtype, n, "numpy")


@pytest.mark.parametrize("backend", ["cython", "numba"])  # one after the other
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_backends_equal_the_numpy_rule(case, dtype, backend):
    for n in SIZES:
        for got, expected in zip(run(case, dtype, n, backend), reference(case, dtype, n), strict=True):
            np.testing.assert_array_equal(got, expected, err_msg=f"n = {n}")
            assert got.dtype == dtype


def test_special_values_reach_the_states():
    """The comparison above means something only if NaN and infinity do come through; denormals count as zero."""
    m = run("adam", "float32", 10_007, "cython")[1]
    assert np.isnan(m).any()
    finite = run("adam", "float32", 10_007, "cython", special=False)
    assert all(np.isfinite(array).all() for array in finite)


@cache
def digest() -> str:
    """One hash over all cases and dtypes, in the instruction set that this process uses; NaNs count as one value."""
    total = hashlib.sha256()
    for case in CASES:
        for dtype in DTYPES:
            for n in (1, 17, 1023, 10_007):
                for array in run(case, dtype, n, "cython"):
                    total.update(bits(array))
        for param_dtype in ("float16", bfloat16):
            options = {"master_weights": True, "state_dtype": "bfloat16", "param_dtype": param_dtype}
            for array in run(case, "float32", 10_007, "cython", special=False, **options):
                total.update(array.tobytes())
    return total.hexdigest()


def say(isa: str, code: str) -> list[str]:
    """What a process that uses this instruction set prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"FASTADAM_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("isa", backends.available_isas())
def test_instruction_sets_give_the_same_bits(isa):
    assert say(isa, "import test_bits as t; print(t.backends.ISA, t.digest())") == [isa, digest()]


CHANGED = "bits have changed: if that is meant, run tools/digests.py and name the change in CHANGELOG.md"


@pytest.mark.parametrize("isa", backends.available_isas())
def test_kept_digests_on_threads_and_layouts(isa):
    code = """
import numpy, digests
for n_threads, layout in ((2, numpy.copy), (3, digests.strided), (8, numpy.copy)):
    print(*digests.wrong(n_threads=n_threads, layout=layout))
print("all done")
"""
    assert say(isa, code) == ["all", "done"], CHANGED


@pytest.mark.parametrize(
    ("backend", "layout"),
    [("cython", np.copy), ("cython", digests.strided), ("numba", np.copy), ("numpy", np.copy)],
)
def test_kept_digests_from_backends_and_files(backend, layout, tmp_path):
    assert not list(digests.wrong(backend=backend, layout=layout, resumed_in=tmp_path)), CHANGED


def test_changelog_names_the_digests():
    assert list(digests.kept()) == digests.KEYS
    assert f"`{digests.of_all()}`" in (ROOT / "CHANGELOG.md").read_text(), CHANGED


def test_unavailable_instruction_set_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", "import fastadam"],
        env=os.environ | {"FASTADAM_ISA": "mmx", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "FASTADAM_ISA='mmx'" in done.stderr.splitlines()[-1]
    assert "base" in done.stderr.splitlines()[-1]
