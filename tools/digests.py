"""A digest of the bits after six steps, for each case and storage of states. tests/data/digests.json keeps the digests.
If a change of bits is intended, run ``python tools/digests.py`` to write them again, and name the change in
CHANGELOG.md.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import ml_dtypes
import numpy as np
from cases import BY_RULE, CASES, arrays_of, make
from places import DATA

KEPT = DATA / "digests.json"
STEPS = 6
#: the first is large enough for several threads
SHAPES = [(200, 201), (7, 1, 11), (), (0, 3)]
#: dtype of parameters and gradients -> options
STORED = {
    "float64": {},
    "float32": {},
    "float16": {"master_weights": True},
    "bfloat16": {"master_weights": True, "state_dtype": "bfloat16"},
}
#: more storages, only for rules with their default options; the key is the dtype, "/" and a name
MORE_WAYS = {
    "float32/int8": {"state_dtype": "int8", "min_8bit_size": 0},
    "bfloat16/int8": {"state_dtype": "int8", "min_8bit_size": 0, "master_weights": True},
    "float32/bfloat16": {"state_dtype": "bfloat16"},
    "bfloat16/bfloat16": {"state_dtype": "bfloat16"},
    "bfloat16/master": {"master_weights": True},
}
KEYS = [f"{case} {way}" for case in CASES for way in (STORED | (MORE_WAYS if case in BY_RULE else {}))]


def numbers(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of many magnitudes, from a random stream that NumPy guarantees, by operations that do not round."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    mantissas = (raw >> np.uint64(40)).astype(np.float64) - 2.0**23
    return np.ldexp(mantissas, (raw & np.uint64(15)).astype(np.int32) - 30).reshape(shape)


def strided(array: np.ndarray) -> np.ndarray:
    """The same numbers in an array with strides of two elements and reversed rows."""
    every_second = [slice(None, None, 2)] * array.ndim
    places = np.zeros([2 * n for n in array.shape], array.dtype)[*every_second, ...]
    places = places[::-1] if array.ndim else places
    places[...] = array
    return places


def stepped(key: str, layout=np.copy, resumed_in: Path | None = None, **how) -> list[np.ndarray]:
    """All arrays that six steps change. With a folder, another optimizer loads a file and does the last three steps."""
    case, way = key.split()
    dtype = way.split("/")[0]
    kind = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else np.dtype(dtype)
    inputs = [[layout(numbers(10 * t + k, s).astype(kind)) for k, s in enumerate(SHAPES)] for t in range(STEPS + 1)]
    params, *grads = inputs

    def optimizer(arrays):
        return make(case, arrays, **(STORED | MORE_WAYS)[way], **how)

    opt = optimizer(params)
    for t, g in enumerate(grads):
        opt.step(g, grad_scale=0.5 + t, max_norm=100.0 if t % 2 else None, clip_value=3.0 if t % 3 else None)
        if resumed_in is not None and t == STEPS // 2:
            opt.save(resumed_in / "state.npz", params=True)
            opt = optimizer([layout(np.zeros_like(p)) for p in params])
            opt.load(resumed_in / "state.npz")
    return arrays_of(opt)


def digest(arrays: list[np.ndarray]) -> str:
    """The digest of the elements' bits, in C order. All NaNs count as the same value."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.where(np.isnan(array), np.full_like(array, np.nan), array).tobytes())
    return total.hexdigest()[:16]


def kept() -> dict[str, str]:
    """Key -> the stored digest of this version."""
    return json.loads(KEPT.read_text())


def of_all() -> str:
    """The digest of all digests, with which the changelog names the bits of a version."""
    return hashlib.sha256(KEPT.read_bytes()).hexdigest()[:16]


def wrong(**how) -> Iterator[str]:
    """The keys for which these options give other bits than the stored ones."""
    digests = kept()
    return (key for key in KEYS if digest(stepped(key, **how)) != digests.get(key))


if __name__ == "__main__":
    KEPT.write_text(json.dumps({key: digest(stepped(key)) for key in KEYS}, indent=1) + "\n")
    print(f"{KEPT.name}: name {of_all()} in CHANGELOG.md, and say what changed and why")
