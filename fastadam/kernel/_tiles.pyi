DENORMALS: tuple[int, int]
MAX_THREADS: int
