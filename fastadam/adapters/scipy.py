"""Every optimizer as a ``method`` for `scipy.optimize.minimize`, with bounds by projection.
Each class of fastadam is here under its name in lower case, such as ``adam``. `Method` makes one of any class.
"""

import inspect
import itertools
import math
import reprlib
import warnings
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    from scipy.optimize import Bounds, OptimizeResult, OptimizeWarning
except ImportError as error:
    raise ImportError("fastadam.adapters.scipy needs SciPy: pip install scipy") from error
from scipy.optimize._numdiff import approx_derivative  # the public approx_fprime would step over bounds

from ..base import Optimizer
from ..kernel import checks
from ..names import meant
from ..optimizers import CLASSES
from ..options import count, tolerance
from ..rule import signature_of

Vector = np.ndarray
#: the lower and the upper bounds of x
Box = tuple[Vector, Vector] | None
#: the status of a result: the numbers of SciPy's BFGS, and 99 as in SciPy's `minimize`
CONVERGED, OUT_OF_STEPS, NO_DIFFERENCES, NOT_FINITE, CALLED_OFF = 0, 1, 2, 3, 99
MAXITER, TOL = 10_000, 1e-5
#: if `fun` falls in this share of the steps, the rate is too small: with a good rate some steps overshoot
NEARLY_ALL = 0.95
#: the settings of an optimizer that `options` may have; x is one float64 array in memory, and `jac` gives gradients
_SETTINGS = ("backend", "n_threads")
_FLOAT64 = np.dtype(np.float64)
#: the step of the differences, relative to x: SciPy's default
_REL_STEP = np.finfo(np.float64).eps ** 0.5


@dataclass(frozen=True)
class Method:
    """An optimizer class as a ``method`` for `scipy.optimize.minimize`.

    ``minimize(fun, x0, args, jac=…, method=Method(fastadam.Adam), bounds=…, tol=…, callback=…, options={…})``.

    Parameters
    ----------
    optimizer : type
        A class of fastadam, or one made by `fastadam.optimizer`. Methods of the same class are equal, and can be
        pickled if the class can. All following parameters are arguments of `minimize`.
    fun, x0, args
        As in SciPy. The iterates are float64 for any dtype of x0. x0 is first clipped to the bounds.
    jac : True, callable, or None
        The gradient, of any real dtype and any type that `numpy.asarray` reads; it may be read-only. Without it,
        SciPy's forward differences within the bounds are used. They need ``x0.size`` more evaluations of `fun` for each
        iteration, and give about half the digits, so `tol` should not be too small. SciPy passes "2-point", "3-point"
        and "cs" as None.
    bounds : `scipy.optimize.Bounds`, or pairs (low, high) with None for no bound
        After each step x is clipped to the bounds. `fun` is never evaluated outside of them, nor are differences. If
        all elements have the same pair, the step itself clips, with the option ``bounds`` of the class.
    callback : callable
        Called after each iteration as ``callback(x)``. If its only parameter is named ``intermediate_result``, it gets
        an OptimizeResult with ``x``, ``fun``, ``jac``, ``nit`` and ``optimality``. It may keep and change its argument.
        StopIteration ends the run.
    hess, hessp
        Not used. A RuntimeWarning says so, as in SciPy's methods that do not use them.
    constraints
        Refused, since ignoring them would give another minimum.
    tol : float, default 1e-5
        The run has converged when no element of the projected gradient is larger. The projected gradient is the
        gradient with each element limited to the distance to the bound in the direction of descent. With 0 the gradient
        must be exactly zero.
    maxiter : int, default 10,000
        The greatest number of steps. One step of Adam changes an element by about lr, so a point further away than
        ``maxiter * lr`` cannot be reached. Passed in `options`. None means the default, also for `tol`.
    disp : bool or number, default False
        If True or above 0, print the message at the end. Passed in `options`.
    finite_diff_rel_step : float or array, optional
        Without `jac`, the step of the differences is ``finite_diff_rel_step * sign(x) * max(1, abs(x))``, in the other
        direction if a bound is in its way. The default is the square root of float64's eps, 1.5e-8. A `fun` that is
        rounded, measured or computed in float32 needs a larger step, such as 1e-3. Passed in `options`.
    options : dict
        ``tol``, ``maxiter``, ``disp`` and ``finite_diff_rel_step``; every option of the class (``lr``, …) with its
        default, schedules included; ``n_threads`` and ``backend``. Others cause an OptimizeWarning with a suggestion.
        ``eps`` is the option of the class. Without `jac` it is refused, because SciPy's methods take it as the step of
        the differences.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``status``, ``success`` and ``message`` say why the run stopped. 0, the only success: converged. 1: maxiter; the
        message says if the rate was too small. 2: all finite differences at x0 were exactly 0, which does not show a
        minimum. 3: x, `fun` or the gradient was not finite. 99: the callback raised StopIteration. ``x`` is the point
        that converged. Otherwise it is the iterate with the lowest `fun` among those with finite `fun` and gradient,
        since these methods do not descend at every step. The notes below say what holds for averages. ``fun``, ``jac``
        and ``optimality`` (which is compared with `tol`) are those at ``x``. ``nit``, ``nfev`` and ``njev`` are the
        numbers of steps and evaluations. As in SciPy, ``jac`` is NaN where it was not computed: without `jac`, for
        elements that the bounds fix. If they fix all elements, only `fun` is evaluated, once.

    Raises
    ------
    TypeError, ValueError
        For arguments and options that are not as described, before `fun` is called. Also for results of `fun` and `jac`
        that do not fit.

    Notes
    -----
    If the class keeps an average of its iterates, the average is the result, clipped to the bounds: the state ``"x"``
    of `ScheduleFreeAdamW`, and ``"ax"`` of `ASGD`. The average is evaluated when the iterate has converged. It has
    converged if its own gradient is as small. It is evaluated once more at the end with status 1 or 99. A callback gets
    the iterates. Use `ScheduleFreeAdamW` with the same pair of bounds for all elements. Other bounds hold only for the
    iterates, and the average is clipped at the end.

    The iterates have the same bits as those of ``opt = cls(x)`` and ``opt.step(jac(x))``. Weight decay and similar
    options change the steps, and so the result, but neither `fun` nor the test of convergence.

    Examples
    --------
    >>> import fastadam
    >>> from fastadam.adapters.scipy import Method
    >>> from scipy.optimize import minimize, rosen, rosen_der
    >>> options = {"lr": 0.02, "maxiter": 5000}
    >>> result = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=Method(fastadam.Adam), tol=1e-6, options=options)
    >>> result.success, result.x.round(4).tolist()
    (True, [1.0, 1.0])
    >>> print(result.message)
    Converged: no element of the projected gradient is larger than tol = 1e-06.
    """

    optimizer: type[Optimizer]

    def __post_init__(self) -> None:
        cls = self.optimizer
        if not (isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer):
            raise TypeError(f"optimizer: expected a class such as fastadam.Adam, got {cls!r}")

    def __call__(
        self,
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Callable[..., Any] | None = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        *,
        maxiter: float | None = MAXITER,
        tol: float | None = TOL,
        disp: float | None = False,
        finite_diff_rel_step: Any = None,
        **options: Any,
    ) -> OptimizeResult:
        """Minimize `fun`; see the class."""
        self._refuse(constraints, jac, options)
        maxiter = MAXITER if maxiter is None else count("maxiter", maxiter)
        tol = TOL if tol is None else tolerance("tol", tol)
        is_loud = _is_loud(disp)
        x = _start(x0)
        box = _box(bounds, x.size)
        _move_into(x, box)
        objective = _Objective(fun, jac, args, x.size, box, finite_diff_rel_step)
        tell = _teller(callback)
        known = [name for name, option in self.optimizer.options.items() if option.init and name not in _OF_STATES]
        known += _SETTINGS
        given = {name: options.pop(name) for name in known if name in options}
        pair = _pair(box)
        optimizer = self.optimizer(x, **given, bounds=pair)
        self._warn(hess, hessp, [*options], [*known, *_OF_A_RUN])
        objective.average = optimizer.state[optimizer.average][0] if optimizer.average else None
        objective.keeps_jac = callback is not None or objective.average is not None
        result = _descend(x, objective, optimizer, box if pair is None else None, tell, maxiter, tol)
        if is_loud:
            print(result.message)
        return result

    def _refuse(self, constraints: Any, jac: Any, options: dict[str, Any]) -> None:
        """Refuse arguments that would give another minimum, and arguments with two meanings."""
        if constraints is not None and not (isinstance(constraints, Sized) and not len(constraints)):
            own = self.optimizer.__name__
            raise ValueError(f"constraints: {own} cannot use it; leave it out, or use SciPy's method='SLSQP'")
        if jac is None and "eps" in options:
            raise ValueError(
                "eps: without jac it may be SciPy's step of the finite differences or the optimizer's ε; for the step "
                "pass finite_diff_rel_step, which is relative to x; for ε pass jac, too"
            )
        if options.get("maximize"):
            raise ValueError("maximize: minimize() only minimizes; leave it out, and pass the negative of fun")

    def _warn(self, hess: Any, hessp: Any, unknown: list[str], known: list[str]) -> None:
        """Warn of unused arguments, in SciPy's words, at the line that called SciPy's `minimize`."""
        for name, value, what in (("hess", hess, "Hessian"), ("hessp", hessp, "Hessian-vector product")):
            if value is not None:
                text = f"Method {self.optimizer.__name__} does not use {what} information ({name})."
                warnings.warn(text, RuntimeWarning, stacklevel=4)
        if unknown:
            others = [own for own in known if own != "tol"]  # ftol and xtol mean other tolerances
            guesses = {name: "tol" if name == "gtol" else meant(name, others) for name in unknown}
            told = [f"{name} (did you mean {guess}?)" if guess else name for name, guess in guesses.items()]
            warnings.warn(f"Unknown solver options: {', '.join(told)}", OptimizeWarning, stacklevel=4)


#: the options that determine how states are stored; they are not offered, since x is float64, and so are its states
_OF_STATES = {name for name, option in Optimizer.options.items() if option.fixed}
#: the options of the run, which no class has
_OF_A_RUN = tuple(inspect.getfullargspec(Method.__call__).kwonlyargs)
#: name in lower case -> the method of the class of that name
METHODS = {name.lower(): Method(cls) for name, cls in CLASSES.items()}


def __getattr__(name: str) -> Method:
    """A method of `METHODS` as an attribute of this module."""
    try:
        return METHODS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *METHODS})


def _descend(
    x: Vector, objective: "_Objective", optimizer: Optimizer, box: Box, tell: Any, maxiter: int, tol: float
) -> OptimizeResult:
    """Step x until something ends the run. After each step clip x to the box, if there is one."""
    best, falls = _Point(x.size), 0
    for nit in itertools.count():
        y, gradient, optimality = objective.at(x)
        is_finite = math.isfinite(optimality)
        if nit == 0 or (is_finite and y <= best.fun):
            falls += y < best.fun
            best.take(x, y, gradient, optimality)
        if not is_finite:
            status = NOT_FINITE
            break
        if nit and tell(x, y, objective.computed(gradient), optimality, nit):
            status = CALLED_OFF
            break
        if optimality <= tol and (end := objective.end(x, y, gradient, optimality))[-1] <= tol:
            status = NO_DIFFERENCES if objective.tells_nothing(gradient) else CONVERGED
            best.take(*end)
            break
        if nit == maxiter:
            status = OUT_OF_STEPS
            break
        optimizer.step(gradient)
        _move_into(x, box)
    if status in (OUT_OF_STEPS, CALLED_OFF):
        best.take(*objective.end(best.x, best.fun, best.jac, best.optimality))
    jac = objective.computed(best.jac)
    result = OptimizeResult(x=best.x, fun=best.fun, jac=jac, nit=nit, optimality=best.optimality)
    result.update(nfev=objective.nfev, njev=objective.njev, status=status, success=status == CONVERGED)
    result.message = _message(result, x, y, tol, falls, optimizer.lr)
    return result


class _Point:
    """A point that is kept during the run: copies, in arrays that are made once."""

    def __init__(self, n: int) -> None:
        self.x, self.jac = np.empty(n), np.empty(n)
        self.fun = self.optimality = math.nan

    def take(self, x: Vector, fun: float, jac: Vector, optimality: float) -> None:
        """Become this point."""
        self.x[:], self.jac[:], self.fun, self.optimality = x, jac, fun, optimality


class _Objective:
    """The user's function and gradient. Their arguments are copies, their results are checked, and calls are counted.

    All of this happens at each iteration. So the usual cases are tested first, and nothing unneeded is computed.
    """

    def __init__(self, fun: Any, jac: Any, args: Any, n: int, box: Box, rel_step: Any) -> None:
        if not callable(fun):
            raise TypeError(f"fun: expected a function, got {fun!r} of type {type(fun).__name__}")
        if not (jac is None or callable(jac)):
            raise TypeError(f"jac: expected a function or None, and from minimize() also True, got {jac!r}")
        self.fun, self.jac, self.box = fun, jac, box
        self.args = args if isinstance(args, tuple) else (args,)
        self.nfev = self.njev = 0
        self.sizes = np.zeros(n + 1)  # absolute values of the elements; the last stays 0
        self.sizes_of_all = self.sizes[:-1]
        self.rel_step = _rel_step(rel_step, n)
        self.low, self.high = (np.full(n, -np.inf), np.full(n, np.inf)) if box is None else box
        self.free = self.low < self.high
        self.is_fixed = not self.free.any()
        self.average: Vector | None = None  # the optimizer's average, if it keeps one
        self.keeps_jac = False  # whether a gradient must outlive the next call

    def at(self, x: Vector) -> tuple[float, Vector, float]:
        """The value at x, the gradient, and the largest element of the projected gradient.

        After a result that is not finite, nothing more is evaluated, and NaN stands for it. The gradient may be the
        array that `jac` returned, which is valid until the next call of a function, unless it has to be kept.
        """
        fun = self._value(x) if math.isfinite(self._largest(x)) else math.nan
        if not math.isfinite(fun):
            return fun, np.full(x.shape, np.nan), math.nan
        if self.is_fixed:
            return fun, np.full(x.shape, np.nan), 0.0
        jac = self._differences(x, fun) if self.jac is None else self._gradient(x)
        projected = jac if self.box is None else np.clip(jac, x - self.box[1], x - self.box[0])
        return fun, jac, self._largest(projected)

    def end(self, x: Vector, fun: float, jac: Vector, optimality: float) -> tuple[Vector, float, Vector, float]:
        """The point that a run ends with: the average, if there is one and it is finite there, else the given point."""
        if self.average is not None:
            average = np.clip(self.average, self.low, self.high)
            found = (x, fun, jac, optimality) if np.array_equal(average, x) else (average, *self.at(average))
            if math.isfinite(found[-1]):
                return found
        return x, fun, jac, optimality

    def computed(self, jac: Vector) -> Vector:
        """The gradient as SciPy reports it: with NaN where no difference was computed."""
        return np.where(self.free, jac, np.nan) if self.jac is None else jac

    def _largest(self, array: Vector) -> float:
        """The largest absolute value, or NaN if there is a NaN. 0 for no elements."""
        np.abs(array, self.sizes_of_all)
        return self.sizes.item(self.sizes.argmax())  # takes a third of the time of max()

    def _value(self, x: Vector) -> float:
        self.nfev += 1
        value = self.fun(x.copy(), *self.args)
        if isinstance(value, float):  # also a float64 of NumPy
            return float(value)
        if isinstance(value, tuple):
            raise TypeError("fun: expected one number, got a tuple; for fun(x) -> (value, gradient) pass jac=True")
        array = _real("fun", value)
        if array.size != 1:
            raise ValueError(f"fun: expected one number, got shape {array.shape}")
        return float(array.item())

    def _gradient(self, x: Vector) -> Vector:
        self.njev += 1
        value = self.jac(x.copy(), *self.args)
        if type(value) is np.ndarray and value.dtype is _FLOAT64 and value.shape == x.shape:
            return value.copy() if self.keeps_jac else value
        gradient = np.atleast_1d(_real("jac", value))
        if gradient.shape != x.shape:
            raise ValueError(f"jac: expected shape {x.shape} like x, got {gradient.shape}")
        return gradient

    def tells_nothing(self, gradient: Vector) -> bool:
        """Whether these are the first differences, and all are 0 though x is free to move."""
        return self.jac is None and self.njev == 1 and not gradient.any()

    def _differences(self, x: Vector, fun: float) -> Vector:
        """Forward differences. They are zero for elements that the bounds fix, where a difference has no room."""
        self.njev += 1
        free, gradient = self.free, np.zeros_like(x)

        def value(part: Vector) -> float:
            whole = x.copy()
            whole[free] = part
            return self._value(whole)

        sizes = self.rel_step * np.maximum(1.0, np.abs(x))  # as SciPy documents it for `minimize`
        steps, bounds = np.where(x < 0, -sizes, sizes)[free], (self.low[free], self.high[free])
        gradient[free] = approx_derivative(value, x[free], method="2-point", abs_step=steps, f0=fun, bounds=bounds)
        return gradient


def _real(name: str, value: Any) -> Vector:
    """A float64 copy of real numbers, since the function that returned the array may use it again."""
    return checks.real(name, value).astype(np.float64)


def _pair(box: Box) -> tuple[float, float] | None:
    """The bounds that all elements share, if they do. The step itself clips to these."""
    if box is None or not all(side.size and (side == side[0]).all() for side in box):
        return None
    return box[0].item(0), box[1].item(0)


def _move_into(x: Vector, box: Box) -> None:
    """Clip x to its bounds, if there are any."""
    if box is not None:
        np.clip(x, *box, out=x)


def _start(x0: Any) -> Vector:
    x = np.atleast_1d(_real("x0", x0))
    if x.ndim != 1:
        raise ValueError(f"x0: expected one dimension, got shape {x.shape}; pass x0.ravel(), and reshape x in fun")
    if not np.isfinite(x).all():
        raise ValueError(f"x0: expected finite numbers, got {x[~np.isfinite(x)][0]} at {np.argmin(np.isfinite(x))}")
    return x


def _rel_step(value: Any, n: int) -> Vector:
    """The step of the differences along each element, relative to its size."""
    step = _real("finite_diff_rel_step", _REL_STEP if value is None else value)
    if step.shape not in ((), (n,)) or not ((step > 0) & np.isfinite(step)).all():
        allowed = f"a number > 0 and finite, or one for each of the {n} elements of x0"
        raise ValueError(f"finite_diff_rel_step: expected {allowed}, got {reprlib.repr(value)}")
    return step


#: the check of `disp` as a number
_loudness = checks.number("or True or False", math.isfinite)


def _is_loud(disp: Any) -> bool:
    """Whether to print the message: a flag or, as in SciPy, a number above 0."""
    plain = checks.scalar(disp)
    return bool(plain) if plain is None or isinstance(plain, bool) else _loudness("disp", disp) > 0


def _box(bounds: Any, n: int) -> Box:
    """The lower and the upper bounds of x, or None without bounds. As in SciPy, one pair stands for all elements."""
    if bounds is None:
        return None
    try:
        if isinstance(bounds, Bounds):
            ends = [bounds.lb, bounds.ub]
        else:
            sides = zip((-np.inf, np.inf), zip(*bounds, strict=True), strict=True)
            ends = [[none if end is None else end for end in side] for none, side in sides]
        low, high = (np.broadcast_to(np.asarray(end, np.float64), n) for end in ends)
    except (TypeError, ValueError):
        allowed = f"Bounds, or a pair (low, high) for each of the {n} elements of x0"
        raise ValueError(f"bounds: expected {allowed}, got {reprlib.repr(bounds)}") from None
    fits = (low <= high) & (low < np.inf) & (high > -np.inf)  # False for NaN, too
    if not fits.all():
        k = int(np.argmin(fits))
        raise ValueError(f"bounds: expected low <= high, with numbers between, got ({low[k]}, {high[k]}) at {k}")
    return low, high


def _teller(callback: Any) -> Callable[..., bool]:
    """A function that passes a point to the callback, by its signature as in SciPy, and returns whether to stop."""
    if callback is None:
        return lambda *_: False
    if not callable(callback):
        raise TypeError(f"callback: expected a function, got {callback!r} of type {type(callback).__name__}")
    try:
        takes = set(signature_of(callback).parameters)
    except ValueError:  # a builtin without a signature
        takes = set()

    def tell(x: Vector, fun: float, jac: Vector, optimality: float, nit: int) -> bool:
        try:
            if takes == {"intermediate_result"}:
                point = OptimizeResult(x=x.copy(), fun=fun, jac=jac.copy(), nit=nit, optimality=optimality)
                callback(intermediate_result=point)
            else:
                callback(x.copy())
        except StopIteration:
            return True
        return False

    return tell


def _message(result: OptimizeResult, x: Vector, y: float, tol: float, falls: int, lr: Any) -> str:
    """The message: why the run stopped at x, where `fun` is y, and what that means for the result and the rate."""
    if result.status == CONVERGED and not result.njev:
        return "All independent variables were fixed by bounds."  # SciPy's words
    if result.status == CONVERGED:
        return f"Converged: no element of the projected gradient is larger than tol = {tol:g}."
    if result.status == OUT_OF_STEPS:
        size = f"largest element of the projected gradient is {result.optimality:.3g}, tol = {tol:g}"
        text = f"Stopped after maxiter = {result.nit} steps: at x the {size}."
        if falls >= NEARLY_ALL * result.nit > 0:
            way_out = f"raise lr, which is {checks.shown(lr)}, or maxiter"
            text += f" `fun` fell at {falls} of them: the rate is too small; {way_out}."
        return text
    if result.status == NO_DIFFERENCES:
        why = "`fun` does not depend on x there, or the step is too small for it to change"
        return f"Stopped at x0: all finite differences are 0; {why}: pass a larger finite_diff_rel_step, or jac."
    if result.status == CALLED_OFF:
        return "`callback` raised `StopIteration`."
    what = "x" if not np.isfinite(x).all() else "the gradient" if math.isfinite(y) else "fun"
    point = "the best point before" if result.nit else "x0"
    return f"Stopped: {what} is not finite after {result.nit} steps; x is {point}."
