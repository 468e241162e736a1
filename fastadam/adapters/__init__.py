"""Faces of other libraries' optimizers over fastadam's kernels: one module a library, imported only when asked for."""

from typing import TYPE_CHECKING

from .. import names

if TYPE_CHECKING:
    from . import article, jax, scipy, sklearn, thinc, torch  # noqa: F401
else:
    __getattr__, __dir__ = names.modules(__name__, "article", "jax", "scipy", "sklearn", "thinc", "torch")
