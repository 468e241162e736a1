"""The functions of `fastadam.adapters.autograd`, compared with autograd's own: results, structures, errors."""

import inspect
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("autograd")
import autograd.numpy as anp
from autograd import grad
from autograd.misc import optimizers as stock

import fastadam.adapters.autograd as adapter

NAMES = ("adam", "rmsprop", "sgd")
OPTIONS = {
    "adam": {"step_size": 0.05, "b1": 0.7, "b2": 0.9, "eps": 0.01},
    "rmsprop": {"step_size": 0.02, "gamma": 0.6, "eps": 0.01},
    "sgd": {"step_size": 0.3, "mass": 0.4},
}
STRUCTURES = {
    "array": np.linspace(-2, 2, 12).reshape(3, 4),
    "strided": np.linspace(-2, 2, 24).reshape(4, 6)[::2, ::-1].T,
    "number": 1.0,
    "no axes": np.array(-0.5),
    "nested": {"b": [np.ones((2, 3)), (0.5, np.zeros(4))], "a": np.full(2, -1.0), "c": {}},
    "one in a list": [np.linspace(0, 1, 5)],
    "no elements": [np.zeros((0, 2)), 1.0],
    "no element": np.zeros(0),
    "no arrays": [],
}
SINGLES = {
    "array": np.linspace(-2, 2, 12, dtype=np.float32),
    "nested": [np.linspace(-2, 2, 12, dtype=np.float32), (np.ones((2, 3), np.float32), 0.5)],
}


def mapped(function, *values):
    """Apply a function to the leaves of structures."""
    if isinstance(values[0], dict):
        return {key: mapped(function, *(value[key] for value in values)) for key in values[0]}
    if isinstance(values[0], (list, tuple)):
        return type(values[0])(mapped(function, *parts) for parts in zip(*values, strict=True))
    return function(*values)


def gradient(x, i):
    return mapped(lambda leaf: np.cos(3 * leaf + i), x)


def run(optimize, x0, **options):
    """The result, and all that the gradient and the callback were given."""
    seen = []

    def watched(x, i):
        seen.append(x)
        return gradient(x, i)

    result = optimize(watched, x0, lambda *given: seen.append(given), num_iters=50, **options)
    return [result, *seen]


def agree(ours, theirs, rtol=1e-12, atol=1e-13):
    """The same structure, dtypes, and numbers to rounding."""

    def compare(one, other):
        assert type(one) is type(other)
        if isinstance(other, np.ndarray):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol, atol)

    mapped(compare, ours, theirs)


@pytest.mark.filterwarnings("ignore:Output seems independent of input")  # autograd's own, where there is no array
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", STRUCTURES)
@pytest.mark.parametrize("is_default", [True, False])
def test_numbers_and_structures(name, case, is_default):
    options = {} if is_default else OPTIONS[name]
    before = mapped(np.copy, STRUCTURES[case])
    ours, theirs = (run(getattr(module, name), STRUCTURES[case], **options) for module in (adapter, stock))
    agree(ours, theirs)
    mapped(np.testing.assert_array_equal, before, STRUCTURES[case])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", SINGLES)
def test_float32_is_stepped_in_float64(name, case):
    ours, theirs = (run(getattr(module, name), SINGLES[case], **OPTIONS[name]) for module in (adapter, stock))
    agree(ours, theirs, 1e-4, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_signature(name):
    theirs = inspect.signature(inspect.getclosurevars(getattr(stock, name)).nonlocals["optimize"])
    ours = inspect.signature(getattr(adapter, name))
    expected = [(p.name if p.name != "x" else "x0", p.default) for p in theirs.parameters.values()]
    assert [(p.name, p.default) for p in ours.parameters.values()] == expected


@pytest.mark.parametrize("name", NAMES)
def test_integers_become_float64(name):
    ours, theirs = (getattr(module, name)(gradient, np.array([1, 2])) for module in (adapter, stock))
    agree(ours, theirs)
    agree(getattr(adapter, name)(gradient, [1, np.array([2])]), [ours[:1].reshape(()), ours[1:]])


@pytest.mark.parametrize("name", NAMES)
def test_training_through_autograd(name):
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    params = [(rng.standard_normal((3, 8)), np.zeros(8)), (rng.standard_normal((8, 1)), np.zeros(1))]

    def loss(params, i):
        (w1, b1), (w2, b2) = params
        return anp.mean((anp.tanh(anp.dot(inputs, w1) + b1) @ w2 + b2 - targets) ** 2)

    # with autograd's own step size of 0.1, training by rmsprop amplifies an error of 1e-15 to 4e-3
    found = [getattr(module, name)(grad(loss), params, num_iters=50, step_size=0.01) for module in (adapter, stock)]
    agree(*found, 1e-9, 1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["array", "nested"])
def test_a_callback_that_changes_what_it_gets(name, case):
    """A single array is autograd's own; of nested arrays it hands out copies."""

    def change(x, i, g):
        mapped(lambda leaf: leaf.clip(-0.5, 0.5, out=leaf), x)
        mapped(lambda leaf: np.multiply(leaf, 0.5, out=leaf), g)

    found = []
    for module in (adapter, stock):
        x0 = mapped(np.copy, STRUCTURES[case])
        found.append(getattr(module, name)(gradient, x0, change, num_iters=50))
    agree(*found)


@pytest.mark.parametrize("case", ["array", "nested"])
def test_what_was_handed_out_stays(case):
    kept, copies = [], []

    def keep(*given):
        kept.append(given)
        copies.append(mapped(np.copy, given))

    adapter.adam(gradient, STRUCTURES[case], keep, 5)
    mapped(np.testing.assert_array_equal, kept, copies)


def test_gradient_of_another_structure():
    """The order of its numbers counts, as in autograd."""
    x0 = {"w": np.ones((2, 2)), "b": 1.0}
    ours, theirs = (
        module.sgd(lambda x, i: [1.0, np.array([2.0, 3.0]), (4.0, 5.0)], x0, num_iters=3) for module in (adapter, stock)
    )
    agree(ours, theirs)
    assert adapter.adam(lambda x, i: x, x0, num_iters=0)["b"] == 1.0


def test_dicts_keep_the_order_of_their_keys():
    assert list(adapter.adam(gradient, {"z": 1.0, "a": 2.0}, num_iters=2)) == ["z", "a"]


def test_a_gradient_that_is_x_itself():
    agree(*(module.adam(lambda x, i: x, STRUCTURES["array"]) for module in (adapter, stock)))


BAD = [
    (np.ones(2) + 1j, {}, TypeError, r"x0: expected real numbers of at most 64 bits, got complex128"),
    ([1.0, "a"], {}, TypeError, r"x0\[1\]: expected real numbers .*, got <U1"),
    ({"a": [None]}, {}, TypeError, r"x0\['a'\]\[0\]: expected real numbers .*, got NoneType"),
    (np.ones(2, np.longdouble), {}, TypeError, "at most 64 bits"),
    (1.0, {"step_size": "0.1"}, TypeError, "step_size: expected a number, got '0.1'"),
    (1.0, {"step_size": np.ones(2)}, TypeError, "step_size: expected a number, got an array"),
    (1.0, {"num_iters": 1.5}, TypeError, "integer"),
]


@pytest.mark.parametrize(("x0", "options", "error", "message"), BAD)
@pytest.mark.parametrize("name", NAMES)
def test_refused_before_the_gradient_is_called(name, x0, options, error, message):
    def never(x, i):
        raise AssertionError

    with pytest.raises(error, match=message):
        getattr(adapter, name)(never, x0, **options)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.ones(3), ValueError, "grad: expected 2 numbers, as many as in x0, got 3"),
        (np.ones(2) * 1j, TypeError, "gradient: expected real numbers"),
        ([1.0, None], TypeError, "gradient: expected real numbers .*, got NoneType"),
    ],
)
def test_refused_gradients(given, error, message):
    with pytest.raises(error, match=message):
        adapter.adam(lambda x, i: given, np.ones(2))


def test_no_derivative_goes_through_it():
    """autograd's own can be differentiated: by where they begin, and by what the gradient depends on."""
    assert grad(lambda x0: stock.adam(lambda x, i: 2 * x, x0, num_iters=2))(1.0) != 0
    with pytest.raises(TypeError, match=r"x0: autograd is differentiating .* use that of autograd\.misc"):
        grad(lambda x0: adapter.adam(lambda x, i: 2 * x, x0, num_iters=2))(1.0)
    with pytest.raises(TypeError, match="gradient: autograd is differentiating"):
        grad(lambda a: adapter.adam(lambda x, i: a * x, 1.0, num_iters=2))(1.0)
    with pytest.raises(TypeError, match="step_size: expected a number"):
        grad(lambda a: adapter.adam(lambda x, i: x, 1.0, num_iters=2, step_size=a))(1.0)


class Pair(NamedTuple):
    slope: float
    offset: float


@pytest.mark.parametrize("x0", [Pair(1.0, 2.0), [Pair(1.0, 2.0)], np.ma.array([1.0, 2.0], mask=[False, True])])
def test_containers_that_neither_takes(x0):
    """They would be read as arrays, and lose their names or their mask."""
    for lib in (stock, adapter):
        with pytest.raises(TypeError):
            lib.adam(lambda x, i: x, x0)
