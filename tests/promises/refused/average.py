"""Averages of weights: arrays that cannot be averaged, models that do not fit their averages, and operations that would
mix the two while they are exchanged.
"""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastadam
from fastadam import Average

from .case import ARRAY, THREADS, UP_TO_ONE, Case, frozen, of_rows
from .worlds import fresh

EXCHANGED = "parameters and averages are exchanged until the block of swapped() is over; "
FITS = "expected the shape (3,) of its average, got "

CONSTRUCTION: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("number", lambda w: Average(1.0), TypeError, f"params: {ARRAY}float"),
    ("None", lambda w: Average([w.p, None]), TypeError, f"params[1]: {ARRAY}NoneType"),
    ("optimizer", lambda w: Average(fastadam.Adam(w.p)), TypeError, f"params: {ARRAY}Adam; pass its .params"),
    ("integers", lambda w: Average(np.ones(3, int)), TypeError, "params: expected dtype float16"),
    ("read-only", lambda w: Average([w.frozen]), ValueError, "params[0]: the array is read-only"),
    ("twice", lambda w: Average([w.p, w.p]), ValueError, "params[1] and params[0] share memory"),
    ("empty", lambda w: Average({}), ValueError, "params: expected at least one array, got an empty dict"),
    ("decay above one", lambda w: Average(w.p, 1.5), ValueError, f"decay: expected {UP_TO_ONE}, got 1.5"),
    ("decay as text", lambda w: Average(w.p, "no"), TypeError, f"decay: expected {UP_TO_ONE}, got 'no' of type str"),
    ("first", lambda w: Average(w.p, first=0), ValueError, "first: expected a whole number >= 1, got 0"),
    ("threads", lambda w: Average(w.p, n_threads=0), ValueError, f"n_threads: expected {THREADS}, got 0"),
    ("backend", lambda w: Average(w.p, backend="c"), ValueError, "backend: "),
    ("rate", lambda w: Average(w.p, lr=0.1), TypeError, "lr: unknown option of Average; it has params, decay, first"),
    ("unknown of a group", lambda w: Average([{"params": w.p, "dekay": 0.9}]), ValueError,
     "params[0]['dekay']: unknown option; did you mean decay?"),
    ("decay of a group", lambda w: Average([{"params": w.p, "decay": -1}]), ValueError,
     f"params[0]['decay']: expected {UP_TO_ONE}, got -1"),
]  # fmt: skip


def averaged(folder: Path, **wrong: Any) -> SimpleNamespace:
    """An average and a file of it, in whose model `wrong` stands in the place of arrays."""
    w = SimpleNamespace(folder=folder, model={"W": np.arange(3.0), "b": np.ones((2, 2), np.float32)})
    good = dict(w.model)
    w.avg = Average(w.model, 0.5)
    for p in good.values():
        p += 1
    w.avg.update()
    w.avg.save(folder / "avg.npz")
    w.model.update(wrong)
    w.update = w.avg.update

    def go_on() -> None:
        w.model.clear()
        w.model.update(good)
        for p in good.values():
            p *= 2
        w.avg.update()

    w.go_on = go_on
    return w


def shared(folder: Path) -> SimpleNamespace:
    """One whose model was given an average itself."""
    w = averaged(folder)
    w.model["W"] = w.avg.params["W"]
    return w


#: what stands in the model, the error
MODELS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "another shape": ({"W": np.ones(4)}, ValueError, f"params['W']: {FITS}(4,); replace('W', array, rows) says which"),
    "complex": (
        {"W": np.ones(3, complex)},
        TypeError,
        "params['W']: expected float64 like its average, got complex128",
    ),
    "text": ({"W": "weights"}, TypeError, f"params['W']: {ARRAY}str"),
    "one more": (
        {"c": np.ones(3)},
        ValueError,
        "params: does not have the structure that it had at construction: …unknown",
    ),
}

CALLS: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("assigned decay", lambda w: setattr(w.avg, "decay", 2), ValueError, f"decay: expected {UP_TO_ONE}, got 2"),
    ("assigned params", lambda w: setattr(w.avg, "params", {}), AttributeError, "params: is fixed at construction"),
    ("unknown attribute", lambda w: setattr(w.avg, "dekay", 2), AttributeError, "dekay: Average has no such attribute"),
    ("shallow copy", lambda w: copy.copy(w.avg), TypeError, "a shallow copy would"),
    ("unknown name", lambda w: w.avg.reset("V"), ValueError, "names: no parameter is called 'V'; there are ['W', 'b']"),
    ("replaced by another shape", lambda w: w.avg.replace("W", np.ones(4)), ValueError,
     "rows: params['W'] had the shape (3,), and would have (4,); pass the old row"),
    ("replaced by numbers", lambda w: w.avg.replace("W", [1.0, 2.0]), TypeError, f"params['W']: {ARRAY}list"),
    ("replaced with other rows", lambda w: w.avg.replace("W", np.ones(4), rows=[0, 1, 2, 3]), ValueError,
     "rows: expected -1 … 2, the rows of the old params['W'], got 3"),
    ("file of an optimizer", lambda w: load_of_adam(w), ValueError, "…optimizer"),
    ("dict of an optimizer", lambda w: w.avg.load_state_dict(fastadam.Adam(w.model).state_dict()), ValueError,
     "state_dict: param_groups[0]: missing: ['decay', 'first'], unknown: ["),
]  # fmt: skip

#: what would mix parameters and averages
MIXING: list[tuple[str, Callable[[Any], Any]]] = [
    ("update", lambda w: w.avg.update()),
    ("save", lambda w: w.avg.save(w.folder / "new.npz")),
    ("load", lambda w: w.avg.load(w.folder / "avg.npz")),
    ("state_dict", lambda w: w.avg.state_dict()),
    ("pickle", lambda w: pickle.dumps(w.avg)),
    ("deepcopy", lambda w: copy.deepcopy(w.avg)),
    ("reset", lambda w: w.avg.reset()),
    ("replace", lambda w: w.avg.replace("W", np.zeros(3))),
]


def load_of_adam(w: Any) -> None:
    file = w.folder.parent / "adam.npz"
    fastadam.Adam(w.model).save(file)
    w.avg.load(file)


def within(call: Callable[[Any], Any], w: Any) -> None:
    """The call within a block."""
    with w.avg.swapped():
        call(w)


CASES = [
    *of_rows("average", fresh, CONSTRUCTION),
    *(Case(f"model {name}", partial(averaged, **wrong), lambda w: w.update(), *error)
      for name, (wrong, *error) in MODELS.items()),
    *(Case(f"swapped, model {name}", partial(averaged, **wrong), lambda w: within(bool, w), *error)
      for name, (wrong, *error) in MODELS.items()),
    Case("swapped, read-only model", partial(averaged, W=frozen(np.ones(3))), lambda w: within(bool, w), ValueError,
         "params['W']: the array is read-only"),
    Case("swapped, list in the model", partial(averaged, W=[1.0, 2.0, 3.0]), lambda w: within(bool, w), TypeError,
         f"params['W']: {ARRAY}list"),
    Case("the average in the model", shared, lambda w: w.update(), ValueError,
         "params['W']: shares memory with an average; put a copy into the model"),
    *of_rows("averages", averaged, CALLS),
    *(Case(f"swapped, {name}", averaged, partial(within, call), RuntimeError, EXCHANGED) for name, call in MIXING),
    Case("swapped, swapped", averaged, partial(within, lambda w: within(bool, w)), RuntimeError, EXCHANGED),
]  # fmt: skip
