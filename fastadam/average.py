"""`Average`: averages of a model's weights, computed by the same kernels as the steps. The averages are the parameters
of a plan. The model's weights take the place of the gradients, and are read at each update.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import options, tree
from .core import Core
from .kernel import checks
from .kernel._plan import state_like
from .kernel._signals import deferred_signals
from .optimizers import CLASSES
from .options import Rate, option
from .rule import Rule
from .state.places import Place
from .state.snapshot import Loaded, Snapshot
from .state.store import continued_rows
from .stepped import Stepped, Swapping
from .tree import Tree

#: the arguments of a step that leaves its gradients as they are
_PLAIN = tuple(checks.of_step().values())


class Averages(Core):
    """The core of an `Average`: `bound` is the structure of the model."""

    @property
    def model(self) -> Tree:
        """The tree of the model's structure."""
        assert self.tree.model is not None
        return self.tree.model

    def step(self, *given: Any, **options: Any) -> None:
        """Update the averages with the present weights of the model."""
        try:
            super().step(*given, **options)
        except (TypeError, ValueError):
            self.read_model()  # raises an error in the terms of an average
            raise

    def read_model(self) -> list[Any]:
        """The present arrays of the model, None where there is none. Refuses an array that does not fit its average."""
        model: list[Any] = self.tree.flatten(self.bound)
        for name, key, p, average in zip(self.tree.names, self.tree.keys, model, self.plan.params, strict=True):
            if p is None:
                continue
            checks.array(name, p)
            if p.shape != average.shape:
                raise ValueError(
                    f"{name}: expected the shape {average.shape} of its average, got {p.shape}; "
                    f"replace({key!r}, array, rows) says which rows go on"
                )
            if (p.dtype.kind == "c") != (average.dtype.kind == "c"):
                raise TypeError(f"{name}: expected {average.dtype} like its average, got {p.dtype}")
            if self.plan.writes(p) and any(checks.shares_memory(p, other) for other in self.plan.params):
                raise ValueError(f"{name}: shares memory with an average; put a copy into the model")
        return model

    def partners(self) -> tuple[list[int], list[Any]]:
        """See `Core.partners`. The model takes the place of the gradients."""
        model = self.read_model()
        given = {name: p for name, p in zip(self.tree.names, model, strict=True) if p is not None}
        checks.parameters(list(given), list(given.values()))
        return [1] * len(self.groups), model

    def reset(self, keys: Sequence[str] | None) -> None:
        """Restart the averages, as copies of the present weights."""
        numbers = range(len(self.tree.keys)) if keys is None else [self.number_of("names", key) for key in keys]
        with deferred_signals():
            model = self.read_model()
            super().reset(keys)
            for k in numbers:
                if model[k] is not None:
                    self.plan.params[k][...] = model[k]

    def replace(self, key: str, array: np.ndarray, rows: Any) -> None:
        """Average another array in place of an old one; see `Average.replace`."""
        with deferred_signals(), self.plan:
            k = self.number_of("name", key)
            checks.parameter(self.tree.names[k], array)
            new, old = _averages_of([array])[0], self.plan.params[k]
            numbers = continued_rows(self.tree.names[k], rows, new, old)
            if numbers is None:
                new[...] = old
            elif (numbers >= 0).any():
                new[numbers >= 0] = old[numbers[numbers >= 0]]
            before = self.tree.flatten(self.bound)[k]
            model = self.model.with_array(k, array)
            try:
                kept = model.without_arrays()
                self._replace_held(k, new, rows)
            except BaseException:
                model.with_array(k, before)
                raise
            self.tree.model = kept
            self.bound = self.settings["grads"] = model.source

    def snapshot(self) -> Snapshot:
        """The averages, stored as states: a checkpoint without them would be useless."""
        found = super().snapshot()
        return dataclasses.replace(found, state={key: {"average": p} for key, p in found.params.items()})


class Average(Swapping, Stepped):
    r"""Averages of a model's weights during training: exponential (EMA), or with equal weights (SWA, Polyak).

    .. math::
        a_t = a_{t-1} + w_t (θ_t - a_{t-1})

    where θ are the parameters at update t. The weight w is 1 - ``decay``. If `decay` is None, w is 1/n at the n-th
    update since `first`. Until update `first`, w is 1, and the average is a copy of the parameters.

    Parameters
    ----------
    params : array, sequence, mapping, sequence of dicts, or object
        What an optimizer takes: arrays in any structure. The structure is read at each update. An array that replaced
        another is averaged from then on. Where it holds None, the average does not change. A group may have its own
        `decay` and `first`; options for an optimizer are ignored.
    decay : float or None, default 0.999
        In [0, 1]. None gives all updates equal weights.
    first : int, default 1
        The number of the update with which averaging begins.
    backend, n_threads
        See `Optimizer`.

    Attributes
    ----------
    params
        The averages, in the structure that was given (with lists for tuples). They start as copies of the parameters.
        They are float32 for 16-bit parameters, else of the parameter's dtype.
    t : int
        The number of updates done.
    param_groups : sequence
        The groups, each a mapping from option to value. Values can be assigned.

    Raises
    ------
    TypeError, ValueError
        For an option, array or structure that is not as described.

    Notes
    -----
    NaN and infinity enter the average, as in any arithmetic. Denormal numbers count as zero, as in every step. The
    convention is that of ``torch.optim.swa_utils``: ``AveragedModel`` with ``get_ema_multi_avg_fn(0.999)``, or without
    it for ``decay=None``. Sources: Polyak & Juditsky (1992); Izmailov et al., arXiv:1803.05407.

    Examples
    --------
    >>> import numpy as np, fastadam
    >>> params = {"W": np.array([4.0, 8.0])}
    >>> opt, avg = fastadam.Adam(params, lr=1.0), fastadam.Average(params, decay=None)
    >>> for _ in range(3):
    ...     opt.step({"W": np.ones(2)})
    ...     avg.update()
    >>> with avg.swapped():
    ...     params["W"].round(6)
    array([2., 6.])
    >>> params["W"].round(6)
    array([1., 5.])
    """

    decay: float | None = option(default=0.999, check=options.decay, hyper=("decay", "equal"))
    first: int = option(default=1, check=options.positive_count, kw_only=True)

    rules: ClassVar = ("average",)
    constants: ClassVar = {"low": -np.inf, "high": np.inf}  # no bounds
    made_of: ClassVar[type[Core]] = Averages

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = self.bind(args, kwargs)
        model = tree.read(given["params"])  # refuses what is not an array, before anything is copied
        checks.parameters(model.names, model.arrays)
        averages = model.of_averages(_averages_of(model.arrays), [_own_options(b.options) for b in model.branches])
        self.core: Core = Averages.make(type(self), given | {"params": averages, "grads": model.source})
        self.core.settings["params"] = averages.source

    @classmethod
    def schedule(cls, values: Mapping[str, Any]) -> Rate:
        """None: the rule has no rate."""
        return 0.0

    @classmethod
    def hyper_values(cls, rule: Rule, values: Mapping[str, Any], rate: float) -> tuple[float, ...]:
        """As the base class, with a flag that says whether the weights are equal."""
        decay = values["decay"]
        return super().hyper_values(rule, {**values, "decay": (decay or 0.0, decay is None)}, rate)

    def update(self) -> None:
        """Update the averages with the present values of the parameters.

        Raises
        ------
        TypeError, ValueError
            For a structure or an array that does not fit. Nothing has changed then.
        RuntimeError
            Within a block of `swapped`, or if another thread is within an update.
        """
        self.core.step(None, *_PLAIN)

    def replace(self, name: str, array: np.ndarray, rows: Any = None) -> None:
        """Average another array in place of a parameter, also one of another length. See `Optimizer.replace`.

        Parameters
        ----------
        name : str
            The name of the parameter, as in `state_dict`.
        array : array
            The new array of the model. It is put into the structure that was given, unless it is there already.
        rows : sequence of int, or -1, optional
            For each row of the new array, the old row whose average it takes over, or -1 for a new row. The average of
            a new row is a copy of it. A single -1 means that every row is new; the count of updates restarts then. By
            default all rows stay.

        Raises
        ------
        TypeError, ValueError
            For an array, a name or rows that do not fit. Nothing has changed then.
        """
        self.core.replace(name, array, rows)

    def reset(self, names: Sequence[str] | None = None) -> None:
        """Restart: the averages become copies of the model's parameters, and the counts of updates zero.

        Parameters
        ----------
        names : sequence of str, optional
            The names of the parameters whose averages restart, as in `state_dict`. t does not change then. By default
            all averages restart, and t too.
        """
        super().reset(names)

    def save(self, path: Place) -> None:  # type: ignore[override]
        """Write the averages, the counts and the options to a file. See `Optimizer.save`."""
        super().save(path)

    def load(self, path: Place, *, strict: bool = True, convert: bool = False) -> Loaded:  # type: ignore[override]
        """Continue from a file of `save`. See `Optimizer.load`. The model's parameters do not change."""
        return super().load(path, strict=strict, params=False, convert=convert)


def _averages_of(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A copy of each array, in the dtype of its average."""
    found = [state_like(p) for p in arrays]
    for average, p in zip(found, arrays, strict=True):
        average[...] = p
    return found


def _own_options(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The options of a group without those that only an optimizer has."""
    theirs = {name for cls in CLASSES.values() for name in cls.options} - {"name", "extra"}
    return None if given is None else {name: value for name, value in given.items() if name not in theirs}
