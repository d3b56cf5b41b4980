"""Connections as a worker has them, and the `Service` that they share, without a worker process."""

import contextlib
import logging
import math
import os

from gunicorn.config import Config
from gunicorn.glogging import Logger

from gunicorn_expect import Worker, host
from gunicorn_expect.answer import Service
from gunicorn_expect.connection import Connection
from gunicorn_expect.counters import Counters
from gunicorn_expect.settings import Settings
from support.socket_pairs import receive_rest

# gunicorn sets this for its logger. It has to be set before a test begins: only then does pytest
# capture the log lines of a logger that does not propagate them.
logging.getLogger("gunicorn.error").propagate = False

CLIENT = ("127.0.0.1", 40_000)
LISTENER = ("127.0.0.1", 8000)


class Outcomes(Counters):
    """Records how lingering connections ended."""

    def __init__(self):
        super().__init__()
        self.enabled = True
        self.lingered_as = []

    def lingered(self, outcome):
        self.lingered_as.append(outcome)


def unserved(environ, start_response):
    raise AssertionError("the application must not be called")


@contextlib.contextmanager
def service(application=unserved, *, settings=None, gunicorn=None, **given):
    """Yield the service of a thread worker that does not run.

    Args:
        application: of the worker.
        settings: the expect_* settings.
        gunicorn: gunicorn's settings.
        given: other attributes of the service.

    """
    cfg = Config()
    for name, value in {"loglevel": "debug", "errorlog": os.devnull, **(gunicorn or {})}.items():
        cfg.set(name, value)
    worker = Worker(1, os.getpid(), [], None, 30, cfg, Logger(cfg))
    try:
        yield Service(
            **{
                "worker": worker,
                "cfg": cfg,
                "settings": settings or Settings(),
                "counters": Outcomes(),
                "head_limits": host.head_limits(cfg),
                "application": application,
                "most_kept": math.inf,
                **given,
            }
        )
    finally:
        worker.tmp.close()
        for handler in list(worker.log.error_log.handlers):
            if hasattr(handler, "_gunicorn"):  # not pytest's
                worker.log.error_log.removeHandler(handler)
                handler.close()


def connection(of, sock, **how):
    """Return the connection that a worker makes for this socket, the server's end."""
    return Connection(of, sock, CLIENT, LISTENER, **how)


def answered(conn, theirs):
    """Answer a request and half-close; return what the connection wants and the client received."""
    wants = conn.answer()
    conn.transport.half_close()
    return wants, receive_rest(theirs)
