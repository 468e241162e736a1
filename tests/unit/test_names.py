"""Names: suggestions for unknown names, attributes of subclasses, submodules that are loaded on first access."""

import array
import copy
import ctypes
import pickle
import re
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import fastadam
from fastadam import functional
from fastadam.adapters import article
from fastadam.kernel import checks
from fastadam.names import meant, offer

KNOWN = {
    "Adam": list(fastadam.Adam.declared.parameters),
    "RMSprop": list(fastadam.RMSprop.declared.parameters),
    "article": ["alpha", "beta1", "beta2", "epsilon"],
    "stair": ["lr", "every", "factor"],
}
MEANT = [
    ("learning_rate", {"Adam": "lr", "RMSprop": "lr", "article": "alpha", "stair": "lr"}),
    ("step_size", {"Adam": "lr", "article": "alpha", "stair": "every"}),
    ("alpha", {"Adam": "lr"}),
    ("beta_2", {"Adam": "betas", "RMSprop": "alpha", "article": "beta2"}),
    ("b1", {"Adam": "betas", "article": "beta1"}),
    ("rho", {"RMSprop": "alpha", "article": "beta2"}),
    ("MaxNorm", {"Adam": None}),
    ("ams_grad", {"Adam": "amsgrad"}),
    ("maximise", {"Adam": "maximize"}),
    ("nesterov", {"Adam": None, "RMSprop": None, "article": None, "stair": None}),
    ("eta", {"Adam": "lr"}),
    ("beta", {"stair": None}),  # not "eta" misspelt, which means lr
]


@pytest.mark.parametrize(("name", "of", "expected"), [(n, of, e) for n, row in MEANT for of, e in row.items()])
def test_meant(name, of, expected):
    assert meant(name, KNOWN[of]) == expected


def test_offer():
    assert offer("learning_rate", ["lr", "eps"]) == "did you mean lr?"
    assert offer("nesterov", ["lr", "eps"], "a group has") == "a group has lr, eps"


class Mine(fastadam.Adam):
    losses = None
    note: str

    def __init__(self, params, model, **options):
        super().__init__(params, **options)
        self.model, self.losses, self.note, self._own = model, [1.0], "first", 2


class Slotted(fastadam.RMSprop):
    __slots__ = ("average",)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_subclass_has_the_attributes_that_it_declares(copied):
    opt = Mine(np.ones(2), "a model", lr=0.5)
    opt.step(np.ones(2))
    again = copied(opt)
    assert (again.model, again.losses, again.note, again._own) == ("a model", [1.0], "first", 2)
    assert (again.t, again.lr) == (1, 0.5)
    with pytest.raises(AttributeError, match="model2: Mine has no such attribute; did you mean model"):
        opt.model2 = 1
    slotted = Slotted(np.ones(2))
    slotted.average = 0.5
    assert copied(slotted).average == 0.5


def test_groups_and_schedules_can_be_copied():
    opt = fastadam.Adam(np.ones(2), lr=fastadam.schedules.cosine(0.1, 5) * 0.5)
    group, rate = opt.param_groups[0], opt.lr
    for again in (copy.deepcopy(group), pickle.loads(pickle.dumps(group))):
        assert again["lr"] == rate
    assert copy.copy(group) == dict(group)
    assert copy.copy(rate) == copy.deepcopy(rate) == rate
    assert not hasattr(group, "__array__")


FOR_TYPE_CHECKERS = """
def rate(t: Count) -> Rate:
    return 0.5

class Noted(fastadam.Adam):
    frame: Frame
    shared: ClassVar[Frame] = None

    def __init__(self, params, frame: Frame):
        super().__init__(params, lr=rate)
        self.frame = frame

    def step(self, grads, frame: Frame = None, **more):
        super().step(grads, **more)
"""


def test_annotations_whose_names_only_type_checkers_know():
    """They are never evaluated: as it is from Python 3.14 on, and before with this import."""
    names = {"fastadam": fastadam, "ClassVar": ClassVar}
    exec(("" if sys.version_info >= (3, 14) else "from __future__ import annotations\n") + FOR_TYPE_CHECKERS, names)
    opt = names["Noted"](np.ones(2), "a frame")
    opt.step(np.ones(2))
    assert (opt.frame, opt.lr) == ("a frame", names["rate"])
    with pytest.raises(AttributeError, match="shared: Noted has no such attribute"):
        opt.shared = 1
    with pytest.raises(TypeError, match="bound: unknown argument of step"):
        opt.step(np.ones(2), bound=1)


def test_methods_are_not_replaced_on_an_object():
    opt = fastadam.Adam(np.ones(2))
    with pytest.raises(AttributeError, match="step"):
        opt.step = print
    opt.step(np.ones(2))
    assert opt.t == 1


def test_refused_attributes_leave_an_object_as_it_was():
    opt = fastadam.Adam(np.ones(2), lr=0.1)
    mine = article.Adam(article_instance(), alpha=0.1)
    for thing, name in ((opt, "learning_rate"), (opt.param_groups[0], "lr"), (mine, "lr")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 0.5)
        assert name not in getattr(thing, "__dict__", {})
    assert (opt.lr, mine.alpha) == (0.1, 0.1)


def article_instance():
    class Instance:
        parameters, grad = np.ones(2), np.ones(2)

    return Instance()


# ---------------------------------------------------------------- submodules

LATE = """
import sys, fastadam
before = set(sys.modules)
assert not before & {"numba", "scipy", "sklearn", "thinc", "torch", "mpi4py", "difflib", "fastadam.functional"}
assert {"adapters", "functional", "mpi", "numba"} <= set(dir(fastadam))
assert {"article", "autograd", "jax", "river", "scipy", "sklearn", "thinc", "torch"} <= set(dir(fastadam.adapters))
assert not hasattr(fastadam, "nonsense") and not hasattr(fastadam.adapters, "nonsense")
"""


def in_new_process(code):
    return subprocess.run([sys.executable, "-c", LATE + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "fastadam.adapters.article.Adam",
        "with fastadam.adapters.sklearn.accelerated(): pass",
        "fastadam.adapters.scipy.adam",
        "fastadam.functional.adam",
        "fastadam.schedules.cosine",
        "fastadam.numba.adam_scalars",
        "assert 'numba' not in sys.modules",
    ],
)
def test_submodules_load_when_asked_for(code):
    done = in_new_process(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "asked", "text"),
    [
        ("numba", "fastadam.numba", "pip install numba"),
        ("mpi4py", "fastadam.mpi", "pip install mpi4py"),
        ("jax", "fastadam.adapters.jax", "pip install jax"),
        ("scipy", "fastadam.adapters.scipy", "pip install scipy"),
        ("sklearn", "fastadam.adapters.sklearn", "pip install 'scikit-learn>=1.5,<1.10'"),
        ("thinc", "fastadam.adapters.thinc", "pip install 'thinc>=8.3,<9.2'"),
        ("torch", "fastadam.adapters.torch", "pip install torch"),
    ],
)
def test_missing_package_is_named(missing, asked, text):
    done = in_new_process(f"sys.modules[{missing!r}] = None\n{asked}")
    assert f"ImportError: {asked}" in done.stderr
    assert text in done.stderr


def test_unknown_name_of_the_package():
    with pytest.raises(AttributeError, match="module 'fastadam' has no attribute 'Adan'; did you mean Adam"):
        fastadam.Adan  # noqa: B018


# ---------------------------------------------------------------- advice


def of_library(module, **members):
    """An object of a class of another library, which need not be here."""
    return type("Thing", (), {"__module__": module, **members})()


ADVICE = [
    (of_library("torch.nn.parameter"), "fastadam.adapters.torch"),
    (of_library("pandas.core.frame", __array__=None), ".to_numpy(copy=True)"),
    (of_library("jaxlib._jax", __array__=None), "fastadam.adapters.jax, for example its Adam(params)"),
    (of_library("jax._src.core"), "fastadam.adapters.jax, for example its Adam(params)"),
    (of_library("tensorflow.python.ops.variables", __array__=None), "x.assign("),
    (of_library("keras.src.models.sequential"), "model.set_weights("),
    (of_library("mlx.core"), "mlx.core.array("),
    (of_library("cupy", __array__=None), "cupy.asnumpy(x)"),
    (of_library("polars.series.series", __array__=None), ".to_numpy(writable=True)"),
    (of_library("sklearn.neural_network"), "fastadam.adapters.sklearn.accelerated()"),
    (of_library("scipy.sparse", toarray=None), "pass .toarray()"),
    (of_library("mine", __array__=None), "step a copy, numpy.array(x)"),
    (of_library("mine", parameters=None), "arrays as .parameters and their gradients as .grad"),
    (memoryview(b"1"), "numpy.asarray("),
    (bytearray(8), "numpy.frombuffer("),
    (array.array("d", [1.0]), "numpy.asarray("),
    ((ctypes.c_double * 3)(), "numpy.asarray("),
    (of_library("mine", __array_interface__=None), "numpy.asarray("),
    (of_library("mine", __dlpack__=None), "numpy.from_dlpack(x)"),
    (of_library("xarray.core.dataarray", __array__=None), "its .values"),
    (3.0, "put numbers into an array"),
    ([1.0], "put numbers into an array"),
]


@pytest.mark.parametrize(("value", "text"), ADVICE, ids=[repr(text) + str(k) for k, (_, text) in enumerate(ADVICE)])
def test_advice_knows_the_type(value, text):
    assert text in checks.advice(value)
    with pytest.raises(TypeError, match=r"^params: expected a numpy array, got \w+; "):
        checks.array("params", value)


ITERABLE = {"__iter__": lambda self: iter([1.0]), "__len__": lambda self: 1, "__getitem__": lambda self, k: [1.0][k]}
OF_ARRAYS = ("__array__", "__array_interface__", "__dlpack__")


@pytest.mark.parametrize(
    "value",
    [
        array.array("d", [1.0, 2.0]),
        (ctypes.c_double * 2)(1.0, 2.0),
        memoryview(np.ones(2)),
        *(of_library("mine", **{name: None}, **ITERABLE) for name in OF_ARRAYS),
        of_library("pandas.core.series", __array__=None, **ITERABLE),
        of_library("polars.series.series", __array__=None, **ITERABLE),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_an_array_of_another_kind_is_named_itself_not_its_numbers(value):
    kind = re.escape(type(value).__name__)
    for params, place in ((value, "params"), ([value], r"params\[0\]"), ({"W": value}, r"params\['W'\]")):
        with pytest.raises(TypeError, match=rf"^{place}: expected a numpy array, got {kind}; (step|pass) "):
            fastadam.Adam(params)
    with pytest.raises(TypeError, match=rf"^grads: expected a sequence like params, got {kind}$"):
        fastadam.Adam([np.ones(2), np.ones(2)]).step(value)


def test_the_way_out_shares_memory_where_it_says_so():
    for held in (array.array("d", [1.0, 2.0]), (ctypes.c_double * 2)(1.0, 2.0), memoryview(np.ones(2))):
        fastadam.SGD(np.asarray(held), lr=1.0).step(np.array(held))
        assert list(held) == [0.0, 0.0]
    held = bytearray(np.ones(2))
    fastadam.SGD(np.frombuffer(held, "d"), lr=1.0).step(np.ones(2))
    assert held == bytes(16)


@pytest.mark.parametrize("value", [None, "text", b"bytes", len, lambda x: x, object(), {1}])
def test_no_advice_where_no_array_was_meant(value):
    assert checks.advice(value) == ""


def test_subclass_of_another_librarys_class():
    torch = type("Module", (), {"__module__": "torch.nn.modules.module", "parameters": lambda self: iter(())})
    model = type("Net", (torch,), {"__module__": "__main__"})()
    with pytest.raises(TypeError, match=r"params: expected a numpy array, got Net; .*fastadam\.adapters\.torch"):
        fastadam.Adam(model)


def test_one_and_many():
    assert [checks.counted(n, "array") for n in (0, 1, 2)] == ["0 arrays", "1 array", "2 arrays"]
    assert checks.counted(2, "entry", "entries") == "2 entries"
    assert repr(fastadam.Adam(np.ones(2)).param_groups[0]).startswith("1 array: lr=")
    with pytest.raises(ValueError, match="g: expected 1 array, as many as p, got 2"):
        functional.adam([np.ones(2)], [np.ones(2)] * 2, [np.zeros(2)], [np.zeros(2)], 1)
