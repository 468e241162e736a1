from types import TracebackType
from typing import Any

from ._follow import Follower
from ._plan import Plan

class Parts:
    def __init__(self, plan: Plan) -> None: ...
    def begin(self) -> None: ...
    def step(self, i: int, g: Any) -> None: ...
    def end(self) -> None: ...

class stepping:
    def __init__(
        self,
        follower: Follower,
        grad_scale: Any,
        max_norm: Any,
        clip_value: Any,
        skip_nonfinite: Any,
        zero_grads: Any,
        max_norm_each: Any,
    ) -> None: ...
    def __enter__(self) -> stepping: ...
    def __call__(self, key: str, grad: Any) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
