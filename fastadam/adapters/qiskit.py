"""qiskit-algorithms' optimizer `ADAM`, stepped by fastadam: ``fastadam.adapters.qiskit.ADAM(…)`` in place of
``qiskit_algorithms.optimizers.ADAM(…)``, alone or as the optimizer of a VQE.

The class *is* qiskit's, with another ``minimize`` and ``load_params``. Settings, snapshot files, finite differences and
results are qiskit's. ε is added before the correction: `fastadam.Adam` with ``eps_hat=True``.

qiskit's other optimizers stay its own. ``GradientDescent`` multiplies and subtracts once a step: there is nothing to
gain. The rule of ``AQGD`` is none of fastadam's.

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
    r"""qiskit's ``ADAM``, stepped by fastadam: Adam, and AMSGrad with ``amsgrad=True``.

    .. math:: x_t = x_{t-1} - η \frac{\sqrt{1 - β_2^t}}{1 - β_1^t} · \frac{m_t}{\sqrt{v_t} + ε}

    η is ``lr``, ε ``noise_factor``, and with AMSGrad the largest v so far stands for v. The run ends after ``maxiter``
    steps, or with the first step whose norm is below ``tol``. All arguments and defaults are those of
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
        """Minimize `fun` from `x0`, which may be a number; x0 is not changed.

        Without `jac`, the gradient is taken by differences of the size ``eps``. As in qiskit, `bounds` are ignored,
        and a gradient of one number counts for all elements of x0. `fun` and `jac` may keep the array that they get:
        later steps do not change it. The result has ``x``, ``fun`` and, as ``nfev``, the number of steps.

        Raises
        ------
        TypeError, ValueError
            Where x0 or a gradient holds no real numbers, or a gradient has neither one number nor as many as x0.
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
            x[...] = params  # which `jac` may have changed: then it goes on from there, as in qiskit
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
        """Load the states and the count of steps from the last line of the snapshots in this folder.

        It reads what ``save_params`` wrote, here or in qiskit. qiskit's own ``load_params`` loses two digits of the
        count, and is a TypeError with NumPy 2.4. As in qiskit, a later ``minimize`` begins anew.

        Raises
        ------
        ValueError
            Where the last line holds no states, or not those of this optimizer, or where NumPy left numbers out, as it
            does of more than 1,000.
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
        """Begin qiskit's attributes of a run; the states among them as a step takes them."""
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
    """A gradient without its axes, one number for each of x."""
    flat = np.asarray(gradient).reshape(-1)
    if flat.size == 1:
        return np.full(x.size, flat[0])
    if flat.size != x.size:
        raise ValueError(f"jac: expected {checks.counted(x.size, 'number')}, as many as in x0, got {flat.size}")
    return flat
