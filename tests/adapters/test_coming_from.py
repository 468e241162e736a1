"""The rows of docs/coming-from.md that promise the same numbers, both columns run side by side.
A library that is not installed is left out; CI installs them. torch has tests of its own.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import thinc.api
from places import ROOT

import fastadam

PAGE = (ROOT / "docs/coming-from.md").read_text()
ROWS = re.findall(r"^\| `((\w+).*?)` \| `(.*?)`", PAGE.split("## The same numbers")[1].split("## From torch")[0], re.M)
STEPS, N = 30, 8
START = np.linspace(-2.0, 2.0, N)
GRADIENTS = np.random.default_rng(0).standard_normal((STEPS, N)) * np.logspace(-4, 1, N)


def here(call: str) -> np.ndarray:
    scope: dict[str, Any] = {"fastadam": fastadam}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[-1], scope)  # the page's own rules
    p = scope["p"] = START.copy()
    opt = eval(call, scope)
    for g in GRADIENTS:
        opt.step(g)
    return p


def in_keras(call: str) -> np.ndarray:
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": os.devnull}  # else it writes a file at home
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    keras.config.set_floatx("float64")  # of the rate and the step count, too
    variable = keras.Variable(START.copy())
    optimizer = eval(call, {"keras": keras})
    optimizer.build([variable])
    for g in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
    return np.array(keras.ops.convert_to_numpy(variable))


def in_optax(call: str) -> np.ndarray:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    with jax.enable_x64(True):
        transformation = eval(call, {"optax": optax})
        params = jax.numpy.array(START)
        state = transformation.init(params)
        for g in GRADIENTS:
            updates, state = transformation.update(jax.numpy.array(g), state, params)
            params = optax.apply_updates(params, updates)
        return np.array(params)


def in_thinc(call: str) -> np.ndarray:
    optimizer = eval(call, {"thinc": thinc})
    weights = START.astype(np.float32)
    for g in GRADIENTS:
        weights, _ = optimizer((0, "W"), weights, g.astype(np.float32))
        optimizer.step_schedules()
    return weights


def in_scikit_learn(_: str) -> np.ndarray:
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer  # what every MLPClassifier steps with

    p = START.copy()
    optimizer = AdamOptimizer([p])
    for g in GRADIENTS:
        optimizer.update_params([p], [g])
    return p


THERE: dict[str, Callable[[str], np.ndarray]] = {
    "keras": in_keras,
    "optax": in_optax,
    "thinc": in_thinc,
    "MLPClassifier": in_scikit_learn,
}


def test_every_library_has_a_row():
    assert {library for _, library, _ in ROWS} == set(THERE)


@pytest.mark.filterwarnings("ignore")  # of what the libraries import
@pytest.mark.parametrize(("there", "library", "ours"), ROWS, ids=[there for there, _, _ in ROWS])
def test_both_columns_give_the_same(there, library, ours):
    expected = THERE[library](there)
    rounding = np.finfo(expected.dtype).eps * np.abs(START).max()  # of a parameter, at each step
    np.testing.assert_allclose(here(ours), expected, rtol=0, atol=STEPS * rounding)
