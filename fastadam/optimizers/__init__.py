"""The optimizers, with the names, defaults and states of `torch.optim`. Their formulas are in `fastadam.rules`.
A class declares its options, and says which rule they choose. It contains no loop. `functional`, the adapters and the
tests find all classes in `CLASSES`.
"""

from ..base import Optimizer
from . import adam, descent, recent
from .adam import *  # noqa: F403  each module's `__all__` names its optimizers
from .descent import *  # noqa: F403
from .recent import *  # noqa: F403

#: every optimizer, by its name
CLASSES: dict[str, type[Optimizer]] = {
    name: getattr(module, name) for module in (adam, descent, recent) for name in module.__all__
}
