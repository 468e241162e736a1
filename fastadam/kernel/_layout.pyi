from collections.abc import Callable

from ..rule import Rule

def is_built_in(rule: Rule) -> bool: ...

class Kernel:
    rule: Rule
    n_operands: int
    n_hyper: int
    n_scalars: int
    def __init__(
        self,
        rule: Rule,
        sweeps: dict[str, int] | None = None,
        scalars: int = 0,
        python: tuple[Callable[..., None], Callable[[int, list[float]], list[float]]] | None = None,
        owner: object = None,
        packed: tuple[int, ...] = ...,
        idle: tuple[int, int, int] = (0, 0, 0),
    ) -> None: ...
