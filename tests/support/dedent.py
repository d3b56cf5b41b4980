"""Import this to have `textwrap.dedent` as it was before Python 3.14; run it to have gunicorn so.

gunicorn makes the heads of its error pages with it. Since 3.14 it takes a line that has only a CR
for an empty one, and stock gunicorn's heads end with a bare LF: nothing to compare ours with.
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
