"""The loop of the thread worker: accept, heads, keep-alive, inline policies, lingering.

It owns every connection that no thread answers. A thread that has answered hands its connection
back by re-arming its one-shot registration, which is the last thing it does with it; `keep` and
`linger` are called by threads, everything else by the loop.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.connection import Connection, Wants
from gunicorn_expect.transport import DISCARD_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gunicorn_expect.answer import Service
    from gunicorn_expect.settings import Settings

#: Connections accepted in one turn, so that those that are open have theirs.
ACCEPTS: Final = 16

#: Events that kqueue reports at once; epoll has such a number of its own.
EVENTS: Final = 1024

#: What the system says when it has no room for one more connection.
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)

#: What `accept` says when the listening socket is no longer one: there is nothing to go on with.
BROKEN: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

#: Seconds without `accept` after that, if nothing could be closed. The system keeps those who
#: connect.
PAUSE: Final = 0.1


class Epoll:
    """Linux's epoll, with one-shot registrations: a ready connection is reported once."""

    def __init__(self) -> None:
        """Begin without registrations."""
        self._epoll = select.epoll()

    def watch(self, fd: int) -> None:
        """Report this whenever it is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def add(self, fd: int, wants: Wants) -> None:
        """Report this once. OSError: the system has no room for it."""
        self._epoll.register(fd, _EPOLL[wants])

    def rearm(self, fd: int, wants: Wants) -> None:
        """Report this once more (any thread)."""
        self._epoll.modify(fd, _EPOLL[wants])

    def forget(self, fd: int) -> None:
        """Report this no more."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def wait(self, timeout: float) -> Iterator[int]:
        """Wait up to so many seconds; return the file numbers that are ready."""
        return (fd for fd, _ in self._epoll.poll(timeout))

    def close(self) -> None:
        """Close it."""
        self._epoll.close()


_EPOLL: Final = (
    {
        Wants.READ: select.EPOLLIN | select.EPOLLONESHOT,
        Wants.WRITE: select.EPOLLOUT | select.EPOLLONESHOT,
    }
    if hasattr(select, "EPOLLONESHOT")
    else {}
)


class Kqueue:
    """kqueue, where there is no epoll: the same verbs. Not tried on the systems that have it."""

    def __init__(self) -> None:
        """Begin without registrations."""
        self._kqueue: Any = select.kqueue()  # type: ignore[attr-defined,unused-ignore]

    def watch(self, fd: int) -> None:
        """Report this whenever it is readable."""
        self._change(fd, "KQ_FILTER_READ", "KQ_EV_ADD")

    def add(self, fd: int, wants: Wants) -> None:
        """Report this once. OSError: the system has no room for it."""
        kind = "KQ_FILTER_READ" if wants is Wants.READ else "KQ_FILTER_WRITE"
        self._change(fd, kind, "KQ_EV_ADD", "KQ_EV_ONESHOT")

    rearm = add

    def forget(self, fd: int) -> None:
        """Report this no more."""
        with contextlib.suppress(OSError):
            self._change(fd, "KQ_FILTER_READ", "KQ_EV_DELETE")

    def wait(self, timeout: float) -> Iterator[int]:
        """Wait up to so many seconds; return the file numbers that are ready."""
        return (event.ident for event in self._kqueue.control(None, EVENTS, timeout))

    def close(self) -> None:
        """Close it."""
        self._kqueue.close()

    def _change(self, fd: int, kind: str, *flags: str) -> None:
        kevent: Any = select.kevent  # type: ignore[attr-defined,unused-ignore]
        number = sum(getattr(select, flag) for flag in flags)
        self._kqueue.control([kevent(fd, getattr(select, kind), number)], 0)


class Deadlines:
    """Connections that wait in the loop, and until when: the first to be due comes first.

    Each waits equally long from the moment it is put here, so that they are due in that order.
    """

    def __init__(self, seconds: float) -> None:
        """Let each wait so long; 0: for ever."""
        self.seconds = seconds or math.inf
        self._when: OrderedDict[Connection, float] = OrderedDict()

    def __len__(self) -> int:
        """Count them."""
        return len(self._when)

    def put(self, conn: Connection) -> None:
        """Begin to wait, or begin again."""
        self._when[conn] = time.monotonic() + self.seconds
        self._when.move_to_end(conn)

    def take(self, conn: Connection) -> bool:
        """Wait no more; return whether it did."""
        return self._when.pop(conn, None) is not None

    def first(self) -> tuple[Connection, float] | None:
        """Return the first that is due, and when."""
        for first in self._when.items():
            return first
        return None

    def __contains__(self, conn: Connection) -> bool:
        """Return whether it waits here."""
        return conn in self._when

    def shorten(self, seconds: float, which: Callable[[Connection], bool] = lambda _: True) -> None:
        """Let none of these wait longer than so many seconds, from now on: the worker stops."""
        self.seconds = min(self.seconds, seconds)
        latest = time.monotonic() + seconds
        self._when = OrderedDict(
            sorted(
                (
                    (conn, min(when, latest) if which(conn) else when)
                    for conn, when in self._when.items()
                ),
                key=lambda item: item[1],
            )
        )


def _nobody(*_: Any) -> Any:
    """Stand in for what a loop without listeners never calls."""
    raise NotImplementedError


class Loop:
    """The connections of a thread worker, while no thread answers them."""

    def __init__(
        self,
        service: Service,
        listeners: list[Any],
        settings: Settings,
        connect: Callable[[Any, Any, Any], Connection] = _nobody,
        start: Callable[[Connection], object] = _nobody,
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
            settings: ours.
            connect: makes a connection of a socket, the client's address and the listener's.
            start: lets a thread answer a connection; the thread gives it back, or closes it.
            wakes: a file number that is readable when the loop is to look again, for a signal.
            most: connections that may be open.
            keepalive: seconds that a connection may wait for its next request; 0: none does.
            accepts: connections to accept in one turn.

        """
        self._service = service
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._names = {fd: sock.getsockname() for fd, sock in self._listeners.items()}
        self._connect = connect
        self._start = start
        self._most = most
        self._accepts = accepts
        self._poller: Epoll | Kqueue = Epoll() if hasattr(select, "epoll") else Kqueue()
        self._bell, self._button = os.pipe()
        for end in (self._bell, self._button):
            os.set_blocking(end, False)
        self._bells = (self._bell,) if wakes is None else (self._bell, wakes)
        for bell in self._bells:
            self._poller.watch(bell)
        # A thread adds to what follows and re-arms under this lock, so that the loop never lets a
        # connection go in between.
        self._lock = threading.Lock()
        self._connections: dict[int, Connection] = {}
        self._heads = Deadlines(settings.expect_head_timeout)
        self._kept = Deadlines(keepalive)
        self._lingering = Deadlines(settings.expect_linger)
        self._idle = Deadlines(settings.expect_linger_idle)
        self._all = (self._heads, self._kept, self._lingering, self._idle)
        self._accepting = self._stopping = False
        self._pause_ends = -math.inf  # when to accept again
        # Never written to where the kernel drops the bytes, and so never in memory either.
        self._buffer = bytearray(DISCARD_SIZE)
        self._failure: BaseException | None = None

    # A turn (loop).

    def turn(self, timeout: float) -> None:
        """Wait up to so many seconds for something to do, and do it.

        Raises:
            BaseException: what ended a thread, and is to end the worker. Not while it stops.

        """
        self._watch_listeners()
        for fd in self._poller.wait(min(timeout, self._due_in())):
            if fd in self._listeners:
                self._accept(fd)
            elif fd in self._bells:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif (conn := self._connections.get(fd)) is not None:
                self._guard(conn, self._on_ready)
        self._expire()
        if self._failure is not None and not self._stopping:  # a worker ends once
            raise self._failure

    def _guard(self, conn: Connection, step: Callable[[Connection], object]) -> None:
        """Let what a connection's step raises end that connection, and nothing else."""
        try:
            step(conn)
        except Exception:
            self._service.worker.log.exception("Error on a connection, which is closed now")
            self.close(conn, "dropped")

    def _on_ready(self, conn: Connection) -> None:
        if conn in self._lingering:
            self._discard(conn)
            return
        with self._lock:
            waited = self._kept.take(conn) or conn in self._heads
        if waited:
            self._advance(conn)

    def _advance(self, conn: Connection) -> None:
        """Take what came of a head, and wait for the rest; or have it answered."""
        wants = conn.advance()
        if wants not in (Wants.ANSWER, Wants.END):
            with self._lock:
                if conn not in self._heads:  # the time of a head is that of the whole of it
                    self._heads.put(conn)
                self._arm(conn, wants)
            return
        with self._lock:
            self._heads.take(conn)
        if wants is Wants.END or conn.answer_inline():
            self.linger(conn)
        else:
            self._start(conn)

    # Accepting (loop).

    def _watch_listeners(self) -> None:
        """Accept, unless there is no room or the worker stops."""
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
            conn = self._connect(sock, peer, self._names[fd])
            self._connections[conn.fd] = conn
            if len(self._connections) > self._most:
                self._make_room()
            self._guard(conn, self._advance)

    def _make_room(self) -> bool:
        """Close the connection that lingers longest; return whether there was one."""
        with self._lock:
            first = self._lingering.first()
        if first is not None:
            self.close(first[0], "dropped")
        return first is not None

    def _pause(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._pause_ends > 1:  # one line for each time that it is so, not for each try
            self._service.worker.log.warning(
                "Connections have to wait until the system has room: %s", error
            )
        self._pause_ends = now + PAUSE

    # What is due (loop).

    def _due_in(self) -> float:
        now = time.monotonic()
        with self._lock:
            due = min(
                (first[1] for waiting in self._all if (first := waiting.first()) is not None),
                default=math.inf,
            )
        if self._pause_ends > now:
            due = min(due, self._pause_ends)
        return max(0.0, due - now)

    def _expire(self) -> None:
        now = time.monotonic()
        while conn := self._due(self._heads, now):
            conn.send_late()
            self.linger(conn)
        while conn := self._due(self._kept, now):
            self.linger(conn)
        while conn := self._due(self._lingering, now):
            self.close(conn, "timed_out")
        while conn := self._due(self._idle, now):
            if conn.transport.is_acknowledged():
                self.close(conn, "timed_out")
            else:
                # "or until the server is reasonably certain that its own TCP stack has received the
                # client's acknowledgement" (RFC 9112 section 9.6): it is not yet.
                self._idle.put(conn)

    def _due(self, waiting: Deadlines, now: float) -> Connection | None:
        with self._lock:
            first = waiting.first()
            if first is None or first[1] > now:
                return None
            waiting.take(first[0])
            return first[0]

    # Keep, linger and close (the owner of the connection: a thread, or the loop).

    def keep(self, conn: Connection) -> None:
        """Wait for the next request."""
        with self._lock:
            (self._heads if conn.has_begun else self._kept).put(conn)
            self._arm(conn, Wants.READ)

    def linger(self, conn: Connection) -> None:
        """Close in order: half-close, then discard what still arrives until the client closes."""
        try:
            told = conn.transport.half_close()
            gone = told and conn.transport.discard(self._buffer) == 0
        except OSError:
            gone = True
        if gone:
            self.close(conn, "closed")
            return
        with self._lock:
            self._lingering.put(conn)
            self._idle.put(conn)
            try:
                self._arm(conn, Wants.READ if told else Wants.WRITE)
                return
            except OSError:
                pass  # the system has no room for it
        self.close(conn, "dropped")

    def adopt(self, conn: Connection) -> None:
        """Take a connection that only lingers, of a worker that has answered it (any thread)."""
        with self._lock:
            self._connections[conn.fd] = conn
        self.linger(conn)
        self.wake()  # what is due may be due sooner

    def make_room(self, most: int) -> bool:
        """Close the oldest until no more than so many linger; return whether one was closed."""
        closed = False
        while len(self._lingering) > max(0, most) and self._make_room():
            closed = True
        return closed

    def close(self, conn: Connection, outcome: str) -> None:
        """Close now."""
        with self._lock:
            for waiting in self._all:
                waiting.take(conn)
            self._connections.pop(conn.fd, None)
        conn.transport.close()
        self._service.counters.lingered(outcome)
        if not self._accepting:
            self.wake()

    def fail(self, conn: Connection, error: BaseException) -> None:
        """End the worker by what a thread has raised (thread)."""
        self._failure = error
        self.close(conn, "dropped")
        self.wake()

    def wake(self) -> None:
        """Let the loop look again (any thread)."""
        with contextlib.suppress(OSError):  # it will look anyway, or has ended
            os.write(self._button, b".")

    def _arm(self, conn: Connection, wants: Wants) -> None:
        if conn.is_registered:
            self._poller.rearm(conn.fd, wants)
        else:
            conn.is_registered = True
            self._poller.add(conn.fd, wants)

    def _discard(self, conn: Connection) -> None:
        if not conn.transport.ended:
            raise AssertionError("a lingering connection has not said that it ends")
        told = conn.transport.told or conn.transport.half_close()
        size = conn.transport.discard(self._buffer) if told else None
        if size == 0:
            self.close(conn, "closed")
            return
        if size:
            self._idle.put(conn)
        self._arm(conn, Wants.READ if told else Wants.WRITE)

    # The end of the worker (loop).

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def waiting(self) -> int:
        """How many connections wait for the head of a request."""
        heads, kept, *_ = self._all
        return len(heads) + len(kept)

    @property
    def busy(self) -> bool:
        """Whether connections are open that do not only linger."""
        return len(self._connections) > len(self._lingering)

    @property
    def lingering(self) -> int:
        """How many connections linger."""
        return len(self._lingering)

    @property
    def kept(self) -> int:
        """How many connections wait for their next request."""
        return len(self._kept)

    def stop(self, seconds: float) -> None:
        """Accept no more; wait so long at most for requests of which nothing has come."""
        self._stopping = True
        with self._lock:
            self._kept.shorten(seconds)
            self._heads.shorten(seconds, lambda conn: not conn.has_begun)

    def end(self) -> None:
        """Close all that is left."""
        for conn in list(self._connections.values()):
            self.close(conn, "dropped")
        self._poller.close()
        os.close(self._bell)
        # A thread that is late must not write to what has this number next.
        button, self._button = self._button, -1
        os.close(button)
