"""`Algorithm`: an optimizer's class without arrays. It maps options to a rule and to values of its hyper-parameters.
The adapters keep their own states, so they need only this part of an optimizer.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .options import Declared, Rate
from .rule import Rule
from .rules import RULES


class Algorithm(Declared):
    """The base class of all optimizers that knows no arrays."""

    #: the names of the rules that the options may choose; the first is that of the defaults
    rules: ClassVar[tuple[str, ...]] = ()
    #: name of a state -> its name in torch's optimizer of the same name; empty if torch has no such optimizer
    torch_names: ClassVar[dict[str, str]] = {}
    #: the numbers that torch stores for each parameter, besides the states
    torch_scalars: ClassVar[tuple[str, ...]] = ("step",)
    #: the state that is an average of the parameter, which `swapped` puts in its place; empty if there is none
    average: ClassVar[str] = ""
    #: hyper-parameters of the rules that no option sets; others have the rule's default, or 0
    constants: ClassVar[dict[str, float]] = {}
    #: name of a rule -> for each of its hyper-parameters the option that sets it, and the index in a tuple
    _sources: ClassVar[dict[str, list[tuple[str | None, Any]]]]

    def __init_subclass__(cls, **keywords: Any) -> None:
        cls._sources = {}
        super().__init_subclass__(**keywords)

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """The rule that these options choose."""
        return RULES[cls.rules[0]]

    @classmethod
    def schedule(cls, values: Mapping[str, Any]) -> Rate:
        """The learning rate that these options give: a number, or a function of the step count."""
        return values["lr"]  # type: ignore[no-any-return]

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Refuse options that are valid by themselves, but not together."""

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """Name of a state of the parameter `p` -> its value before the first step: a number or `p`. Others are zero."""
        return {}

    @classmethod
    def first_states(cls, rule: Rule, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """The same for every state of the rule. For a complex parameter, both parts of a state start with the value."""
        found = dict.fromkeys(rule.states, 0.0) | cls.initial(values, p)
        if p.dtype.kind == "c":
            return {name: complex(first, first) if type(first) is float else first for name, first in found.items()}
        return found

    @classmethod
    def hyper_values(cls, rule: Rule, values: Mapping[str, Any], rate: float) -> tuple[float, ...]:
        """The values of the rule's hyper-parameters, in the rule's order, for these options and this rate."""
        if rule.name not in cls._sources:
            given = {hyper: (name, k) for name, own in cls.options.items() for k, hyper in enumerate(own.hyper)}
            others = rule.defaults | cls.constants
            cls._sources[rule.name] = [given.get(hyper, (None, others.get(hyper, 0.0))) for hyper in rule.hyper]
        found: list[float] = []
        for name, place in cls._sources[rule.name]:
            value = rate if name == "lr" else place if name is None else values[name]
            found.append(float(value[place] if type(value) is tuple else value))
        return tuple(found)
