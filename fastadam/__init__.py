"""torch.optim for NumPy arrays: Adam and its relatives, one fused pass of compiled code a step.
The public names, nothing else.
"""

from pathlib import Path

from . import optimizers, schedules
from .base import Optimizer
from .custom import optimizer
from .optimizers import *  # noqa: F403  its `__all__` names the optimizers


def get_include() -> str:
    """The folder of ``fastadam.h``, for the C compiler: ``include_dirs=[fastadam.get_include()]``."""
    return str(Path(__file__).with_name("include"))


__version__ = "0.1.0"
__all__ = ["Optimizer", "get_include", "optimizer", "schedules"]
__all__ += optimizers.__all__
