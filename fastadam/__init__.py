"""torch.optim for NumPy arrays: Adam and its relatives. One call steps all arrays in place, in compiled code.
This module holds the public names alone. Modules that need other packages are imported on first access.
"""

from pathlib import Path
from typing import TYPE_CHECKING

try:
    from . import names, optimizers, schedules
except ModuleNotFoundError as error:  # in the folder of the sources
    if not str(error.name).startswith("fastadam.kernel._"):
        raise
    way_out = "run `pip install .` in its folder; if you have done so, start Python in another folder"
    raise ImportError(f"fastadam is not compiled for this Python: {way_out}") from error
from .average import Average
from .base import Optimizer
from .custom import optimizer
from .kernel._rows import Rows
from .optimizers.adam import *  # noqa: F403  each module's `__all__` names its optimizers
from .optimizers.descent import *  # noqa: F403
from .optimizers.recent import *  # noqa: F403


def get_include() -> str:
    """The folder of ``fastadam.h``, for the C compiler: ``include_dirs=[fastadam.get_include()]``."""
    return str(Path(__file__).with_name("include"))


if TYPE_CHECKING:
    from . import adapters, functional, mpi, numba  # noqa: F401
else:
    __getattr__, __dir__ = names.modules(__name__, "adapters", "functional", "mpi", "numba")

__version__ = "0.1.0"
__all__ = ["Average", "Optimizer", "Rows", "get_include", "optimizer", "schedules"]
__all__ += optimizers.CLASSES
