"""For tests of applications that take uploads: without a server, and with one.

* `TestApp` is WebTest's, and serves the application as the worker does: ``webtest.py`` and, below
  it, ``memory.py``
* `GunicornServer` is a real one: ``server.py``. In pytest it is a fixture: ``fixtures.py``
* `Waits`, `WaitsOneSecond`, `DoesNotWait`, `SkipsTheBody` and `Trickles` are clients of it:
  ``clients.py``

The extra is ``gunicorn_expect[testing]``.
"""

from gunicorn_expect.testing.clients import (
    DoesNotWait,
    Outcome,
    SkipsTheBody,
    Trickles,
    Waits,
    WaitsOneSecond,
)
from gunicorn_expect.testing.interim import Interim
from gunicorn_expect.testing.memory import DecidedBy
from gunicorn_expect.testing.server import GunicornServer
from gunicorn_expect.testing.webtest import TestApp, TestRequest, TestResponse

__all__ = [
    "DecidedBy",
    "DoesNotWait",
    "GunicornServer",
    "Interim",
    "Outcome",
    "SkipsTheBody",
    "TestApp",
    "TestRequest",
    "TestResponse",
    "Trickles",
    "Waits",
    "WaitsOneSecond",
]
