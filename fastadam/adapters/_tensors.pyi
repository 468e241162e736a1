from collections.abc import Callable
from typing import Any

from ..kernel._entry import Entry

def read_by(capsule: Any, tensor: type[Any], parameter: type[Any]) -> None: ...

class Watch:
    def __init__(
        self,
        params: list[list[Any]],
        states: list[Any],
        counts: Any,
        steps: Any,
        read_options: set[str],
        carried: Any,
        following: Any,
    ) -> None: ...
    def note_options(self, groups: list[dict[str, Any]]) -> None: ...
    def note_states(self, state: Any) -> None: ...
    def note_gradient(self, segment: int, grad: Any, data: int) -> None: ...
    def finds(self, groups: list[dict[str, Any]], state: Any) -> bool: ...
    def finds_options(self, groups: list[dict[str, Any]]) -> bool: ...
    def step(
        self,
        door: Entry,
        plan: Any,
        groups: list[dict[str, Any]],
        state: Any,
        take: Callable[[list[dict[str, Any]]], bool],
    ) -> bool: ...
    def count(self) -> None: ...
