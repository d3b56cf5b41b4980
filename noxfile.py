"""The versions that are tried: Pythons, and the oldest and newest of what a worker runs on.

Each session runs the tests of the wire that depend on versions, and writes its line of the table in
docs/compatibility.md. A Python that this machine does not have is left out, and its lines stay.
"""

from __future__ import annotations

import configparser
import json
import pathlib
import re

import nox

HERE = pathlib.Path(__file__).parent
PAGE = HERE / "docs" / "compatibility.md"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]

_setup = configparser.ConfigParser()
_setup.read(HERE / "setup.cfg", "utf-8")
[GUNICORN] = re.findall(r"^gunicorn>=(\S+)$", _setup["options"]["install_requires"], re.MULTILINE)

#: What the oldest gunicorn that we support asks for in its extras.
OLDEST = [f"gunicorn=={GUNICORN}", "gevent==24.10.1", "h2==4.4.1"]
#: The first gevent that has wheels for this Python.
OLDEST_GEVENT = {"3.14": "gevent==25.9.1"}

#: What the tests below import.
TOOLS = ["hypothesis", "pytest", "pytest-timeout", "pytest-xdist", "trustme"]
TESTS = [
    "tests/protocol/test_error_pages.py",
    "tests/protocol/test_expect_field.py",
    "tests/protocol/test_http2.py",
    "tests/protocol/test_rule.py",
    "tests/unit/test_transport.py",
    "tests/workers/test_start.py",
]
FRAMEWORKS = ["bottle", "django", "falcon", "flask[async]", "pyramid", "sentry-sdk"]

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["versions"]

KINDS = ["newest", "oldest", "fast"]

#: The table's head, and a line of it.
HEAD = "| packages | Python | gunicorn | gevent | h2 | gunicorn_h1c |\n|---|---|---|---|---|---|\n"
LINE = re.compile(rf"^\| ({'|'.join(KINDS)}) \| (\d+\.\d+)\b.*\n", re.MULTILINE)

#: Prints the versions of Python and of these packages.
VERSIONS = """
import importlib.metadata, json, platform, sys
found = {x.name: x.version for x in importlib.metadata.distributions()}
print(json.dumps([platform.python_version(), *(found.get(x, "none") for x in sys.argv[1:])]))
"""


@nox.session(python=PYTHONS)
@nox.parametrize("what", KINDS, ids=KINDS)
def versions(session: nox.Session, what: str) -> None:
    """Try the newest packages, the oldest ones, or the newest with gunicorn's fast parser."""
    python = str(session.python)
    session.install("gunicorn[gevent,http2]", *TOOLS)
    if what == "oldest":
        oldest = [OLDEST_GEVENT.get(python, x) if x.startswith("gevent") else x for x in OLDEST]
        session.install("--only-binary", "gevent", *oldest)
    elif what == "fast":
        session.install("gunicorn_h1c")
    else:
        session.install(*FRAMEWORKS)
    write_line(python, what, None)
    # In CI a test must not be skipped, but here some programs are left out on purpose.
    pytest = ("python", "-m", "pytest", "--quiet", "-n", "3", "--dist", "worksteal")
    session.run(*pytest, "--matrix", "versions", *TESTS, *session.posargs, env={"CI": None})
    if what == "newest":  # which release of a framework that is depends on the Python
        session.run(*pytest, "tests/frameworks/test_broken_uploads.py", "-k", "newest")
    packages = ("gunicorn", "gevent", "h2", "gunicorn_h1c")
    said = session.run("python", "-c", VERSIONS, *packages, silent=True)
    write_line(python, what, json.loads(str(said)))


def write_line(python: str, what: str, cells: list[str] | None) -> None:
    """Replace the line of a session in the table. None: remove it."""
    text = PAGE.read_text("utf-8")
    lines = {(match[1], match[2]): match[0] for match in LINE.finditer(text)}
    lines.pop((what, python), None)
    if cells:
        lines[what, python] = f"| {' | '.join([what, *cells])} |\n"
    in_order = sorted(lines, key=lambda x: (KINDS.index(x[0]), PYTHONS.index(x[1])))
    text = LINE.sub("", text)
    start = text.index(HEAD) + len(HEAD)
    table = "".join(lines[key] for key in in_order)
    PAGE.write_text(text[:start] + table + text[start:], "utf-8")


@nox.session(python=PYTHONS)
def package(session: nox.Session) -> None:
    """Test what is built, for example in dist/: nox --session package -- --built dist."""
    session.install("build", "mypy", "twine", "types-gunicorn", "gunicorn", *TOOLS)
    session.run("python", "-m", "pytest", "tests/package/test_package.py", *session.posargs)
