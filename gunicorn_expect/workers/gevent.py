"""The worker on gevent: ``gunicorn -k gunicorn_expect.GeventWorker``."""

from __future__ import annotations

import collections
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.answer import OnExit
from gunicorn_expect.connection import Connection, Wants
from gunicorn_expect.transport import READ, WRITE, closed, wait_by_poll
from gunicorn_expect.workers import base
from gunicorn_expect.workers.loop import NO_ROOM

try:
    from gunicorn.workers import ggevent  # first: it says which gevent it needs

    import gevent  # type: ignore[import-untyped]  # isort: skip
    from gevent import socket as gevent_socket
    from gevent.lock import Semaphore  # type: ignore[import-untyped]
    from gevent.pool import Pool  # type: ignore[import-untyped]
    from gevent.server import StreamServer  # type: ignore[import-untyped]
except (ImportError, RuntimeError) as error:
    raise RuntimeError(
        f"gunicorn_expect.GeventWorker needs the extra gunicorn-expect[gevent]: {error}"
    ) from error

#: The events of a libev watcher.
_OF_LIBEV: Final = {READ: 1, WRITE: 2}

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable


class Waiter:
    """Waits for one connection, as `wait_by_poll` does, while other greenlets run.

    It keeps its watcher: gevent's own poll makes an event, a set and a watcher for each wait, and
    libev registers each watcher with the kernel. It is a context manager, which drops the watcher.
    """

    __slots__ = ("_hub", "_watcher")

    def __init__(self) -> None:
        """Begin without a watcher."""
        self._hub = gevent.get_hub()
        self._watcher: Any = None

    def __enter__(self) -> Waiter:
        """Return itself."""
        return self

    def wait(self, sock: socket.socket, events: int, timeout: float | None) -> int:
        """Wait until the socket is ready for one of these events; return which, 0 on timeout."""
        at_once = timeout is not None and timeout <= 0
        if events not in _OF_LIBEV or at_once or sock.fileno() < 0 or self._is_elsewhere():
            return wait_by_poll(sock, events, timeout)
        watcher = self._watcher
        if watcher is None:
            watcher = self._watcher = self._hub.loop.io(sock.fileno(), _OF_LIBEV[events])
        elif watcher.callback is not None:  # a greenlet of the application waits, too
            return wait_by_poll(sock, events, timeout)
        watcher.events = _OF_LIBEV[events]
        try:
            gevent_socket.wait(watcher, timeout)
        except TimeoutError:
            return 0
        return events

    def __exit__(self, *error: object) -> None:
        """Drop the watcher of a closed connection; a greenlet that still waits gets an error."""
        if self._watcher is not None:
            self._hub.cancel_wait(self._watcher, closed(), close_watcher=True)

    def _is_elsewhere(self) -> bool:
        """Return whether this is a thread that the application started: it has its own hub."""
        return gevent.get_hub() is not self._hub


class Server(StreamServer):  # type: ignore[misc]  # gevent has no types
    """gevent's server; when the system has no room for a connection, it closes a lingering one."""

    make_room: Callable[[], bool]

    def do_read(self) -> Any:
        """Accept a connection; None: there is none now, and gevent calls this again."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno in NO_ROOM and self.make_room():
                return None
            raise


class ExpectGeventWorker(base.BaseWorker, ggevent.GeventWorker):
    """Replaces gunicorn's gevent worker.

    Each connection has one greenlet, until it is closed.
    """

    hooks = (
        "gunicorn.workers.ggevent:GeventWorker.patch",
        "gunicorn.workers.ggevent:GeventWorker.is_already_handled",
    )
    on_exit = OnExit.CLOSE
    catches = (BaseException,)  # gevent.Timeout is one
    passes = (KeyboardInterrupt, gevent.GreenletExit)
    is_handled = ggevent.GeventWorker.is_already_handled

    def connections(self) -> dict[str, int]:
        """Return how many connections are open, wait for a request's head, and linger."""
        opened, lingering = sum(map(len, self._pools)), len(self._lingering)
        waiting = opened - lingering - self._answering
        return {"open": opened, "waiting": waiting, "lingering": lingering}

    def run(self) -> None:
        """Serve until the worker ends (main greenlet)."""
        self.begin()
        self._lingering: collections.OrderedDict[Connection, Any] = collections.OrderedDict()
        self._pools: list[Any] = []
        self._answering = 0
        servers = []
        for listener in self.sockets:
            listener.setblocking(True)
            # One more than may be served: a new connection waits until another ends or is dropped.
            pool = Pool(self.cfg.worker_connections + 1)
            self._pools.append(pool)
            places = Semaphore(self.cfg.worker_connections)
            serve = partial(self._serve, pool, places, listener.getsockname())
            server = Server(listener, handle=serve, spawn=pool)
            server.make_room = self._drop_oldest
            if self.cfg.workers > 1:
                server.max_accept = 1
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            gevent.sleep(1.0)
        for server in servers:
            server.close()
        self._finish([server.pool for server in servers])

    def _finish(self, pools: list[Any]) -> None:
        """Wait for the requests that have begun, within the graceful timeout (main greenlet)."""
        ends = self.grace_ends()
        only_lingers = False
        while time.monotonic() < ends:
            if not only_lingers and sum(map(len, pools)) <= len(self._lingering):
                only_lingers = True
                # Linger only briefly: gunicorn boots the next worker when this one has ended.
                ends = min(ends, time.monotonic() + self._settings.expect_linger_idle)
            if only_lingers and not self._lingering:
                return
            self.notify()
            gevent.sleep(min(0.1, max(0.0, ends - time.monotonic())))
        for pool in pools:
            pool.kill(block=False)
        gevent.sleep(0)  # they close their connections

    def _serve(self, pool: Any, places: Any, name: Any, client: socket.socket, peer: Any) -> None:
        """Serve a connection from its accept to its end (greenlet of the pool)."""
        client.settimeout(0)  # gevent's sockets would wait by themselves
        if places.locked():
            self._drop_oldest(pool)
        with places, Waiter() as waiter:
            # A method, not a callable object: calling that uses C stack, which greenlets copy.
            conn = Connection(self.service, client, peer, name, wait=waiter.wait)
            try:
                self._answer(conn)
            except Exception:
                self.log.exception("Error on a connection, which is closed now")
            finally:
                self._linger(pool, conn)

    def _answer(self, conn: Connection) -> None:
        settings = self._settings
        if not conn.wait_for_head(settings.expect_head_timeout):
            return
        while (wants := self._answer_one(conn)) is not Wants.END:
            if wants is Wants.ANSWER:
                continue
            keepalive = (
                min(self.cfg.keepalive, base.STOPPING) if not self.alive else self.cfg.keepalive
            )
            if wants is Wants.REQUEST and not conn.wait_for_first_byte(keepalive):
                return
            if not conn.wait_for_head(settings.expect_head_timeout):
                return

    def _answer_one(self, conn: Connection) -> Wants:
        self._answering += 1
        try:
            return conn.answer()
        finally:
            self._answering -= 1

    def _drop_oldest(self, pool: Any = None) -> bool:
        """Close this pool's longest lingering connection; return whether there was one."""
        for conn, greenlet in self._lingering.items():
            if pool is None or greenlet in pool:
                del self._lingering[conn]
                greenlet.kill(block=False)
                return True
        return False

    def _linger(self, pool: Any, conn: Connection) -> None:
        self._lingering[conn] = gevent.getcurrent()
        try:
            if pool.full():  # a new connection waits
                self._drop_oldest(pool)
            conn.linger_here(self._settings.expect_linger)
        finally:
            self._lingering.pop(conn, None)
