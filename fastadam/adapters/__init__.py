"""The interfaces of other libraries' optimizers, run by fastadam's kernels. Each module is imported on first access."""

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
