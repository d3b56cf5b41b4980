"""The worker on gevent: ``gunicorn -k gunicorn_expect.GeventWorker``."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn_expect import connection, exchange, linger, settings
from gunicorn_expect.gate import Gate

try:
    from gunicorn.workers import ggevent
except (ImportError, RuntimeError) as error:
    raise RuntimeError(
        f"gunicorn_expect.GeventWorker needs the extra gunicorn-expect[gevent]: {error}"
    ) from error

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request


class Worker(ggevent.GeventWorker):
    """gunicorn's gevent worker, for applications that take uploads."""

    _lingering: linger.LingerThread
    _settings: settings.Settings
    _terms: exchange.Terms
    _grace_ends: float | None = None

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:  # noqa: ARG003  gunicorn's
        """Refuse a gunicorn that we can't work with, before a worker boots (master)."""
        exchange.require_gunicorn(
            "gunicorn.workers.ggevent:GeventWorker.load_wsgi",
            "gunicorn.workers.ggevent:GeventWorker.handle",
            "gunicorn.workers.ggevent:GeventWorker.handle_request",
            "gunicorn.workers.ggevent:GeventWorker.handle_http2",
            "gunicorn.workers.ggevent:GeventWorker.handle_http2_request",
            "gunicorn.workers.ggevent:GeventWorker._try_h2c_upgrade",
            "gunicorn.workers.ggevent:GeventWorker.timeout_ctx",
        )
        settings.load(cfg)

    def load_wsgi(self) -> None:
        """Put the gate before the application (worker, at boot)."""
        self._settings = settings.load(self.cfg)  # again: after SIGHUP nobody has checked it
        super().load_wsgi()
        # the stubs of gunicorn don't know the exc_info of start_response
        self.wsgi = Gate(self.wsgi)  # type: ignore[arg-type,assignment]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note when the grace ends (main thread, in a signal handler)."""
        self._grace_ends = time.monotonic() + self.cfg.graceful_timeout - linger.EXIT_MARGIN
        super().handle_exit(sig, frame)

    def run(self) -> None:
        """Be the main loop; closing connections have one of their own."""
        limits = self._settings
        self._lingering = linger.LingerThread(
            linger.Linger(
                limits.expect_linger, limits.expect_linger_idle, self.cfg.worker_connections
            )
        )
        self._terms = exchange.Terms(
            body_timeout=limits.expect_body_timeout,
            min_rate=limits.expect_min_rate,
            discard=self._lingering.discard,
        )
        super().run()
        grace_ends = self._grace_ends or time.monotonic() + self.cfg.graceful_timeout
        self._lingering.finish(grace_ends, self.notify)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection (greenlet of the pool)."""
        name = listener.getsockname()

        def answer(req: Request, sock: socket.socket) -> bool:
            self.handle_request(name, req, sock, addr)
            return bool(self.cfg.keepalive)

        client.setblocking(True)
        connection.serve(
            self,
            client,
            addr,
            answer,
            self._lingering,
            self._terms,
            http2=partial(self.handle_http2, listener),
            upgrade=partial(self._try_h2c_upgrade, listener),  # type: ignore[attr-defined]
            # gunicorn's time to keep alive; it is for a first request, too, but never none at all.
            patience=self.timeout_ctx if self.cfg.keepalive else nullcontext,  # type: ignore[arg-type]
        )

    def handle_http2_request(
        self,
        listener_name: Any,
        req: Any,
        sock: Any,
        addr: Any,
        h2_conn: Any,
    ) -> None:
        """Handle a request on a stream (greenlet of the connection)."""
        if exchange.open_stream(req, h2_conn, self._terms):
            super().handle_http2_request(listener_name, req, sock, addr, h2_conn)
