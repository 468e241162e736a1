"""A pytest plugin for peers.py: puts fastadam's optimizers in the place of a library's own, and writes each outcome.

It is loaded before any test module, so the names that a test module imports are fastadam's. `FASTADAM_PEERS` is the
library, or empty for the library's own optimizers; `FASTADAM_PEERS_OUT` is the file of outcomes, a line each.
"""

import functools
import importlib
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

#: how often the tests made or stepped an optimizer of fastadam
used: Counter[str] = Counter()
until_the_end = ExitStack()


def witness(cls: type, method: str) -> None:
    """Count the calls of a method."""
    inner = getattr(cls, method)

    @functools.wraps(inner)
    def counted(*args: Any, **kwargs: Any) -> Any:
        used[method] += 1
        return inner(*args, **kwargs)

    setattr(cls, method, counted)


def replace_torch() -> None:
    """Each class of torch.optim that the adapter has."""
    import torch

    from fastadam.adapters import torch as adapter
    from fastadam.adapters.torch_state import torch_classes, torch_defaults

    names = list(torch_classes())
    for name in names:
        torch_defaults(name)  # kept from now on; later it would ask the adapter's class
    for name in names:
        setattr(torch.optim, name, getattr(adapter, name))
    witness(adapter._Step, "__init__")


def replace_torch_tests() -> None:
    """The same, and no case with differentiable=True, which is refused: tests would end at the first such case."""
    replace_torch()
    from torch.testing._internal.common_optimizers import optim_db

    from fastadam.adapters.torch_state import torch_classes

    for info in optim_db:
        if info.name in torch_classes():
            info.supported_impls = tuple(way for way in info.supported_impls if way != "differentiable")


def replace_sklearn() -> None:
    """Every estimator, until the process ends."""
    from fastadam.adapters import sklearn as adapter

    witness(adapter._Stepped, "update_params")
    until_the_end.enter_context(adapter.accelerated())


def replace_thinc() -> None:
    """The class, the three functions, and their names in config files."""
    import thinc.api
    import thinc.optimizers

    from fastadam.adapters import thinc as adapter

    witness(adapter.Optimizer, "__init__")

    def optimizer(learn_rate: Any, *, use_radam: bool = False, **given: Any) -> Any:
        """thinc's constructor: without betas it does plain steps."""
        if not use_radam and given.get("beta2") == 0:
            return adapter.SGD(learn_rate, **{name: given[name] for name in given if not name.startswith("beta")})
        return (adapter.RAdam if use_radam else adapter.Adam)(learn_rate, **given)

    replaced: dict[str, Callable[..., Any]] = {name: getattr(adapter, name) for name in ("Adam", "RAdam", "SGD")}
    for name, function in (replaced | {"Optimizer": optimizer}).items():
        for module in (thinc.api, thinc.optimizers):
            setattr(module, name, function)
        if name in replaced:
            thinc.api.registry.optimizers.register(f"{name}.v1", func=function)


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Replace the optimizers of the library. An unknown library is a module with a function `replace`, for tests."""
    if name := os.environ["FASTADAM_PEERS"]:
        replace = globals().get(f"replace_{name}") or importlib.import_module(name).replace
        replace()


def write(test: str, outcome: str, text: str = "") -> None:
    with open(os.environ["FASTADAM_PEERS_OUT"], "a", encoding="utf-8") as file:
        file.write(json.dumps([test, outcome, text]) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Note whether the test used fastadam."""
    before = used.total()
    try:
        return (yield)
    finally:
        item.user_properties.append(("fastadam", used.total() > before))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write an outcome: of the call, and of any other part that did not pass."""
    if report.when == "call" or report.outcome != "passed":
        is_idle = report.outcome == "passed" and not dict(report.user_properties).get("fastadam")
        write(report.nodeid, "idle" if is_idle else report.outcome, last_line(report))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be imported is a failure."""
    if report.outcome == "failed":
        write(report.nodeid, "failed", last_line(report))


def last_line(report: Any) -> str:
    """What went wrong, in a short line; empty if nothing did."""
    if report.outcome == "passed":
        return ""
    crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", None) or str(report.longrepr)
    text = " ".join(crash.split())
    return text if len(text) < 300 else f"{text[:140]} … {text[-140:]}"  # which module is missing stands at the end
