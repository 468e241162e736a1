"""scikit-learn's MLPClassifier and MLPRegressor, trained by fastadam: within a block, or with the two classes here.
Losses and weights are scikit-learn's, up to rounding. scikit-learn itself runs ``solver="lbfgs"``, with a warning.

`accelerated` is for blocks of code with unchanged estimators, pipelines and searches, also in worker processes and
threads. The classes `MLPClassifier` and `MLPRegressor` need no block: a script only changes its import line. Both ways
follow every parameter of ``solver="adam"`` and ``solver="sgd"``. The rule of "adam" is `fastadam.Adam` with
``eps_hat=True``. That of "sgd" is `fastadam.SGD`, except that the velocity contains the rate.

A partly trained model (from ``partial_fit``, or from a pickle) continues from its states in a block. Models that worker
processes train for a block come back in scikit-learn's classes. Pickles and copies contain scikit-learn's own optimizer
with the same states. So a model of scikit-learn's classes can be loaded without fastadam, and its training can continue
with fastadam, in a block or in a class of this module.

A step uses the optimizers' default number of threads, but at most ``OMP_NUM_THREADS``, with which joblib limits its
worker processes. ``FASTADAM_NUM_THREADS`` overrides both.

The optimizer inside scikit-learn is private. It is checked before a fit. An untested version of scikit-learn, another
signature or other results raise a RuntimeError, and nothing is trained.

Examples
--------
>>> from sklearn.datasets import load_iris
>>> from sklearn.model_selection import GridSearchCV
>>> from sklearn.neural_network import MLPClassifier
>>> from fastadam.adapters.sklearn import accelerated
>>> X, y = load_iris(return_X_y=True)
>>> search = GridSearchCV(MLPClassifier(max_iter=400, tol=1e-3, random_state=0), {"alpha": [1e-4, 1e-2]})
>>> with accelerated():
...     _ = search.fit(X, y)
>>> bool(search.best_score_ > 0.95)
True
"""

import inspect
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np

from ..kernel import checks, threads
from ..kernel._stepper import Stepper
from ..kernel.arrived import make_writeable
from ..optimizers import SGD, Adam
from ..rule import Rule
from ..rules import RULES
from .hyper import hyper_of

try:
    import sklearn
    from sklearn import neural_network
    from sklearn.exceptions import InconsistentVersionWarning
    from sklearn.neural_network import _multilayer_perceptron
    from sklearn.neural_network._multilayer_perceptron import (
        AdamOptimizer,
        BaseMultilayerPerceptron,
        SGDOptimizer,
    )
except ImportError as error:
    raise ImportError(
        f"fastadam.adapters.sklearn needs scikit-learn 1.5 … 1.9 ({error}): pip install 'scikit-learn>=1.5,<1.10'"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor", "NotAcceleratedWarning", "accelerated"]

#: the first version that was tested, and the first after the tested ones
_TESTED = (1, 5), (1, 10)


class NotAcceleratedWarning(UserWarning):
    """A model that fastadam should train is trained by scikit-learn's own code."""


# ---------------------------------------------------------------- the optimizers that replace scikit-learn's


class _Stepped:
    """Replaces an optimizer of scikit-learn. It continues from the states of that one, with fastadam's steps."""

    #: scikit-learn's class, its arguments, its attributes, and arguments with which to compare results
    stock: ClassVar[type]
    signature: ClassVar[tuple[str, ...]]
    held: ClassVar[set[str]]
    tried: ClassVar[Sequence[tuple[Any, ...]]]
    #: the attributes that hold the rule's states, in its order
    moments: ClassVar[tuple[str, ...]]

    def __init__(self, stock: Any) -> None:
        self.__dict__.update(vars(stock))
        self._laid: Rule | None = None

    def update_params(self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray]) -> None:
        """Do one step of `params`, in place."""
        params, rule = list(params), self._rule()
        states = [list(own) for own in zip(*(getattr(self, name) for name in self.moments), strict=True)]
        if rule is not self._laid:
            self._stepper, self._laid = Stepper(rule, _n_threads()), rule
        # An estimator has new arrays after early stopping, and after an assignment to coefs_.
        if not self._stepper.holds(params, states):
            states = _writable(params, states)
            self._stepper.lay(params, states, _names(len(params)))
            for name, arrays in zip(self.moments, zip(*states, strict=True), strict=True):
                setattr(self, name, list(arrays))
        self._step(list(grads))

    def _rule(self) -> Rule:
        raise NotImplementedError

    def _step(self, grads: list[np.ndarray]) -> None:
        """Do one step of the stepper's arrays."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies are scikit-learn's own, so that loading needs no fastadam. A hook replaces them here."""
        return self.stock, ([],), {name: getattr(self, name) for name in vars(self) if name in self.held}


class _Adam(_Stepped, AdamOptimizer):
    stock, moments = AdamOptimizer, ("ms", "vs")
    signature = ("params", "learning_rate_init", "beta_1", "beta_2", "epsilon")
    held: ClassVar = {"learning_rate_init", "learning_rate", "beta_1", "beta_2", "epsilon", "t", "ms", "vs"}
    tried = ((0.1, 0.8, 0.95, 1e-3),)

    @property
    def learning_rate(self) -> float:
        """The rate of the last step with its bias corrections, as in scikit-learn's optimizer."""
        if self.t == 0:
            return float(self.learning_rate_init)
        return float(self._rule().scalars(float(self.t), *self._own, beta_decay=1.0, eps_hat=True)[0])

    @property
    def _own(self) -> tuple[float, ...]:
        return self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon

    def _rule(self) -> Rule:
        return RULES["adam"]

    def _step(self, grads: list[np.ndarray]) -> None:
        self._stepper.step(grads, self.t + 1, _adam_hyper(*self._own))
        self.t += 1


class _SGD(_Stepped, SGDOptimizer):
    """scikit-learn's velocity is fastadam's b of gradients times minus the rate. Adding it is a step at rate -1."""

    stock, moments = SGDOptimizer, ("velocities",)
    signature = ("params", "learning_rate_init", "lr_schedule", "momentum", "nesterov", "power_t")
    held: ClassVar = {*signature[1:], "learning_rate", "velocities"}
    tried = ((0.1, "invscaling", 0.8, True), (0.1, "constant", 0.8, False))

    def _rule(self) -> Rule:  # a rule with a velocity, since scikit-learn has one even without momentum
        return RULES["sgd_nesterov" if self.nesterov else "sgd_momentum"]

    def _step(self, grads: list[np.ndarray]) -> None:
        hyper = _sgd_hyper(self._rule(), self.momentum)
        self._stepper.step(grads, self._stepper.t + 1, hyper, factor=-self.learning_rate)


@lru_cache
def _adam_hyper(lr: float, beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
    return hyper_of(Adam, RULES["adam"], lr, betas=(beta1, beta2), eps=eps, eps_hat=True)


@lru_cache
def _sgd_hyper(rule: Rule, momentum: float) -> tuple[float, ...]:
    return hyper_of(SGD, rule, -1.0, momentum=momentum)


#: the name of scikit-learn's class -> the class that replaces it
_OURS: dict[str, type[_Stepped]] = {"AdamOptimizer": _Adam, "SGDOptimizer": _SGD}
_BY_STOCK = {own.stock: own for own in _OURS.values()}


def _writable(params: list[np.ndarray], states: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The moments of each parameter, writable and in the right dtype. Unpickled moments may be read-only, and those of
    mixed trainings may have another dtype."""
    checks.parameters(_names(len(params)), params)
    return [
        [np.require(moment, checks.computed_in(p), "W") for moment in moments]
        for moments, p in zip(states, params, strict=True)
    ]


def _names(count: int) -> list[str]:
    """The names of the parameters in messages."""
    return [f"{name}[{k}]" for name in ("coefs_", "intercepts_") for k in range(count // 2)]


def _n_threads() -> int:
    """fastadam's default, limited to joblib's share for a worker process unless FASTADAM_NUM_THREADS is set."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if os.environ.get("FASTADAM_NUM_THREADS") or not told.isdecimal():
        return threads.default()
    return max(1, min(threads.default(), int(told)))


# ---------------------------------------------------------------- replacing the optimizer


class _OptimizerHook:
    """The attribute ``_optimizer`` of an estimator. Reading it replaces scikit-learn's optimizer by fastadam's.

    This also replaces optimizers that come from a pickle, or that were made outside of a block.
    """

    def __get__(self, estimator: Any, _: type | None = None) -> Any:
        if estimator is None:
            return self
        try:
            optimizer = vars(estimator)["_optimizer"]
        except KeyError:
            raise AttributeError(f"{type(estimator).__name__} has no optimizer before it is fitted") from None
        if own := _BY_STOCK.get(type(optimizer)):
            optimizer = vars(estimator)["_optimizer"] = own(optimizer)
        return optimizer

    def __set__(self, estimator: Any, optimizer: Any) -> None:
        vars(estimator)["_optimizer"] = optimizer


def _begin(estimator: Any) -> None:
    """Before a fit: refuse an untested scikit-learn, and warn if scikit-learn itself will train."""
    _check_all()
    if estimator.solver not in ("adam", "sgd"):
        warnings.warn(
            f"solver={estimator.solver!r} is scikit-learn's own here: fastadam trains solver='adam' and 'sgd'",
            NotAcceleratedWarning,
            stacklevel=5,  # the caller of fit, above two functions of scikit-learn and two of this module
        )


class _Accelerated:
    """An estimator whose ``_optimizer`` is fastadam's."""

    _optimizer = _OptimizerHook()

    def _fit(self, *args: Any, **kwargs: Any) -> Any:
        _begin(self)
        return super()._fit(*args, **kwargs)  # type: ignore[misc]

    # scikit-learn marks pickles with its version only for classes of its own modules. These pickles need it, too.

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "_sklearn_version": sklearn.__version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_sklearn_version", "unknown")
        if version != sklearn.__version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=sklearn.__version__,
                    original_sklearn_version=version,
                ),
                stacklevel=2,
            )
        super().__setstate__(state)  # type: ignore[misc]
        _own_weights(self)


def _own_weights(estimator: Any) -> None:
    """Make weights writable: those from another process may be read-only."""
    make_writeable([*getattr(estimator, "coefs_", ()), *getattr(estimator, "intercepts_", ())])


class MLPClassifier(_Accelerated, neural_network.MLPClassifier):
    """scikit-learn's ``MLPClassifier``, with ``solver="adam"`` and ``"sgd"`` run by fastadam.

    Parameters, attributes and methods are those of ``sklearn.neural_network.MLPClassifier``.

    Raises
    ------
    RuntimeError
        In a fit, if this version of scikit-learn was not tested.

    Warns
    -----
    NotAcceleratedWarning
        In a fit with ``solver="lbfgs"``, which scikit-learn runs.

    Notes
    -----
    scikit-learn's Adam adds epsilon before the bias correction: `fastadam.Adam` with ``eps_hat=True``. The velocity of
    its SGD accumulates steps, not gradients, so a falling rate does not change the steps already in it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastadam.adapters.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(random_state=0)
    >>> for _ in range(400):
    ...     _ = model.partial_fit(X, y, classes=[0, 1, 2])
    >>> model.score(X, y) > 0.95
    True
    """


class MLPRegressor(_Accelerated, neural_network.MLPRegressor):
    """scikit-learn's ``MLPRegressor``, with ``solver="adam"`` and ``"sgd"`` run by fastadam.

    Parameters, attributes and methods are those of ``sklearn.neural_network.MLPRegressor``; see `MLPClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastadam.adapters.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 100).reshape(-1, 1)
    >>> model = MLPRegressor(learning_rate_init=0.01, max_iter=500, random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.95
    True
    """


# ---------------------------------------------------------------- blocks

_stock_fit = BaseMultilayerPerceptron._fit
_OWN: dict[type, type] = {neural_network.MLPClassifier: MLPClassifier, neural_network.MLPRegressor: MLPRegressor}


def _fit_in_block(estimator: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(estimator, _Accelerated):  # those call `_begin` themselves
        _begin(estimator)
    return _stock_fit(estimator, *args, **kwargs)


class _Sent(_Accelerated):
    """An estimator from a block, in a worker process without a block. fastadam trains it and its clones. On its way
    back it is pickled as its class of scikit-learn."""

    stock: type

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol) if _is_copying() else (self.stock, (), self.__getstate__())


_SENT = {
    stock: type(stock.__name__, (_Sent, own), {"stock": stock, "__doc__": own.__doc__}) for stock, own in _OWN.items()
}


def _arrive(stock: type) -> Any:
    """The estimator in this process that corresponds to one pickled within a block."""
    return stock() if _blocks else _SENT[stock]()


def _is_copying() -> bool:
    """Whether the caller's caller makes a copy, which stays in this process, and not a pickle."""
    return sys._getframe(2).f_globals.get("__name__") == "copy"


def _reduce_in_block(estimator: Any, protocol: int) -> Any:
    """The pickle of an estimator for worker processes, which have no block."""
    if _is_copying():
        return object.__reduce_ex__(estimator, protocol)
    if type(estimator) in _SENT:
        return _arrive, (type(estimator),), estimator.__getstate__()
    if not isinstance(estimator, _Accelerated):
        name = type(estimator).__name__
        warnings.warn(
            f"{name}: in another process it will be trained by scikit-learn itself, not by fastadam; "
            f"derive {name} from an estimator of fastadam.adapters.sklearn instead",
            NotAcceleratedWarning,
            stacklevel=2,
        )
    return object.__reduce_ex__(estimator, protocol)


def _set_state_in_block(estimator: Any, state: dict[str, Any]) -> None:
    super(BaseMultilayerPerceptron, estimator).__setstate__(state)
    _own_weights(estimator)


#: the attributes that scikit-learn's estimators have while a block is open
_IN_BLOCK = {
    "_optimizer": _OptimizerHook(),
    "_fit": _fit_in_block,
    "__reduce_ex__": _reduce_in_block,
    "__setstate__": _set_state_in_block,
}
_outside = {name: vars(BaseMultilayerPerceptron)[name] for name in _IN_BLOCK if name in vars(BaseMultilayerPerceptron)}
_blocks = 0  # the number of open blocks, in all threads
_lock = threading.Lock()


@contextmanager
def accelerated() -> Iterator[None]:
    """Within this block, scikit-learn's MLPClassifier and MLPRegressor are trained by fastadam.

    Blocks may be nested, and several threads may open them. While one is open, all threads of the process train with
    fastadam, also those of joblib. fastadam also trains estimators that are sent to worker processes; they come back in
    scikit-learn's classes, so ``n_jobs`` works. Therefore a pickle that is made within the block needs fastadam when it
    is loaded. ``@accelerated()`` can also decorate a function. After the block, even after an error, scikit-learn is as
    before; a model keeps the optimizer that it has then.

    Raises
    ------
    RuntimeError
        If this version of scikit-learn was not tested. Nothing has changed then.

    Warns
    -----
    NotAcceleratedWarning
        In a fit with ``solver="lbfgs"``. Also when an estimator of a class derived from scikit-learn's is pickled,
        since scikit-learn would train it in another process.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neural_network import MLPRegressor
    >>> X = np.linspace(-1, 1, 100).reshape(-1, 1)
    >>> with accelerated():
    ...     model = MLPRegressor(learning_rate_init=0.01, max_iter=500, random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.95
    True
    """
    global _blocks
    _check_all()
    with _lock:
        _blocks += 1
        for name, value in _IN_BLOCK.items():
            setattr(BaseMultilayerPerceptron, name, value)
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            for name in _IN_BLOCK if _blocks == 0 else ():
                if name in _outside:
                    setattr(BaseMultilayerPerceptron, name, _outside[name])
                else:
                    delattr(BaseMultilayerPerceptron, name)


# ---------------------------------------------------------------- checking that this scikit-learn was tested


def _check_all() -> None:
    """Refuse an untested version, and private optimizers that this module does not know."""
    for name in _OURS:
        _check(sklearn.__version__, name, getattr(_multilayer_perceptron, name, None))


@cache
def _check(version: str, name: str, optimizer: Any) -> None:
    (first, beyond), own = _TESTED, _OURS[name]
    wrong = ""
    if not first <= tuple(int(part) for part in version.split(".")[:2]) < beyond:
        wrong = "this version was not tested"
    elif optimizer is not globals()[name]:
        wrong = f"{name} was replaced by {optimizer!r}"
    elif tuple(inspect.signature(optimizer).parameters) != own.signature:
        wrong = f"{name} takes {inspect.signature(optimizer)}, not ({', '.join(own.signature)})"
    elif vars(optimizer([])).keys() != own.held:
        wrong = f"{name} holds {', '.join(vars(optimizer([])))}, not {', '.join(sorted(own.held))}"
    elif not all(_same_numbers(optimizer, own, arguments) for arguments in own.tried):
        wrong = f"{name} gives other numbers than fastadam's {own.__name__.lstrip('_')}"
    if wrong:
        raise RuntimeError(
            f"scikit-learn {version}: {wrong}. fastadam.adapters.sklearn replaces private classes and knows those of "
            f"scikit-learn >={'.'.join(map(str, first))},<{'.'.join(map(str, beyond))}: install one of these, or train "
            "without this module"
        )


def _same_numbers(optimizer: Callable[..., Any], own: type[_Stepped], arguments: tuple[Any, ...]) -> bool:
    """Whether a few steps of scikit-learn's own optimizer give the same results as fastadam's."""
    results: list[list[float]] = []
    for wrapped in (lambda stock: stock, own):
        p = [np.array([1.0]), np.array([-2.0])]
        made: Any = wrapped(optimizer(p, *arguments))
        for k in range(3):
            made.update_params(p, [np.array([0.5]), np.array([-1e-3 * k])])
            made.iteration_ends(k)
        results.append([p[0][0], p[1][0], made.learning_rate])
    stock, ours = results
    return np.allclose(stock, ours, rtol=1e-12, atol=0)
