"""Faces of other libraries' optimizers over fastadam's kernels: one module a library, imported only when asked for."""

from typing import TYPE_CHECKING

from .. import names

if TYPE_CHECKING:
    from . import (  # noqa: F401
        article,
        autograd,
        climin,
        jax,
        pennylane,
        pints,
        pybop,
        qiskit,
        river,
        scipy,
        sklearn,
        thinc,
        torch,
    )
else:
    LIBRARIES = ("autograd", "climin", "jax", "pennylane", "pints", "pybop", "qiskit", "river", "scipy", "sklearn")
    __getattr__, __dir__ = names.modules(__name__, "article", *LIBRARIES, "thinc", "torch")
