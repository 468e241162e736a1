"""PINTS's Adam with fastadam's step, with PINTS's ``ask()`` and ``tell()``.

`Adam` is a subclass of ``pints.Adam``. Pass it to a `pints.OptimisationController` as ``method=``. The rate is
``min(sigma0)``. ε = 1e-8 is added after the bias correction, as in `fastadam.Adam`. Points are PINTS's, up to rounding.

Examples
--------
>>> import pints, pints.toy
>>> from fastadam.adapters.pints import Adam
>>> controller = pints.OptimisationController(pints.toy.ParabolicError(), [0.1, 0.1], 0.1, method=Adam)
>>> controller.set_log_to_screen(False)
>>> x, fx = controller.run()
>>> bool(fx < 1e-9)
True
"""

import copy
from typing import Any

import numpy as np

from .. import optimizers
from ..names import attributes_of, give_attributes

try:
    import pints
except ImportError as error:
    raise ImportError("fastadam.adapters.pints needs PINTS: pip install pints") from error

__all__ = ["Adam"]


class Told:
    """Mixin, placed before an optimiser of PINTS's kind, that replaces its ``tell()``.

    Rates, betas and eps are read at the first ``tell()``. A later change is refused: PINTS keeps products of the betas
    so far, and fastadam computes powers of the betas. The decay is read each time.
    """

    kind: type[optimizers.Adam] = optimizers.Adam
    _optimizer: Any = None

    def tell(self: Any, reply: Any) -> None:
        """Take the value and the gradient at the proposed point, and propose the next point."""
        if not self._ready_for_tell:
            super().tell(reply)  # type: ignore[misc]  # raises PINTS's error
        fx, dfx = reply[0]
        proposed = self._next(dfx)
        self._ready_for_tell = False
        self._current, self._current_f, self._current_df = self._proposed, fx, dfx
        self._b1t *= self._b1  # PINTS logs them
        self._b2t *= self._b2
        self._proposed = proposed
        if self._f_best > fx:
            self._f_best, self._x_best = fx, self._current

    def _next(self: Any, dfx: Any) -> np.ndarray:
        """The point after the proposed one."""
        x = self._proposed
        given = self._b1, self._b2, self._eps
        shape = np.shape(dfx)
        if shape not in ((), x.shape):  # as in PINTS, one number stands for all elements
            raise ValueError(f"tell: expected a gradient of shape {x.shape} like the point, got {shape}")
        if self._optimizer is None:
            self._begin(np.broadcast_to(self._alpha, x.shape).tolist())
            self._given, self._rate = given, self._alpha
        elif given != self._given or self._rate is not self._alpha:
            raise RuntimeError("b1, b2, eps, alpha: set them before the first tell(); for others make a new optimiser")
        self._read_decay()
        self._x[:], self._g[:] = x, dfx
        self._optimizer.step(self._grads)
        proposed: np.ndarray = self._x.copy()
        return proposed

    def _begin(self: Any, rates: list[float]) -> None:
        """Make an optimizer of one array or, if the parameters have different rates, with a group for each."""
        own = rates[:1] if len(set(rates)) == 1 else rates
        self._places = [slice(None)] if len(own) == 1 else [slice(k, k + 1) for k in range(len(own))]
        self._groups = [{"params": [None], "lr": rate} for rate in own]
        self._link()
        self._optimizer = self.kind(self._groups, betas=(self._b1, self._b2), eps=self._eps)
        del self._m, self._v  # the optimizer has the states now

    def _link(self: Any) -> None:
        """Make the groups' parameters views of one array, the gradients views of another. A copy must do so again."""
        self._x, self._g = np.zeros_like(self._x0), np.zeros_like(self._x0)
        self._grads = [self._g[where] for where in self._places]
        for group, where in zip(self._groups, self._places, strict=True):
            group["params"][0] = self._x[where]

    def __copy__(self: Any) -> Any:
        """A deep copy: as in PINTS, steps of a copy must not change the original."""
        return copy.deepcopy(self)

    def __getstate__(self: Any) -> dict[str, Any]:
        return attributes_of(self)

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        give_attributes(self, state)
        if self._optimizer is not None:
            self._link()

    def _read_decay(self) -> None:
        """Read the present decay. An optimiser without a decay has nothing to read."""


class Adam(Told, pints.Adam):
    """PINTS's ``Adam``, with the arguments and methods of ``pints.Adam``. Boundaries are ignored, as in PINTS."""
