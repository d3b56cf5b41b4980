"""How the pages become a site: ``sphinx-build -W -b html docs docs/_build``.

Sphinx, MyST for Markdown, and the API from the docstrings. Nothing is fetched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# The package beside this folder is the one to document, whichever is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from gunicorn_expect import __version__

project = "gunicorn_expect"
release = version = __version__
html_title = f"gunicorn_expect {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_sourcelink = False
html_show_copyright = False

# `#a-heading` in a link, as on GitHub.
myst_heading_anchors = 3

# The docstrings have `code` in single backquotes.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
napoleon_custom_sections = [("Source", "notes_style")]


def _files_outside(_: Sphinx, __: str, source: list[str]) -> None:
    """Let links out of this folder lead to files: MyST looks for a page where one ends in .md."""
    source[0] = source[0].replace("](../", "](path:../")


def _no_type_before_a_colon(_: Sphinx, what: str, *others: Any) -> None:
    """Keep napoleon from taking the first words of an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        lines = others[-1]
        lines.insert(0, "\\ ")  # nothing, to reStructuredText


def setup(app: Sphinx) -> None:
    """Be called by Sphinx."""
    app.connect("autodoc-process-docstring", _no_type_before_a_colon, priority=0)
    app.connect("source-read", _files_outside)
