"""What the torch adapter does to tensors beside their numbers: autograd sees each change, storages can still be
resized, no step touches freed memory, step counts are saved alone, and what has no memory of its own is named.
"""

import copy
import functools
import io
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip("torch is not installed; CI installs it", allow_module_level=True)

import torch
from torch.testing._internal.two_tensor import TwoTensor

from fastadam.adapters import _tensors, tensors
from fastadam.adapters import torch as adapter

NAMES = [name for name in adapter.__all__ if isinstance(getattr(adapter, name), type)]
each_name = pytest.mark.parametrize("name", NAMES)
both = pytest.mark.parametrize("module", [torch.optim, adapter], ids=["torch", "fastadam"])


def parameters(count=2, size=3, **how):
    return [torch.nn.Parameter(torch.ones(size, **how)) for _ in range(count)]


def set_grads(params, value=0.5):
    for p in params:
        p.grad = torch.full_like(p, value)


def of_state(optimizer, p):
    return [value for value in optimizer.state[p].values() if isinstance(value, torch.Tensor)]


def versions(optimizer, params):
    return [[tensor._version for tensor in [p, *of_state(optimizer, p)]] for p in params]


def all_raised(before, after):
    return all(old < new for one, other in zip(before, after, strict=True) for old, new in zip(one, other, strict=True))


# ---------------------------------------------------------------- what autograd sees


@both
@each_name
def test_every_tensor_that_a_step_writes_is_another_to_autograd(name, module):
    params = parameters()
    optimizer = getattr(module, name)(params)
    set_grads(params)
    optimizer.step()
    for _ in range(3):  # the second step is laid out anew nowhere: it is the quick one
        before = versions(optimizer, params)
        optimizer.step()
        assert all_raised(before, versions(optimizer, params))


@both
@pytest.mark.parametrize("steps", [0, 2], ids=["the first step", "a later one"])
@pytest.mark.parametrize("again", ["backward", "retain_graph", "double backward"])
def test_a_graph_from_before_a_step_is_refused(module, again, steps):
    params = parameters(1)
    optimizer = module.Adam(params, lr=1.0)
    set_grads(params)
    for _ in range(steps):
        optimizer.step()
    loss = (params[0] ** 3).sum()
    grads = None
    if again == "retain_graph":
        loss.backward(retain_graph=True)
    elif again == "double backward":
        (grads,) = torch.autograd.grad(loss, params, create_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss if grads is None else grads.sum()).backward()


def test_versions_of_torch_that_take_one_tensor(monkeypatch):
    def increment(tensor):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError("expected a tensor")
        torch._C._increment_version([tensor])

    monkeypatch.setattr(tensors, "_increment", increment)
    params = parameters()
    optimizer = adapter.Adam(params)
    set_grads(params)
    optimizer.step()
    before = versions(optimizer, params)
    optimizer.step()
    assert all_raised(before, versions(optimizer, params))


def test_a_step_of_rows_is_seen():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = adapter.Adam(table.parameters(), lr=0.1)
    for _ in range(2):
        table(torch.tensor([1])).sum().backward()
        loss = (table.weight**2).sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        optimizer.zero_grad()


def test_a_refused_step_and_a_parameter_without_gradient_are_not_marked():
    params = parameters(3)
    optimizer = adapter.Adam(params)
    set_grads(params)
    optimizer.step()
    params[2].grad = None
    optimizer.step()
    before = versions(optimizer, params)
    optimizer.step()
    after = versions(optimizer, params)
    assert all_raised(before[:2], after[:2])
    assert before[2][0] == after[2][0]  # states that were made at once have one counter
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr"):
        optimizer.step()
    assert versions(optimizer, params) == after


def test_stepping_marks_what_it_has_stepped():
    params = parameters()
    optimizer = adapter.Adam(params)
    for _ in range(2):
        with optimizer.stepping():
            sum((p**2).sum() for p in params).backward()
    before = versions(optimizer, params)
    with optimizer.stepping():
        (params[0] ** 2).sum().backward()
    after = versions(optimizer, params)
    assert all_raised(before[:1], after[:1])
    assert before[1][0] == after[1][0]


def test_an_interrupt_between_a_step_and_its_mark(monkeypatch):
    """What tells autograd is Python, so a signal's handler may raise there."""
    calls = []

    def interrupted(given):
        calls.append(given)
        if len(calls) == 1:
            raise KeyboardInterrupt
        tensors.changed(given)

    params = parameters()
    optimizer = adapter.Adam(params)
    set_grads(params)
    optimizer.step()
    before = versions(optimizer, params)
    read_by = functools.partial(
        _tensors.read_by, torch.Tensor.__dlpack_c_exchange_api__, torch.Tensor, torch.nn.Parameter
    )
    read_by(interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    finally:
        read_by(tensors.changed)
    assert all_raised(before, versions(optimizer, params))
    assert [int(optimizer.state[p]["step"]) for p in params] == [2, 2]


def test_inference_tensors_are_stepped_without_a_version():
    with torch.inference_mode():
        p = torch.ones(3)
        p.grad = torch.ones(3)
        optimizer = adapter.Adam([p], lr=0.5)
        optimizer.step()
        optimizer.step()
    assert torch.allclose(p, torch.zeros(3))
    params = parameters(1)
    optimizer = adapter.Adam(params)
    set_grads(params)
    optimizer.step()
    before = versions(optimizer, params)
    with torch.inference_mode():
        optimizer.step()
    assert all_raised(before, versions(optimizer, params))


def test_averages_and_the_exchange_are_seen(tmp_path):
    model = torch.nn.Linear(2, 1)
    model.nothing = torch.nn.Parameter(torch.ones(0))
    average = adapter.Average(model, decay=0.5)
    held = list(average.params.values())
    assert len(held[2]) == 0
    assert all(one is other for one, other in zip(held, average.params.values(), strict=True))
    average.save(tmp_path / "average.npz")
    kept = average.state_dict()

    def is_seen(act, written):
        before = [tensor._version for tensor in written]
        act()
        assert all(old < tensor._version for old, tensor in zip(before, written, strict=True))

    is_seen(average.update, held)
    is_seen(average.reset, held)
    is_seen(lambda: average.load_state_dict(kept), held)
    is_seen(lambda: average.load(tmp_path / "average.npz"), held)
    block = average.swapped()
    written = [*model.parameters(), *held]
    is_seen(block.__enter__, written)
    is_seen(lambda: block.__exit__(None, None, None), written)
    before = [p._version for p in model.parameters()]
    average.update()
    assert before == [p._version for p in model.parameters()]
    other = copy.deepcopy(average)
    other.update()
    pairs = zip(other.params.values(), other.core.plan.params, strict=True)
    assert all(np.shares_memory(tensor.numpy(), array) or not array.size for tensor, array in pairs)


def test_an_average_within_a_graph_is_refused_after_the_exchange():
    model = torch.nn.Linear(2, 1)
    average = adapter.Average(model)
    loss = (model.weight**2).sum()
    with average.swapped(), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---------------------------------------------------------------- storages


DTYPES = [torch.float32, torch.float64, torch.complex64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in NAMES for dtype in DTYPES if name != "Rprop" or not dtype.is_complex],  # as in torch
    ids=str,
)
def test_storages_can_be_resized_after_steps(name, dtype):
    params = parameters(dtype=dtype)
    optimizer = getattr(adapter, name)(params)
    for _ in range(2):
        set_grads(params)
        optimizer.step()
    with optimizer.stepping():
        sum((p * p.conj()).real.sum() for p in params).backward()
    set_grads(params)
    optimizer.step()
    states = [value for p in params for value in of_state(optimizer, p) if value.ndim]
    for tensor in [*params, *(p.grad for p in params), *states]:
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        assert storage.resizable()
        kept = tensor.detach().clone()
        storage.resize_(0)
        storage.resize_(size)
        tensor.detach().copy_(kept)
    set_grads(params)
    optimizer.step()


def freed(tensor):
    tensor.untyped_storage().resize_(0)


def shrunk(tensor):
    tensor.untyped_storage().resize_(4)


# A state is there after a step. Then only the address of a gradient is looked at, as the page says.
GONE = [("parameter", shrink, steps) for shrink in (freed, shrunk) for steps in (0, 1, 3)]
GONE += [("state", shrink, steps) for shrink in (freed, shrunk) for steps in (1, 3)]
GONE += [("gradient", freed, steps) for steps in (0, 1, 3)] + [("gradient", shrunk, 0)]


@pytest.mark.parametrize(("what", "shrink", "steps"), GONE)
def test_memory_that_is_gone_is_refused_until_it_is_back(what, shrink, steps):
    """torch's own step ends the process here."""
    params = parameters(2, 1000)
    optimizer, expected = adapter.Adam(params, lr=0.1), parameters(2, 1000)
    plain = adapter.Adam(expected, lr=0.1)
    for _ in range(steps):
        set_grads([*params, *expected])
        optimizer.step()
        plain.step()
    set_grads([*params, *expected])
    p = params[1]
    tensor = p if what == "parameter" else p.grad if what == "gradient" else optimizer.state[p]["exp_avg"]
    kept, before = tensor.detach().clone(), params[0].detach().clone()
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    shrink(tensor)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"storage has \d bytes, less than its shape \(1000,\) needs"):
            optimizer.step()
    assert torch.equal(params[0], before)
    storage.resize_(size)
    tensor.detach().copy_(kept)
    optimizer.step()
    plain.step()
    assert all(map(torch.equal, params, expected))


def test_gradients_of_zeros_that_are_not_computed():
    params = parameters(1, 1000)
    optimizer = adapter.SGD(params, lr=1.0)
    for k in range(3):
        set_grads(params, 1.0)
        optimizer.step()
        params[0].grad = torch._efficientzerotensor(1000)
        optimizer.step()
        assert (params[0] == -k).all()


@pytest.mark.parametrize("way", ["data", "set_", "resized"])
def test_other_memory_is_followed(way):
    params, expected = parameters(2, 1000), parameters(2, 1000)
    optimizer, plain = adapter.Adam(params, lr=0.1), torch.optim.Adam(expected, lr=0.1)
    for step in range(4):
        set_grads([*params, *expected])
        for model in (params, expected):
            p, value = model[1], torch.full((1000,), float(step))
            if way == "data":
                p.data = value
            elif way == "set_":
                with torch.no_grad():
                    p.set_(value)
            else:
                p.untyped_storage().resize_(8000)
        optimizer.step()
        plain.step()
    torch.testing.assert_close(params, expected)


def test_memory_that_is_gone_within_a_block():
    params = [*parameters(1, 1000), *parameters(1, 1 << 20)]  # no gradient takes the place of so much memory
    optimizer = adapter.Adam(params)
    kept = params[1].detach().clone()
    size = params[1].untyped_storage().nbytes()
    with optimizer.stepping():
        loss = params[1].sum() + params[0].sum()  # neither needs a value to go backward
        params[1].untyped_storage().resize_(0)
        with pytest.raises(RuntimeError, match=r"params'\]\[1\].*other memory than when the block"):
            loss.backward()
        params[1].grad = None
    params[1].untyped_storage().resize_(size)
    params[1].detach().copy_(kept)
    set_grads(params)
    optimizer.step()


def test_an_average_refuses_what_is_gone_and_holds_what_it_exchanges():
    params = parameters(2, 1000)
    average = adapter.Average(params)
    average.update()
    storage = params[1].untyped_storage()
    storage.resize_(0)
    with pytest.raises(ValueError, match="storage has 0 bytes"):
        average.update()
    storage.resize_(4000)
    average.update()
    with average.swapped(), pytest.raises(RuntimeError, match="not resizable"):
        storage.resize_(0)


def test_an_average_is_copied_from_memory_that_is_there():
    params = parameters(1, 1 << 22)
    average = adapter.Average(params)
    held = average.params[0]
    storage = params[0].untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    with pytest.raises(ValueError, match="storage has 0 bytes"):
        copy.deepcopy(average)
    storage.resize_(size)
    assert len(pickle.dumps(average)) < 3.1 * size  # the model twice, and its average
    assert torch.equal(copy.deepcopy(average).params[0], held)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_shared_within_a_block_of_swapped_gets_its_values_back(dtype):
    """As by sending the model to other processes: its memory moves, and the old one is unmapped."""
    first = torch.full((1 << 22,), 2.0, dtype=dtype)
    params = [torch.nn.Parameter(first.clone()), torch.nn.Parameter(torch.ones(3))]
    average = adapter.Average(params)
    with torch.no_grad():
        params[0].add_(1)
    with average.swapped():
        for p in params:
            p.share_memory_()
        assert torch.equal(params[0], first)
    assert torch.equal(params[0], first + 1)
    assert torch.equal(params[1], torch.ones(3))
    assert torch.equal(average.params[0], first.float())
    average.update()
    block = average.swapped()
    params[0].data = first  # before the block
    with block:
        assert not torch.equal(first, torch.full_like(first, 2.0))
    assert torch.equal(first, torch.full_like(first, 2.0))


def test_importing_a_state_leaves_no_mark():
    import fastadam
    from fastadam.adapters.torch_state import import_state

    params = parameters(1)
    theirs = torch.optim.Adam(params)
    set_grads(params)
    theirs.step()
    import_state(fastadam.Adam([np.ones(3, np.float32)]), theirs.state_dict())
    assert all(tensor.untyped_storage().resizable() for tensor in of_state(theirs, params[0]))


# ---------------------------------------------------------------- step counts


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.tell()


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD"])
def test_a_number_is_saved_alone_and_stays_the_optimizers(name):
    params = parameters(200)
    optimizer = getattr(adapter, name)(params)
    set_grads(params)
    optimizer.step()
    given = optimizer.state_dict()["state"]
    numbers = [value for value in of_state(optimizer, params[7]) if not value.ndim]
    assert {value.untyped_storage().nbytes() for value in numbers} <= {4, 8}
    assert saved(given[7]["step"]) <= saved(torch.tensor(1.0))
    optimizer.step()
    assert given[7]["step"].item() == 2  # as in torch: a dict of tensors, no copy
    given[7]["step"].fill_(5.0)
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in params[6:9]] == [3.0, 6.0, 3.0]
    other = copy.deepcopy(optimizer)
    other.step()
    assert optimizer.state[params[7]]["step"].item() == 6


@pytest.mark.parametrize("way", ["share_memory_", "data"])
def test_a_count_that_moves_is_followed(way):
    params = parameters(2)
    optimizer = adapter.Adam(params)
    set_grads(params)
    optimizer.step()
    count = optimizer.state[params[1]]["step"]
    if way == "data":
        count.data = torch.tensor(7.0)
    else:
        count.share_memory_()
    done = int(count)
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in params] == [2, done + 1]


# ---------------------------------------------------------------- what is no memory


class Logging(torch.Tensor):
    """A class whose operations are its own."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3)


def distributed():
    dtensor = pytest.importorskip("torch.distributed.tensor")
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

    mesh = torch.distributed.device_mesh.DeviceMesh("cpu", [0], _init_backend=False, _rank=0)
    meta = TensorMeta(torch.Size([3]), (1,), torch.float32)
    spec = DTensorSpec(mesh, (dtensor.Replicate(),), tensor_meta=meta)
    return dtensor.DTensor(torch.ones(3), spec, requires_grad=False)


NO_MEMORY = {
    "a DTensor": (distributed, r"is a DTensor, which stands for other tensors.*use \.to_local\(\), or torch.optim"),
    "two tensors": (
        lambda: TwoTensor(torch.ones(3), torch.ones(3)),
        r"is a TwoTensor, which stands for.*use those, or",
    ),
    "a fake": (fake, r"is a FakeTensor.*use a tensor with memory"),
    "a class": (lambda: torch.Tensor._make_subclass(Logging, torch.ones(3)), r"is a Logging, which stands for other"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]), r"is nested;.*use \.values\(\)"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged),
        r"is a NestedTensor.*use \.values\(\)",
    ),
    "meta": (lambda: torch.ones(3, device="meta"), r"lies on meta;"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"is sparse \(torch.sparse_coo\)"),
    "mkldnn": (lambda: torch.ones(3).to_mkldnn(), r"is sparse \(torch._mkldnn\).*use \.to_dense\(\)"),
    "zeros": (lambda: torch._efficientzerotensor(3), r"has values that are not computed yet"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NO_MEMORY)
def test_what_has_no_memory_of_its_own_is_named(kind):
    make, text = NO_MEMORY[kind]
    tensor = make()
    with pytest.raises(TypeError, match=rf"params'\]\[1\] {text}"):
        adapter.Adam([*parameters(1), tensor.requires_grad_()])
    with pytest.raises(TypeError, match=f"weight {text}"):
        adapter.Average({"weight": tensor.detach()}) if kind == "DTensor" else tensors.view("weight", tensor)


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torch says so once in a process
def test_a_quantized_tensor_is_named():
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match=r"is quantized \(torch.quint8\).*use \.dequantize\(\)"):
        adapter.Average([tensor])


def test_a_class_that_only_adds_methods_is_stepped():
    class Named(torch.Tensor):
        name = "weight"

    p = torch.nn.Parameter(torch.ones(3)).data.as_subclass(Named).requires_grad_()
    q = torch.nn.Parameter(torch.ones(3))
    for tensor in (p, q):
        optimizer = adapter.Adam([tensor], lr=0.1)
        for _ in range(3):
            tensor.grad = torch.ones(3)
            optimizer.step()
    assert torch.equal(p.as_subclass(torch.Tensor), q)
    assert p._version == 3


# ---------------------------------------------------------------- denormal numbers


@pytest.mark.parametrize("flushes", [False, True])
def test_denormals_count_as_zero_whatever_torch_says(flushes):
    if not torch.set_flush_denormal(flushes):
        pytest.skip("this processor has no such mode")
    try:
        found = {}
        for module in (torch.optim, adapter):
            p, q = torch.nn.Parameter(torch.full((4,), 1e-39)), torch.nn.Parameter(torch.zeros(4))
            p.grad, q.grad = torch.zeros(4), torch.full((4,), 1e-39)
            module.SGD([p, q], lr=1.0).step()
            found[module] = [bool((x.detach().view(torch.int32) != 0).any()) for x in (p, q)]
            assert (
                bool((torch.full((4,), 1e-30) * 1e-9).view(torch.int32).any()) is not flushes
            )  # the mode is as before
        assert found == {torch.optim: [not flushes, not flushes], adapter: [False, False]}
    finally:
        torch.set_flush_denormal(False)


def test_float16_keeps_its_own_denormals():
    p = torch.nn.Parameter(torch.full((40,), 3e-6, dtype=torch.float16))
    p.grad = torch.full((40,), 1e-6, dtype=torch.float16)
    expected = torch.nn.Parameter(p.detach().clone())
    expected.grad = p.grad.clone()
    adapter.SGD([p], lr=1.0).step()
    torch.optim.SGD([expected], lr=1.0).step()
    assert p.all()
    assert torch.equal(p, expected)


def test_an_exchange_moves_denormals_unchanged():
    p = torch.full((4,), 1e-39)
    average = adapter.Average([p])
    with average.swapped():
        pass
    assert torch.equal(p.view(torch.int32), torch.full((4,), 1e-39).view(torch.int32))
