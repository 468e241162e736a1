"""Data-parallel training over MPI (``pip install mpi4py mpich``): every rank steps its share of the parameters.
This module holds the public names alone.
"""

try:
    from mpi4py import MPI as _MPI  # noqa: F401  it starts MPI
except ImportError as error:
    raise ImportError(
        "fastadam.mpi needs mpi4py and an MPI library: pip install mpi4py mpich, or mpi4py alone beside your own MPI"
    ) from error

from .memory import flat
from .ranks import Disagreement
from .sharded import Sharded

__all__ = ["Disagreement", "Sharded", "flat"]
