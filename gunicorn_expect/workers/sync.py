"""The worker that serves one request at a time: ``gunicorn -k gunicorn_expect.Sync``."""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.answer import OnExit
from gunicorn_expect.connection import Connection
from gunicorn_expect.workers import base
from gunicorn_expect.workers.loop import BROKEN, NO_ROOM, PAUSE, Loop, drain

if TYPE_CHECKING:
    from gunicorn.config import Config

#: Seconds that the second thread sleeps after each turn. By then several clients have closed.
#: Waking for each of them took a tenth of the CPU of a refused upload, and a fifth of a GET's.
GATHER: Final = 0.005


class ExpectSyncWorker(base.BaseWorker):
    """Replaces gunicorn's sync worker: it serves one request at a time.

    A second thread drains the connections that are closing.
    """

    multithread = False
    on_exit = OnExit.ANSWER
    catches = (BaseException,)

    @classmethod
    def problems(cls, cfg: Config) -> list[str]:
        """Return the problems of a configuration, each in one line (master)."""
        found = super().problems(cfg)
        # gunicorn itself would silently run its own threaded worker instead of its sync worker.
        if cfg.threads > 1:
            found.append(
                f"gunicorn_expect.Sync serves one request at a time, and threads is {cfg.threads}: "
                "set threads to 1, or use gunicorn_expect.Worker if the application is thread-safe"
            )
        return found

    def connections(self) -> dict[str, int]:
        """Return how many connections are open: between two requests all of them linger."""
        lingering = len(self._lingering)
        return {"open": lingering, "waiting": 0, "lingering": lingering}

    def run(self) -> None:
        """Serve until the worker ends (main thread)."""
        self.begin()
        self.service.most_kept = 0  # no keep-alive: the next client waits
        if "h2" in self.cfg.http_protocols:
            self.log.warning(
                "HTTP/2 is not supported by the sync worker. Use gunicorn_expect.Worker or "
                "gunicorn_expect.GeventWorker for it. Falling back to HTTP/1.1 only."
            )
        self._lingering = LingerThread(self)
        poller = select.poll()
        names = {}
        for listener in self.sockets:
            listener.setblocking(False)
            names[listener.fileno()] = listener, listener.getsockname()
            poller.register(listener, select.POLLIN)
        poller.register(self.PIPE[0], select.POLLIN)
        try:
            while self.alive:
                self.tick()
                for fd, _ in poller.poll(1000):
                    if fd in names:
                        self._serve_waiting(*names[fd])
                    else:
                        drain(fd)
        except SystemExit:
            if not self._must_go:
                self._lingering.finish()
            raise
        self._lingering.finish()

    def _serve_waiting(self, listener: Any, name: Any) -> None:
        """Accept and serve the connections that wait at this listener, one after the other."""
        while self.alive:
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in BROKEN:
                    raise
                if error.errno in NO_ROOM and not self._lingering.make_room(
                    len(self._lingering) - 1
                ):
                    time.sleep(PAUSE)
                return
            self._lingering.make_room(self.cfg.worker_connections - 1)
            self._serve(Connection(self.service, sock, peer, name))
            self.tick()
            if len(self.sockets) > 1:
                return

    def _serve(self, conn: Connection) -> None:
        try:
            if conn.wait_for_head(self._settings.expect_head_timeout):
                conn.answer()
        except Exception:
            self.log.exception("Error on a connection, which is closed now")
        finally:
            self._lingering.linger(conn)


#: Its name in version 0.1.
Worker = ExpectSyncWorker


class LingerThread:
    """A loop only for lingering connections, in a thread that starts with the first of them."""

    def __init__(self, worker: ExpectSyncWorker) -> None:
        """Begin without a thread."""
        self._worker = worker
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._ending = False

    def linger(self, conn: Connection) -> None:
        """Close in order; on this thread, and only briefly, if no other thread can start."""
        if self._thread is None and not self._begin():
            conn.linger_here(self._worker.service.settings.expect_linger_idle)
        elif self._loop is not None:
            self._loop.adopt(conn)

    def __len__(self) -> int:
        """Count the connections that linger."""
        return 0 if self._loop is None else self._loop.lingering

    def make_room(self, most: int) -> bool:
        """Close the oldest until at most ``most`` linger; return whether one was closed."""
        return self._loop is not None and self._loop.make_room(most)

    def finish(self) -> None:
        """Wait briefly for the lingering connections, then close them all (main thread)."""
        worker = self._worker
        if self._thread is None or self._loop is None:
            return
        ends = min(
            worker.grace_ends(), time.monotonic() + worker.service.settings.expect_linger_idle
        )
        while self._loop.lingering and (left := ends - time.monotonic()) > 0:
            self._thread.join(min(0.05, left))
            worker.tick()
        self._ending = True
        self._loop.wake()
        # It closes what is left at once; half of the margin is enough for that.
        self._thread.join(base.EXIT_MARGIN / 2)

    def _begin(self) -> bool:
        worker = self._worker
        loop = Loop(worker.service, [], most=worker.cfg.worker_connections)
        thread = threading.Thread(target=self._run, args=(loop,), name="linger", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more of them
            loop.end()
            return False
        self._loop, self._thread = loop, thread
        return True

    def _run(self, loop: Loop) -> None:
        while not self._ending:
            loop.turn(60.0)
            time.sleep(GATHER)
        loop.end()
