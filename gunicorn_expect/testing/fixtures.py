"""The fixture of pytest: ``pytest_plugins = ["gunicorn_expect.testing.fixtures"]``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from gunicorn_expect.testing.server import GunicornServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class StartGunicorn(Protocol):
    """What the fixture `gunicorn_server` is."""

    def __call__(
        self,
        app: str,
        *arguments: str,
        policy: str | None = None,
        worker: str = "gunicorn_expect.Worker",
        env: Mapping[str, str] | None = None,
    ) -> GunicornServer:
        """Start a gunicorn, as `GunicornServer` does; it is stopped when the test ends."""


@pytest.fixture
def gunicorn_server() -> Iterator[StartGunicorn]:
    """Return a function that starts a gunicorn: ``gunicorn_server("myproject.wsgi:app")``."""
    with contextlib.ExitStack() as servers:

        def start(*arguments: Any, **options: Any) -> GunicornServer:
            return servers.enter_context(GunicornServer(*arguments, **options))

        yield start
