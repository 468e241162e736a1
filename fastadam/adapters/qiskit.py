"""The optimizer `ADAM` of qiskit-algorithms with fastadam's step: ``fastadam.adapters.qiskit.ADAM(…)`` in place of
``qiskit_algorithms.optimizers.ADAM(…)``, alone or in a VQE.

The class is a subclass of qiskit's, with another ``minimize`` and ``load_params``. Settings, snapshot files, finite
differences and results are qiskit's. ε is added before the bias correction: `fastadam.Adam` with ``eps_hat=True``.

qiskit's other optimizers are not here. A step of ``GradientDescent`` is one multiplication and one subtraction, which
cannot be made faster. fastadam does not have the rule of ``AQGD``.

Examples
--------
>>> import numpy as np
>>> from fastadam.adapters.qiskit import ADAM
>>> result = ADAM(maxiter=1000, lr=0.1).minimize(lambda x: np.sum((x - 3) ** 2), np.zeros(2), jac=lambda x: 2 * (x - 3))
>>> result.x.round(3), result.nfev < 1000
(array([3., 3.]), True)
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    from qiskit_algorithms import optimizers
except ImportError as error:
    raise ImportError("fastadam.adapters.qiskit needs qiskit-algorithms: pip install qiskit-algorithms") from error

from ..kernel import checks, threads
from ..kernel._stepper import Stepper
from ..optimizers import Adam
from ..rule import Rule
from ..rules import RULES
from .hyper import hyper_of, number

__all__ = ["ADAM"]


class ADAM(optimizers.ADAM):
    r"""qiskit's ``ADAM`` with fastadam's step: Adam, and AMSGrad with ``amsgrad=True``.

    .. math:: x_t = x_{t-1} - η \frac{\sqrt{1 - β_2^t}}{1 - β_1^t} · \frac{m_t}{\sqrt{v_t} + ε}

    η is ``lr`` and ε is ``noise_factor``. With AMSGrad the largest v so far takes the place of v. The run ends after
    ``maxiter`` steps, or with the first step whose norm is below ``tol``. All arguments and defaults are those of
    ``qiskit_algorithms.optimizers.ADAM``.

    Examples
    --------
    >>> import numpy as np
    >>> optimizer = ADAM(maxiter=1, lr=0.1, amsgrad=True)
    >>> optimizer.minimize(lambda x: np.sum(x**2), np.array([1.0, -2.0])).x.round(6)
    array([ 0.9, -1.9])
    """

    def minimize(
        self,
        fun: Callable[[Any], float],
        x0: Any,
        jac: Callable[[Any], Any] | None = None,
        bounds: list[tuple[float, float]] | None = None,
    ) -> optimizers.OptimizerResult:
        """Minimize `fun`, starting at `x0`, an array or a number. x0 is not changed.

        Without `jac`, the gradient is computed by finite differences of the size ``eps``. As in qiskit, `bounds` are
        ignored, and a gradient of one number stands for all elements of x0. `fun` and `jac` may keep their argument:
        later steps do not change it. The result has ``x``, ``fun`` and ``nfev``, the number of steps.

        Raises
        ------
        TypeError, ValueError
            If x0 or a gradient has other than real numbers, or if a gradient has neither one number nor the size of x0.
        """
        if jac is None:
            differences = self._eps, self._max_evals_grouped
            jac = self.wrap_function(self.gradient_num_diff, (fun, *differences))
        x = np.array(checks.real("x0", x0), np.float64, ndmin=1)
        gradient = np.asarray(jac(x0))
        g = _flat(gradient, x)
        rule = RULES["amsgrad" if self._amsgrad else "adam"]
        hyper = self._hyper(rule)
        states = self._begin(gradient.shape if gradient.size == x.size else x.shape)
        stepper = Stepper(rule, threads.default())
        stepper.lay([x.reshape(-1)], [states], ["x0"])
        params = params_new = x0
        while self._t < self._maxiter:
            if self._t > 0:
                g = _flat(jac(params), x)
            x[...] = params  # if `jac` has changed params, the step starts from there, as in qiskit
            stepper.step([g], self._t + 1, hyper)
            self._t += 1
            params_new = x.copy()
            if self._snapshot_dir:
                self.save_params(self._snapshot_dir)
            if np.linalg.norm(params - params_new) < self._tol:
                break
            params = params_new
        result = optimizers.OptimizerResult()
        result.x, result.fun, result.nfev = params_new, fun(params_new), self._t
        return result

    def load_params(self, load_dir: str) -> None:
        """Load the states and the step count from the last line of the snapshots in this folder.

        It reads files of ``save_params``, of this class or of qiskit's. qiskit's own ``load_params`` loses two digits
        of the count, and raises a TypeError with NumPy 2.4. As in qiskit, a later ``minimize`` starts from zero.

        Raises
        ------
        ValueError
            If the last line does not have the states of this optimizer, or if numbers are missing: NumPy abbreviates
            arrays of more than 1,000 numbers.
        """
        names = ["v", "v_eff", "m", "t"] if self._amsgrad else ["v", "m", "t"]
        path = Path(load_dir, "adam_params.csv")
        with path.open(newline="") as file:
            row = [[], *csv.reader(file)][-1]
        try:
            found = dict(zip(names, [np.array(text.strip("[]").split(), np.float64) for text in row], strict=True))
        except ValueError as error:
            raise ValueError(f"load_dir: {path} ends with no numbers for {', '.join(names)}: {error}") from None
        self._t = int(found.pop("t")[0])
        for name, state in found.items():
            setattr(self, f"_{name}", state)

    def _begin(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Set qiskit's attributes for a new run. Return the states in the form that a step takes."""
        self._t, self._m, self._v = 0, np.zeros(shape), np.zeros(shape)
        states = [self._m, self._v]
        if self._amsgrad:
            self._v_eff = np.zeros(shape)
            states.append(self._v_eff)
        return [state.reshape(-1) for state in states]

    def _hyper(self, rule: Rule) -> tuple[float, ...]:
        betas = number("beta_1", self._beta_1), number("beta_2", self._beta_2)
        eps = number("noise_factor", self._noise_factor)
        return hyper_of(Adam, rule, number("lr", self._lr), betas=betas, eps=eps, eps_hat=True)


def _flat(gradient: Any, x: np.ndarray) -> np.ndarray:
    """A flat gradient, with one number for each of x."""
    flat = np.asarray(gradient).reshape(-1)
    if flat.size == 1:
        return np.full(x.size, flat[0])
    if flat.size != x.size:
        raise ValueError(f"jac: expected {checks.counted(x.size, 'number')}, as many as in x0, got {flat.size}")
    return flat
