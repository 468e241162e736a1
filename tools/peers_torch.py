"""The cases that torch installs for tests of its optimizers, as tests: peers.py runs them with fastadam's classes.

torch.testing has the options and the wrong arguments of each class, but no test. Here each case is stepped beside
torch's own class; a wrong argument must raise what torch says. Warnings are errors there.
"""

import copy
import warnings

import pytest
import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

from fastadam.adapters.torch_state import torch_classes

INFOS = [info for info in optim_db if info.optim_cls.__name__ in torch_classes()]
SHAPES = ((), (5,), (3, 7))


def stock(cls):
    """torch's own class, which fastadam's derives from."""
    return next(base for base in cls.__mro__ if base.__module__.startswith("torch.optim"))


def cases(errors=False):
    for info in INFOS:
        for dtype in (torch.float32, torch.float64, torch.complex64)[: 1 if errors else 2 + info.supports_complex]:
            given = info.optim_error_inputs_func("cpu", dtype) if errors else info.optim_inputs_func("cpu", dtype)
            for k, case in enumerate(given):
                desc = case.optimizer_error_input.desc if errors else case.desc
                yield pytest.param(info.optim_cls, case, dtype, id=f"{info.name}-{k}-{desc}-{str(dtype)[6:]}")


@pytest.mark.parametrize(("cls", "case", "dtype"), cases())
def test_options(cls, case, dtype):
    generator = torch.Generator().manual_seed(1)
    mine = [torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in SHAPES]
    theirs = copy.deepcopy(mine)
    both = [(mine, cls(mine, **case.kwargs)), (theirs, stock(cls)(theirs, **copy.deepcopy(case.kwargs)))]
    for _ in range(10):
        grads = [torch.randn(shape, dtype=dtype, generator=generator) for shape in SHAPES]
        for params, optimizer in both:
            for p, grad in zip(params, grads, strict=True):
                p.grad = grad.clone()
            optimizer.step()
        torch.testing.assert_close(mine, theirs)
    (_, ours), (_, own) = both
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(dict(ours.state[p]), dict(own.state[q]))


@pytest.mark.parametrize("info", [pytest.param(info, id=info.name) for info in INFOS])
def test_what_autograd_would_need_is_refused(info):
    assert "differentiable" in info.supported_impls
    with pytest.raises(ValueError, match="differentiable=True"):
        info.optim_cls([torch.nn.Parameter(torch.ones(2))], differentiable=True)


@pytest.mark.parametrize(("cls", "case", "dtype"), cases(errors=True))
def test_wrong_arguments(cls, case, dtype):
    given = case.optimizer_error_input
    params = [torch.nn.Parameter(torch.randn(2, 3, dtype=dtype))] if given.params is None else given.params

    def act():
        optimizer = cls(params, **given.kwargs)
        if case.error_on == OptimizerErrorEnum.STEP_ERROR:
            optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(case.error_type, match=case.error_regex):
            act()
