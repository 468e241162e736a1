"""PyTorch's networks on the CPU."""

import time
from functools import partial

from clock import OURS, Clock, Run, digits


def torch_model(way: str, clock: Clock, width: int, depth: int) -> tuple[float, float]:
    """A PyTorch network on the CPU, 5 epochs in batches of 32, against torch.optim.Adam(fused=True)."""
    import torch

    from fastadam.adapters import torch as adapter

    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in digits())
    layers = [torch.nn.Linear(64, width), torch.nn.ReLU()]
    for _ in range(depth):
        layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))
    optimizer = adapter.Adam(model.parameters()) if way == OURS else torch.optim.Adam(model.parameters(), fused=True)
    step = clock.around(optimizer.step)
    start = time.perf_counter()
    for _ in range(5):
        for first in range(0, len(x), 32):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[first : first + 32]), y[first : first + 32])
            loss.backward()
            step()
    return time.perf_counter() - start, loss.item()


CASES: dict[str, Run] = {
    "PyTorch, 64 hidden": partial(torch_model, width=64, depth=0),
    "PyTorch, 20 layers of 32": partial(torch_model, width=32, depth=19),
    "PyTorch, 3 layers of 512": partial(torch_model, width=512, depth=2),
}
