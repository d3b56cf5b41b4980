"""The loop of the thread worker: accept, heads, keep-alive, inline policies, lingering.

It owns every connection that no thread answers. A thread that has answered hands its connection
back by re-arming its one-shot registration, which is the last thing it does with it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import threading
import time
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.connection import Connection, Wants

if TYPE_CHECKING:
    from collections.abc import Callable

    from gunicorn_expect.answer import Service
    from gunicorn_expect.workers.pool import Pool

#: Maximum connections accepted in one turn, so that the open ones are not kept waiting.
ACCEPTS: Final = 16

#: Maximum events that kqueue reports at once; epoll has a default for it.
EVENTS: Final = 1024

#: Maximum events for which a step is done before the next step: more of them would fit into the
#: caches, but the first client would wait for the last one.
BATCH: Final = 16

#: The errors of a system that has no room for another connection.
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)

#: The errors of `accept` on a socket that no longer listens: the worker can't go on.
BROKEN: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

#: Seconds without `accept` after a `NO_ROOM`, if no connection could be closed. New connections
#: wait in the kernel's backlog meanwhile.
PAUSE: Final = 0.1


def drain(fd: int) -> None:
    """Read the bytes that woke a worker."""
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)


class Epoll:
    """Linux's epoll, with one-shot registrations: a ready connection is reported once."""

    def __init__(self) -> None:
        """Begin without registrations."""
        self._epoll = select.epoll()

    def watch(self, fd: int) -> None:
        """Report this file number whenever it is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def add(self, fd: int, wants: Wants) -> None:
        """Report this file number once, when it is ready. OSError: the system has no room."""
        self._epoll.register(fd, _EPOLL[wants])

    def rearm(self, fd: int, wants: Wants) -> None:
        """Report this file number once more (any thread)."""
        self._epoll.modify(fd, _EPOLL[wants])

    def forget(self, fd: int) -> None:
        """Stop reporting this file number."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` seconds; return the ready file numbers and their events."""
        return self._epoll.poll(timeout)

    def close(self) -> None:
        """Close the poller."""
        self._epoll.close()


_EPOLL: Final = (
    {
        Wants.READ: select.EPOLLIN | select.EPOLLONESHOT,
        Wants.REQUEST: select.EPOLLIN | select.EPOLLONESHOT,
        Wants.WRITE: select.EPOLLOUT | select.EPOLLONESHOT,
    }
    if hasattr(select, "EPOLLONESHOT")
    else {}
)


class Kqueue:
    """kqueue, for systems without epoll: the same methods. Not tested on a real one."""

    def __init__(self) -> None:
        """Begin without registrations."""
        self._kqueue: Any = select.kqueue()  # type: ignore[attr-defined,unused-ignore]

    def watch(self, fd: int) -> None:
        """Report this file number whenever it is readable."""
        self._change(fd, "KQ_FILTER_READ", "KQ_EV_ADD")

    def add(self, fd: int, wants: Wants) -> None:
        """Report this file number once, when it is ready. OSError: the system has no room."""
        kind = "KQ_FILTER_WRITE" if wants is Wants.WRITE else "KQ_FILTER_READ"
        self._change(fd, kind, "KQ_EV_ADD", "KQ_EV_ONESHOT")

    rearm = add

    def forget(self, fd: int) -> None:
        """Stop reporting this file number."""
        with contextlib.suppress(OSError):
            self._change(fd, "KQ_FILTER_READ", "KQ_EV_DELETE")

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` seconds; return the ready file numbers and their events."""
        events = self._kqueue.control(None, EVENTS, timeout)
        return [(event.ident, event.filter) for event in events]

    def close(self) -> None:
        """Close the poller."""
        self._kqueue.close()

    def _change(self, fd: int, kind: str, *flags: str) -> None:
        kevent: Any = select.kevent  # type: ignore[attr-defined,unused-ignore]
        number = sum(getattr(select, flag) for flag in flags)
        self._kqueue.control([kevent(fd, getattr(select, kind), number)], 0)


class Deadlines(OrderedDict["Connection", float]):
    """Waiting connections and the times at which they expire, the earliest first.

    All wait equally long from `put` on, so they expire in the order in which they were put.
    """

    def __init__(self, seconds: float) -> None:
        """Set the timeout of each connection, in seconds; 0 disables it."""
        super().__init__()
        self.seconds = seconds or math.inf

    def put(self, conn: Connection) -> float:
        """Start or restart the timeout of a connection; return when it expires."""
        when = self[conn] = time.monotonic() + self.seconds
        self.move_to_end(conn)
        return when

    def first(self) -> tuple[Connection | None, float]:
        """Return the connection that expires first, and when; None, and never, if none waits."""
        for first in self.items():
            return first
        return None, math.inf

    def shorten(self, seconds: float, which: Callable[[Connection], bool] = lambda _: True) -> None:
        """Shorten the timeout of these connections to at most ``seconds`` from now."""
        self.seconds = min(self.seconds, seconds)
        latest = time.monotonic() + seconds
        due = [(conn, min(when, latest) if which(conn) else when) for conn, when in self.items()]
        self.clear()
        self.update(sorted(due, key=lambda item: item[1]))


class Loop:
    """The connections of a thread worker, while no thread answers them."""

    def __init__(
        self,
        service: Service,
        listeners: list[Any],
        pool: Pool | None = None,
        *,
        most: int,
        wakes: int | None = None,
        keepalive: float = 0,
        accepts: int = ACCEPTS,
    ) -> None:
        """Begin with no connections.

        Args:
            service: of the worker.
            listeners: gunicorn's listening sockets.
            pool: threads that answer; None: no connection is answered here.
            wakes: a file number that is readable when the loop is to look again, for a signal.
            most: connections that may be open.
            keepalive: seconds that a connection may wait for its next request; 0: none does.
            accepts: connections to accept in one turn.

        """
        settings = service.settings
        self._service = service
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._names = {fd: sock.getsockname() for fd, sock in self._listeners.items()}
        self._pool: Any = pool
        self._most = most
        self._accepts = accepts
        self._poller: Epoll | Kqueue = Epoll() if hasattr(select, "epoll") else Kqueue()
        self._bell, self._button = os.pipe()
        for end in (self._bell, self._button):
            os.set_blocking(end, False)
        self._bells = (self._bell,) if wakes is None else (self._bell, wakes)
        for bell in self._bells:
            self._poller.watch(bell)
        # A thread holds this lock while it changes the attributes below and re-arms a connection,
        # so that the loop can't close the connection in between.
        self._lock = threading.Lock()
        self._connections: dict[int, Connection] = {}
        self._heads = Deadlines(settings.expect_head_timeout)
        #: Idle connections, which wait for their next request.
        self.kept = Deadlines(keepalive)
        self._lingering = Deadlines(settings.expect_linger)
        self._idle = Deadlines(settings.expect_linger_idle)
        self._all = (self._heads, self.kept, self._lingering, self._idle)
        # What is left to do in this turn: for new connections, for those with a request (or an
        # error), and for those that were answered here.
        self._accepted: deque[Connection] = deque()
        self._requested: deque[Connection] = deque()
        self._answered: deque[Connection] = deque()
        self._due = math.inf  # when the first of these expires, or earlier
        self._sleeps_until = -math.inf  # when its wait ends; minus infinity: it is not waiting
        self._accepting = self._stopping = False
        self._pause_ends = -math.inf  # when to accept again
        self._failure: BaseException | None = None

    # A turn (loop).

    def run(self, tick: Callable[[], object]) -> None:
        """Run turns until the worker ends; call ``tick`` once a second. Raises as `turn`."""
        while self._service.worker.alive:
            tick()
            ends = time.monotonic() + 1.0
            while self._service.worker.alive and (left := ends - time.monotonic()) > 0:
                self.turn(left)

    def turn(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for something to do, and do it.

        Each step is done for some connections before the next step: so its code and its data stay
        in the caches of the CPU. That takes a third of the time off a refusal.

        Raises:
            BaseException: a thread has ended with it, so the worker ends, unless it stops already.

        """
        self._watch_listeners()
        with self._lock:
            now = time.monotonic()
            self._sleeps_until = min(now + timeout, self._due)
        ready = self._poller.wait(max(0.0, self._sleeps_until - now))
        self._sleeps_until = -math.inf
        while ready:
            batch, ready = ready[:BATCH], ready[BATCH:]
            self._do(batch)
        if time.monotonic() >= self._due:
            self._expire()
        if self._failure is not None and not self._stopping:  # a worker ends once
            raise self._failure

    def _do(self, batch: list[tuple[int, int]]) -> None:
        """Do what there is to do for these file numbers: each step for all of them."""
        for fd, _ in batch:
            if (conn := self._connections.get(fd)) is not None:
                try:
                    self._on_ready(conn)
                except Exception:  # noqa: BLE001
                    self._drop(conn)
            elif fd in self._listeners:
                self._accept(fd)
            elif fd in self._bells:
                drain(fd)
        steps: tuple[tuple[deque[Connection], Callable[[Connection], None]], ...] = (
            (self._accepted, self._advance),
            (self._requested, self._answer),
            (self._answered, self.linger),
        )
        for conns, step in steps:
            while conns:
                conn = conns.popleft()
                try:
                    step(conn)
                except Exception:  # noqa: BLE001
                    self._drop(conn)
                except BaseException as error:  # SystemExit: the worker ends by it
                    self._failure = error
                    self.close(conn, "dropped")
                    if self._service.is_exiting():
                        raise

    def _drop(self, conn: Connection) -> None:
        """Log the exception that is being handled, and close the one connection that raised it."""
        self._service.worker.log.exception("Error on a connection, which is closed now")
        self.close(conn, "dropped")

    def _on_ready(self, conn: Connection) -> None:
        if conn in self._lingering:
            self._discard(conn)
            return
        with self._lock:
            waited = self.kept.pop(conn, None) is not None or conn in self._heads
        if waited:
            self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Read what has arrived of a head; wait for the rest, or have the request answered."""
        wants = conn.advance()
        if wants is Wants.ANSWER or wants is Wants.END:
            with self._lock:
                self._heads.pop(conn, None)
            if wants is Wants.END:
                self.linger(conn, ended=True)
            else:
                self._requested.append(conn)
            return
        with self._lock:
            if conn not in self._heads:  # one timeout for the whole head
                self._look_at(self._heads.put(conn))
            self._arm(conn, wants)

    # Answering.

    def _answer(self, conn: Connection) -> None:
        """Answer a connection here if that needs no thread; otherwise let a thread do it (loop)."""
        asks = conn.error is not None or self._service.inline is not None
        if asks and conn.answer_inline():
            self._answered.append(conn)
        else:
            self._start(conn)

    def _start(self, conn: Connection) -> None:
        """Let a thread answer a connection (loop, or the thread that has it)."""
        try:
            self._pool.run(partial(self._serve, conn), conn.place)
        except RuntimeError as error:  # not one thread can be had
            self._service.worker.log.error("No thread can start, so a client gets 503: %s", error)
            conn.send_page(503, "Service Unavailable")
            self.linger(conn)

    def _serve(self, conn: Connection) -> None:
        """Answer a connection, and give it back to the loop (thread)."""
        try:
            while (wants := conn.answer()) is Wants.ANSWER:
                if self._pool.busy:
                    self._start(conn)
                    return
            if wants is Wants.END:
                self.linger(conn)
            else:
                self._keep(conn, wants)
        except Exception:  # noqa: BLE001
            self._drop(conn)
        except BaseException as error:  # noqa: BLE001  SystemExit: the worker ends by it
            self._failure = error
            self.close(conn, "dropped")
            self.wake()

    def _keep(self, conn: Connection, wants: Wants) -> None:
        """Wait for the next request, or for the rest of its head (thread)."""
        with self._lock:
            waiting = self.kept if wants is Wants.REQUEST else self._heads
            self._look_at(waiting.put(conn))
            self._arm(conn, wants)

    # Accepting (loop).

    def _watch_listeners(self) -> None:
        """Watch the listening sockets, unless there is no room or the worker stops."""
        now = time.monotonic()
        wanted = (
            not self._stopping
            and now >= self._pause_ends
            and (len(self._connections) < self._most or len(self._lingering) > 0)
        )
        if wanted == self._accepting:
            return
        try:
            for fd in self._listeners:
                self._poller.watch(fd) if wanted else self._poller.forget(fd)
            self._accepting = wanted
        except OSError as error:
            for fd in self._listeners:
                self._poller.forget(fd)
            self._pause(error)

    def _accept(self, fd: int) -> None:
        for _ in range(self._accepts):
            if len(self._connections) >= self._most and not len(self._lingering):
                return
            try:
                sock, peer = self._listeners[fd].accept()
            except OSError as error:
                if error.errno in BROKEN:
                    raise
                if error.errno in NO_ROOM and not self._make_room():
                    self._pause(error)
                return
            place = self._pool.place()
            lends = self._service.settings.expect_lend_threads
            waiting = place.waiting if lends else None
            conn = Connection(self._service, sock, peer, self._names[fd], waiting)
            conn.place = place
            self._connections[conn.fd] = conn
            if len(self._connections) > self._most:
                self._make_room()
            self._accepted.append(conn)

    def _make_room(self) -> bool:
        """Close the longest lingering connection; return whether there was one."""
        with self._lock:
            first, _ = self._lingering.first()
        if first is not None:
            self.close(first, "dropped")
        return first is not None

    def _pause(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._pause_ends > 1:  # one line for each shortage, not for each try
            self._service.worker.log.warning(
                "New connections wait until the system has room: %s", error
            )
        self._pause_ends = now + PAUSE
        with self._lock:
            self._look_at(self._pause_ends)

    # Timeouts (loop).

    def _expire(self) -> None:
        now = time.monotonic()
        while conn := self._take_due(self._heads, now):
            conn.send_late()
            self.linger(conn)
        while conn := self._take_due(self.kept, now):
            self.linger(conn)
        while conn := self._take_due(self._lingering, now):
            self.close(conn, "timed_out")
        while conn := self._take_due(self._idle, now):
            if conn.transport.is_acknowledged():
                self.close(conn, "timed_out")
            else:
                # "or until the server is reasonably certain that its own TCP stack has received the
                # client's acknowledgement" (RFC 9112 section 9.6): it is not yet.
                self._idle.put(conn)
        with self._lock:
            self._due = min(waiting.first()[1] for waiting in self._all)
            if self._pause_ends > now:
                self._due = min(self._due, self._pause_ends)

    def _take_due(self, waiting: Deadlines, now: float) -> Connection | None:
        with self._lock:
            conn, when = waiting.first()
            if conn is None or when > now:
                return None
            del waiting[conn]
            return conn

    # Linger and close (the owner of the connection: a thread, or the loop).

    def linger(self, conn: Connection, *, ended: bool = False) -> None:
        """Close in order: half-close, then discard what still arrives until the client closes.

        Args:
            conn: the connection.
            ended: the client has closed already, or half-closed.

        """
        try:
            told = conn.transport.half_close()
        except OSError:
            told = ended = True
        if told and ended:
            self.close(conn, "closed")
            return
        with self._lock:
            self._look_at(min(self._lingering.put(conn), self._idle.put(conn)))
            try:
                self._arm(conn, Wants.READ if told else Wants.WRITE)
                return
            except OSError:
                pass  # the system has no room for it
        self.close(conn, "dropped")

    def adopt(self, conn: Connection) -> None:
        """Take over a connection that another thread has answered, to linger (any thread)."""
        with self._lock:
            self._connections[conn.fd] = conn
        self.linger(conn)

    def make_room(self, most: int) -> bool:
        """Close the oldest until at most ``most`` linger; return whether one was closed."""
        closed = False
        while len(self._lingering) > max(0, most) and self._make_room():
            closed = True
        return closed

    def close(self, conn: Connection, outcome: str) -> None:
        """Close a connection now, and count the outcome."""
        with self._lock:
            for waiting in self._all:
                waiting.pop(conn, None)
            if self._connections.get(conn.fd) is conn:  # another one may have the number now
                del self._connections[conn.fd]
        conn.transport.close()
        if self._service.counters.enabled:
            self._service.counters.lingered(outcome)
        if not self._accepting:
            self.wake()

    def _look_at(self, when: float) -> None:
        """Look for expired connections at this time, or earlier (with the lock, any thread)."""
        self._due = min(self._due, when)
        if when < self._sleeps_until:
            self.wake()

    def wake(self) -> None:
        """End the wait of the loop (any thread)."""
        with contextlib.suppress(OSError):  # the loop wakes anyway, or has ended
            os.write(self._button, b".")

    def _arm(self, conn: Connection, wants: Wants) -> None:
        if conn.is_registered:
            self._poller.rearm(conn.fd, wants)
        else:
            conn.is_registered = True
            self._poller.add(conn.fd, wants)

    def _discard(self, conn: Connection) -> None:
        if not conn.transport.ended:
            raise AssertionError("a connection lingers that was not marked as ended")
        told = conn.transport.half_closed or conn.transport.half_close()
        size = conn.transport.discard(self._service.scrap) if told else None
        if size == 0:
            self.close(conn, "closed")
            return
        if size:
            self._idle.put(conn)  # its idle timeout starts again
        self._arm(conn, Wants.READ if told else Wants.WRITE)

    # The end of the worker (loop).

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        """How many connections wait for the head of a request."""
        return len(self._heads) + len(self.kept)

    @property
    def busy(self) -> bool:
        """Whether connections are open that do not only linger."""
        return len(self._connections) > len(self._lingering)

    @property
    def lingering(self) -> int:
        """How many connections linger."""
        return len(self._lingering)

    def stop(self, seconds: float) -> None:
        """Stop accepting; let idle connections wait at most ``seconds`` for one more request."""
        self._stopping = True
        with self._lock:
            self._due = -math.inf
            self.kept.shorten(seconds)
            self._heads.shorten(seconds, lambda conn: not conn.has_begun)

    def end(self) -> None:
        """Close all connections that are left."""
        for conn in list(self._connections.values()):
            self.close(conn, "dropped")
        self._poller.close()
        os.close(self._bell)
        # A late thread must not write to the next file that gets this number.
        button, self._button = self._button, -1
        os.close(button)
