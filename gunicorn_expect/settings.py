"""The ``expect_*`` settings: from gunicorn's configuration file and from the environment.

gunicorn reads its configuration file as a Python module, and ignores names that it does not
know, such as ``expect_linger = 10``. ``GUNICORN_EXPECT_LINGER=10`` in the environment does the same
without a file. The environment wins, as gunicorn's own GUNICORN_CMD_ARGS does.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.decision import forgotten_call, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gunicorn.config import Config

    from gunicorn_expect.decision import Policy

_IN_THE_FILE: Final = "expect_"
_IN_THE_ENVIRONMENT: Final = "GUNICORN_EXPECT_"


class BadSettingError(ValueError, RuntimeError):
    """Some settings are bad. A RuntimeError, because gunicorn prints its message and stops."""

    def __init__(self, *problems: str) -> None:
        """Make the message: a line for each problem. gunicorn prints "Error: " before the first."""
        super().__init__("\nError: ".join(problems))
        self.problems: Final = problems


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings with their defaults."""

    expect_policy: Policy | str | None = None
    """Called before the application, for every request that has a body: a callable, or its import
    path "module:callable"."""
    expect_head_timeout: float = 10.0
    """Maximum seconds to receive the request headers, the TLS handshake included; 0: no limit."""
    expect_body_timeout: float = 30.0
    """Maximum seconds to wait for the next bytes of a body; 0: no limit, and no minimum rate."""
    expect_min_rate: float = 240.0
    """Minimum average bytes per second of a body, after the first `expect_body_timeout` seconds of
    waiting; 0: no limit. The rule is that of Apache's RequestReadTimeout, the number that of
    Kestrel's MinRequestBodyDataRate."""
    expect_linger: float = 30.0
    """Maximum seconds to drain a closing connection, like nginx's lingering_time; above 0."""
    expect_linger_idle: float = 2.0
    """Seconds without a byte after which draining ends; above 0. nginx's lingering_timeout is 5."""
    expect_lend_threads: bool = True
    """Whether another request may start while one waits for its client's body. False: ``threads``
    limits all requests, as in gunicorn's own worker."""
    expect_warn: bool = True
    """Whether to warn of uploads that are read and then refused, lost, or broken and unanswered."""


def load(cfg: Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        cfg: gunicorn's configuration, loaded.
        environ: the environment.

    Raises:
        BadSettingError: with a line for each bad value and unknown name, which names the setting,
            the value and what is allowed.

    """
    settings, problems = _read(_configured(cfg), environ)
    if isinstance(settings.expect_policy, str):
        problems += _look_for(settings.expect_policy)
    if problems:
        raise BadSettingError(*problems)
    return settings


def check(configured: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Make the settings from the names of a configuration file.

    Raises the same as `load`, but does not look for the policy, which may not be importable yet.
    """
    settings, problems = _read(configured, environ)
    if problems:
        raise BadSettingError(*problems)
    return settings


def _read(configured: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the good settings, and the problems of the others."""
    variables = {
        field.name: f"GUNICORN_{field.name.upper()}" for field in dataclasses.fields(Settings)
    }
    found: dict[str, Any] = {}
    problems: list[str] = []
    for setting, variable in variables.items():
        for name, values in ((setting, configured), (variable, environ)):
            if name in values:
                try:
                    found[setting] = _CHECKS.get(setting, _number)(name, values[name])
                except BadSettingError as error:
                    problems += error.problems
    problems += _unknown(configured, set(variables), _IN_THE_FILE)
    problems += _unknown(environ, set(variables.values()), _IN_THE_ENVIRONMENT)
    return Settings(**found), problems


def problems(cfg: Config, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return all problems that `load` and then `policy_of` find, each in one line."""
    settings, found = _read(_configured(cfg), environ)
    if isinstance(settings.expect_policy, str):
        missing = [*_look_for(settings.expect_policy)]
        try:
            if not missing:
                policy_of(settings)
        except BadSettingError as error:
            missing += error.problems
        found += missing
    return found


def policy_of(settings: Settings) -> Policy | None:
    """Return the policy; import it if the setting is an import path.

    Raises:
        BadSettingError: it can't be imported, or is not callable.

    """
    policy = settings.expect_policy
    if not isinstance(policy, str):
        return policy
    module, _, path = policy.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise BadSettingError(
            f"expect_policy is {policy!r}, which can't be loaded: {type(error).__name__}: {error}"
        ) from error
    return _callable("expect_policy", found, repr(policy))


def _configured(cfg: Config) -> Mapping[str, Any]:
    """Return the names of gunicorn's configuration file, or of its ``python:`` module."""
    location = str(cfg.settings["config"].get() or "")
    name = location.removeprefix("python:") if location.startswith("python:") else "__config__"
    return vars(sys.modules[name]) if name in sys.modules else {}


def _unknown(values: Mapping[str, Any], known: set[str], prefix: str) -> Iterator[str]:
    for name in values:
        if name.startswith(prefix) and name not in known:
            [nearest] = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)
            yield f"{name}: unknown setting; the nearest is {nearest}"


def _number(name: str, value: object, *, may_be_0: bool = True) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf or (number == 0 and not may_be_0):
        allowed = "a number, 0 or more" if may_be_0 else "a number above 0"
        raise BadSettingError(f"{name} is {shown(value)}; it takes {allowed}")
    return number


# 0 would mean no limit, as with the other timeouts: clients that are gone would stay for ever.
_limit: Final = functools.partial(_number, may_be_0=False)


def _switch(name: str, value: object) -> bool:
    # What gunicorn itself accepts in the environment and on the command line.
    switched = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if switched is None:
        raise BadSettingError(f"{name} is {shown(value)}; it takes True or False")
    return switched


def _policy(name: str, value: object) -> Policy | str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        return _callable(name, value, shown(value))
    module, _, path = value.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{path}".split(".")):
        raise BadSettingError(f"{name} is {value!r}; it takes a callable, or 'module:callable'")
    return value


def _look_for(policy: str) -> Iterator[str]:
    # Each worker imports it when it boots, so that a reload finds new code. Before that we only
    # check that its package exists: looking inside a package would import it.
    package = policy.partition(":")[0].partition(".")[0]
    try:
        missing = importlib.util.find_spec(package) is None
    except ValueError:  # it is loaded, and has no __spec__
        missing = False
    if missing:
        yield f"expect_policy is {policy!r}, and there is no module {package!r}"


def _callable(name: str, value: object, described: str) -> Policy:
    if not callable(value):
        raise BadSettingError(f"{name} is {described}, which is not callable")
    if (call := forgotten_call(value)) is not None:
        raise BadSettingError(f"{name} is {described}, which is not a policy itself: write {call}")
    if inspect.iscoroutinefunction(value):
        raise BadSettingError(f"{name} is {described}, an async function; it takes one that is not")
    try:
        inspect.signature(value).bind({})
    except TypeError as error:
        raise BadSettingError(
            f"{name} is {described}, which does not accept an environ: {error}"
        ) from None
    except ValueError:
        pass  # it has no signature that can be inspected
    return value


#: How to check a value; without an entry here it is a number.
_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "expect_policy": _policy,
    "expect_linger": _limit,
    "expect_linger_idle": _limit,
    "expect_lend_threads": _switch,
    "expect_warn": _switch,
}
