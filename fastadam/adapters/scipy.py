"""Every optimizer as a ``method`` of `scipy.optimize.minimize`, with bounds by projection.
Each of fastadam's classes is there by its name in small letters, as ``adam``; `Method` makes one of any class.
"""

import inspect
import itertools
import math
import reprlib
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    from scipy.optimize import Bounds, OptimizeResult
except ImportError as error:
    raise ImportError("fastadam.adapters.scipy needs SciPy: pip install 'fastadam[scipy]'") from error
from scipy.optimize._numdiff import approx_derivative  # the public approx_fprime would step beyond bounds

from ..base import Optimizer
from ..kernel import checks
from ..optimizers import CLASSES
from ..options import count, flag, tolerance

Vector = np.ndarray
#: the lowest and the highest x
Box = tuple[Vector, Vector] | None
#: how a run ended: the numbers of SciPy's BFGS, and 99 as its `minimize` has it
CONVERGED, OUT_OF_STEPS, NOT_FINITE, CALLED_OFF = 0, 1, 3, 99
#: settings that mean something here: x is one float64 array in memory, its gradients come from `jac`
_SETTINGS = ("backend", "n_threads")
_FLOAT64 = np.dtype(np.float64)


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
        After each step x is clipped to them; `fun` is never evaluated outside, by differences neither.
    callback : callable
        After each iteration, ``callback(x)``, or, where its one argument has that name,
        ``callback(intermediate_result)``, an OptimizeResult with ``x``, ``fun``, ``jac``, ``nit`` and ``optimality``.
        It may keep and change what it gets; StopIteration ends the run.
    hess, hessp, constraints
        Refused.
    tol : float, default 1e-5
        Converged where no element of the projected gradient is larger: the gradient, but each element no longer than
        the way to the bound that its descent leads to. 0 asks for a gradient of zeros.
    maxiter : int, default 10,000
        The most steps. One of Adam changes an element by about lr: what is further away than ``maxiter * lr`` is out of
        reach. An option.
    disp : bool, default False
        Print the message at the end. An option.
    options : dict
        ``tol``, ``maxiter`` and ``disp``; every option of the class (``lr``, …), with its default, schedules included;
        ``n_threads`` and ``backend``.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``status``, ``success`` and ``message`` tell why it stopped: 0, a success: converged; 1: maxiter; 3: x, `fun` or
        the gradient was not finite; 99: the callback raised StopIteration. ``x`` is the point that converged,
        otherwise, since these methods do not go down at every step, that of the lowest `fun` among all iterates where
        it and the gradient were finite. ``fun``, ``jac`` and ``optimality`` (what is compared with `tol`) are those at
        ``x``. ``nit``, ``nfev`` and ``njev`` count steps and evaluations.

    Raises
    ------
    TypeError, ValueError
        For arguments and options that are not as described, before `fun` is called; for what `fun` and `jac` return.

    Notes
    -----
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
        maxiter: int = 10_000,
        tol: float = 1e-5,
        disp: bool = False,
        **options: Any,
    ) -> OptimizeResult:
        """Minimize; see the class."""
        self._refuse(hess=hess, hessp=hessp, constraints=constraints)
        maxiter, tol, disp = count("maxiter", maxiter), tolerance("tol", tol), flag("disp", disp)
        x = _start(x0)
        box = _box(bounds, x.size)
        _move_into(x, box)
        objective = _Objective(fun, jac, args, x.size, box)
        tell = _teller(callback)
        optimizer = self._make(x, options)

        best = _Point(x.size)
        for nit in itertools.count():
            y, gradient, optimality = objective.at(x)
            if not (math.isfinite(y) and math.isfinite(optimality)):
                status = NOT_FINITE
                if nit == 0:
                    best.take(x, y, gradient, optimality)
                break
            if nit == 0 or y <= best.fun:
                best.take(x, y, gradient, optimality)
            if tell is not None:
                gradient = gradient.copy()  # the callback may change what `jac` returned
                if nit and tell(x, y, gradient, optimality, nit):
                    status = CALLED_OFF
                    break
            if optimality <= tol:
                status = CONVERGED
                best.take(x, y, gradient, optimality)
                break
            if nit == maxiter:
                status = OUT_OF_STEPS
                break
            optimizer.step(gradient)
            _move_into(x, box)
        result = OptimizeResult(x=best.x, fun=best.fun, jac=best.jac, nit=nit, optimality=best.optimality)
        result.update(nfev=objective.nfev, njev=objective.njev, status=status, success=status == CONVERGED)
        result.message = _message(result, x, y, maxiter, tol)
        if disp:
            print(result.message)
        return result

    def _refuse(self, **given: Any) -> None:
        """Refuse arguments that mean nothing to these methods."""
        for name, value in given.items():
            if value is not None and not (isinstance(value, Sized) and not len(value)):
                own, way = self.optimizer.__name__, "SLSQP" if name == "constraints" else "Newton-CG"
                raise ValueError(f"{name}: {own} cannot use it; leave it out, or take SciPy's method={way!r}")

    def _make(self, x: Vector, given: dict[str, Any]) -> Optimizer:
        """The optimizer of `x`, by the class's own options."""
        own = [*(name for name, option in self.optimizer.options.items() if option.init), *_SETTINGS]
        for name in given.keys() - own:
            has = ", ".join([*own, "maxiter", "tol", "disp"])
            raise TypeError(f"{name}: unknown option of {self.optimizer.__name__} as a method; it has {has}")
        if given.get("maximize"):
            raise ValueError("maximize: minimize() goes down; leave it out, and pass the negative of fun")
        return self.optimizer(x, **given)


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

    def __init__(self, fun: Any, jac: Any, args: Any, n: int, box: Box) -> None:
        if not callable(fun):
            raise TypeError(f"fun: expected a function, got {fun!r} of type {type(fun).__name__}")
        if not (jac is None or callable(jac)):
            raise TypeError(f"jac: expected a function or None, and from minimize() also True, got {jac!r}")
        self.fun, self.jac, self.box = fun, jac, box
        self.args = args if isinstance(args, tuple) else (args,)
        self.nfev = self.njev = 0
        self.sizes = np.zeros(n + 1)  # of the elements; the last stays 0
        self.sizes_of_all = self.sizes[:-1]

    def at(self, x: Vector) -> tuple[float, Vector, float]:
        """The value at x, the gradient, and the largest element of the projected gradient.

        NaN stands for what was not evaluated: all that would follow upon something that is not finite. The gradient may
        be the array that `jac` returned: it is right until one of the functions is called again.
        """
        fun = self._value(x) if math.isfinite(self._largest(x)) else math.nan
        if not math.isfinite(fun):
            return fun, np.full(x.shape, np.nan), math.nan
        jac = self._differences(x, fun) if self.jac is None else self._gradient(x)
        projected = jac if self.box is None else np.clip(jac, x - self.box[1], x - self.box[0])
        return fun, jac, self._largest(projected)

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
            return value
        gradient = np.atleast_1d(_real("jac", value))
        if gradient.shape != x.shape:
            raise ValueError(f"jac: expected shape {x.shape} like x, got {gradient.shape}")
        return gradient

    def _differences(self, x: Vector, fun: float) -> Vector:
        """Forward differences along what the bounds do not fix, where they would have no room; zeros there."""
        self.njev += 1
        low, high = (np.full(x.shape, -np.inf), np.full(x.shape, np.inf)) if self.box is None else self.box
        free = low < high
        gradient = np.zeros_like(x)

        def value(part: Vector) -> float:
            whole = x.copy()
            whole[free] = part
            return self._value(whole)

        if free.any():
            bounds = (low[free], high[free])
            gradient[free] = approx_derivative(value, x[free], method="2-point", f0=fun, bounds=bounds)
        return gradient


def _real(name: str, value: Any) -> Vector:
    """A float64 copy of real numbers: whoever returned them may use the array again."""
    return checks.real(name, value).astype(np.float64)


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


def _teller(callback: Any) -> Callable[..., bool] | None:
    """What hands a point to the callback, by its signature as SciPy does, and returns whether that wants to stop."""
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback: expected a function, got {callback!r} of type {type(callback).__name__}")
    try:
        takes = set(inspect.signature(callback).parameters)
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


def _message(result: OptimizeResult, x: Vector, y: float, maxiter: int, tol: float) -> str:
    """Why it stopped, at x, where `fun` is y, and what that says of the result."""
    if result.status == CONVERGED:
        return f"Converged: no element of the projected gradient is larger than tol = {tol:g}."
    if result.status == OUT_OF_STEPS:
        size = f"largest element of the projected gradient is {result.optimality:.3g}, tol = {tol:g}"
        return f"Stopped after maxiter = {maxiter} steps: at x the {size}."
    if result.status == CALLED_OFF:
        return "`callback` raised `StopIteration`."
    what = "x" if not np.isfinite(x).all() else "the gradient" if math.isfinite(y) else "fun"
    point = "the best point before" if result.nit else "x0"
    return f"Stopped: {what} is not finite after {result.nit} steps; x is {point}."
