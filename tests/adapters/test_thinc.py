"""thinc's optimizer with fastadam's steps, compared with thinc's own: results, options, configs, a training,
checkpoints.
The tests run with thinc 8.3, whose schedules are generators, and with thinc 9.
"""

import copy
import inspect
import os
import pickle
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import inside
import numpy as np
import pytest
import thinc.api
from places import ROOT
from sklearn.datasets import load_digits
from thinc.api import Config, Relu, Softmax, chain, fix_random_seed, registry, to_categorical

import fastadam
import fastadam.adapters.thinc as adapter

OURS = tuple(fastadam.optimizers.CLASSES)
KEY = (1, "W")
SHAPES = {KEY: (7, 5), (1, "b"): (5,), (2, "W"): (3, 40, 2), (3, "E"): (300, 250)}


def new_weights(dtype="float32"):
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape).astype(dtype) for key, shape in SHAPES.items()}


@cache
def gradients(step, *shapes):
    """Of norms on both sides of 1, some elements zero."""
    rng = np.random.default_rng(step)
    made = [rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 1) for shape in shapes]
    for g in made:
        g.flat[::3] = 0
    return made


def train(optimizer, steps=40, weights=None, first=0, **call):
    """Weights after steps of the same gradients."""
    weights = new_weights() if weights is None else weights
    for step in range(first, first + steps):
        for (key, w), g in zip(weights.items(), gradients(step, *(w.shape for w in weights.values())), strict=True):
            weights[key], zeroed = optimizer(key, w, g.astype(w.dtype), **call)
            assert not zeroed.any()
        optimizer.step_schedules()
    return weights


def close(ours, theirs, tolerance=2e-5):
    """To rounding: thinc takes 1 - beta2 of a float32, which is 1.3e-5 off for 0.999, and its steps 6.5e-6."""
    assert ours.keys() == theirs.keys()
    for key in theirs:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=tolerance, atol=tolerance)


def schedule(name, *args):
    """A schedule of thinc's in either version: a generator, or an object."""
    return registry.schedules.get(f"{name}.v1")(*args)


# ---------------------------------------------------------------- the numbers of thinc's Adam, RAdam and SGD

CASES = {
    "defaults": lambda: {},
    "rate": lambda: {"learn_rate": 0.05},
    "betas": lambda: {"beta1": 0.6, "beta2": 0.95},
    "eps": lambda: {"eps": 0.1},
    "no clipping": lambda: {"grad_clip": 0.0},
    "much clipping": lambda: {"grad_clip": 1e-3},
    "rare clipping": lambda: {"grad_clip": 50},
    "no averages": lambda: {"use_averages": False},
    "decay": lambda: {"L2": 0.5, "learn_rate": 0.1},
    "decay alone": lambda: {"L2": 0.5, "learn_rate": 0.1, "grad_clip": 0.0, "use_averages": False},
    "L2": lambda: {"L2": 0.5, "L2_is_weight_decay": False},
    "L2 without clipping": lambda: {"L2": 0.5, "L2_is_weight_decay": False, "grad_clip": 0.0},
    "list": lambda: {"learn_rate": [0.1, 0.05, 0.01]},
    "generator": lambda: {"learn_rate": (0.1 / (1 + k) for k in range(7))},
    "warmup": lambda: {"learn_rate": schedule("warmup_linear", 0.01, 5, 40)},
    "all scheduled": lambda: {
        "learn_rate": schedule("decaying", 0.01, 0.1),
        "L2": [0.1, 0.2],
        "beta1": [0.5, 0.9],
        "beta2": [0.9, 0.99],
        "eps": [0.1, 0.01],
        "grad_clip": [1.0, 0.0, 2.0],
    },
}


@pytest.mark.parametrize("name", ["Adam", "RAdam", "SGD"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lr_scale", [1.0, 0.3])
def test_numbers_of_thincs_own(name, case, lr_scale):
    taken = inspect.signature(getattr(thinc.api, name)).parameters
    theirs, ours = (
        make(**{"learn_rate": 0.01} | {option: value for option, value in CASES[case]().items() if option in taken})
        for make in (getattr(thinc.api, name), getattr(adapter, name))
    )
    close(train(ours, lr_scale=lr_scale), train(theirs, lr_scale=lr_scale))
    close(ours.mom1, theirs.mom1)
    close(ours.mom2, theirs.mom2, 1e-4)
    assert ours.nr_update == theirs.nr_update
    assert (ours.averages is None) == (theirs.averages is None)
    if theirs.averages is not None:
        close(ours.averages, theirs.averages)


def test_averages_to_the_bit():
    """Given the same weights: large and small arrays, in any layout."""
    ours, theirs = (make(1e-3) for make in (adapter.Adam, thinc.api.Adam))
    for w in (
        np.ones(10, "float32"),
        np.ones((300, 401), "float32"),
        np.asfortranarray(np.ones((300, 401), "float32")),
    ):
        average = np.zeros_like(w)
        for t in range(1, 5):
            ours((1, "W"), w, np.full_like(w, 0.1))
            thinc.api.NumpyOps().update_averages(average, w, t)
            np.testing.assert_array_equal(ours.averages[1, "W"], average)
        ours, theirs = adapter.Adam(1e-3), theirs


def test_steps_are_made_by_fastadams_kernels(monkeypatch):
    for name in ("_adam", "_radam"):
        monkeypatch.setattr(thinc.api.Optimizer, name, None)
    optimizer = adapter.Adam()
    train(optimizer, steps=5)
    assert inside.thinc_counts(optimizer) == dict.fromkeys(SHAPES, 5)


def test_numbers_without_axes():
    ours = train(adapter.Adam(np.float32(0.5), beta1=np.array(0.5), eps=np.asarray(0.25), L2=np.float16(0.5)), steps=3)
    expected = train(adapter.Adam(0.5, beta1=0.5, eps=0.25, L2=0.5), steps=3)
    for key, w in expected.items():
        np.testing.assert_array_equal(ours[key], w)


def test_rates_assigned_between_steps():
    weights = []
    for optimizer in (adapter.Adam(0.1), thinc.api.Adam(0.1)):
        made = train(optimizer, steps=3)
        optimizer.learn_rate = thinc.api.Adam(0.001).learn_rate  # a float, or thinc 9's schedule
        if callable(optimizer.learn_rate):
            train(optimizer, steps=3, weights=made)
            optimizer.learn_rate.attrs["rate"] = 0.5
        weights.append(train(optimizer, steps=3, weights=made))
    close(*weights)


if hasattr(thinc.api.Optimizer, "last_score"):  # thinc 8 has no schedules that see so much

    def test_schedules_see_key_and_score():
        seen = []

        def by_key(step, *, key, last_score):
            seen.append((step, key, last_score))
            return 0.1 if key == (1, "W") else 0.0

        optimizer = adapter.Adam(0.1)
        optimizer.learn_rate = by_key
        optimizer.last_score = 0.5
        before = new_weights()
        after = train(optimizer, steps=2)
        assert seen[0] == (0, (1, "W"), (0, 0.5))
        assert seen[-1] == (1, (3, "E"), (0, 0.5))
        assert (after[1, "W"] != before[1, "W"]).any()
        np.testing.assert_array_equal(after[1, "b"], before[1, "b"])


# ---------------------------------------------------------------- the other rules

FACES = {
    "Adamax": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    "RMSprop": {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-3},
    "Adadelta": {"rho": 0.8, "eps": 1e-3},
    "AdamW": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "amsgrad": True},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "NAdam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "momentum_decay": 0.1},
    "RAdam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
    "ASGD": {"lambd": 0.1, "alpha": 0.5, "t0": 3},
    "Rprop": {"etas": (0.4, 1.1), "step_sizes": (1e-3, 0.5)},
    "Lion": {"beta1": 0.8, "beta2": 0.95},
    "AdEMAMix": {"beta1": 0.8, "beta2": 0.95, "beta3": 0.99, "alpha": 2.0, "alpha_warmup": 5, "beta3_warmup": 4},
    "ADOPT": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "use_clipping": False},
    "ScheduleFreeAdamW": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "warmup_steps": 3, "r": 0.5},
    "Adam": {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "amsgrad": True},
}


def L2_of(name, L2, argument="L2"):
    """A decay for an optimizer that has one."""
    return {argument: L2} if "weight_decay" in getattr(fastadam, name).options else {}


def fastadams(name, options, **more):
    """The optimizer of fastadam that an adapter's arguments mean, over new weights."""
    options = dict(options)
    if "beta1" in options:
        options["betas"] = tuple(options.pop(beta) for beta in ("beta1", "beta2", "beta3") if beta in options)
    if name == "Adam":
        options["eps_hat"] = True
    weights = new_weights()
    return getattr(fastadam, name)(weights, lr=0.1, **options, **more), weights


def train_fastadam(opt, steps=20, first=0):
    def collect(key, w, g):
        grads[key] = g.copy()
        return w, np.zeros_like(g)

    for step in range(first, first + steps):
        grads = {}
        collect.step_schedules = lambda: None
        train(collect, 1, new_weights(), step)
        opt.step(grads)


def with_decay(name, L2):
    """The optimizer of FACES whose decay is that of fastadam's own class."""
    given = {"learn_rate": 0.1, "grad_clip": 0.0, **FACES[name], **L2_of(name, L2)}
    if name in ("Lion", "AdEMAMix"):
        return adapter.Optimizer(getattr(fastadam, name), decay_first=True, **given)
    is_fixed = "L2_is_weight_decay" not in inspect.signature(getattr(adapter, name)).parameters
    return getattr(adapter, name)(**given, **({} if is_fixed else {"L2_is_weight_decay": False}))


@pytest.mark.parametrize("name", [name for name in OURS if name != "RAdam"])  # whose numbers are thinc's
@pytest.mark.parametrize("L2", [0.0, 0.5])
def test_every_rule_is_fastadams(name, L2):
    """Bits of fastadam's own optimizer, with its own decay."""
    optimizer = with_decay(name, L2)
    made = train(optimizer, 20)
    opt, expected = fastadams(name, FACES[name], **L2_of(name, L2, "weight_decay"))
    train_fastadam(opt)
    for key, w in expected.items():
        np.testing.assert_array_equal(made[key], w)
    moments = [optimizer.mom1, optimizer.mom2, optimizer.mom3]
    for held, arrays in zip(moments, opt.state.values(), strict=False):
        for key, array in zip(expected, arrays, strict=True):
            np.testing.assert_array_equal(held[key], array.ravel())
    assert [bool(held) for held in moments] == [k < len(opt.state) for k in range(3)]


@pytest.mark.parametrize("name", [name for name in OURS if name not in ("AdamW", "ASGD", "ScheduleFreeAdamW", "Rprop")])
def test_decay_after_the_step(name):
    """As thinc's: first the step, then the weights shrink by learn_rate * lr_scale * L2."""
    made = train(getattr(adapter, name)(0.1, L2=0.5, grad_clip=0.0), 1, lr_scale=0.5)
    expected = train(getattr(adapter, name)(0.1, grad_clip=0.0), 1, lr_scale=0.5)
    close(made, {key: w * (1 - 0.1 * 0.5 * 0.5) for key, w in expected.items()}, 1e-6)


@pytest.mark.parametrize(("name", "mom", "options"), [("ASGD", "mom1", {"t0": 3}), ("ScheduleFreeAdamW", "mom3", {})])
def test_averages_of_the_rule_itself(name, mom, options):
    """They are in `averages`, where a model takes them from; after a pickle and for other arrays, too."""
    optimizer = getattr(adapter, name)(0.1, **options)
    weights = train(optimizer, 10)
    optimizer = pickle.loads(pickle.dumps(optimizer))
    train(optimizer, 10, {key: w.copy() for key, w in weights.items()}, first=10)
    expected = getattr(adapter, name)(0.1, use_averages=False, **options)
    train(expected, 20)
    assert expected.averages is None
    for key, w in weights.items():
        assert (optimizer.averages[key] != w).any()
        np.testing.assert_array_equal(optimizer.averages[key].ravel(), getattr(expected, mom)[key])


def test_the_third_beta_may_be_a_schedule():
    made = train(adapter.AdEMAMix(0.1, beta3=[0.9, 0.5, 0.99], grad_clip=0.0), 6)
    opt, expected = fastadams("AdEMAMix", {"beta1": 0.9, "beta2": 0.999, "beta3": 0.9})
    for step, beta3 in enumerate([0.9, 0.5, 0.99, 0.99, 0.99, 0.99]):
        opt.betas = 0.9, 0.999, beta3
        train_fastadam(opt, 1, step)
    for key, w in expected.items():
        np.testing.assert_array_equal(made[key], w)


@pytest.mark.parametrize("name", OURS)
def test_defaults_are_those_of_the_optimizers(name):
    ours = inspect.signature(getattr(adapter, name)).parameters
    theirs = inspect.signature(getattr(thinc.api, name, thinc.api.Adam)).parameters
    own = inspect.signature(getattr(fastadam, name)).parameters
    if hasattr(thinc.api, name):
        assert [p for p in theirs if p not in ours] == []
        has = [p for p in theirs if theirs[p].default is not inspect.Parameter.empty]
        assert {p: ours[p].default for p in has} == {p: theirs[p].default for p in has}
        return
    same = {"learn_rate": "lr", "L2": "weight_decay"}
    for p, parameter in ours.items():
        if p in ("beta1", "beta2", "beta3"):
            assert parameter.default == own["betas"].default[int(p[-1]) - 1]
        elif p in ("grad_clip", "L2_is_weight_decay", "use_averages"):
            assert parameter.default == theirs[p].default
        else:
            assert parameter.default == own[same.get(p, p)].default


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("name", OURS)
def test_resolved_from_a_config(name):
    rates = """
        [optimizer.learn_rate]
        @schedules = "warmup_linear.v1"
        initial_rate = 0.01
        warmup_steps = 10
        total_steps = 40
    """
    takes_none = name in ("Rprop", "ScheduleFreeAdamW")
    config = Config().from_str(f"""
        [optimizer]
        @optimizers = "fastadam.{name}.v1"
        grad_clip = 2.0
        use_averages = false
        {"L2 = 0.25" if L2_of(name, 0.25) else ""}
        {"learn_rate = 0.5" if takes_none else rates}
    """)
    optimizer = registry.resolve(config)["optimizer"]
    assert isinstance(optimizer, thinc.api.Optimizer)  # what spaCy asks of it
    assert optimizer.kind is getattr(fastadam, name)
    rate = 0.5 if takes_none else schedule("warmup_linear", 0.01, 10, 40)
    expected = getattr(adapter, name)(rate, grad_clip=2.0, use_averages=False, **L2_of(name, 0.25))
    made, expected = train(optimizer, 20), train(expected, 20)
    for key, w in expected.items():
        np.testing.assert_array_equal(made[key], w)


def test_the_config_in_the_docs():
    (text,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs/how-to/libraries/thinc.md").read_text(), re.S)
    optimizer = registry.resolve(Config().from_str("[training]\n" + text))["training"]["optimizer"]
    assert optimizer.kind is fastadam.Adam
    assert optimizer.averages is None
    before = new_weights()
    close(train(optimizer, 1), before, 0)  # the warmup begins at a rate of 0
    assert (train(optimizer, 1)[KEY] != before[KEY]).any()


def test_the_table_in_the_docs():
    """Names every optimizer, and exactly the options that it has beside those of the heading."""
    page = (ROOT / "docs/how-to/libraries/thinc.md").read_text()
    rows = re.findall(r"^\| `fastadam\.(\w+)\.v1` \| .* \| (.*) \|$", page, re.M)
    assert {name for name, _ in rows} == set(OURS)
    in_heading = {"learn_rate", "L2", "grad_clip", "use_averages"}
    for name, own in rows:
        assert (
            set(re.findall(r"`(\w+)`", own)) == inspect.signature(getattr(adapter, name)).parameters.keys() - in_heading
        )


def test_a_config_of_wrong_arguments():
    with pytest.raises(thinc.api.ConfigValidationError, match="momentum"):
        registry.resolve({"optimizer": {"@optimizers": "fastadam.Adam.v1", "momentum": 0.9}})


def test_entry_points_find_them_in_a_fresh_process(tmp_path):
    """As an installed distribution would: a process that imports nothing of fastadam."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["thinc_optimizers"]
    assert set(points) == {f"fastadam.{name}.v1" for name in OURS}
    for name, target in points.items():
        module, _, attribute = target.partition(":")
        assert getattr(import_module(module), attribute) is registry.optimizers.get(name)
    info = tmp_path / "fastadam-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastadam\nVersion: 0.1.0\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[thinc_optimizers]", *lines, ""]))
    script = (
        "import sys\n"
        "from thinc.api import registry\n"
        "assert not any(name.startswith('fastadam') for name in sys.modules)\n"
        f"for name in {list(points)}:\n"
        "    optimizer = registry.resolve({'o': {'@optimizers': name, 'learn_rate': 0.5}})['o']\n"
        "    print(type(optimizer).__module__, optimizer.kind.__name__)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(fastadam.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"fastadam.adapters.thinc {name.split('.')[1]}" for name in points], done.stderr


# ---------------------------------------------------------------- a training

PIXELS, DIGIT = load_digits(return_X_y=True)
PIXELS = (PIXELS / 16).astype("float32")
TARGETS = to_categorical(DIGIT.astype("int32"), n_classes=10)


def new_model():
    fix_random_seed(0)
    return chain(Relu(64), Relu(64), Softmax()).initialize(X=PIXELS, Y=TARGETS)


def train_model(model, optimizer, epochs, first=0):
    """Losses of the epochs on the first 1 500 digits."""
    losses = []
    for epoch in range(first, first + epochs):
        losses.append(0.0)
        for rows in np.array_split(np.random.default_rng(epoch).permutation(1500), 24):
            predicted, backprop = model.begin_update(PIXELS[rows])
            difference = predicted - TARGETS[rows]
            losses[-1] += float((difference**2).sum())
            backprop(difference / len(rows))
            model.finish_update(optimizer)
            optimizer.step_schedules()
    return losses


def accuracy(model, params):
    with model.use_params(params):
        return (model.predict(PIXELS[1500:]).argmax(1) == DIGIT[1500:]).mean()


def test_a_model_trains_as_with_thincs_adam():
    results = []
    for make in (adapter.Adam, thinc.api.Adam):
        model, optimizer = new_model(), make(0.005, L2=1e-3)
        losses = train_model(model, optimizer, 8)
        results.append((losses, accuracy(model, {}), accuracy(model, optimizer.averages)))
    (losses, last, averaged), (their_losses, their_last, their_averaged) = results
    np.testing.assert_allclose(losses, their_losses, rtol=1e-2)  # rounding, after 192 steps of ReLUs
    np.testing.assert_allclose(losses[:2], their_losses[:2], rtol=1e-4)
    assert last == pytest.approx(their_last, abs=0.01)
    assert averaged == pytest.approx(their_averaged, abs=0.01)
    assert min(last, averaged) > 0.9


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", OURS)
def test_training_goes_on_from_a_pickle(name):
    through, optimizer = new_model(), getattr(adapter, name)(0.005, **L2_of(name, 1e-3))
    train_model(through, optimizer, 2)
    stopped = new_model().from_bytes(through.to_bytes())
    resumed = pickle.loads(pickle.dumps(optimizer))
    renamed = dict(zip((node.id for node in through.walk()), (node.id for node in stopped.walk()), strict=True))
    for held in ("mom1", "mom2", "mom3", "averages", "nr_update"):  # thinc's keys are of this model, not of its copy
        setattr(resumed, held, {(renamed[i], name): value for (i, name), value in getattr(resumed, held).items()})
    expected = train_model(through, optimizer, 2, first=2)
    assert train_model(stopped, resumed, 2, first=2) == expected
    assert stopped.to_bytes() == through.to_bytes()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_copies_step_the_weights_that_they_are_given(copied):
    optimizer = adapter.Adam(0.1)
    weights = train(optimizer, 3)
    kept = {key: w.copy() for key, w in weights.items()}
    again = copied(optimizer)
    assert again.nr_update == optimizer.nr_update
    made = train(again, 3, {key: w.copy() for key, w in weights.items()}, first=3)
    close(weights, kept, 0)
    expected = train(adapter.Adam(0.1), 6)
    close(made, expected, 0)


def test_states_are_exchanged_with_thincs_adam():
    expected = train(thinc.api.Adam(0.01), 20)
    begun, optimizer = thinc.api.Adam(0.01), adapter.Adam(0.01)
    weights = train(begun, 10)
    for held in ("mom1", "mom2", "averages", "nr_update"):
        setattr(optimizer, held, copy.deepcopy(getattr(begun, held)))
    weights = train(optimizer, 5, weights, first=10)
    for held in ("mom1", "mom2", "averages", "nr_update"):
        setattr(begun, held, copy.deepcopy(getattr(optimizer, held)))
    close(train(begun, 5, weights, first=15), expected)
    close(begun.averages, thinc_averages(20))


def thinc_averages(steps):
    optimizer = thinc.api.Adam(0.01)
    train(optimizer, steps)
    return optimizer.averages


@pytest.mark.parametrize("held", ["mom1", "mom2", "averages", "nr_update"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_states_that_change_between_steps(held, how):
    """As in thinc's: what its dicts hold at a step is what counts."""
    results = []
    for optimizer in (adapter.Adam(0.01), thinc.api.Adam(0.01)):
        weights = train(optimizer, 3)
        if how == "replaced":
            setattr(optimizer, held, {key: 2 * value for key, value in getattr(optimizer, held).items()})
        elif held == "nr_update":
            getattr(optimizer, held).update(dict.fromkeys(SHAPES, 0))
        else:
            getattr(optimizer, held).clear()
        weights = train(optimizer, 3, weights, first=3)
        results.append((weights, optimizer))
    (made, ours), (expected, theirs) = results
    close(made, expected)
    for name in ("mom1", "mom2", "averages", "nr_update"):
        close(getattr(ours, name), getattr(theirs, name), 1e-4)


def test_the_third_state_is_followed_too():
    optimizer = adapter.Adam(0.1, amsgrad=True)
    weights = train(optimizer, 2)
    before = {key: w.copy() for key, w in weights.items()}
    optimizer.mom3 = {key: np.full_like(largest, np.inf) for key, largest in optimizer.mom3.items()}
    close(train(optimizer, 1, weights, first=2), before, 0)


# ---------------------------------------------------------------- arrays


def test_weights_may_move():
    """thinc sets new arrays where parameters are loaded, or where averages are tried out."""
    optimizer, weights = adapter.Adam(0.1), new_weights()
    for step in range(6):
        weights = {key: w.copy() for key, w in train(optimizer, 1, weights, first=step).items()}
    close(weights, train(adapter.Adam(0.1), 6), 0)


def test_new_views_of_the_same_memory_keep_their_plan(monkeypatch):
    """A shim brings a new array of its framework's memory at each step."""
    made = inside.plans_made_for_thinc(monkeypatch)
    optimizer, held = adapter.Adam(0.1), new_weights()
    for step in range(6):
        views = {key: w.view() for key, w in held.items()}
        returned = train(optimizer, 1, dict(views), first=step)
        assert all(returned[key] is views[key] for key in views)
    assert made == list(SHAPES)
    close(held, train(adapter.Adam(0.1), 6), 0)


@pytest.mark.parametrize("layout", ["F", "strided", "float64"])
def test_any_layout_and_float64(layout):
    weights, dtype = new_weights(), "float64" if layout == "float64" else "float32"
    for key, w in weights.items():
        if layout == "strided":
            weights[key] = np.zeros([2 * n for n in w.shape], dtype)[tuple([slice(None, None, 2)] * w.ndim)]
        else:
            weights[key] = np.zeros(w.shape, dtype, order="F" if layout == "F" else "C")
        weights[key][...] = w
    given = dict(weights)
    optimizer = adapter.Adam(0.1, L2=0.1)
    made = train(optimizer, 5, weights)
    assert all(made[key] is given[key] for key in given)
    assert all(average.dtype == dtype for average in optimizer.averages.values())
    close(made, train(adapter.Adam(0.1, L2=0.1), 5), 1e-5)


def test_a_parameter_of_nothing_is_left_alone():
    optimizer = adapter.Adam()
    w, g = np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32")
    assert optimizer((1, "W"), w, g) == (w, g)
    assert not optimizer.nr_update


def held_by(optimizer):
    return [optimizer.mom1, optimizer.mom2, optimizer.mom3, optimizer.averages, dict(optimizer.nr_update)]


@pytest.mark.parametrize("carried", [lambda o: o, lambda o: pickle.loads(pickle.dumps(o))], ids=["same", "pickled"])
@pytest.mark.parametrize("shape", [(9, 4), (2, 4), (36,)])
@pytest.mark.parametrize("name", OURS)
def test_a_resized_layer_begins_anew(name, shape, carried):
    """Its own states, average and count alone: its new steps are those of a new optimizer. It is said once a key."""
    optimizer = getattr(adapter, name)(0.1, **L2_of(name, 0.01))
    weights = {KEY: np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4), (1, "b"): np.ones(3, "f4")}
    train(optimizer, 5, weights)
    optimizer, kept = carried(optimizer), copy.deepcopy(optimizer.mom1.get((1, "b")))
    resized = {KEY: np.linspace(-1, 1, np.prod(shape), dtype="f4").reshape(shape)}
    alone = {KEY: resized[KEY].copy()}
    fresh = getattr(adapter, name)(0.1, **L2_of(name, 0.01))
    with pytest.warns(UserWarning, match=r"weights of \(1, 'W'\): .*restart") as warned:
        train(optimizer, 3, resized)
    train(fresh, 3, alone)
    assert len(warned) == 1
    np.testing.assert_array_equal(resized[KEY], alone[KEY])
    for mine, other in zip(held_by(optimizer), held_by(fresh), strict=True):
        np.testing.assert_equal(mine.get(KEY), other.get(KEY))
    np.testing.assert_array_equal(optimizer.mom1.get((1, "b")), kept)
    assert optimizer.nr_update[1, "b"] == 5


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_comes_before_the_step():
    optimizer = adapter.Adam(0.1)
    optimizer(KEY, np.ones(3, "f4"), np.ones(3, "f4"))
    before, w = copy.deepcopy(held_by(optimizer)), np.ones(5, "f4")
    with pytest.raises(UserWarning, match="restart"):
        optimizer(KEY, w, np.ones(5, "f4"))
    np.testing.assert_equal(held_by(optimizer), before)
    assert (w == 1).all()


def test_states_that_were_resized_with_their_layer_go_on():
    """As a script may do that knows which rows are old."""
    optimizer, grown = adapter.Adam(0.1, use_averages=False), thinc.api.Adam(0.1, use_averages=False)
    results = []
    for one in (optimizer, grown):
        w = np.ones(3, "f4")
        one(KEY, w, np.full(3, 0.25, "f4"))
        for held in (one.mom1, one.mom2):
            held[KEY] = np.append(held[KEY], np.zeros(2, "f4"))
        w = np.append(w, np.ones(2, "f4"))
        one(KEY, w, np.full(5, 0.25, "f4"))
        results.append(w)
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_a_linear_layer_with_new_outputs():
    """As spaCy's add_label has it: the same node, so the same keys, with larger weights."""
    layer = thinc.api.Linear(2, 3).initialize()
    optimizer = adapter.Adam(0.1)

    def step():
        predicted, backprop = layer.begin_update(np.ones((4, 3), "f4"))
        backprop(predicted - 1)
        layer.finish_update(optimizer)

    step()
    old = {name: layer.get_param(name) for name in ("W", "b")}
    for name in old:
        layer.set_param(name, None)
    layer.set_dim("nO", 4, force=True)
    for name, array in old.items():
        layer.set_param(name, np.concatenate([array, np.zeros_like(array)]))
        layer.set_grad(name, np.zeros_like(layer.get_param(name)))
    with pytest.warns(UserWarning, match="restart") as warned:
        step()
    step()
    assert len(warned) == 2
    assert optimizer.nr_update == {(layer.id, "W"): 2, (layer.id, "b"): 2}


OTHER_SHAPES = {
    "flat": lambda g: g,
    "strided": lambda g: np.repeat(g, 2)[::2],
    "backwards": lambda g: g[::-1].copy()[::-1],
    "a view": lambda g: np.concatenate([g, g])[12:].reshape(2, 6),
    "Fortran order": lambda g: np.asfortranarray(g.reshape(2, 6)),
    "transposed": lambda g: np.ascontiguousarray(g.reshape(3, 4).T).T,
    "one axis more": lambda g: g.reshape(4, 3, 1),
    "float64": lambda g: g.astype(float),
}


@pytest.mark.parametrize("L2_is_weight_decay", [True, False])
@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_a_gradient_in_another_shape_of_the_same_size(shape, L2_is_weight_decay):
    """thinc steps both flat."""
    options = {"L2": 0.1, "grad_clip": 0.5, "L2_is_weight_decay": L2_is_weight_decay}
    given, own = np.ones((4, 3), "f4"), np.ones((4, 3), "f4")
    optimizer, thincs = adapter.Adam(0.1, **options), thinc.api.Adam(0.1, **options)
    g = np.linspace(-1, 1, 12, dtype="f4")
    own_shape = 12 if shape == "flat" and L2_is_weight_decay else (4, 3)  # else thinc cannot add the weights
    for t in range(3):
        laid = OTHER_SHAPES[shape](g.copy() + t)
        w, zeros = optimizer(KEY, given, laid)
        thincs(KEY, own, laid_out := (g + t).reshape(own_shape))
        assert w is given
        assert zeros.shape == laid.shape
        assert not zeros.any()
        assert not laid_out.any()
    np.testing.assert_allclose(given, own, rtol=1e-5)


@pytest.mark.parametrize("shape", [(11,), (13,), (4, 4), (3,), (4,), (1,), (4, 3, 2), (2, 5)])
def test_a_gradient_of_another_size_is_refused(shape):
    optimizer, w, g = adapter.Adam(0.1), np.ones((4, 3), "f4"), np.ones(shape, "f4")
    with pytest.raises(ValueError, match=r"gradient of .*expected shape \(4, 3\) like the parameter, got \("):
        optimizer(KEY, w, g)
    assert (w == 1).all()
    assert (g == 1).all()
    assert not optimizer.mom1


# ---------------------------------------------------------------- errors


class OnDevice:
    """What a GPU's array looks like from here."""

    __module__ = "cupy"

    def __len__(self):
        return 3


WRONG_CALLS = {
    "GPU weights": (
        lambda w, g: (OnDevice(), g),
        TypeError,
        r"weights of .*W.*: expected a numpy array, got cupy.OnDevice",
    ),
    "GPU gradient": (lambda w, g: (w, OnDevice()), TypeError, "gradient of .*got cupy.OnDevice; .* only on the CPU"),
    "integers": (lambda w, g: (w.astype(int), g), TypeError, "weights of .*expected dtype"),
    "complex": (lambda w, g: (w + 0j, g), TypeError, "weights of .*expected float32 or float64, got complex64"),
    "shape": (lambda w, g: (w, g[:2]), ValueError, r"gradient of .1, 'W'.: expected shape \(3,\)"),
    "read-only gradient": (lambda w, g: (w, np.broadcast_to(g[:1], 3)), ValueError, "gradient of .*read-only"),
    "the weights themselves": (lambda w, g: (w, w), ValueError, "shares memory"),
    "grown, of another dtype": (lambda w, g: (np.ones(5, int), np.ones(5)), TypeError, "weights of .*expected dtype"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_refused_arrays_change_nothing(case):
    change, kind, message = WRONG_CALLS[case]
    optimizer = adapter.Adam(0.1, L2=0.1)
    w, g = np.ones(3, "float32"), np.full(3, 0.5, "float32")
    optimizer(KEY, w, g)
    g[:] = 0.5
    before = copy.deepcopy([w, g, optimizer.mom1, optimizer.mom2, optimizer.averages, dict(optimizer.nr_update)])
    with pytest.raises(kind, match=message):
        optimizer(KEY, *change(w, g))
    after = [w, g, optimizer.mom1, optimizer.mom2, optimizer.averages, dict(optimizer.nr_update)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_equal(other, one)
    g[:] = 0.5
    optimizer(KEY, w, g)
    assert optimizer.nr_update[KEY] == 2


WRONG_NUMBERS = [
    ({"learn_rate": -1.0}, ValueError, "learn_rate: expected a number >= 0 and finite, got -1.0"),
    ({"learn_rate": True}, TypeError, "learn_rate: expected a number"),
    ({"L2": float("nan")}, ValueError, "L2: expected"),
    ({"beta1": 1.0}, ValueError, "beta1: expected a number >= 0 and < 1"),
    ({"beta2": 1}, ValueError, "beta2: expected a number >= 0 and < 1"),
    ({"eps": -1e-8}, ValueError, "eps: expected"),
    ({"grad_clip": -1}, ValueError, "grad_clip: expected"),
    ({"use_averages": 1}, TypeError, "use_averages: expected True or False"),
    ({"L2_is_weight_decay": None}, TypeError, "L2_is_weight_decay: expected True or False"),
    ({"amsgrad": 1}, TypeError, "amsgrad: expected True or False"),
]


@pytest.mark.parametrize(("given", "kind", "message"), WRONG_NUMBERS, ids=lambda value: str(value)[:20])
def test_wrong_arguments(given, kind, message):
    with pytest.raises(kind, match=message):
        adapter.Adam(**given)


@pytest.mark.parametrize("name", ["Rprop", "ScheduleFreeAdamW"])
def test_rates_without_a_schedule(name):
    for rate in ([0.1, 0.2], schedule("decaying", 0.01, 0.1)):
        with pytest.raises(TypeError, match="learn_rate: expected a number"):
            getattr(adapter, name)(rate)


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="nesterov: needs a momentum above 0"):
        adapter.SGD(0.1, nesterov=True)


LATER = {
    "rate": ({"learn_rate": [0.1, -1.0]}, {}, "learn_rate: expected a number >= 0"),
    "clip": ({"grad_clip": [1.0, float("inf")]}, {}, "grad_clip: expected a number >= 0 and finite"),
    "scale": ({}, {"lr_scale": -1.0}, "lr_scale: expected a number >= 0"),
    "beta2": ({"beta2": [0.9, 0.0]}, {}, "beta2: 0 makes thinc's Adam a plain SGD.*use SGD, fastadam.SGD.v1"),
    "decay of all": ({"L2": [0.1, 10.0], "learn_rate": 0.1}, {}, r"L2: expected learn_rate \* L2 below 1, got 1.0"),
    "decay": ({"L2": [0.1, 20.0], "learn_rate": 0.1}, {}, r"L2: expected learn_rate \* L2 below 1, got 2.0"),
}


@pytest.mark.parametrize("case", LATER)
def test_numbers_that_become_wrong_later(case):
    given, call, message = LATER[case]
    optimizer = adapter.Adam(**given)
    weights = train(optimizer, 1)
    kept = copy.deepcopy([weights, optimizer.mom1, optimizer.averages, dict(optimizer.nr_update)])
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            train(optimizer, 1, weights, **call)
    np.testing.assert_equal([weights, optimizer.mom1, optimizer.averages, dict(optimizer.nr_update)], kept)


def test_the_kind_of_decay_may_change():
    optimizer = adapter.Adam(0.1, L2=0.5)
    made = train(optimizer, 1)
    optimizer.L2_is_weight_decay = False
    theirs = thinc.api.Adam(0.1, L2=0.5)
    expected = train(theirs, 1)
    theirs.L2_is_weight_decay = False
    close(train(optimizer, 1, made, first=1), train(theirs, 1, expected, first=1))


def test_the_first_call_of_a_parameter_may_fail():
    optimizer, w = adapter.Adam(L2=0.1, L2_is_weight_decay=False), np.ones(3, "float32")
    with pytest.raises(ValueError, match=r"gradient of .*expected shape \(3,\) like the parameter, got \(2,\)"):
        optimizer(KEY, w, np.ones(2, "float32"))
    assert not optimizer.averages
    assert (w == 1).all()
    optimizer(KEY, w, np.ones(3, "float32"))
    assert optimizer.nr_update == {KEY: 1}


FIRST = {
    "shape": (lambda w: np.ones(4, "float32"), ValueError, "gradient of .*expected shape"),
    "read-only": (lambda w: np.broadcast_to(np.float32(1), 3), ValueError, "gradient of .*read-only"),
    "complex": (lambda w: np.full(3, 1 + 2j), TypeError, "gradient of .*expected real numbers"),
    "masked": (lambda w: np.ma.ones(3, "float32"), TypeError, "gradient of .*masked"),
    "the weights": (lambda w: w, ValueError, "shares memory"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", FIRST)
def test_a_first_call_that_is_refused_leaves_nothing(case):
    make, kind, message = FIRST[case]
    optimizer, w = adapter.Adam(0.1, amsgrad=True), np.ones(3, "float32")
    with pytest.raises(kind, match=message):
        optimizer(KEY, w, make(w))
    held = [optimizer.mom1, optimizer.mom2, optimizer.mom3, optimizer.averages, optimizer.nr_update]
    assert [dict(one) for one in held] == [{}] * 5
    assert (w == 1).all()
    optimizer((1, "other"), np.ones(4, "float32"), np.ones(4, "float32"))
    optimizer(KEY, np.ones(5, "float32"), np.ones(5, "float32"))  # nothing of the refused weights is in its way
    assert optimizer.mom1[KEY].shape == (5,)


WRONG_AVERAGES = {
    "read-only": (lambda held: held.setflags(write=False) or held, ValueError, r"averages\[.*read-only"),
    "another, read-only": (lambda held: np.broadcast_to(np.float32(0), 3), ValueError, r"averages\[.*read-only"),
    "integers": (lambda held: np.zeros(3, int), TypeError, r"averages\[.*expected dtype"),
    "list": (lambda held: [0.0, 0.0, 0.0], TypeError, r"averages\[.*expected a numpy array"),
}


@pytest.mark.parametrize("n_steps", [1, 2])  # at the second the average is checked
@pytest.mark.parametrize("case", WRONG_AVERAGES)
def test_averages_that_cannot_be_written(case, n_steps):
    make, kind, message = WRONG_AVERAGES[case]
    optimizer, w = adapter.Adam(0.1), np.ones(3, "float32")
    for _ in range(n_steps):
        optimizer(KEY, w, np.ones(3, "float32"))
    before = copy.deepcopy([w, optimizer.mom1, optimizer.mom2, dict(optimizer.nr_update)])
    optimizer.averages[KEY] = make(optimizer.averages[KEY])
    with pytest.raises(kind, match=message):
        optimizer(KEY, w, np.ones(3, "float32"))
    np.testing.assert_equal([w, optimizer.mom1, optimizer.mom2, dict(optimizer.nr_update)], before)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("foo", ""), ("lr", "learn_rate"), ("weight_decay", "L2"), ("betas", "beta1"), ("maximize", ""), ("centered", "")],
)
def test_options_that_the_frame_has_not(name, meant):
    way_out = rf"did you mean {meant}\?" if meant else "it has learn_rate, beta1, beta2, eps, L2, amsgrad"
    with pytest.raises(TypeError, match=f"{name}: unknown option of Adam in thinc's frame; {way_out}"):
        adapter.Optimizer(fastadam.Adam, 0.1, **{name: 0.5})
    with pytest.raises(TypeError, match="eps_hat: unknown option of Adagrad"):
        adapter.Optimizer(fastadam.Adagrad, 0.1, eps_hat=True)


@pytest.mark.parametrize("name", OURS)
def test_an_optimizer_of_a_class_has_its_defaults(name):
    plain = {"Adam": {"eps_hat": True}, "AdamW": {"decay_first": True}}.get(name, {})
    made = train(adapter.Optimizer(getattr(fastadam, name), 0.1, **plain), 3)
    for key, w in train(getattr(adapter, name)(0.1), 3).items():
        np.testing.assert_array_equal(made[key], w)


@pytest.mark.parametrize("name", ["Adam", "RAdam"])
def test_another_rule_is_refused(name):
    optimizer, w = getattr(adapter, name)(0.1), np.ones(3, "float32")
    optimizer.use_radam = name == "Adam"
    with pytest.raises(ValueError, match=rf"use_radam: {name == 'Adam'} does not fit the rule of this {name}"):
        optimizer(KEY, w, np.ones(3, "float32"))
    assert (w == 1).all()
    assert not optimizer.nr_update


def test_states_of_another_size_or_kind():
    optimizer, w = adapter.Adam(), np.ones(3, "float32")
    for wrong in (np.zeros(4, "float32"), np.zeros(3), [0.0, 0.0, 0.0]):
        optimizer.mom2 = {KEY: wrong}
        with pytest.raises(ValueError, match=r"mom2\[.*expected an array of 3 numbers, float32"):
            optimizer(KEY, w, np.ones(3, "float32"))
    optimizer.mom2 = {}
    optimizer.averages[KEY] = np.zeros(4, "float32")
    with pytest.raises(ValueError, match=r"averages\[.*expected shape \(3,\)"):
        optimizer(KEY, w, np.ones(3, "float32"))
    assert (w == 1).all()
    assert optimizer.nr_update.get(KEY, 0) == 0


def test_a_wrong_argument_names_those_that_there_are():
    with pytest.raises(TypeError, match=r"AdamW: .*'momentum'; it takes learn_rate, .*grad_clip, use_averages"):
        adapter.AdamW(momentum=0.9)
