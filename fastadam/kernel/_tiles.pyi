DENORMALS: tuple[int, int]
MAX_THREADS: int
FEWEST_SHARED: int
