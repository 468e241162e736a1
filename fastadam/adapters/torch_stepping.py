"""`stepping` for torch's optimizers: each parameter is stepped as soon as autograd has accumulated its gradient."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from ..kernel._parts import Parts
from ._tensors import Arrival, Block
from .tensors import gradient

#: torch's names for hooks before and after steps: for all optimizers, and for one
_HOOKS = {
    "before": ("_global_optimizer_pre_hooks", "_optimizer_step_pre_hooks"),
    "after": ("_global_optimizer_post_hooks", "_optimizer_step_post_hooks"),
}


class _Waiting:
    """The hooks of a plan's tensors. Autograd does not call them between blocks."""

    def __init__(self, plan: Any) -> None:
        self.plan, self.parts = plan, Parts(plan.plan)
        self.hooks: list[Arrival] = []
        first = len(plan.params)  # the watch knows the parameters, then the states of each
        for i, (name, states) in enumerate(zip(plan.grad_names, plan.states, strict=True)):
            places = [i, *range(first, first := first + len(states))]
            self.hooks.append(Arrival(self.parts, plan.watch, i, places, gradient, name))
        self.done = plan.plan.steps  #: the steps that each tensor had done when the block began
        #: for each tensor that needs a gradient: its dict of hooks, and the number and the hook to put into it
        self.places: list[tuple[Any, int, Arrival]] = []
        self.all_need = all(p.requires_grad for p in plan.params)
        for p, hook in zip(plan.params, self.hooks, strict=True):
            if p.requires_grad:
                handle = p.register_post_accumulate_grad_hook(hook)
                self.places.append((handle.hooks_dict_ref(), handle.id, hook))
        self.end()

    def begin(self) -> None:
        """Begin a step."""
        self.done = self.plan.plan.steps.copy()
        self.parts.begin()
        for hooks, number, hook in self.places:
            hooks[number] = hook

    def end(self) -> None:
        """End the step. Only the tensors that were stepped have done it."""
        for hooks, number, _ in self.places:
            hooks.pop(number, None)
        self.parts.end()

    def still_fits(self, plan: Any) -> bool:
        """Whether these hooks can serve another block with this plan."""
        return plan is self.plan and self.all_need and all(p.requires_grad for p in plan.params)

    def step_rest(self) -> None:
        """Step the tensors that have a gradient from before the block, and got none within it."""
        for p, hook in zip(self.plan.params, self.hooks, strict=True):
            if p.grad is not None:
                hook(p)


class Stepping:
    """Mixin, placed before a torch optimizer, that adds `stepping`."""

    _block: _Waiting | None = None  # the present block
    _waiting: _Waiting | None = None  # that of the last block
    _plan: Any
    _door: Any
    _plan_of: Callable[[list[list[torch.Tensor]]], Any]
    param_groups: list[dict[str, Any]]
    state: Any

    def stepping(self) -> Block:
        """A context manager for one step. Within its block, each parameter is stepped as soon as its gradient is known.

        ``with optimizer.stepping(): loss.backward()`` replaces ``loss.backward()``, ``optimizer.step()`` and
        ``optimizer.zero_grad()``. When autograd has accumulated the gradient of a parameter, the parameter is stepped.
        Then its ``.grad`` is set to None, so that the memory can be used again. A parameter with a gradient from before
        the block, and none in the block, is stepped at the end of the block. The results are those of `step`.

        Raises
        ------
        RuntimeError
            For anything that needs all gradients at once: a hook before steps, or a GradScaler. In the block, for
            steps, loads and copies of the optimizer. From autograd, if it still needs the old value of a parameter, as
            with ``weight.detach()`` in the loss. For a parameter whose memory moved or was freed in the block. At the
            end, for a tensor that needed no gradient when the block began, and has one now; the other tensors have then
            done the step.
        ValueError, RuntimeError
            For a second backward pass in the block. Do all passes except the last before the block: their sum is
            stepped.

        Notes
        -----
        An exception or an interrupt ends the block. The parameters that were stepped before it have done the step.
        Hooks after steps are called at the end of the block, when gradients are None.

        Examples
        --------
        >>> import torch
        >>> from fastadam.adapters.torch import Adam
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = Adam(model.parameters(), lr=0.01)
        >>> with optimizer.stepping():
        ...     model(torch.ones(2, 3)).square().mean().backward()
        >>> optimizer.state[model.weight]["step"].item(), model.weight.grad
        (1.0, None)
        """
        return Block(self._enter_block, self._leave_block)

    def state_dict(self) -> dict[str, Any]:
        """As in torch."""
        self._need_no_block()
        return super().state_dict()  # type: ignore[misc,no-any-return]

    def _need_no_block(self) -> None:
        if self._block is not None:
            raise RuntimeError(
                "a step is made in parts until the block of stepping() is over; step, save, load, copy after it"
            )

    def _enter_block(self) -> None:
        self._need_no_block()
        _refuse_who_needs_all(self)
        with self._door:
            groups = self.param_groups
            awaited = [[p for p in group["params"] if p.requires_grad or p.grad is not None] for group in groups]
            if not any(awaited):
                raise RuntimeError("stepping(): no parameter needs a gradient; call requires_grad_() before the block")
            plan = self._plan_of(awaited)
            plan.take_options(groups)
            if self._waiting is None or not self._waiting.still_fits(plan):
                self._waiting = _Waiting(plan)
            self._waiting.begin()
            self._block = self._waiting

    def _leave_block(self, error: Any) -> None:
        block = self._block
        if block is None:
            raise RuntimeError("stepping(): the block was not entered")
        try:
            if error is None:
                block.step_rest()
        finally:
            self._end_block(block)
        if error is None:
            _refuse_strays(self.param_groups)
            _call_after(self)

    def _end_block(self, block: _Waiting) -> None:
        plan, self._block = block.plan, None
        block.end()
        left_out = np.flatnonzero(plan.plan.steps == block.done)
        if len(left_out) == len(block.done):
            return
        plan.count(left_out)
        if plan is not self._plan:
            plan.hand_over(self.state, left_out)
        self._plan = None if len(left_out) else plan


def _refuse_strays(groups: list[dict[str, Any]]) -> None:
    """Refuse gradients that are left over, of tensors that had no hook."""
    for k, group in enumerate(groups):
        for i, p in enumerate(group["params"]):
            if p.grad is not None:
                raise RuntimeError(
                    f"param_groups[{k}]['params'][{i}]: has a gradient, but needed none when the block of stepping() "
                    "began, so it is not stepped; call requires_grad_() before the block"
                )


def _refuse_who_needs_all(optimizer: Any) -> None:
    """Refuse anything that reads or changes all gradients before the first parameter is stepped."""
    if _hooks("before", optimizer):
        raise RuntimeError("stepping(): a registered hook needs all gradients before the step; use step()")
    for name in ("grad_scale", "found_inf"):
        if getattr(optimizer, name, None) is not None:
            raise RuntimeError(f"stepping(): {name} is set, by a GradScaler, which needs all gradients; use step()")


def _call_after(optimizer: Any) -> None:
    """Mark the step for schedulers, and call the hooks after steps."""
    optimizer._opt_called = True
    for hook in _hooks("after", optimizer):
        hook(optimizer, (), {})


def _hooks(when: str, optimizer: Any) -> list[Callable[..., Any]]:
    """The hooks of that time: those of one optimizer, and those of all."""
    of_all, own = _HOOKS[when]
    module = import_module("torch.optim.optimizer")  # torch deletes the attribute torch.optim.optimizer
    return [*getattr(optimizer, own, {}).values(), *getattr(module, of_all, {}).values()]
