"""thinc's optimizer with fastadam's steps: schedules, clipping, decay, averages and checkpoints as in thinc's own.
In a config file it is ``@optimizers = "fastadam.Adam.v1"``, with the arguments of thinc's ``Adam.v1``.

`Adam`, `SGD` and `RAdam` give the results of thinc's own, up to rounding. The other functions use the rules of
fastadam's other optimizers, with their conventions and defaults, in the same frame. Each class of `fastadam.optimizers`
has a function of its name here. Installing fastadam registers all of them, as ``fastadam.Adam.v1`` and so on. The frame
is thinc's:

- ``learn_rate``, ``L2``, ``grad_clip``, ``eps``, ``beta1``, ``beta2`` and ``beta3`` are numbers >= 0 or schedules of
  thinc. ``learn_rate`` must be a number if the optimizer takes no schedule (`Rprop`, `ScheduleFreeAdamW`).
- A gradient whose norm is at least ``grad_clip`` is scaled down to that norm. 0 means no clipping. If there is a NaN in
  a clipped gradient, all of its elements become NaN; in thinc the others stay.
- With ``L2_is_weight_decay`` (the default) the weights shrink by ``learn_rate * lr_scale * L2`` after the step.
  Otherwise ``L2`` times the weights is added to the gradient before clipping.
- ``use_averages`` (on by default) keeps a running mean of the weights in ``optimizer.averages``. For `ASGD` and
  `ScheduleFreeAdamW` these are views of the rule's own averages, which are among its states.

The attributes are those of thinc's optimizer. ``mom1``, ``mom2`` and ``averages`` are dicts from a parameter's key to
its arrays; ``nr_update`` maps a key to its step count. ``mom1``, ``mom2`` and, for a rule with three states, ``mom3``
have the rule's states, flat, in its order. They may be pickled, copied, read and replaced between steps: they are the
checkpoint. If a layer was resized, for example by spaCy's ``add_label``, the weights of a key have another shape. Its
states, average and count then restart, with a UserWarning.

float32 and float64 weights in NumPy arrays are stepped in place. Arrays on a GPU raise a TypeError, and numbers outside
their range a ValueError, before anything is touched.

Examples
--------
>>> from thinc.api import Config, Relu, Softmax, chain, registry
>>> import fastadam.adapters.thinc  # needless where fastadam is installed
>>> config = Config().from_str('''
... [optimizer]
... @optimizers = "fastadam.Adam.v1"
... learn_rate = 0.01
... L2 = 1e-4
... ''')
>>> optimizer = registry.resolve(config)["optimizer"]
>>> import numpy as np
>>> X = np.eye(3, dtype="float32")
>>> model = chain(Relu(8), Softmax()).initialize(X=X, Y=X)
>>> for _ in range(200):
...     predicted, backprop = model.begin_update(X)
...     _ = backprop(predicted - X)
...     model.finish_update(optimizer)
...     optimizer.step_schedules()
>>> bool(np.abs(model.predict(X) - X).max() < 0.1)
True
"""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import optimizers, options
from ..algorithm import Algorithm
from ..kernel import checks, threads
from ..kernel._stepper import Stepper
from ..kernel.arrived import make_writeable
from ..names import attributes_of, give_attributes, refuse_unknown
from ..rule import own_clip_factor

try:
    import thinc.optimizers
    from thinc.config import registry
    from thinc.schedules import constant
except ImportError as error:
    raise ImportError(
        f"fastadam.adapters.thinc needs thinc 8.3 … 9.1 ({error}): pip install 'thinc>=8.3,<9.2'"
    ) from error
from .thinc_frame import CHECKS, ScheduleT, in_frame, is_same_memory, need_cpu, take_average

#: thinc 9 makes a number a schedule with this function; its rate can be read without a call
_CONSTANT = getattr(constant(0.0), "_schedule", object())


class Optimizer(thinc.optimizers.Optimizer):
    """thinc's ``Optimizer`` with the steps of a fastadam rule. `Adam` and the other functions here return it.

    Parameters
    ----------
    kind : type
        The optimizer class of fastadam that has the rule.
    learn_rate, grad_clip, L2_is_weight_decay, use_averages
        See the module.
    decay_first : bool, default False
        Whether weights shrink before the step, as in torch, instead of after it, as in thinc. It is always true for
        `ASGD` and `ScheduleFreeAdamW`.
    **given
        ``L2``, the betas and ``eps``, if `kind` has them, the options of its function in this module, and ``eps_hat``.
        Defaults are those of `kind`. As in thinc, the betas are the attributes ``b1`` and ``b2``; a third is ``b3``.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not as described. In a call, for an array or a schedule's result that does not fit.
        Nothing has changed then.
    """

    __slots__ = ("_decay_first", "_fixed", "_given", "_hyper", "_rule", "_stepped", "b3", "kind", "mom3")
    mom3: dict[Any, np.ndarray]
    _given: tuple[Any, ...]
    _hyper: tuple[float, ...]
    _stepped: "dict[Any, _Stepped]"

    def __init__(
        self,
        kind: type[Algorithm],
        learn_rate: ScheduleT,
        *,
        grad_clip: ScheduleT = 1.0,
        L2_is_weight_decay: bool = True,
        use_averages: bool = True,
        decay_first: bool = False,
        **given: Any,
    ) -> None:
        own, framed = kind.options, in_frame(kind)
        known = [*framed, *({"eps_hat"} & own.keys())]
        refuse_unknown(given, known, f"option of {kind.__name__} in thinc's frame")
        given = {name: p.default for name, p in framed.items()} | given
        given |= {"learn_rate": learn_rate, "grad_clip": grad_clip}
        scheduled = {name: checks.scalar(given.pop(name)) for name in CHECKS if name in given}
        for name, value in scheduled.items():
            if isinstance(value, (int, float)):  # others are schedules, which are checked at each step
                CHECKS[name](name, value)
        self._fixed = {name: option.default for name, option in own.items()}
        self._fixed |= {name: own[name].check(name, value) for name, value in given.items()}
        if own["lr"].check is options.rate:  # such a class takes no schedule
            self._fixed["lr"] = options.rate("learn_rate", scheduled["learn_rate"])
        kind.check(self._fixed)
        beta3 = scheduled.pop("beta3", 0.0)
        super().__init__(
            **scheduled,
            L2_is_weight_decay=options.flag("L2_is_weight_decay", L2_is_weight_decay),
            use_averages=options.flag("use_averages", use_averages),
            use_radam=kind is optimizers.RAdam,
        )
        self._set_attr_or_schedule("b3", beta3)
        self.mom3 = {}
        self.kind = kind
        self._decay_first = decay_first or kind in (optimizers.ASGD, optimizers.ScheduleFreeAdamW)
        self._begin_anew()

    def __call__(
        self, key: tuple[int, str], weights: np.ndarray, gradient: np.ndarray, *, lr_scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Do one step of `weights`, in place, set `gradient` to zero, and return both."""
        if len(gradient) < 1:
            return weights, gradient
        if self.use_radam is not (self.kind is optimizers.RAdam):
            raise ValueError(
                f"use_radam: {self.use_radam} does not fit the rule of this {self.kind.__name__}; make a new one"
            )
        if type(gradient) is not np.ndarray:
            need_cpu(f"gradient of {key}", gradient)
        stepped = self._stepped.get(key)
        if stepped is None or not self._holds(stepped, key, weights):
            stepped = self._new_stepped(key, weights)
        if (type(gradient), gradient.shape, gradient.dtype) != (np.ndarray, weights.shape, weights.dtype):
            if gradient.shape != weights.shape and gradient.size == weights.size:  # thinc steps both flat
                weights, zeros = self(key, weights, gradient.reshape(weights.shape), lr_scale=lr_scale)
                return weights, zeros.reshape(gradient.shape)
            # the norm is computed before the step, so the gradient is checked here
            checks.gradient(str(key), gradient, weights)
        average = self._average_of(key, stepped)
        learn_rate, *betas_and_eps, L2, grad_clip = self._now(key)
        hyper = self._hyper_of(self.L2_is_weight_decay, learn_rate, lr_scale, *betas_and_eps, L2, grad_clip)
        clip, hyper = self._clipped(hyper, weights, gradient, L2, grad_clip) if grad_clip else ({}, hyper)
        t = self.nr_update.get(key, 0)
        if stepped.is_resized:
            warnings.warn(
                f"weights of {key}: have another shape than at the last step, {weights.shape}; moments, average and "
                "step count restart",
                stacklevel=2,
            )
            t = 0
        # thinc's RAdam counts its first step as the second
        stepped.stepper.step([gradient], t + 1 + self.use_radam, hyper, zero_grads=True, **clip)
        self.nr_update[key] = t + 1
        if self._stepped.get(key) is not stepped:
            self._keep(stepped, key)
        if average is not None:
            self._average(key, average, weights, t + 1)
        return weights, gradient

    def _now(self, key: tuple[int, str]) -> list[Any]:
        """The present values of the schedules. Those of thinc 8 are floats, which ``step_schedules`` changes."""
        return [
            value.attrs["rate"]
            if getattr(value, "_schedule", None) is _CONSTANT
            else value(self.step, key=key, last_score=self.last_score)
            if callable(value)
            else value
            for value in (self.learn_rate, self.b1, self.b2, self.b3, self.eps, self.L2, self.grad_clip)
        ]

    # Hyper-parameters are mostly the same for all parameters, and often for all steps.

    def _hyper_of(self, *given: Any) -> tuple[float, ...]:
        """The rule's hyper-parameters, from L2_is_weight_decay and the numbers in `CHECKS`, which are checked here."""
        if given != self._given:
            decay, *numbers = given
            checked = [check(name, value) for (name, check), value in zip(CHECKS.items(), numbers, strict=True)]
            learn_rate, lr_scale, *betas, eps, L2, _ = checked
            if not self.use_radam:
                learn_rate *= lr_scale
            elif decay:  # as in thinc, which scales only the decay of RAdam
                L2 *= lr_scale
            self._hyper = self._new_hyper(bool(decay), learn_rate, tuple(betas), eps, L2)
            self._given = given
        return self._hyper

    def _new_hyper(
        self, decay: bool, rate: float, betas: tuple[float, ...], eps: float, L2: float
    ) -> tuple[float, ...]:
        if betas[1] == 0 and self.kind is optimizers.Adam:
            raise ValueError("beta2: 0 makes thinc's Adam a plain SGD; use SGD, fastadam.SGD.v1, for that")
        if decay and not self._decay_first:
            # Shrinking by `kept` after a step equals shrinking before it, with a step that is shorter by `kept`.
            kept = 1.0 - rate * L2
            if kept <= 0:
                raise ValueError(f"L2: expected learn_rate * L2 below 1, got {rate * L2}: no weights would be left")
            rate, L2 = rate * kept, L2 / kept
        own = {"betas": betas, "eps": eps, "weight_decay": L2}
        hyper = self.kind.hyper_values(self._rule, self._fixed | own, rate)
        return self._replaced(hyper, "decoupled", decay)  # the frame decides this, not the class

    def _replaced(self, hyper: tuple[float, ...], name: str, value: float) -> tuple[float, ...]:
        """These hyper-parameters, with one of them replaced."""
        place = self._rule.hyper.index(name)
        return (*hyper[:place], float(value), *hyper[place + 1 :])

    def _clipped(
        self, hyper: tuple[float, ...], weights: np.ndarray, gradient: np.ndarray, L2: float, grad_clip: float
    ) -> tuple[dict[str, float], tuple[float, ...]]:
        """The arguments with which the step clips its gradient, and the hyper-parameters for it."""
        if self.L2_is_weight_decay or not L2:
            return {"max_norm_each": grad_clip}, hyper
        flat = (gradient + L2 * weights).ravel(order="K")  # the kernel adds both parts, each scaled by the factor
        factor = own_clip_factor(math.sqrt(flat.dot(flat)), grad_clip)
        decay = hyper[self._rule.hyper.index("weight_decay")] * factor
        return {"factor": factor}, self._replaced(hyper, "weight_decay", decay)

    # Steppers follow the dicts of thinc's optimizer, which a script may replace.

    def _holds(self, stepped: "_Stepped", key: tuple[int, str], weights: np.ndarray) -> bool:
        """Whether `stepped` is for these weights and for the present states."""
        first, second, third = stepped.states
        return (
            (stepped.weights is weights or is_same_memory(stepped.weights, weights))
            and self.mom1.get(key) is first
            and self.mom2.get(key) is second
            and self.mom3.get(key) is third
        )

    def _new_stepped(self, key: tuple[int, str], weights: np.ndarray) -> "_Stepped":
        need_cpu(f"weights of {key}", weights)
        checks.parameter(f"weights of {key}", weights)
        if weights.dtype not in (np.float32, np.float64):  # thinc computes norms in the gradient's dtype
            raise TypeError(
                f"weights of {key}: expected float32 or float64, got {weights.dtype}; use .astype('float32')"
            )
        held = [moments.get(key) for moments in (self.mom1, self.mom2, self.mom3)[: len(self._rule.states)]]
        is_resized = self._is_resized(key, weights, held)
        firsts = self.kind.initial(self._fixed, weights)
        states = [
            self._state(f"mom{k}[{key}]", None if is_resized else state, weights, firsts.get(own, 0.0))
            for k, (own, state) in enumerate(zip(self._rule.states, held, strict=True), 1)
        ]
        stepper = Stepper(self._rule, threads.default())
        stepper.lay([weights], [[state.reshape(weights.shape) for state in states]], [str(key)])
        return _Stepped(stepper, weights, [*states, *[None] * (3 - len(states))], is_resized)

    def _is_resized(self, key: tuple[int, str], weights: np.ndarray, held: list[Any]) -> bool:
        """Whether all present states belong to weights of another shape."""
        before = self._stepped.get(key)
        if before is not None and all(state is own for state, own in zip(held, before.states, strict=False)):
            return before.weights.shape != weights.shape
        sizes = {state.size if isinstance(state, np.ndarray) and state.ndim == 1 else None for state in held}
        if not sizes and key in (self.averages or {}):  # for a rule without states, the average shows the shape
            return bool(np.shape(self.averages[key]) != weights.shape)
        return len(sizes) == 1 and sizes.isdisjoint({None, weights.size})

    def _keep(self, stepped: "_Stepped", key: tuple[int, str]) -> None:
        """Keep `stepped` and its states. This happens after the step, so that a refused step leaves nothing."""
        self._stepped[key], stepped.is_resized = stepped, False
        for held, state in zip((self.mom1, self.mom2, self.mom3), stepped.states, strict=True):
            if state is not None:
                held[key] = state

    def _state(self, name: str, state: np.ndarray | None, weights: np.ndarray, first: Any) -> np.ndarray:
        """A state of these weights, flat as in thinc: the present one, checked, or a new one filled with `first`."""
        dtype = checks.computed_in(weights)
        if state is None:
            state = np.empty(weights.shape, dtype)
            state[...] = first
            return state.reshape(-1)
        if not isinstance(state, np.ndarray) or state.shape != (weights.size,) or state.dtype != dtype:
            raise ValueError(
                f"{name}: expected an array of {weights.size} numbers, {dtype}, as its weights need, got "
                f"{getattr(state, 'shape', type(state).__name__)}; delete it to start from zero"
            )
        checks.parameter(name, state)
        return state

    def _average_of(self, key: tuple[int, str], stepped: "_Stepped") -> np.ndarray | None:
        if self.averages is None:
            return None
        if self.kind.average:
            own = stepped.states[self._rule.states.index(self.kind.average)]
            return own.reshape(stepped.weights.shape)  # type: ignore[union-attr]
        average, weights = None if stepped.is_resized else self.averages.get(key), stepped.weights
        if average is None:
            return np.zeros(weights.shape, checks.computed_in(weights))
        if average is not stepped.average or not average.flags.writeable:
            checks.parameter(f"averages[{key}]", average)
            if average.shape != weights.shape:
                raise ValueError(
                    f"averages[{key}]: expected shape {weights.shape} like the weights, got {average.shape}; delete it "
                    "to start from zero"
                )
            stepped.average = average
        return average  # type: ignore[no-any-return]

    def _average(self, key: tuple[int, str], average: np.ndarray, weights: np.ndarray, t: int) -> None:
        """Average the weights after step `t`, unless the rule has done so."""
        if not self.kind.average:
            take_average(average, weights, t)
        self.averages[key] = average

    def _begin_anew(self) -> None:
        self._rule = self.kind.rule(self._fixed)
        self._stepped, self._given, self._hyper = {}, (), ()

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies: all attributes except the steppers, which the next steps make again."""
        return attributes_of(self, "_stepped", "_given", "_hyper", "_rule")

    def __setstate__(self, state: dict[str, Any]) -> None:
        give_attributes(self, state)
        for held in (self.mom1, self.mom2, self.mom3, self.averages or {}):
            make_writeable(held.values())
        self._begin_anew()


class _Stepped:
    """The stepper of one key, its weights and states, the checked average, and whether the weights were resized since
    the last step."""

    __slots__ = ("average", "is_resized", "states", "stepper", "weights")

    def __init__(
        self, stepper: Stepper, weights: np.ndarray, states: list[np.ndarray | None], is_resized: bool
    ) -> None:
        self.stepper, self.weights, self.states, self.is_resized = stepper, weights, states, is_resized
        self.average: Any = None


# ---------------------------------------------------------------- the functions that config files name

_FRAME = ("grad_clip", "L2_is_weight_decay", "use_averages")


def _factory(kind: type[Algorithm], doc: str, **fixed: Any) -> Callable[..., Optimizer]:
    """Make and register the function that takes thinc's arguments and the options of `kind`, and makes an optimizer."""
    by_name = in_frame(kind)
    frame = inspect.signature(Optimizer).parameters
    left_out = fixed.keys() | ({"L2_is_weight_decay"} if "L2" not in by_name else set())
    by_name |= {name: frame[name] for name in _FRAME if name not in left_out}
    first = by_name.pop("learn_rate")
    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in by_name.values()]
    signature = inspect.Signature([first, *others], return_annotation=Optimizer)

    def make(*args: Any, **named: Any) -> Optimizer:
        try:
            given = signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{kind.__name__}: {error}; it takes {', '.join(signature.parameters)}") from None
        given.apply_defaults()
        return Optimizer(kind, **given.arguments, **fixed)

    make.__name__ = make.__qualname__ = kind.__name__
    make.__doc__, make.__signature__ = doc, signature  # type: ignore[attr-defined]
    registry.optimizers.register(f"fastadam.{kind.__name__}.v1", func=make)
    return make


_ADAM = """``fastadam.Adam.v1``: the results, arguments and defaults of thinc's ``Adam.v1``.

    Parameters
    ----------
    learn_rate, L2, beta1, eps, grad_clip, L2_is_weight_decay, use_averages
        See the module.
    beta2 : float or schedule, default 0.999
        As in thinc, but not 0, which means SGD in thinc. Use `SGD` for that.
    amsgrad : bool, default False
        Divide by the square root of the largest second moment so far, as in `fastadam.Adam`.

    Notes
    -----
    The rule is `fastadam.Adam` with ``eps_hat=True``: eps is added before the bias correction.

    Examples
    --------
    >>> import numpy as np
    >>> optimizer = Adam(0.5, eps=0.0, grad_clip=0.0)
    >>> W, dW = np.ones(2, "float32"), np.array([2.0, -4.0], "float32")
    >>> W, dW = optimizer((1, "W"), W, dW)
    >>> W, dW
    (array([0.5, 1.5], dtype=float32), array([0., 0.], dtype=float32))
    """
_ADAMW = """``fastadam.AdamW.v1``: the results of `fastadam.AdamW`, and of torch's. ``L2`` is the ``weight_decay``.

    It differs from `Adam` (and thinc's) with ``L2_is_weight_decay``: eps is added after the bias correction, and the
    weights shrink before the step, not after it. Arguments are those of `Adam`, without ``L2_is_weight_decay``.
    """
_SGD = """``fastadam.SGD.v1``: the results of thinc's ``SGD.v1``. With a momentum, the rule of `fastadam.SGD`.

    Parameters
    ----------
    learn_rate, L2, grad_clip, L2_is_weight_decay, use_averages
        See the module. In thinc `learn_rate` has no default.
    momentum, dampening, nesterov
        As in `fastadam.SGD`.
    """
_RADAM = """``fastadam.RAdam.v1``: the results, arguments and defaults of thinc's ``RAdam.v1``.

    It differs from `fastadam.RAdam` (and torch's): the bias corrections count one step more, and ``lr_scale`` acts on
    the decay alone.
    """
_ASGD = """``fastadam.ASGD.v1``: the rule of `fastadam.ASGD`. Weights shrink before the step, not after it.

    ``optimizer.averages`` has the rule's own averages. Averaging begins after ``t0`` steps; until then they are copies
    of the weights.
    """
_SCHEDULE_FREE = """``fastadam.ScheduleFreeAdamW.v1``: the rule of `fastadam.ScheduleFreeAdamW`; ``L2`` is its decay.

    ``optimizer.averages`` has the rule's own averages: the weights to evaluate and to keep.
    """
_OTHER = "``fastadam.{0}.v1``: the rule of `fastadam.{0}` in thinc's frame (see the module), with its defaults: {1}."
#: the classes with special conventions here: their docstrings and fixed arguments
_OWN: dict[type[Algorithm], tuple[str, dict[str, Any]]] = {
    optimizers.Adam: (_ADAM, {"eps_hat": True}),
    optimizers.AdamW: (_ADAMW, {"L2_is_weight_decay": True, "decay_first": True}),
    optimizers.SGD: (_SGD, {}),
    optimizers.RAdam: (_RADAM, {}),
    optimizers.ASGD: (_ASGD, {}),
    optimizers.ScheduleFreeAdamW: (_SCHEDULE_FREE, {"L2_is_weight_decay": True}),
}


def _register(kind: type[Algorithm]) -> Callable[..., Optimizer]:
    defaults = ", ".join(f"{p.name}={p.default!r}" for p in in_frame(kind).values())
    doc, fixed = _OWN.get(kind, (_OTHER.format(kind.__name__, defaults), {}))
    return _factory(kind, doc, **fixed)


_FACTORIES = {name: _register(kind) for name, kind in optimizers.CLASSES.items()}
globals().update(_FACTORIES)
__all__ = ["Optimizer", *_FACTORIES]
