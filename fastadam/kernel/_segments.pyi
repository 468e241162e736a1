from collections.abc import Callable
from typing import Any

import numpy as np

def state_like(
    p: np.ndarray, dtype: Any = None, allocate: Callable[[tuple[int, ...], Any], np.ndarray] = ...
) -> np.ndarray: ...
