"""The site: ``pip install '.[docs]' && sphinx-build -W --keep-going -b html docs docs/_build/html``."""

from pathlib import Path

import fastadam
import fastadam.numba  # now, since numba looks at the version of SciPy, which is a mock later

project = "fastadam"
version = release = fastadam.__version__
exclude_patterns = ["_build"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax among the site's own files: formulas need no network, neither here nor there
]

html_theme = "furo"
html_title = f"fastadam {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).with_name("scorer.js"))  # tools/site_search.js asks the search what readers ask
html_show_sourcelink = False
html_show_copyright = False

myst_heading_anchors = 3  # the Markdown pages link to headings, as a forge does
myst_enable_extensions = ["dollarmath"]

default_role = "py:obj"  # `Adam` in a docstring
autodoc_member_order = "bysource"
autodoc_mock_imports = ["mpi4py", "scipy", "sklearn", "thinc", "torch"]  # what is described needs none of them
autodoc_typehints = "none"  # the docstrings say it in words
napoleon_use_ivar = True  # attributes of a docstring are described once, not again as members
