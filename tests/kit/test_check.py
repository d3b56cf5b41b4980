"""``gunicorn-expect check`` prints a line for each error; and the command line itself."""

import os
import re
import subprocess
import sys

import pytest

import gunicorn_expect
from gunicorn_expect.__main__ import main
from support import CHECKOUT, PATIENCE, TESTS
from support.server import Server

CONFIGURATION = """
import gunicorn_expect

worker_class = {worker}
expect_linger = "soon"
expect_lingers = 3
expect_policy = "nomod:nope"
http_parser = "fast"
http_protocols = "h1,h2"
"""
WORKERS = {
    "checked": "gunicorn_expect.Worker.checked",
    "class": "gunicorn_expect.Worker",
    "string": "'gunicorn_expect.Worker'",
}


def run(folder, *command, blocked=(), **env):
    """Run a command with modules that can't be imported; return its status, stdout and stderr."""
    stubs = folder / "stubs"
    stubs.mkdir(exist_ok=True)
    for module in blocked:
        stubs.joinpath(f"{module}.py").write_text(f"raise ImportError('no {module}')", "utf-8")
    path = map(str, (stubs, CHECKOUT, TESTS))
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={"PYTHONPATH": os.pathsep.join(path), "GUNICORN_CMD_ARGS": "--no-control-socket"} | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr.splitlines()


def check(folder, *arguments, **kwargs):
    """Run ``gunicorn-expect check``; return its errors, one for each line."""
    status, output, lines = run(folder, "gunicorn_expect", "check", *arguments, **kwargs)
    assert output == ""
    assert status == (1 if lines else 0)
    assert all(line.startswith("Error: ") for line in lines)
    return [line.removeprefix("Error: ") for line in lines]


@pytest.mark.parametrize("worker", WORKERS)
def test_all_errors_are_found_at_once_however_the_worker_is_named(tmp_path, worker):
    text = CONFIGURATION.format(worker=WORKERS[worker])
    tmp_path.joinpath("gunicorn.conf.py").write_text(text, "utf-8")
    errors = check(tmp_path, "apps.router:nope", blocked=["gunicorn_h1c", "h2"])
    patterns = [
        "ConfigError: http_protocols includes h2 but the h2 package is not installed",
        "expect_linger is 'soon'; it takes a number above 0$",
        "expect_lingers: unknown setting; the nearest is expect_linger$",
        "expect_policy is 'nomod:nope', and there is no module 'nomod'$",
        "gunicorn_h1c not installed but http_parser='fast'",
        "the application 'apps.router:nope' can't be loaded: .*nope",
    ]
    assert len(errors) == len(patterns)
    assert all(map(re.match, patterns, errors))


def test_the_worker_may_be_named_on_the_command_line(tmp_path):
    arguments = ("-k", "gunicorn_expect.Sync", "--threads", "4")
    [error] = check(tmp_path, *arguments)
    assert error.startswith("gunicorn_expect.Sync serves one request at a time, and threads is 4")
    assert check(tmp_path, "-k", "gunicorn_expect.Sync", "apps.router:app") == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("apps.router:nope", "which can't be loaded: AttributeError: .*'nope'"),
        ("gunicorn_expect.policies:max_length", r"write max_length\(...\)$"),
        ("gunicorn_expect:__version__", "which is not callable$"),
        ("apps.deciding:policy", None),
    ],
)
def test_check_imports_the_policy(tmp_path, setting, message):
    worker = ("-k", "gunicorn_expect.Worker")
    errors = check(tmp_path, *worker, GUNICORN_EXPECT_POLICY=setting)
    assert len(errors) == (message is not None)
    assert all(re.search(message, error) for error in errors)


def test_check_finds_a_policy_where_gunicorn_would_find_it(tmp_path):
    tmp_path.joinpath("sub").mkdir()
    tmp_path.joinpath("sub/mine.py").write_text("def policy(environ): pass", "utf-8")
    arguments = ("-k", "gunicorn_expect.Worker")
    env = {"GUNICORN_EXPECT_POLICY": "mine:policy"}
    assert check(tmp_path, *arguments, "--chdir", "sub", **env) == []
    assert check(tmp_path, *arguments, "--pythonpath", "sub", **env) == []
    assert len(check(tmp_path, *arguments, **env)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "worker_class is 'sync', which ignores expect_ settings: use gunicorn_expect.Worker"),
        (("-k", "gunicorn_expect.Wrker"), "worker_class is 'gunicorn_expect.Wrker', and there is "),
        (("-k", "nomod.Worker"), "class uri 'nomod.Worker' invalid or not found: ModuleNotFoundE"),
        (("-k", "gunicorn_expect.GeventWorker"), "gunicorn_expect.GeventWorker needs the extra gu"),
        (("-c", "none.py"), "'none.py' doesn't exist"),
        (("-c", "broken.py"), "SyntaxError: '(' was never closed (broken.py, line 1)"),
        (
            ("-c", "redis.py"),
            "ImportError: a rate, or a storage other than memory, needs the extra",
        ),
        (("-c", "value.py"), "ValueError: Value must be positive: -1"),
    ],
)
def test_a_configuration_that_can_not_work_is_reported_in_one_line(tmp_path, arguments, message):
    tmp_path.joinpath("broken.py").write_text("workers = (", "utf-8")
    tmp_path.joinpath("value.py").write_text("workers = -1", "utf-8")
    tmp_path.joinpath("redis.py").write_text(
        "from gunicorn_expect import policies\n"
        "expect_policy = policies.admission(8, storage='redis://localhost')\n",
        "utf-8",
    )
    [error] = check(tmp_path, *arguments, blocked=["gevent", "limits"])
    assert error.startswith(message)


def test_gunicorns_check_config_reports_all_bad_settings_with_the_checked_worker(tmp_path):
    text = CONFIGURATION.format(worker=WORKERS["checked"])
    tmp_path.joinpath("gunicorn.conf.py").write_text(text, "utf-8")
    status, _, lines = run(tmp_path, "gunicorn", "--check-config", "apps.router:app")
    assert status == 1
    assert lines == [
        "Error: expect_linger is 'soon'; it takes a number above 0",
        "Error: expect_lingers: unknown setting; the nearest is expect_linger",
    ]


def test_gunicorn_reports_all_errors_when_it_starts(tmp_path):
    text = CONFIGURATION.format(worker=WORKERS["string"]).replace("h1,h2", "h1")
    tmp_path.joinpath("gunicorn.conf.py").write_text(text, "utf-8")
    arguments = ("-b", "127.0.0.1:0", "apps.router:app")
    status, _, lines = run(tmp_path, "gunicorn", *arguments, blocked=["gunicorn_h1c"])
    assert status == 1
    errors = [line for line in lines if line and "[INFO]" not in line]
    assert len(errors) == 4
    assert all(line.startswith("Error: ") for line in errors)


@pytest.mark.parametrize("way", ["", ".checked"], ids=["class", "checked"])
@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("Worker", "ExpectWorker"),
        ("GeventWorker", "ExpectGeventWorker"),
        ("Sync", "ExpectSyncWorker"),
    ],
)
def test_gunicorns_log_names_our_worker_if_a_file_sets_it_as_a_class(tmp_path, name, logged, way):
    text = f"import gunicorn_expect\nworker_class = gunicorn_expect.{name}{way}\n"
    tmp_path.joinpath("some.py").write_text(text, "utf-8")
    command = ("gunicorn", "-c", "some.py", "apps.router:app")
    path = os.pathsep.join(map(str, (TESTS, CHECKOUT)))
    with Server.of(
        [sys.executable, "-m", *command], cwd=tmp_path, env={"PYTHONPATH": path}
    ) as server:
        assert server.wait_for_log(r"Using worker: (.*)")[1] == logged
        assert server.get("/hello") == b"hello"


# The command line.


def test_the_command_prints_its_version(capsys):
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"gunicorn-expect {gunicorn_expect.__version__}\n"


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["check", "-h"], ["probe", "-h"]])
def test_the_command_prints_its_help(tmp_path, arguments):
    status, output, errors = run(tmp_path, "gunicorn_expect", *arguments)
    assert (status, errors) == (0, [])
    assert output.startswith(" ".join(["usage: gunicorn-expect", *arguments[:-1]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["prob"], "argument COMMAND: invalid choice: the commands are check and probe"),
        (["check", "--nope"], "unrecognized arguments: --nope"),
        (["check", "--workers", "x"], "argument -w/--workers: invalid int value: 'x'"),
    ],
)
def test_wrong_arguments_exit_with_status_2(tmp_path, arguments, message):
    status, output, errors = run(tmp_path, "gunicorn_expect", *arguments)
    assert (status, output) == (2, "")
    assert errors[0].startswith("usage: gunicorn-expect")
    assert errors[-1].endswith(f"error: {message}")
