"""`swapped` for ranks: parameters and averages are exchanged on all ranks at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..core import Core
from ..kernel._signals import deferred_signals
from ..kernel._swapped import swapped
from ..stepped import Swapping
from .exchange import Exchange
from .memory import Whole
from .ranks import Ranks


class SwappingOfRanks(Swapping):
    """`swapped` for ranks: each rank exchanges its share, and all get the shares of the others."""

    core: Core
    _ranks: Ranks
    _whole: Whole
    _exchange: Exchange
    _number: int

    @contextmanager
    def swapped(self) -> Iterator[None]:  # type: ignore[override]
        """As the optimizer's own `swapped`, on all ranks. All ranks enter and leave the block together.

        Entering and leaving each send all parameters once, as a step does. Values that the block writes to parameters
        are lost, except in a rank's own share.
        """
        share = swapped(self.core)
        with deferred_signals(), self._ranks.all_or_none("swapped") as agree:
            self._whole.need_same_arrays()
            self._whole.need_writeable()
            with self.core.held_whole():
                agree({"number": self._number})
            self._exchange.take()
            share.__enter__()
            self._exchange.gather()
        try:
            yield
        finally:
            with deferred_signals(), self._ranks.all_or_none("the end of swapped") as agree:
                self._exchange.take()
                share.__exit__()
                agree({"number": self._number})
                self._exchange.gather()
