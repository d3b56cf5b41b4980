"""The worker on gunicorn's gthread: ``gunicorn -k gunicorn_expect.Worker --threads 8``."""

from __future__ import annotations

import select
import selectors
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn.workers import gthread

from gunicorn_expect import exchange, linger, worker
from gunicorn_expect.pool import Pool

if TYPE_CHECKING:
    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request

    from gunicorn_expect.settings import Settings


#: Seconds that a thread stays with the connection it has answered while there are threads for all.
#: A peer in the same data centre asks again within that; a new one waits no longer for the thread.
STAY: Final = 0.001


class Connection(gthread.TConn):
    """A connection whose requests are ours, and which is closed in order."""

    parser: Any

    def __init__(
        self, conn: gthread.TConn, lingering: linger.Linger, terms: exchange.Terms
    ) -> None:
        """Take over a connection that nothing was read from (main thread)."""
        super().__init__(conn.cfg, conn.sock, conn.client, conn.server)
        self._lingering = lingering
        self._terms = terms
        self._poller: select.poll | None = None

    def init(self) -> None:
        """Make the parser, once; it reads nothing yet (thread of the pool)."""
        if not self.initialized:
            super().init()
            self.parser = exchange.adopt(self.parser, self._terms)

    def asks_again(self, seconds: float) -> bool:
        """Tell whether the next request is here, or comes so soon (thread of the pool)."""
        if self.parser.unreader.buf.getvalue():
            return True
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return True
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self.sock, select.POLLIN)
        return bool(self._poller.poll(seconds * 1000))

    def close(self, graceful: bool = False) -> None:
        """Close; if that is to be graceful, in order. It does not wait (main thread)."""
        if graceful:
            self._lingering.close(self.sock)
        else:
            self._lingering.stop_discarding(self.sock)
            linger.close_notify(self.sock)
            super().close()


class Worker(worker.Worker, gthread.ThreadWorker):
    """gunicorn's threaded worker, for applications that take uploads."""

    hooks = (
        "gunicorn.workers.gthread:ThreadWorker.load_wsgi",
        "gunicorn.workers.gthread:ThreadWorker.run",
        "gunicorn.workers.gthread:ThreadWorker.wait_for_and_dispatch_events",
        "gunicorn.workers.gthread:ThreadWorker.enqueue_req",
        "gunicorn.workers.gthread:ThreadWorker.get_thread_pool",
        "gunicorn.workers.gthread:ThreadWorker.handle",
        "gunicorn.workers.gthread:ThreadWorker.handle_request",
        "gunicorn.workers.gthread:ThreadWorker.handle_http2_request",
        "gunicorn.workers.gthread:ThreadWorker.handle_h2c_upgrade",
        "gunicorn.workers.gthread:ThreadWorker._keepalive_after",
        "gunicorn.workers.gthread:TConn.init",
        "gunicorn.workers.gthread:TConn.close",
    )
    lingering: linger.Linger
    tpool: Pool  # type: ignore[assignment]  # what gunicorn uses of an executor

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Refuse what we can't work with, and warn as gunicorn does (master)."""
        super().check_config(cfg, log)
        gthread.ThreadWorker.check_config(cfg, log)

    def get_thread_pool(self) -> Pool:  # type: ignore[override]  # what gunicorn uses of one
        """Make the pool; it may have as many threads as there may be connections (worker)."""
        return Pool(self.cfg.threads, self.cfg.worker_connections)

    def open(self, closing: linger.Linger, limits: Settings) -> None:
        """Let the main loop be that of the closing connections, too (main thread)."""
        self.lingering = closing
        self.terms = exchange.Terms(
            limits,
            discard=partial(self.method_queue.defer, closing.discard),
            waiting=self.tpool.waiting,
            record=self.record,
        )
        self.poller.register(closing.fileno(), selectors.EVENT_READ, lambda _: closing.turn())

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Do one turn of the main loop (main thread)."""
        longest = 1.0 if timeout is None else timeout
        super().wait_for_and_dispatch_events(min(longest, self.lingering.due_in()))
        self.lingering.expire()

    def enqueue_req(self, conn: gthread.TConn) -> None:
        """Hand a connection to the pool (main thread)."""
        if not isinstance(conn, Connection):
            conn = Connection(conn, self.lingering, self.terms)
        super().enqueue_req(conn)

    def handle(self, conn: gthread.TConn) -> Any:
        """Handle the requests of a connection, until another one needs the thread (pool)."""
        assert isinstance(conn, Connection)  # noqa: S101  enqueue_req has made it one
        while True:
            kept = super().handle(conn)
            # Through the main loop a request wakes two threads, and passes the interpreter's lock
            # between them: most of what a request costs.
            if kept is not True or not self.alive or self.tpool.busy:
                return kept
            if not conn.asks_again(STAY if self.nr_conns <= self.cfg.threads else 0):
                return kept

    def handle_http2_request(self, req: Any, conn: gthread.TConn, h2_conn: Any) -> None:
        """Handle a request on a stream (thread of the pool)."""
        if exchange.open_stream(req, h2_conn, self.terms):
            super().handle_http2_request(req, conn, h2_conn)

    def handle_h2c_upgrade(self, conn: gthread.TConn, req: Request, settings: Any) -> Any:
        """Upgrade to HTTP/2, unless the request has a body: then it is answered as it came."""
        if exchange.has_body(req):
            keepalive = self.handle_request(req, conn)
            return self._keepalive_after(conn, keepalive)  # type: ignore[attr-defined]
        return super().handle_h2c_upgrade(conn, req, settings)
