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


@dataclasses.dataclass(frozen=True)
class Settings:
    """What may be set, with its default. All are seconds."""

    expect_linger: float = 30.0
    """How long a closing connection is read on, in all."""
    expect_linger_idle: float = 2.0
    """After how long without a byte it is closed."""


def load(cfg: Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        cfg: gunicorn's configuration, loaded.
        environ: the environment.

    Raises:
        ValueError: a value that is none. The message names the setting and what is allowed.

    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        name = field.name
        if name in (values := _configured(cfg)):
            found[name] = _seconds(name, values[name])
        if (variable := f"GUNICORN_{name.upper()}") in environ:
            found[name] = _seconds(variable, environ[variable])
    return Settings(**found)


def _configured(cfg: Config) -> Mapping[str, Any]:
    """Give the names of gunicorn's configuration file, or of its ``python:`` module."""
    location = str(cfg.settings["config"].get() or "")
    name = location.removeprefix("python:") if location.startswith("python:") else "__config__"
    return vars(sys.modules[name]) if name in sys.modules else {}


def _seconds(name: str, value: object) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} is {value!r}; it takes seconds, 0 or more")
    return seconds
