"""Subclasses of the optimizers and of adapters' classes: hooks of other bases, and attributes that survive copies."""

import abc
import copy
import dataclasses
import importlib
import pickle
import types
import typing
from typing import Any

import numpy as np
import pytest

import fastadam

T = typing.TypeVar("T")
COPIES = [copy.deepcopy, *(lambda o, p=p: pickle.loads(pickle.dumps(o, p)) for p in range(6))]


class Hooked:
    """Another base: it is told of subclasses."""

    told: typing.ClassVar[list[Any]] = []

    def __init_subclass__(cls, key: int = 0, **more: Any) -> None:
        super().__init_subclass__(**more)
        Hooked.told.append((cls.__name__, key, hasattr(cls, "declared")))


@pytest.mark.parametrize("base", [fastadam.Adam, fastadam.SGD, fastadam.Average, fastadam.Optimizer])
@pytest.mark.parametrize("ours_first", [True, False])
def test_hooks_of_other_bases_get_the_keywords(base: Any, ours_first: bool) -> None:
    Hooked.told.clear()
    bases = (base, Hooked) if ours_first else (Hooked, base)
    made = types.new_class("Mine", bases, {"key": 7})
    types.new_class("Theirs", (made,))
    assert Hooked.told == [("Mine", 7, True), ("Theirs", 0, True)]
    for other in (base, made):
        with pytest.raises(TypeError, match=r"__init_subclass__\(\) takes no keyword arguments"):
            types.new_class("Wrong", (other,), {"unknown": 1})


class Generic(fastadam.Adam, typing.Generic[T]):
    __slots__ = ("note",)


class GenericFirst(typing.Generic[T], fastadam.Adam):
    note: Any


@pytest.mark.parametrize("kind", [Generic, GenericFirst])
def test_generic_classes(kind: Any) -> None:
    opt = kind[int](p := np.ones(3), lr=0.5)
    opt.note = 4
    opt.step(np.ones(3))
    assert p[0] == pytest.approx(0.5)
    for copied in COPIES:
        again = copied(opt)
        assert (type(again), again.note, again.__orig_class__, again.t) == (kind, 4, kind[int], 1)


class Described:
    """A descriptor that learns its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}_of_{owner.__name__}"

    def __get__(self, optimizer: Any, kind: Any = None) -> Any:
        return self if optimizer is None else getattr(optimizer, self.name)

    def __set__(self, optimizer: Any, value: Any) -> None:
        setattr(optimizer, self.name, value)


class Abstract(fastadam.Adam, abc.ABC):
    @abc.abstractmethod
    def kind_of(self) -> str: ...


class Rich(Abstract):
    __slots__ = ("__mangled", "_hidden", "public")
    plain: int
    described = Described()

    def __init__(self, params: Any, plain: int, **options: Any) -> None:
        super().__init__(params, **options)
        self.plain, self.public, self._hidden, self.__mangled, self.described = plain, 1, 2, 3, 4

    def __class_getitem__(cls, item: Any) -> Any:
        return cls.__name__, item

    def kind_of(self) -> str:
        return "rich"

    @property
    def twice(self) -> int:
        return self.plain * 2

    @twice.setter
    def twice(self, value: int) -> None:
        self.plain = value // 2

    def all(self) -> tuple[Any, ...]:
        return self.plain, self.public, self._hidden, self.__mangled, self.described, self.twice, self.lr


@pytest.mark.parametrize("copied", COPIES)
def test_attributes_survive_copies(copied: Any) -> None:
    opt = Rich(np.ones(3), 5, lr=0.25)
    opt.twice = 12
    assert opt.all() == (6, 1, 2, 3, 4, 12, 0.25)
    again = copied(opt)
    assert again.all() == opt.all()
    again.step(np.ones(3))
    assert (again.t, opt.t) == (1, 0)
    assert Rich["x"] == ("Rich", "x")
    with pytest.raises(TypeError, match="abstract"):
        Abstract(np.ones(3))


def test_a_dataclass_of_an_optimizer() -> None:
    @dataclasses.dataclass(init=False, eq=False)
    class Data(fastadam.Adam):
        note: int = 3

    opt = Data(np.ones(3), lr=0.5)
    assert (opt.note, opt.lr, copy.deepcopy(opt).note) == (3, 0.5, 3)


ADAPTERS = {
    "article": ("Adam", lambda kind: kind(types.SimpleNamespace(parameters=np.ones(3), grad=np.ones(3)))),
    "river": ("Adam", lambda kind: kind(0.1)),
    "pennylane": ("AdamOptimizer", lambda kind: kind(0.1)),
    "thinc": ("Optimizer", lambda kind: kind(fastadam.Adam, 0.1)),
    "pints": ("Adam", lambda kind: kind(np.ones(3))),
    "qiskit": ("ADAM", lambda kind: kind()),
}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copied", "pickled"])
@pytest.mark.parametrize("has_slots", [True, False], ids=["slots", "no slots"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_attributes_of_adapters_survive_copies(name: str, has_slots: bool, copied: Any, monkeypatch: Any) -> None:
    try:
        module = importlib.import_module(f"fastadam.adapters.{name}")
    except ImportError as error:
        pytest.skip(str(error))
    base, make = ADAPTERS[name]
    declared = {"__slots__": ("noted",)} if has_slots else {"noted": None}
    kind = type("Noted", (getattr(module, base),), {"__module__": __name__, **declared})
    monkeypatch.setitem(globals(), "Noted", kind)
    opt = make(kind)
    opt.noted = 5
    again = copied(opt)
    assert type(again) is kind
    assert again.noted == 5
