from typing import Any

from ._plan import Plan

class Cell:
    value: Any
    def __init__(self, value: Any) -> None: ...
    def swap(self, old: Any, new: Any) -> bool: ...

class Follower:
    plan: Plan
    source: Any
    source_node: Any
    grads_node: Any
    bound: Any
    owner: Any
    cell: Cell
    took: Any
    frozen: list[int]
    def __init__(self, plan: Plan, cell: Cell) -> None: ...
    def step(
        self,
        grads: Any,
        grad_scale: Any,
        max_norm: Any,
        clip_value: Any,
        skip_nonfinite: Any,
        zero_grads: Any,
        max_norm_each: Any,
    ) -> None: ...
    def read_anew(self) -> None: ...
    def prepare_step(self) -> None: ...

def flattened(node: Any, structure: Any) -> list[Any] | None: ...
