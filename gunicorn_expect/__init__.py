"""A gunicorn worker for uploads: the application decides before the body is sent.

``gunicorn -k gunicorn_expect.Worker app:app``. To accept, read ``wsgi.input``; to refuse, answer.

What happens to a request, and where::

    bytes -> gunicorn's parser -> request head      front.py        the loop waits for it (thread)
      exchange.py    an exchange opens               expectation.py  PENDING or NONE
        gate.py      the policy decides              decision.py     Proceed, Refuse, or neither
                     (ready ones: policies.py)
                     the application is called
          body.py    it reads wsgi.input: READ       expectation.py  CONTINUED: 100, then bytes
                     framing.py: where they end      receiver.py     they come, or an error in time
        gate.py      its first byte goes out: RESPOND  expectation.py  DECLINED: and close
      workers/       the connection is kept,
                     or closed in order              linger.py       the answer is heard

What was decided, and how it ended, is told by record.py to gunicorn's log and statsd.
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
from gunicorn_expect.expectation import Expectation, State
from gunicorn_expect.version import __version__
from gunicorn_expect.workers.thread import Worker

if TYPE_CHECKING:
    from gunicorn_expect.workers.gevent import Worker as GeventWorker

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
    "Worker",
    "__version__",
    "inline",
]


def __getattr__(name: str) -> object:
    """Load the gevent worker when it is asked for: gevent is an extra."""
    if name == "GeventWorker":
        from gunicorn_expect.workers.gevent import Worker as GeventWorker

        return GeventWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
