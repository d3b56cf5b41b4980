"""A gunicorn worker for uploads: the application decides before the body is sent.

``gunicorn -k gunicorn_expect.Worker app:app``. To accept an upload, read ``wsgi.input``;
to refuse it, return a response.

How a request passes through the modules::

    workers/       accepts a connection, and waits for heads
      connection.py  bytes -> head.py -> a request; its exchange opens
        answer.py      hooks, policy (decision.py), then the application is called
          body.py        it reads wsgi.input: READ      exchange.py   100 goes out, then bytes
                         framing.py: where they end     receiver.py   they come, or an error in time
          response.py    its first byte: RESPOND        exchange.py   declined, or kept
      connection.py  keep, drain, or linger: the second table of states.py
    workers/       waits for the next head, or discards until the client closes

What gunicorn does not document is in host.py alone. counters.py counts decisions and outcomes.
``testing/`` is for the tests of applications: an upload without a server, and with one.
"""

from typing import TYPE_CHECKING

from gunicorn_expect.decision import Decision, Policy, Proceed, Refuse, inline
from gunicorn_expect.errors import (
    BodyError,
    BodyTimeout,
    ClientDisconnected,
    ContentTooLarge,
    MalformedBody,
)
from gunicorn_expect.exchange import Expectation
from gunicorn_expect.states import State
from gunicorn_expect.version import __version__
from gunicorn_expect.workers.sync import ExpectSyncWorker as Sync
from gunicorn_expect.workers.thread import ExpectWorker as Worker

if TYPE_CHECKING:
    from gunicorn_expect.workers.gevent import ExpectGeventWorker as GeventWorker

__all__ = [
    "BodyError",
    "BodyTimeout",
    "ClientDisconnected",
    "ContentTooLarge",
    "Decision",
    "Expectation",
    "GeventWorker",
    "MalformedBody",
    "Policy",
    "Proceed",
    "Refuse",
    "State",
    "Sync",
    "Worker",
    "__version__",
    "inline",
]


def __getattr__(name: str) -> object:
    """Import the gevent worker on first use: gevent is an extra."""
    if name == "GeventWorker":
        from gunicorn_expect.workers.gevent import ExpectGeventWorker as GeventWorker

        return GeventWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
