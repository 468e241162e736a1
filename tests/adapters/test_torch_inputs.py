"""The torch adapter takes all inputs of torch.optim's classes: options, groups of older versions, tensors that need no
gradient. Each intended difference in docs/how-to/libraries/torch.md exists, in torch and here.
"""

import copy
import re
from importlib.util import find_spec

import inside
import pytest
from places import ROOT

if find_spec("torch") is None:
    pytest.skip("torch is not installed; CI installs it", allow_module_level=True)

import torch

import fastadam
from fastadam.adapters import torch as adapter
from fastadam.adapters import torch_state

NAMES = [name for name in adapter.__all__ if isinstance(getattr(adapter, name), type)]
each_name = pytest.mark.parametrize("name", NAMES)


def parameter(*values, **how):
    return torch.nn.Parameter(torch.tensor(values or (1.0, -2.0, 3.0), **how))


def stepped(p, optimizer, steps=3, grad=0.5):
    for _ in range(steps):
        p.grad = torch.full_like(p, grad)
        optimizer.step()
    return p.detach().clone()


# ---------------------------------------------------------------- ways of computing


def held(optimizer, p):
    """The tensors of a parameter's state, in the order of their names."""
    state = optimizer.state.get(p, {})
    return [state[key].detach().clone() for key in sorted(state)]


def takes(name, way):
    return way in getattr(torch.optim, name)([parameter()]).defaults


@each_name
@pytest.mark.parametrize("value", [True, False, None])
@pytest.mark.parametrize("way", ["foreach", "fused"])
@pytest.mark.parametrize("where", ["argument", "group", "assigned", "state_dict"])
def test_ways_that_choose_a_speed_change_nothing(name, way, value, where):
    if not takes(name, way):
        with pytest.raises(TypeError, match="unexpected keyword"):
            getattr(adapter, name)([parameter()], **{way: value})
        return
    p, q = parameter(), parameter()
    cls, plain = getattr(adapter, name), getattr(adapter, name)([q])
    optimizer = cls([p], **{way: value}) if where == "argument" else cls([{"params": [p], way: value}])
    if where == "assigned":
        optimizer = cls([p])
        optimizer.param_groups[0][way] = value
    elif where == "state_dict":
        theirs = getattr(torch.optim, name)([parameter()], **{way: value})
        optimizer = cls([p])
        optimizer.load_state_dict(theirs.state_dict())
    assert torch.equal(stepped(p, optimizer), stepped(q, plain))
    assert optimizer.param_groups[0][way] is value
    assert optimizer.state_dict()["param_groups"][0][way] is value


@each_name
@pytest.mark.parametrize("way", ["capturable", "differentiable"])
def test_ways_that_do_more_are_taken_where_they_are_not_chosen(name, way):
    if takes(name, way):
        p = parameter()
        assert not torch.equal(stepped(p, getattr(adapter, name)([p], **{way: False}), 1), parameter().detach())


def test_a_group_that_is_added_may_choose_a_speed():
    p, q = parameter(), parameter()
    optimizer = adapter.Adam([p], fused=True)
    optimizer.add_param_group({"params": [q], "foreach": True, "fused": False})
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    assert torch.equal(p, q)


@each_name
@pytest.mark.parametrize("way", [None, "fused"])
def test_gradients_under_a_grad_scaler_are_unscaled(name, way):
    """torch's fused step divides by the scale itself; a GradScaler must not leave that to a step here."""
    if way and not takes(name, way):
        return
    how = {way: True} if way else {}
    how |= {"eps": 1.0} if takes(name, "eps") else {}  # or Adam's step would be the same for any scale
    results = []
    for optim in (adapter, torch.optim):
        p = parameter()
        optimizer, scaler = getattr(optim, name)([p], lr=0.1, **how), torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (1.0, float("inf"), 2.0):  # the second step is skipped
            optimizer.zero_grad()
            scaler.scale((p * p * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append((p.detach(), scaler.get_scale()))
    torch.testing.assert_close(*results)


# ---------------------------------------------------------------- groups of an older torch


class Older:
    """What torch up to 2.6 does with its groups: they have no `decoupled_weight_decay`."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.forget()

    def __setstate__(self, state):
        super().__setstate__(state)
        self.forget()

    def add_param_group(self, group):
        super().add_param_group(group)
        self.forget()

    def forget(self):
        for options in (self.defaults, *self.param_groups):
            options.pop("decoupled_weight_decay", None)


@pytest.fixture
def older(monkeypatch):
    """torch as it was up to 2.6, as far as groups go; gives the adapter's classes over it."""
    newer = {name: getattr(torch.optim, name) for name in ("Adam", "AdamW")}
    for name, cls in newer.items():
        monkeypatch.setattr(torch.optim, name, type(name, (Older, cls), {}))
    torch_state.torch_defaults.cache_clear()
    yield newer, {name: inside.torch_class_of(getattr(fastadam, name)) for name in newer}
    torch_state.torch_defaults.cache_clear()


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_groups_without_the_option_that_came_with_torch_2_7(name, older):
    newer, ours = older
    options = {"lr": 0.1, "weight_decay": 0.5}
    p, q = parameter(), parameter()
    optimizer, theirs = ours[name]([p], **options), newer[name]([q], **options)
    assert "decoupled_weight_decay" not in optimizer.state_dict()["param_groups"][0]
    for _ in range(2):
        torch.testing.assert_close(stepped(p, optimizer), stepped(q, theirs))
        again = ours[name]([p])
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer = again
    array = q.detach().numpy().copy()
    mine = getattr(fastadam, name)([array])
    torch_state.import_state(mine, optimizer.state_dict())
    assert mine.param_groups[0]["decoupled_weight_decay"] == (name == "AdamW")
    stepped(q, theirs, 1)
    mine.step([torch.full((3,), 0.5).numpy()])
    torch.testing.assert_close(torch.from_numpy(array), q.detach())
    assert "decoupled_weight_decay" not in torch_state.export_state(mine)["param_groups"][0]


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_an_older_state_dict_is_loaded_and_a_group_may_lose_the_option(name):
    p, q = parameter(), parameter()
    optimizer, theirs = (getattr(m, name)([t], weight_decay=0.5) for m, t in ((adapter, p), (torch.optim, q)))
    came = copy.deepcopy(theirs.state_dict())
    del came["param_groups"][0]["decoupled_weight_decay"]
    optimizer.load_state_dict(came)
    torch.testing.assert_close(stepped(p, optimizer), stepped(q, theirs))
    del optimizer.param_groups[0]["decoupled_weight_decay"]
    torch.testing.assert_close(stepped(p, optimizer), stepped(q, theirs))


# ---------------------------------------------------------------- tensors that need no gradient


UNSTEPPED = {
    "int8": lambda: torch.ones(3, dtype=torch.int8),
    "bool": lambda: torch.ones(3, dtype=torch.bool),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "expanded": lambda: torch.ones(1).expand(3),
    "meta": lambda: torch.ones(3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "negative view": lambda: torch._neg_view(torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("make", UNSTEPPED.values(), ids=UNSTEPPED)
@each_name
def test_frozen_tensors_may_be_anything(name, make):
    frozen = [torch.nn.Parameter(make(), requires_grad=False) for _ in range(3)]
    p, alone = parameter(), parameter()
    try:
        getattr(torch.optim, name)([frozen[0]])
    except (RuntimeError, NotImplementedError) as error:  # torch's Adagrad makes the states of all tensors at once
        assert name == "Adagrad"
        with pytest.raises(type(error), match=re.escape(str(error)[:50])):
            adapter.Adagrad([frozen[0]])
        return
    optimizer = getattr(adapter, name)([frozen[0], p])
    optimizer.add_param_group({"params": [frozen[1]]})
    optimizer.add_param_group({"params": frozen[2:], "lr": 0.5})
    assert torch.equal(stepped(p, optimizer), stepped(alone, getattr(adapter, name)([alone])))


THAWED = {
    "int8": (lambda: torch.ones(3, dtype=torch.int8), TypeError, "is of torch.int8; .*torch.float32"),
    "expanded": (lambda: torch.ones(1).expand(3), ValueError, r"share memory; use \.contiguous\(\)"),
    "meta": (lambda: torch.ones(3, device="meta"), TypeError, r"lies on meta; .*\.cpu\(\)"),
}


@pytest.mark.parametrize("case", THAWED)
def test_a_frozen_tensor_that_gets_a_gradient_is_looked_at(case):
    make, error, text = THAWED[case]
    frozen, p = make(), parameter()
    optimizer = adapter.Adam([p, frozen])
    stepped(p, optimizer, 1)
    before = copy.deepcopy((p, optimizer.state[p]))
    frozen.grad = make()
    with pytest.raises(error, match=r"param_groups\[0\]\['params'\]\[1\].*" + text):
        optimizer.step()
    assert torch.equal(p, before[0])
    assert all(torch.equal(optimizer.state[p][name], value) for name, value in before[1].items())
    frozen.grad = None
    stepped(p, optimizer, 1)
    assert optimizer.state[p]["step"] == 2


def as_in_torch(steps):
    """What these steps make of three matrices, beside what torch makes of them."""
    made = []
    for cls in (adapter.Adam, torch.optim.Adam):
        params = [torch.nn.Parameter(torch.arange(12.0).reshape(3, 4) + k) for k in range(3)]
        optimizer = cls(params, lr=0.1)
        steps(params, optimizer)
        made.append([p.detach() for p in params])
    torch.testing.assert_close(*made)


@pytest.mark.parametrize("then", range(8))
@pytest.mark.parametrize("first", range(8))
def test_any_gradients_may_come_or_stay_away_from_step_to_step(first, then):
    def steps(params, optimizer):
        for which in (first, then, then):
            for k, p in enumerate(params):
                p.grad = torch.full_like(p, k + 1.0) if which >> k & 1 else None
            optimizer.step()

    as_in_torch(steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda g: g.T.contiguous().T,
        lambda g: torch.stack([g, g], dim=-1)[..., 0],
        lambda g: g[:1].expand(3, 4),
        lambda g: torch.cat([g, g])[3:],
    ],
    ids=["transposed", "every second", "expanded", "at an offset"],
)
def test_a_gradient_may_lie_otherwise_from_step_to_step(make):
    def steps(params, optimizer):
        g = torch.arange(12.0).reshape(3, 4).cos()
        for grad in (g, g.clone(), make(g), make(g.clone()), g.clone()):
            for p in params:
                p.grad = grad
            optimizer.step()

    as_in_torch(steps)


def test_a_frozen_tensor_thaws_with_a_count_of_its_own():
    results = []
    for optim in (adapter, torch.optim):
        p, q = parameter(), parameter()
        q.requires_grad_(False)
        optimizer = optim.Adam([p, q], lr=0.1)
        stepped(p, optimizer, 3)
        q.requires_grad_()
        q.grad = torch.ones(3)
        stepped(p, optimizer, 2)
        results.append([p.detach(), q.detach(), optimizer.state[p]["step"], optimizer.state[q]["step"]])
    torch.testing.assert_close(*results)
    assert results[0][2:] == [5, 2]


@each_name
@pytest.mark.parametrize("late", [False, True])
def test_lazy_modules(name, late):
    """Whose parameters have no shape before the first call. torch's own Adagrad refuses them."""
    if name == "Adagrad" and not late:
        with pytest.raises(ValueError, match="uninitialized parameter"):
            adapter.Adagrad(torch.nn.LazyLinear(2).parameters())
        return
    results = []
    for optim in (adapter, torch.optim) if name != "Adagrad" else (adapter,):
        torch.manual_seed(0)
        model, p = torch.nn.LazyLinear(2), parameter()
        optimizer = getattr(optim, name)([p] if late else [*model.parameters(), p])
        if late:
            stepped(p, optimizer, 1)
            optimizer.add_param_group({"params": list(model.parameters())})
        stepped(p, optimizer, 1)
        optimizer.load_state_dict(optimizer.state_dict())
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        results.append([w.detach() for w in model.parameters()] + held(optimizer, model.weight))
    torch.testing.assert_close(results[0], results[-1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Adagrad"])
def test_lazy_modules_in_groups_that_come_late(name):
    """Steps and states before the first call, whose parameters then begin their own count, as in torch."""
    results = []
    for optim in (adapter, torch.optim):
        torch.manual_seed(0)
        p, early, late = parameter(), torch.nn.LazyLinear(2), torch.nn.LazyConv1d(2, 1)
        optimizer = getattr(optim, name)([{"params": [p]}, {"params": [*early.parameters()], "lr": 0.5}])
        optimizer.step()  # no tensor has a gradient
        stepped(p, optimizer, 2)
        optimizer.add_param_group({"params": [*late.parameters()], "weight_decay": 0.1})
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert optimizer.state.keys() <= {p}
        for module, batch in ((early, torch.ones(1, 3)), (late, torch.ones(1, 2, 3))):
            for _ in range(3):
                optimizer.zero_grad()
                module(batch).sum().backward()
                stepped(p, optimizer, 1)
        weights = [w for module in (early, late) for w in module.parameters()]
        results.append([w.detach() for w in (p, *weights)] + [s for w in (p, *weights) for s in held(optimizer, w)])
    torch.testing.assert_close(*results)


def test_an_average_of_a_lazy_module_is_refused_by_name():
    model = torch.nn.LazyLinear(2)
    with pytest.raises(ValueError, match=r"params\['weight'\]: has no shape before the first call of its lazy module"):
        adapter.Average(model)
    model(torch.ones(1, 3))
    adapter.Average(model).update()


# ---------------------------------------------------------------- complex tensors


@each_name
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_tensors_are_stepped_as_torchs_are(name, dtype):
    """Beside real ones. A gradient may be a conjugate that is not computed yet, which torch's own refuse."""
    generator = torch.Generator().manual_seed(0)
    start, grad = (torch.randn(2, 3, dtype=dtype, generator=generator) for _ in range(2))
    results = []
    for optim in (adapter, torch.optim):
        p, q = torch.nn.Parameter(start.clone()), parameter()
        optimizer = getattr(optim, name)([p, q], lr=0.1)
        for g in (grad, 2 * grad, grad.conj(), grad, torch._neg_view(grad), grad.t().contiguous().t()):
            p.grad = g if optim is adapter else g.resolve_conj().resolve_neg()
            q.grad = torch.ones(3)
            optimizer.step()
        results.append([p.detach(), q.detach(), *held(optimizer, p)])
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.step()
        results[-1].append(p.detach().clone())
    torch.testing.assert_close(*results)


def test_a_complex_tensor_that_becomes_its_conjugate_is_refused():
    p = parameter(1j, 2 - 1j)
    optimizer = adapter.Adam([p])
    stepped(p, optimizer, 2)
    p.data = p.data.conj()  # in the same memory
    before = p.detach().resolve_conj()
    with pytest.raises(TypeError, match=r"not computed yet.*\.resolve_conj\(\)"):
        optimizer.step()
    assert torch.equal(p.detach().resolve_conj(), before)


# ---------------------------------------------------------------- states in which some parameters have none


@each_name
def test_states_with_unused_and_frozen_parameters_are_taken(name):
    """Counts differ: one parameter has gradients always, one at times, one never, one is frozen."""
    results = []
    for optim in (adapter, torch.optim):
        params = [parameter(), parameter(), parameter(), parameter().requires_grad_(False)]
        theirs = getattr(torch.optim, name)(params, lr=0.1)
        for step in range(4):
            params[0].grad = torch.ones(3)
            params[1].grad = torch.ones(3) if step == 2 else None
            theirs.step()
        optimizer = getattr(optim, name)(params, lr=0.5)
        optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))
        for p in params[1:]:
            p.grad = torch.full((3,), 0.5)
        for _ in range(2):
            optimizer.step()
        results.append([*(p.detach() for p in params), *(own for p in params for own in held(optimizer, p))])
    torch.testing.assert_close(*results)
    counts = [optimizer.state[p]["step"] for p in params if "step" in optimizer.state.get(p, {})]
    assert counts == ([] if name == "SGD" else [6, 3, 2, 2])


# ---------------------------------------------------------------- memory


def views():
    base = torch.ones(4)
    return base[:3].requires_grad_(), base[1:].requires_grad_()


def same_memory():
    p = parameter()
    return p, torch.nn.Parameter(p.data)


@pytest.mark.parametrize("make", [views, same_memory])
def test_tensors_over_one_memory_are_refused_when_they_are_given(make):
    first, second = make()
    text = r"\['params'\]\[.\] and param_groups\[0\]\['params'\]\[0\] share memory and would be stepped twice"
    with pytest.raises(ValueError, match=text):
        adapter.Adam([first, second])
    with pytest.raises(ValueError, match=text):
        adapter.Adam([{"params": first}, {"params": second}])
    optimizer = adapter.Adam([first])
    with pytest.raises(ValueError, match=text):
        optimizer.add_param_group({"params": [parameter(), second]})
    assert len(optimizer.param_groups) == 1
    before = first.detach().clone()
    assert not torch.equal(stepped(first, optimizer, 1), before)


def test_tensors_that_come_to_share_memory_are_refused_at_the_step():
    p, q = parameter(), parameter()
    optimizer = adapter.Adam([p, q])
    q.data = p.data
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()
    assert torch.equal(p, parameter())


def test_a_frozen_view_of_a_parameter_is_no_second_one():
    p = parameter()
    optimizer = adapter.Adam([p, p.detach()[:2]])
    assert not torch.equal(stepped(p, optimizer, 1), parameter())


def test_many_groups_are_checked_once(monkeypatch):
    """Each with its own add_param_group, in torch's constructor."""
    calls = []
    check = adapter.checks.parameters
    monkeypatch.setattr(adapter.checks, "parameters", lambda *args: calls.append(1) or check(*args))
    optimizer = adapter.Adam([{"params": [parameter()]} for _ in range(20)])
    optimizer.add_param_group({"params": [parameter()]})
    assert len(calls) == 2


# ---------------------------------------------------------------- differences that are meant


def with_option(name="Adam", grad=1.0, **options):
    """A step with options that the group has got since the optimizer was made."""

    def act(optim):
        p = parameter()
        optimizer = getattr(optim, name)([p])
        optimizer.param_groups[0].update(options)
        return stepped(p, optimizer, 1, grad)

    return act


def twice(optim):
    p = parameter()
    return stepped(p, optim.Adam([p, p]), 1)


def over_one_memory(optim):
    p, q = same_memory()
    optimizer = optim.Adam([p, q])
    q.grad = torch.ones(3)
    return stepped(p, optimizer, 1)


def gradient_in_its_parameter(optim):
    p = parameter()
    p.grad = p.data
    optim.Adam([p]).step()


def rows_of_a_table(name, **options):
    """What each row of ones moves by in two steps: one of its row 1, one of its row 2."""

    def act(optim):
        table = torch.nn.Embedding.from_pretrained(torch.ones(4, 1), freeze=False, sparse=True)
        optimizer = getattr(optim, name)([table.weight], lr=0.5, **options)
        for row in (1, 2):
            optimizer.zero_grad()
            table(torch.tensor([row])).backward(torch.ones(1, 1))  # of expanded ones torch's SGD steps nothing
            try:
                optimizer.step()
            except RuntimeError as error:
                return "refused" if "sparse" in str(error) else error
        return [round(moved, 3) for moved in (1 - table.weight.detach()).flatten().tolist()]

    return act


def sparse_elements(optim):
    table = torch.nn.Parameter(torch.ones(3, 3))
    table.grad = torch.eye(3).to_sparse()
    optim.SGD([table], lr=0.5).step()
    return table.detach().diagonal().tolist()


def tiny_products(optim):
    """By which factor the step has grown, where two gradients agree."""
    p = parameter()
    optimizer = optim.Rprop([p], lr=1.0, etas=(0.5, 2.0))
    stepped(p, optimizer, 2, 1e-30)
    return float(optimizer.state[p]["step_size"][0])


def states_of_16_bits(optim):
    p = parameter(dtype=torch.bfloat16)
    optimizer = optim.Adam([p])
    stepped(p, optimizer, 1)
    return optimizer.state[p]["exp_avg"].dtype


def denormal(optim):
    p = parameter()
    optimizer = optim.Adam([p])
    stepped(p, optimizer, 1, 1e-39)
    return bool(optimizer.state[p]["exp_avg"].any())


def failing(optim):
    """Whether a step that fails in its second group has changed the first."""
    p, table = parameter(), torch.nn.Parameter(torch.ones(3, 3))
    optimizer = optim.Adam([{"params": [p]}, {"params": [table]}])
    p.grad, table.grad = torch.ones(3), torch.eye(3).to_sparse()
    with pytest.raises((RuntimeError, TypeError), match="sparse"):
        optimizer.step()
    return not torch.equal(p, parameter())


def untaken(optim):
    """Where a tensor that cannot be stepped is refused: when it is given, or at its step."""
    p = torch.nn.Parameter(torch.ones(1).expand(3))
    try:
        optimizer = optim.Adam([p])
    except ValueError:
        return "given"
    with pytest.raises(RuntimeError, match="single memory location"):
        stepped(p, optimizer, 1)
    return "stepped"


#: the first column of the page's table: what is done, and here its error, or what it gives in torch and here
DIFFERENCES = {
    "a rate, ε, decay or momentum assigned that is negative or not finite": [
        (with_option(lr=value), ValueError, "'lr'.: expected a number >= 0 and finite")
        for value in (-1.0, float("inf"), float("nan"))
    ]
    + [
        (with_option(eps=float("inf")), ValueError, "'eps'.: expected"),
        (with_option(weight_decay=float("inf")), ValueError, "'weight_decay'.: expected"),
        (with_option("SGD", momentum=-0.5), ValueError, "'momentum'.: expected"),
        (with_option("ASGD", lambd=-0.5), ValueError, "'lambd'.: expected"),
    ],
    "RMSprop's `alpha` above 1": [(with_option("RMSprop", alpha=1.5), ValueError, "'alpha'.: expected a number >= 0")],
    "numbers for flags, flags for numbers (`amsgrad=1`, `lr=True`)": [
        (with_option(maximize=1), TypeError, "'maximize'.: expected True or False, got 1"),
        (with_option(lr=True), TypeError, "'lr'.: expected a number"),
    ],
    "`differentiable=True`, `capturable=True`": [
        (lambda optim: stepped(parameter(), optim.Adam([parameter()], differentiable=True)), ValueError, "autograd"),
        (lambda optim: optim.Adam([parameter()], capturable=True), ValueError, "counts of steps on a GPU"),
    ],
    "a tensor twice in a group": [(twice, ValueError, "is the same tensor as")],
    "two tensors that share memory": [(over_one_memory, ValueError, "share memory")],
    "a gradient in the memory of a parameter or state": [(gradient_in_its_parameter, ValueError, "shares memory with")],
    "a sparse gradient of whole rows": [
        (rows_of_a_table("Adam", eps=0.0), "refused", [0.0, 0.5, 0.372, 0.0]),
        (rows_of_a_table("RMSprop", alpha=0.75, eps=0.0), "refused", [0.0, 1.0, 1.0, 0.0]),
    ],
    "weight decay in Adagrad, with a sparse gradient": [
        (rows_of_a_table("Adagrad", weight_decay=1.0, eps=0.0), "refused", [0.0, 0.5, 0.5, 0.0])
    ],
    "momentum in SGD, with sparse gradients": [
        (rows_of_a_table("SGD", momentum=0.5), [0.0, 0.75, 0.5, 0.0], [0.0, 0.5, 0.5, 0.0])
    ],
    "in SGD, a gradient that is sparse in more than its rows": [
        (sparse_elements, TypeError, r"is sparse in 2 axes; pass \.to_dense\(\)")
    ],
    "Rprop where the product of two gradients is too small for their dtype": [(tiny_products, 1.0, 2.0)],
    "Rprop's step sizes of 0 or less, or the larger first": [
        (with_option("Rprop", step_sizes=(0.0, 1.0)), ValueError, "'step_sizes'.*: expected a number > 0"),
        (with_option("Rprop", step_sizes=(2.0, 1.0)), ValueError, "'step_sizes'.: expected the smaller number first"),
    ],
    "a tensor that needs a gradient and cannot be stepped": [(untaken, "stepped", "given")],
    "states of float16 and bfloat16 tensors": [(states_of_16_bits, torch.bfloat16, torch.float32)],
    "denormal numbers": [(denormal, True, False)],
    "a step that raises": [(failing, True, False)],
}
ROWS = [(what, *row) for what, rows in DIFFERENCES.items() for row in rows]


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group", "ignore:Sparse invariant")
@pytest.mark.parametrize(("what", "act", "theirs", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_a_difference_that_is_meant(what, act, theirs, ours):
    if isinstance(theirs, type) and issubclass(theirs, Exception):
        act(torch.optim)
        with pytest.raises(theirs, match=ours):
            act(adapter)
    else:
        assert (act(torch.optim), act(adapter)) == (theirs, ours)


def test_the_page_lists_these_differences():
    page = (ROOT / "docs/how-to/libraries/torch.md").read_text()
    table = page.split("| what differs | torch | fastadam |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| (.*?) \|", table, re.M) == list(DIFFERENCES)
