"""The worker on gunicorn's gthread: ``gunicorn -k gunicorn_expect.Worker --threads 8``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn.workers import gthread

from gunicorn_expect import exchange, linger
from gunicorn_expect.gate import Gate

if TYPE_CHECKING:
    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request


class Connection(gthread.TConn):
    """A connection whose requests leave their expectation to us."""

    def init(self) -> None:
        """Make the parser, once; it reads nothing yet (thread of the pool)."""
        if not self.initialized:
            super().init()
            self.parser = exchange.Parser.instead_of(self.parser)

    def close(self, graceful: bool = False) -> None:
        """Close, and say so first where the transport has a word for it (main thread)."""
        linger.close_notify(self.sock)
        super().close(graceful)


class Worker(gthread.ThreadWorker):
    """gunicorn's threaded worker, for applications that take uploads."""

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Refuse a gunicorn that we can't work with, before a worker boots (master)."""
        exchange.require_gunicorn(
            "gunicorn.workers.gthread:ThreadWorker.load_wsgi",
            "gunicorn.workers.gthread:ThreadWorker.enqueue_req",
            "gunicorn.workers.gthread:ThreadWorker.handle_request",
            "gunicorn.workers.gthread:ThreadWorker.handle_http2_request",
            "gunicorn.workers.gthread:ThreadWorker.handle_h2c_upgrade",
            "gunicorn.workers.gthread:ThreadWorker._keepalive_after",
            "gunicorn.workers.gthread:TConn.init",
            "gunicorn.workers.gthread:TConn.close",
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

    def handle_http2_request(self, req: Any, conn: gthread.TConn, h2_conn: Any) -> None:
        """Handle a request on a stream (thread of the pool)."""
        if exchange.open_stream(req, h2_conn):
            super().handle_http2_request(req, conn, h2_conn)

    def handle_h2c_upgrade(self, conn: gthread.TConn, req: Request, settings: Any) -> Any:
        """Upgrade to HTTP/2, unless the request has a body: then it is answered as it came."""
        if exchange.has_body(req):
            keepalive = self.handle_request(req, conn)
            return self._keepalive_after(conn, keepalive)  # type: ignore[attr-defined]
        return super().handle_h2c_upgrade(conn, req, settings)
