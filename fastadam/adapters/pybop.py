"""PyBOP's AdamW with fastadam's step.

`AdamW` takes a problem and options. It runs an `AdamWImpl`, a subclass of PyBOP's class of that name. Each parameter
has its own rate, its ``sigma0``. ε is the machine epsilon of float64, added after the bias correction. The decay
``lam`` is multiplied by the rate, as in `fastadam.AdamW`. Points are PyBOP's, up to rounding.
"""

from typing import Any

from .. import optimizers
from .pints import Told

try:
    import pybop
    from pybop.optimisers.pints_optimisers import AdamWImpl as StockAdamWImpl
except ImportError as error:
    raise ImportError("fastadam.adapters.pybop needs PyBOP: pip install pybop") from error

__all__ = ["AdamW", "AdamWImpl"]


class AdamWImpl(Told, StockAdamWImpl):
    """PyBOP's ``AdamWImpl``, with PyBOP's arguments, properties and methods.

    Set ``b1`` and ``b2`` before the first ``tell()``. ``lam`` may be set at any time.
    """

    kind = optimizers.AdamW

    def _read_decay(self) -> None:
        if self._optimizer.weight_decay != self._lam:
            self._optimizer.weight_decay = self._lam


class AdamW(pybop.AdamW):
    """PyBOP's ``AdamW``, the optimiser of a problem, with PyBOP's arguments and methods."""

    def __init__(self, problem: pybop.Problem, options: Any = None) -> None:
        pybop.BasePintsOptimiser.__init__(self, problem, AdamWImpl, options)
