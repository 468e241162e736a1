"""`swapped` of ranks: parameters and averages are exchanged on all of them at once."""

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
    """`swapped` of ranks: each exchanges its share, and all get what the others have."""

    core: Core
    _ranks: Ranks
    _whole: Whole
    _exchange: Exchange
    _number: int

    @contextmanager
    def swapped(self) -> Iterator[None]:  # type: ignore[override]
        """As the optimizer's own, on all ranks: they enter the block together, and leave it together.

        The way in and the way out each send all parameters once, as a step does; what the block writes into
        parameters is lost, but for a rank's own share of them.
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
