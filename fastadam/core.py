"""`Core` joins the four parts of one optimizer: the tree of its parameters, the groups with their options, the store of
the states, and the plan that does the steps. It handles every change between steps. It knows no algorithm.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from . import options, tree
from .groups import Groups, Values
from .kernel import backends, checks
from .kernel._follow import Follower
from .kernel._plan import Plan
from .kernel._rows import Rows
from .kernel._signals import deferred_signals
from .kernel.arrived import make_writeable
from .kernel.sparse import as_rows, numbers_of
from .names import meant
from .state import numbers
from .state.numbers import First
from .state.snapshot import Fit, Snapshot
from .state.store import States, Store, continued_rows
from .tree import Tree

#: the defaults of settings that a class does not declare
_UNSAID = {"grads": None, "master_weights": False, "state_dir": None, "seed": 0}

#: `state_dtype` -> the dtypes in which the parameter may be computed; there is no complex bfloat16
_STORED_IN = {"bfloat16": ("float32",), "int8": ("float32", "complex64")}


class Origin(NamedTuple):
    """Where a part of a parameter comes from: the number of the whole parameter, the elements of the whole before this
    part, and the size of the whole."""

    whole: int
    begin: int
    size: int


class Core(Follower):
    """All data of an optimizer of the class `kind`, and the object that does its steps."""

    tree: Tree

    def __init__(
        self, kind: Any, settings: dict[str, Any], structure: Tree, groups: Groups, store: Store, origins: Any = ()
    ) -> None:
        super().__init__(Plan(settings["n_threads"], settings["seed"]), groups.cell)
        self.kind, self.settings, self.groups, self.store = kind, settings, groups, store
        self.origins, self.owner = origins, structure.owner
        self.rates: tuple[int, list[float]] = (0, [])  # the first step with these rates, and the rate of each group
        self._lay(structure, [p for values in groups.values for p in values["params"]], store.states, store.counts)
        self.set_tree(structure)

    @classmethod
    def make(cls, kind: Any, given: Mapping[str, Any], origins: Sequence[Origin] = ()) -> "Core":
        """The core of a new optimizer. `given` has the value of each field that its class declares. If the parameters
        are parts of others, `origins` has the origin of each."""
        settings = _UNSAID | {name: setting.check(name, given[name]) for name, setting in kind.settings.items()}
        settings |= {name: tree.listed(given[name]) for name in ("params", "grads")}
        structure, bound = tree.read(settings["params"]), settings["grads"]
        if structure.owner is not None and bound is not None:
            raise ValueError("grads: an object brings its own gradients as .grad; leave grads out, or pass its arrays")
        groups = checked_groups(kind, given, structure)
        _check_grads(structure, bound, structure.arrays, groups.frozen)
        initial = _all_initial(kind, settings, groups, origins)
        lagging = _lagging(groups, structure.arrays)
        store = Store.new(settings, kind.__name__, groups.rules, structure.keys, structure.arrays, initial, lagging)
        with store.undone_on_error():
            core = cls(kind, settings, structure, groups, store, origins)
            store.commit(core.plan)
            core.bind(bound)
        return core

    # Steps: what `Follower` calls after something has changed.

    def flatten(self, grads: Any) -> list[Any]:
        """A flat list of the gradients in `grads`, one for each parameter."""
        if grads is None:
            none_bound = " and none are bound; call step(grads), or construct with grads="
            way = none_bound if self.owner is None else ", and the object's .grad is None"
            raise RuntimeError(f"grads: none were given{way}")
        flat: list[Any] = self.tree.flatten(grads, self.groups.frozen)
        return flat

    def refresh(self) -> None:
        """Give the plan the present options, and the rates of its next step. The caller holds the plan."""
        values, t = self.groups.values, self.plan.t + 1
        rates = [self.kind.schedule(own) for own in values]
        numbers = [options.rate_at(rate, t) for rate in rates]
        hyper = [
            self.kind.hyper_values(rule, own, number)
            for rule, own, number in zip(self.groups.rules, values, numbers, strict=True)
        ]
        for k, own_hyper in enumerate(hyper):
            self.plan.set_hyper(k, own_hyper)
        is_any = any(own["frozen"] for own in values)  # mostly False; with a schedule this runs at every step
        each = (own["frozen"] for own in values for _ in own["params"]) if is_any else ()
        self.frozen = [k for k, is_out in enumerate(each) if is_out]
        self.follow_names()
        self.rates = t, numbers
        self.took = None if any(map(callable, rates)) else values

    def rate(self) -> float | None:
        """The learning rate of the first group in the last step; None before the first step."""
        t = self.plan.t
        if t == 0:
            return None
        since, numbers = self.rates
        is_known = bool(numbers) and since <= t
        return numbers[0] if is_known else options.rate_at(self.kind.schedule(self.groups.values[0]), t)

    def follow_names(self) -> None:
        """Rename the parameters of each group after the group's present name."""
        names = [own["name"] for own in self.groups.values]
        if names != [branch.group for branch in self.tree.branches]:
            self.tree = self.tree.with_names(names)
            self.plan.rename(self.tree.names)

    def read_anew(self) -> None:
        """Follow the structure and the names of groups; the caller holds the plan."""
        super().read_anew()
        self.follow_names()

    def follow(self) -> None:
        """Step the arrays that the structure now holds, with the states of those before them."""
        arrays = self.tree.read_again()
        self._need_fitting(arrays)
        if any(new is not old for new, old in zip(arrays, self.plan.params, strict=True)):
            with deferred_signals():
                self.plan.make_up()
                self._take_arrays(self.tree, arrays, self._reordered(arrays), self.plan.counts)

    def _need_fitting(self, arrays: Sequence[Any], but: int = -1) -> None:
        """Refuse arrays that cannot replace those of the plan. Number `but` is not checked."""
        for k, (name, new, old) in enumerate(zip(self.tree.names, arrays, self.plan.params, strict=True)):
            if new is not old and k != but:
                checks.parameter(name, new)
                checks.like(name, new, old)

    def _reordered(self, arrays: Sequence[np.ndarray]) -> States:
        """The states for these arrays, which have the shapes of the plan's."""
        every = zip(self.plan.params, arrays, self.store.states, strict=True)
        return [self.store.reordered(old, new, own) for old, new, own in every]

    def _take_arrays(self, structure: Tree, arrays: Sequence[np.ndarray], states: States, counts: np.ndarray) -> None:
        """Step these arrays from now on."""
        rest, before = iter(arrays), [values["params"] for values in self.groups.values]
        self.groups.assign({k: {"params": tuple(islice(rest, len(old)))} for k, old in enumerate(before)})
        try:
            self._lay(structure, arrays, states, counts)
        except BaseException:
            self.groups.assign({k: {"params": old} for k, old in enumerate(before)})
            raise
        self.store.states = states

    def bind(self, grads: Any) -> None:
        """Read the gradients from this structure at each step without arguments."""
        if grads is not None:
            self.plan.admit(self.flatten(grads))
        self.bound = grads

    def zero_grads(self) -> None:
        """Set the bound gradients, or those of the object, to zero."""
        if self.owner is not None and callable(getattr(self.owner, "zero_grad", None)):
            self.owner.zero_grad()
            return
        grads = self.bound if self.owner is None else self.owner.grad
        if grads is None:
            way = "no gradients are bound; zero your own, or construct with grads="
            raise RuntimeError(f"zero_grad: {way if self.owner is None else 'the .grad of the object is None'}")
        named = zip(self.tree.names, self.flatten(grads), strict=True)
        given = {name: numbers_of(g) for name, g in named if g is not None}
        for name, g in given.items():
            checks.writeable(f"gradient of {name}", g)
        with self.held():
            for g in given.values():
                g[...] = 0

    # Changes between steps.

    def number_of(self, argument: str, key: str) -> int:
        """The place of the parameter with this key, its name in checkpoints."""
        if not isinstance(key, str) or key not in self.tree.places:
            near = meant(str(key), self.tree.keys)
            way = f"there are {checks.shown(self.tree.keys)}" if near is None else f"did you mean {near!r}?"
            raise ValueError(f"{argument}: no parameter is called {checks.shown(key)}; {way}")
        return self.tree.places[key]

    def places(self) -> dict[str, int]:
        """Key of a parameter -> its place."""
        return self.tree.places

    def reset(self, keys: Sequence[str] | None) -> None:
        """Restart; see `Optimizer.reset`."""
        with self.held_whole() as plan:
            numbers = (
                list(range(len(self.tree.keys))) if keys is None else [self.number_of("names", key) for key in keys]
            )
            initial, steps = _all_initial(self.kind, self.settings, self.groups, self.origins), plan.steps.copy()
            steps[numbers] = 0
            for k in numbers:
                self.store.need_writeable(k, self.tree.names[k])
            plan.begin_change()
            for k in numbers:
                self.store.begin(k, plan.params[k], initial[k])
            plan.set_counts(*((0, 0) if keys is None else (plan.t, plan.skipped)), steps)

    def begin_as_params(self) -> None:
        """Copy the parameters into the states that start as copies of them."""
        every = _all_initial(self.kind, self.settings, self.groups, self.origins)
        for k, (p, initial) in enumerate(zip(self.plan.params, every, strict=True)):
            self.store.begin(k, p, {name: first for name, first in initial.items() if first.value is p})

    def replace(self, key: str, array: np.ndarray, rows: Any) -> None:
        """Replace the array of a parameter; see `Optimizer.replace`."""
        with deferred_signals(), self.plan as plan:
            plan.need_whole()
            plan.make_up()
            self.follow_names()
            self._replace_held(self.number_of("name", key), array, rows)

    def _replace_held(self, k: int, array: np.ndarray, rows: Any) -> None:
        arrays = self.tree.read_again()
        self._need_fitting(arrays, but=k)
        before, arrays[k] = arrays[k], array
        _check_params(self.tree.names, arrays, self.groups.of_params("state_dtype"))
        old, counts = self.plan.params[k], self.plan.counts
        old_rows = continued_rows(self.tree.names[k], rows, array, old)
        states = self._reordered(arrays if old_rows is None else [*arrays[:k], old, *arrays[k + 1 :]])
        if old_rows is not None:
            g = [number for number, branch in enumerate(self.tree.branches) for _ in branch.names][k]
            initial = _initial(self.kind, self.settings, self.groups.rules[g], self.groups.values[g], array)
            states[k] = self.store.continued(k, old, array, old_rows, initial)
            if not (old_rows >= 0).any():
                counts = counts.copy()
                counts[3 + k] = 0
        structure = self.tree.with_array(k, array)
        try:
            if structure.read_again()[k] is not array:
                raise TypeError(f"{structure.names[k]}: the structure that was given does not keep another array")
            for_steps = structure.for_steps()
            self._take_arrays(structure, arrays, states, counts)
        except BaseException:
            structure.with_array(k, before)
            raise
        self.tree, self.source, self.source_node, self.grads_node = for_steps
        if self.owner is None and not structure.is_grouped:
            self.settings["params"] = structure.source

    @contextmanager
    def held(self) -> Iterator[Plan]:
        """Prevent steps and defer signal handlers, while the caller reads or changes the arrays."""
        with deferred_signals(), self.plan:
            self.read_anew()
            yield self.plan

    @contextmanager
    def held_whole(self) -> Iterator[Plan]:
        """The same for a caller that reads: no row lags, and arrays of an unfinished step are refused."""
        with self.held() as plan:
            plan.need_whole()
            plan.make_up()
            yield plan

    def flush(self, rows: Any = None) -> None:
        """Apply the steps that all rows, or some, have missed; see `Optimizer.flush`."""
        if self.is_lazy or not self.store.lags():
            return
        with self.held() as plan:
            plan.need_whole()
            plan.make_up(None if rows is None else self._numbers_of(rows))

    def _numbers_of(self, rows: Any) -> list[Any]:
        """The checked numbers of some rows of each parameter. Frozen ones are included: their rows may lag, too."""
        every = zip(self.tree.names, self.tree.flatten(rows), self.plan.params, strict=True)
        return [
            None if own is None else checks.numbers_in(name, own.index if isinstance(own, Rows) else own, p)
            for name, own, p in every
        ]

    def add_group(self, group: Any) -> None:
        """Add a group of arrays; see `Optimizer.add_param_group`."""
        if self.owner is not None or self.store.folder is not None:
            kept = "states are kept in a folder" if self.owner is None else "parameters are those of an object"
            raise ValueError(f"add_param_group: this optimizer's {kept}; make a new one with all of its groups")
        k, groups = len(self.groups), self.groups
        given = dict(group) if isinstance(group, Mapping) else group
        grads = given.pop("grads", None) if isinstance(given, dict) else None
        if (grads is None) != (self.bound is None):
            raise ValueError(
                f"params[{k}]['grads']: expected gradients to bind, as for the other groups"
                if grads is None
                else f"params[{k}]['grads']: this optimizer has no bound gradients; pass them to step()"
            )
        branch = tree.read_group(k, given)
        label = f"params[{k}]" if branch.options else ""
        values = groups.checked(label, branch.arrays, branch.options or {})
        structure = self.tree.with_group(branch)
        rules = [*groups.rules, self.kind.rule(values)]
        arrays = [*self.plan.params, *branch.arrays]
        said = [*groups.of_params("state_dtype"), *[values.get("state_dtype")] * len(branch.arrays)]
        _check_params(structure.names, arrays, said)
        bound = None if grads is None else structure.grads_with_group(self.bound, tree.listed(grads))
        _check_grads(structure, bound, arrays, [*groups.frozen, values["frozen"]])
        new = Store([], self.plan.counts)
        new.add(branch.arrays, [_initial(self.kind, self.settings, rules[-1], values, p) for p in branch.arrays])
        counts = np.concatenate([self.plan.counts, np.zeros(len(branch.arrays), np.int64)])
        for_steps = structure.for_steps()
        groups.add(label, values)
        try:
            self._lay(structure, arrays, [*self.store.states, *new.states], counts)
        except BaseException:
            groups.drop_last()
            raise
        self.store.states += new.states
        is_followed = self.tree.is_grouped and type(self.bound) is list
        self.tree, self.source, self.source_node, self.grads_node = for_steps  # nothing can fail any more
        if is_followed and bound is not None and len(bound) == len(self.bound) + 1:
            self.bound.append(bound[-1])  # the caller's list, which each step reads
        else:
            self.bound = self.settings["grads"] = bound

    def snapshot(self) -> Snapshot:
        """All that a later run needs. The snapshot refers to the optimizer's arrays, without a copy."""
        plan, keys = self.plan, iter(self.tree.keys)
        groups = [{**values, "params": [next(keys) for _ in values["params"]]} for values in self.groups.values]
        return Snapshot(
            optimizer=self.kind.__name__,
            t=plan.t,
            skipped=plan.skipped,
            seed=plan.seed,
            groups=groups,
            steps=dict(zip(self.tree.keys, plan.steps.tolist(), strict=True)),
            state=dict(zip(self.tree.keys, self.store.states, strict=True)),
            params=dict(zip(self.tree.keys, plan.params, strict=True)),
        )

    def take(self, fit: Fit) -> None:
        """Continue from a snapshot that fits. Nothing can fail here."""
        plan = self.plan
        plan.begin_change()
        fit.copy_states()
        self.settings["seed"] = fit.seed
        self.groups.assign(dict(enumerate(fit.options)))
        self.rates = 0, []
        plan.set_counts(fit.t, fit.skipped, fit.steps, fit.seed)

    def partners(self) -> tuple[list[int], list[Any]]:
        """What `swapped` exchanges with the parameters: each group's operand number, and each parameter's array."""
        for k, (name, p) in enumerate(zip(self.tree.names, self.plan.params, strict=True)):
            checks.writeable(name, p)
            self.store.need_writeable(k, name)
        self.plan.make_up()
        name = self.kind.average
        places = [2 + rule.states.index(name) for rule in self.groups.rules]
        begun = self.plan.steps > 0  # before its first step, the average of a parameter is the parameter itself
        return places, [states[name] if n else None for states, n in zip(self.store.states, begun, strict=True)]

    # Copies.

    def parts(self) -> dict[str, Any]:
        """The contents of a copy or a pickle. Its states are in memory."""
        settings = {**self.settings, "state_dir": None}
        own = {"settings": settings, "tree": self.tree, "groups": self.groups, "states": self.store.states}
        orders = [numbers.order_of(p) for p in self.plan.params]  # unpickled arrays may have another memory order
        return own | {"orders": orders, "counts": self.plan.counts.copy(), "bound": self.bound}

    @classmethod
    def of_parts(cls, kind: Any, parts: dict[str, Any]) -> "Core":
        """The core of a copy. Arrays from another process may be read-only; they are made writeable."""
        make_writeable(_arrays_of(parts))
        store = Store(parts["states"], parts["counts"])
        arrays = [p for values in parts["groups"].values for p in values["params"]]
        store.states = [store.of_order(*every) for every in zip(parts["orders"], arrays, store.states, strict=True)]
        core = cls(kind, parts["settings"], parts["tree"], parts["groups"], store)
        core.bind(parts["bound"])
        return core

    # Laying out the plan.

    def set_tree(self, structure: Tree) -> None:
        """Use this structure from now on."""
        self.tree, self.source, self.source_node, self.grads_node = structure.for_steps()

    def _lay(self, structure: Tree, arrays: Sequence[np.ndarray], states: States, counts: np.ndarray) -> None:
        parts, first = [], 0
        for rule, branch in zip(self.groups.rules, structure.branches, strict=True):
            last = first + len(branch.names)
            own = [list(named.values()) for named in states[first:last]]
            parts.append((backends.kernel(rule, self.settings["backend"]), list(arrays[first:last]), own))
            first = last
        hyper = [self.plan.hyper(k) for k in range(self.plan.n_groups)]
        origins = [origin[:2] for origin in self.origins] or None
        lagging = _lagging(self.groups, arrays)
        self.is_lazy = all(n_scalars is None for n_scalars in lagging)
        logs = [None if n is None else self.store.log(k, arrays[k], n) for k, n in enumerate(lagging)]
        self.plan.lay(parts, structure.names, counts, origins, None if self.is_lazy else logs)
        for k, own_hyper in enumerate(hyper):  # the hyper-parameters of a new group follow before the next step
            self.plan.set_hyper(k, own_hyper)
        self.took = None


class Unchanged:
    """The last item of a copy or a pickle. It checks that no step has changed the arrays since `__getstate__`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._changes = plan.changes

    def __reduce__(self) -> Any:
        if self._plan.changes != self._changes:
            raise RuntimeError(
                "another thread stepped or loaded the optimizer while it was copied; give each its own, or a lock"
            )
        return bool, ()


def _lagging(groups: Groups, arrays: Sequence[Any]) -> list[int | None]:
    """For each parameter, the number of its rule's scalars if its rows may lag, else None."""
    rules = (rule for rule, own in zip(groups.rules, groups.values, strict=True) for _ in own["params"])
    every = zip(rules, groups.of_params("rows"), arrays, strict=True)
    return [rule.n_scalars if said == "exact" and p.ndim else None for rule, said, p in every]


def checked_groups(kind: Any, given: Mapping[str, Any], structure: Tree) -> Groups:
    """The groups of these parameters. Refuses options that are invalid, or do not fit the parameters."""
    groups = Groups(kind, {name: option.check(name, given[name]) for name, option in kind.options.items()})
    for k, branch in enumerate(structure.branches):
        label = f"params[{k}]" if branch.options else ""
        groups.add(label, groups.checked(label, branch.arrays, branch.options or {}))
    _check_params(structure.names, structure.arrays, groups.of_params("state_dtype"))
    return groups


def has_blocks(values: Mapping[str, Any], size: int) -> bool:
    """Whether a group with these options keeps 8-bit states for a whole parameter of this size."""
    return values.get("state_dtype") == "int8" and size >= values["min_8bit_size"]


def _arrays_of(parts: Mapping[str, Any]) -> Iterator[Any]:
    """All arrays of a copy that steps or `zero_grad` write to."""
    structure = parts["tree"]
    bound = parts["bound"] if structure.owner is None else getattr(structure.owner, "__dict__", {}).get("grad")
    yield parts["counts"]
    for values in parts["groups"].values:
        yield from values["params"]
    for named in parts["states"]:
        yield from named.values()
    yield from () if bound is None else structure.flatten(bound, parts["groups"].frozen)


def _check_params(names: Sequence[str], arrays: Sequence[Any], state_dtypes: Sequence[Any]) -> None:
    checks.parameters(list(names), list(arrays))
    for name, p, said in zip(names, arrays, state_dtypes, strict=True):
        if said is not None and checks.computed_in(p) not in _STORED_IN[said]:
            raise ValueError(
                f"state_dtype: {name} is {p.dtype}, which has no states of {said}; leave state_dtype out, or give it a "
                "group with state_dtype=None"
            )


def _check_grads(structure: Tree, bound: Any, arrays: Sequence[Any], frozen: Sequence[bool]) -> None:
    """Check the gradients that are to be bound, if there are any."""
    flat = () if bound is None else structure.flatten(bound, frozen)
    for name, g, p in zip(structure.names, flat, arrays, strict=bound is not None):
        rows = g if isinstance(g, Rows) else as_rows(f"gradient of {name}", g, p.shape)
        if rows is not None:
            checks.row_values(name, rows.index, rows.values, p)
        elif g is not None:
            checks.gradient(name, g, p)


def _initial(
    kind: Any, settings: Mapping[str, Any], rule: Any, values: Values, p: np.ndarray, origin: Origin | None = None
) -> dict[str, First]:
    """Name of a state of a parameter -> its first value."""
    size = p.size if origin is None else origin.size
    begins = kind.first_states(rule, values, p).items()
    found = {name: First(value, _stored_in(rule, name, values, p, size)) for name, value in begins}
    has_master = settings["master_weights"] and p.itemsize == 2
    return found | ({"master": First(p, checks.computed_in(p))} if has_master else {})


def _stored_in(rule: Any, name: str, values: Values, p: np.ndarray, size: int) -> np.dtype[Any]:
    """The dtype of a state in `First`. `size` is that of `p`, or of the whole parameter that `p` is a part of."""
    if values.get("state_dtype") == "bfloat16":
        return options.bfloat16()
    if has_blocks(values, size) and name not in rule.not_in_8_bits:
        return np.dtype(np.uint8 if name in rule.non_negative else np.int8)
    return checks.computed_in(p)


def _all_initial(
    kind: Any, settings: Mapping[str, Any], groups: Groups, origins: Sequence[Origin]
) -> list[dict[str, First]]:
    """The same for all parameters."""
    pairs, rest = zip(groups.rules, groups.values, strict=True), iter(origins)
    return [
        _initial(kind, settings, rule, values, p, next(rest, None)) for rule, values in pairs for p in values["params"]
    ]
