"""Records what torch.optim makes of the cases of `torch_cases.py` in data/torch-2.13.npz: python tools/record_torch.py
An array for each case and dtype, of the parameters, flat, after each of STEPS; and "torch", the version that made them.
torch keeps NAdam's product of momenta and ASGD's rate and weight in its default dtype: here that is the parameters'.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import numpy as np
import torch
from torch_cases import CASES, DTYPES, RECORDED, Case, follow, key, start


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class TorchOptimizer:
    """An optimizer of torch.optim that steps NumPy arrays, whose memory its tensors share."""

    def __init__(
        self, name: str, params: list[np.ndarray], options: dict[str, Any], groups: tuple[dict[str, Any], ...] = ()
    ) -> None:
        self.tensors = [torch.from_numpy(p) for p in params]
        grouped = [{"params": [p], **group} for p, group in zip(self.tensors, groups, strict=True)] if groups else None
        self.optimizer = getattr(torch.optim, name)(grouped or self.tensors, foreach=False, **options)

    def step(self, grads: list[np.ndarray]) -> None:
        for tensor, grad in zip(self.tensors, grads, strict=True):
            tensor.grad = torch.from_numpy(grad)
        with default_dtype(self.tensors[0].dtype):
            self.optimizer.step()

    def states(self) -> dict[str, list[np.ndarray | None]]:
        """torch's name of a state -> its arrays, one a parameter, or None where a parameter has no such state."""
        of_each = [self.optimizer.state[tensor] for tensor in self.tensors]
        names = dict.fromkeys(name for state in of_each for name in state)
        return {name: [state[name].numpy() if name in state else None for state in of_each] for name in names}


def record(case: Case, dtype: str) -> np.ndarray:
    """The array of a case."""
    params = start(dtype)
    return follow(params, TorchOptimizer(case.optimizer, params, case.options).step)


def main() -> None:
    recorded = {key(case, dtype): record(case, dtype) for case in CASES for dtype in DTYPES}
    RECORDED.parent.mkdir(exist_ok=True)
    np.savez_compressed(RECORDED, torch=np.array(torch.__version__.partition("+")[0]), **recorded)


if __name__ == "__main__":
    main()
