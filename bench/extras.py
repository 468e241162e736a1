"""What a training loop does around a step, in the same pass or in passes of its own; averages; denormal states.
`python bench/extras.py --out FOLDER` writes extras.json: medians of interleaved rounds, ratios within one run.
"""

import numpy as np
from results import arguments, write
from tqdm import tqdm

import fastadam
from fastadam.bench.measure import Arrays, Contestant, Row, Step, measure

SHAPES = [(1, 1_000), (1, 100_000), (1, 10_000_000), (100, 1_000)]
ALL = {"grad_scale": 1.5, "max_norm": 1.0, "clip_value": 0.1, "zero_grads": True, "skip_nonfinite": True}


def fused(params: Arrays, grads: Arrays) -> Step:
    """All of it as options of a step."""
    optimizer = fastadam.Adam(params)
    return lambda: optimizer.step(grads, **ALL)


def separate(params: Arrays, grads: Arrays) -> Step:
    """The same with NumPy's passes around a plain step, each in place."""
    optimizer = fastadam.Adam(params)

    def step() -> None:
        for g in grads:
            g *= 1 / ALL["grad_scale"]
        norm = sum(float(np.vdot(g, g)) for g in grads) ** 0.5
        if np.isfinite(norm):
            factor = min(1.0, ALL["max_norm"] / (norm + 1e-6))
            for g in grads:
                g *= factor
                np.clip(g, -ALL["clip_value"], ALL["clip_value"], out=g)
            optimizer.step(grads)
        for g in grads:
            g.fill(0)

    return step


def torch_fused(params: Arrays, grads: Arrays) -> Step:
    """PyTorch's: its clipping, then its fused Adam, which can unscale and skip, then zeros in the gradients."""
    import torch

    tensors = [torch.from_numpy(p).requires_grad_() for p in params]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.from_numpy(g)
    optimizer = torch.optim.Adam(tensors, fused=True)

    def step() -> None:
        torch._foreach_mul_([tensor.grad for tensor in tensors], 1 / ALL["grad_scale"])
        norm = torch.nn.utils.clip_grad_norm_(tensors, ALL["max_norm"])
        torch.nn.utils.clip_grad_value_(tensors, ALL["clip_value"])
        if torch.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def one(**extra: object) -> Contestant:
    """A step with one of the options alone."""
    name = ", ".join(extra)

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = fastadam.Adam(params)
        return lambda: optimizer.step(grads, **extra)

    return Contestant(name or "plain step", make)


def decayed(cls: type, state: float) -> Contestant:
    """A step without gradient of states that hold this number, put there again before each."""

    def make(params: Arrays, grads: Arrays) -> Step:
        optimizer = cls(params, n_threads=1)
        given = [np.zeros_like(g) if state else g for g in grads]
        states = [array for held in optimizer.state.values() for array in held]

        def step() -> None:
            for array in states:
                array.fill(state or 1.0)
            optimizer.step(given)

        return step

    return Contestant(f"{cls.__name__}, {'denormal' if state else 'normal'}", make)


LOOPS = [Contestant("in the pass", fused), Contestant("separate NumPy passes", separate)]
LOOPS.append(Contestant("PyTorch", torch_fused, "torch"))
SINGLE = [one(), one(max_norm_each=1.0), *(one(**{name: value}) for name, value in ALL.items())]


def updated(params: Arrays, grads: Arrays) -> Step:
    """An update of averages, with no step between."""
    return fastadam.Average(params).update


def exchanged(params: Arrays, grads: Arrays) -> Step:
    """A block in which the averages stand in the model: there and back."""
    average = fastadam.Average(params)

    def block() -> None:
        with average.swapped():
            pass

    return block


AVERAGES = [one(), Contestant("Average.update()", updated), Contestant("with average.swapped()", exchanged)]
CLASSES = (fastadam.Adam, fastadam.Adamax, fastadam.Adagrad, fastadam.RMSprop, fastadam.Adadelta)
DENORMALS = [decayed(cls, state) for cls in CLASSES for state in (0.0, 1e-39)]


#: name -> who takes part, and in which cases
TABLES = {
    "scaled, clipped, checked, zeroed": (LOOPS, SHAPES),
    "one option": (SINGLE, SHAPES),
    "averages of weights": (AVERAGES, SHAPES),
    "states without gradient": (DENORMALS, SHAPES[:2]),
}


def table(title: str, contestants: list[Contestant], shapes: list[tuple[int, int]]) -> list[list[Row]]:
    """The rows of each case."""
    installed = [c for c in contestants if c.installed]
    return [measure(installed, "float32", *shape) for shape in tqdm(shapes, desc=title, unit="case")]


if __name__ == "__main__":
    given = arguments(__doc__).parse_args()
    write(given.out, "extras", {"tables": {title: table(title, *of) for title, of in TABLES.items()}})
