"""The threaded worker: ``gunicorn -k gunicorn_expect.Worker --threads 8``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gunicorn_expect.workers import base
from gunicorn_expect.workers.loop import ACCEPTS, Loop
from gunicorn_expect.workers.pool import Pool

if TYPE_CHECKING:
    from types import FrameType

    from gunicorn.config import Config
    from gunicorn.glogging import Logger


class ExpectWorker(base.BaseWorker):
    """Replaces gunicorn's gthread worker.

    One loop has all connections, and threads run the application.
    """

    loop: Loop
    tpool: Pool

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Raise for a configuration that can't work, and warn as gunicorn does (master)."""
        super().check_config(cfg, log)
        if cfg.worker_connections <= cfg.threads and cfg.keepalive:
            log.warning(
                "No keepalived connections can be handled. "
                "Check the number of worker connections and threads."
            )

    def get_thread_pool(self) -> Pool:
        """Make the pool; it may have as many threads as there may be connections (worker)."""
        return Pool(self.cfg.threads, self.cfg.worker_connections)

    def load_wsgi(self) -> None:
        """Make the pool, which hooks may look at, and load the application (worker).

        Raises:
            TypeError: a subclass has made another kind of pool.

        """
        self.tpool = self.get_thread_pool()
        if not isinstance(self.tpool, Pool):
            raise TypeError(
                f"get_thread_pool() of {type(self).__name__} returned a "
                f"{type(self.tpool).__name__}: return that of super(), or another "
                "gunicorn_expect.workers.pool.Pool"
            )
        super().load_wsgi()

    def run(self) -> None:
        """Run the loop until the worker ends (main thread)."""
        self.begin()
        for listener in self.sockets:
            listener.setblocking(False)
        self.loop = Loop(
            self.service,
            self.sockets,
            self.tpool,
            wakes=self.PIPE[0],
            most=self.cfg.worker_connections,
            keepalive=self.cfg.keepalive,
            # Where several workers share a listener, one that takes many starves the others.
            accepts=1 if self.cfg.workers > 1 and not self.cfg.reuse_port else ACCEPTS,
        )
        self.service.kept = self.loop.kept
        if self.cfg.keepalive:
            self.service.most_kept = self.cfg.worker_connections - self.cfg.threads
        try:
            self.loop.run(self.tick)
        except SystemExit:
            if not self._must_go:  # the application raised it
                self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        """Wait for the requests that have begun, within the graceful timeout (main thread)."""
        self.alive = False
        ends = self.grace_ends()
        self.loop.stop(base.STOPPING)
        while self.loop.busy and time.monotonic() < ends:
            self._turn(ends)
        # Linger only briefly: gunicorn boots the next worker when this one has ended.
        ends = min(ends, time.monotonic() + self._settings.expect_linger_idle)
        while self.loop.lingering and time.monotonic() < ends:
            self._turn(ends)
        self.tpool.shutdown(wait=False)
        self.loop.end()
        for listener in self.sockets:
            listener.close()

    def _turn(self, ends: float) -> None:
        self.tick()
        self.loop.turn(min(1.0, max(0.0, ends - time.monotonic())))

    def connections(self) -> dict[str, int]:
        """Return how many connections are open, wait for a request's head, and linger."""
        loop = self.loop
        return {"open": loop.open, "waiting": loop.waiting, "lingering": loop.lingering}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the signal wakes the loop (main thread, in a signal handler)."""
        if self.alive:
            super().handle_exit(sig, frame)
