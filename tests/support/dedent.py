"""Importing this restores `textwrap.dedent` as it was before Python 3.14; running it, in gunicorn.

gunicorn makes the heads of its error pages with dedent. Since 3.14, dedent takes a line that has
only a CR for an empty one. So stock gunicorn's heads end with a bare LF, unlike ours.
"""

import re
import sys
import textwrap


def dedent(text):
    """Remove the white space that all lines begin with; only blanks and tabs make an empty line."""
    text = re.sub(r"(?m)^[ \t]+$", "", text)
    margin = min(re.findall(r"(?m)^([ \t]*)[^ \t\n]", text), default="")
    return re.sub(f"(?m)^{margin}", "", text)


if sys.version_info >= (3, 14):
    textwrap.dedent = dedent

if __name__ == "__main__":
    from gunicorn.app.wsgiapp import run

    run(prog="gunicorn")
