"""The state of an optimizer is exchanged with torch.optim in both directions, and the run continues unchanged.
torch itself runs one half of each run.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from typing import Any

import inside
import ml_dtypes
import numpy as np
import pytest
from cases import arrays_of
from test_torch import assert_close, each_case, each_dtype, each_optimizer, flat, live, ours
from torch_cases import GROUPS, Case, gradient, start

import fastadam
from fastadam.adapters.torch_state import export_state, import_state, torch_classes

if importlib.util.find_spec("torch") is not None:
    import torch
    from record_torch import TorchOptimizer

BEFORE, AFTER = 7, 23  # steps, so that 30 in all stay within the tolerance of `assert_close`


def deciding(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that decide which states there are, and what they begin with."""
    fixed = {option for option, own in getattr(fastadam, name).options.items() if own.fixed}
    fixed |= {"amsgrad", "momentum", "nesterov", "centered"}
    return {option: value for option, value in options.items() if option in fixed}


def new(case: Case, params: list[np.ndarray]) -> fastadam.Optimizer:
    """The case's optimizer, with no other options than it must begin with."""
    return ours(case.optimizer, params, deciding(case.optimizer, case.options))


def arrays_in(theirs: "TorchOptimizer", mine: fastadam.Optimizer) -> dict[str, Any]:
    """The tensors of torch's states as arrays, by our names; what else torch keeps is numbers."""
    ours_of = {theirs_name: name for name, theirs_name in mine.torch_names.items()}
    return {ours_of[name]: arrays for name, arrays in theirs.states().items() if name not in mine.torch_scalars}


def counted(mine: fastadam.Optimizer, *steps: int) -> list[int]:
    """What we know of so many steps in torch: without a count, whether there is a state."""
    return list(steps) if "step" in mine.torch_scalars else [int(k > 0 and bool(mine.state)) for k in steps]


def advance(params: list[np.ndarray], optimizer: Any, steps: range) -> None:
    """Steps of an optimizer of either kind."""
    for t in steps:
        optimizer.step([gradient(k, p, t) for k, p in enumerate(params)])


def counts(mine: fastadam.Optimizer) -> list[int]:
    """The steps that each parameter has done."""
    return list(mine.state_dict()["steps"].values())


def options_of(group: Any) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def with_defaults(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `export_state` leaves it to torch how to compute, where `TorchOptimizer` asks for a loop over parameters."""
    return [{**group, "foreach": None} for group in groups]


def go_on_together(mine: fastadam.Optimizer, theirs: "TorchOptimizer", steps: range) -> None:
    """The rest of the run, which is the same on both sides."""
    for t in steps:
        advance(inside.params(mine), mine, range(t, t + 1))
        advance([tensor.numpy() for tensor in theirs.tensors], theirs, range(t, t + 1))
        assert_close(flat(inside.params(mine)), flat([tensor.numpy() for tensor in theirs.tensors]), f"after step {t}")
    states = arrays_in(theirs, mine)
    assert states.keys() == mine.state.keys()
    for name, arrays in states.items():
        assert_close(flat(mine.state[name]), flat(arrays), name)


# ---------------------------------------------------------------- a run that goes over


@live
@each_dtype
@each_case
def test_a_run_of_torch_goes_on_here(case: Case, dtype: str) -> None:
    params = start(dtype)
    theirs = TorchOptimizer(case.optimizer, params, case.options)
    advance(params, theirs, range(1, BEFORE + 1))
    mine = new(case, [p.copy() for p in params])
    import_state(mine, theirs.optimizer.state_dict())
    assert [mine.t] == counted(mine, BEFORE)
    group = theirs.optimizer.param_groups[0]
    shared = [name for name in mine.defaults if name in group]
    assert {name: mine.param_groups[0][name] for name in shared} == {name: group[name] for name in shared}
    for name, arrays in arrays_in(theirs, mine).items():
        np.testing.assert_array_equal(flat(mine.state[name]), flat(arrays))
    go_on_together(mine, theirs, range(BEFORE + 1, BEFORE + AFTER + 1))


@live
@each_dtype
@each_case
def test_a_run_from_here_goes_on_in_torch(case: Case, dtype: str) -> None:
    params = start(dtype)
    mine = ours(case.optimizer, params, case.options)
    advance(params, mine, range(1, BEFORE + 1))
    theirs = TorchOptimizer(case.optimizer, [p.copy() for p in params], {})
    theirs.optimizer.load_state_dict(export_state(mine))
    go_on_together(mine, theirs, range(BEFORE + 1, BEFORE + AFTER + 1))
    assert theirs.states().get("step", [BEFORE + AFTER]) == [BEFORE + AFTER] * len(theirs.states().get("step", [0]))


@live
@each_dtype
@each_optimizer
def test_groups_go_over(name: str, dtype: str) -> None:
    params = start(dtype)
    theirs = TorchOptimizer(name, params, {"lr": 0.05}, GROUPS[name])
    advance(params, theirs, range(1, BEFORE + 1))
    groups = [deciding(name, {"lr": 0.05} | group) for group in GROUPS[name]]
    mine = ours(name, [{"params": p.copy(), **group} for p, group in zip(params, groups, strict=True)], {})
    import_state(mine, theirs.optimizer.state_dict())
    back = TorchOptimizer(name, [p.copy() for p in params], {}, tuple({} for _ in params))
    back.optimizer.load_state_dict(export_state(mine))
    for other in (theirs, back):
        for group, own in zip(other.optimizer.param_groups, mine.param_groups, strict=True):
            shared = options_of(group).keys() & own.keys()
            assert {"lr", "maximize"} < shared
            assert {option: own[option] for option in shared} == {option: group[option] for option in shared}
    go_on_together(mine, back, range(BEFORE + 1, BEFORE + AFTER + 1))
    advance(params, theirs, range(BEFORE + 1, BEFORE + AFTER + 1))
    assert_close(flat(inside.params(mine)), flat(params))


@live
@each_dtype
@each_case
def test_there_and_back_changes_nothing(case: Case, dtype: str) -> None:
    """Not a bit, nor a key, of what torch itself gives."""
    params = start(dtype)
    theirs = TorchOptimizer(case.optimizer, params, case.options)
    advance(params, theirs, range(1, BEFORE + 1))
    came = theirs.optimizer.state_dict()
    mine = new(case, params)
    import_state(mine, came)
    went = export_state(mine)
    assert went["param_groups"] == with_defaults(came["param_groups"])
    assert list(went["state"]) == list(came["state"])
    for place, state in came["state"].items():
        assert sorted(went["state"][place]) == sorted(state)
        for name, tensor in state.items():
            assert went["state"][place][name].dtype == tensor.dtype or name in mine.torch_scalars, name
            assert torch.equal(went["state"][place][name].to(tensor.dtype), tensor), name


@live
@each_optimizer
def test_a_run_of_no_steps(name: str) -> None:
    params = start("float32")
    theirs = TorchOptimizer(name, params, {})
    fresh = theirs.optimizer.state_dict()
    mine = ours(name, [p.copy() for p in params], {})
    went = export_state(mine)
    assert went["param_groups"] == with_defaults(fresh["param_groups"])
    assert list(went["state"]) == list(fresh["state"])  # Adagrad's alone has states at once
    theirs.optimizer.load_state_dict(went)
    advance(inside.params(mine), mine, range(50, 53))
    for p, original in zip(inside.params(mine), params, strict=True):
        p[...] = original
    import_state(mine, fresh)  # over states that are in use
    assert mine.t == 0
    go_on_together(mine, theirs, range(1, 10))


@live
@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}], ids=lambda how: next(iter(how)))
def test_torchs_own_ways_to_compute_go_on(how: dict[str, bool]) -> None:
    params = start("float32")
    theirs = TorchOptimizer("AdamW", params, {"lr": 0.05})
    theirs.optimizer = torch.optim.AdamW(theirs.tensors, lr=0.05, **how)
    advance(params, theirs, range(1, BEFORE + 1))
    mine = fastadam.AdamW([p.copy() for p in params])
    import_state(mine, theirs.optimizer.state_dict())
    went = export_state(mine)
    for group in went["param_groups"]:  # as a user may who wants them back
        group |= how
    theirs.optimizer.load_state_dict(went)
    go_on_together(mine, theirs, range(BEFORE + 1, BEFORE + AFTER + 1))


@live
def test_a_group_added_late_keeps_its_count() -> None:
    mine_params, theirs_params = start("float64"), start("float64")
    mine = fastadam.Adam([mine_params[0]], lr=0.05)
    theirs = TorchOptimizer("Adam", theirs_params[:1], {"lr": 0.05})
    advance(mine_params[:1], mine, range(1, 6))
    advance(theirs_params[:1], theirs, range(1, 6))
    mine.add_param_group({"params": mine_params[1:], "lr": 0.1})
    theirs.tensors += [torch.from_numpy(p) for p in theirs_params[1:]]
    theirs.optimizer.add_param_group({"params": theirs.tensors[1:], "lr": 0.1})
    later = fastadam.Adam([{"params": p} for p in ([mine_params[0]], mine_params[1:])])
    import_state(later, theirs.optimizer.state_dict())  # its second group has no state yet
    assert counts(later) == [5, 0, 0]
    for steps in (range(6, 9), range(9, 12)):
        advance(mine_params, mine, steps)
        theirs.optimizer.load_state_dict(export_state(mine))
        for tensor, p in zip(theirs.tensors, mine_params, strict=True):
            tensor.copy_(torch.from_numpy(p))
    assert theirs.states()["step"] == [11, 6, 6]
    import_state(later, theirs.optimizer.state_dict())
    assert later.t == 11
    assert counts(later) == [11, 6, 6]
    go_on_together(later, theirs, range(12, 20))


@live
@each_optimizer
def test_parameters_of_one_group_with_counts_of_their_own(name: str) -> None:
    """Where torch had no gradient: of the last parameter once, and of another one never."""
    params = start("float32")  # in which torch keeps its numbers
    theirs = TorchOptimizer(name, params, {"lr": 0.05})
    for t in range(1, 5):
        for k, (p, tensor) in enumerate(zip(params, theirs.tensors, strict=True)):
            tensor.grad = torch.from_numpy(gradient(k, p, t)) if k == 0 or (k == 2 and t > 2) else None
        theirs.optimizer.step()
    mine = ours(name, [p.copy() for p in params], deciding(name, {"lr": 0.05}))
    advance(inside.params(mine), mine, range(50, 53))
    for p, original in zip(inside.params(mine), params, strict=True):
        p[...] = original
    import_state(mine, theirs.optimizer.state_dict())  # over states that are in use
    assert counts(mine) == counted(mine, 4, 0, 2)
    assert mine.t == max(counts(mine))
    back = TorchOptimizer(name, [p.copy() for p in params], {})
    back.optimizer.load_state_dict(export_state(mine))
    assert back.optimizer.state_dict()["state"].keys() == theirs.optimizer.state_dict()["state"].keys()
    for other in (back, theirs):
        again = ours(name, [p.copy() for p in params], deciding(name, {"lr": 0.05}))
        import_state(again, export_state(mine))
        go_on_together(again, other, range(5, 10))
        assert other.states().get("step", [9, 5, 7]) == [9, 5, 7]
        assert counts(again) == [before + 5 for before in counts(mine)]


# ---------------------------------------------------------------- dtypes, memory, spellings


@live
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_widened(name: str, dtype: str) -> None:
    """torch keeps the states in the parameter's dtype, fastadam in float32: exact on the way here."""
    tensor = torch.linspace(-1, 1, 11).to(getattr(torch, dtype))
    theirs = getattr(torch.optim, name)([tensor], lr=0.125)
    tensor.grad = torch.linspace(-2, 3, 11).to(tensor.dtype)
    theirs.step()
    p = tensor.float().numpy().astype(dtype if dtype == "float16" else ml_dtypes.bfloat16)
    mine = getattr(fastadam, name)(p, master_weights=True)
    mine.step(np.ones(11, np.float32))
    import_state(mine, theirs.state_dict())
    for ours_name, (state,) in mine.state.items():
        if ours_name != "master":
            assert state.dtype == np.float32
            np.testing.assert_array_equal(state, theirs.state[tensor][mine.torch_names[ours_name]].float().numpy())
    np.testing.assert_array_equal(mine.state["master"][0], p.astype(np.float32))
    went = export_state(mine)
    assert {value.dtype for value in went["state"][0].values()} == {torch.float32}
    theirs.load_state_dict(went)
    assert {value.dtype for key, value in theirs.state[tensor].items() if key != "step"} == {tensor.dtype}


@live
def test_states_in_bfloat16_go_over_exactly() -> None:
    tensor = torch.linspace(-1, 1, 11).bfloat16()
    theirs = torch.optim.Adam([tensor])
    tensor.grad = torch.linspace(-2, 3, 11).bfloat16()
    theirs.step()
    mine = fastadam.Adam(np.ones(11, np.float32), state_dtype="bfloat16")
    import_state(mine, theirs.state_dict())
    np.testing.assert_array_equal(mine.state["v"][0].astype(np.float32), theirs.state[tensor]["exp_avg_sq"].float())
    went = export_state(mine)["state"][0]
    for name in ("exp_avg", "exp_avg_sq"):
        assert went[name].dtype == torch.bfloat16
        assert torch.equal(went[name], theirs.state[tensor][name])


@live
@pytest.mark.parametrize("state_dtype", [None, "bfloat16"])
def test_nothing_shares_memory(state_dtype: str | None) -> None:
    mine = fastadam.Adam(p := np.ones(4, np.float32), state_dtype=state_dtype)
    mine.step(np.ones(4, np.float32))
    kept = {name: arrays[0].copy() for name, arrays in mine.state.items()}
    went = export_state(mine)
    came = {name: tensor.clone() for name, tensor in went["state"][0].items()}
    import_state(mine, went)
    for tensor in went["state"][0].values():
        tensor.fill_(5)
    for name, array in kept.items():
        np.testing.assert_array_equal(mine.state[name][0], array)
    went["state"][0] = came
    import_state(mine, went)
    mine.step(np.ones(4, np.float32))
    assert torch.equal(went["state"][0]["exp_avg"], came["exp_avg"])
    assert p.min() < 1


@live
def test_layouts_of_arrays_and_of_tensors() -> None:
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    mine = fastadam.Adam(p.transpose(1, 2, 0), lr=0.05)
    mine.step(g.transpose(1, 2, 0))
    tensor = torch.from_numpy(p.transpose(1, 2, 0).copy())
    theirs = torch.optim.Adam([tensor])
    theirs.load_state_dict(export_state(mine))
    theirs.state[tensor] |= {
        name: value.mT.contiguous().mT for name, value in theirs.state[tensor].items() if name != "step"
    }
    assert not theirs.state[tensor]["exp_avg"].is_contiguous()
    import_state(mine, theirs.state_dict())
    for name in ("m", "v"):
        np.testing.assert_array_equal(mine.state[name][0], theirs.state[tensor][f"exp_avg{'_sq' * (name == 'v')}"])
    tensor.grad = torch.from_numpy(g.transpose(1, 2, 0).copy())
    theirs.step()
    mine.step(g.transpose(1, 2, 0))
    assert_close(flat(inside.params(mine)), tensor.numpy().ravel())


@live
def test_steps_beyond_float32_are_exact() -> None:
    mine = fastadam.Adam(np.ones(2))
    for count in (2**24, 2**24 + 1):
        mine.load_state_dict(mine.state_dict() | {"t": count, "steps": {"0": count}})
        went = export_state(mine)
        assert went["state"][0]["step"].item() == count
        import_state(mine, went)
        assert mine.t == count
        assert counts(mine) == [count]


@live
def test_what_torch_may_say_otherwise() -> None:
    """Options in tensors, counts that are numbers, keys of users and schedulers; groups of an older torch."""
    tensor = torch.ones(3)
    theirs = torch.optim.Adam([{"params": [tensor], "name": "head"}], lr=torch.tensor(0.5), betas=(0.5, 0.75))
    torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
    tensor.grad = torch.ones(3)
    theirs.step()
    state = theirs.state_dict()
    assert {"initial_lr", "name"} < state["param_groups"][0].keys()
    state["state"][0]["step"] = 1
    for later in ("maximize", "decoupled_weight_decay"):
        del state["param_groups"][0][later]
    for mine, decoupled in (
        (fastadam.AdamW(np.zeros(3, np.float32), maximize=True), True),
        (fastadam.Adam(np.zeros(3, np.float32), decoupled_weight_decay=True), False),
    ):
        import_state(mine, state)
        assert (mine.t, mine.lr, mine.betas, mine.maximize) == (1, 0.5, (0.5, 0.75), False)
        assert mine.decoupled_weight_decay == decoupled


def stepped_in_torch(name: str, change: dict[str, Any], steps: int = 3, **options: Any) -> tuple[Any, Any]:
    """A tensor of float32 and its optimizer after some steps, the last of them with changed options."""
    tensor = torch.linspace(-1, 1, 5)
    theirs = getattr(torch.optim, name)([tensor], **options)
    for step in range(steps):
        if step == steps - 1:
            theirs.param_groups[0].update(change)
        tensor.grad = torch.linspace(-2, 1, 5) + step
        theirs.step()
    return tensor, theirs


@live
def test_the_product_that_other_betas_have_left_is_refused_until_it_is_nothing() -> None:
    _, theirs = stepped_in_torch("NAdam", {"betas": (0.5, 0.99)})
    mine = fastadam.NAdam(np.ones(5, np.float32))
    text = r"\['mu_product'\]: expected .* after 3 steps with these options, got .*: options were changed before; use "
    with pytest.raises(ValueError, match=text + r"fastadam\.adapters\.torch\.NAdam"):
        import_state(mine, theirs.state_dict())
    assert (mine.t, mine.betas) == (0, (0.9, 0.999))
    tensor, theirs = stepped_in_torch("NAdam", {"betas": (0.5, 0.99)}, steps=30)
    mine = fastadam.NAdam(p := tensor.numpy().copy())
    import_state(mine, theirs.state_dict())
    tensor.grad = torch.ones(5)
    theirs.step()
    mine.step(np.ones(5, np.float32))
    np.testing.assert_allclose(p, tensor.numpy(), rtol=1e-6)


@live
@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("NAdam", {"mu_product": ...}, "['state'][0]: expected 'mu_product', got ['step',"),
        ("NAdam", {"mu_product": 1.5}, "['mu_product']: expected a number >= 0 and <= 1, got 1.5"),
        ("ASGD", {"mu": float("nan")}, "['mu']: expected a number > 0 and <= 1, got nan"),
        ("ASGD", {"eta": float("inf")}, "['eta']: expected a number that is finite, got inf"),
    ],
)
def test_numbers_that_torch_never_left_are_refused(name: str, change: dict[str, Any], text: str) -> None:
    _, theirs = stepped_in_torch(name, {})
    state = theirs.state_dict()
    state["state"][0] = {key: value for key, value in (state["state"][0] | change).items() if value is not ...}
    mine = getattr(fastadam, name)(np.ones(5, np.float32))
    with pytest.raises(ValueError, match=re.escape(text)):
        import_state(mine, state)
    assert mine.t == 0


@live
def test_a_rate_that_has_changed_counts_at_once_here_and_one_step_later_in_torch() -> None:
    tensor, theirs = stepped_in_torch("ASGD", {"lr": 0.5}, lr=0.25, lambd=0.0)
    theirs.param_groups[0]["lr"] = 0.125
    mine = fastadam.ASGD(p := tensor.numpy().copy())
    import_state(mine, theirs.state_dict())
    before = p.copy()
    mine.step(np.ones(5, np.float32))
    np.testing.assert_array_equal(p, before - np.float32(0.125))
    tensor.grad = torch.ones(5)
    theirs.step()
    np.testing.assert_array_equal(tensor.numpy(), before - np.float32(0.5))


@live
def test_a_momentum_buffer_is_all_that_torch_says_of_steps() -> None:
    """None is what older versions of torch saved where there was none."""
    _, theirs = stepped_in_torch("SGD", {}, momentum=0.5, dampening=0.5)
    state, gradient = theirs.state_dict(), np.ones(5, np.float32)
    none = state | {"state": {0: {"momentum_buffer": None}}}
    buffer = theirs.state_dict()["state"][0]["momentum_buffer"].numpy()
    for came, expected in ((state, 0.5 * buffer + 0.5 * gradient), (none, gradient)):  # the first step is not dampened
        mine = fastadam.SGD(np.ones(5, np.float32), momentum=0.5)
        import_state(mine, came)
        mine.step(gradient)
        np.testing.assert_array_equal(mine.state["b"][0], expected)
        assert counts(mine) == [1 if came is none else 2]
    plain = fastadam.SGD(np.ones(5, np.float32))
    plain.step(np.ones(5, np.float32))
    assert export_state(plain)["state"] == {}
    with pytest.raises(ValueError, match=r"momentum: 0\.5 needs other states"):
        import_state(plain, theirs.state_dict())


@live
def test_a_subclass_is_what_it_extends() -> None:
    class Mine(fastadam.RMSprop):
        pass

    mine = Mine(np.ones(3), centered=True)
    mine.step(np.ones(3))
    assert sorted(export_state(mine)["state"][0]) == ["grad_avg", "square_avg", "step"]


# ---------------------------------------------------------------- mistakes

Make = Callable[[], Any]


def of(name: str, **options: Any) -> Make:
    """The state of an optimizer of torch over two arrays, after a step."""

    def make() -> dict[str, Any]:
        tensors = [torch.ones(2, 3), torch.ones(4, dtype=torch.float64)]
        theirs = getattr(torch.optim, name)(tensors, **options)
        for tensor in tensors:
            tensor.grad = torch.ones_like(tensor)
        theirs.step()
        return theirs.state_dict()

    return make


def changed(path: str, value: Any, make: Make = of("Adam")) -> Make:  # noqa: B008
    """A state with another value at this path of keys: `value`, or what it makes of the old one, or none for `...`."""

    def remake() -> Any:
        state = at = make()
        *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        for key in keys:
            at = at[key]
        at[last] = value(at[last]) if callable(value) else value
        if value is ...:
            del at[last]
        return state

    return remake


M, STEP, GROUP = "state/1/exp_avg", "state/0/step", "param_groups/0"
IMPORTS = [
    ("optimizer", lambda: torch.optim.Adam([torch.ones(1)]), TypeError, "expected torch_optimizer.state_dict(), got"),
    ("nothing", dict, ValueError, "expected the keys 'state' and 'param_groups', got []"),
    ("a model's", lambda: torch.nn.Linear(2, 2).state_dict(), ValueError, "'param_groups', got ['weight', 'bias']"),
    ("no groups", changed("param_groups", []), ValueError, "expected 1 group, got 0"),
    ("group that is none", changed(GROUP, 3), TypeError, "['param_groups'][0]: expected a dict, got int"),
    ("too few parameters", changed(f"{GROUP}/params", [0]), ValueError, "[0]: expected 2 parameters, got [0]"),
    ("parameters that are none", changed(f"{GROUP}/params", None), ValueError, "expected 2 parameters, got None"),
    ("parameter twice", changed(f"{GROUP}/params", [0, 0]), ValueError, "of no parameter in its groups: [1]"),
    ("state too many", changed("state/5", {}), ValueError, "of no parameter in its groups: [5]"),
    ("state that is none", changed("state/0", 1), TypeError, "['state'][0]: expected a dict, got int"),
    ("state without count", changed(STEP, ...), ValueError, "['state'][0]: expected the count 'step', got ['exp_avg'"),
    ("count alone", changed("state/1", lambda state: {"step": state["step"]}), ValueError, "missing: ['m', 'v']"),
    ("half a step", changed(STEP, 0.5), TypeError, "number >= 0 and < 2**62, got 0.5"),
    ("steps below zero", changed(STEP, lambda step: -step), ValueError, "['step']: expected a whole number >= 0"),
    ("steps that are none", changed(STEP, float("nan")), TypeError, "a whole number >= 0 and < 2**62, got nan"),
    ("steps without end", changed(STEP, float("inf")), TypeError, "a whole number >= 0 and < 2**62, got inf"),
    ("several counts", changed(STEP, lambda step: step.repeat(2)), TypeError, "['step']: expected a whole number"),
    ("array", changed(M, lambda m: m.numpy()), TypeError, "['state'][1]['exp_avg']: expected a tensor, got ndarray"),
    ("sparse", changed(M, lambda m: m.to_sparse()), ValueError, "['state'][1]['exp_avg']: is sparse (torch."),
    ("complex", changed(M, lambda m: m + 1j), ValueError, "state_dict['state'][1]['exp_avg']: expected dtype float"),
    ("whole numbers", changed(M, lambda m: m.long()), ValueError, "got torch.int64"),
    ("another device", changed(M, lambda m: m.to("meta")), ValueError, "lies on meta; move it: .cpu()"),
    ("shape", changed(M, lambda m: m[:3]), ValueError, "state_dict: m/1: expected shape (4,), got (3,)"),
    ("rounding", changed("state/0/exp_avg", lambda m: m.double()), ValueError,
     "['exp_avg']: expected dtype float32, got torch.float64; use .to(torch.float32)"),
    ("state missing", changed(M, ...), ValueError, "['1']: missing: ['m']"),
    ("AMSGrad's", of("Adam", amsgrad=True), ValueError, "param_groups[0]: amsgrad: True needs other states"),
    ("AMSGrad's, denied", changed(f"{GROUP}/amsgrad", False, of("Adam", amsgrad=True)), ValueError, "['v_max']"),
    ("NAdam's", of("NAdam"), ValueError, "['param_groups'][0]: not a group of torch.optim.Adam: missing: ['amsgrad']"),
    ("SGD's", of("SGD", momentum=0.9), ValueError, "missing: ['betas', 'eps', 'amsgrad']"),
    ("RMSprop's", of("RMSprop"), ValueError, "not a group of torch.optim.Adam: missing: ['betas', 'amsgrad']"),
    ("rate", changed(f"{GROUP}/lr", -1.0), ValueError, "lr: expected a number >= 0"),
    ("several rates", changed(f"{GROUP}/lr", lambda lr: torch.ones(2)), TypeError, "lr: expected a number"),
    ("betas", changed(f"{GROUP}/betas", (0.9, 1.0)), ValueError, "betas[1]: expected a number >= 0 and < 1"),
    ("flag", changed(f"{GROUP}/maximize", 1), TypeError, "maximize: expected True or False"),
]  # fmt: skip


@live
@pytest.mark.parametrize(("make", "error", "text"), [row[1:] for row in IMPORTS], ids=[row[0] for row in IMPORTS])
def test_import_of_what_does_not_fit(make: Make, error: type[Exception], text: str) -> None:
    mine = fastadam.Adam([np.ones((2, 3), np.float32), np.ones(4)], lr=0.5)
    grads = [np.ones((2, 3), np.float32), np.ones(4)]
    mine.step(grads)
    before, arrays = repr(mine), [array.copy() for array in arrays_of(mine)]
    with pytest.raises(error, match=re.escape(text)):
        import_state(mine, make())
    assert repr(mine) == before
    for now, then in zip(arrays_of(mine), arrays, strict=True):
        np.testing.assert_array_equal(now, then)
    import_state(mine, of("Adam")())
    assert mine.lr == 1e-3


@live
def test_each_optimizer_refuses_the_state_of_each_other() -> None:
    """But for Adam and AdamW, whose state torch's AdamW and Adam take as well, decay and all."""
    for mine in torch_classes():
        for theirs in torch_classes():
            opt = getattr(fastadam, mine)([np.ones((2, 3), np.float32), np.ones(4)])
            if (mine, theirs) == ("Adam", "AdamW"):
                import_state(opt, of(theirs)())
                assert opt.decoupled_weight_decay
            elif mine != theirs:
                with pytest.raises(ValueError, match=r"not a group of torch\.optim|missing: \['v'\]|AdamW decouples"):
                    import_state(opt, of(theirs)())
                assert opt.t == 0


FOREIGN = [
    (fastadam.Adam, "eps_hat", True, "eps_hat: torch.optim.Adam has no such option; assign False first"),
    (fastadam.AdamW, "beta_decay", 0.5, "beta_decay: torch.optim.AdamW has no such option; assign 1.0 first"),
    (fastadam.Adam, "alpha_decay", True, "alpha_decay: torch.optim.Adam has no such option; assign False first"),
    (fastadam.RMSprop, "eps_in_sqrt", True, "eps_in_sqrt: torch.optim.RMSprop has no such option; assign False first"),
    (fastadam.ASGD, "bounds", (0.0, 1.0), "bounds: torch.optim.ASGD has no such option; assign (-inf, inf) first"),
    (fastadam.Adadelta, "lr", lambda t: 1 / t, "lr: is a function, and torch keeps a number; assign one first"),
    (fastadam.AdamW, "decoupled_weight_decay", False, "torch.optim.AdamW decouples its decay always; use Adam"),
]


@live
@pytest.mark.parametrize(("cls", "option", "value", "text"), FOREIGN, ids=[f"{r[0].__name__}-{r[1]}" for r in FOREIGN])
def test_options_that_torch_has_not(cls: Any, option: str, value: Any, text: str) -> None:
    mine = cls([{"params": np.ones((2, 3), np.float32)}, {"params": np.ones(4)}])
    usual = mine.param_groups[1][option]
    mine.param_groups[1][option] = value
    kept = repr(mine)
    for go in (lambda: export_state(mine), lambda: import_state(mine, of(cls.__name__)())):
        with pytest.raises(ValueError, match=re.escape(text)):
            go()
    assert repr(mine) == kept
    mine.param_groups[1][option] = usual
    assert len(export_state(mine)["param_groups"]) == 2


@live
def test_optimizers_that_torch_has_not() -> None:
    sgd = fastadam.optimizer(lambda p, g, lr: (p - lr * g,), lambda t, lr: (lr,), (), lr=0.1)
    for call in (export_state, lambda optimizer: import_state(optimizer, of("SGD")())):
        with pytest.raises(TypeError, match=r"expected one of .*Adam, AdamW, .*SGD, .*, which torch has"):
            call(sgd(np.ones(2), backend="numpy"))
        with pytest.raises(TypeError, match="which torch has, got Lion"):
            call(fastadam.Lion(np.ones(2)))


def test_torch_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    mine = fastadam.Adam(np.ones(2))
    for call in (lambda: export_state(mine), lambda: import_state(mine, {})):
        with pytest.raises(ImportError, match="needs torch: pip install torch"):
            call()
