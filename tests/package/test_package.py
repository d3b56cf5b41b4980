"""What a user gets by installing the package.

With ``--built FOLDER``, as in ``make release-check``, the sdist and the wheel in that folder are
tested.
"""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import gunicorn_expect
from support import CHECKOUT
from support.client import CONTINUE, Client, waiting
from support.installed import missing
from support.server import Server

TOKEN = "Authorization: Bearer letmein"


@pytest.fixture(scope="module")
def built(request, tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = request.config.getoption("built")
    if folder is None:
        folder = tmp_path_factory.mktemp("dist")
        run(sys.executable, "-m", "build", "--outdir", folder, CHECKOUT)
    [sdist] = Path(folder).glob("*.tar.gz")
    [wheel] = Path(folder).glob("*.whl")
    return sdist, wheel


def run(*command, **how):
    """Run a command and return its output; if it fails, show the output."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), env=env, capture_output=True, text=True, timeout=300, **how
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    sources = {str(x.relative_to(CHECKOUT)) for x in (CHECKOUT / "gunicorn_expect").rglob("*.py")}
    assert set(names) == {*sources, "gunicorn_expect/py.typed"}


def test_the_sdist_holds_every_file_of_the_project(built):
    with tarfile.open(built[0]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    if not CHECKOUT.joinpath(".git").exists():
        pytest.skip("this is no checkout, so the files of the project are not known")
    git = shutil.which("git") or missing("git", "apt-get install git")
    tracked = run(git, "-C", CHECKOUT, "ls-files").splitlines()
    assert {name for name in tracked if not name.startswith(".")} <= names
    generated = {"PKG-INFO", "setup.cfg"}
    rest = names - set(tracked) - generated
    assert {name for name in rest if not name.startswith("gunicorn_expect.egg-info/")} == set()


def test_twine_accepts_the_sdist_and_the_wheel(built):
    output = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built)
    assert output.count("PASSED") == 2


def test_the_version_is_the_same_everywhere(built):
    version = gunicorn_expect.__version__
    assert [f"-{version}" in file.name for file in built] == [True, True]
    with zipfile.ZipFile(built[1]) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        assert email.message_from_bytes(wheel.read(name))["Version"] == version
    changes = CHECKOUT.joinpath("CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## (\S+?),", changes, re.MULTILINE)[1] == version


def test_the_classifiers_are_the_pythons_that_make_matrix_has_tried():
    page = CHECKOUT.joinpath("docs/compatibility.md").read_text("utf-8")
    setup = CHECKOUT.joinpath("setup.cfg").read_text("utf-8")
    tried = re.findall(r"^\| newest \| (3\.\d+)\.", page, re.MULTILINE)
    assert re.findall(r"^    .* :: Python :: (3\.\d+)$", setup, re.MULTILINE) == tried


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A virtual environment with the wheel and its dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", built[1])
    return folder


def test_the_wheel_refuses_and_accepts_in_an_empty_environment(installed, tmp_path):
    tmp_path.joinpath("app.py").write_text(CHECKOUT.joinpath("examples/plain_wsgi.py").read_text())
    program = installed / "bin" / "gunicorn"
    command = [program, "-k", "gunicorn_expect.Worker", "--threads", "2", "app:app"]
    with Server.of(command, env={"PYTHONPATH": ""}, cwd=tmp_path) as server:
        with Client(server) as client:
            client.send(waiting("PUT /", "Content-Length: 5"))
            assert client.receive_all().startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        with Client(server) as client:
            client.send(waiting("PUT /", "Content-Length: 5", TOKEN))
            assert client.receive(len(CONTINUE)) == CONTINUE
            client.send(b"hello")
            assert client.receive_response()[0].startswith(b"HTTP/1.1 201 Created\r\n")


#: A module of a user, with what mypy must find in its comments.
PROJECT = """
from __future__ import annotations

from typing import TYPE_CHECKING

from gunicorn_expect import Decision, Expectation, Policy, Proceed, Refuse, State
from gunicorn_expect import policies

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def mine(environ: WSGIEnvironment) -> Decision:
    expectation: Expectation = environ["gunicorn_expect.expectation"]
    if expectation.state is State.PENDING and expectation.pending:
        return Proceed([("X-Upload", "1")])
    return Refuse(413, body=b"too large")


chosen: Policy = policies.first(
    mine,
    policies.max_length(10),
    policies.route("/files/*", policies.bearer(policies.one_of("letmein"))),
    policies.admission(8, key=lambda environ: str(environ["REMOTE_USER"])),
)
policies.max_length("10")  # error: arg-type
Refuse(413, body="too large")  # error: arg-type
reveal_type(Refuse(403).status)  # note: int | str
"""


def test_mypy_finds_the_types_in_a_users_project(installed, tmp_path):
    file = tmp_path / "project.py"
    file.write_text(PROJECT)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-color-output"]
    here = ["--config-file", "", "--cache-dir", tmp_path, "--python-executable"]
    done = subprocess.run(
        [*mypy, *here, installed / "bin" / "python", file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [line.split(":", 1)[1] for line in done.stdout.splitlines() if ".py:" in line]
    expected = [
        (number, *line.partition("  # ")[2].split(": "))
        for number, line in enumerate(PROJECT.splitlines(), 1)
        if "  # " in line
    ]
    assert len(found) == len(expected), done.stdout + done.stderr
    for line, (number, kind, what) in zip(found, expected, strict=True):
        assert line.startswith(f"{number}: {kind}: ")
        assert what in line
