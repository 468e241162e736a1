"""scikit-learn's MLPs trained by fastadam, compared with the same MLPs trained by scikit-learn.
Losses and weights are compared. scikit-learn's own steps are forbidden where fastadam must do them.
"""

import copy
import inspect
import pickle
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import inside
import numpy as np
import pytest
import sklearn
import sklearn.neural_network as stock
from inside import fitted, threads
from joblib import parallel_config
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.ensemble import BaggingRegressor, VotingClassifier
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import _multilayer_perceptron
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import fastadam.adapters.sklearn as adapter
from fastadam.adapters.sklearn import NotAcceleratedWarning, accelerated

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
DIGITS, DIGIT = load_digits(return_X_y=True)
DIGITS /= 16
DIABETES, PROGRESS = load_diabetes(return_X_y=True)
PROGRESS = (PROGRESS - PROGRESS.mean()) / PROGRESS.std()
OPTIONS = {"hidden_layer_sizes": (16, 8), "max_iter": 20, "random_state": 0}


@pytest.fixture
def no_stock_steps(monkeypatch):
    """scikit-learn's own arithmetic must not be reached; returned is a function that forbids it."""
    with accelerated():  # which looks at that arithmetic, once a process
        pass

    def refuse(*_):
        raise AssertionError("scikit-learn made a step of its own")

    def forbid():
        for optimizer in (AdamOptimizer, SGDOptimizer):
            monkeypatch.setattr(optimizer, "_get_updates", refuse)

    return forbid


def close(made, expected, rtol=1e-9):
    """Loss curves and weights agree, and so do the counts of epochs and samples."""
    assert (made.n_iter_, made.t_) == (expected.n_iter_, expected.t_)
    np.testing.assert_allclose(made.loss_curve_, expected.loss_curve_, rtol=rtol)
    for ours, theirs in zip(made.coefs_ + made.intercepts_, expected.coefs_ + expected.intercepts_, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=100 * rtol, atol=rtol)


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate_init": 0.02},
        {"beta_1": 0.5},
        {"beta_1": 0.0, "beta_2": 0.9},
        {"epsilon": 0.1},
        {"alpha": 0.5},
        {"batch_size": 7},
        {"shuffle": False},
        {"max_iter": 3},
        {"activation": "tanh"},
        {"tol": 0.05, "n_iter_no_change": 2, "max_iter": 200},
        {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 3, "max_iter": 200},
        {"warm_start": True},
        {"random_state": 5},
    ],
    ids=str,
)
def test_every_parameter_of_adam_is_honoured(options, no_stock_steps):
    options = OPTIONS | options
    expected = stock.MLPClassifier(**options).fit(X, Y)
    if options.get("warm_start"):
        expected.fit(X, Y)
    no_stock_steps()
    made = adapter.MLPClassifier(**options).fit(X, Y)
    if options.get("warm_start"):
        made.fit(X, Y)
    close(made, expected)
    assert fitted(made).learning_rate == pytest.approx(fitted(expected).learning_rate, rel=1e-12)
    if "early_stopping" in options:
        assert made.validation_scores_ == expected.validation_scores_
        assert made.best_validation_score_ == expected.best_validation_score_
        assert made.n_iter_ < options["max_iter"]
    elif "tol" in options:
        assert made.n_iter_ < options["max_iter"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate_init": 0.1},
        {"momentum": 0.5},
        {"momentum": 0.0},
        {"nesterovs_momentum": False},
        {"nesterovs_momentum": False, "momentum": 0.0},
        {"learning_rate": "invscaling", "learning_rate_init": 0.5, "power_t": 0.1},
        {"learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 0.1, "n_iter_no_change": 2, "max_iter": 200},
        {"alpha": 0.5, "batch_size": 7},
        {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 3, "max_iter": 200},
        {"warm_start": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("data", [X, X.astype("float32")], ids=["float64", "float32"])
def test_every_parameter_of_sgd_is_honoured(options, data, no_stock_steps):
    """The order of its operations is scikit-learn's, so the bits are: of losses, weights and velocities."""
    options = OPTIONS | {"solver": "sgd", "learning_rate_init": 0.01} | options
    expected = stock.MLPClassifier(**options).fit(data, Y)
    if options.get("warm_start"):
        expected.fit(data, Y)
    no_stock_steps()
    made = stock.MLPClassifier(**options)
    with accelerated(), warnings.catch_warnings():
        warnings.simplefilter("error", NotAcceleratedWarning)
        made.fit(data, Y)
        if options.get("warm_start"):
            made.fit(data, Y)
    close(made, expected, 0)
    assert fitted(made).learning_rate == fitted(expected).learning_rate
    for ours, theirs in zip(fitted(made).velocities, fitted(expected).velocities, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if "learning_rate" in options:
        assert fitted(made).learning_rate < options["learning_rate_init"]
    if "early_stopping" in options:
        assert made.validation_scores_ == expected.validation_scores_


@pytest.mark.parametrize("cls", ["MLPClassifier", "MLPRegressor"])
def test_parts_of_a_training_by_sgd(cls, no_stock_steps):
    """Begun by scikit-learn, pickled on the way, with other weights and attributes, in a block and in a class."""
    data, targets, first = (X, Y, {"classes": [0, 1, 2]}) if cls == "MLPClassifier" else (DIABETES, PROGRESS, {})
    options = OPTIONS | {"solver": "sgd", "learning_rate_init": 0.01}
    expected, made = getattr(stock, cls)(**options), getattr(stock, cls)(**options)

    def train(model):
        for _ in range(3):
            model.partial_fit(data, targets)

    for model in (expected, made):
        model.partial_fit(data, targets, **first)
    for k in range(4):
        for model in (expected, made):
            model.coefs_ = [np.asfortranarray(0.9 * p) for p in model.coefs_]
            fitted(model).learning_rate, fitted(model).momentum, fitted(model).nesterov = 0.02 / (k + 1), 0.2 * k, k > 1
            with accelerated() if model is made else nullcontext():
                train(model)
        made = pickle.loads(pickle.dumps(made))
        assert type(fitted(made)) is SGDOptimizer
    close(made, expected, 0)
    no_stock_steps()
    text = pickle.dumps(made)
    assert b"fastadam" not in text
    ours = getattr(adapter, cls)(**options)
    ours.__setstate__(made.__getstate__())
    train(ours)
    assert vars(pickle.loads(pickle.dumps(fitted(ours)))).keys() == vars(SGDOptimizer([])).keys()


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 1e-5)])
def test_the_loss_curve_is_that_of_scikit_learn(dtype, rtol, no_stock_steps):
    data = DIGITS.astype(dtype)
    options = {"hidden_layer_sizes": (50,), "max_iter": 30, "random_state": 0}
    expected = stock.MLPClassifier(**options).fit(data, DIGIT)
    no_stock_steps()
    made = adapter.MLPClassifier(**options).fit(data, DIGIT)
    close(made, expected, rtol)
    assert made.coefs_[0].dtype == dtype
    assert made.score(data, DIGIT) == pytest.approx(expected.score(data, DIGIT), abs=1e-3)


def test_regressor_of_several_outputs(no_stock_steps):
    targets = np.column_stack([PROGRESS, -PROGRESS, PROGRESS**2])
    expected = stock.MLPRegressor(**OPTIONS).fit(DIABETES, targets)
    no_stock_steps()
    made = adapter.MLPRegressor(**OPTIONS).fit(DIABETES, targets)
    close(made, expected)
    np.testing.assert_allclose(made.predict(DIABETES), expected.predict(DIABETES), rtol=1e-6)


@pytest.mark.parametrize("labels", [Y > 0, np.column_stack([Y > 0, Y > 1])], ids=["binary", "multilabel"])
def test_other_targets(labels):
    close(adapter.MLPClassifier(**OPTIONS).fit(X, labels), stock.MLPClassifier(**OPTIONS).fit(X, labels))


def test_every_batch_is_one_step():
    model = adapter.MLPClassifier(**OPTIONS, batch_size=40).fit(X, Y)
    assert fitted(model).t == 4 * model.n_iter_
    assert inside.stepper(fitted(model)).t == fitted(model).t
    assert all(p is planned for p, planned in zip(model.coefs_, inside.stepped(fitted(model)), strict=False))


def test_attributes_of_the_optimizer_hold_from_the_next_step_on():
    models = [cls(**OPTIONS) for cls in (stock.MLPClassifier, adapter.MLPClassifier)]
    for model in models:
        model.partial_fit(X, Y, classes=[0, 1, 2])
        fitted(model).learning_rate_init = 0.1
        model.partial_fit(X, Y)
    close(models[1], models[0])


# ---------------------------------------------------------------- trainings in parts


def test_partial_fit(no_stock_steps):
    expected = stock.MLPClassifier(**OPTIONS)
    for part in np.array_split(np.random.default_rng(0).permutation(len(X)), 5):
        expected.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    no_stock_steps()
    made = adapter.MLPClassifier(**OPTIONS)
    for part in np.array_split(np.random.default_rng(0).permutation(len(X)), 5):
        made.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    close(made, expected)
    assert fitted(made).t == 5


def test_a_training_begun_by_scikit_learn_goes_on(no_stock_steps):
    expected = stock.MLPRegressor(**OPTIONS)
    made = stock.MLPRegressor(**OPTIONS)
    for model in (expected, made):
        for _ in range(3):
            model.partial_fit(DIABETES, PROGRESS)
    for _ in range(3):
        expected.partial_fit(DIABETES, PROGRESS)
    no_stock_steps()
    with accelerated():
        for _ in range(3):
            made.partial_fit(DIABETES, PROGRESS)
    close(made, expected)


def test_weights_that_are_assigned_are_stepped():
    models = [cls(**OPTIONS) for cls in (stock.MLPClassifier, adapter.MLPClassifier)]
    for model in models:
        model.partial_fit(X, Y, classes=[0, 1, 2])
        model.coefs_ = [np.asfortranarray(p / 2) for p in model.coefs_]
        model.partial_fit(X, Y)
        model.partial_fit(X, Y)
    close(models[1], models[0])


def test_dtypes_may_change_between_parts():
    expected, made = stock.MLPRegressor(**OPTIONS), stock.MLPRegressor(**OPTIONS)
    for dtype in ("float32", "float64"):  # which leaves float64 moments beside float32 weights
        expected.partial_fit(DIABETES.astype(dtype), PROGRESS.astype(dtype))
        made.partial_fit(DIABETES.astype(dtype), PROGRESS.astype(dtype))
    with accelerated():
        made.partial_fit(DIABETES.astype("float32"), PROGRESS.astype("float32"))
    expected.partial_fit(DIABETES.astype("float32"), PROGRESS.astype("float32"))
    close(made, expected, 1e-5)


@pytest.mark.parametrize("where", ["block", "class"])
def test_pickled_in_the_midst_of_a_training(where, no_stock_steps):
    expected = stock.MLPClassifier(**OPTIONS)
    for _ in range(6):
        expected.partial_fit(X, Y, classes=[0, 1, 2])
    no_stock_steps()
    made = (stock if where == "block" else adapter).MLPClassifier(**OPTIONS)
    for _ in range(3):
        with accelerated():
            made.partial_fit(X, Y, classes=[0, 1, 2])
            made.partial_fit(X, Y)
        made = pickle.loads(pickle.dumps(made))
    assert type(made) is (stock if where == "block" else adapter).MLPClassifier
    close(made, expected)
    assert fitted(made).t == 6


@pytest.mark.parametrize("where", ["block", "class", "derived"])
def test_pickles_tell_of_another_scikit_learn(where):
    """As scikit-learn's own do; what remains in this version does not."""
    model = {"block": stock.MLPClassifier, "class": adapter.MLPClassifier, "derived": DerivedFromOurs}[where](**OPTIONS)
    model.fit(X, Y)
    with accelerated() if where == "block" else nullcontext():
        text = pickle.dumps(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again, copied = pickle.loads(text), copy.deepcopy(model)
    assert vars(again).keys() == vars(copied).keys() == vars(model).keys()
    older = text.replace(sklearn.__version__.encode(), re.sub(r"\d", "0", sklearn.__version__).encode())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(pickle.loads(older).predict(X), model.predict(X))
    assert {warning.category for warning in said} == {InconsistentVersionWarning}
    assert type(again).__name__ in [warning.message.estimator_name for warning in said]
    state = vars(model).copy()
    with pytest.warns(InconsistentVersionWarning, match="from version unknown"):
        adapter.MLPClassifier().__setstate__(state)
    assert state.keys() == vars(model).keys()


def test_what_comes_out_of_a_pickle_is_what_is_stepped():
    model = adapter.MLPClassifier(**OPTIONS).fit(X, Y)
    made = pickle.loads(pickle.dumps(model))
    before = [p.copy() for p in made.coefs_]
    untouched = [p.copy() for p in model.coefs_]
    made.partial_fit(X, Y)
    for p, was in zip(made.coefs_, before, strict=True):
        assert (p != was).any()
    for p, was in zip(model.coefs_, untouched, strict=True):
        np.testing.assert_array_equal(p, was)


def test_warm_start_after_early_stopping_and_a_pickle(no_stock_steps):
    """Which leaves other arrays in coefs_ than those that were stepped."""
    options = OPTIONS | {"warm_start": True, "early_stopping": True, "n_iter_no_change": 2}
    expected = stock.MLPClassifier(**options).fit(X, Y).fit(X, Y)
    no_stock_steps()
    made = pickle.loads(pickle.dumps(adapter.MLPClassifier(**options).fit(X, Y))).fit(X, Y)
    close(made, expected)


def test_pickles_of_scikit_learns_classes_need_no_fastadam():
    with accelerated():
        model = stock.MLPClassifier(**OPTIONS).fit(X, Y)
    assert type(fitted(model)) is not AdamOptimizer  # it stays with the model
    text = pickle.dumps(model)
    assert b"fastadam" not in text
    loaded = pickle.loads(text)
    assert type(fitted(loaded)) is AdamOptimizer
    assert vars(fitted(loaded)).keys() == vars(AdamOptimizer([])).keys()
    for ours, theirs in zip(fitted(model).ms, fitted(loaded).ms, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_moments_that_are_read_only_are_copied():
    model = stock.MLPClassifier(**OPTIONS).fit(X, Y)
    kept = [m.copy() for m in fitted(model).ms]
    held = fitted(model).ms
    for m in held:
        m.flags.writeable = False
    with accelerated():
        model.partial_fit(X, Y)
    for m, was in zip(held, kept, strict=True):
        np.testing.assert_array_equal(m, was)


def test_an_optimizer_that_made_no_step_is_pickled_like_scikit_learns():
    started = AdamOptimizer([np.ones(2)], learning_rate_init=0.25)
    assert vars(pickle.loads(pickle.dumps(adapter._Adam(started)))).keys() == vars(started).keys()
    assert pickle.loads(pickle.dumps(adapter._Adam(started))).learning_rate == 0.25


def test_weights_that_are_no_floats_are_refused():
    model = adapter.MLPClassifier(**OPTIONS).fit(X, Y)
    model.coefs_[1] = model.coefs_[1].astype(int)
    with pytest.raises(TypeError, match=r"coefs_\[1\]: expected dtype float16"):
        model.partial_fit(X, Y)
    assert fitted(model).t == 20


def test_weights_that_are_read_only_are_refused():
    model = adapter.MLPClassifier(**OPTIONS).fit(X, Y)
    model = pickle.loads(pickle.dumps(model))
    model.intercepts_[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"intercepts_\[1\]: the array is read-only"):
        model.partial_fit(X, Y)
    assert fitted(model).t == 20


# ---------------------------------------------------------------- estimators among scikit-learn's tools


def test_clone_and_parameters():
    model = adapter.MLPClassifier(alpha=0.5, beta_1=0.7).fit(X, Y)
    again = clone(model)
    assert type(again) is adapter.MLPClassifier
    assert again.get_params() == model.get_params()
    assert again.get_params() == stock.MLPClassifier(alpha=0.5, beta_1=0.7).get_params()
    assert not hasattr(again, "_optimizer")
    assert inspect.signature(adapter.MLPRegressor) == inspect.signature(stock.MLPRegressor)
    assert isinstance(again, stock.MLPClassifier)


def by_fastadam(model, _, __):
    """A score that tells whose steps they were, wherever the model was trained."""
    return float(type(fitted(model)).__module__ == "fastadam.adapters.sklearn")


def last_by_fastadam(pipeline, data, labels):
    return by_fastadam(pipeline[-1], data, labels)


@pytest.mark.parametrize("where", ["block", "class"])
def test_search_with_two_jobs(where):
    grid = {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 1e-2]}
    expected = GridSearchCV(stock.MLPClassifier(**OPTIONS), grid, cv=2).fit(X, Y)
    if where == "class":
        made = GridSearchCV(adapter.MLPClassifier(**OPTIONS), grid, cv=2, n_jobs=2).fit(X, Y)
    else:
        with accelerated():
            made = GridSearchCV(stock.MLPClassifier(**OPTIONS), grid, cv=2, n_jobs=2).fit(X, Y)
    np.testing.assert_allclose(made.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert made.best_params_ == expected.best_params_
    close(made.best_estimator_, expected.best_estimator_)
    assert by_fastadam(made.best_estimator_, X, Y) == 1


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("where", ["block", "class", "outside"])
def test_workers_train_with_fastadam(where, backend):
    model = make_pipeline(StandardScaler(), (adapter if where == "class" else stock).MLPClassifier(**OPTIONS))
    with parallel_config(backend), accelerated() if where == "block" else nullcontext():
        found = cross_validate(model, X, Y, scoring=last_by_fastadam, cv=4, n_jobs=2, error_score="raise")
    assert set(found["test_score"]) == {0.0 if where == "outside" else 1.0}


def test_threads_that_joblib_leaves_to_a_worker(monkeypatch):
    monkeypatch.delenv("FASTADAM_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "default", lambda: 4)
    for told, expected in [("", 4), ("1", 1), ("3", 3), ("64", 4), ("0", 1), ("many", 4)]:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        model = adapter.MLPClassifier(**OPTIONS).fit(X, Y)
        assert inside.stepper(fitted(model)).n_threads == expected
    monkeypatch.setenv("FASTADAM_NUM_THREADS", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert inside.stepper(fitted(adapter.MLPClassifier(**OPTIONS).fit(X, Y))).n_threads == 4


# ---------------------------------------------------------------- blocks


def is_stock() -> bool:
    base = _multilayer_perceptron.BaseMultilayerPerceptron
    return base._fit.__module__ == base.__module__ and not {"_optimizer", "__reduce_ex__"} & vars(base).keys()


def test_a_block_ends():
    assert is_stock()
    with accelerated():
        assert not is_stock()
        assert by_fastadam(stock.MLPClassifier(**OPTIONS).fit(X, Y), X, Y)
    assert is_stock()
    assert not by_fastadam(stock.MLPClassifier(**OPTIONS).fit(X, Y), X, Y)


def test_an_error_ends_a_block():
    with pytest.raises(ValueError, match="learning_rate_init"), accelerated():
        stock.MLPClassifier(learning_rate_init=-1).fit(X, Y)
    assert is_stock()

    @accelerated()
    def fit():
        assert not is_stock()
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit()
        assert is_stock()


def test_blocks_in_blocks():
    with accelerated():
        with pytest.raises(ZeroDivisionError), accelerated():
            1 / 0  # noqa: B018
        assert not is_stock()
        assert by_fastadam(stock.MLPClassifier(**OPTIONS).fit(X, Y), X, Y)
        made = adapter.MLPClassifier(**OPTIONS).fit(X, Y)
    assert is_stock()
    close(made, stock.MLPClassifier(**OPTIONS).fit(X, Y))


def test_blocks_of_several_threads():
    """Each opens and leaves its own while others train; the last one that leaves puts scikit-learn back."""
    expected = stock.MLPClassifier(**OPTIONS).fit(X, Y)
    together = threading.Barrier(8)

    def train(_):
        together.wait()
        with accelerated():
            return stock.MLPClassifier(**OPTIONS).fit(X, Y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with ThreadPoolExecutor(8) as pool:
            models = list(pool.map(train, range(8)))
    assert is_stock()
    for model in models:
        assert by_fastadam(model, X, Y)
        close(model, expected)


def test_copies_and_pickles_within_a_block_keep_their_class():
    model = stock.MLPClassifier(**OPTIONS).fit(X, Y)
    with accelerated():
        text = pickle.dumps(model)
        for made in (copy.copy(model), copy.deepcopy(model), pickle.loads(text)):
            assert type(made) is stock.MLPClassifier
            assert vars(made).keys() == vars(model).keys()
    elsewhere = pickle.loads(text)  # as in another process: trained by fastadam, and scikit-learn's when pickled
    for made in (elsewhere, clone(elsewhere), copy.deepcopy(elsewhere)):
        assert isinstance(made, adapter.MLPClassifier)
        assert by_fastadam(made.fit(X, Y), X, Y)
        back = pickle.dumps(made)
        assert b"fastadam" not in back
        assert type(pickle.loads(back)) is stock.MLPClassifier
        close(pickle.loads(back), stock.MLPClassifier(**OPTIONS).fit(X, Y))


def perceptrons(made):
    """The perceptrons that were trained for an ensemble, a search or a validation."""
    found = made["estimator"] if isinstance(made, dict) else getattr(made, "estimators_", [made])
    return [model[-1] if isinstance(model, Pipeline) else model for model in found]


#: what trains perceptrons of the classes in a module, so many at a time
TOGETHER = {
    "bagging": lambda mlp, n: BaggingRegressor(mlp.MLPRegressor(**OPTIONS), 3, n_jobs=n, random_state=0).fit(X, Y),
    "voting": lambda mlp, n: VotingClassifier(
        [
            ("alone", mlp.MLPClassifier(**OPTIONS)),
            ("in a pipeline", make_pipeline(StandardScaler(), mlp.MLPClassifier(**OPTIONS))),
        ],
        n_jobs=n,
    ).fit(X, Y),
    "validation": lambda mlp, n: cross_validate(
        mlp.MLPClassifier(**OPTIONS), X, Y, cv=2, n_jobs=n, return_estimator=True
    ),
    "search": lambda mlp, n: (
        GridSearchCV(mlp.MLPClassifier(**OPTIONS), {"alpha": [1e-4, 1.0]}, cv=2, n_jobs=n).fit(X, Y).best_estimator_
    ),
}


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("name", TOGETHER)
def test_what_workers_train_comes_back_in_scikit_learns_classes(name, backend):
    expected = perceptrons(TOGETHER[name](stock, None))
    with parallel_config(backend), accelerated():
        whole = TOGETHER[name](stock, 2)
    made = perceptrons(whole)
    for ours, theirs in zip(made, expected, strict=True):
        assert type(ours) is type(theirs)
        close(ours, theirs)
    text = pickle.dumps(whole)
    assert b"fastadam" not in text
    assert [type(model) for model in perceptrons(pickle.loads(text))] == [type(model) for model in expected]


@pytest.mark.parametrize("where", ["block", "class"])
def test_weights_that_arrive_read_only_are_trained(where):
    model = (stock if where == "block" else adapter).MLPRegressor(**OPTIONS).fit(DIABETES, PROGRESS)
    buffers = []
    with accelerated() if where == "block" else nullcontext():
        text = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
        came = pickle.loads(text, buffers=[bytes(buffer.raw()) for buffer in buffers])
        close(came.partial_fit(DIABETES, PROGRESS), model.partial_fit(DIABETES, PROGRESS))


# ---------------------------------------------------------------- what it cannot speed up, it says


@pytest.mark.filterwarnings("ignore:scipy.optimize")  # older scikit-learn calls L-BFGS as newer SciPy will not have it
@pytest.mark.parametrize("where", ["block", "class"])
def test_another_solver_is_scikit_learns_and_it_says_so(where):
    expected = stock.MLPClassifier(**OPTIONS, solver="lbfgs").fit(X, Y)
    model = (adapter if where == "class" else stock).MLPClassifier(**OPTIONS, solver="lbfgs")
    with accelerated() if where == "block" else nullcontext(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(X, Y)
    said = [warning for warning in said if warning.category is NotAcceleratedWarning]
    assert [warning.filename for warning in said] == [__file__]
    assert "solver='lbfgs' is scikit-learn's own" in str(said[0].message)
    for ours, theirs in zip(model.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:scipy.optimize")
def test_one_warning_for_a_class_of_this_module_in_a_block():
    with pytest.warns(NotAcceleratedWarning) as said, accelerated():
        adapter.MLPRegressor(**OPTIONS, solver="lbfgs").fit(DIABETES, PROGRESS)
    assert sum(warning.category is NotAcceleratedWarning for warning in said) == 1


class Derived(stock.MLPClassifier):
    """A user's own."""


class DerivedFromOurs(adapter.MLPClassifier):
    """A user's own, as the warning asks."""


def test_derived_estimators():
    with accelerated():
        model = Derived(**OPTIONS).fit(X, Y)
        assert by_fastadam(model, X, Y)
        with pytest.warns(
            NotAcceleratedWarning,
            match=r"Derived: in another process .* trained by scikit-learn itself, .* derive Derived",
        ):
            pickle.dumps(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotAcceleratedWarning)
            for copied in (copy.copy(model), copy.deepcopy(model)):  # these stay here
                assert type(copied) is Derived
                assert by_fastadam(copied.partial_fit(X, Y), X, Y)
        made = pickle.loads(pickle.dumps(DerivedFromOurs(**OPTIONS)))
    assert type(made) is DerivedFromOurs
    assert by_fastadam(made.fit(X, Y), X, Y)


# ---------------------------------------------------------------- another scikit-learn


def others_numbers(self, grads):
    self.t += 1
    return [-self.learning_rate_init * grad for grad in grads]


class OtherSignature(AdamOptimizer):
    def __init__(self, params, learning_rate_init=0.001, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(params, learning_rate_init, *betas, epsilon)


class OtherSGD(SGDOptimizer):
    def __init__(self, params, learning_rate_init=0.1, lr_schedule="constant", momentum=0.9, nesterov=True):
        super().__init__(params, learning_rate_init, lr_schedule, momentum, nesterov)


class MoreHeld(AdamOptimizer):
    def __init__(self, params, learning_rate_init=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        super().__init__(params, learning_rate_init, beta_1, beta_2, epsilon)
        self.amsgrad = False


FAKES = {
    "older": ("1.4.2", None, "scikit-learn 1.4.2: this version was not tested"),
    "newer": ("1.10.0", None, r"scikit-learn 1.10.0: this version was not tested.*>=1.5,<1.10: install"),
    "to come": ("2.0.dev0", None, "this version was not tested"),
    "replaced": (None, MoreHeld, "AdamOptimizer was replaced by .*MoreHeld"),
    "gone": (None, type(None), "AdamOptimizer was replaced"),
    "signature": (None, OtherSignature, r"AdamOptimizer takes \(params, learning_rate_init=0.001, betas="),
    "held": (None, MoreHeld, "AdamOptimizer holds .*amsgrad"),
    "sgd": (None, OtherSGD, r"SGDOptimizer takes \(params, .*, not \(.*power_t\)"),
}


@pytest.fixture
def fake(request, monkeypatch):
    version, optimizer, message = FAKES[request.param]
    if version is not None:
        monkeypatch.setattr("sklearn.__version__", version)
    if optimizer is not None:
        name = "SGDOptimizer" if optimizer is OtherSGD else "AdamOptimizer"
        monkeypatch.setattr(_multilayer_perceptron, name, optimizer)
        if request.param not in ("replaced", "gone"):
            monkeypatch.setattr(adapter, name, optimizer)
    return message


@pytest.mark.parametrize("fake", FAKES, indirect=True)
def test_a_scikit_learn_that_differs_is_refused(fake):
    with pytest.raises(RuntimeError, match=fake), accelerated():
        pytest.fail("the block was entered")
    assert is_stock()
    model = adapter.MLPClassifier(**OPTIONS)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=fake):
            model.fit(X, Y)
    assert not hasattr(model, "coefs_")


def sgds_numbers(self, grads):
    return [-self.learning_rate * grad for grad in grads]


@pytest.mark.parametrize(
    ("optimizer", "updates", "message"),
    [
        (AdamOptimizer, others_numbers, "AdamOptimizer.* fastadam's Adam"),
        (SGDOptimizer, sgds_numbers, "fastadam's SGD"),
    ],
)
def test_other_numbers_are_refused(optimizer, updates, message, monkeypatch):
    monkeypatch.setattr(optimizer, "_get_updates", updates)
    inside.forget_sklearn_checks()
    try:
        with pytest.raises(RuntimeError, match=message), accelerated():
            pytest.fail("the block was entered")
        assert is_stock()
    finally:
        monkeypatch.undo()
        inside.forget_sklearn_checks()
    with accelerated():
        assert not is_stock()
