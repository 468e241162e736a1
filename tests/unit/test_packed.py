"""Sweeps that decode and encode 16 bits in registers, in place. Their bits are those of the way through buffers (which
a gradient with a stride takes), and those of float32, rounded.
"""

from functools import cache

import inside
import ml_dtypes
import numpy as np
import pytest
from cases import BY_RULE, arrays_of, bits, make
from lowbits import check_step
from test_bits import say

bfloat16 = np.dtype(ml_dtypes.bfloat16)
#: the dtype of parameters and gradients, and the options
PACKINGS = {
    "states": ("float32", {"state_dtype": "bfloat16"}),
    "all": (bfloat16, {"state_dtype": "bfloat16"}),
    "master": (bfloat16, {"master_weights": True}),
    "master and states": (bfloat16, {"master_weights": True, "state_dtype": "bfloat16"}),
}
#: around the elements of a vector, of a buffer, and of a tile, which the plan's arrays share; enough for two threads
SIZES = (1, 15, 16, 17, 33, 255, 257, 1025, 8191, 20_201)
#: what a step is given beside its gradients
STEPS = [
    {},
    {"zero_grads": True},
    {"max_norm": 1.0, "grad_scale": 8.0},
    {"max_norm_each": 0.5, "zero_grads": True},
    {"clip_value": 1e-3},
    {"skip_nonfinite": True},
    {},
]
#: what a gradient may be, as bits of float32: infinities, and NaN of any payload, signalling ones among them
SPECIAL = [0x7F800000, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001, 0xFF800001, 0x7FBFFFFF, 0x00000001]
SPECIAL = np.array([*SPECIAL, 0x80000000, 0x7F810000, 0xFF9F0000, 0x7F7FFFFF], np.uint32)


def special_in(dtype) -> np.ndarray:
    """The numbers of `SPECIAL`; bfloat16 has the upper halves."""
    return SPECIAL.view(np.float32) if dtype == "float32" else (SPECIAL >> 16).astype(np.uint16).view(bfloat16)


def numbers(rng: np.random.Generator, n: int, dtype, special: bool = False) -> np.ndarray:
    """Gradients over many octaves, some of them what floats can be."""
    g = (rng.standard_normal(n) * 2.0 ** rng.uniform(-20, 10, n)).astype(dtype)
    if special:
        g[rng.integers(0, n, max(1, n // 60))] = rng.choice(special_in(dtype))
    return g


@cache
def problem(packing: str) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Parameters, and the gradients of each step."""
    rng, dtype = np.random.default_rng(1), PACKINGS[packing][0]
    grads = [[numbers(rng, n, dtype, special=t % 3 == 1) for n in SIZES] for t, _ in enumerate(STEPS)]
    return [numbers(rng, n, dtype) for n in SIZES], grads


def strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 2)[::2]


def misaligned(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(bytearray(b"." + array.tobytes()), array.dtype, offset=1)


def life(case: str, packing: str, layout) -> list[bytes]:
    """All that some steps make, with gradients in this layout: absent ones too, and parameters that others change."""
    dtype, options = PACKINGS[packing]
    start, every = problem(packing)
    params = [p.copy() for p in start]
    more = {"weight_decay": 0.1, "bounds": (-2.0, 3.0)}
    group = {"params": params} | {name: value for name, value in more.items() if name in BY_RULE[case][0].options}
    opt = make(case, [group], n_threads=2, **options)
    made = []
    for t, extras in enumerate(STEPS):
        grads = [None if k == t else layout(g) for k, g in enumerate(every[t])]
        opt.step(grads, **extras)
        made += [bits(g) for g in grads if g is not None]
        for p in params:
            p[t :: 1 + p.size // 7] = (1.5, -0.0, 3e-30, 7.0)[t % 4]
        params[t][:1] = special_in(dtype)[t]
    return made + [bits(array) for array in arrays_of(opt)]


def wrong(packing: str) -> list[str]:
    """The rules that make other bits where their operands lie in place than where they do not."""
    return [
        case
        for k, case in enumerate(BY_RULE)
        if life(case, packing, np.copy) != life(case, packing, (strided, misaligned)[k % 2])
    ]


@pytest.mark.parametrize("isa", inside.backends.available_isas())
def test_in_place_and_through_buffers(isa):
    said = say(
        isa, "import test_packed as t; print(t.inside.backends.ISA, [t.wrong(packing) for packing in t.PACKINGS])"
    )
    assert said == [isa, *str([[]] * len(PACKINGS)).split()]


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_stored_is_what_float32_makes(packing):
    """NaN stays NaN and an infinity one, whatever the bits of the gradient."""
    dtype, options = PACKINGS[packing]
    for case in BY_RULE:
        rng = np.random.default_rng(0)
        p = numbers(rng, 531, dtype)
        opt = make(case, p, seed=11, **options)
        for t in range(5):
            g = numbers(rng, p.size, dtype)
            if t == 2:
                g[: SPECIAL.size] = g[-SPECIAL.size :] = special_in(dtype)
            check_step(case, opt, p, g, seed=11)
