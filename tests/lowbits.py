"""The storage of states in 8 and 16 bits, written again in plain NumPy from the description in codecs.h: the reference
of the tests. Elements are in memory order.
"""

import inside
import numpy as np
from cases import bits, make
from ml_dtypes import bfloat16

BLOCK = 256
#: denormal numbers count as zero
SMALLEST = np.finfo(np.float32).smallest_normal


# ---------------------------------------------------------------- random bits


def mixed(x: int) -> int:
    """The finish of SplitMix64."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
    return x ^ x >> 31


def random_bits(n: int, seed: int, t: int, param: int, state: int) -> np.ndarray:
    """16 bits for each element, in the step after `t`; `state` counts those of the rule, two of which share a hash."""
    key = mixed((mixed((mixed(seed) + t) % 2**64) + param * 16 + 1 + state // 2) % 2**64)
    x = np.uint32(key % 2**32 | 1) + np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B1)
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x846CA68B) + np.uint32(key >> 32)
    return x & np.uint32(0xFFFF) if state % 2 else x >> np.uint32(16)


def rounded_to_bfloat16(numbers: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Up where the bits that are cut off, and random ones, make a whole one."""
    whole = numbers.view(np.uint32) + np.where(np.isnan(numbers), 0, random).astype(np.uint32)
    return (whole >> np.uint32(16)).astype(np.uint16).view(bfloat16)


# ---------------------------------------------------------------- blocks of 8 bits


def value_of(codes: np.ndarray, non_negative: bool) -> np.ndarray:
    """The numbers that codes of a finite block mean, relative to its power of two, in float64."""
    magnitude = codes.astype(int) & (0xFF if non_negative else 0x7F)
    exponent, mantissa = magnitude >> 2, magnitude & 3
    value = np.where(exponent > 0, np.ldexp(1 + mantissa / 4, exponent - (61 if non_negative else 29)), 0.0)
    return np.where(codes > magnitude, -value, value)


def code_of(numbers: np.ndarray, head: int, added: np.ndarray | float, non_negative: bool) -> np.ndarray:
    """The codes of finite numbers: between two, the upper one where what is cut off and `added` make a whole."""
    mantissa, exponent = np.frexp(np.abs(numbers.astype(float)))
    place = 4 * (exponent - 1 - (head - 127) + (61 if non_negative else 29)) + 4 * (2 * mantissa - 1)
    code = np.floor(place + added)
    if non_negative:  # the codes below 4 all mean zero: denormal numbers have those
        tiny = np.maximum(numbers.view(np.int32), 0) >> 21
        return np.where(numbers >= SMALLEST, np.maximum(code, 4), np.minimum(tiny, 3)).astype(np.uint8)
    code = np.where((place < 4) | (np.abs(numbers) < SMALLEST), 0, code)
    return code.astype(np.uint8) | np.where(np.signbit(numbers), 0x80, 0).astype(np.uint8)


def is_rare(head: int, non_negative: bool, finite: bool) -> bool:
    """Whether the second byte says that the block holds what is not finite, or very large numbers."""
    return not finite or head > 127 + (60 if non_negative else 28)


def encoded(numbers: np.ndarray, non_negative: bool, random: np.ndarray | None = None) -> np.ndarray:
    """The bytes of float32 numbers: rounded to nearest, or by 16 random bits each."""
    blocks, top = [], 254 if non_negative else 126
    added = np.full(numbers.size, 0.5) if random is None else random / 2**16
    for first in range(0, numbers.size, BLOCK):
        x = numbers[first : first + BLOCK]
        finite = np.isfinite(x)
        largest = np.abs(x[finite]).max(initial=0)
        head = min(int(np.frexp(largest)[1]) + 126, 253) if largest >= SMALLEST else 0
        codes = code_of(np.where(finite, x, np.float32(0)), head, added[first : first + BLOCK], non_negative)
        sign = np.uint8(0 if non_negative else 0x80)
        codes = np.minimum(codes & ~sign, top - 3).astype(np.uint8) | codes & sign  # what is finite stays so
        if non_negative:
            codes[x == -np.inf] = 0
            codes[x == np.inf] = top
        else:
            codes[np.isinf(x)] = top + np.where(np.signbit(x[np.isinf(x)]), 0x80, 0)
        codes[np.isnan(x)] = top + 1
        blocks += [np.array([head, non_negative + 2 * is_rare(head, non_negative, finite.all())], np.uint8), codes]
    return np.concatenate([np.zeros(0, np.uint8), *blocks])


def decoded(state: np.ndarray) -> np.ndarray:
    """The float32 numbers that bytes mean."""
    found = [np.zeros(0, np.float32)]
    for first in range(0, state.size, BLOCK + 2):
        head, kind, *codes = state[first : first + BLOCK + 2]
        codes, non_negative, top = np.array(codes), bool(kind & 1), 254 if kind & 1 else 126
        with np.errstate(over="ignore"):
            x = (value_of(codes, non_negative) * 2.0 ** (int(head) - 127)).astype(np.float32)
        x[np.abs(x) < SMALLEST] *= 0
        if head == 0 and kind & 2:
            x *= 0
        magnitude = codes & (0xFF if non_negative else 0x7F)
        if kind & 2:
            x = np.where(magnitude == top, np.where(codes > magnitude, -np.inf, np.inf), x).astype(np.float32)
            x[magnitude > top] = np.nan
        found.append(x)
    return np.concatenate(found)


# ---------------------------------------------------------------- steps


def stored(numbers: np.ndarray, like: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Float32 numbers as a state is stored that is like this one."""
    if like.dtype == bfloat16:
        return rounded_to_bfloat16(numbers, random)
    return encoded(numbers, bool(like[1] & 1), random) if like.dtype == np.uint8 else numbers


def check_step(case: str, opt, p: np.ndarray, g: np.ndarray, seed: int) -> None:
    """Step the flat parameter `p`: its states are those of a step in float32 from the same numbers, once stored."""
    states, t = inside.named_states(opt)[0], opt.t
    start = opt.state["master"][0] if "master" in states else p
    wide = start.astype(np.float32)
    alone = make(case, wide, backend="numpy")
    inside.set_counts(alone, t, t)
    for name in alone.state:
        alone.state[name][0] = opt.state[name][0].astype(np.float32)
    opt.step(g)
    alone.step(g.astype(np.float32))
    for k, name in enumerate(alone.state):
        expected = stored(alone.state[name][0], states[name], random_bits(p.size, seed, t, 0, k))
        assert states[name].dtype == expected.dtype
        assert bits(states[name]) == bits(expected), (case, name, t)
    with np.errstate(over="ignore"):
        assert bits(p) == bits(wide.astype(p.dtype)), (case, t)
    if "master" in states:
        assert bits(states["master"]) == bits(wide), (case, t)
