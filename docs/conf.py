"""How the pages become a site: ``sphinx-build -W -b html docs docs/_build``.

Sphinx, MyST for Markdown, and the API from the docstrings. Nothing is fetched.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pygments.lexers import find_lexer_class_for_filename

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

# Document the package beside this folder, even if another one is installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from gunicorn_expect import __version__

HERE = Path(__file__).parent

project = "gunicorn_expect"
release = version = __version__
html_title = f"gunicorn_expect {__version__}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
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


# A link to a file of the project, such as `../examples/flask_upload.py`, leads to that file on
# GitHub. On the site it leads to a page that shows it.
myst_url_schemes = {
    "http": None,
    "https": None,
    "mailto": None,
    "shown": {"url": "files/{{path}}.html", "classes": ["shown"]},
}


def _link_to_shown_files(_: Sphinx, __: str, source: list[str]) -> None:
    """Make a page's links to files outside this folder lead to the pages that show them."""
    source[0] = source[0].replace("](../", "](shown:")


def _show_files(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Make a page for each file outside this folder that a page links to."""
    pages = "".join(path.read_text("utf-8") for path in sorted(HERE.glob("*.md")))
    for name in sorted(set(re.findall(r"\]\(\.\./([^)#]+)", pages))):
        lexer = find_lexer_class_for_filename(name)
        language = lexer.aliases[0] if lexer else "text"
        text = HERE.parent.joinpath(name).read_text("utf-8")
        # Pygments does not know every word of nginx and HAProxy: highlight what it knows.
        shown = app.builder.highlighter.highlight_block(text, language, force=True)  # type: ignore[attr-defined]
        title = html.escape(name)
        body = f"<h1>{title}</h1>{shown}"
        yield f"files/{name}", {"title": title, "body": body}, "page.html"


def _no_type_before_a_colon(_: Sphinx, what: str, *others: Any) -> None:
    """Keep napoleon from taking the first words of an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        lines = others[-1]
        lines.insert(0, "\\ ")  # nothing, to reStructuredText


def setup(app: Sphinx) -> None:
    """Connect the functions above to Sphinx, which calls this."""
    app.connect("autodoc-process-docstring", _no_type_before_a_colon, priority=0)
    app.connect("source-read", _link_to_shown_files)
    app.connect("html-collect-pages", _show_files)
