"""The four things of one optimizer, and what they do together: a tree of parameters, their groups of options, the store
of their states, and the plan that steps them. It follows what may change between steps; it knows no algorithm.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from . import options, tree
from .groups import Groups, Values
from .kernel import backends, checks
from .kernel._follow import Follower
from .kernel._plan import Plan
from .kernel._signals import deferred_signals
from .state.snapshot import Fit, Snapshot
from .state.store import Store
from .tree import Tree


class Core(Follower):
    """What an optimizer of the class `kind` is made of, in one object that makes its steps."""

    def __init__(
        self, kind: Any, settings: dict[str, Any], structure: Tree, groups: Groups, store: Store, origins: Any = None
    ) -> None:
        super().__init__(Plan(settings["n_threads"], settings["seed"]), groups.cell)
        self.kind, self.settings, self.groups, self.store = kind, settings, groups, store
        self.origins = origins
        self._lay(structure, [p for values in groups.values for p in values["params"]], store.states, store.counts)
        self.set_tree(structure)
        self.note_masters()

    @classmethod
    def make(cls, kind: Any, given: Mapping[str, Any], origins: Any = None) -> "Core":
        """The core of a new optimizer, given the value of each field that its class declares."""
        defaults = {name: option.check(name, given[name]) for name, option in kind.options.items()}
        settings = {name: setting.check(name, given[name]) for name, setting in kind.settings.items()}
        settings |= {name: tree.listed(given[name]) for name in ("params", "grads")}
        structure, bound = tree.read(settings["params"]), settings["grads"]
        if structure.owner is not None and bound is not None:
            raise ValueError("grads: an object brings its own gradients as .grad; leave grads out, or pass its arrays")
        groups = Groups(kind, defaults)
        for k, branch in enumerate(structure.branches):
            label = f"params[{k}]" if branch.options else ""
            groups.add(label, groups.checked(label, branch.arrays, branch.options or {}))
        _check_params(structure.names, structure.arrays, settings)
        _check_grads(structure, bound, structure.arrays)
        store = Store.new(settings, kind.__name__, groups.rules, structure.keys, structure.arrays)
        with store.undone_on_error():
            store.add(structure.arrays, _states_at_first(groups.rules, groups.values, kind, settings))
            core = cls(kind, settings, structure, groups, store, origins)
            store.commit(core.plan)
            core.bind(bound)
        return core

    # Steps: what `Follower` asks for where something is not as it was.

    def flatten(self, grads: Any) -> list[Any]:
        """Gradients in a structure of any kind, one a parameter."""
        if grads is None:
            none_bound = " and none are bound; call step(grads), or construct with grads="
            way = none_bound if self.owner is None else ", and the object's .grad is None"
            raise RuntimeError(f"grads: none were given{way}")
        return self.tree.flatten(grads)

    def refresh(self) -> None:
        """Give the plan, which is held, the options as they are now, and the rates of its next step."""
        values, t = self.groups.values, self.plan.t + 1
        rates = [self.kind.schedule(own) for own in values]
        hyper = [
            self.kind.hyper_values(rule, own, options.rate_at(rate, t))
            for rule, own, rate in zip(self.groups.rules, values, rates, strict=True)
        ]
        for k, numbers in enumerate(hyper):
            self.plan.set_hyper(k, numbers)
        self.took = None if any(map(callable, rates)) else values

    def follow(self) -> None:
        """Step the arrays that stand in the structure now, with the states of those that stood there."""
        arrays, planned = self.tree.read_again(), self.plan.params
        for name, new, old in zip(self.tree.names, arrays, planned, strict=True):
            if new is not old:
                checks.parameter(name, new)
                checks.like(name, new, old)
        if all(new is old for new, old in zip(arrays, planned, strict=True)):
            return
        with deferred_signals():
            self._lay(self.tree, arrays, self.store.states, self.plan.counts)
            self.late_masters = [k for k, of in self.masters_of.items() if of() is not arrays[k]]
            rest = iter(arrays)
            cut = [tuple(islice(rest, len(values["params"]))) for values in self.groups.values]
            self.groups.assign({k: {"params": params} for k, params in enumerate(cut)})

    def note_masters(self) -> None:
        """Know that all master weights are those of the parameters that the plan has."""
        self.masters_of: dict[int, Any] = {}
        self.late_masters = []
        self.note_masters_from(0)

    def note_masters_from(self, first: int) -> None:
        """The same, of the parameters from this number on."""
        states = self.store.states
        pairs = zip(range(first, len(states)), self.plan.params[first:], states[first:], strict=True)
        self.masters_of |= {k: weakref.ref(p) for k, p, own in pairs if "master" in own}

    def take_masters(self) -> None:
        """Let each master weight begin as the array that has taken its parameter's place."""
        for k in self.late_masters:
            self.store.states[k]["master"][...] = self.plan.params[k]
        self.note_masters()

    def states(self) -> list[dict[str, np.ndarray]]:
        """The states as a step would find them: a master weight is that of the parameter that stands there now."""
        found = list(self.store.states)
        for k in self.late_masters:
            found[k] = {**found[k], "master": self.plan.params[k].astype(np.float32)}
        return found

    def bind(self, grads: Any) -> None:
        """Read gradients in this structure at each step that is given none."""
        if grads is not None:
            self.plan.admit(self.tree.flatten(grads))
        self.bound = grads

    def zero_grads(self) -> None:
        """Set the bound gradients, or the object's, to zero."""
        if self.owner is not None and callable(getattr(self.owner, "zero_grad", None)):
            self.owner.zero_grad()
            return
        grads = self.bound if self.owner is None else self.owner.grad
        if grads is None:
            way = "no gradients are bound; zero your own, or construct with grads="
            raise RuntimeError(f"zero_grad: {way if self.owner is None else 'the .grad of the object is None'}")
        flat = self.tree.flatten(grads)
        for name, g in zip(self.tree.names, flat, strict=True):
            checks.writeable(f"gradient of {name}", g)
        with self.held():
            for g in flat:
                g[...] = 0

    # Changes between steps.

    @contextmanager
    def held(self) -> Iterator[Plan]:
        """Keep steps out, and signals' handlers, for whoever reads or changes the arrays between steps."""
        with deferred_signals(), self.plan:
            self.read_anew()
            yield self.plan

    @contextmanager
    def held_whole(self) -> Iterator[Plan]:
        """The same, for whoever reads: arrays of two steps are refused."""
        with self.held() as plan:
            plan.need_whole()
            yield plan

    def add_group(self, group: Any) -> None:
        """Step more arrays from now on; see `Optimizer.add_param_group`."""
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
        _check_params(structure.names, arrays, self.settings)
        bound = None if grads is None else structure.grads_with_group(self.bound, tree.listed(grads))
        _check_grads(structure, bound, arrays)
        new = Store(self.settings["state_dtype"], [], self.plan.counts)
        new.add(branch.arrays, _states_at_first(rules[-1:], [values], self.kind, self.settings))
        groups.add(label, values)
        try:
            counts = np.concatenate([self.plan.counts, np.zeros(len(branch.arrays), np.int64)])
            self._lay(structure, arrays, [*self.store.states, *new.states], counts)
        except BaseException:
            groups.drop_last()
            raise
        first = len(self.store.states)
        self.store.states += new.states
        self.note_masters_from(first)
        is_followed = self.tree.is_grouped and type(self.bound) is list
        self.set_tree(structure)
        if is_followed and bound is not None and len(bound) == len(self.bound) + 1:
            self.bound.append(bound[-1])  # the caller's list, which is read anew at each step
        else:
            self.bound = self.settings["grads"] = bound

    def snapshot(self, is_target: bool = False) -> Snapshot:
        """All that a later run needs, over the optimizer's own arrays; where it `is_target`, those to load into."""
        plan, keys = self.plan, iter(self.tree.keys)
        groups = [{**values, "params": [next(keys) for _ in values["params"]]} for values in self.groups.values]
        return Snapshot(
            optimizer=self.kind.__name__,
            t=plan.t,
            skipped=plan.skipped,
            seed=plan.seed,
            groups=groups,
            steps=dict(zip(self.tree.keys, plan.steps.tolist(), strict=True)),
            state=dict(zip(self.tree.keys, self.store.states if is_target else self.states(), strict=True)),
            params=dict(zip(self.tree.keys, plan.params, strict=True)),
        )

    def take(self, fit: Fit) -> None:
        """Go on from a snapshot that fits; nothing can fail here."""
        plan = self.plan
        plan.begin_change()
        self.take_masters()  # of what the snapshot has not
        fit.copy_arrays()
        self.settings["seed"] = fit.seed
        self.groups.assign(dict(enumerate(fit.options)))
        plan.set_counts(fit.t, fit.skipped, fit.steps, fit.seed)

    # Copies.

    def parts(self) -> dict[str, Any]:
        """What a copy or a pickle holds; its states are in memory."""
        settings = {**self.settings, "state_dir": None}
        own = {"settings": settings, "tree": self.tree, "groups": self.groups, "states": self.states()}
        return own | {"counts": self.plan.counts.copy(), "bound": self.bound}

    @classmethod
    def of_parts(cls, kind: Any, parts: dict[str, Any]) -> "Core":
        """The core of a copy."""
        store = Store(parts["settings"]["state_dtype"], parts["states"], parts["counts"])
        core = cls(kind, parts["settings"], parts["tree"], parts["groups"], store)
        core.bind(parts["bound"])
        return core

    # What the plan is laid out from.

    def set_tree(self, structure: Tree) -> None:
        """Follow this structure from now on."""
        self.tree, self.owner = structure.without_arrays(), structure.owner
        self.source = structure.source
        self.source_node = structure.source_node and structure.source_node.plain()
        self.grads_node = structure.grads_node and structure.grads_node.plain()

    def _lay(
        self, structure: Tree, arrays: Sequence[np.ndarray], states: Sequence[dict[str, np.ndarray]], counts: np.ndarray
    ) -> None:
        parts, first = [], 0
        for rule, branch in zip(self.groups.rules, structure.branches, strict=True):
            last = first + len(branch.names)
            own = [list(named.values()) for named in states[first:last]]
            parts.append((backends.kernel(rule, self.settings["backend"]), list(arrays[first:last]), own))
            first = last
        hyper = [self.plan.hyper(k) for k in range(self.plan.n_groups)]
        self.plan.lay(parts, structure.names, counts, self.origins)
        for k, numbers in enumerate(hyper):  # a new group gets its own before the next step
            self.plan.set_hyper(k, numbers)
        self.took = None


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


def _check_params(names: Sequence[str], arrays: Sequence[Any], settings: Mapping[str, Any]) -> None:
    checks.parameters(list(names), list(arrays))
    for name, p in zip(names, arrays, strict=True):
        if settings["state_dtype"] is not None and p.dtype == np.float64:
            raise ValueError(f"state_dtype: {name} is float64, whose states are, too; leave state_dtype out")


def _check_grads(structure: Tree, bound: Any, arrays: Sequence[Any]) -> None:
    """Check gradients that are to be bound, where there are any."""
    flat = () if bound is None else structure.flatten(bound)
    for name, g, p in zip(structure.names, flat, arrays, strict=bound is not None):
        checks.gradient(name, g, p)


def _states_at_first(
    rules: Sequence[Any], values: Sequence[Values], kind: Any, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the states of each parameter hold at first, by name: a number, or the array of a master weight."""
    found = []
    for rule, own in zip(rules, values, strict=True):
        for p in own["params"]:
            initial: dict[str, Any] = dict.fromkeys(rule.states, kind.initial(own))
            found.append(initial | ({"master": p} if settings["master_weights"] and p.itemsize == 2 else {}))
    return found
