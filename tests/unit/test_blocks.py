"""8-bit states in blocks: the meaning of each code, the rounding to nearest, and the probabilities of random rounding.
The reference is the format written again in plain NumPy, in lowbits.py.
"""

import numpy as np
import pytest
from inside import blocks, named_states
from lowbits import BLOCK, SMALLEST, decoded, encoded, is_rare, random_bits, value_of

import fastadam

SIZES = (0, 1, 2, 255, 256, 257, 511, 513, 8191, 8192, 8193)
KINDS = {"signed": False, "non-negative": True}
LARGEST = np.finfo(np.float32).max

of_both_kinds = pytest.mark.parametrize("non_negative", KINDS.values(), ids=KINDS)


def stored(numbers: np.ndarray, non_negative: bool) -> np.ndarray:
    """The bytes that fastadam makes of numbers, rounded to nearest."""
    state = np.zeros(blocks.n_bytes(numbers.size), np.uint8)
    blocks.clear(state, non_negative)
    blocks.encode(state, numbers)
    return state


def read(state: np.ndarray) -> np.ndarray:
    """The numbers that fastadam reads in bytes."""
    n_blocks = -(-state.size // (BLOCK + 2))
    numbers = np.full(state.size - 2 * n_blocks, 7, np.float32)
    blocks.decode(state, numbers)
    return numbers


def same(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal, with NaN where NaN is and zeros of one sign."""
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))


def of_any_size(rng: np.random.Generator, n: int, octaves: float = 30) -> np.ndarray:
    """Numbers over many octaves, on both sides of zero, around a power of two of their own block."""
    exponents = np.repeat(rng.uniform(-50, 120, n // BLOCK + 1), BLOCK)[:n] + rng.uniform(-octaves, 0, n)
    return (rng.choice([-1, 1], n) * 2.0**exponents).astype(np.float32)


def adversarial() -> np.ndarray:
    """Codes' own values, what is half-way between two, and the neighbours of both, in blocks of one power of two."""
    codes = value_of(np.arange(256, dtype=np.uint8), True)
    codes = codes[(codes > 0) & (codes < 2)]
    numbers = np.concatenate([codes, (codes[1:] + codes[:-1]) / 2]).astype(np.float32)
    near = [np.nextafter(numbers, np.float32(towards)) for towards in (0, 9)]
    numbers = np.concatenate([numbers, *near])
    numbers = numbers[numbers < 2]
    rows = np.resize(numbers, (numbers.size // 200 + 1, 200))
    both = np.concatenate([rows, -rows[:, :55], np.ones((len(rows), 1))], axis=1)  # the largest is in [1, 2)
    return both.astype(np.float32).ravel()


# ---------------------------------------------------------------- what codes mean


@of_both_kinds
def test_every_code_is_read(non_negative):
    for head in (0, 1, 2, 30, 62, 100, 127, 155, 156, 187, 188, 252, 253):
        for finite in (True, False):
            kind = non_negative + 2 * is_rare(head, non_negative, finite)
            state = np.concatenate([[head, kind], np.arange(256)]).astype(np.uint8)
            same(read(state), decoded(state))


@of_both_kinds
def test_a_code_is_rounded_to_itself(non_negative):
    """All but the codes that nothing is rounded to: those below the smallest, and those above the largest."""
    codes = np.arange(256, dtype=np.uint8)
    values = value_of(codes, non_negative)
    kept = (np.abs(values) < 2) & ((values != 0) | (codes & 0x7F == 0)) & (codes != 0x80 * non_negative)
    codes, values = codes[kept], values[kept].astype(np.float32)
    for power in (-60, 0, 100):
        numbers = np.concatenate([np.ldexp(values, power), [np.float32(2.0**power)]]).astype(np.float32)
        state = stored(numbers, non_negative)
        assert state[0] == power + 127
        np.testing.assert_array_equal(state[2:-1][values.size - codes.size :], codes)


# ---------------------------------------------------------------- rounding to nearest


@of_both_kinds
def test_numbers_are_stored_as_the_format_says(non_negative):
    rng = np.random.default_rng(0)
    for n in SIZES:
        for octaves in (1, 30, 70, 150):
            numbers = of_any_size(rng, n, octaves)
            state = stored(numbers, non_negative)
            np.testing.assert_array_equal(state, encoded(numbers, non_negative))
            same(read(state), decoded(state))
    np.testing.assert_array_equal(stored(adversarial(), non_negative), encoded(adversarial(), non_negative))


@of_both_kinds
def test_the_nearest_code_is_taken(non_negative):
    """None of all the codes of a block is nearer, down to the smallest; what half-way is becomes is free."""
    rng = np.random.default_rng(1)
    numbers = np.concatenate([adversarial(), of_any_size(rng, 4096, 70)])
    if non_negative:
        numbers = np.abs(numbers)
    state = stored(numbers, non_negative)
    got = read(state).reshape(-1, BLOCK).astype(float)
    power = np.ldexp(1.0, state[:: BLOCK + 2].astype(int) - 127)[:, None]
    codes = value_of(np.arange(256, dtype=np.uint8), non_negative)
    smallest = np.abs(codes[codes != 0]).min()
    relative = numbers.reshape(-1, BLOCK) / power
    nearest = np.abs(relative[..., None] - codes).min(axis=-1)
    above = np.abs(relative) >= smallest
    np.testing.assert_array_equal(np.abs(got / power - relative)[above], nearest[above])
    np.testing.assert_array_equal((got / power)[~above & (relative != 0)], smallest if non_negative else 0.0)


@of_both_kinds
def test_what_floats_can_be(non_negative):
    """Each in a block of its own, beside a one, and all of them in one block."""
    denormal = np.finfo(np.float32).smallest_subnormal
    special = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, denormal, -denormal, 1.1e-38, SMALLEST, -SMALLEST]
    special += [LARGEST, -LARGEST, 2.0**127, -(2.0**127), np.nextafter(np.float32(2.0**127), np.float32(0)), 2.0**126]
    special = np.array(special, np.float32)
    beside = np.ones((special.size, BLOCK), np.float32)
    beside[:, 77] = special
    alone = np.zeros((special.size, BLOCK), np.float32)
    alone[:, 77] = special
    for numbers in (beside.ravel(), alone.ravel(), special, special[:1], special[2:4], special[4:7]):
        state = stored(numbers, non_negative)
        np.testing.assert_array_equal(state, encoded(numbers, non_negative))
        same(read(state), decoded(state))
    together = read(stored(np.array([np.nan, np.inf, -np.inf, -0.0, 3.0, -3.0], np.float32), non_negative))
    below_zero = (0.0, 0.0, 3.0, 0.0) if non_negative else (-np.inf, -0.0, 3.0, -3.0)
    same(together, np.array([np.nan, np.inf, *below_zero]))


def test_a_number_of_eight_bits_is_at_most_an_eighth_off():
    rng = np.random.default_rng(2)
    for non_negative, octaves in ((False, 27), (True, 59)):
        numbers = np.abs(of_any_size(rng, 40_000, octaves))
        got = read(stored(numbers, non_negative)).astype(float)
        assert (np.abs(got - numbers) <= numbers / 8).all()


def test_second_moments_stay_above_zero():
    """Beside a number that is nine orders of magnitude larger, and beside the largest of all."""
    small = np.concatenate([np.float32(10.0) ** -np.arange(38, dtype=np.float32), [SMALLEST]])
    for largest in (1.0, 1e9, LARGEST / 2):
        numbers = np.concatenate([small, [largest]]).astype(np.float32)
        got = read(stored(numbers, True))
        assert (got > 0).all()
        wide = numbers > largest / 1e18
        np.testing.assert_allclose(got[wide], numbers[wide], rtol=1 / 8)
        assert (read(stored(-numbers, True)) == 0).all()
    np.testing.assert_array_equal(read(stored(np.array([2.0**28, 1, -1, 0.4], np.float32), False))[1:], [1, -1, 0])


@of_both_kinds
def test_bytes_of_pieces_are_the_bytes_of_the_whole(non_negative):
    numbers = of_any_size(np.random.default_rng(3), 1500)
    pieces = [stored(numbers[first : first + 512], non_negative) for first in (0, 512, 1024)]
    np.testing.assert_array_equal(np.concatenate(pieces), stored(numbers, non_negative))


@pytest.mark.parametrize("work", [blocks.encode, blocks.decode])
def test_a_wrong_number_of_bytes_is_refused(work):
    for n_bytes in (0, 258, 260, 262):
        with pytest.raises(ValueError, match=f"expected 261 bytes for 257 elements, got {n_bytes}"):
            work(np.zeros(n_bytes, np.uint8), np.zeros(257, np.float32))


# ---------------------------------------------------------------- stochastic rounding


def after(state: np.ndarray, random: np.ndarray) -> np.ndarray:
    """The numbers that a state is once it was stored by random bits."""
    return decoded(encoded(state, True, random))


@pytest.mark.parametrize("how", [{"n_threads": 1}, {"n_threads": 4}, {"backend": "numpy"}], ids=str)
def test_states_are_a_function_of_the_seed(how):
    """Of the place, the step and the parameter, too, in arrays that share tiles with gaps between their blocks."""
    rng = np.random.default_rng(0)
    sizes, seed = (257, 1, 40_001, 8192, 3), 2**64 - 3
    params = [np.ones(n, np.float32) for n in sizes]
    opt = fastadam.Adam(params, state_dtype="int8", min_8bit_size=0, seed=seed, **how)
    m, v = ([np.zeros(n, np.float32) for n in sizes] for _ in "mv")
    beta1, beta2 = np.float32(0.9), np.float32(0.999)
    for t in range(3):
        grads = [(rng.standard_normal(n) * 10.0 ** rng.uniform(-4, 4, n)).astype(np.float32) for n in sizes]
        opt.step(grads)
        for k, g in enumerate(grads):
            bits = [random_bits(g.size, seed, t, k, state) for state in (0, 1)]
            new_m = beta1 * m[k] + np.float32(1 - 0.9) * g
            new_v = beta2 * v[k] + np.float32(1 - 0.999) * g * g
            states = [
                encoded(new, sign, random) for new, sign, random in zip((new_m, new_v), (0, 1), bits, strict=True)
            ]
            for got, expected in zip(named_states(opt)[k].values(), states, strict=True):
                np.testing.assert_array_equal(got, expected)
            m[k], v[k] = map(decoded, states)
            np.testing.assert_array_equal(opt.state["v"][k], v[k])


@of_both_kinds
def test_rounding_is_right_in_the_mean(non_negative):
    """Over elements, steps and seeds the mean of what is stored is what was to be stored, between any two codes."""
    n, steps = 20_000, 5
    for part in (0.01, 0.25, 0.5, 0.9):
        value = 1 + part / 4
        found = []
        for seed in range(2):
            opt = fastadam.Adam(np.ones(n, np.float32), betas=(0, 0), state_dtype="int8", seed=seed)
            for _ in range(steps):
                opt.step(np.full(n, np.sqrt(value) if non_negative else value, np.float32))
                found.append(opt.state["v" if non_negative else "m"][0])
        stored = np.array(found, float)
        assert set(np.unique(stored)) == {1.0, 1.25}
        for ups in (stored, stored[:steps], stored[:, :1000]):
            up = 4 * (ups - 1).mean()
            assert abs(up - part) < 5 * np.sqrt(part * (1 - part) / ups.size) + 1e-4


def test_rounding_is_independent_of_element_step_state_and_seed():
    n, value = 50_000, np.float32(np.sqrt(1.125))

    def ups(seed):
        params = [np.ones(n, np.float32) for _ in range(2)]
        opt = fastadam.Adam(params, betas=(0.0, 0.0), state_dtype="int8", seed=seed)
        found = []
        for _ in range(2):
            opt.step([np.full(n, value)] * 2)
            found += [v > 1 for v in opt.state["v"]] + [m > 1 for m in opt.state["m"]]
        return found

    series = [*ups(0), *ups(1)]
    series += [np.roll(series[0], shift) for shift in (1, 2, 3, 8, 256, 8192)]
    correlation = np.corrcoef(np.array(series, float))
    assert np.abs(correlation - np.eye(len(series))).max() < 5 / np.sqrt(n)


def test_bits_hang_on_memory_alone():
    """Whatever the layout: elements have the codes of their places in memory, beside other parameters or not."""
    rng = np.random.default_rng(0)
    start, *grads = rng.standard_normal((4, 67, 41)).astype(np.float32)
    layouts = {
        "C": np.copy,
        "F": lambda x: np.asfortranarray(x.reshape(41, 67).T),  # the same numbers in the same places
        "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
        "columns": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        "misaligned": lambda x: np.frombuffer(bytearray(b"." + x.tobytes()), np.float32, offset=1).reshape(x.shape),
    }
    made = {}
    for name, layout in layouts.items():
        opt = fastadam.Adam([layout(start), np.ones(300, np.float32)], state_dtype="int8", min_8bit_size=0)
        for g in grads:
            opt.step([layout(g), np.ones(300, np.float32)])
        made[name] = [state.tobytes() for state in named_states(opt)[0].values()]
    for name, states in made.items():
        assert states == made["C"], name
