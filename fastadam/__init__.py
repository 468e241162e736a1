"""torch.optim for NumPy arrays: Adam and its relatives, one fused pass of compiled code a step.
The public names, nothing else.
"""

from .custom import optimizer
from .optimizers import Adadelta, Adagrad, Adam, Adamax, AdamW, Optimizer, RMSprop

__version__ = "0.1.0"
__all__ = ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Optimizer", "RMSprop", "optimizer"]
