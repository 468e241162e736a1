"""Every optimizer as a ``method`` of `scipy.optimize.minimize`, with bounds by projection.
Each of fastadam's classes is there by its name in small letters, as ``adam``; `Method` makes one of any class.
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
    raise ImportError("fastadam.adapters.scipy needs SciPy: pip install 'fastadam[scipy]'") from error
from scipy.optimize._numdiff import approx_derivative  # the public approx_fprime would step beyond bounds

from ..base import Optimizer
from ..kernel import checks
from ..names import meant
from ..optimizers import CLASSES
from ..options import count, tolerance
from ..rule import signature_of

Vector = np.ndarray
#: the lowest and the highest x
Box = tuple[Vector, Vector] | None
#: how a run ended: the numbers of SciPy's BFGS, and 99 as its `minimize` has it
CONVERGED, OUT_OF_STEPS, NO_DIFFERENCES, NOT_FINITE, CALLED_OFF = 0, 1, 2, 3, 99
MAXITER, TOL = 10_000, 1e-5
#: where `fun` falls at this part of the steps, the rate is too small: a larger one makes some of them overshoot
NEARLY_ALL = 0.95
#: settings that mean something here: x is one float64 array in memory, its gradients come from `jac`
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
        A class of fastadam's, or one that `fastadam.optimizer` made. Methods of one class are equal, and can be pickled
        where the class can. What follows are the arguments of `minimize`.
    fun, x0, args
        As SciPy defines them. The iterates are float64, whatever x0's dtype; x0 is first moved into the bounds.
    jac : True, callable, or None
        The gradient, of any real dtype and of any type that `numpy.asarray` reads, read-only arrays included. Without
        one, SciPy's forward differences within the bounds: ``x0.size`` more evaluations of `fun` an iteration, and
        about half the digits, so `tol` should not be too small. SciPy hands "2-point", "3-point" and "cs" on as None.
    bounds : `scipy.optimize.Bounds`, or pairs (low, high) with None for no bound
        After each step x is clipped to them; `fun` is never evaluated outside, by differences neither. Where all
        elements have one pair, the step itself clips, by the option ``bounds`` of the class.
    callback : callable
        After each iteration, ``callback(x)``, or, where its one argument has that name,
        ``callback(intermediate_result)``, an OptimizeResult with ``x``, ``fun``, ``jac``, ``nit`` and ``optimality``.
        It may keep and change what it gets; StopIteration ends the run.
    hess, hessp
        Not used: a RuntimeWarning says so, as of SciPy's methods that use none.
    constraints
        Refused: without them the minimum is another one.
    tol : float, default 1e-5
        Converged where no element of the projected gradient is larger: the gradient, but each element no longer than
        the way to the bound that its descent leads to. 0 asks for a gradient of zeros.
    maxiter : int, default 10,000
        The most steps. One of Adam changes an element by about lr: what is further away than ``maxiter * lr`` is out of
        reach. An option. For `tol`, too, None is the default.
    disp : bool or number, default False
        Print the message at the end, if it is True or above 0. An option.
    finite_diff_rel_step : float or array, optional
        Without `jac`, the step of the differences is ``finite_diff_rel_step * sign(x) * max(1, abs(x))``, in the other
        direction where a bound is in its way. The default is the root of float64's eps, 1.5e-8. A `fun` that is
        rounded, measured or computed in float32 needs a larger one, 1e-3 for instance. An option.
    options : dict
        ``tol``, ``maxiter``, ``disp`` and ``finite_diff_rel_step``; every option of the class (``lr``, …), with its
        default, schedules included; ``n_threads`` and ``backend``. For others an OptimizeWarning says that they are not
        known, and what may have been meant. ``eps`` is the class's; without `jac`, where SciPy means the step of the
        differences by it, it is refused.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``status``, ``success`` and ``message`` tell why it stopped: 0, a success: converged; 1: maxiter, and the
        message says so where the rate was too small; 2: at x0 all finite differences were exactly 0, which is no sign
        of a minimum; 3: x, `fun` or the gradient was not finite; 99: the callback raised StopIteration. ``x`` is the
        point that converged, otherwise, since these methods do not go down at every step, that of the lowest `fun`
        among all iterates where it and the gradient were finite; but see the notes on averages. ``fun``, ``jac`` and
        ``optimality`` (what is compared with `tol`) are those at ``x``. ``nit``, ``nfev`` and ``njev`` count steps and
        evaluations.

    Raises
    ------
    TypeError, ValueError
        For arguments and options that are not as described, before `fun` is called; for what `fun` and `jac` return.

    Notes
    -----
    Where the class keeps an average of its iterates, that is the result: the state ``"x"`` of `ScheduleFreeAdamW`, and
    ``"ax"`` of `ASGD`, clipped to the bounds. It is evaluated where the iterate has converged, and has converged itself
    if its own gradient is as small; and once more at the end, with status 1 or 99. A callback gets the iterates. With
    `ScheduleFreeAdamW` give bounds that are one pair: of others only the iterates are kept within, and its average is
    clipped at the end.

    The iterates are those of ``opt = cls(x)`` and ``opt.step(jac(x))``, to the bit. Weight decay and its like change
    the steps, hence where they lead, but neither `fun` nor the test of convergence.

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
        """Minimize; see the class."""
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
        """Refuse what leads to another minimum, and what may mean two things."""
        if constraints is not None and not (isinstance(constraints, Sized) and not len(constraints)):
            own = self.optimizer.__name__
            raise ValueError(f"constraints: {own} cannot use it; leave it out, or take SciPy's method='SLSQP'")
        if jac is None and "eps" in options:
            raise ValueError(
                "eps: without jac it may be SciPy's step of the finite differences or the optimizer's ε; for the step "
                "pass finite_diff_rel_step, which is relative to x; for ε pass jac, too"
            )
        if options.get("maximize"):
            raise ValueError("maximize: minimize() goes down; leave it out, and pass the negative of fun")

    def _warn(self, hess: Any, hessp: Any, unknown: list[str], known: list[str]) -> None:
        """Say what is not used, in SciPy's words, and of the line that called its `minimize`."""
        for name, value, what in (("hess", hess, "Hessian"), ("hessp", hessp, "Hessian-vector product")):
            if value is not None:
                text = f"Method {self.optimizer.__name__} does not use {what} information ({name})."
                warnings.warn(text, RuntimeWarning, stacklevel=4)
        if unknown:
            others = [own for own in known if own != "tol"]  # ftol and xtol are of something else
            guesses = {name: "tol" if name == "gtol" else meant(name, others) for name in unknown}
            told = [f"{name} (did you mean {guess}?)" if guess else name for name, guess in guesses.items()]
            warnings.warn(f"Unknown solver options: {', '.join(told)}", OptimizeWarning, stacklevel=4)


#: how the states are stored, which every class can be told: x is float64, whose states are, too
_OF_STATES = {name for name, option in Optimizer.options.items() if option.fixed}
#: the options that are no class's
_OF_A_RUN = tuple(inspect.getfullargspec(Method.__call__).kwonlyargs)
#: name in small letters -> the method of the class of that name
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
    """Step x until something ends the run; after each step clip it to the box, where there is one."""
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
        if nit and tell(x, y, gradient, optimality, nit):
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
    result = OptimizeResult(x=best.x, fun=best.fun, jac=best.jac, nit=nit, optimality=best.optimality)
    result.update(nfev=objective.nfev, njev=objective.njev, status=status, success=status == CONVERGED)
    result.message = _message(result, x, y, tol, falls, optimizer.lr)
    return result


class _Point:
    """A point that is kept while the run goes on: copies, in arrays that are made once."""

    def __init__(self, n: int) -> None:
        self.x, self.jac = np.empty(n), np.empty(n)
        self.fun = self.optimality = math.nan

    def take(self, x: Vector, fun: float, jac: Vector, optimality: float) -> None:
        """Become this point."""
        self.x[:], self.jac[:], self.fun, self.optimality = x, jac, fun, optimality


class _Objective:
    """The user's function and gradient: what they get is theirs; what they return is checked, and the calls counted.

    All of this is done at each iteration, so what is usual is asked first, and nothing is made that nobody wants.
    """

    def __init__(self, fun: Any, jac: Any, args: Any, n: int, box: Box, rel_step: Any) -> None:
        if not callable(fun):
            raise TypeError(f"fun: expected a function, got {fun!r} of type {type(fun).__name__}")
        if not (jac is None or callable(jac)):
            raise TypeError(f"jac: expected a function or None, and from minimize() also True, got {jac!r}")
        self.fun, self.jac, self.box = fun, jac, box
        self.args = args if isinstance(args, tuple) else (args,)
        self.nfev = self.njev = 0
        self.sizes = np.zeros(n + 1)  # of the elements; the last stays 0
        self.sizes_of_all = self.sizes[:-1]
        self.rel_step = _rel_step(rel_step, n)
        self.low, self.high = (np.full(n, -np.inf), np.full(n, np.inf)) if box is None else box
        self.free = self.low < self.high
        self.average: Vector | None = None  # that the optimizer keeps
        self.keeps_jac = False  # whether a gradient must outlive the next call

    def at(self, x: Vector) -> tuple[float, Vector, float]:
        """The value at x, the gradient, and the largest element of the projected gradient.

        NaN stands for what was not evaluated: all that would follow upon something that is not finite. The gradient may
        be the array that `jac` returned, unless it is to be kept: right until one of the functions is called again.
        """
        fun = self._value(x) if math.isfinite(self._largest(x)) else math.nan
        if not math.isfinite(fun):
            return fun, np.full(x.shape, np.nan), math.nan
        jac = self._differences(x, fun) if self.jac is None else self._gradient(x)
        projected = jac if self.box is None else np.clip(jac, x - self.box[1], x - self.box[0])
        return fun, jac, self._largest(projected)

    def end(self, x: Vector, fun: float, jac: Vector, optimality: float) -> tuple[Vector, float, Vector, float]:
        """The point that a run ends with: the average, where one is kept and finite there, else the one given."""
        if self.average is not None:
            average = np.clip(self.average, self.low, self.high)
            found = (x, fun, jac, optimality) if np.array_equal(average, x) else (average, *self.at(average))
            if math.isfinite(found[-1]):
                return found
        return x, fun, jac, optimality

    def _largest(self, array: Vector) -> float:
        """The largest absolute value, or NaN where there is one; 0 of no elements."""
        np.abs(array, self.sizes_of_all)
        return self.sizes.item(self.sizes.argmax())  # which takes a third of the time of max()

    def _value(self, x: Vector) -> float:
        self.nfev += 1
        value = self.fun(x.copy(), *self.args)
        if isinstance(value, float):  # of NumPy, too
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
        return self.jac is None and self.njev == 1 and not gradient.any() and bool(self.free.any())

    def _differences(self, x: Vector, fun: float) -> Vector:
        """Forward differences along what the bounds do not fix, where they would have no room; zeros there."""
        self.njev += 1
        free, gradient = self.free, np.zeros_like(x)

        def value(part: Vector) -> float:
            whole = x.copy()
            whole[free] = part
            return self._value(whole)

        if free.any():
            sizes = self.rel_step * np.maximum(1.0, np.abs(x))  # as SciPy's `minimize` documents it
            steps, bounds = np.where(x < 0, -sizes, sizes)[free], (self.low[free], self.high[free])
            gradient[free] = approx_derivative(value, x[free], method="2-point", abs_step=steps, f0=fun, bounds=bounds)
        return gradient


def _real(name: str, value: Any) -> Vector:
    """A float64 copy of real numbers: whoever returned them may use the array again."""
    return checks.real(name, value).astype(np.float64)


def _pair(box: Box) -> tuple[float, float] | None:
    """The bounds that all elements share: to these the step itself clips."""
    if box is None or not all(side.size and (side == side[0]).all() for side in box):
        return None
    return box[0].item(0), box[1].item(0)


def _move_into(x: Vector, box: Box) -> None:
    """Clip x to its bounds, where there are any."""
    if box is not None:
        np.clip(x, *box, out=x)


def _start(x0: Any) -> Vector:
    x = np.atleast_1d(_real("x0", x0))
    if x.ndim != 1:
        raise ValueError(f"x0: expected one dimension, got shape {x.shape}; pass x0.ravel(), and reshape x within fun")
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


#: how much SciPy's methods print
_loudness = checks.number("or True or False", math.isfinite)


def _is_loud(disp: Any) -> bool:
    """Whether the message shall be printed: a flag, or, as in SciPy, a number that is above 0."""
    plain = checks.scalar(disp)
    return bool(plain) if plain is None or isinstance(plain, bool) else _loudness("disp", disp) > 0


def _box(bounds: Any, n: int) -> Box:
    """The lowest and the highest x, or None where there is no bound; as in SciPy, one pair serves for all elements."""
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
    fits = (low <= high) & (low < np.inf) & (high > -np.inf)  # NaN does not, either
    if not fits.all():
        k = int(np.argmin(fits))
        raise ValueError(f"bounds: expected low <= high, with numbers between, got ({low[k]}, {high[k]}) at {k}")
    return low, high


def _teller(callback: Any) -> Callable[..., bool]:
    """What hands a point to the callback, by its signature as SciPy does, and returns whether that wants to stop."""
    if callback is None:
        return lambda *_: False
    if not callable(callback):
        raise TypeError(f"callback: expected a function, got {callback!r} of type {type(callback).__name__}")
    try:
        takes = set(signature_of(callback).parameters)
    except ValueError:  # a builtin that tells no signature
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
    """Why it stopped, at x, where `fun` is y, and what that says of the result and of the rate."""
    if result.status == CONVERGED:
        return f"Converged: no element of the projected gradient is larger than tol = {tol:g}."
    if result.status == OUT_OF_STEPS:
        size = f"largest element of the projected gradient is {result.optimality:.3g}, tol = {tol:g}"
        text = f"Stopped after maxiter = {result.nit} steps: at x the {size}."
        if falls >= NEARLY_ALL * result.nit > 0:
            way_out = f"raise lr, which is {checks.shown(lr)}, or maxiter"
            text += f" `fun` fell at {falls} of them: the rate is too small for the way; {way_out}."
        return text
    if result.status == NO_DIFFERENCES:
        why = "`fun` does not depend on x there, or the step is too small for it to change"
        return f"Stopped at x0: all finite differences are 0; {why}: pass a larger finite_diff_rel_step, or jac."
    if result.status == CALLED_OFF:
        return "`callback` raised `StopIteration`."
    what = "x" if not np.isfinite(x).all() else "the gradient" if math.isfinite(y) else "fun"
    point = "the best point before" if result.nit else "x0"
    return f"Stopped: {what} is not finite after {result.nit} steps; x is {point}."
