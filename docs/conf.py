"""Sphinx configuration. The build needs no network: intersphinx is off."""

import os
import re
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

here = Path(__file__).parent
smoke = os.environ.get("SMOKE") == "1"

# Tutorials live at the top of the repository, where readers look; Sphinx wants them in its tree.
shutil.rmtree(here / "tutorials", ignore_errors=True)
shutil.copytree(
    here.parent / "tutorials",
    here / "tutorials",
    ignore=shutil.ignore_patterns("*.ipynb", ".*", "runs"),
)

project = "probkit"
author = "The probkit developers"
project_copyright = "The probkit developers"
version = release = installed_version("probkit")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build", "jupyter_execute", "_templates"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = f"probkit {release}"

# Reference: signatures keep the source's spelling of jaxtyping shapes; types are not repeated.
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

# Notebooks run at every build; an error stops it.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300 if smoke else 1800
nb_merge_streams = True


def escape_batch_shapes(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Let docstrings say (*batch, T): reStructuredText would read the star as emphasis."""
    for i, line in enumerate(lines):
        pieces = line.split("`")
        pieces[::2] = [re.sub(r"(?<=[\s(\[])\*(?=\w+[,)\]])", r"\\*", p) for p in pieces[::2]]
        lines[i] = "`".join(pieces)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_batch_shapes, priority=900)
