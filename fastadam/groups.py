"""The options of each group of parameters, as plain values.
A change replaces the tuple of all groups' values. A step compares this tuple by identity with that of the last step. It
reads the options only if the tuple is another one.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

import numpy as np

from .kernel._follow import Cell
from .kernel.checks import counted, shown
from .names import Telling, meant, offer
from .options import Option
from .rule import Rule

Values = dict[str, Any]


class Declaration(Protocol):
    """What groups know about an optimizer's class: its options, and the rule that they choose."""

    options: dict[str, Option]

    def check(self, values: Mapping[str, Any], /) -> None:
        """Refuse options that do not go together."""

    def rule(self, values: Mapping[str, Any], /) -> Rule:
        """The rule that these options choose."""


class Groups(Telling, Sequence["Group"]):
    """All groups of one optimizer. `cell` holds their values. `labels` stand in messages for groups without a name."""

    labels: list[str]
    rules: list[Rule]
    cell: Cell

    def __init__(self, declaration: Declaration, defaults: Values) -> None:
        self.declaration = declaration
        self.defaults = defaults
        self.labels = []
        self.rules = []
        self.cell = Cell(())

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all attributes except the rules, which follow from the values."""
        return {name: value for name, value in vars(self).items() if name != "rules"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.rules = [self.declaration.rule(values) for values in self.values]

    @property
    def values(self) -> tuple[Values, ...]:
        """The values of each group, with its arrays under ``"params"``."""
        return self.cell.value  # type: ignore[no-any-return]

    @property
    def frozen(self) -> list[bool]:
        """Whether each group is left out of steps."""
        return [values["frozen"] for values in self.values]

    @property
    def frozen_params(self) -> list[bool]:
        """Whether each parameter is left out of steps."""
        return self.of_params("frozen")

    def of_params(self, name: str) -> list[Any]:
        """The value of an option for each parameter; None if groups have no such option."""
        return [values.get(name) for values in self.values for _ in values["params"]]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        numbers = range(len(self))[index]
        return Group(self, numbers) if isinstance(numbers, int) else tuple(Group(self, k) for k in numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self))})"

    def _no_such(self, name: str, has: str) -> str:
        return "groups have no such attribute; write opt.param_groups[0]['lr'] = …, or opt.add_param_group(…)"

    def checked(self, label: str, arrays: Sequence[np.ndarray], own: Mapping[str, Any]) -> Values:
        """The checked values of a new group with these options."""
        for name in own:
            self._need_known(label, name)
        self._need_unused(label, own.get("name"), self.values)
        options = self.declaration.options
        found = {name: options[name].check(_named(label, name), value) for name, value in own.items()}
        values = {"params": tuple(arrays), **self.defaults, **found}
        self.declaration.check(values)
        return values

    def add(self, label: str, values: Values) -> None:
        """Add a group whose values were `checked`."""
        before = self.labels, self.rules
        self.labels, self.rules = [*self.labels, label], [*self.rules, self.declaration.rule(values)]
        try:
            self._replace(lambda old: (*old, values))
        except BaseException:
            self.labels, self.rules = before
            raise

    def drop_last(self) -> None:
        """Remove the last group."""
        self.labels, self.rules = self.labels[:-1], self.rules[:-1]
        self._replace(lambda old: old[:-1])

    def check(self, k: int, name: str, value: Any) -> Any:
        """The checked value for an option of group `k`. It must not need other states than there are."""
        label = self.label(k)
        self._need_known(label, name)
        if name == "name":
            self._need_unused(label, value, (*self.values[:k], *self.values[k + 1 :]))
        option, own = self.declaration.options[name], self.values[k]
        value = option.check(_named(label, name), value)
        is_other = option.fixed and value != own[name]
        changed = {**own, name: value}
        if is_other or self.declaration.rule(changed) is not self.rules[k]:
            raise ValueError(f"{_named(label, name)}: {shown(value)} needs other states; choose it at construction")
        self.declaration.check(changed)
        return value

    def assign(self, changes: Mapping[int, Mapping[str, Any]]) -> None:
        """Assign checked values to groups. A step that runs meanwhile sees all of them, or none."""
        self._replace(lambda old: tuple({**values, **changes.get(k, {})} for k, values in enumerate(old)))

    def assign_to_all(self, given: Mapping[str, Any]) -> None:
        """Check these options for every group, then assign them to all groups. On an error no group changes."""
        every = range(len(self))
        self.assign({k: {name: self.check(k, name, value) for name, value in given.items()} for k in every})

    def _replace(self, change: Callable[[tuple[Values, ...]], tuple[Values, ...]]) -> None:
        """Replace all values at once. If another thread has changed them meanwhile, try again."""
        old = self.values
        while not self.cell.swap(old, change(old)):
            old = self.values

    def label(self, k: int) -> str:
        """The name of group `k` in messages."""
        name = self.values[k]["name"]
        return self.labels[k] if name is None else f"group {name!r}"

    def _need_unused(self, label: str, name: Any, others: Sequence[Values]) -> None:
        for other in others if name is not None else ():
            if other["name"] == name:
                raise ValueError(f"{_named(label, 'name')}: another group is called {shown(name)}; take another name")

    def _need_known(self, label: str, name: str) -> None:
        if name not in self.declaration.options:
            own = offer(name, self.declaration.options, "a group has")
            raise ValueError(f"{_named(label, name)}: unknown option; {own}")


class Group(Telling, MutableMapping[str, Any]):
    """A group of parameters and its options. An assignment is checked at once, and holds from the next step on."""

    __slots__ = ("_groups", "_index")

    def __init__(self, groups: Groups, index: int) -> None:
        self._groups = groups
        self._index = index

    def __eq__(self, other: object) -> bool:
        """Whether both have the same arrays and equal options."""
        if not isinstance(other, Group):
            return NotImplemented
        mine, theirs = dict(self), dict(other)
        arrays, others = mine.pop("params"), theirs.pop("params")
        return mine == theirs and len(arrays) == len(others) and all(map(operator.is_, arrays, others))

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Values:
        """A plain dict."""
        return dict(self)

    def __getitem__(self, name: str) -> Any:
        return self._groups.values[self._index][name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several options. On an error none is assigned."""
        given = dict(*args, **kwargs)
        values = {name: self._groups.check(self._index, name, value) for name, value in given.items()}
        self._groups.assign({self._index: values})

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: an option of a group cannot be deleted; assign another value")

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups.values[self._index])

    def __len__(self) -> int:
        return len(self._groups.values[self._index])

    def __repr__(self) -> str:
        options = self._groups.declaration.options
        told = {name: value for name, value in self.items() if name in options}  # without options that are rarely set
        told = {name: value for name, value in told.items() if options[name].init or value != options[name].default}
        values = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"{counted(len(self['params']), 'array')}: {values}"

    def _no_such(self, name: str, has: str) -> str:
        key = name if name in self else meant(name, self) or "lr"
        return f"a group has its options under keys; write group[{key!r}]"


def _named(label: str, option: str) -> str:
    return f"{label}[{option!r}]" if label else option
