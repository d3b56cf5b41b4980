"""The worker on gunicorn's gthread: ``gunicorn -k gunicorn_expect.Worker --threads 8``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gunicorn.workers import gthread

from gunicorn_expect import exchange
from gunicorn_expect.gate import Gate

if TYPE_CHECKING:
    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request


class Connection(gthread.TConn):
    """A connection whose requests leave their expectation to us."""

    def init(self) -> None:
        """Make the parser, once; it reads nothing yet."""
        if not self.initialized:
            super().init()
            exchange.adopt(self.parser)


class Worker(gthread.ThreadWorker):
    """gunicorn's threaded worker, for applications that take uploads."""

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Refuse a gunicorn that we can't work with, before a worker boots (master)."""
        exchange.require_gunicorn(
            (gthread.ThreadWorker, "load_wsgi"),
            (gthread.ThreadWorker, "handle_request"),
            (gthread.ThreadWorker, "enqueue_req"),
            (gthread.TConn, "init"),
        )
        super().check_config(cfg, log)

    def load_wsgi(self) -> None:
        """Put the gate before the application (worker, at boot)."""
        super().load_wsgi()
        # the stubs of gunicorn don't know the exc_info of start_response
        self.wsgi = Gate(self.wsgi)  # type: ignore[arg-type,assignment]

    def enqueue_req(self, conn: gthread.TConn) -> None:
        """Hand a connection to the pool (main thread)."""
        if not isinstance(conn, Connection):
            conn = Connection(conn.cfg, conn.sock, conn.client, conn.server)
        super().enqueue_req(conn)

    def handle_request(self, req: Request, conn: gthread.TConn) -> bool:
        """Hold the exchange open while gunicorn handles the request (thread of the pool)."""
        opened = exchange.opened(req, conn.sock)
        if opened is None:
            return super().handle_request(req, conn)
        with opened:
            return super().handle_request(req, conn)
