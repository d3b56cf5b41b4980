"""The expect_* settings: where they come from, and what they may be."""

import os
import re
import signal
import sys

import pytest
from gunicorn.app.wsgiapp import WSGIApplication

from gunicorn_expect import Proceed, Refuse, inline, policies, settings
from gunicorn_expect.settings import Settings
from support import CHECKOUT, PATIENCE, TESTS
from support.ended import refusal_of, run_gunicorn
from support.matrix import WORKERS
from support.server import Server

BAD_SECONDS = ["", "soon", "2s", "-1", "-0.5", "nan", "inf", "-inf"]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "some.py"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Yield gunicorn's configuration as it loads it with these arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    modules = set(sys.modules)

    def load(*arguments):
        monkeypatch.setattr(sys, "argv", ["gunicorn", *arguments, "apps.router:app"])
        return WSGIApplication().cfg

    yield load
    for name in set(sys.modules) - modules:
        del sys.modules[name]


# Where settings come from.


def test_the_defaults_are_those_of_the_documentation(configured):
    found = settings.load(configured(), {})
    assert found == Settings(expect_linger=30, expect_linger_idle=2)


def test_settings_come_from_a_configuration_file(configured, file):
    file.write_text("expect_linger = 10\nexpect_linger_idle = 0.5\n", "utf-8")
    for location in (str(file), f"file:{file}"):
        found = settings.load(configured("-c", location), {})
        assert found == Settings(expect_linger=10, expect_linger_idle=0.5)


def test_a_setting_that_the_file_leaves_out_has_its_default(configured, file):
    file.write_text("expect_linger_idle = 7\nworkers = 3\n", "utf-8")
    cfg = configured("-c", str(file))
    assert settings.load(cfg, {}) == Settings(expect_linger_idle=7)
    assert cfg.workers == 3


@pytest.mark.parametrize("name", ["configuration", "package.configuration"])
def test_settings_come_from_a_configuration_module(configured, tmp_path, name):
    file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("expect_linger = 12\n", "utf-8")
    assert settings.load(configured("-c", f"python:{name}"), {}) == Settings(expect_linger=12)


def test_gunicorn_cmd_args_may_name_the_configuration_file(configured, file, monkeypatch):
    file.write_text("expect_linger = 13\n", "utf-8")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"-c {file}")
    assert settings.load(configured(), {}) == Settings(expect_linger=13)


def test_settings_come_from_the_environment(configured):
    environ = {"GUNICORN_EXPECT_LINGER": "14", "GUNICORN_EXPECT_LINGER_IDLE": "0.25"}
    assert settings.load(configured(), environ) == Settings(
        expect_linger=14, expect_linger_idle=0.25
    )


def test_the_environment_of_the_process_is_used_by_default(configured, monkeypatch):
    cfg = configured()
    monkeypatch.setenv("GUNICORN_EXPECT_LINGER", "15")
    assert settings.load(cfg) == Settings(expect_linger=15)


def test_a_variable_of_the_environment_wins_over_the_file(configured, file):
    file.write_text("expect_linger = 1\nexpect_linger_idle = 3\n", "utf-8")
    found = settings.load(configured("-c", str(file)), {"GUNICORN_EXPECT_LINGER": "16"})
    assert found == Settings(expect_linger=16, expect_linger_idle=3)


# Which values they may have.


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("0.0", 0), (" 2 ", 2), ("1e3", 1000)])
def test_seconds_are_numbers_from_0_up(configured, value, seconds):
    found = settings.load(configured(), {"GUNICORN_EXPECT_HEAD_TIMEOUT": value})
    assert found == Settings(expect_head_timeout=seconds)
    assert isinstance(found.expect_head_timeout, float)


# 0 is no limit for the other timeouts. A connection whose client is gone would never be closed.
@pytest.mark.parametrize("name", ["GUNICORN_EXPECT_LINGER", "GUNICORN_EXPECT_LINGER_IDLE"])
def test_draining_has_a_limit(configured, name):
    with pytest.raises(ValueError, match=f"^{name} is '0'; it takes a number above 0$"):
        settings.load(configured(), {name: "0"})
    assert settings.load(configured(), {name: "0.001"})


@pytest.mark.parametrize("value", BAD_SECONDS)
def test_the_error_of_a_bad_value_in_the_environment_names_the_variable(configured, value):
    with pytest.raises(ValueError, match=r"^GUNICORN_EXPECT_MIN_RATE is ") as raised:
        settings.load(configured(), {"GUNICORN_EXPECT_MIN_RATE": value})
    assert str(raised.value) == (
        f"GUNICORN_EXPECT_MIN_RATE is {value!r}; it takes a number, 0 or more"
    )


@pytest.mark.parametrize("value", [*map(repr, BAD_SECONDS), "None", "-1", "[2]", "float('inf')"])
def test_the_error_of_a_bad_value_in_the_file_names_the_setting(configured, file, value):
    file.write_text(f"expect_min_rate = {value}\n", "utf-8")
    with pytest.raises(ValueError, match=r"^expect_min_rate is .*; it takes a number, 0 or more$"):
        settings.load(configured("-c", str(file)), {})


def test_a_bad_value_in_the_file_is_refused_even_if_the_environment_wins(configured, file):
    file.write_text("expect_linger = 'soon'\n", "utf-8")
    with pytest.raises(ValueError, match=r"^expect_linger is 'soon'"):
        settings.load(configured("-c", str(file)), {"GUNICORN_EXPECT_LINGER": "1"})


# The policy.


def a_policy(environ):
    """Decide nothing."""


async def an_async_policy(environ):
    """Return a coroutine instead of a decision."""


class NotCallable:
    """An object with a secret in its repr."""

    def __init__(self):
        self.secret = "s3cret"

    def __repr__(self):
        return f"NotCallable({self.secret!r})"


class WithoutEnviron(NotCallable):
    def __call__(self):
        """Take no environ."""


@pytest.mark.parametrize("value", [None, ""])
def test_expect_policy_may_be_empty(value):
    found = settings.check({"expect_policy": value}, {})
    assert found == Settings()
    assert settings.policy_of(found) is None


def test_a_policy_is_a_callable_or_its_import_path(tmp_path, configured):
    assert settings.policy_of(settings.check({"expect_policy": a_policy}, {})) is a_policy
    import_path = settings.check({}, {"GUNICORN_EXPECT_POLICY": "apps.deciding:policy"})
    assert settings.policy_of(import_path).__module__ == "apps.deciding"
    inside = settings.check({}, {"GUNICORN_EXPECT_POLICY": "apps.deciding:Policies.strict"})
    assert settings.policy_of(inside)({}).status == "403 Forbidden"


def test_checking_the_settings_does_not_import_the_policy(configured, tmp_path):
    configured()
    tmp_path.joinpath("not_to_be_imported.py").write_text("raise LookupError", "utf-8")
    found = settings.check({"expect_policy": "not_to_be_imported:policy"}, {})
    with pytest.raises(ValueError, match=r"^expect_policy is .*: LookupError"):
        settings.policy_of(found)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("deciding", "it takes a callable, or 'module:callable'"),
        ("apps.deciding:", "it takes a callable, or 'module:callable'"),
        (":policy", "it takes a callable, or 'module:callable'"),
        ("apps.deciding:policy()", "it takes a callable, or 'module:callable'"),
        (3, "which is not callable"),
        (lambda: None, "which does not accept an environ: too many positional arguments"),
        (an_async_policy, "an async function"),
    ],
)
def test_a_policy_that_is_not_callable_is_refused_at_once(value, why):
    with pytest.raises(ValueError, match=f"^expect_policy is .*{re.escape(why)}"):
        settings.check({"expect_policy": value}, {})


@pytest.mark.parametrize("value", [NotCallable(), WithoutEnviron(), [NotCallable()]])
@pytest.mark.parametrize("name", ["expect_policy", "expect_linger", "expect_warn", "expect_polcy"])
def test_a_bad_setting_is_shown_by_its_type_without_its_contents(name, value):
    with pytest.raises(ValueError, match=f"^{name}") as raised:
        settings.check({name: value}, {})
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("makes", "write"),
    [
        *((getattr(policies, name), f"{name}(...)") for name in policies.__all__ if name.islower()),
        (inline, "inline(...)"),
        (Refuse, "lambda environ: Refuse(...)"),
        (Proceed, "lambda environ: Proceed(...)"),
    ],
)
def test_a_factory_of_policies_is_not_a_policy_itself(makes, write):
    line = f"which is not a policy itself: write {write}"
    with pytest.raises(ValueError, match=f"^expect_policy is .*{re.escape(line)}$"):
        settings.check({"expect_policy": makes}, {})
    import_path = f"{makes.__module__}:{makes.__qualname__}"
    with pytest.raises(ValueError, match=f"^expect_policy is '{import_path}', {re.escape(line)}$"):
        settings.policy_of(settings.check({}, {"GUNICORN_EXPECT_POLICY": import_path}))


@pytest.mark.parametrize(
    ("import_path", "missing"),
    [("no_such_module:policy", "no_such_module"), ("no_such.module:policy", "no_such")],
)
def test_a_policy_in_a_missing_module_is_refused_before_a_worker_boots(
    configured, import_path, missing
):
    with pytest.raises(
        ValueError, match=f"^expect_policy is .*, and there is no module {missing!r}$"
    ):
        settings.load(configured(), {"GUNICORN_EXPECT_POLICY": import_path})


def test_checking_the_settings_does_not_import_the_package_of_the_policy(configured, tmp_path):
    package = tmp_path / "not_to_be_imported"
    package.mkdir()
    package.joinpath("__init__.py").write_text("raise LookupError", "utf-8")
    cfg = configured()
    assert settings.load(cfg, {"GUNICORN_EXPECT_POLICY": "not_to_be_imported.policy:decide"})


@pytest.mark.parametrize("way", ["chdir", "pythonpath"])
def test_with_the_checked_worker_the_policy_may_be_in_a_folder_that_another_setting_adds(
    tmp_path, way
):
    tmp_path.joinpath("sub").mkdir()
    tmp_path.joinpath("sub", "mine.py").write_text("def policy(environ): pass", "utf-8")
    tmp_path.joinpath("some.py").write_text(
        "import gunicorn_expect\n"
        "worker_class = gunicorn_expect.Worker.checked\n"
        "expect_policy = 'mine:policy'\n"
        f"{way} = {str(tmp_path / 'sub')!r}\n",
        "utf-8",
    )
    with Server.of(
        [sys.executable, "-m", "gunicorn", "-c", "some.py", "apps.router:app"],
        env={"PYTHONPATH": os.pathsep.join(map(str, (TESTS, CHECKOUT)))},
        cwd=tmp_path,
    ) as server:
        assert server.get("/hello") == b"hello"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("apps.deciding:polcy", "AttributeError: module 'apps.deciding' has no attribute 'polcy'"),
        ("apps.deciding:ASKED", "which is not callable"),
        ("apps.deciding:with_one_too_many", "which does not accept an environ"),
    ],
)
def test_an_import_path_without_a_policy_is_refused_when_the_worker_loads_it(value, why):
    with pytest.raises(ValueError, match=f"^expect_policy is {value!r}.*{re.escape(why)}"):
        settings.policy_of(settings.check({"expect_policy": value}, {}))


# True or False, and unknown settings.


@pytest.mark.parametrize(
    ("value", "on"), [(True, True), (0, False), ("false", False), ("True", True), ("1", True)]
)
def test_expect_warn_takes_true_or_false(value, on):
    assert settings.check({"expect_warn": value}, {}) == Settings(expect_warn=on)


@pytest.mark.parametrize("value", ["no", "", None, 2, "off"])
def test_expect_warn_refuses_other_values(value):
    with pytest.raises(ValueError, match=r"^expect_warn is .*; it takes True or False$"):
        settings.check({"expect_warn": value}, {})


@pytest.mark.parametrize(
    ("configured", "environ", "line"),
    [
        (
            {"expect_liner": 3},
            {},
            "expect_liner: unknown setting; the nearest is expect_linger",
        ),
        (
            {},
            {"GUNICORN_EXPECT_BODYTIMEOUT": "3"},
            "GUNICORN_EXPECT_BODYTIMEOUT: unknown setting; "
            "the nearest is GUNICORN_EXPECT_BODY_TIMEOUT",
        ),
        (
            {"expect_": None},
            {},
            "expect_: unknown setting; the nearest is expect_warn",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(configured, environ, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        settings.check(configured, environ)


def test_settings_without_our_prefix_are_ignored():
    assert settings.check({"expected": 1, "Expect_linger": 2}, {"EXPECT_LINGER": "x"}) == Settings()


# In gunicorn.


@pytest.mark.parametrize("worker", ["Worker", "GeventWorker", "workers.sync.Worker"])
@pytest.mark.parametrize("where", ["file", "module", "environment"])
def test_check_config_finds_a_bad_value_if_the_file_names_the_checked_worker(
    tmp_path, worker, where
):
    text = "import gunicorn_expect.workers.sync\n"
    text += f"worker_class = gunicorn_expect.{worker}.checked\n"
    text += "expect_linger = 'soon'\n" if where != "environment" else ""
    tmp_path.joinpath("some.py").write_text(text, "utf-8")
    result = run_gunicorn(
        *("--check-config", "-c", "python:some" if where == "module" else "some.py"),
        cwd=tmp_path,
        **({"GUNICORN_EXPECT_LINGER": "soon"} if where == "environment" else {}),
    )
    assert result.returncode == 1
    name = "GUNICORN_EXPECT_LINGER" if where == "environment" else "expect_linger"
    assert f"{name} is 'soon'; it takes a number above 0" in result.stderr


def test_check_config_accepts_good_settings(tmp_path):
    text = "import gunicorn_expect\nworker_class = gunicorn_expect.Worker.checked\n"
    tmp_path.joinpath("some.py").write_text(text + "expect_linger = 3\n", "utf-8")
    result = run_gunicorn("--check-config", "-c", "some.py", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("import_path", "why"),
    [
        ("apps.deciding:polcy", "which can't be loaded: Attr"),
        ("gunicorn_expect.policies:max_length", "which is not a policy itself: write max_length"),
    ],
)
def test_a_policy_that_the_worker_can_not_load_stops_gunicorn(import_path, why):
    server = Server(env={"GUNICORN_EXPECT_POLICY": import_path})
    try:
        server.wait_for_log(f"expect_policy is '{import_path}', {why}")
        assert server.process.wait(PATIENCE) != 0
    finally:
        server.__exit__()


@pytest.mark.parametrize("where", ["file", "default file", "module", "environment"])
def test_a_bad_value_stops_gunicorn_with_one_line_before_a_worker_boots(tmp_path, worker, where):
    name = "gunicorn.conf.py" if where == "default file" else "some.py"
    tmp_path.joinpath(name).write_text("expect_linger = 'soon'\n", "utf-8")
    options = {"file": ["-c", "some.py"], "module": ["-c", "python:some"]}.get(where, [])
    env = {"GUNICORN_EXPECT_LINGER": "soon"} if where == "environment" else {}
    line = refusal_of("-k", WORKERS[worker][0], *options, cwd=tmp_path, **env)
    name = "GUNICORN_EXPECT_LINGER" if where == "environment" else "expect_linger"
    assert line == f"Error: {name} is 'soon'; it takes a number above 0"


def test_a_policy_factory_that_was_not_called_stops_gunicorn_before_a_worker_boots(
    tmp_path, worker
):
    tmp_path.joinpath("gunicorn.conf.py").write_text(
        "from gunicorn_expect import policies\nexpect_policy = policies.max_length\n", "utf-8"
    )
    assert refusal_of("-k", WORKERS[worker][0], cwd=tmp_path) == (
        "Error: expect_policy is gunicorn_expect.policies.max_length, which is not a policy "
        "itself: write max_length(...)"
    )


def test_a_value_that_was_changed_to_a_bad_one_stops_gunicorn_at_the_next_reload(file):
    file.write_text("expect_linger = 1\n", "utf-8")
    with Server("-c", str(file)) as server:
        assert server.get("/hello") == b"hello"
        file.write_text("expect_linger = 'later'\n", "utf-8")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(r"expect_linger is 'later'; it takes a number")
        assert server.process.wait(PATIENCE) != 0
