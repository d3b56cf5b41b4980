"""The expect_* settings: where they come from, and what they may be."""

import os
import subprocess
import sys

import pytest
from conftest import WORKERS
from gunicorn.app.wsgiapp import WSGIApplication
from wire import CHECKOUT, PATIENCE, TESTS

from gunicorn_expect import settings
from gunicorn_expect.settings import Settings

NO_SECONDS = ["", "soon", "2s", "-1", "-0.5", "nan", "inf", "-inf"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.py"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Give gunicorn's configuration as it loads it with these arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    modules = set(sys.modules)

    def load(*arguments):
        monkeypatch.setattr(sys, "argv", ["gunicorn", *arguments, "apps:app"])
        return WSGIApplication().cfg

    yield load
    for name in set(sys.modules) - modules:
        del sys.modules[name]


# Where they come from.


def test_the_defaults_are_those_of_the_documentation(configured):
    found = settings.load(configured(), {})
    assert found == Settings(expect_linger=30, expect_linger_idle=2)


def test_a_configuration_file_sets_them(configured, file):
    file.write_text("expect_linger = 10\nexpect_linger_idle = 0.5\n", "utf-8")
    for location in (str(file), f"file:{file}"):
        found = settings.load(configured("-c", location), {})
        assert found == Settings(expect_linger=10, expect_linger_idle=0.5)


def test_what_a_configuration_file_leaves_out_has_its_default(configured, file):
    file.write_text("expect_linger_idle = 7\nworkers = 3\n", "utf-8")
    cfg = configured("-c", str(file))
    assert settings.load(cfg, {}) == Settings(expect_linger_idle=7)
    assert cfg.workers == 3


@pytest.mark.parametrize("name", ["configuration", "package.configuration"])
def test_a_configuration_module_sets_them(configured, tmp_path, name):
    file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("expect_linger = 12\n", "utf-8")
    assert settings.load(configured("-c", f"python:{name}"), {}) == Settings(expect_linger=12)


def test_gunicorns_arguments_in_the_environment_may_name_the_file(configured, file, monkeypatch):
    file.write_text("expect_linger = 13\n", "utf-8")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"-c {file}")
    assert settings.load(configured(), {}) == Settings(expect_linger=13)


def test_the_environment_sets_them(configured):
    environ = {"GUNICORN_EXPECT_LINGER": "14", "GUNICORN_EXPECT_LINGER_IDLE": "0.25"}
    assert settings.load(configured(), environ) == Settings(
        expect_linger=14, expect_linger_idle=0.25
    )


def test_the_environment_is_that_of_the_process_unless_given(configured, monkeypatch):
    cfg = configured()
    monkeypatch.setenv("GUNICORN_EXPECT_LINGER", "15")
    assert settings.load(cfg) == Settings(expect_linger=15)


def test_the_environment_wins_over_the_file_for_what_it_names(configured, file):
    file.write_text("expect_linger = 1\nexpect_linger_idle = 3\n", "utf-8")
    found = settings.load(configured("-c", str(file)), {"GUNICORN_EXPECT_LINGER": "16"})
    assert found == Settings(expect_linger=16, expect_linger_idle=3)


# What they may be.


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("0.0", 0), (" 2 ", 2), ("1e3", 1000)])
def test_seconds_are_numbers_from_0_up(configured, value, seconds):
    found = settings.load(configured(), {"GUNICORN_EXPECT_LINGER": value})
    assert found == Settings(expect_linger=seconds)
    assert isinstance(found.expect_linger, float)


@pytest.mark.parametrize("value", NO_SECONDS)
def test_a_value_in_the_environment_that_is_none_is_refused_by_its_name_there(configured, value):
    with pytest.raises(ValueError, match=r"^GUNICORN_EXPECT_LINGER_IDLE is ") as raised:
        settings.load(configured(), {"GUNICORN_EXPECT_LINGER_IDLE": value})
    assert str(raised.value) == (
        f"GUNICORN_EXPECT_LINGER_IDLE is {value!r}; it takes a number, 0 or more"
    )


@pytest.mark.parametrize("value", [*map(repr, NO_SECONDS), "None", "-1", "[2]", "float('inf')"])
def test_a_value_in_the_file_that_is_none_is_refused_by_its_name_there(configured, file, value):
    file.write_text(f"expect_linger = {value}\n", "utf-8")
    with pytest.raises(ValueError, match=r"^expect_linger is .*; it takes a number, 0 or more$"):
        settings.load(configured("-c", str(file)), {})


def test_a_bad_value_in_the_file_is_refused_even_if_the_environment_wins(configured, file):
    file.write_text("expect_linger = 'soon'\n", "utf-8")
    with pytest.raises(ValueError, match=r"^expect_linger is 'soon'"):
        settings.load(configured("-c", str(file)), {"GUNICORN_EXPECT_LINGER": "1"})


# What gunicorn makes of it.


@pytest.mark.parametrize("where", ["file", "default file", "module", "environment"])
@pytest.mark.parametrize("worker", WORKERS)
def test_a_bad_value_stops_gunicorn_with_one_line_before_a_worker_boots(tmp_path, worker, where):
    name = "gunicorn.conf.py" if where == "default file" else "some.py"
    tmp_path.joinpath(name).write_text("expect_linger = 'soon'\n", "utf-8")
    options = {"file": ["-c", "some.py"], "module": ["-c", "python:some"]}.get(where, [])
    result = subprocess.run(
        [
            *(sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--no-control-socket"),
            *("-k", WORKERS[worker][0], *options, "apps:app"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join(map(str, (TESTS, CHECKOUT, tmp_path)))}
        | ({"GUNICORN_EXPECT_LINGER": "soon"} if where == "environment" else {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 1
    name = "GUNICORN_EXPECT_LINGER" if where == "environment" else "expect_linger"
    [line] = [line for line in result.stderr.splitlines() if line and "[INFO]" not in line]
    assert line == f"Error: {name} is 'soon'; it takes a number, 0 or more"
    assert "Booting worker" not in result.stderr
