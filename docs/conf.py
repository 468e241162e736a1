"""The site: ``pip install '.[docs]' && sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import re
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

#: a picture as the pages have it for a forge, with a light and a dark file
PICTURE = re.compile(r'<picture><source [^>]*>\s*<img src="[^"]*?/([\w-]+)-light.svg" alt="([^"]*)"></picture>')


def follow_the_switch(app, docname, source):
    """Write such a picture as two images of the theme's own kinds, which follow its switch between light and dark."""
    image = "```{image} /reports/pictures/\\1-%s.svg\n:alt: \\2\n:class: only-%s\n```\n"
    source[0] = PICTURE.sub("\n" + "".join(image % (kind, kind) for kind in ("light", "dark")), source[0])


def setup(app):
    """What Sphinx calls."""
    app.connect("source-read", follow_the_switch)
