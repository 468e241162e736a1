"""torch.optim's classes with fastadam's steps: torch's results, states, hooks and schedulers; clear refusals.
The tests need torch, which CI installs.
"""

import copy
import io
import re
import sys
import threading
from importlib import import_module
from importlib.util import find_spec

import inside
import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip("torch is not installed; CI installs it", allow_module_level=True)

import torch

from fastadam.adapters import _tensors
from fastadam.adapters import torch as adapter
from fastadam.adapters.tensors import changed

VARIANTS = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.1, "betas": (0.5, 0.9)}),
    ("Adamax", {"weight_decay": 0.01}),
    ("Adagrad", {"initial_accumulator_value": 0.1, "lr_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adadelta", {"lr": 0.5}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.5, "nesterov": True, "maximize": True}),
    ("NAdam", {"momentum_decay": 0.1}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}),
    ("RAdam", {"betas": (0.5, 0.9), "weight_decay": 0.1}),
    ("RAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1, "maximize": True}),
    ("ASGD", {"lambd": 0.1, "weight_decay": 0.1}),
    ("ASGD", {"t0": 3, "alpha": 0.5, "maximize": True}),
    ("Rprop", {"etas": (0.4, 1.3), "step_sizes": (0.01, 0.1)}),
    ("Rprop", {"maximize": True}),
]
each_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{'-'.join(o)}" for n, o in VARIANTS])
SHAPES = [(5, 3), (7,), (), (0,), (2, 3, 4), (40_001,)]


def tensors(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    made[4] = made[4].permute(2, 0, 1)  # not contiguous
    return [tensor.requires_grad_() for tensor in made]


def set_grads(*models, step, without=()):
    generator = torch.Generator().manual_seed(100 + step)
    for place, same in enumerate(zip(*models, strict=True)):
        grad = torch.randn(same[0].shape, generator=generator, dtype=same[0].dtype)
        for p in same:
            p.grad = None if place in without else grad.clone()


def pair(name, options, dtype=torch.float64):
    ours, theirs = tensors(dtype), tensors(dtype)
    groups = [[{"params": model[:2]}, {"params": model[2:], "lr": 0.05}] for model in (ours, theirs)]
    return ours, getattr(adapter, name)(groups[0], **options), theirs, getattr(torch.optim, name)(groups[1], **options)


def assert_same(ours, theirs, rtol=1e-12):
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=rtol)


def assert_same_states(opt, expected, rtol=1e-12):
    """The same entries of the same dtypes; and numbers, which torch rounds to its default dtype, to the bit."""
    mine, theirs = opt.state_dict()["state"], expected.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for place, state in theirs.items():
        assert mine[place].keys() == state.keys()
        for key, tensor in state.items():
            is_number = tensor.ndim == 0 and key in opt._ours.torch_scalars
            torch.testing.assert_close(
                mine[place][key], tensor, rtol=0 if is_number else rtol, atol=0 if is_number else rtol
            )


@pytest.fixture
def steps(monkeypatch):
    """How many plans stepped."""
    return inside.count_torch_steps(monkeypatch)


@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_torchs(name, options, dtype, steps):
    ours, opt, theirs, expected = pair(name, options, dtype)
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 10) for o in (opt, expected)]
    for step in range(12):
        set_grads(ours, theirs, step=step, without=(1, 5) if step in (3, 4) else ())
        for optimizer, scheduler in zip((opt, expected), schedulers, strict=True):
            optimizer.step()
            scheduler.step()
    assert steps == [6] * 3 + [4] * 2 + [6] * 7
    rtol = 2e-5 if dtype == torch.float32 else 1e-12
    assert_same(ours, theirs, rtol)
    assert_same_states(opt, expected, rtol)
    for k in (1, 5):  # two steps without gradient are no steps
        assert opt.state.get(ours[k], {}).get("step", 10) == 10


@each_variant
def test_either_loads_the_others_state(name, options):
    ours, opt, theirs, expected = pair(name, options)
    for step in range(3):
        set_grads(ours, theirs, step=step)
        opt.step()
        expected.step()
    mine, other = copy.deepcopy(opt.state_dict()), copy.deepcopy(expected.state_dict())
    assert_same_states(opt, expected)
    buffer = io.BytesIO()
    torch.save(mine, buffer)
    buffer.seek(0)
    opt.load_state_dict(other)
    expected.load_state_dict(torch.load(buffer, weights_only=True))
    for step in range(3, 6):
        set_grads(ours, theirs, step=step)
        opt.step()
        expected.step()
    assert_same(ours, theirs)
    assert_same_states(opt, expected)


@each_variant
def test_copies_go_on_alone(name, options):
    ours, opt, _, _ = pair(name, options)
    set_grads(ours, step=0)
    opt.step()
    other, twin = copy.deepcopy((ours, opt))
    for optimizer, model in ((opt, ours), (twin, other)):
        set_grads(model, step=1)
        optimizer.step()
    assert_same(ours, other, 0)
    assert not any(p.data_ptr() == q.data_ptr() for p, q in zip(ours, other, strict=True) if p.numel())


def test_same_bits_for_any_number_of_threads_and_every_run():
    results = []
    for n_threads in (1, 2, 3, 3):
        model = tensors(torch.float32)
        opt = adapter.AdamW(model, n_threads=n_threads)
        for step in range(5):
            set_grads(model, step=step)
            opt.step()
        results.append(model)
    for model in results[1:]:
        assert_same(model, results[0], 0)


def test_a_model_is_trained_by_a_closure():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x = torch.randn(64, 3)
    y = x.prod(dim=1, keepdim=True)
    opt = adapter.Adam(model.parameters(), lr=0.03)

    def closure():
        opt.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss.detach()

    losses = [float(opt.step(closure)) for _ in range(300)]
    assert losses[-1] < losses[0] / 20


def test_hooks_and_groups_are_torchs():
    model = tensors()
    opt = adapter.Adam(model[:2])
    seen = []
    opt.register_step_post_hook(lambda *_: seen.append(1))
    set_grads(model, step=0)
    opt.step()
    opt.add_param_group({"params": model[2:], "lr": 0.5})
    opt.step()
    assert seen == [1, 1]
    assert [float(opt.state[p]["step"]) for p in model] == [2, 2, 1, 1, 1, 1]
    opt.state.clear()  # begins anew
    opt.step()
    assert {float(opt.state[p]["step"]) for p in model} == {1.0}


def test_tensors_that_are_replaced_are_followed():
    """`p.data = …` gives a tensor other memory; load_state_dict and hands give a state other tensors."""
    ours, opt, theirs, expected = pair("Adam", {})
    for step in range(6):
        set_grads(ours, theirs, step=step)
        if step == 2:
            for model in (ours, theirs):
                model[0].data = model[0].data.clone() + 1
        if step == 4:
            for optimizer, model in ((opt, ours), (expected, theirs)):
                optimizer.state[model[1]]["exp_avg"] = torch.ones(7, dtype=torch.float64)
        opt.step()
        expected.step()
    assert_same(ours, theirs)


def test_lr_in_a_tensor():
    p = torch.ones(2, requires_grad=True)
    opt = adapter.Adam([p], lr=torch.tensor(0.5))
    p.grad = torch.ones(2)
    opt.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.5))
    opt.param_groups[0]["lr"].fill_(0.25)
    opt.step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_computed_in_float32(dtype):
    p = torch.linspace(-1, 1, 100).to(dtype).requires_grad_()
    wide = p.detach().float().requires_grad_()
    opt, expected = adapter.Adam([p], lr=0.1), torch.optim.Adam([wide], lr=0.1)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        p.grad = torch.randn(100, generator=generator).to(dtype)
        wide.grad = p.grad.float()
        opt.step()
        expected.step()
        wide.data = wide.data.to(dtype).float()
        torch.testing.assert_close(p.detach().float(), wide.detach(), rtol=1e-2, atol=0)
    assert opt.state[p]["exp_avg"].dtype == torch.float32


LETS = "lets gradients flow through the step, which autograd does not see here; leave it out, or assign False"
REFUSED = [
    (
        "capturable",
        {"capturable": True},
        lambda: torch.ones(2),
        ValueError,
        "capturable=True keeps the counts of steps",
    ),
    ("differentiable", {"differentiable": True}, lambda: torch.ones(2), ValueError, f"differentiable=True {LETS}"),
    ("float8", {}, lambda: torch.ones(2).to(torch.float8_e5m2), TypeError, "use .to(torch.float32)"),
    ("device", {}, lambda: torch.ones(2, device="meta"), TypeError, "['params'][0] lies on meta"),
    ("sparse", {}, lambda: torch.ones(2).to_sparse(), TypeError, "use .to_dense(), or torch.optim"),
    ("expanded", {}, lambda: torch.ones(1).expand(4), ValueError, "share memory; use .contiguous()"),
    ("threads", {"n_threads": 0}, lambda: torch.ones(2), ValueError, "n_threads: expected a whole number >= 1"),
]


@pytest.mark.parametrize(("options", "make", "error", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_stepped_is_refused(options, make, error, text):
    with pytest.raises(error, match=re.escape(text)):
        adapter.Adam([make().requires_grad_()], **options)
    opt = adapter.Adam([torch.ones(3, requires_grad=True)])
    options.pop("n_threads", None)
    if make().dtype != torch.float32 or make().device.type != "cpu" or options:
        with pytest.raises(error, match=re.escape(text)):
            opt.add_param_group({"params": make().requires_grad_(), **options})
        assert len(opt.param_groups) == 1


def test_a_refused_step_changes_nothing():
    table, dense = (torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    opt = adapter.Adam([dense, table])
    dense.grad, table.grad = torch.ones(3, 3), torch.eye(3).to_sparse()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^gradient of .*\[1\]: .*sparse in 2 axes; pass \.to_dense\(\)$"):
            opt.step()
    assert torch.equal(dense.detach(), torch.ones(3, 3))
    assert torch.equal(table.detach(), torch.ones(3, 3))
    table.grad = None
    opt.step()
    assert opt.state[dense]["step"] == 1


def test_gradients_in_numpy_share_memory():
    p = torch.ones(3, requires_grad=True)
    g = np.full(3, 2.0, np.float32)
    p.grad = torch.from_numpy(g)
    opt = adapter.Adam([p], lr=0.5)
    opt.step()
    g[:] = -2
    opt.step()
    assert float(opt.state[p]["exp_avg"][0]) == pytest.approx(0.9 * 0.2 - 0.2)


def transposed(p, state):
    p.data = p.data.t()


def moment_elsewhere(p, state):
    state["exp_avg"].data = torch.zeros_like(state["exp_avg"])


def begun_anew(p, state):
    for tensor in state.values():
        tensor.zero_()


@pytest.mark.parametrize("change", [transposed, moment_elsewhere, begun_anew])
def test_tensors_changed_in_place_between_steps(change):
    params = [torch.arange(9.0).reshape(3, 3).clone() for _ in range(2)]
    ours, theirs = adapter.Adam([params[0]], lr=0.1), torch.optim.Adam([params[1]], lr=0.1)
    for t in range(6):
        for p, optimizer in zip(params, (ours, theirs), strict=True):
            if t == 3:
                change(p, optimizer.state[p])
            p.grad = torch.linspace(-1, t, 9).reshape(3, 3)
            optimizer.step()
    torch.testing.assert_close(params[0], params[1])
    assert ours.state[params[0]]["step"] == theirs.state[params[1]]["step"]


def test_a_first_step_in_inference_mode():
    p = torch.ones(3)
    p.grad = torch.ones(3)
    optimizer = adapter.Adam([p], lr=0.1)
    with torch.inference_mode():
        optimizer.step()
    optimizer.step()
    torch.testing.assert_close(p, torch.full((3,), 0.8))
    assert optimizer.state[p]["step"] == 2


def test_copies_keep_the_number_of_threads():
    optimizer = adapter.Adam([torch.ones(3)], n_threads=1)
    assert inside.torch_threads(copy.deepcopy(optimizer)) == 1


@pytest.mark.parametrize("way", ["capturable", "differentiable"])
def test_a_way_of_computing_that_comes_later_is_refused(way):
    p = torch.ones(3)
    p.grad = torch.ones(3)
    optimizer = adapter.Adam([p])
    optimizer.step()
    optimizer.param_groups[0][way] = True
    before = p.clone()
    with pytest.raises(ValueError, match=f"{way}=True .*; leave it out, or assign False"):
        optimizer.step()
    assert torch.equal(p, before)
    assert optimizer.state[p]["step"] == 1


def one(name="Adam", dtype=torch.float32, **options):
    """A parameter, and optimizers of ours and torch's over copies of it."""
    ours, theirs = (torch.nn.Parameter(torch.ones(3, dtype=dtype)) for _ in range(2))
    own = copy.deepcopy(options)
    return ours, getattr(adapter, name)([ours], **own), theirs, getattr(torch.optim, name)([theirs], **options)


def run(n, p, optimizer, grad=1.0):
    for _ in range(n):
        p.grad = torch.full_like(p, grad)
        optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["step"].share_memory_(),  # other memory for all that share it
        lambda state: state["step"].data.fill_(0),
        lambda state: state["step"].numpy().fill(3),
        lambda state: state["exp_avg"].share_memory_(),
    ],
)
def test_states_that_are_moved_or_changed_unseen(change):
    p, ours, q, theirs = one()
    for optimizer, param in ((ours, p), (theirs, q)):
        run(2, param, optimizer)
        change(optimizer.state[param])
        run(3, param, optimizer)
    assert_same([p, ours.state[p]["step"]], [q, theirs.state[q]["step"]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"betas": (torch.tensor(0.9), torch.tensor(0.99))}, lambda g: g["betas"][0].fill_(0.1)),
        ({}, lambda g: g.update(betas=[0.5, 0.9]) or g["betas"].__setitem__(0, 0.1)),
        ({}, lambda g: g.update(lr=np.float64(0.1), weight_decay=np.float32(0.25), maximize=np.True_)),
        ({"amsgrad": True}, lambda g: g.update(amsgrad=False)),
    ],
)
def test_options_that_change(options, change):
    p, ours, q, theirs = one(foreach=False, **options)
    for optimizer, param in ((ours, p), (theirs, q)):
        optimizer.param_groups[0]["a user's"] = torch.ones(3)
        run(2, param, optimizer)
        change(optimizer.param_groups[0])
        optimizer.param_groups[0]["a user's"] = torch.zeros(3)
        run(3, param, optimizer, grad=0.5)
    assert_same([p], [q], rtol=1e-6)


SCHEDULERS = {
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),  # momentum and β₁, too
    "one cycle of rates": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1),
}


@each_variant
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_of_torch(name, options, scheduler):
    ours, opt, theirs, expected = pair(name, options)
    has_momentum = {"momentum", "betas"} & opt.defaults.keys()
    if scheduler == "one cycle" and not has_momentum:
        with pytest.raises(ValueError, match="momentum"):
            SCHEDULERS[scheduler](opt)
        return
    schedules = [SCHEDULERS[scheduler](optimizer) for optimizer in (opt, expected)]
    for step in range(15):
        set_grads(ours, theirs, step=step, without=(1,) if step == 2 else ())
        for optimizer, schedule in zip((opt, expected), schedules, strict=True):
            optimizer.step()
            schedule.step(*([1.0] if scheduler == "plateau" else []))
    assert_same(ours, theirs)
    assert_same_states(opt, expected)


def test_momentum_that_comes_and_goes():
    """Its buffers stay, and those that are not there yet begin with the gradient, undampened."""
    p, ours, q, theirs = one("SGD", torch.float64, lr=0.1, dampening=0.5)
    for momentum in (0.0, 0.9, 0.9, 0.0, 0.5):
        for optimizer, param in ((ours, p), (theirs, q)):
            optimizer.param_groups[0]["momentum"] = momentum
            run(2, param, optimizer, grad=1.0 + momentum)
        assert_same([p], [q])
        assert_same_states(ours, theirs)


def test_a_momentum_buffer_is_adopted_and_none_is_none():
    for buffer in (torch.full((3,), 4.0), None):
        p, ours, q, theirs = one("SGD", lr=0.1, momentum=0.5, dampening=0.5)
        for optimizer, param in ((ours, p), (theirs, q)):
            optimizer.state[param]["momentum_buffer"] = copy.deepcopy(buffer)
            run(2, param, optimizer)
        assert_same([p, ours.state[p]["momentum_buffer"]], [q, theirs.state[q]["momentum_buffer"]], rtol=1e-6)


NUMBERS = [("NAdam", "mu_product", 0.5), ("ASGD", "eta", 0.5), ("ASGD", "mu", 0.25)]


@pytest.mark.parametrize("number", [torch.tensor, lambda value: value], ids=["tensor", "number"])
@pytest.mark.parametrize(("name", "key", "value"), NUMBERS)
def test_numbers_of_a_state_are_read_and_left_as_torchs(name, key, value, number):
    """Each parameter has its own, also within one group."""
    ours, opt, theirs, expected = pair(name, {})
    for optimizer, params in ((opt, ours), (expected, theirs)):
        for step in range(2):
            set_grads(params, step=step)
            optimizer.step()
        state = optimizer.state_dict()
        state["state"][3][key] = number(value)
        optimizer.load_state_dict(state)
        optimizer.state[params[1]][key].fill_(value)
        for step in range(2, 5):
            set_grads(params, step=step)
            optimizer.step()
    assert_same(ours, theirs)
    for p, q in zip(ours, theirs, strict=True):
        assert float(opt.state[p][key]) == pytest.approx(float(expected.state[q][key]), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "key", "value", "text"),
    [
        ("NAdam", "mu_product", None, "expected 'mu_product' after step 2, got"),
        ("NAdam", "mu_product", float("nan"), "'mu_product': expected a number >= 0 and <= 1, got nan"),
        ("ASGD", "eta", float("inf"), "'eta': expected a number that is finite, got inf"),
        ("ASGD", "mu", 0.0, "'mu': expected a number > 0 and <= 1, got 0.0"),
        ("ASGD", "mu", torch.ones(2), "'mu': expected a number"),
        ("Rprop", "prev", None, "expected 'prev' after step 2, got"),
    ],
)
def test_numbers_that_torch_never_left_are_refused(name, key, value, text):
    p, ours, *_ = one(name)
    run(2, p, ours)
    ours.state[p][key] = value
    before = p.detach().clone()
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        ours.step()
    assert torch.equal(p, before)
    assert ours.state[p]["step"] == 2


def test_torchs_default_dtype_is_that_of_its_numbers():
    torch.set_default_dtype(torch.float64)
    try:
        for name in ("NAdam", "ASGD"):
            ours, opt, theirs, expected = pair(name, {})
            for step in range(4):
                set_grads(ours, theirs, step=step)
                opt.step()
                expected.step()
            assert_same_states(opt, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_schedule_in_numbers_of_numpy():
    p, ours, q, theirs = one(lr=0.1)
    for optimizer, param in ((ours, p), (theirs, q)):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: np.cos(epoch / 10))
        for _ in range(3):
            run(1, param, optimizer)
            schedule.step()
    assert_same([p], [q], rtol=1e-6)


# whose squares float16 cannot hold; and where numbers beside the states are more exact than float16
@pytest.mark.parametrize(("name", "grad"), [("Adam", 1e-4), ("Adagrad", 50.0), ("NAdam", 1e-4), ("ASGD", 0.1)])
def test_16_bits_go_on_from_a_checkpoint_as_if_nothing_had_been(name, grad):
    p, straight, q, _ = one(name, torch.float16)
    run(20, p, straight, grad=grad)
    first, resumed = (getattr(adapter, name)([q]) for _ in range(2))
    run(10, q, first, grad=grad)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    run(10, q, resumed, grad=grad)
    assert torch.equal(p, q)
    assert all(torch.equal(a, b) for a, b in zip(straight.state[p].values(), resumed.state[q].values(), strict=True))


def test_counts_are_of_torchs_dtype_and_device():
    p, ours, *_ = one()
    for default in (torch.float16, torch.float64):
        torch.set_default_dtype(default)
        try:
            with torch.device("meta"):
                ours.state.clear()
                p.grad = torch.ones(3, dtype=torch.float32, device="cpu")
                ours.step()
        finally:
            torch.set_default_dtype(torch.float32)
        expected = torch.float64 if default == torch.float64 else torch.float32
        assert ours.state[p]["step"].dtype == expected
        assert ours.state[p]["step"].device.type == "cpu"


def test_values_that_autograd_left_uncomputed():
    p, ours, q, theirs = one()
    for grad in (torch._neg_view(torch.ones(3)), torch._efficientzerotensor(3)):
        p.grad, q.grad = grad, grad.clone()
        ours.step()
        theirs.step()
    assert_same([p], [q], rtol=1e-6)
    lazy = torch._neg_view(torch.ones(3)).requires_grad_()
    with pytest.raises(TypeError, match=r"\['params'\]\[0\] has values that are not computed yet.*\.clone\(\)"):
        adapter.Adam([lazy])


def test_the_state_of_another_optimizer_is_refused():
    p, ours, *_ = one("Adamax")
    run(3, p, ours)
    other = adapter.Adam([p])
    other.load_state_dict(ours.state_dict())
    before = p.detach().clone()
    with pytest.raises(ValueError, match="expected 'exp_avg_sq' after step 3, got"):
        other.step()
    assert torch.equal(p, before)


def test_a_plain_dict_as_state():
    p, ours, *_ = one()
    run(1, p, ours)
    ours.state = {}
    run(2, p, ours)
    assert ours.state[p]["step"] == 2


def test_threads_in_one_optimizer_step_in_turn_or_are_refused():
    """Also while the plan is made anew, every few steps."""
    params = [torch.nn.Parameter(torch.ones(8)) for _ in range(20)]
    for p in params:
        p.grad = torch.ones(8)
    optimizer, done, other = adapter.Adam(params), [], []

    def step_often():
        for k in range(200):
            try:
                optimizer.step()
                done.append(1)
                if k % 10 == 0:
                    params[0].data = params[0].data.clone()
            except RuntimeError as error:
                other.append(str(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=step_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert {float(optimizer.state[p]["step"]) for p in params} == {len(done)}
    assert all("another thread is inside" in said for said in other)
    optimizer.step()


def table_of_functions():
    return getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)


@pytest.fixture(params=["", "no table", "no global hooks", "no profiler"])
def torch_without(request, monkeypatch):
    """torch as it is, and without one of the names that make a step quick."""
    if request.param == "no table":
        _tensors.read_by(None, torch.Tensor, torch.nn.Parameter, changed)
    elif request.param == "no global hooks":
        monkeypatch.setattr(adapter._Unlooked, "before", None)
    elif request.param == "no profiler":
        monkeypatch.setattr(adapter._Unlooked, "profiler", None)
    yield request.param
    _tensors.read_by(table_of_functions(), torch.Tensor, torch.nn.Parameter, changed)


@each_variant
def test_numbers_are_the_same_without_torchs_private_names(name, options, torch_without):
    ours, opt, theirs, expected = pair(name, options)
    for step in range(4):
        set_grads(ours, theirs, step=step)
        opt.step()
        expected.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("replaced", [False, True])
def test_the_second_step_is_the_quick_one(replaced, monkeypatch):
    if table_of_functions() is None:
        pytest.skip("this torch has no table of functions")
    p, ours, *_ = one(dtype=torch.float32)
    run(1, p, ours)
    monkeypatch.setattr(adapter._TensorPlan, "step", None)
    for _ in range(3):
        if replaced:
            p.grad = torch.ones(3)
        ours.param_groups[0]["lr"] *= 0.5
        ours.step()
    assert ours.state[p]["step"] == 4


def test_gradients_that_change_their_layout():
    p, q = (torch.nn.Parameter(torch.arange(12.0).reshape(3, 4)) for _ in range(2))
    ours, theirs = adapter.Adam([p]), torch.optim.Adam([q])
    wide = torch.randn(3, 8)
    grads = [
        torch.randn(3, 4),
        torch.randn(4, 3).t(),
        wide[:, ::2],
        torch._neg_view(torch.ones(3, 4)),
        torch.ones(3, 4),
    ]
    for grad in [
        *grads,
        *grads,
        grads[0],
        grads[0],
        torch._neg_view(grads[0]),
        torch.from_numpy(wide.numpy())[:, 1::2],
    ]:
        p.grad, q.grad = grad, grad.clone()
        ours.step()
        theirs.step()
    assert_same([p], [q], rtol=1e-5)


def test_a_gradient_that_comes_to_lie_in_a_state_is_refused():
    p, ours, *_ = one()
    run(2, p, ours)
    p.grad = ours.state[p]["exp_avg"]
    with pytest.raises(ValueError, match="shares memory with a parameter or a state"):
        ours.step()
    assert ours.state[p]["step"] == 2


def test_hooks_of_all_optimizers_and_profilers_see_each_step():
    p, ours, *_ = one()
    seen = []
    hooks = import_module("torch.optim.optimizer")
    removable = [
        hooks.register_optimizer_step_pre_hook(lambda *_: seen.append("before")),
        hooks.register_optimizer_step_post_hook(lambda *_: seen.append("after")),
        ours.register_step_pre_hook(lambda *_: seen.append("own before")),
        ours.register_step_post_hook(lambda *_: seen.append("own after")),
    ]
    run(2, p, ours)
    for hook in removable:
        hook.remove()
    run(1, p, ours)
    assert seen == ["before", "own before", "own after", "after"] * 2
    with torch.profiler.profile() as profile:
        run(1, p, ours)
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


def test_a_step_of_ones_own_around_it_runs_hooks_as_torchs_does():
    class Own(adapter.Adam):
        def step(self, closure=None):
            return super().step(closure)

    p = torch.nn.Parameter(torch.ones(3))
    seen = []
    optimizer = Own([p])
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    run(2, p, optimizer)
    assert len(seen) >= 2
    assert optimizer.state[p]["step"] == 2


def test_a_parameter_that_was_narrowed_is_not_stepped_beyond_its_end():
    p = torch.nn.Parameter(torch.zeros(6))
    whole, optimizer = p.data, adapter.Adam([p], lr=1.0)
    p.grad = torch.ones(6)
    for _ in range(2):
        optimizer.step()
    before = whole.clone()
    p.data = p.data[:2]  # at the same place, with the same strides
    with pytest.raises(ValueError, match=r"expected shape \(2,\)"):
        optimizer.step()
    assert torch.equal(whole, before)
