"""Builds the two clients of fastadam's C interface beside their sources: python setup.py build_ext --inplace.
One cimports fastadam, the other includes fastadam.h.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastadam

clients = [
    Extension(name, [source], include_dirs=[fastadam.get_include()])
    for name, source in (("cython_client", "cython_client.pyx"), ("c_client", "c_client.c"))
]
setup(name="clients", ext_modules=cythonize(clients, quiet=True))
