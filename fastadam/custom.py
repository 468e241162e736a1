"""`optimizer` makes a class from a user's own rule: two scalar functions, written like those of `fastadam.rules`.
Numba compiles them for the same plans, tiles and threads as the built-in rules. Without Numba, NumPy runs them.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import options
from .base import Optimizer
from .kernel import backends, literals
from .kernel.checks import counted, scalar, shown
from .options import option, setting
from .rule import OF_THE_STEP, Rule, arguments, finish_scalars, prepare_scalars

#: the options that every rule has
_SHARED = {*Optimizer.options, "weight_decay"}


def optimizer(
    update: Callable[..., Any],
    scalars: Callable[..., Any],
    states: Sequence[str],
    *,
    lr: float,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    non_negative: Sequence[str] = (),
    **defaults: float,
) -> type[Optimizer]:
    """Make an optimizer class from your own rule.

    Parameters
    ----------
    update : function
        The step of one element: ``update(p, g, *states, *scalars) -> (p, *states)``. It has no loop and no dtype. It
        may use NumPy's functions, as `fastadam.rules` does, but no sum or norm, since it sees one element. Every number
        in it (``0.9``, ``2``, a default, a global ``BETA``, ``numpy.pi``) is rounded to the parameter's dtype, or to
        float32 for 16 bits. A global keeps the value that it has when the class is made. Weight decay and ``maximize``
        are applied before `update`. On backend "numpy" its arguments are arrays that it cannot write to.
    scalars : function
        The numbers that all elements of step t = 1.0, 2.0, … share: ``scalars(t, lr, …) -> tuple``, in float64, in the
        order of the last arguments of `update`. The arguments after t are the hyper-parameters.
    states : sequence of str
        The arguments of `update` between g and the scalars. States start at zero.
    lr, weight_decay
        The default learning rate and weight decay.
    decoupled_weight_decay : bool, default False
        Multiply the parameters by ``1 - lr * weight_decay`` instead of adding the decay to the gradient.
    non_negative : sequence of str, default ()
        The states that are never below zero, such as averages of squares. Only ``state_dtype="int8"`` uses this: the
        codes for such states reach smaller numbers, and never round a number above zero to zero. Name every state that
        `update` divides by: if it were rounded to zero, the step would be huge. A value below zero is stored as zero.
    **defaults : float
        The default of every other hyper-parameter of `scalars`: a finite number, True or False. The class accepts any
        finite number, or any truth value, for it; ranges of the built-in optimizers do not apply.

    Returns
    -------
    type
        A class like `fastadam.Adam`: ``cls(params, *, lr=…, weight_decay=…, maximize=False, …,
        backend="numba", **settings)``. `backend` is "numba" or "numpy". Both give the same bits, except for functions
        that the two libraries compute differently: ``exp``, ``log``, ``tanh``, ``sin``, ``power`` and similar ones.

    Raises
    ------
    TypeError, ValueError
        For functions whose arguments or results do not fit together, for an update that mixes elements, and for
        ``x ** y`` other than ``x ** 2`` (with its line). They are raised before anything is compiled.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> def sgd(p, g, lr):
    ...     return (p - lr * g,)
    >>> SGD = fastadam.optimizer(sgd, lambda t, lr: (lr,), (), lr=0.1)
    >>> x = np.array([1.0, 2.0])
    >>> SGD(x, backend="numpy").step(np.array([1.0, -1.0]))
    >>> x
    array([0.9, 2.1])
    """
    rule = _rule(update, scalars, states, non_negative)
    decoupled = options.flag("decoupled_weight_decay", decoupled_weight_decay)
    declared = {
        "lr": option(default=lr, check=options.rate_or_schedule, kw_only=True),
        "weight_decay": option(default=weight_decay, check=options.non_negative, kw_only=True),
    }
    for name, value in defaults.items():
        check = options.flag if isinstance(scalar(value), bool) else options.finite
        declared[name] = option(default=value, check=check, kw_only=True)
    for name, own in declared.items():
        own.default = own.check(name, own.default)
    _check(rule, {name: own.default for name, own in declared.items()})
    members = {
        "__doc__": inspect.getdoc(update) or f"The optimizer of the rule {rule.name!r}.",
        "__module__": update.__module__,
        "backend": setting(default="numba", check=backends.check, kw_only=True),
        "rules": (rule.name,),
        "constants": {"decoupled": decoupled},
        "rule": classmethod(lambda cls, values: rule),
    }
    return type(rule.name, (Optimizer,), members | declared)


def _rule(update: Any, scalars: Any, states: Any, non_negative: Any) -> Rule:
    """The rule that these functions make. Refuses what is not a function or a list of names."""
    for name, function in (("update", update), ("scalars", scalars)):
        if not inspect.isfunction(function):  # Numba compiles only functions with Python source
            raise TypeError(f"{name}: expected a Python function, got {shown(function)}")
    for name, given in (("states", states), ("non_negative", non_negative)):
        if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(s, str) for s in given):
            raise TypeError(f"{name}: expected a list of names, such as ['m', 'v'], got {shown(given)}")
    for unknown in set(non_negative) - set(states):
        raise ValueError(f"non_negative: expected names of states, of {list(states)}, got {unknown!r}")
    return Rule(update, scalars, tuple(states), tuple(non_negative))


def _check(rule: Rule, values: dict[str, Any]) -> None:
    """Refuse functions whose arguments and results do not fit together, before anything is compiled."""
    _check_arguments(rule)
    _check_names(rule, values)
    scalars = _check_scalars(rule, values)
    _check_results(rule, scalars)
    _check_numbers(rule, scalars)
    _check_elements(rule, scalars)


def _check_arguments(rule: Rule) -> None:
    name, taken = rule.name, arguments(rule.update)
    if arguments(rule.scalars)[:1] != ("t",):
        raise TypeError(f"scalars of {name!r}: expected t as its first argument, got {arguments(rule.scalars)}")
    if len(taken) < 2 or taken[2 : 2 + len(rule.states)] != rule.states:
        raise TypeError(f"{name!r}: expected the arguments p, g, {', '.join(rule.states)}, then scalars; got {taken}")


def _check_names(rule: Rule, values: dict[str, Any]) -> None:
    name, own = rule.name, arguments(rule.scalars)[1:]
    shared = {*arguments(prepare_scalars), *arguments(finish_scalars), *OF_THE_STEP}
    for hyper in values.keys() - _SHARED:
        is_taken = hasattr(Optimizer, hyper) or hyper in shared
        if is_taken or hyper.startswith("_"):
            raise ValueError(f"{hyper}: means something else in an optimizer; give this hyper-parameter another name")
    for state in {"params", "master"} & set(rule.states):
        raise ValueError(f"{name!r}: {state!r} means another array in checkpoints; give this state another name")
    for missing in set(own) - values.keys():
        raise TypeError(f"scalars of {name!r}: its argument {missing!r} has no default; pass {missing}=…")
    for unused in values.keys() - _SHARED - {*own}:
        raise TypeError(f"{unused}: not an argument of the scalars of {name!r}, which are {own}")


def _check_scalars(rule: Rule, values: dict[str, Any]) -> tuple[float, ...]:
    """The scalars of step 1."""
    name, own = rule.name, arguments(rule.scalars)[1:]
    rate = options.rate_at(values["lr"], 1)
    scalars = rule.scalars(1.0, *((values | {"lr": rate})[argument] for argument in own))
    expected = len(arguments(rule.update)) - 2 - len(rule.states)
    if not isinstance(scalars, tuple) or len(scalars) != expected or not all(_is_number(s, ()) for s in scalars):
        came = shown(scalars)
        raise TypeError(
            f"scalars of {name!r}: expected a tuple of {counted(expected, 'number')}, as {name!r} takes, got {came}"
        )
    return scalars


def _check_results(rule: Rule, scalars: tuple[float, ...]) -> None:
    name, result = rule.name, _of_one(rule, rule.update, scalars)
    if not isinstance(result, tuple) or len(result) != 1 + len(rule.states):
        came = counted(len(result), "value") if isinstance(result, tuple) else type(result).__name__
        names = ", ".join(("p", *rule.states))
        raise TypeError(f"{name!r}: expected it to return a tuple of {1 + len(rule.states)}, ({names}), got {came}")
    for place, value in zip(("p", *rule.states), result, strict=True):
        if not _is_number(value, (), (1,)):
            raise TypeError(f"{name!r}: expected it to return one real number for {place}, got {shown(value)}")


def _of_one(rule: Rule, update: Callable[..., Any], scalars: tuple[float, ...]) -> Any:
    """The results for one element."""
    one = np.ones(1)
    with np.errstate(all="ignore"):
        return update(one, one, *(np.zeros(1) for _ in rule.states), *map(np.float64, scalars))


def _check_numbers(rule: Rule, scalars: tuple[float, ...]) -> None:
    update = literals.typed(rule.update, np.float64)
    try:
        _of_one(rule, update, scalars)
    except (TypeError, IndexError) as error:
        raise TypeError(
            f"{rule.name!r}: its numbers are of the parameter's dtype, but one of them must be whole: {error}; only "
            "an index or an argument of range that is written there remains whole"
        ) from error


def _check_elements(rule: Rule, scalars: tuple[float, ...]) -> None:
    """Refuse an update that mixes elements, by a sum for example: it gets the elements in parts, or one by one."""
    given = np.random.default_rng(0).lognormal(sigma=2.0, size=(2 + len(rule.states), 5))

    def stepped(*places: int) -> np.ndarray:
        arrays = given[:, places].copy()
        results = rule.update(*arrays, *map(np.float64, scalars))
        return np.array([np.broadcast_to(result, len(places)) for result in results])

    def same(one: np.ndarray, other: np.ndarray) -> bool:  # NumPy's rounding may depend on the length of an array
        return np.allclose(one, other, rtol=1e-9, atol=0, equal_nan=True)

    try:
        with np.errstate(all="ignore"):
            together, again = stepped(0, 1, 2, 3, 4), stepped(0, 1, 2, 3, 4)
            alone = np.concatenate([stepped(place) for place in range(5)], axis=1)
    except Exception:  # proves nothing: `if g > 0` fails on arrays, but works under Numba
        return
    if same(together, again) and not same(together, alone):  # `again` excludes random numbers
        raise ValueError(
            f"{rule.name!r}: expected what it returns for an element to depend on that element alone, but it changes "
            "with the others, as by a sum, mean or norm; scale the gradients before the step, or clip their norm by "
            "step(…, max_norm=…)"
        )


def _is_number(value: Any, *shapes: tuple[int, ...]) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "biuf" and array.shape in shapes
