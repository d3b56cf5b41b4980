"""The README is true: its commands are run, its code is an example, its links lead somewhere."""

import re
import shlex
import subprocess
import sys

import pytest

from gunicorn_expect import State
from support import CHECKOUT
from support.server import Server

README = CHECKOUT.joinpath("README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """Give each command of the README and the output that it shows."""
    for language, block in BLOCKS:
        if language == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield command, output


COMMANDS = dict(commands())
TRANSCRIPT = [command for command in COMMANDS if command.startswith(("truncate", "curl"))]
GUNICORN = [command for command in COMMANDS if command.startswith("gunicorn")]


def test_every_command_is_run_by_a_test():
    installs = {"python -m pip install ."}  # by package/test_package.py
    assert set(COMMANDS) == {"make serve", *installs, *TRANSCRIPT, *GUNICORN}
    assert len(TRANSCRIPT) == 3
    assert len(GUNICORN) == 2


def masked(text):
    return re.sub(r"(?m)^Date: .*$", "Date: -", text.replace("\r\n", "\n")).rstrip("\n")


def test_the_transcript_is_what_make_serve_answers(tmp_path):
    env = {"UPLOAD_FOLDER": str(tmp_path / "uploads"), "MAKEFLAGS": ""}
    with Server.of(["make", "serve"], env=env, cwd=CHECKOUT) as server:
        for command in TRANSCRIPT:
            here = command.replace("127.0.0.1:8000", "{}:{}".format(*server.address))
            output = subprocess.run(
                shlex.split(here), cwd=tmp_path, check=True, stdout=subprocess.PIPE, timeout=60
            ).stdout
            assert masked(output.decode()) == masked(COMMANDS[command])


@pytest.mark.parametrize("command", GUNICORN)
def test_gunicorn_starts_by_the_command_that_is_shown(tmp_path, command):
    tmp_path.joinpath("app.py").write_text(CHECKOUT.joinpath("examples/plain_wsgi.py").read_text())
    program, *arguments = shlex.split(command)
    with Server.of([CHECKOUT / ".venv/bin" / program, *arguments], cwd=tmp_path) as server:
        start = len(server.lines)
        server.get("/")
        if "expectation" in command:
            server.wait_for_log(r"^GET / HTTP/1.1 401 none$", start)


def test_the_code_that_is_shown_is_an_example():
    code, _ = (block for language, block in BLOCKS if language == "python")
    assert code == CHECKOUT.joinpath("examples/plain_wsgi.py").read_text("utf-8")
    assert len(code.splitlines()) <= 25


def test_the_table_of_states_is_that_of_the_code():
    table = re.findall(r"^\| `([A-Z]+)` \| (.*) \|$", README, re.MULTILINE)
    assert table == [(state.name, state.value) for state in State]


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not CHECKOUT.joinpath(link).exists()] == []


def test_the_configuration_that_is_shown_is_checked(tmp_path):
    _, configuration = (block for language, block in BLOCKS if language == "python")
    file = tmp_path / "gunicorn.conf.py"
    command = [sys.executable, "-m", "gunicorn", "--check-config", "examples.plain_wsgi:app"]
    for more, status in (("", 0), ("expect_linger = 'soon'\n", 1)):
        file.write_text(configuration + more, "utf-8")
        result = subprocess.run(
            [*command, "-c", str(file)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, timeout=60
        )
        assert result.returncode == status, result.stderr
    assert "expect_linger is 'soon'" in result.stderr
