"""The ``expect_*`` settings: from gunicorn's configuration file and from the environment.

gunicorn reads its configuration file as a Python module, and ignores the names that it does not
know: ``expect_linger = 10`` there is for us. ``GUNICORN_EXPECT_LINGER=10`` in the environment is
for those who have no file; it wins, as gunicorn's own GUNICORN_CMD_ARGS does.
"""

from __future__ import annotations

import dataclasses
import difflib
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
    """Settings are not what they may be. gunicorn prints a RuntimeError, and stops."""

    def __init__(self, *problems: str) -> None:
        """Say what is wrong, each in a line of its own: gunicorn prints "Error: " before it."""
        super().__init__("\nError: ".join(problems))
        self.problems: Final = problems


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be set, with its default."""

    expect_policy: Policy | str | None = None
    """Asked before the application, of every request that has a body: a callable, or where it is
    as "module:callable"."""
    expect_head_timeout: float = 10.0
    """Seconds that a request head may take, the TLS handshake included; 0: any."""
    expect_body_timeout: float = 30.0
    """Seconds to wait for the next bytes of a body; 0: no limit, of the total neither."""
    expect_min_rate: float = 240.0
    """So many bytes of a body buy one more second of waiting for it, beside the first
    `expect_body_timeout`; 0: no limit of the total. The rule of Apache's RequestReadTimeout, the
    number of Kestrel's MinRequestBodyDataRate."""
    expect_linger: float = 30.0
    """Seconds that a closing connection is read on, in all. nginx's lingering_time."""
    expect_linger_idle: float = 2.0
    """Seconds without a byte after which it is closed. nginx's lingering_timeout is 5."""
    expect_lend_threads: bool = True
    """Whether an application that waits for its client lets another one start; False: as many
    applications as ``threads`` are under way, as in gunicorn's own worker."""
    expect_warn: bool = True
    """Whether to warn of an application that refuses uploads when it has read them."""


def load(cfg: Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        cfg: gunicorn's configuration, loaded.
        environ: the environment.

    Raises:
        BadSettingError: bad values and unknown names, all of them. Each message names the setting,
            the value and what is allowed.

    """
    settings, problems = _read(_configured(cfg), environ)
    if isinstance(settings.expect_policy, str):
        problems += _look_for(settings.expect_policy)
    if problems:
        raise BadSettingError(*problems)
    return settings


def check(configured: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Make the settings of the names in a configuration file.

    Raises as `load`; but where a policy is to be found may not be known yet, and is not looked at.
    """
    settings, problems = _read(configured, environ)
    if problems:
        raise BadSettingError(*problems)
    return settings


def _read(configured: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the settings that are good, and what is wrong with the others."""
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
    """Return all that is wrong, as `load` and then `policy_of` find it, each in one line."""
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
    """Give the policy; import it if its place is set.

    Raises:
        BadSettingError: it can't be imported, or called.

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
    """Give the names of gunicorn's configuration file, or of its ``python:`` module."""
    location = str(cfg.settings["config"].get() or "")
    name = location.removeprefix("python:") if location.startswith("python:") else "__config__"
    return vars(sys.modules[name]) if name in sys.modules else {}


def _unknown(values: Mapping[str, Any], known: set[str], prefix: str) -> Iterator[str]:
    for name in values:
        if name.startswith(prefix) and name not in known:
            [nearest] = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)
            yield f"{name}: there is no such setting; the nearest is {nearest}"


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadSettingError(f"{name} is {shown(value)}; it takes a number, 0 or more")
    return number


def _switch(name: str, value: object) -> bool:
    # gunicorn's own words for it in the environment and on the command line.
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
    # It is imported by each worker when it boots, so that a reload finds what is new. Before that
    # it is only looked for: for its package, as to look inside of that is to import it.
    package = policy.partition(":")[0].partition(".")[0]
    try:
        missing = importlib.util.find_spec(package) is None
    except ValueError:  # it is loaded, and does not tell from where
        missing = False
    if missing:
        yield f"expect_policy is {policy!r}, and there is no module {package!r}"


def _callable(name: str, value: object, told: str) -> Policy:
    if not callable(value):
        raise BadSettingError(f"{name} is {told}, which can't be called")
    if (call := forgotten_call(value)) is not None:
        raise BadSettingError(f"{name} is {told}, which is not a policy itself: write {call}")
    if inspect.iscoroutinefunction(value):
        raise BadSettingError(f"{name} is {told}, an async function; it takes one that is not")
    try:
        inspect.signature(value).bind({})
    except TypeError as error:
        raise BadSettingError(
            f"{name} is {told}, which can't be called with an environ: {error}"
        ) from None
    except ValueError:
        pass  # it does not tell its signature
    return value


#: How values become settings; most are numbers.
_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "expect_policy": _policy,
    "expect_lend_threads": _switch,
    "expect_warn": _switch,
}
