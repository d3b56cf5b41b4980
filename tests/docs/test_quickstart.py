"""docs/quickstart.md and docs/install.md: the commands work, and print what the pages show."""

import configparser
import re
import shlex
import subprocess
import sys

import pytest

from support import CHECKOUT
from support.server import Server

PAGE = CHECKOUT.joinpath("docs/quickstart.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {
    text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind == "python"
}
TRANSCRIPT = [
    (command, output)
    for kind, text in BLOCKS
    if kind == "console"
    for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE)
]
GUNICORN = [command for command, _ in TRANSCRIPT if command.startswith("gunicorn ")]
TRIED = [(command, output) for command, output in TRANSCRIPT if command not in GUNICORN]
LOG = "".join(text for kind, text in BLOCKS if kind == "text").splitlines()


def check_the_uploads(server, folder):
    """Run the page's commands against this server, and check that they print what it shows."""
    for command, output in TRIED:
        here = command.replace("127.0.0.1:8000", "{}:{}".format(*server.address))
        # On a busy machine a new server may need more than the second that curl waits.
        here = here.replace("curl ", "curl --expect100-timeout 60 ")
        printed = subprocess.run(
            shlex.split(here), cwd=folder, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        assert printed == output


def test_every_block_is_run_or_compared():
    assert {kind for kind, _ in BLOCKS} == {"python", "console", "text"}
    assert set(FILES) == {
        *("app.py", "gunicorn.conf.py"),
        *("mysite/settings.py", "mysite/views.py", "mysite/urls.py"),
    }
    assert [command.split()[-1] for command in GUNICORN] == ["app:app", "mysite.wsgi"]
    assert [output.endswith("\n") for _, output in TRIED] == [False, True, True]


def test_the_flask_application_refuses_and_accepts_as_the_page_shows(tmp_path):
    tmp_path.joinpath("app.py").write_text(FILES["app.py"], "utf-8")
    with Server.by_command_line(GUNICORN[0], tmp_path) as server:
        check_the_uploads(server, tmp_path)


def test_the_log_has_the_lines_that_the_page_shows(tmp_path):
    for name in ("app.py", "gunicorn.conf.py"):
        tmp_path.joinpath(name).write_text(FILES[name], "utf-8")
    # The tests set another format in the environment; the command line takes precedence.
    [line] = re.findall(r"^access_log_format = '(.*)'$", FILES["gunicorn.conf.py"], re.MULTILINE)
    command = f"gunicorn --access-logformat {shlex.quote(line)} app:app"
    with Server.by_command_line(command, tmp_path) as server:
        check_the_uploads(server, tmp_path)
        for expected in LOG:
            server.wait_for_log(re.escape(expected) + "$")


def test_the_django_project_refuses_and_accepts_as_the_page_shows(tmp_path):
    start = [sys.executable, "-m", "django", "startproject", "mysite", "."]
    subprocess.run(start, cwd=tmp_path, check=True, timeout=60)
    for name in FILES:
        if name.startswith("mysite/"):
            mode = "a" if name == "mysite/settings.py" else "w"
            with tmp_path.joinpath(name).open(mode, encoding="utf-8") as file:
                file.write(FILES[name])
    with Server.by_command_line(GUNICORN[1], tmp_path) as server:
        check_the_uploads(server, tmp_path)


@pytest.fixture(scope="module")
def extras():
    """The extras of the package that are meant for users."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    return set(setup["options.extras_require"]) - {"examples", "dev", "bench"}


def test_the_installation_page_lists_every_extra(extras):
    install = CHECKOUT.joinpath("docs/install.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", install, re.MULTILINE)
    assert sorted(rows) == sorted(extras)
    named = re.findall(r"gunicorn[_-]expect\[([\w,]+)\]", install)
    assert named
    assert all(set(each.split(",")) <= extras for each in named)
