"""pytest-benchmark: one Adam step, plain NumPy in two ways beside every backend, from 16 to 32 million elements.
Run `pytest bench`; one group a dtype and size, so that each table reads by itself.
"""

import pytest

from fastadam.bench.contestants import contestants
from fastadam.bench.measure import arrays

SIZES = (16, 1_000, 100_000, 1_000_000, 32_000_000)
WAYS = contestants(
    "article's NumPy", "tuned NumPy", "fastadam", "fastadam, backend numba", "fastadam, backend numpy", "numba parallel"
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_step(benchmark, dtype, size, way):
    benchmark.group = f"one Adam step, {dtype}, 1 array of {size:,} elements"
    step = way.make(*arrays(1, size, dtype))
    step()
    step()  # the first pages its states in and compiles
    # Few long rounds for large arrays, many short ones for small: about 0.3 s a way.
    calls = max(1, 100_000 // (size + 1_000))
    benchmark.pedantic(step, rounds=5 if size > 10_000_000 else 30, iterations=calls)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("count", [100, 1_000])
def test_many_arrays(benchmark, count, way):
    benchmark.group = f"one Adam step, float32, {count:,} arrays of 1,000 elements"
    step = way.make(*arrays(count, 1_000, "float32"))
    step()
    benchmark.pedantic(step, rounds=20, iterations=1)
