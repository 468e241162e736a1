"""The rows of docs/how-to/coming-from.md that promise the same results: both columns are run and compared. The
other recipes of that page, too.
A library that is not installed is skipped; CI installs all of them. torch has its own tests.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import thinc.api
from places import ROOT
from sklearn.neural_network import MLPClassifier, MLPRegressor

import fastadam

PAGE = (ROOT / "docs/how-to/coming-from.md").read_text()
SAME = PAGE.split("## The same numbers")[1].split("## From torch")[0]
#: what the tables leave out in front of a call
LEFT_OUT = {"Keras": "keras.optimizers.", "thinc": "thinc.api."}
STEPS, N = 30, 8
START = np.linspace(-2.0, 2.0, N)
GRADIENTS = np.random.default_rng(0).standard_normal((STEPS, N)) * np.logspace(-4, 1, N)


def rows() -> Iterator[tuple[str, ...]]:
    """The call there, its library, the call here and its step, with the names of schedules spelt out."""
    for title, section in re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", SAME, re.M | re.S):
        table = section[section.index("\n|") :]
        for name, schedule in re.findall(r"`(\w+)` is `(.*?)`", section):
            table = re.sub(rf"\b{name}\b", schedule, table)
        for there, ours, step in re.findall(r"^\| `(.*?)` \| `(.*?)`(?:, `(.*?)`)?", table, re.M):
            call = LEFT_OUT.get(title, "") + there
            yield call, re.split(r"\W", call)[0], ours, step


ROWS = [*rows()]


def here(call: str, step: str, **libraries: Any) -> np.ndarray:
    scope: dict[str, Any] = {"fastadam": fastadam, **libraries}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[-1], scope)  # the page's own rules
    p = scope["p"] = START.copy()
    scope["opt"] = eval(call, scope)
    for scope["g"] in GRADIENTS:
        exec(step or "opt.step(g)", scope)
    return p


def in_keras(call: str, scales: Sequence[float] = (1.0,)) -> np.ndarray:
    """With a parameter for each scale, and a gradient so many times as large."""
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": os.devnull}  # else it writes a file at home
    pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    keras.config.set_floatx("float64")  # of the rate and the step count, too
    variables = [keras.Variable(START.copy()) for _ in scales]
    optimizer = eval(call, {"keras": keras})
    optimizer.build(variables)
    for g in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(scale * g) for scale in scales], variables)
    return np.array([keras.ops.convert_to_numpy(variable) for variable in variables]).squeeze()


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


def in_thinc(call: str, scales: Sequence[float] = (1.0,)) -> np.ndarray:
    optimizer = eval(call, {"thinc": thinc})
    weights = [START.astype(np.float32) for _ in scales]
    for g in GRADIENTS:
        for k, scale in enumerate(scales):
            optimizer((k, "W"), weights[k], (scale * g).astype(np.float32))
        optimizer.step_schedules()
    return np.squeeze(weights)


def in_scikit_learn(call: str) -> np.ndarray:
    from sklearn.neural_network._stochastic_optimizers import (
        AdamOptimizer,
        SGDOptimizer,
    )  # what MLPClassifiers step with

    p, model = START.copy(), eval(call, {"MLPClassifier": MLPClassifier})
    optimizer = AdamOptimizer([p], model.learning_rate_init)
    if model.solver == "sgd":
        given = model.learning_rate_init, model.learning_rate, model.momentum, model.nesterovs_momentum, model.power_t
        optimizer = SGDOptimizer([p], *given)
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
    assert {library for _, library, _, _ in ROWS} == set(THERE)


@pytest.mark.filterwarnings("ignore")  # of what the libraries import
@pytest.mark.parametrize(("there", "library", "ours", "step"), ROWS, ids=[there for there, *_ in ROWS])
def test_both_columns_give_the_same(there, library, ours, step):
    expected = THERE[library](there)
    modules = {name: sys.modules[name] for name in THERE if f"{name}." in ours + step}  # whose schedule it is
    is_rough = "schedule" in there or "clipnorm" in there  # optax's rates and Keras's norms are float32
    dtype = np.float32 if is_rough else expected.dtype
    rounding = np.finfo(dtype).eps * np.abs(START).max()  # of a parameter, at each step
    np.testing.assert_allclose(here(ours, step, **modules), expected, rtol=0, atol=STEPS * rounding)


#: what the tables of defaults and of formulas say, with other arguments than the rows
OTHERS = [
    ("optax.sgd(0.1, momentum=0.5)", "fastadam.SGD(p, lr=0.1, momentum=0.5)"),
    ("optax.sgd(0.1, momentum=0.5, nesterov=True)", "fastadam.SGD(p, lr=0.1, momentum=0.5, nesterov=True)"),
    ("optax.nadam(0.01, b1=0.8)", "fastadam.NAdam(p, lr=0.01, betas=(0.8, 0.999), momentum_decay=1e6)"),
    (
        "optax.adagrad(0.1, initial_accumulator_value=0.5, eps=1e-3)",
        "fastadam.Adagrad(p, lr=0.1, initial_accumulator_value=0.5 + 1e-3, eps=0)",
    ),
    (
        "optax.rmsprop(0.1, decay=0.5, eps=1e-3, momentum=0.5, centered=True)",
        "fastadam.RMSprop(p, lr=0.1, alpha=0.5, eps=1e-3, eps_in_sqrt=True, momentum=0.5, centered=True)",
    ),
    ("optax.rmsprop(0.1, decay=0.5, eps=1e-3, eps_in_sqrt=False)", "fastadam.RMSprop(p, lr=0.1, alpha=0.5, eps=1e-3)"),
    ("optax.adadelta(0.5, rho=0.5, eps=1e-3)", "fastadam.Adadelta(p, lr=0.5, rho=0.5, eps=1e-3)"),
    (
        "optax.lion(0.1, b1=0.5, b2=0.6, weight_decay=0.1)",
        "fastadam.Lion(p, lr=0.1, betas=(0.5, 0.6), weight_decay=0.1)",
    ),
    ("optax.adamax(0.1, b1=0.5, b2=0.6, eps=1e-3)", "fastadam.Adamax(p, lr=0.1, betas=(0.5, 0.6), eps=1e-3)"),
    ("optax.adamw(0.1, weight_decay=0.3)", "fastadam.AdamW(p, lr=0.1, weight_decay=0.3)"),
    (
        "optax.contrib.ademamix(0.1, b1=0.5, b2=0.6, b3=0.7, alpha=2.0)",
        "fastadam.AdEMAMix(p, lr=0.1, betas=(0.5, 0.6, 0.7), alpha=2.0)",
    ),
    ("optax.contrib.adopt(0.1, b1=0.5, b2=0.6)", "fastadam.ADOPT(p, lr=0.1, betas=(0.5, 0.6))"),
    (
        "keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.5, epsilon=1e-3)",
        "fastadam.Adagrad(p, lr=0.1, initial_accumulator_value=0.5 + 1e-3, eps=0)",
    ),
    (
        "keras.optimizers.Nadam(0.01, beta_1=0.8)",
        "fastadam.NAdam(p, lr=0.01, betas=(0.8, 0.999), eps=1e-7, momentum_decay=1)",
    ),
    ("keras.optimizers.Lion(0.1, beta_1=0.5, beta_2=0.6)", "fastadam.Lion(p, lr=0.1, betas=(0.5, 0.6))"),
    ("keras.optimizers.Adadelta(0.5, rho=0.5, epsilon=1e-3)", "fastadam.Adadelta(p, lr=0.5, rho=0.5, eps=1e-3)"),
    (
        "keras.optimizers.RMSprop(0.1, rho=0.5, epsilon=1e-3, momentum=0.5, centered=True)",
        "fastadam.RMSprop(p, lr=0.1, alpha=0.5, eps=1e-3, eps_in_sqrt=True, momentum=0.5, centered=True)",
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("there", "ours"), OTHERS)
def test_other_arguments_give_the_same(there, ours):
    np.testing.assert_allclose(here(ours, ""), THERE[there.partition(".")[0]](there), rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("there", "ours"),
    [
        ("optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))", "fastadam.Adam(p)"),
        ("keras.optimizers.Adam(global_clipnorm=0.5)", "fastadam.Adam(p, eps=1e-7, eps_hat=True)"),
    ],
)
def test_clipping_by_the_norm_differs_by_torchs_millionth(there, ours):
    expected = THERE[there.partition(".")[0]](there)
    np.testing.assert_allclose(here(ours, "opt.step(g, max_norm=0.5)"), expected, rtol=0, atol=STEPS * 1e-3 * 1e-6)
    assert np.abs(here(ours, "") - expected).max() > 1e-3  # it was clipped


@pytest.mark.filterwarnings("ignore")
def test_rprop_of_optax_is_a_step_late(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "GRADIENTS", np.ones((STEPS, N)))
    late = here("fastadam.Rprop(p)", "opt.t or opt.step(g)")  # one step, then no more
    monkeypatch.setattr(sys.modules[__name__], "GRADIENTS", np.ones((2, N)))
    np.testing.assert_allclose(in_optax("optax.rprop(1e-2)"), late, rtol=1e-15)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("there", "options", "most"),
    [
        ("keras.optimizers.Adam(clipnorm=0.5)", {"eps": 1e-7}, 0.5),
        ("thinc.api.Adam(grad_clip=0.5, use_averages=False)", {}, 0.5),
        ("thinc.api.Adam()", {}, 1.0),
    ],
)
def test_each_of_several_arrays_is_clipped_by_its_own_norm(there, options, most):
    """Some of them always, some at times, one never, and one that has no gradient but zeros."""
    scales = (100.0, 1.0, 0.1, 1e-3, 0.0)
    expected = {"keras": in_keras, "thinc": in_thinc}[there.partition(".")[0]](there, scales)
    params = [START.astype(expected.dtype) for _ in scales]
    opt = fastadam.Adam(params, eps_hat=True, **options)
    for g in GRADIENTS.astype(expected.dtype):
        opt.step([(scale * g).astype(expected.dtype) for scale in scales], max_norm_each=most)
    rounding = np.finfo(np.float32).eps * np.abs(START).max()
    np.testing.assert_allclose(params, expected, rtol=0, atol=STEPS * rounding)


def test_schedules_of_thinc_count_from_0():
    schedule = thinc.api.warmup_linear(0.1, 10, 30)
    if not callable(schedule):
        pytest.skip("the schedules of thinc 8 are generators")
    recipe = re.search(r"that counts from 0 \(Keras, optax, thinc\) \| `lr=(.*?)`", PAGE)[1]
    expected = THERE["thinc"]("thinc.api.Adam(thinc.api.warmup_linear(0.1, 10, 30), grad_clip=0.0)")
    p = here(f"fastadam.Adam(p, lr={recipe}, eps_hat=True)", "", schedule=schedule)
    np.testing.assert_allclose(p, expected, rtol=0, atol=STEPS * 2.5e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cooldown", [1, 4])
def test_a_plateau_as_of_keras(cooldown):
    in_keras("keras.optimizers.Adam()")  # or it is not installed
    keras = pytest.importorskip("keras")
    f, n, d, c, lr = 0.5, 3, 0.1, cooldown, 0.1
    recipe = re.search(r"Keras: `ReduceLROnPlateau\(.*?\| `lr=(.*?)`.*?`(cooldown=c - .*?)`", PAGE, re.S)
    scope = {"schedules": fastadam.schedules, "lr": lr, "f": f, "n": n, "d": d, "c": c}
    ours = eval(f"{recipe[1][:-1]}, {recipe[2]})", scope)
    optimizer = keras.optimizers.SGD(lr)
    theirs = keras.callbacks.ReduceLROnPlateau("loss", factor=f, patience=n, min_delta=d, cooldown=c, mode="min")
    theirs.set_model(SimpleNamespace(optimizer=optimizer))
    theirs.on_train_begin()
    rates = set()
    for epoch, loss in enumerate(np.random.default_rng(0).uniform(0, 1, 60) + np.linspace(2, 0, 60) ** 2):
        theirs.on_epoch_end(epoch, {"loss": loss})
        ours.report(loss)
        assert ours(1) == pytest.approx(float(keras.ops.convert_to_numpy(optimizer.learning_rate)), rel=1e-6)
        rates.add(ours(1))
    assert len(rates) > 2


@pytest.mark.filterwarnings("ignore")
def test_averages_as_of_keras_and_optax():
    """Keras's begins with the first step, and is put into the weights at the end; optax's, here, with the weights."""
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": os.devnull}
    keras = pytest.importorskip("keras")
    keras.config.set_floatx("float64")
    variable = keras.Variable(START.copy())
    optimizer = keras.optimizers.Adam(0.1, epsilon=1e-8, use_ema=True, ema_momentum=0.75)
    optimizer.build([variable])
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    p = START.copy()
    opt = fastadam.Adam(p, lr=0.1, eps_hat=True)
    average, with_first = fastadam.Average(p, 0.75), fastadam.Average(p, 0.75)
    with_first.update()
    with jax.enable_x64(True):
        theirs = jax.numpy.array(START)
        for g in GRADIENTS:
            optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
            opt.step(g)
            average.update()
            with_first.update()
            theirs = optax.incremental_update(jax.numpy.array(p), theirs, 0.25)
        np.testing.assert_allclose(with_first.params, np.array(theirs), rtol=1e-12)
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(average.params, keras.ops.convert_to_numpy(variable), rtol=1e-6)


def test_decay_of_scikit_learns_weights():
    """A network without hidden layers, three steps of its full batch."""
    X, alpha = np.random.default_rng(0).standard_normal((20, 3)), 0.5
    y = X @ [1.0, -2.0, 3.0]

    def fitted(rate: float) -> list[np.ndarray]:
        model = MLPRegressor(hidden_layer_sizes=(), alpha=alpha, learning_rate_init=rate, random_state=0)
        for _ in range(3):
            model.partial_fit(X, y)
        return [*model.coefs_, *model.intercepts_]

    weights, biases = fitted(1e-300)  # which moves nothing
    group = eval(re.search(r"groups: `(.*?)`", PAGE)[1], {"weights": weights, "alpha": alpha, "rows": len(X)})
    opt = fastadam.Adam([group, {"params": biases}], lr=0.1, eps_hat=True)
    for _ in range(3):
        error = X @ weights + biases - y[:, None]
        opt.step([X.T @ error / len(X), error.mean(axis=0)])
    for ours, theirs in zip((weights, biases), fitted(0.1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_decay_of_the_paper_of_adamw():
    """θ (1 - η λ), where the rate is η α."""
    assert "`AdamW(lr=η α, weight_decay=λ / α)`" in PAGE
    α, η, λ, p = 0.1, 0.5, 0.2, START.copy()
    fastadam.AdamW(p, lr=η * α, weight_decay=λ / α).step(np.ones(N))
    np.testing.assert_allclose(p, START * (1 - η * λ) - η * α, rtol=0, atol=1e-8)
