"""Every mistake is named, with what came and what is allowed; and nothing has changed when it is.
A row is a name, the call, the error, and what its text must hold.
"""

import re

import ml_dtypes
import numpy as np
import pytest
from cases import arrays_of

import fastadam
from fastadam.kernel import backends

P = np.ones(3)


def readonly(array):
    array.flags.writeable = False
    return array


CONSTRUCTION = [
    ("no array", lambda: fastadam.Adam(3.0), TypeError, "params: expected a numpy array, got float"),
    ("list of numbers", lambda: fastadam.Adam([1.0, 2.0]), TypeError, "params[0]: expected a numpy array, got float"),
    ("None", lambda: fastadam.Adam(None), TypeError, "params: expected a numpy array, got NoneType"),
    ("string", lambda: fastadam.Adam("weights"), TypeError, "params: expected a numpy array, got str"),
    ("empty list", lambda: fastadam.Adam([]), ValueError, "params: expected at least one array, got an empty list"),
    ("empty dict", lambda: fastadam.Adam({}), ValueError, "params: expected at least one array, got an empty dict"),
    ("set", lambda: fastadam.Adam({1, 2}), TypeError, "a set has no order"),
    ("nested list", lambda: fastadam.Adam([[P]]), TypeError, "params[0]: expected a numpy array, got list"),
    ("integers", lambda: fastadam.Adam(np.ones(3, int)), TypeError, "float32 or float64, got int64"),
    ("complex", lambda: fastadam.Adam(np.ones(3, complex)), TypeError, "got complex128"),
    ("eight bits", lambda: fastadam.Adam(np.ones(3, ml_dtypes.float8_e5m2)), TypeError, "got float8_e5m2"),
    ("objects", lambda: fastadam.Adam(np.array([None])), TypeError, "got object"),
    ("byte order", lambda: fastadam.Adam(np.ones(3, ">f8")), TypeError, "not in this machine's byte order"),
    ("masked", lambda: fastadam.Adam(np.ma.ones(3)), TypeError, "masked array is not supported"),
    ("read-only", lambda: fastadam.Adam(readonly(np.ones(3))), ValueError, "params: the array is read-only"),
    ("broadcast", lambda: fastadam.Adam(np.lib.stride_tricks.as_strided(P, (3, 2), (8, 0))), ValueError, "one place"),
    ("windows", lambda: fastadam.Adam(np.lib.stride_tricks.as_strided(P, (2, 2), (8, 8))), ValueError, "one place"),
    ("twice", lambda: fastadam.Adam([P, P]), ValueError, "params[1] and params[0] share memory"),
    ("overlapping", lambda: fastadam.Adam({"a": P, "b": P[1:]}), ValueError, "params['b'] and params['a'] share"),
    ("group without params", lambda: fastadam.Adam([{"lr": 1.0}]), ValueError, "params[0]: expected a group with"),
    ("group option", lambda: fastadam.Adam([{"params": P, "rate": 1}]), ValueError, "params[0]['rate']: unknown"),
    ("group value", lambda: fastadam.Adam([{"params": P, "lr": -1}]), ValueError, "params[0]['lr']: expected a number"),
    ("backend", lambda: fastadam.Adam(P, backend="cuda"), ValueError, "backend: expected one of cython, numba, numpy"),
    ("backend in a list", lambda: fastadam.Adam(P, backend=["numpy"]), ValueError, "backend: expected one of"),
    ("no threads", lambda: fastadam.Adam(P, n_threads=0), ValueError, "n_threads: expected a whole number >= 1"),
    ("half a thread", lambda: fastadam.Adam(P, n_threads=0.5), TypeError, "got 0.5 of type float"),
    ("base class", lambda: fastadam.Optimizer(P, {}), TypeError, "use Adam, AdamW, Adamax"),
    ("bound shape", lambda: fastadam.Adam(P.copy(), grads=np.ones(4)), ValueError, "expected shape (3,)"),
    ("bound structure", lambda: fastadam.Adam([P.copy()], grads=np.ones(3)), TypeError, "grads: expected a sequence"),
]  # fmt: skip

OPTIONS = [
    (fastadam.Adam, "lr", -1e-3, ValueError, ">= 0"),
    (fastadam.Adam, "lr", float("nan"), ValueError, "got nan"),
    (fastadam.Adam, "lr", float("inf"), ValueError, "finite"),
    (fastadam.Adam, "lr", 10**400, ValueError, "finite"),
    (fastadam.Adam, "lr", "0.1", TypeError, "got '0.1' of type str"),
    (fastadam.Adam, "lr", True, TypeError, "of type bool"),
    (fastadam.Adam, "lr", None, TypeError, "of type NoneType"),
    (fastadam.Adam, "lr", 1j, TypeError, "of type complex"),
    (fastadam.Adam, "betas", (1.0, 0.9), ValueError, "[0]: expected a number >= 0 and < 1, got 1.0"),
    (fastadam.Adam, "betas", (0.9, -0.1), ValueError, "[1]"),
    (fastadam.Adam, "betas", (0.9,), ValueError, "a pair of numbers, got 1"),
    (fastadam.Adam, "betas", 0.9, TypeError, "a pair of numbers, got 0.9"),
    (fastadam.Adam, "betas", "ab", TypeError, "a pair of numbers"),
    (fastadam.Adam, "eps", -1e-8, ValueError, ">= 0"),
    (fastadam.Adam, "weight_decay", -0.1, ValueError, ">= 0"),
    (fastadam.Adam, "amsgrad", 1, TypeError, "True or False, got 1"),
    (fastadam.Adam, "maximize", "no", TypeError, "True or False"),
    (fastadam.Adam, "beta_decay", 1.5, ValueError, "<= 1"),
    (fastadam.Adam, "alpha_decay", 0, TypeError, "True or False"),
    (fastadam.Adam, "eps_hat", None, TypeError, "True or False"),
    (fastadam.AdamW, "weight_decay", float("inf"), ValueError, "finite"),
    (fastadam.Adamax, "betas", (0.9, 1), ValueError, "[1]"),
    (fastadam.Adagrad, "lr_decay", -1, ValueError, ">= 0"),
    (fastadam.Adagrad, "initial_accumulator_value", -1, ValueError, ">= 0"),
    (fastadam.RMSprop, "alpha", 1.5, ValueError, "<= 1"),
    (fastadam.RMSprop, "momentum", -0.5, ValueError, ">= 0"),
    (fastadam.RMSprop, "centered", "yes", TypeError, "True or False"),
    (fastadam.RMSprop, "eps_in_sqrt", 2, TypeError, "True or False"),
    (fastadam.Adadelta, "rho", -0.1, ValueError, ">= 0"),
]

#: gradients of [shape (2, 3) float32, shape (4,) float64]
GOOD = [np.ones((2, 3), np.float32), np.ones(4)]
GRADIENTS = [
    ("too few", [GOOD[0]], ValueError, "expected 2 gradients, one a parameter, got 1"),
    ("too many", [*GOOD, GOOD[1]], ValueError, "got 3"),
    ("one array", GOOD[0], TypeError, "expected a sequence like params, got ndarray"),
    ("mapping", dict(enumerate(GOOD)), TypeError, "expected a sequence like params, got dict"),
    ("number", 1.0, TypeError, "got float"),
    ("None inside", [GOOD[0], None], TypeError, "gradient of params[1]: is None"),
    ("list inside", [GOOD[0], [1.0] * 4], TypeError, "gradient of params[1]: expected a numpy array, got list"),
    ("shape", [GOOD[0], np.ones(5)], ValueError, "params[1]: expected shape (4,) like the parameter, got (5,)"),
    ("transposed", [GOOD[0].T, GOOD[1]], ValueError, "expected shape (2, 3) like the parameter, got (3, 2)"),
    ("dimensions", [GOOD[0], np.ones((4, 1))], ValueError, "got (4, 1)"),
    ("float32 for float64", [GOOD[0], np.ones(4, np.float32)], TypeError, "expected dtype float64"),
    ("integers", [GOOD[0], np.ones(4, int)], TypeError, "gradient of params[1]: expected dtype float16"),
    ("byte order", [GOOD[0], np.ones(4, ">f8")], TypeError, "byte order"),
    ("masked", [GOOD[0], np.ma.ones(4)], TypeError, "masked"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), [row[1:] for row in CONSTRUCTION], ids=[r[0] for r in CONSTRUCTION])
def test_construction(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()
    assert (P == 1).all()


@pytest.mark.parametrize(
    ("cls", "name", "value", "error", "text"),
    OPTIONS,
    ids=[f"{r[0].__name__}-{r[1]}={str(r[2])[:20]}" for r in OPTIONS],
)
def test_options(cls, name, value, error, text):
    with pytest.raises(error, match=rf"^{name}\b.*{re.escape(text)}"):
        cls(np.ones(2), **{name: value})
    opt = cls(np.ones(2))
    kept = getattr(opt, name)
    with pytest.raises(error):
        setattr(opt, name, value)
    with pytest.raises(error):
        opt.param_groups[0][name] = value
    assert getattr(opt, name) == kept


@pytest.fixture
def running():
    """An optimizer after two good steps, and a copy of all that a third could change."""
    opt = fastadam.Adam([np.ones((2, 3), np.float32), np.ones(4)])
    for _ in range(2):
        opt.step(GOOD)
    return opt, [array.copy() for array in arrays_of(opt)]


def unchanged(opt, before):
    for now, then in zip(arrays_of(opt), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert opt.t == 2
    opt.step(GOOD)  # and it can go on
    assert opt.t == 3


@pytest.mark.parametrize(("grads", "error", "text"), [row[1:] for row in GRADIENTS], ids=[r[0] for r in GRADIENTS])
def test_gradients(grads, error, text, running):
    opt, before = running
    with pytest.raises(error, match=re.escape(text)):
        opt.step(grads)
    unchanged(opt, before)


def test_gradient_that_is_the_parameter(running):
    opt, before = running
    with pytest.raises(ValueError, match=r"gradient of params\[0\]: shares memory with a parameter or a state"):
        opt.step(opt._plan.params)
    unchanged(opt, before)


@pytest.mark.parametrize(
    ("lr", "error", "text"),
    [
        (lambda t: -1.0, ValueError, "lr(3): expected a number >= 0"),
        (lambda t: None, TypeError, "lr(3): expected a number"),
        (lambda t: float("nan"), ValueError, "lr(3)"),
        (lambda t: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
)
def test_schedule_that_fails(lr, error, text, running):
    opt, before = running
    opt.lr = lr
    with pytest.raises(error, match=re.escape(text)):
        opt.step(GOOD)
    opt.lr = 1e-3
    unchanged(opt, before)


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


class Instance:
    """An object of the article's protocol."""

    def __init__(self):
        self.parameters, self.grad = np.ones(2), np.ones(2)


def test_object_with_bound_gradients():
    with pytest.raises(ValueError, match="an object brings its own gradients"):
        fastadam.Adam(Instance(), grads=np.ones(2))


def test_object_without_a_gradient():
    instance = Instance()
    instance.grad = None
    with pytest.raises(TypeError, match="gradient of params: expected a numpy array, got NoneType"):
        fastadam.Adam(instance).zero_grad()


def test_bound_gradients_that_cannot_be_zeroed():
    grads = [np.ones(2), readonly(np.ones(2))]
    opt = fastadam.Adam([np.ones(2), np.ones(2)], grads=grads)
    with pytest.raises(ValueError, match=re.escape("gradient of params[1]: the array is read-only")):
        opt.zero_grad()
    assert (grads[0] == 1).all()
    opt.step()


def test_names_of_a_mapping():
    opt = fastadam.Adam({"W": np.ones(2), "b": np.ones(1)})
    with pytest.raises(ValueError, match=re.escape("missing: ['b'], unknown: ['c']")):
        opt.step({"W": np.ones(2), "c": np.ones(1)})
    with pytest.raises(ValueError, match=re.escape("gradient of params['b']: expected shape (1,)")):
        opt.step({"W": np.ones(2), "b": np.ones(2)})


def test_group_options_that_cannot_change():
    opt = fastadam.Adam(np.ones(2))
    with pytest.raises(ValueError, match="amsgrad: True needs other states"):
        opt.amsgrad = True
    with pytest.raises(ValueError, match="params: unknown option"):
        opt.param_groups[0]["params"] = [np.ones(2)]
    with pytest.raises(TypeError, match="fixed in number"):
        del opt.param_groups[0]["lr"]


def test_step_within_a_step():
    """What a second thread would meet: a step of the same optimizer that has not ended."""
    opt = fastadam.Adam(np.ones(2), backend="numpy")
    errors = []

    def lr_of_a_rule_that_steps(*arguments):
        with pytest.raises(RuntimeError, match="another thread is inside a step"):
            opt._plan.step((np.ones(2),))
        errors.append(arguments)
        return [1.0, np.inf, 0.0, 1.0, *[0.1] * 6]

    rule = opt.param_groups[0]._rule
    kernel = backends.Kernel(rule, python=(lambda scalars, *arrays: None, lr_of_a_rule_that_steps))
    opt._plan = type(opt._plan)([(kernel, [np.ones(2)], [[np.ones(2), np.ones(2)]])], ["p"])
    opt.step(np.ones(2))
    assert len(errors) == 1
    assert opt.t == 1


def test_numba_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    backends.kernel.cache_clear()
    with pytest.raises(ImportError, match=re.escape("pip install 'fastadam[numba]'")):
        fastadam.Adam(np.ones(2), backend="numba")
