"""The README: its commands are run, its code is that of an example, and its links lead to files."""

import os
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
    """Yield each command of the README and the output that it shows."""
    for language, block in BLOCKS:
        if language == "console":
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield command, output


COMMANDS = dict(commands())
TRANSCRIPT = [command for command in COMMANDS if command.startswith(("truncate", "curl"))]
GUNICORN = [command for command in COMMANDS if command.startswith("gunicorn")]
FLASK, CODE, CONFIGURATION = (block for language, block in BLOCKS if language == "python")
#: The commands in the table of faults: a broken upload, a client without Expect, one with Expect,
#: the request after a refusal, a large upload, stalled uploads.
TRIED = re.findall(r"\| `((?:curl|python3|truncate|for) .*)` \|$", README, re.MULTILINE)


def test_every_command_is_run_by_a_test():
    installs = {"python -m pip install ."}  # package/test_package.py installs it
    assert set(COMMANDS) == {"make serve", *installs, *TRANSCRIPT, *GUNICORN}
    assert len(TRANSCRIPT) == 3
    assert len(GUNICORN) == 2
    assert len(TRIED) == 6


def masked(text):
    return re.sub(r"(?m)^Date: .*$", "Date: -", text.replace("\r\n", "\n")).rstrip("\n")


def test_the_transcript_is_what_curl_prints_with_make_serve(tmp_path):
    env = {"UPLOAD_FOLDER": str(tmp_path / "uploads"), "MAKEFLAGS": ""}
    with Server.of(["make", "serve"], env=env, cwd=CHECKOUT) as server:
        for command in TRANSCRIPT:
            here = command.replace("127.0.0.1:8000", "{}:{}".format(*server.address))
            output = subprocess.run(
                shlex.split(here), cwd=tmp_path, check=True, stdout=subprocess.PIPE, timeout=60
            ).stdout
            assert masked(output.decode()) == masked(COMMANDS[command])


@pytest.mark.parametrize("command", GUNICORN)
def test_the_commands_that_are_shown_start_gunicorn(tmp_path, command):
    tmp_path.joinpath("app.py").write_text(CHECKOUT.joinpath("examples/plain_wsgi.py").read_text())
    program, *arguments = shlex.split(command)
    with Server.of([CHECKOUT / ".venv/bin" / program, *arguments], cwd=tmp_path) as server:
        start = len(server.lines)
        server.get("/")
        if "expectation" in command:
            server.wait_for_log(r"^GET / HTTP/1.1 401 none$", start)


def test_the_code_that_is_shown_is_an_example():
    assert CHECKOUT.joinpath("examples/plain_wsgi.py").read_text("utf-8") == CODE
    assert len(CODE.splitlines()) <= 25


def tried(command, server, folder):
    """Run a command of the table; return what it prints."""
    here = command.replace("127.0.0.1:8000", "{}:{}".format(*server.address))
    here = here.replace("'127.0.0.1', 8000", "'{}', {}".format(*server.address))
    return subprocess.run(
        ["bash", "-c", here], cwd=folder, check=False, capture_output=True, text=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize(
    ("worker", "status"), [("gthread", "201"), ("gunicorn_expect.Worker", "400")]
)
def test_an_upload_that_is_cut_off_ends_as_the_table_says(tmp_path, worker, status):
    with Server(worker=worker, app="examples.plain_wsgi:app") as server:
        tried(TRIED[0], server, tmp_path)
        assert server.wait_for_log(r"PUT / HTTP/1.1 -> (\d+)")[1] == status


def test_a_refusal_arrives_as_the_table_says(tmp_path):
    with tmp_path.joinpath("big.iso").open("wb") as file:
        file.truncate(300_000_000)
    with Server(app="examples.plain_wsgi:app") as server:
        assert tried(TRIED[1], server, tmp_path) == "401"
        assert tried(TRIED[2], server, tmp_path) == "0"


@pytest.mark.parametrize(("worker", "status"), [("gthread", ""), ("gunicorn_expect.Worker", "201")])
def test_the_request_after_a_refusal_ends_as_the_table_says(tmp_path, worker, status):
    with Server(worker=worker, app="examples.plain_wsgi:app") as server:
        assert tried(TRIED[3], server, tmp_path) == status


def test_a_large_upload_is_timed_as_the_table_says(tmp_path):
    with Server(app="examples.plain_wsgi:app") as server:
        assert float(tried(TRIED[4], server, tmp_path)) > 0
        assert server.wait_for_log(r"PUT /1g.iso HTTP/1.1 -> (\d+)")[1] == "201"


def test_a_request_during_stalled_uploads_is_answered_as_the_table_says(tmp_path):
    with Server(app="examples.plain_wsgi:app") as server:
        assert tried(TRIED[5], server, tmp_path).startswith("HTTP/1.1 401 ")


def test_the_flask_application_that_is_shown_refuses_and_accepts(tmp_path):
    tmp_path.joinpath("shown.py").write_text(FLASK, "utf-8")
    body = bytes(3_000_000)
    tmp_path.joinpath("body").write_bytes(body)
    path = os.pathsep.join(map(str, (tmp_path, CHECKOUT)))
    with Server(app="shown:app", env={"PYTHONPATH": path}) as server:
        url = "http://{}:{}/upload".format(*server.address)
        curl = ["curl", "-sS", "-i", "-T", "body", url]
        refused = subprocess.run(curl, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert refused.stdout.startswith("HTTP/1.1 401 ")
        curl += ["-H", "Authorization: Bearer letmein"]
        stored = subprocess.run(curl, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert stored.stdout.startswith("HTTP/1.1 100 Continue")
        assert stored.stdout.endswith(f"{len(body)} bytes\n")


def test_the_table_of_states_is_that_of_the_code():
    table = re.findall(r"^\| `([A-Z]+)` \| (.*) \|$", README, re.MULTILINE)
    assert table == [(state.name, state.value) for state in State]


def test_no_line_of_prose_is_longer_than_100_characters():
    prose = re.sub(r"(?ms)^```.*?^```$", "", README)
    lines = [line for line in prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not CHECKOUT.joinpath(link).exists()] == []


def test_the_configuration_that_is_shown_is_checked(tmp_path):
    file = tmp_path / "gunicorn.conf.py"
    command = [sys.executable, "-m", "gunicorn", "--check-config", "examples.plain_wsgi:app"]
    for more, status in (("", 0), ("expect_linger = 'soon'\n", 1)):
        file.write_text(CONFIGURATION + more, "utf-8")
        result = subprocess.run(
            [*command, "-c", str(file)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, timeout=60
        )
        assert result.returncode == status, result.stderr
    assert "expect_linger is 'soon'" in result.stderr
