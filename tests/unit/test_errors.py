"""Mistakes outside of a call's arguments: changes during a step, a step within a step, missing packages.
Those in arguments are in the tables of `test_refused.py`.
"""

import re

import inside
import numpy as np
import pytest

import fastadam
from fastadam.rules import RULES
from fastadam.state import mismatch


def test_gradient_that_is_another_parameter():
    """f = a · b has each factor as the other's gradient: they must be copies, since a is stepped before b's is read."""
    a, b = np.ones((2, 3)), np.full((2, 3), 2.0)
    opt = fastadam.Adam([a, b])
    for grads in ([b, a], [b[:, ::-1], a[::-1]], [opt.state["m"][1], np.ones((2, 3))]):
        with pytest.raises(ValueError, match="shares memory with a parameter or a state"):
            opt.step(grads)
    assert opt.t == 0
    assert (a == 1).all()
    opt.step([b.copy(), a.copy()])


@pytest.mark.parametrize("count", [2, 64, 65, 150])
def test_gradients_among_interleaved_parameters(count):
    """Their addresses overlap, all of them with one another, whether few are compared or many by a mask."""
    base = np.ones((4, 2 * count))
    opt = fastadam.SGD([base[:, k] for k in range(count)], lr=1.0)
    grads = [base[:, count + k] for k in range(count)]
    opt.step(grads)
    assert base.tolist() == [[0.0] * count + [1.0] * count] * 4
    for bad in (base[:, 1], base[::-1, 0], base[0, :4] if count > 4 else base[:, 0]):
        new = fastadam.SGD([base[:, k] for k in range(count)])  # looks at all gradients closely, not at one
        for stepped in (opt, opt, new, new):
            with pytest.raises(ValueError, match=rf"gradient of params\[{count - 1}\]: shares memory"):
                stepped.step([*grads[:-1], bad])
    with pytest.raises(ValueError, match="share memory"):
        opt.add_param_group({"params": base[2:, 1]})
    assert opt.t == 1


def test_parameter_changed_under_way():
    a = np.ones((50, 2))
    opt = fastadam.Adam(a)
    opt.step(np.ones((50, 2)))
    a.resize((2, 50), refcheck=False)
    with pytest.raises(ValueError, match=re.escape("its shape was changed to (2, 50)")):
        opt.step(np.ones((2, 50)))
    a.resize((50, 2), refcheck=False)
    a.flags.writeable = False
    with pytest.raises(ValueError, match="params: the array is read-only"):
        opt.step(np.ones((50, 2)))
    assert opt.t == 1


def test_step_within_a_step():
    """Of a rule that steps its own optimizer."""
    opt = fastadam.Adam(np.ones(2), backend="numpy")
    errors = []

    def lr_of_a_rule_that_steps(*arguments):
        with pytest.raises(RuntimeError, match="this thread is inside a step of this optimizer already"):
            inside.step_within_a_step(opt)
        errors.append(arguments)
        return [0.1] * inside.rule_of(opt).n_scalars

    inside.replace_kernel(opt, python=(lambda scalars, *arrays: None, lr_of_a_rule_that_steps))
    opt.step(np.ones(2))
    assert len(errors) == 1
    assert opt.t == 1


def test_numba_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    monkeypatch.delitem(RULES["adam"].kernels, "numba", raising=False)
    with pytest.raises(ImportError, match=re.escape("pip install numba")):
        fastadam.Adam(np.ones(2), backend="numba")


def test_a_long_message_keeps_its_beginning_and_its_end():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        mismatch.need(False, "a" * 1500 + "b" * 1500)
    assert str(error.value) == "a" * 1000 + "…" + "b" * 1000
