"""river's optimizers with fastadam's steps, compared with river's own: arrays, dicts, models, copies."""

import copy
import inspect
import pickle

import numpy as np
import pytest

pytest.importorskip("river")
from river import compose, facto, linear_model, optim, preprocessing, reco
from river.utils import VectorDict

from fastadam.adapters import river as adapter

NAMES = adapter.__all__
STEPS = 50
#: how a gradient and weights may come: a function that makes each of a dict
KINDS = {
    "dicts": (dict, dict),
    "VectorDicts": (VectorDict, VectorDict),
    "VectorDict, dict": (VectorDict, dict),
    "array, dict": (lambda w: np.array([*w.values()]), lambda g: dict(enumerate(g.values()))),
}


def gradients(n: int, steps: int = STEPS) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((steps, n)) * 10.0 ** rng.integers(-6, 3, n)


def named(numbers) -> dict[str, float]:
    return {f"f{k}": number for k, number in enumerate(numbers.tolist())}


def values(w) -> np.ndarray:
    return w if isinstance(w, np.ndarray) else np.array([float(w[name]) for name in sorted(w)])


def states(optimizer) -> dict[str, np.ndarray]:
    return {letter: values(getattr(optimizer, letter)) for letter in type(optimizer).letters}


def pair(name: str, *args, **kwargs):
    return getattr(optim, name)(*args, **kwargs), getattr(adapter, name)(*args, **kwargs)


def small_rate(name: str) -> dict[str, float]:
    return {} if name == "AdaDelta" else {"lr": 0.005}


@pytest.fixture
def own_steps(monkeypatch):
    """How many steps of dicts and vectors river's own classes make, where fastadam's inherit them."""
    made = []

    def counting(method):
        def counted(self, w, g):
            made.extend([1] if type(self).__module__ == adapter.__name__ else [])
            return method(self, w, g)

        return counted

    for stock in (getattr(optim, name) for name in NAMES):
        for method in vars(stock).keys() & {"_step_with_dict", "_step_with_vector"}:
            monkeypatch.setattr(stock, method, counting(vars(stock)[method]))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_signature_defaults_and_attributes(name):
    stock, ours = pair(name)
    assert inspect.signature(type(ours)) == inspect.signature(type(stock))
    assert isinstance(ours, type(stock))
    assert vars(ours).keys() == vars(stock).keys()
    assert ours._get_params().keys() == stock._get_params().keys()
    assert repr(ours).partition("(")[0] == name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 8, 24, 48, 300])
@pytest.mark.parametrize("name", NAMES)
def test_dicts(name, n, kind, own_steps):
    """Few numbers are river's to step, many fastadam's, and the results are the same."""
    stock, ours = pair(name)
    made_w, made_g = KINDS[kind]
    there, here = (made_w(named(np.linspace(-1, 1, n))) for _ in range(2))
    for g in gradients(n):
        there = stock.step(there, made_g(named(g)))
        assert ours.step(here, made_g(named(g))) is here
        np.testing.assert_allclose(values(here), values(there), rtol=1e-12, atol=1e-15)
    for letter, state in states(ours).items():
        np.testing.assert_allclose(state, values(getattr(stock, letter)), rtol=1e-12, atol=1e-300)
    assert ours.n_iterations == stock.n_iterations == STEPS
    if n == 300:
        assert len(own_steps) == 1  # the first, with features that were not there before
    if n == 1:
        assert len(own_steps) == STEPS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
@pytest.mark.parametrize("name", ["Adam", "RMSProp"])
def test_arrays(name, shape, dtype, own_steps):
    stock, ours = pair(name)
    there, here = (np.ones(shape, dtype) for _ in range(2))
    for g in gradients(int(np.prod(shape))):
        g = g.reshape(shape).astype(dtype)
        stock.step(there, g)
        assert ours.step(here, g) is here
    np.testing.assert_allclose(here, there, rtol=1e-4 if dtype is np.float32 else 1e-12)
    assert here.dtype == dtype
    assert own_steps == []


@pytest.mark.parametrize("name", ["AMSGrad", "AdaDelta", "Momentum"])
def test_arrays_that_river_refuses(name):
    """river steps no arrays by these rules; the numbers are those of its dicts."""
    stock, ours = pair(name)
    w, there = np.ones(5), dict.fromkeys(range(5), 1.0)
    for g in gradients(5):
        ours.step(w, g)
        stock.step(there, dict(enumerate(g)))
    np.testing.assert_allclose(w, [*there.values()], rtol=1e-12)


@pytest.mark.parametrize("kind", ["dicts", "VectorDicts", "VectorDict, dict"])
@pytest.mark.parametrize("name", NAMES)
def test_features_come_and_go(name, kind):
    """Other features, and the same in another order, in the middle of steps that are fastadam's."""
    stock, ours = pair(name)
    made_w, made_g = KINDS[kind]
    rng = np.random.default_rng(1)
    there, here = (made_w(dict.fromkeys(range(300), 0.5)) for _ in range(2))
    choices = [np.arange(200), np.arange(200), np.arange(200), np.arange(200)[::-1], np.arange(100, 300), np.arange(3)]
    for k in [0, 1, 2, 3, 3, 3, 0, 0, 4, 4, 4, 5, 0, 0, 4, 4]:
        g = {int(i): float(rng.standard_normal()) for i in choices[k]}
        there, here = stock.step(there, made_g(g)), ours.step(here, made_g(g))
    np.testing.assert_allclose(values(here), values(there), rtol=1e-12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), copy.copy])
@pytest.mark.parametrize("n", [3, 100])
@pytest.mark.parametrize("name", NAMES)
def test_copies_go_on(name, n, copied):
    stock, ours = pair(name)
    there, here = (named(np.zeros(n)) for _ in range(2))
    for k, g in enumerate(gradients(n)):
        if k == STEPS // 2:
            ours = copied(ours)
        stock.step(there, named(g))
        ours.step(here, named(g))
    np.testing.assert_allclose(values(here), values(there), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_clone_begins_anew(name):
    _, ours = pair(name)
    w = named(np.zeros(100))
    for g in gradients(100, 3):
        ours.step(w, named(g))
    clone = ours.clone()
    assert type(clone) is type(ours)
    assert clone.n_iterations == 0
    fresh, other = named(np.zeros(100)), named(np.zeros(100))
    clone.step(fresh, named(gradients(100)[0]))
    type(ours)().step(other, named(gradients(100)[0]))
    assert fresh == other
    whole = ours.clone(include_attributes=True)
    assert whole.n_iterations == 3
    assert all((a == b).all() for a, b in zip(states(whole).values(), states(ours).values(), strict=True))


def test_states_are_read_as_mappings():
    ours = adapter.Adam()
    w = named(np.zeros(100))
    for g in gradients(100, 3):
        ours.step(w, named(g))
    assert list(ours.m) == list(w)
    assert len(ours.m) == 100
    assert ours.m["f3"] == dict(ours.m)["f3"] != 0
    with pytest.raises(KeyError):
        ours.m["none"]


def test_rate_schedule_and_changed_options():
    stock, ours = (lib.Adam(optim.schedulers.InverseScaling(0.1, power=0.7)) for lib in (optim, adapter))
    there, here = (named(np.zeros(100)) for _ in range(2))
    for k, g in enumerate(gradients(100)):
        if k == 20:
            stock.beta_1 = ours.beta_1 = 0.5
            for o in (stock, ours):
                o.mutate({"lr": optim.schedulers.Constant(0.3)})
        stock.step(there, named(g))
        ours.step(here, named(g))
    np.testing.assert_allclose(values(here), values(there), rtol=1e-12)


def test_without_bias_correction_river_steps(own_steps):
    stock, ours = pair("AMSGrad", correct_bias=False)
    there, here = (named(np.zeros(100)) for _ in range(2))
    for g in gradients(100):
        stock.step(there, named(g))
        ours.step(here, named(g))
    assert here == there
    assert len(own_steps) == STEPS


def test_what_cannot_be_stepped_is_refused_as_by_river():
    for lib in (optim, adapter):
        with pytest.raises(TypeError):
            lib.Adam().step(np.zeros(3, int), np.ones(3))
        with pytest.raises(ValueError, match=r"broadcast|operands"):
            lib.Adam().step(np.zeros(3), np.ones(4))
    optimizer, w = adapter.Adam(), named(np.zeros(100))
    for g in gradients(100, 3):
        optimizer.step(w, named(g))
    before, m = dict(w), dict(optimizer.m)
    with pytest.raises(TypeError):
        optimizer.step(w, dict.fromkeys(w, "one"))
    assert (w, dict(optimizer.m), optimizer.n_iterations) == (before, m, 3)


def stream(n: int, count: int):
    rng = np.random.default_rng(2)
    direction = rng.standard_normal(n)
    for x in rng.standard_normal((count, n)):
        yield named(x), float(x @ direction + 0.1 * rng.standard_normal())


MODELS = {
    "linear": lambda o: linear_model.LinearRegression(o, l2=0.01),
    "l1": lambda o: linear_model.LinearRegression(o, l1=0.01),
    "pipeline": lambda o: compose.Pipeline(preprocessing.StandardScaler(), linear_model.LinearRegression(o)),
    "averaged": lambda o: linear_model.LinearRegression(optim.Averager(o, start=10)),
    "factors": lambda o: facto.FMRegressor(10, weight_optimizer=o.clone(), latent_optimizer=o.clone(), seed=1),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_models_learn_the_same(name, model):
    there, here = (MODELS[model](o) for o in pair(name, **small_rate(name)))
    for x, y in stream(60 if model != "factors" else 5, 100):
        np.testing.assert_allclose(here.predict_one(x), there.predict_one(x), rtol=1e-6, atol=1e-6)
        there.learn_one(x, y)
        here.learn_one(x, y)


@pytest.mark.parametrize("name", NAMES)
def test_mini_batches(name, own_steps):
    pandas = pytest.importorskip("pandas")
    there, here = (linear_model.LinearRegression(o) for o in pair(name))
    rng = np.random.default_rng(3)
    for _ in range(30):
        x = pandas.DataFrame(rng.standard_normal((16, 100))).rename(columns=str)
        y = x.sum(axis=1).rename("y")
        for model in (there, here):
            model.learn_many(x, y)
    assert here.weights.keys() == there.weights.keys()
    np.testing.assert_allclose([*here.weights.values()], [*there.weights.values()], rtol=1e-10)
    assert len(own_steps) == 1


@pytest.mark.parametrize("name", ["AdaDelta", "Adam", "Momentum", "RMSProp"])
def test_recommenders_are_rivers_own(name):
    there, here = (
        reco.BiasedMF(5, bias_optimizer=o, latent_optimizer=o.clone(), seed=1) for o in pair(name, **small_rate(name))
    )
    rng = np.random.default_rng(4)
    for user, item, y in rng.integers(0, 5, (200, 3)).tolist():
        there.learn_one(user, item, y)
        here.learn_one(user, item, y)
        assert here.predict_one(user, item) == there.predict_one(user, item)


def test_options_that_change_in_place():
    """An array is another number at the next step, and the same object."""
    found = []
    for lib in (optim, adapter):
        optimizer, w = lib.Adam(), np.ones(3)
        optimizer.eps = np.array(0.1)
        for _ in range(5):
            optimizer.step(w, np.ones(3))
            optimizer.eps *= 0.5
        found.append(w)
    np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("name", ["Adam", "RMSProp"])
def test_a_shallow_copy_goes_its_own_way(name):
    found = []
    for lib in (optim, adapter):
        optimizer, w, v = getattr(lib, name)(), np.ones(3), np.ones(3)
        optimizer.step(w, np.ones(3))
        other = copy.copy(optimizer)
        for _ in range(3):
            other.step(v, np.full(3, 2.0))
            optimizer.step(w, np.full(3, -1.0))
        found.append([w, v])
    np.testing.assert_allclose(*found, rtol=1e-12)
