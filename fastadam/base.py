"""What all optimizers are: a thin face over one plan. Parameters in any structure, groups, options, steps, state.
It knows no algorithm and no loop: a subclass says which rule its options choose.
"""

import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from os import PathLike
from typing import Any, Protocol, TypedDict

import numpy as np

from . import checkpoint, options, structure
from .kernel import backends, checks, threads
from .kernel._plan import Plan, state_like, uninterrupted
from .kernel.checks import shown
from .rules import Rule

#: grad_scale where none is given
_ONE = 1.0


class HasParameters(Protocol):
    """The article's protocol: an object whose ``parameters`` are stepped by its ``grad``."""

    parameters: Any
    grad: Any


#: one array, a sequence or mapping of arrays, group dicts, or an object
Params = np.ndarray | Iterable[np.ndarray] | Mapping[Any, np.ndarray] | Iterable[Mapping[str, Any]] | HasParameters
#: gradients in the structure of the parameters; for groups also a sequence a group, or dicts with ``"grads"``
Grads = np.ndarray | Iterable[Any] | Mapping[Any, np.ndarray]
#: a learning rate: a number, or a function of the step count t = 1, 2, …
Rate = float | Callable[[int], float]


class How(TypedDict, total=False):
    """The arguments that all optimizers take by name: how a step is made, not what it does. See `Optimizer`."""

    grads: Grads | None
    backend: str
    n_threads: int | None
    master_weights: bool
    state_dtype: str | None
    state_dir: str | PathLike[str] | None
    seed: int


class Option:
    """An option as an attribute of the optimizer: reads the first group's value, sets every group's."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: "Optimizer | None", _: type) -> Any:
        if optimizer is None:
            return self
        return optimizer.param_groups[0][self.name]

    def __set__(self, optimizer: "Optimizer", value: Any) -> None:
        for group in optimizer.param_groups:
            checked = group.check(self.name, value)
        optimizer._assign(optimizer.param_groups, {self.name: checked})


#: held while options are assigned, or read for a step: it takes those of all groups, or of none
_assigning = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not inherit it held by a thread that it does not have
    os.register_at_fork(
        before=_assigning.acquire, after_in_parent=_assigning.release, after_in_child=_assigning.release
    )


class Optimizer:
    """What all optimizers share. Not used by itself: take `Adam` or one of its relatives.

    Parameters
    ----------
    params : array, sequence, mapping, sequence of dicts, or object
        The arrays to step, updated in place, of dtype float32, float64, float16 or (ml_dtypes') bfloat16: one array;
        a sequence of arrays; a mapping from names to arrays, or such pairs; group dicts as in torch, each with its
        arrays under ``"params"`` and its own values of any option; or an object with ``.parameters`` (one of the
        former) and ``.grad`` (its gradients, read at each step). Any memory layout will do; C or Fortran order is the
        fastest.
    lr : float or callable
        The rate, or a function that returns it given the step count t = 1, 2, …
    weight_decay : float
        The factor of the decay: L2 (added to the gradient), but decoupled in `AdamW`.
    maximize : bool
        Step up the gradient instead of down.
    grads : optional
        Gradients in the structure of `params`, bound once: they are read at each ``step()`` without arguments.
    backend : {"cython", "numba", "numpy"}
        What runs the rule. All give the same bits; "numpy" needs no compiled sweep, "numba" needs Numba.
    n_threads : int, optional
        How many threads a step may use, the caller included; the bits are the same for any number. By default
        ``FASTADAM_NUM_THREADS``, or the processors that this process may run on. Fewer than 30 000 elements are always
        stepped by the caller alone, and so is every array with backend "numpy".
    master_weights : bool, default False
        Keep of every float16 and bfloat16 parameter a float32 copy among the states (``"master"``), step that, and
        round it to the parameter: steps too small for 16 bits add up.
    state_dtype : {None, "bfloat16"}
        Keep the states in 16 bits, half the memory, rounded stochastically (up with the probability of what is cut
        off), so that the mean is right. Needs ml_dtypes; not for float64 parameters.
    seed : int, default 0
        Of that rounding, in [0, 2**64). The same seed gives the same bits, for any number of threads.
    state_dir : path, optional
        Keep the states in this folder, as memory-mapped ``.npy`` files, so that they may be larger than memory; where
        the folder has states of the same parameters, go on from them and their step counts. Parameters, options and
        seed are those given. One optimizer at a time may use a folder, in the process that made it: the folder is
        locked until the optimizer is gone, or `close` is called. It outlives the process, but one that ended within a
        step is refused, and only `save` is sure to outlive a power cut.

    Attributes
    ----------
    t : int
        The number of steps done.
    skipped : int
        The number of steps left out by ``skip_nonfinite``.
    grad_norm : float or None
        The norm of the last step's gradients, where it was asked to measure it.
    state : dict
        Name of a state (``"m"``, ``"v"``, …) -> list of arrays, one a parameter.
    param_groups : tuple
        The groups, each a mapping from option to value: assigning a value holds from the next step on.

    Raises
    ------
    TypeError, ValueError
        Before anything is touched: for an option, array or structure that is not as described.

    Notes
    -----
    A step releases the GIL: nothing else may write the arrays or the gradients, nor free their memory
    (``ndarray.resize(refcheck=False)``), while it runs. A second thread that steps, saves, loads or copies the
    optimizer meanwhile gets a RuntimeError; one that assigns options does so for the next step. An interrupt
    (KeyboardInterrupt, or what another signal's handler raises) is raised when the step, save or load that it came in
    is whole.

    Options are attributes too: ``opt.lr = 0.01`` sets the rate of every group.
    """

    lr, weight_decay, maximize = Option(), Option(), Option()
    #: name of a state -> what the torch optimizer of this name calls it; empty where torch has no such optimizer
    torch_names: ClassVar[dict[str, str]] = {}
    #: the options of a group that does not set its own
    defaults: dict[str, Any]

    def __init__(
        self,
        params: Params,
        defaults: Mapping[str, Any],
        *,
        grads: Grads | None = None,
        backend: str = "cython",
        n_threads: int | None = None,
        master_weights: bool = False,
        state_dtype: str | None = None,
        state_dir: str | PathLike[str] | None = None,
        seed: int = 0,
        **unknown: Any,
    ) -> None:
        if type(self) is Optimizer:
            raise TypeError("Optimizer has no rule; use Adam, AdamW, Adamax, Adagrad, RMSprop or Adadelta")
        for name in unknown:
            _, *own = inspect.signature(type(self)).parameters
            raise TypeError(f"{name}: unknown option of {type(self).__name__}; it has {', '.join(own)}")
        self.defaults = {name: self._check_option(name, value) for name, value in defaults.items()}
        given: Any = params
        self._object: Any = given if structure.is_object(given) else None
        if self._object is not None and grads is not None:
            raise ValueError("grads: an object brings its own gradients as .grad; leave grads out, or pass its arrays")
        backends.check(backend)
        self._backend = backend
        self._n_threads = threads.resolve(n_threads)
        self._master_weights = options.flag("master_weights", master_weights)
        self._state_dtype = options.state_dtype(state_dtype)
        seed = options.seed("seed", seed)
        groups, self._flatten = structure.read_groups(given if self._object is None else given.parameters)
        self._structures = [group.structure._replace(arrays=[]) for group in groups]
        self._is_flat = not groups[0].is_dict and groups[0].structure.build is list  # which the plan takes as it is
        self._groups = tuple(Group.of(self, k, group) for k, group in enumerate(groups))
        self._stale: set[int] = set()  # the groups whose options the plan has to be given at the next step
        self._bound: Sequence[np.ndarray] | None = None
        self._check_params()
        flat = [] if grads is None else self._flatten(grads)
        for name, g, p in zip(self._names, flat, self._params, strict=grads is not None):
            checks.gradient(name, g, p)
        self._folder = None if state_dir is None else checkpoint.Folder(state_dir, self)
        self._is_direct = self._object is self._folder is None  # nothing is to be done around a plain step
        try:
            self._states = [self._new_states(group) for group in self.param_groups]
            self._plan = self._new_plan(t=0, seed=seed)
            if self._folder is not None:
                self._folder.resume(self._plan)
            if grads is not None:
                self._bind(self._plan, flat)
        except BaseException:
            if self._folder is not None:
                self._folder.undo()
                self._folder.close()  # which the traceback would keep locked
            raise

    def __init_subclass__(cls) -> None:
        """Show in the class's signature what ``**how`` stands for."""
        *own, last = inspect.signature(cls.__init__).parameters.values()
        if last.name == "how":
            shared = [p for p in inspect.signature(Optimizer.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
            cls.__signature__ = inspect.Signature([*own[1:], *shared])  # type: ignore[attr-defined]

    # What a subclass says of itself: which rule, which values, which states.

    _check_option = staticmethod(options.check)

    @classmethod
    def _rule(cls, values: dict[str, Any]) -> Rule:
        """The rule that these options choose."""
        raise NotImplementedError

    @classmethod
    def _hyper(cls, values: dict[str, Any]) -> dict[str, float]:
        """The values of the rule's hyper-parameters, by name, where an option does not bear that name."""
        return {}

    @classmethod
    def hyper_values(cls, rule: Rule, values: Mapping[str, Any], rate: float) -> list[float]:
        """The values of the rule's hyper-parameters, in its order, that these options and this rate make."""
        named = {"decoupled": False, **values}
        if "betas" in named:
            named["beta1"], named["beta2"] = named["betas"]
        named |= cls._hyper(named)
        named["lr"] = rate
        return [named[name] for name in rule.hyper]

    def _rate(self, values: dict[str, Any], t: int) -> float:
        """The learning rate of step `t`."""
        lr = values["lr"]
        return options.rate(f"lr({t})", lr(t)) if callable(lr) else lr  # type: ignore[no-any-return]

    def _is_scheduled(self, values: dict[str, Any]) -> bool:
        """Whether the rate is another at each step."""
        return callable(values["lr"])

    def _initial(self, values: dict[str, Any]) -> float:
        """What the states hold at first."""
        return 0.0

    # The face.

    def step(
        self,
        grads: Grads | None = None,
        grad_scale: float = _ONE,
        max_norm: float | None = None,
        clip_value: float | None = None,
        skip_nonfinite: bool = False,
        zero_grads: bool = False,
    ) -> None:
        """One step of every parameter, in place; `grads` are left untouched unless `zero_grads`.

        Parameters
        ----------
        grads : optional
            Gradients in the structure of the parameters, each of its parameter's shape, in any memory layout, and of
            its dtype; where that is not float64, in any of float32, float64, float16 and bfloat16 (a float64 number
            beyond float32 is infinite then). For a parameter without axes a NumPy scalar will do. May be left out where
            gradients were bound or the object brings them.
        grad_scale : float, default 1
            The gradients are this many times too large, from a scaled loss or a sum over as many batches: divide.
            In [2**-126, 2**126].
        max_norm : float, optional
            If the norm over all gradients, after that, is larger, scale them down to it, as torch's
            ``clip_grad_norm_`` does. Costs one more read of the gradients. ``opt.grad_norm`` tells the norm.
        clip_value : float, optional
            Then clip each element to [-clip_value, clip_value].
        skip_nonfinite : bool, default False
            If any gradient holds a NaN or an infinity, change nothing at all, t and gradients included, but count it
            in ``opt.skipped``.
        zero_grads : bool, default False
            Leave zeros in the gradients, for the next sum.

        Raises
        ------
        TypeError, ValueError
            For a gradient, a structure, an option or a scheduled rate that does not fit: nothing has changed then.
        RuntimeError
            If there are no gradients, or another thread is inside a step of this optimizer.
        """
        plan = self._plan  # before what is stale is asked: one that another thread replaces meanwhile refuses
        is_plain = grad_scale is _ONE and max_norm is clip_value is None and skip_nonfinite is zero_grads is False
        if is_plain and self._is_direct and (grads is not None or self._bound is not None):
            if grads is not None and not (self._is_flat and type(grads) is list):
                grads = self._flatten(grads)
            plan.step(grads, self._set_options if self._stale else None)  # where arrays are small, time counts
            return
        if self._object is not None:
            self._follow_object()
            plan = self._plan
            if grads is None:
                grads = self._object.grad
        if grads is None:
            if self._bound is None:
                way = (
                    ", and the object's .grad is None"
                    if self._object is not None
                    else (" and none are bound; call step(grads), or construct with grads=")
                )
                raise RuntimeError(f"grads: none were given{way}")
        else:
            grads = self._flatten(grads)
        self._step_by(plan, grads, options.extras(grad_scale, max_norm, clip_value, skip_nonfinite, zero_grads))

    def _step_by(self, plan: Plan, grads: Sequence[Any] | None, extras: dict[str, Any]) -> None:
        before = self._set_options if self._stale else None
        if self._folder is None:
            plan.step(grads, before, **extras)
        else:
            self._folder.step(plan, partial(plan.step, grads, **extras), before)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Step more arrays from now on, as a new group; its own step count, for its bias corrections, begins at zero.

        Parameters
        ----------
        group : dict
            Its arrays under ``"params"``, its own values of any option, and, where gradients are bound, its gradients
            under ``"grads"``. Gradients are given by group from now on.

        Raises
        ------
        TypeError, ValueError
            For a group that could not have been given at construction, or cannot be added to this optimizer.
        """
        if self._object is not None or self._folder is not None:
            kept = "states are kept in a folder" if self._object is None else "parameters are those of an object"
            raise ValueError(f"add_param_group: this optimizer's {kept}; make a new one with all of its groups")
        self._alone(partial(self._add_param_group, group))

    def _add_param_group(self, group: Mapping[str, Any]) -> None:
        k = len(self.param_groups)
        group = dict(group) if isinstance(group, Mapping) else group
        grads = group.pop("grads", None) if isinstance(group, dict) else None
        if (grads is None) != (self._bound is None):
            raise ValueError(
                f"params[{k}]['grads']: expected gradients to bind, as for the other groups"
                if grads is None
                else f"params[{k}]['grads']: this optimizer has no bound gradients; pass them to step()"
            )
        read = structure.read_group(k, group)
        bound = None if grads is None else [*(self._bound or ()), *read.structure.flatten(grads)]
        before = dict(vars(self))
        steps = [self._plan.steps(i) for i in range(k)]
        try:
            self._structures = [*self._structures, read.structure._replace(arrays=[])]
            self._flatten, self._is_flat = structure.of_groups(self._structures), False
            self._groups = (*self._groups, Group.of(self, k, read))
            self._check_params()
            self._states = [*self._states, self._new_states(self.param_groups[k])]
            self._take_plan(self._remade_plan([*steps, 0], bound))
        except BaseException:
            with _assigning:
                vars(self).update(before)
                self._stale = set(range(k))
            raise

    def zero_grad(self) -> None:
        """Set the bound gradients, or the object's, to zero (by the object's own ``zero_grad`` where it has one)."""
        if self._object is not None and callable(getattr(self._object, "zero_grad", None)):
            self._object.zero_grad()
            return
        grads = self._bound if self._object is None else self._flatten(self._object.grad)
        if grads is None:
            raise RuntimeError("zero_grad: no gradients are bound; zero your own, or construct with grads=")
        for name, g in zip(self._plan.names, grads, strict=True):
            checks.writeable(f"gradient of {name}", g)

        def zero() -> None:
            self._plan.changes += 1
            for g in grads:
                g[...] = 0

        self._alone(zero)

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that a later run needs beside the parameters, as a dict of plain values and arrays.

        ``"optimizer"``, ``"t"``, ``"skipped"``, ``"seed"``; ``"param_groups"``: options by group, with the keys of its
        parameters and its own step count ``"t"``; ``"state"``: key of a parameter -> name of a state -> array. A key is
        a mapping's own, or the place in a sequence; with several groups the group's number and a dot come first.
        """
        return self._alone(partial(checkpoint.state_dict, self))  # type: ignore[no-any-return]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` of an optimizer of this class, over parameters of the same keys, gave.

        Raises
        ------
        TypeError, ValueError
            If anything does not fit: nothing has changed then.
        """
        self._alone(partial(checkpoint.load_state_dict, self, state_dict), is_load=True)

    def save(self, path: str | PathLike[str], *, params: bool = False) -> None:
        """Write what `state_dict` tells to a file, with `params` also the parameters: whole, or not at all.

        An ``.npz`` of plain arrays, or, by that suffix, ``.safetensors``. It is written beside `path`, synced, and put
        in its place: a crash at any moment leaves the old file or the new one, and perhaps a ``.fastadam-….tmp``. A
        function as lr is not saved, schedules of `fastadam.schedules` are. In the file the state ``m`` of the
        parameter ``W`` is the array ``m/W``; an ``.npz`` may be of states larger than memory.

        Raises
        ------
        OSError
            If the file cannot be written: the old one is as it was.
        """
        self._alone(partial(checkpoint.save, self, path, params))

    def load(self, path: str | PathLike[str]) -> None:
        """Go on from what `save` wrote: options, step count, states, and the parameters where the file has them.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, no checkpoint, or one of other parameters: nothing has changed then.
        """
        with self._held(is_load=True):
            checkpoint.load(self, path)

    def close(self) -> None:
        """Let another optimizer use the folder of ``state_dir``; this one steps no more. Else nothing happens."""
        if self._folder is not None:
            with self._plan:
                self._folder.close()

    @property
    def param_groups(self) -> "tuple[Group, ...]":
        """The groups: mappings of options, to assign to. More of them come by `add_param_group`."""
        return self._groups

    @property
    def t(self) -> int:
        """The number of steps done."""
        return self._plan.t

    @property
    def skipped(self) -> int:
        """The number of steps left out by ``skip_nonfinite``."""
        return self._plan.skipped

    @property
    def grad_norm(self) -> float | None:
        """The norm over all gradients of the last step, before clipping; None if that step did not measure it."""
        return self._plan.grad_norm

    @property
    def seed(self) -> int:
        """Of the stochastic rounding of bfloat16 states."""
        return self._plan.seed

    @property
    def backend(self) -> str:
        """What runs the rule, one of "cython", "numba" and "numpy"."""
        return self._backend

    @property
    def n_threads(self) -> int:
        """How many threads a step may use, the caller included."""
        return self._plan.n_threads

    @property
    def state(self) -> dict[str, list[np.ndarray | None]]:
        """Name of a state -> its arrays, one a parameter (None where the parameter's group has no such state)."""
        names = dict.fromkeys(name for arrays in self._named_states() for name in arrays)
        return {name: [arrays.get(name) for arrays in self._named_states()] for name in names}

    def __repr__(self) -> str:
        groups = "\n".join(f"  {group}" for group in self.param_groups)
        return f"{type(self).__name__} at t = {self.t}, backend {self.backend}\n{groups}"

    # Between the face and the plan.

    def _held(self, is_load: bool = False) -> AbstractContextManager[Plan]:
        """The plan, which keeps steps out in a ``with``, its arrays those that an object has now."""
        if self._object is not None:
            self._follow_object()
        if self._folder is not None:
            self._folder.check()
        return self._plan if is_load else _whole(self._plan)

    def _alone(self, work: Callable[[], Any], is_load: bool = False) -> Any:
        """Do `work`, whole, while steps are kept out. What handlers of signals do comes after that: they may save."""
        found = []

        def held() -> None:
            with self._held(is_load):
                found.append(work())

        uninterrupted(held)
        return found[0]

    @property
    def _params(self) -> list[np.ndarray]:
        return [p for group in self.param_groups for p in group["params"]]

    @property
    def _names(self) -> list[str]:
        return [name for structure in self._structures for name in structure.names]

    @property
    def _keys(self) -> list[str]:
        """What checkpoints call the parameters."""
        if len(self._structures) == 1:
            return self._structures[0].keys
        return [f"{k}.{key}" for k, structure in enumerate(self._structures) for key in structure.keys]

    def _named_states(self) -> list[dict[str, np.ndarray]]:
        """Of each parameter, name of a state -> array."""
        return [
            dict(zip((*group._rule.states, "master"), arrays, strict=False))
            for group, states in zip(self.param_groups, self._states, strict=True)
            for arrays in states
        ]

    def _check_params(self) -> None:
        checks.parameters(self._names, self._params)
        for name, p in zip(self._names, self._params, strict=True):
            if self._state_dtype is not None and p.dtype == np.float64:
                raise ValueError(f"state_dtype: {name} is float64, whose states are, too; leave state_dtype out")

    def _new_states(self, group: "Group") -> list[list[np.ndarray]]:
        """The states of a group's parameters at first, or those in the folder."""
        made = []
        first = sum(len(other["params"]) for other in self.param_groups[: group._index])
        for place, p in enumerate(group["params"], start=first):
            initial = dict.fromkeys(group._rule.states, self._initial(group._values))
            if self._master_weights and p.itemsize == 2:
                initial["master"] = p
            made.append([self._new_state(place, p, name, value) for name, value in initial.items()])
        return made

    def _new_state(self, place: int, p: np.ndarray, name: str, value: Any) -> np.ndarray:
        dtype = checks.computed_in(p) if name == "master" or self._state_dtype is None else self._state_dtype
        state = state_like(p, dtype) if self._folder is None else self._folder.array(place, name, p, dtype)
        is_new = self._folder is None or self._folder.is_new
        if is_new and (name == "master" or value):  # memory that stays zero need not be touched
            state[...] = value
        return state

    def _new_plan(self, t: int, seed: int, skipped: int = 0, steps: Sequence[int] = ()) -> Plan:
        """A plan for the arrays that there are now; `steps` are the groups' own counts, where they are not t."""
        kernels = [backends.kernel(group._rule, self._backend) for group in self.param_groups]
        arrays = zip(kernels, (list(group["params"]) for group in self.param_groups), self._states, strict=True)
        plan = Plan(list(arrays), self._names, t, self._n_threads, seed)
        plan.skipped = skipped
        for k, count in enumerate(steps):
            plan.set_steps(k, count)
        with _assigning:
            self._stale = set(range(len(self.param_groups)))
        return plan

    def _remade_plan(self, steps: Sequence[int], bound: Sequence[np.ndarray] | None = None) -> Plan:
        """A plan for other arrays, at the same count of steps."""
        old = self._plan
        plan = self._new_plan(old.t, old.seed, old.skipped, steps)
        if bound is not None:
            self._bind(plan, bound)
        return plan

    def _take_plan(self, plan: Plan) -> None:
        """Step by another plan from now on; a thread about to step the old one is refused."""
        old, self._plan = self._plan, plan
        old.retired = True
        old.changes += 1

    def _bind(self, plan: Plan, grads: Sequence[np.ndarray]) -> None:
        bound = tuple(grads)
        plan.bind(bound)
        self._bound = bound

    def _assign(self, groups: "Sequence[Group]", values: dict[str, Any]) -> None:
        """Give these groups new, checked options, from the next step on: that has all of them, or none."""
        with _assigning:
            self._stale |= {group._index for group in groups}  # first: an interrupt after it changes nothing
            for group in groups:
                group._values = group._values | values

    def _set_options(self) -> None:
        """Give the plan, which is held, the options that were assigned since the last step, and the rates of this."""
        with _assigning:
            chosen = [(k, self.param_groups[k], self.param_groups[k]._values) for k in self._stale]
        t = self._plan.t + 1
        hyper = [self.hyper_values(group._rule, values, self._rate(values, t)) for _, group, values in chosen]
        for (k, _, _), numbers in zip(chosen, hyper, strict=True):
            self._plan.set_hyper(k, numbers)
        with _assigning:
            for k, group, values in chosen:
                if group._values is values and not self._is_scheduled(values):  # nor was it assigned meanwhile
                    self._stale.remove(k)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles and copies: the arrays, and what the plan knows beside them; a copy's states are in memory."""
        with self._held() as plan:
            kept = dict(vars(self))
            counts = (plan.t, plan.seed, plan.skipped, [plan.steps(k) for k in range(len(self.param_groups))])
            groups = [(group._label, group._values) for group in self.param_groups]
            unchanged = Unchanged(plan)
        del kept["_plan"], kept["_stale"]
        kept |= {"_groups": groups, "_folder": None, "_is_direct": self._object is None}
        return kept | {"_at": counts, "_unchanged": unchanged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        del state["_unchanged"]
        counts = state.pop("_at")
        vars(self).update(state)
        self._groups = tuple(Group(self, k, *kept) for k, kept in enumerate(state["_groups"]))
        self._check_params()
        self._plan = self._new_plan(*counts)
        if self._bound is not None:
            self._bind(self._plan, self._bound)

    def __copy__(self) -> "Optimizer":
        raise TypeError("a shallow copy would step the same arrays with the same states; use copy.deepcopy")

    def _follow_object(self) -> None:
        """Step the arrays that the object has now: a script may have replaced ``object.parameters``."""
        try:
            arrays = list(self._flatten(self._object.parameters))
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"params: .parameters has not the structure that it had at construction: {error}"
            ) from error
        plan = self._plan
        planned = plan.params
        if all(new is old for new, old in zip(arrays, planned, strict=True)):
            return
        again = self._flatten(self._object.parameters)
        if any(one is not other for one, other in zip(arrays, again, strict=True)):
            raise TypeError("params: .parameters gives another array at each read, so a step in place would be lost")
        checks.parameters(self._names, arrays)
        for name, new, old in zip(self._names, arrays, planned, strict=True):
            checks.like(name, new, old)
        uninterrupted(partial(self._replace_arrays, plan, arrays))

    def _replace_arrays(self, old: Plan, arrays: list[np.ndarray]) -> None:
        with old:
            old.need_whole()
            before, rest = [group._values for group in self._groups], iter(arrays)
            try:
                for group in self._groups:
                    group._values = group._values | {"params": tuple(islice(rest, len(group["params"])))}
                plan = self._remade_plan([old.steps(k) for k in range(len(self._groups))])
            except BaseException:
                for group, values in zip(self._groups, before, strict=True):
                    group._values = values
                raise
            for new, p, states in zip(arrays, old.params, self._named_states(), strict=True):
                if new is not p and "master" in states:
                    states["master"][...] = new
            self._take_plan(plan)


class Unchanged:
    """The end of a copy or a pickle, whose arrays are read when `Optimizer.__getstate__` has returned."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._changes = plan.changes

    def __reduce__(self) -> Any:
        if self._plan.changes != self._changes:
            raise RuntimeError(
                "another thread stepped or loaded the optimizer while it was copied; give each its own, or a lock"
            )
        return bool, ()


class Group(MutableMapping[str, Any]):
    """A group of parameters and its options; an assignment is checked at once and holds from the next step on."""

    def __init__(self, optimizer: Optimizer, index: int, label: str, values: dict[str, Any]) -> None:
        self._of = weakref.ref(optimizer)  # no cycle: states go when the optimizer does
        self._index = index
        self._label = label
        self._values = values
        self._rule = optimizer._rule(values)

    @property
    def _optimizer(self) -> Optimizer:
        optimizer = self._of()
        if optimizer is None:
            raise ReferenceError("the optimizer of this group is gone")
        return optimizer

    @classmethod
    def of(cls, optimizer: Optimizer, index: int, given: structure.GroupStructure) -> "Group":
        """The group that was given, checked."""
        label = f"params[{index}]" if given.options else ""
        group = cls(optimizer, index, label, {"params": tuple(given.structure.arrays), **optimizer.defaults})
        for name in given.options:
            group._known(name)
        group._values |= {n: optimizer._check_option(n, value, group._name(n)) for n, value in given.options.items()}
        group._rule = optimizer._rule(group._values)
        return group

    def __reduce__(self) -> Any:
        """The group of the copied optimizer, copied with it: who assigns to that reaches the copy."""
        return _group_of, (self._optimizer, self._index)

    def __copy__(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(self)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several options: all of them, or none."""
        values = {name: self.check(name, value) for name, value in dict(*args, **kwargs).items()}
        self._optimizer._assign([self], values)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: a group's options are fixed in number; assign another value instead")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.items() if name != "params")
        return f"{len(self['params'])} arrays: {values}"

    def _name(self, option: str) -> str:
        return f"{self._label}[{option!r}]" if self._label else option

    def _known(self, name: str) -> None:
        if name not in self._optimizer.defaults:
            raise ValueError(f"{self._name(name)}: unknown option; a group has {', '.join(self._optimizer.defaults)}")

    def check(self, name: str, value: Any) -> Any:
        """The value to keep for an option of this group; it must not call for another rule, whose states differ."""
        self._known(name)
        value = self._optimizer._check_option(name, value, self._name(name))
        fixed = name == "initial_accumulator_value" and value != self[name]
        if fixed or self._optimizer._rule(self._values | {name: value}) is not self._rule:
            raise ValueError(f"{self._name(name)}: {shown(value)} needs other states; it is chosen at construction")
        return value


@contextmanager
def _whole(plan: Plan) -> Iterator[Plan]:
    with plan:
        plan.need_whole()
        yield plan


def _group_of(optimizer: Optimizer, index: int) -> Group:
    return optimizer.param_groups[index]
