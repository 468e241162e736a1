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
        grads: Any = None,
        grad_scale: Any = 1.0,
        max_norm: Any = None,
        clip_value: Any = None,
        skip_nonfinite: Any = False,
        zero_grads: Any = False,
    ) -> None: ...
    def read_anew(self) -> None: ...
    def prepare_step(self) -> None: ...

def flattened(node: Any, structure: Any) -> list[Any] | None: ...
