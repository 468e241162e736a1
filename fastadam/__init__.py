"""torch.optim for NumPy arrays: Adam and its relatives, one fused pass of compiled code a step.
The public names, nothing else.
"""

from pathlib import Path

from . import schedules
from .base import Optimizer
from .custom import optimizer
from .optimizers import Adadelta, Adagrad, Adam, Adamax, AdamW, RMSprop


def get_include() -> str:
    """The folder of ``fastadam.h``, for the C compiler: ``include_dirs=[fastadam.get_include()]``."""
    return str(Path(__file__).with_name("include"))


__version__ = "0.1.0"
__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Optimizer",
    "RMSprop",
    "get_include",
    "optimizer",
    "schedules",
]
