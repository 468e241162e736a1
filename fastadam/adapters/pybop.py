"""PyBOP's AdamW with fastadam's step, run as PyBOP's own.

`AdamW` takes a problem and options. It asks and tells an `AdamWImpl`, a subclass of PyBOP's class of that name.
Each parameter has a rate of its own, its ``sigma0``; ε is float64's eps, added after the bias correction, and the decay
``lam`` is multiplied by the rate: the rule is that of `fastadam.AdamW`. Points are PyBOP's to rounding.
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
    """PyBOP's ``AdamWImpl``. Arguments, properties and methods are PyBOP's.

    Set ``b1`` and ``b2`` before the first ``tell()``; ``lam`` may be set at any time.
    """

    kind = optimizers.AdamW

    def _read_decay(self) -> None:
        if self._optimizer.weight_decay != self._lam:
            self._optimizer.weight_decay = self._lam


class AdamW(pybop.AdamW):
    """PyBOP's ``AdamW``: the optimiser of a problem. Arguments and methods are PyBOP's."""

    def __init__(self, problem: pybop.Problem, options: Any = None) -> None:
        pybop.BasePintsOptimiser.__init__(self, problem, AdamWImpl, options)
