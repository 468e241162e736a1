"""PennyLane's optimizers with fastadam's steps, compared with PennyLane's own: results, arguments, memory, copies,
errors.
"""

import copy
import inspect
import pickle

import numpy as onp
import pytest

pytest.importorskip("pennylane")
import pennylane as qml
from pennylane import numpy as np

import fastadam.adapters.pennylane as adapter

NAMES = tuple(adapter.__all__)
OPTIONS = {
    "AdamOptimizer": {"stepsize": 0.05, "beta1": 0.7, "beta2": 0.9, "eps": 0.01},
    "RMSPropOptimizer": {"stepsize": 0.05, "decay": 0.6, "eps": 0.01},
    "MomentumOptimizer": {"stepsize": 0.05, "momentum": 0.4},
    "NesterovMomentumOptimizer": {"stepsize": 0.05, "momentum": 0.4},
}
#: what a step reads beside the numbers of the class
MEMORY = ("fm", "sm", "t", "accumulation")


def pair(name, **options):
    return getattr(adapter, name)(**options), getattr(qml, name)(**options)


def new_args():
    """Several of several shapes, one not trainable, one no tensor."""
    return [
        np.array(0.5, requires_grad=True),
        np.array([1.0, 2.0], requires_grad=False),
        np.array(onp.linspace(-1, 1, 12).reshape(3, 4).T, requires_grad=True),
        "word",
        np.array(onp.zeros((0, 2)), requires_grad=True),
        np.array([0.3], requires_grad=True),
    ]


def cost(x, fixed, y, word, none, z):
    return np.sum(np.sin(3 * x) * fixed[0]) + np.sum(np.cos(y * z)) + np.sum(none) + np.sum(np.exp(-z))


def same(ours, theirs, rtol=1e-13):
    """The same classes, dtypes and numbers, and the same of what is trainable."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
        if isinstance(other, np.tensor):
            assert (one.shape, one.dtype, one.requires_grad) == (other.shape, other.dtype, other.requires_grad)
            onp.testing.assert_allclose(onp.asarray(one), onp.asarray(other), rtol=rtol, atol=1e-15)


def same_memory(ours, theirs):
    for name in MEMORY:
        one, other = (getattr(optimizer, name, None) for optimizer in (ours, theirs))
        if name == "accumulation" and isinstance(other, dict):
            assert one.keys() == other.keys()
        elif isinstance(other, list):
            for own, their in zip(one, other, strict=True):
                onp.testing.assert_allclose(onp.asarray(own), onp.asarray(their), rtol=1e-10, atol=1e-15)
        else:
            assert one == other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_default", [True, False])
def test_numbers(name, is_default):
    ours, theirs = pair(name, **({} if is_default else OPTIONS[name]))
    mine, others = new_args(), new_args()
    for _ in range(50):
        kept, copies = mine, [copy.deepcopy(arg) for arg in mine]
        mine, ours_cost = ours.step_and_cost(cost, *mine)
        others, their_cost = theirs.step_and_cost(cost, *others)
        same(mine, others)
        same_memory(ours, theirs)
        same(kept, copies, rtol=0)
        assert ours_cost == pytest.approx(their_cost, rel=1e-12)
    assert mine[1] is kept[1]
    ours.reset() if hasattr(theirs, "reset") else None
    theirs.reset() if hasattr(theirs, "reset") else None
    same_memory(ours, theirs)
    same(ours.step(cost, *mine), theirs.step(cost, *others))


@pytest.mark.parametrize("name", NAMES)
def test_is_pennylanes_class(name):
    ours, theirs = pair(name)
    assert isinstance(ours, type(theirs))
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert vars(ours).keys() == vars(theirs).keys()
    assert isinstance(ours, adapter.MomentumOptimizer) == isinstance(theirs, qml.MomentumOptimizer)


def test_what_is_left_to_pennylane():
    """ε of Adagrad is within the root, where no rule has it; of gradient descent nothing would be faster."""
    assert not {"AdagradOptimizer", "GradientDescentOptimizer"} & set(vars(adapter))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("float32", "float64"), ("int64", "float64"), ("int64",) * 2]
)
@pytest.mark.parametrize("stepsize", [0.25, onp.float64(0.25)])
def test_dtypes(name, dtypes, stepsize):
    ours, theirs = pair(name, stepsize=stepsize)
    for k in range(3):
        arg = np.array(onp.arange(1, 5), dtype=dtypes[0], requires_grad=True)
        g = (np.array(onp.arange(4) - k, dtype=dtypes[1]),)
        same(ours.apply_grad(g, (arg,)), theirs.apply_grad(g, (arg,)), rtol=1e-6 if "float32" in dtypes else 1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_that_change_between_steps(name):
    """In NumPy's promotion a rate of NumPy's own widens, and one of Python's does not."""
    ours, theirs = pair(name, stepsize=0.25)
    g = np.array(onp.ones(4), dtype="float32")
    for stepsize, dtype in ((0.25, "float32"), (onp.float64(0.25), "float32"), (0.25, "float64"), (0.25, "float32")):
        ours.stepsize = theirs.stepsize = stepsize
        arg = np.array(onp.arange(1, 5), dtype=dtype, requires_grad=True)
        [one], [other] = ours.apply_grad((g,), (arg,)), theirs.apply_grad((g,), (arg,))
        onp.testing.assert_allclose(onp.asarray(one), onp.asarray(other), rtol=1e-6)
        assert one.dtype == np.result_type(arg, stepsize) or name == "AdamOptimizer"


@pytest.mark.parametrize("name", NAMES)
def test_options_that_change_between_steps(name):
    ours, theirs = pair(name)
    mine, others = new_args(), new_args()
    for step in range(10):
        for optimizer in (ours, theirs):
            for option, value in OPTIONS[name].items():
                setattr(optimizer, option, value / (1 + step))
        mine, others = ours.step(cost, *mine), theirs.step(cost, *others)
        same(mine, others)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trainable_changes_between_steps(name):
    ours, theirs = pair(name)
    mine, others = new_args(), new_args()
    for step in range(6):
        for args in (mine, others):
            args[0].requires_grad = step % 3 != 1
            args[1].requires_grad = step >= 3
        mine, others = ours.step(cost, *mine), theirs.step(cost, *others)
        same(mine, others)
        same_memory(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_copies_go_on(name, copied):
    optimizer, args = getattr(adapter, name)(0.1), new_args()
    for _ in range(3):
        args = optimizer.step(cost, *args)
    other = copied(optimizer)
    expected = optimizer.step(cost, *args)
    same(other.step(cost, *args), expected, rtol=0)


def test_memory_goes_from_one_to_the_other():
    """Either way, and its arrays stay as they are."""
    ours, theirs = pair("AdamOptimizer")
    args = theirs.step(cost, *new_args())
    ours.accumulation = copy.deepcopy(theirs.accumulation)
    given, before = ours.fm[2], ours.fm[2].copy()
    same(ours.step(cost, *args), theirs.step(cost, *args))
    onp.testing.assert_array_equal(given, before)
    theirs.accumulation = copy.deepcopy(ours.accumulation)
    same(ours.step(cost, *args), theirs.step(cost, *args))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_train(name):
    ours, theirs = pair(name)
    same(ours.apply_grad(0, (1.0, np.array(2.0, requires_grad=False))), [1.0, np.array(2.0, requires_grad=False)])
    theirs.apply_grad(0, (1.0, np.array(2.0, requires_grad=False)))
    same_memory(ours, theirs)


def test_a_circuit_with_a_gradient_function():
    dev = qml.device("default.qubit", wires=2)

    @qml.qnode(dev)
    def circuit(angles, bias):
        qml.RX(angles[0], wires=0)
        qml.CRY(angles[1], wires=[0, 1])
        qml.RZ(bias, wires=1)
        return qml.expval(qml.PauliX(0) @ qml.PauliZ(1))

    ours, theirs = pair("AdamOptimizer", stepsize=0.1)
    mine = others = [np.array([0.3, 0.6], requires_grad=True), np.array(0.1, requires_grad=True)]
    for _ in range(10):
        mine = ours.step(circuit, *mine, grad_fn=qml.grad(circuit))
        others = theirs.step(circuit, *others)
        same(mine, others, 1e-9)


class Trainable:
    requires_grad = True


X = np.array([1.0, 2.0], requires_grad=True)
BAD = [
    ((onp.ones(3),), (X,), ValueError, r"gradient of args\[0\]: expected shape \(2,\) like the parameter, got \(3,\)"),
    ((onp.ones(()),), (X,), ValueError, r"gradient of args\[0\]: expected shape \(2,\)"),
    ((onp.ones(2),), (X, X), ValueError, "grad: expected 2 gradients, one for each trainable argument, got 1"),
    ((onp.ones(2) * 1j,), (X,), TypeError, r"args\[0\]: expected real numbers .* got complex128"),
    ((1.0,), (Trainable(),), TypeError, r"args\[0\]: expected a tensor of pennylane.numpy, got Trainable"),
    ((onp.ones(2), onp.ones(2)), (X, X * 1j), TypeError, r"args\[1\]: expected real numbers .* got complex128"),
    ((onp.ones(2, onp.longdouble),), (X,), TypeError, r"args\[0\]: expected real numbers of at most 64 bits"),
]


@pytest.mark.parametrize(("grad", "args", "error", "message"), BAD)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_first", [True, False])
def test_refused_before_anything_is_touched(name, grad, args, error, message, is_first):
    optimizer = getattr(adapter, name)()
    if not is_first:
        optimizer.apply_grad((onp.ones(2), onp.ones(2)), (X, X))
    before = repr(optimizer.__getstate__())
    with pytest.raises(error, match=message):
        optimizer.apply_grad(grad, args)
    assert repr(optimizer.__getstate__()) == before
    assert X.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["0.1", onp.ones(2), None])
def test_refused_options(name, value):
    for option in OPTIONS[name]:
        optimizer = getattr(adapter, name)()
        setattr(optimizer, option, value)
        with pytest.raises(TypeError, match=f"{option}: expected a number"):
            optimizer.apply_grad((onp.ones(2),), (X,))


@pytest.mark.parametrize("name", NAMES)
def test_stepsize_that_changes_in_place(name):
    """An array is another number at the next step, and the same object."""
    results = []
    for optimizer in pair(name, stepsize=0.1):
        optimizer.stepsize, x = onp.array(0.1), np.array([1.0, -2.0])
        for _ in range(5):
            x = optimizer.step(lambda x: np.sum(x**2), x)
            optimizer.stepsize *= 0.5
        results.append([x])
    same(*results)
