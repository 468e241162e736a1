"""What an optimizer's class says of itself beside its options: which rule they choose, with which hyper-parameters.
The adapters, which have states of their own, need no more of an optimizer than this.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .options import Declared, Rate
from .rule import Rule
from .rules import RULES


class Algorithm(Declared):
    """The base of all optimizers that knows no array."""

    #: the names of the rules that a class may choose, the one of its defaults first
    rules: ClassVar[tuple[str, ...]] = ()
    #: own name of a state -> the name that torch's optimizer of this class gives it; empty where torch has none
    torch_names: ClassVar[dict[str, str]] = {}
    #: the numbers that torch keeps of each parameter beside its states
    torch_scalars: ClassVar[tuple[str, ...]] = ("step",)
    #: the state that is an average of the parameter, and what shall be used in its place; empty where there is none
    average: ClassVar[str] = ""
    #: hyper-parameters of the rules that no option gives; others have the rule's default, or 0
    constants: ClassVar[dict[str, float]] = {}
    #: name of a rule -> for each of its hyper-parameters the option that gives it, and which of a pair's values
    _sources: ClassVar[dict[str, list[tuple[str | None, Any]]]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._sources = {}

    @classmethod
    def rule(cls, values: Mapping[str, Any]) -> Rule:
        """The rule that these options choose."""
        return RULES[cls.rules[0]]

    @classmethod
    def schedule(cls, values: Mapping[str, Any]) -> Rate:
        """The learning rate of these options: a number, or a function of the step count."""
        return values["lr"]  # type: ignore[no-any-return]

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Refuse options that are right by themselves, but not together."""

    @classmethod
    def initial(cls, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """What states of the parameter `p` hold before its first step, by name: a number or `p`; others hold zeros."""
        return {}

    @classmethod
    def first_states(cls, rule: Rule, values: Mapping[str, Any], p: Any) -> dict[str, Any]:
        """The same of every state of the rule. Those of a complex parameter are pairs of numbers, which begin alike."""
        found = dict.fromkeys(rule.states, 0.0) | cls.initial(values, p)
        if p.dtype.kind == "c":
            return {name: complex(first, first) if type(first) is float else first for name, first in found.items()}
        return found

    @classmethod
    def hyper_values(cls, rule: Rule, values: Mapping[str, Any], rate: float) -> tuple[float, ...]:
        """The values of the rule's hyper-parameters, in its order, that these options and this rate give."""
        if rule.name not in cls._sources:
            given = {hyper: (name, k) for name, own in cls.options.items() for k, hyper in enumerate(own.hyper)}
            others = rule.defaults | cls.constants
            cls._sources[rule.name] = [given.get(hyper, (None, others.get(hyper, 0.0))) for hyper in rule.hyper]
        found: list[float] = []
        for name, place in cls._sources[rule.name]:
            value = rate if name == "lr" else place if name is None else values[name]
            found.append(float(value[place] if type(value) is tuple else value))
        return tuple(found)
