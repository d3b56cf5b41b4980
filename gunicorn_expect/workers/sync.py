"""The worker that does one thing at a time: ``gunicorn -k gunicorn_expect.workers.sync.Worker``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gunicorn.workers import sync

from gunicorn_expect import connection, exchange, linger, settings
from gunicorn_expect.gate import Gate

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request


class Worker(sync.SyncWorker):
    """gunicorn's sync worker, for applications that take uploads."""

    _lingering: linger.LingerThread
    _settings: settings.Settings
    _terms: exchange.Terms
    _grace_ends: float | None = None

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:  # noqa: ARG003  gunicorn's
        """Refuse what we can't work with, before a worker boots (master)."""
        exchange.require_gunicorn(
            "gunicorn.workers.sync:SyncWorker.load_wsgi",
            "gunicorn.workers.sync:SyncWorker.handle",
            "gunicorn.workers.sync:SyncWorker.handle_request",
        )
        settings.load(cfg)
        # gunicorn itself would run its threaded worker instead, without ours and in silence.
        if cfg.threads > 1:
            raise RuntimeError(
                f"gunicorn_expect.workers.sync.Worker serves one request at a time, and threads "
                f"is {cfg.threads}: use -k gunicorn_expect.Worker, or threads 1"
            )

    def load_wsgi(self) -> None:
        """Put the gate before the application (worker, at boot)."""
        self._settings = settings.load(self.cfg)  # again: after SIGHUP nobody has checked it
        super().load_wsgi()
        # the stubs of gunicorn don't know the exc_info of start_response
        self.wsgi = Gate(self.wsgi, guards_all=True)  # type: ignore[arg-type,assignment]

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
        """Serve a connection."""

        def answer(req: Request, sock: socket.socket) -> bool:
            self.handle_request(listener, req, sock, addr)
            return False

        connection.serve(self, client, addr, answer, self._lingering, self._terms)
