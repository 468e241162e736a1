"""Faces of other libraries' optimizers over fastadam's kernels: one module a library, imported only when asked for."""
