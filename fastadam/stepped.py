"""What optimizers and averages of weights share: `Stepped`, and `Swapping` for those that have averages to look at."""

from collections.abc import Sequence
from typing import Any, ClassVar

from . import options
from .algorithm import Algorithm
from .core import Core, Unchanged
from .groups import Groups
from .kernel import backends, threads
from .kernel._swapped import swapped
from .options import option, setting
from .saved import Saved
from .tree import Params


class Stepped(Saved, Algorithm):
    """Arrays that are stepped by a rule, their groups and their counts."""

    __slots__ = ("core",)
    params: Params = setting()
    backend: str = setting(default="cython", check=backends.check, kw_only=True)
    n_threads: int | None = setting(default=None, check=threads.resolve, kw_only=True)
    frozen: bool = option(default=False, check=options.flag, kw_only=True, init=False)
    name: str | None = option(default=None, check=options.group_name, kw_only=True, init=False, own=True)
    extra: Any = option(default=None, check=options.anything, kw_only=True, init=False, own=True)

    #: what the objects of a class are made of
    made_of: ClassVar[type[Core]] = Core

    def reset(self, names: Sequence[str] | None = None) -> None:
        """Begin anew: states, master weights and counts are those of a new optimizer; parameters and options stay.

        Parameters
        ----------
        names : sequence of str, optional
            The parameters that begin anew, called as in `state_dict`; t and skipped stay then. By default all.
        """
        self.core.reset(options.names_or_none("names", names))

    @property
    def param_groups(self) -> Groups:
        """A mapping of options for each group, to assign to."""
        return self.core.groups

    @property
    def defaults(self) -> dict[str, Any]:
        """The options of a group that does not set its own."""
        return self.core.groups.defaults

    @property
    def t(self) -> int:
        """The number of steps done."""
        return self.core.plan.t

    def __repr__(self) -> str:
        groups = "\n".join(f"  {group}" for group in self.param_groups)
        return f"{type(self).__name__} at t = {self.t}, backend {self.backend}\n{groups}"

    def __getstate__(self) -> dict[str, Any]:
        with self.core.held_whole() as plan:
            return {**self._attributes(), "core": self.core.parts(), "unchanged": Unchanged(plan)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in state.keys() - {"core", "unchanged"}:
            setattr(self, name, state[name])
        self.core = self.made_of.of_parts(type(self), state["core"])

    def __copy__(self) -> "Stepped":
        raise TypeError("a shallow copy would step the same arrays with the same states; use copy.deepcopy")


class Swapping:
    """Mixed in before a `Stepped` class that keeps averages of weights."""

    __slots__ = ()
    core: Core
    average: ClassVar[str]  # an `Algorithm` says which state it is

    def swapped(self) -> swapped:
        """A context manager: within its block, the model has the averages for weights.

        ``with opt.swapped():`` exchanges the contents of parameters and averages, in place: one pass over memory, by
        threads, with nothing allocated. When the block is over, by an error or not, both are what they were, to the
        bit. What the block writes into parameters is in the averages afterwards.

        A pair of two dtypes cannot be exchanged: float16 and bfloat16 parameters without master weights (averages are
        float32), and averages of bfloat16. Such parameters are copied aside, take the rounded averages for the block,
        and lose what the block writes into them.

        Raises
        ------
        RuntimeError
            Within the block, for whatever would mix the two: steps, updates, saves, loads, copies, and a second block.
            Numbers, arrays and options can be read, and options assigned.
        TypeError, ValueError
            For a parameter that is read-only, or does not fit: nothing is exchanged then.
        """
        return swapped(self.core)
