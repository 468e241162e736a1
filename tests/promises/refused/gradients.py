"""Gradients that do not fit: one of three, the 57th of a hundred in every structure, and other structures."""

import itertools
from collections import OrderedDict, UserDict, UserList
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from numpy import ones
from numpy.lib.stride_tricks import as_strided

from fastadam import Adam, Rows

from . import worlds
from .case import ALL, DTYPE, Case
from .worlds import as_groups, as_list, as_mapping, running

SHAPE = "expected shape (4,) like the parameter, got "
#: the third step's gradients, of shapes (2, 3), (4,) and (3,), as they should be -> what is given instead
GRADIENTS: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("too few", lambda g: g[:2], ValueError, "grads: expected 3 gradients, one for each parameter, got 2"),
    ("too many", lambda g: [*g, g[0]], ValueError, "grads: expected 3 gradients, one for each parameter, got 4"),
    ("none", lambda g: [], ValueError, "grads: expected 3 gradients, one for each parameter, got 0"),
    ("one array", lambda g: g[0], TypeError, "grads: expected a sequence like params, got ndarray"),
    ("mapping", lambda g: dict(enumerate(g)), TypeError, "grads: expected a sequence like params, got dict"),
    ("number", lambda g: 1.0, TypeError, "grads: expected a sequence like params, got float"),
    ("text", lambda g: "abc", TypeError, "grads: expected a sequence like params, got str"),
    ("set", lambda g: {1, 2, 3}, TypeError, "grads: a set has no order by which arrays are matched; pass a list or"),
    ("transposed", lambda g: [g[0].T, *g[1:]], ValueError, "gradient of params[0]: expected shape (2, 3) like the p"),
    ("first two", lambda g: [g[1], g[0], g[2]], ValueError, "gradient of params[0]: expected shape (2, 3) like the p"),
]  # fmt: skip

#: gradient number 56 of a hundred, which should be float32 of shape (4,); `w.good[55]` and `w.params` are others
WRONG: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "shape": (lambda w: ones(5, "f4"), ValueError, f"{SHAPE}(5,)"),
    "broadcastable": (lambda w: ones(1, "f4"), ValueError, f"{SHAPE}(1,)"),
    "dimensions": (lambda w: ones((4, 1), "f4"), ValueError, f"{SHAPE}(4, 1)"),
    "without axes": (lambda w: np.float32(1), (TypeError, ValueError), "expected …, got "),
    "complex": (lambda w: ones(4, "c8"), TypeError, "expected real numbers like the parameter, got complex64"),
    "objects": (lambda w: ones(4, object), TypeError, f"{DTYPE}object"),
    "masked": (lambda w: np.ma.ones(4, "f4"), TypeError, "a masked array is not supported, its mask would be ignored"),
    "sparse": (lambda w: scipy.sparse.coo_array(ones(4, "f4")), TypeError, "expected real numbers, got coo_array"),
    "text": (lambda w: "1234", TypeError, "expected real numbers, got <U4"),
    "function": (lambda w: ones, TypeError, "expected real numbers, got "),
    "ragged": (lambda w: [1.0, [2.0], 3.0, 4.0], TypeError, "expected real numbers, got [1.0, [2.0], 3.0, 4.0] of"),
    "parameter": (lambda w: w.params[56], ValueError, "shares memory with a parameter or a state, which the step ch"),
    "another's": (
        lambda w: w.params[6],
        ValueError,
        "shares memory with a parameter or a state, which the step changes; pas",
    ),
    "state": (lambda w: w.opt.state["v"][6], ValueError, "shares memory with a parameter or a state, which the st"),
}  # fmt: skip
#: likewise, where gradients are to be left zero
NOT_ZEROED: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "read-only": (
        lambda w: np.broadcast_to(np.float32(1), 4),
        ValueError,
        "the array is read-only and would be written",
    ),
    "one place": (
        lambda w: as_strided(ones(4, "f4"), (4,), (0,)),
        ValueError,
        "several of its elements share memory",
    ),
    "integers": (lambda w: ones(4, int), TypeError, "zero_grads: the gradient of …came as ndarray, and was read a"),
    "list": (lambda w: [1.0] * 4, TypeError, "zero_grads: the gradient of …came as list, and was read as an"),
    "another": (lambda w: w.good[51], ValueError, "gradient of …share memory"),
}  # fmt: skip

NAMES = {
    as_list: "params[56]",
    as_mapping: "params['layer56']",
    as_groups: "params[1]['params']['layer23']",
}


def fifty_seventh() -> list[Case]:
    """Every manner in every structure, with nothing and all that a step may do to gradients; in a list, with each."""
    made = []
    for (shape, place), (wrong, row) in itertools.product(NAMES.items(), (WRONG | NOT_ZEROED).items()):
        give, error, text = row
        text = text if text.startswith(("gradient", "zero_grads")) else f"gradient of {place}: {text}"
        alone = [{name: value} for name, value in ALL.items()] if shape is as_list else []
        ways = [{}, *alone, ALL]
        for extras in ways:
            if wrong in NOT_ZEROED and "zero_grads" not in extras:
                continue
            call = partial(lambda w, extras: w.opt.step(w.given, **extras), extras=extras)
            name = f"57th of 100, {shape.__name__}, {wrong}, {'+'.join(extras) or 'plain'}"
            made.append(Case(name, partial(worlds.hundred, shape=shape, wrong=give), call, error, text))
    return made


def broken_off(grads: Any) -> Any:
    yield from grads[:56]
    raise OSError("the disk is gone")


class Torn(dict):
    """A mapping that fails at its 57th key."""

    def __getitem__(self, key: str) -> Any:
        if key == "layer56":
            raise OSError("the disk is gone")
        return super().__getitem__(key)


GONE = "the disk is gone"
a_hundred = partial(worlds.hundred, wrong=lambda w: ones(4, "f4"))
in_groups = partial(running, shape=as_groups)
in_mapping = partial(running, shape=as_mapping)
STRUCTURES = [
    Case("generator that fails", partial(a_hundred, shape=as_list), lambda w: w.opt.step(broken_off(w.good)), OSError,
     GONE),
    Case("generator that ends", partial(a_hundred, shape=as_list), lambda w: w.opt.step(iter(w.good[:56]), **ALL),
     ValueError, "grads: expected 100 gradients, one for each parameter, got 56"),
    Case("mapping that fails", partial(a_hundred, shape=as_mapping), lambda w: w.opt.step(Torn(w.given), **ALL),
     OSError, GONE),
    Case("mapping without the 57th", partial(a_hundred, shape=as_mapping),
     lambda w: w.opt.step({key: g for key, g in w.given.items() if key != "layer56"}, **ALL), ValueError,
     "grads: expected the keys of params; missing: ['layer56'], unknown: []; pass None for a parameter"),
    Case("mapping of other names", in_mapping, lambda w: w.opt.step(dict(zip("abc", w.good, strict=True))), ValueError,
     "grads: expected the keys of params; missing: ['layer0', 'layer1', 'layer2'], unknown: ['a', 'b', 'c']"),
    Case("mapping of none", partial(a_hundred, shape=as_mapping), lambda w: w.opt.step({}), ValueError,
     "grads: expected the keys of params; missing: ['layer0', 'layer1', …, unknown: []"),
    Case("list for mapping", in_mapping, lambda w: w.opt.step(w.good), TypeError,
     "grads: expected a mapping like params, got list"),
    Case("set for mapping", in_mapping, lambda w: w.opt.step({"layer0"}), TypeError, "grads: a set has no order"),
    Case("pairs of one name", in_mapping, lambda w: w.opt.step([("layer0", w.good[0])] * 3), ValueError,
     "grads: expected different names, got ['layer0', 'layer0', 'layer0']"),
    Case("two groups of three", in_groups, lambda w: w.opt.step(as_groups(w.good)[:2]), ValueError,
     "grads: expected 3 groups (or 3 arrays in order), got 2 entries"),
    Case("list for a group's mapping", in_groups, lambda w: w.opt.step([w.good[:1], w.good[1:2], w.good[2:]]),
     TypeError, "grads[1]: expected a mapping like params, got list"),
    Case("too many in the last group", in_groups, lambda w: w.opt.step([*as_groups(w.good)[:2], [w.good[2]] * 2]),
     ValueError, "grads[2]: expected 1 gradient, one for each parameter, got 2"),
    Case("array for groups", in_groups, lambda w: w.opt.step(w.good[0]), TypeError,
     "grads: expected a sequence with an entry for each group, got ndarray"),
    Case("no gradients", running, lambda w: w.opt.step(), RuntimeError,
     "grads: none were given and none are bound; call step(grads), or construct with grads="),
    Case("none to zero", running, lambda w: w.opt.zero_grad(), RuntimeError,
     "zero_grad: no gradients are bound; zero y"),
    Case("bound, read-only, zero_grad", worlds.bound, lambda w: w.opt.zero_grad(), ValueError,
     "gradient of params[1]: the array is read-only and would be written in place; pass a writeable copy"),
    Case("bound, read-only, zero_grads", worlds.bound, lambda w: w.opt.step(zero_grads=True), ValueError,
     "gradient of params[1]: the array is read-only and would be written in place; pass a writeable copy"),
    Case("bound, others given", worlds.bound, lambda w: w.opt.step([w.good[0], "", w.good[2]]), TypeError,
     "gradient of params[1]: expected real numbers, got <U1"),
    Case("bound, group without gradients", worlds.bound, lambda w: w.opt.add_param_group({"params": ones(2)}),
     ValueError, "params[1]['grads']: expected gradients to bind, as for the other groups"),
    Case("bound, group with another's shape", worlds.bound,
     lambda w: w.opt.add_param_group({"params": ones(2), "grads": ones(3)}), ValueError,
     "gradient of params[1]['params']: expected shape (2,) like the parameter, got (3,)"),
    Case("object without a gradient", partial(worlds.of_object, grad=None), lambda w: w.opt.zero_grad(), RuntimeError,
     "zero_grad: the .grad of the object is None"),
    Case("object of another shape", partial(worlds.of_object, parameters=ones(4)), lambda w: w.opt.step(), ValueError,
     "params: expected shape (3,) like the parameter, got (4,)"),
    Case("object of another dtype", partial(worlds.of_object, parameters=ones(3, int)), lambda w: w.opt.step(),
     TypeError, f"params: {DTYPE}int64"),
    Case("object and a group", worlds.of_object, lambda w: w.opt.add_param_group({"params": ones(2)}), ValueError,
     "add_param_group: this optimizer's parameters are those of an object; make a new one with all of its groups"),
]  # fmt: skip

#: how a mapping may be given
KINDS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "ordered dict": OrderedDict,
    "user dict": UserDict,
    "pairs": lambda named: list(named.items()),
}
#: where it may stand: the structure around it, its place in messages
AROUND: dict[str, tuple[Callable[[Any], Any], str]] = {
    "alone": (lambda own: own, ""),
    "in a list": (lambda own: [own, ones(1)], "[0]"),
    "in a dict": (lambda own: {"rest": ones(1), "layer": own}, "['layer']"),
    "in a group": (lambda own: [{"params": own}, {"params": [ones(1)]}], "[0]"),
}


def one_more(kind: str, around: str) -> list[Case]:
    """A mapping of gradients, or of rows, with a key more than the parameters have, at every door."""
    make, (wrap, place) = KINDS[kind], AROUND[around]
    world = partial(worlds.of_names, wrap=wrap, make=make)
    text = f"grads{place}: expected the keys of params; missing: [], unknown: ['more']"
    doors: dict[str, Callable[[Any], Any]] = {
        "step": lambda w: w.opt.step(w.given(more=ones(2)), **ALL),
        "plain step": lambda w: w.opt.step(w.given(more=ones(2))),
        "None": lambda w: w.opt.step(w.given(more=None)),
        "rows": lambda w: w.opt.step(w.given(W=Rows([1], ones((1, 2))), more=Rows([0], ones((1, 2))))),
        "bound": lambda w: w.with_more(w.opt.step),
        "bound, zeroed": lambda w: w.with_more(w.opt.zero_grad),
        "construction": lambda w: Adam(w.fresh, grads=w.given(more=ones(2))),
        "flush": lambda w: w.opt.flush(w.given(W=[0], b=None, more=[0])),
        "new group": lambda w: w.opt.add_param_group(
            {"params": {"W": ones(2)}, "grads": make({"W": ones(2), "more": ones(2)})}
        ),
    }
    if (kind, around) not in (("dict", "alone"), ("pairs", "in a group")):  # two doors tell of all kinds and places
        doors = {door: doors[door] for door in ("step", "bound")}
    made = []
    for door, call in doors.items():
        own = text if door != "new group" else f"grads[{2 if around == 'in a group' else 1}]: expected the keys of pa"
        made.append(Case(f"one more, {kind} {around}, {door}", world, call, ValueError, own))
    return made


def parts_around() -> list[Case]:
    """A list of parts that has more of them, or fewer, than the parameters have."""
    world, made = partial(worlds.of_names, wrap=AROUND["in a list"][0], make=dict), []
    for name, change, came in (
        ("one more part", lambda parts: [*parts, ones(1)], 3),
        ("a part that is None more", lambda parts: [*parts, None], 3),
        ("a part fewer", lambda parts: parts[:1], 1),
    ):
        for kind in (list, tuple, UserList):
            call = partial(lambda w, change, kind: w.opt.step(kind(change(w.given()))), change=change, kind=kind)
            text = f"grads: expected 2 gradients, one for each parameter, got {came}"
            made.append(Case(f"{name} in a {kind.__name__}", world, call, ValueError, text))
    return made


FIFTY_SEVENTH = fifty_seventh()
ONE_MORE = [case for kind, around in itertools.product(KINDS, AROUND) for case in one_more(kind, around)]
CASES = [
    *ONE_MORE,
    *parts_around(),
    *(
        Case(f"grads {name}", partial(running, give=give), lambda w: w.opt.step(w.given, **ALL), error, text)
        for name, give, error, text in GRADIENTS
    ),
    *FIFTY_SEVENTH,
    *STRUCTURES,
]
