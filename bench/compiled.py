"""C that benchmarks time, compiled by gcc for this processor when it is needed."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ["-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", "-pthread", "-D_GNU_SOURCE"]


def compiled(source: str, *flags: str) -> ctypes.CDLL:
    """The functions of a file of this folder; it may include the headers of the kernels."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library.so"
        paths = [f"-I{HERE.parent / 'fastadam/kernel'}", str(HERE / source), "-o", str(library)]
        subprocess.run(["gcc", *FLAGS, *flags, *paths, "-lm"], check=True)
        return ctypes.CDLL(str(library))
