"""The ``expect_*`` settings: from gunicorn's configuration file and from the environment.

gunicorn reads its configuration file as a Python module, and ignores the names that it does not
know: ``expect_linger = 10`` there is for us. ``GUNICORN_EXPECT_LINGER=10`` in the environment is
for those who have no file; it wins, as gunicorn's own GUNICORN_CMD_ARGS does.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gunicorn.config import Config


class BadSettingError(ValueError, RuntimeError):
    """A setting is not what it may be. gunicorn prints a RuntimeError in one line, and stops."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be set, with its default."""

    expect_body_timeout: float = 30.0
    """Seconds to wait for the next bytes of a body; 0: for ever."""
    expect_min_rate: float = 240.0
    """Bytes of a body a second, averaged over the time waited for them, below which an upload is
    given up after 5 s; 0: any. Kestrel's MinRequestBodyDataRate."""
    expect_linger: float = 30.0
    """Seconds that a closing connection is read on, in all. nginx's lingering_time."""
    expect_linger_idle: float = 2.0
    """Seconds without a byte after which it is closed. nginx's lingering_timeout is 5."""


def load(cfg: Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        cfg: gunicorn's configuration, loaded.
        environ: the environment.

    Raises:
        BadSettingError: a value that is none. The message names the setting and what is allowed.

    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        name = field.name
        if name in (values := _configured(cfg)):
            found[name] = _number(name, values[name])
        if (variable := f"GUNICORN_{name.upper()}") in environ:
            found[name] = _number(variable, environ[variable])
    return Settings(**found)


def _configured(cfg: Config) -> Mapping[str, Any]:
    """Give the names of gunicorn's configuration file, or of its ``python:`` module."""
    location = str(cfg.settings["config"].get() or "")
    name = location.removeprefix("python:") if location.startswith("python:") else "__config__"
    return vars(sys.modules[name]) if name in sys.modules else {}


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadSettingError(f"{name} is {value!r}; it takes a number, 0 or more")
    return number
