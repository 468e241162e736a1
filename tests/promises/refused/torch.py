"""torch: options, gradients and states of its tensors, and state_dicts, that do not fit."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from numpy import nan

from . import worlds
from .case import BELOW_ONE, RATE, Case, good_rate, step


def in_group(**wrong: Any) -> Callable[[Any], Any]:
    """Puts options into the second group of a torch optimizer; returns what takes them out again."""

    def change(w: Any) -> Any:
        good = {name: w.group[name] for name in wrong}
        w.group.update(wrong)
        return lambda: w.group.update(good)

    return change


def in_state(name: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Puts a state of the second tensor in the place of its own."""

    def change(w: Any) -> Any:
        good = w.state[name]
        w.state[name] = make(good)
        return lambda: w.state.__setitem__(name, good)

    return change


def in_grad(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(w: Any) -> None:
        w.b.grad = make(w)

    return change


SECOND = "param_groups[1]['params'][0]"
STEPS = f"the state of {SECOND}['step']: expected a whole number >= 0 and < 2**62, got "
#: changes before a step, with steps before and, where no state is needed, without
TORCH: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("lr text", in_group(lr="x"), TypeError, f"param_groups[1]['lr']: expected {RATE}, got 'x' of type str"),
    ("lr", in_group(lr=-1.0), ValueError, f"param_groups[1]['lr']: expected {RATE}, got -1.0"),
    ("lr NaN", in_group(lr=nan), ValueError, f"param_groups[1]['lr']: expected {RATE}, got nan"),
    ("lr function", in_group(lr=good_rate), TypeError, f"param_groups[1]['lr']: expected {RATE}, got cosine("),
    ("betas", in_group(betas=(0.9,)), ValueError, "param_groups[1]['betas']: expected a pair of numbers, got 1 of the"),
    ("betas 2", in_group(betas=(0.9, 2.0)), ValueError, f"param_groups[1]['betas'][1]: expected {BELOW_ONE}, got 2.0"),
    ("eps", in_group(eps=None), TypeError, f"param_groups[1]['eps']: expected {RATE}, got None of type NoneType"),
    ("decay", in_group(weight_decay=-1), ValueError, f"param_groups[1]['weight_decay']: expected {RATE}, got -1"),
    ("maximize", in_group(maximize="no"), TypeError, "param_groups[1]['maximize']: expected True or False, got 'no'"),
    ("sparse", in_grad(lambda w: w.b.detach().to_sparse()), TypeError,
     f"gradient of {SECOND}: expected a sparse tensor of whole rows, got one that is sparse in 2 axes"),
    ("itself", in_grad(lambda w: w.b.detach()), ValueError,
     f"gradient of {SECOND}: shares memory with a parameter or a"),
]  # fmt: skip
TORCH_STATES: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("shape", in_state("exp_avg", lambda m: m[:1]), ValueError,
     f"a state of {SECOND}: expected shape (2, 2) like the par"),
    ("text", in_state("exp_avg", lambda m: "x"), TypeError,
     f"the state of {SECOND}: 'exp_avg': expected a tensor, got st"),
    ("step NaN", in_state("step", lambda t: t * nan), TypeError, f"{STEPS}nan of type float"),
    ("step -1", in_state("step", lambda t: t - 2), ValueError, f"{STEPS}-1"),
    ("step 1.5", in_state("step", lambda t: t * 1.5), TypeError, f"{STEPS}1.5 of type float"),
    ("amsgrad", in_group(amsgrad=True), ValueError,
     f"the state of {SECOND}: expected 'max_exp_avg_sq' after step 1, got ['exp_avg', 'exp_avg_sq', 'step"),
]  # fmt: skip
FROM_TORCH: list[tuple[str, Callable[[Any], Any], Any, str]] = [
    ("nothing", lambda s: {}, ValueError, "state_dict: expected the keys 'state' and 'param_groups', got []"),
    ("None", lambda s: None, TypeError, "state_dict: expected torch_optimizer.state_dict(), got NoneType"),
    ("a group", lambda s: s | {"param_groups": []}, ValueError, "state_dict: expected 1 group, got 0"),
    ("a state", lambda s: s | {"state": s["state"] | {5: s["state"][0]}}, ValueError,
     "state_dict['state']: of no parameter in its groups: [5]"),
    ("an array", lambda s: s | {"state": {0: s["state"][0], 1: {"step": 1.0}}}, ValueError, "…missing: ['m', 'v']"),
    ("a rate", lambda s: s | {"param_groups": [s["param_groups"][0] | {"lr": nan}]}, ValueError,
     f"state_dict['param_groups'][0]: lr: expected {RATE}, got nan"),
]  # fmt: skip


def of_torch() -> list[Case]:
    """Those that need torch, which the tests' extra does not bring; CI does."""
    if find_spec("torch") is None:
        return []
    from fastadam.adapters.torch_state import import_state

    made = [
        Case(f"torch {name}, {'warm' if warm else 'cold'}", partial(worlds.torch, warm=warm, change=change), step, *row)
        for table, starts in ((TORCH, (True, False)), (TORCH_STATES, (True,)))
        for name, change, *row in table
        for warm in starts
    ]
    for name, change, error, text in FROM_TORCH:
        call = partial(lambda w, change: import_state(w.opt, change(w.state)), change=change)
        made.append(Case(f"from torch {name}", worlds.from_torch, call, error, text))
    return made


CASES = of_torch()
