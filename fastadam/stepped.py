"""The base classes of optimizers and averages of weights: `Stepped`, and `Swapping` for classes with averages."""

from collections.abc import Sequence
from typing import Any, ClassVar

from . import options
from .algorithm import Algorithm
from .core import Core, Unchanged
from .groups import Groups
from .kernel import backends, threads
from .kernel._swapped import swapped
from .names import attributes_of
from .options import option, setting
from .saved import Saved
from .tree import Params


class Stepped(Saved, Algorithm):
    """Arrays that a rule steps, with their groups and step counts."""

    __slots__ = ("core",)
    params: Params = setting()
    backend: str = setting(default="cython", check=backends.check, kw_only=True)
    n_threads: int | None = setting(default=None, check=threads.resolve, kw_only=True)
    frozen: bool = option(default=False, check=options.flag, kw_only=True, init=False)
    name: str | None = option(default=None, check=options.group_name, kw_only=True, init=False, own=True)
    extra: Any = option(default=None, check=options.anything, kw_only=True, init=False, own=True)

    #: the class of `core`
    made_of: ClassVar[type[Core]] = Core

    def reset(self, names: Sequence[str] | None = None) -> None:
        """Restart: states, master weights and counts become those of a new optimizer. Parameters and options stay.

        Parameters
        ----------
        names : sequence of str, optional
            The names of the parameters to restart, as in `state_dict`. t and skipped do not change then. By default
            all parameters restart, and the counts too.
        """
        self.core.reset(options.names_or_none("names", names))

    @property
    def param_groups(self) -> Groups:
        """The groups, each a mapping from option to value. Values can be assigned."""
        return self.core.groups

    @property
    def defaults(self) -> dict[str, Any]:
        """The options of groups without values of their own."""
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
            return {**attributes_of(self, "core"), "core": self.core.parts(), "unchanged": Unchanged(plan)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in state.keys() - {"core", "unchanged"}:
            setattr(self, name, state[name])
        self.core = self.made_of.of_parts(type(self), state["core"])

    def __copy__(self) -> "Stepped":
        raise TypeError("a shallow copy would step the same arrays with the same states; use copy.deepcopy")


class Swapping:
    """Mixin, placed before `Stepped`, for a class that keeps averages of weights."""

    __slots__ = ()
    core: Core
    average: ClassVar[str]  # the name of the state, declared by `Algorithm`

    def swapped(self) -> swapped:
        """A context manager: within its block, the parameters hold the averages.

        ``with opt.swapped():`` exchanges the contents of parameters and averages in place. It makes one pass over
        memory, with threads, and allocates nothing. After the block, even after an error, both have their old contents,
        to the bit. A value that the block writes to a parameter ends up in the average.

        Arrays of different dtypes cannot be exchanged: float16 and bfloat16 parameters without master weights (averages
        are float32), and averages in bfloat16. A copy of such a parameter is kept during the block. The parameter holds
        the rounded average, and gets its old values back: values that the block writes to it are lost.

        Raises
        ------
        RuntimeError
            Within the block, for operations that would mix the two: steps, updates, saving, loading, copying, and a
            second block. Counts, arrays and options can be read, and options assigned.
        TypeError, ValueError
            For a parameter that is read-only, or does not fit. Nothing is exchanged then.
        """
        return swapped(self.core)
