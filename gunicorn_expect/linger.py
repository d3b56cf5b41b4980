"""Closing in order: the answer is heard by a client that is still sending.

"If a server performs an immediate close of a TCP connection, there is a significant risk that the
client will not be able to read the last HTTP response. [...] To avoid the TCP reset problem,
servers typically close a connection in stages. First, the server performs a half-close by closing
only the write side of the read/write connection. The server then continues to read from the
connection until it receives a corresponding close by the client" (RFC 9112 section 9.6).

Nothing here waits for one client: `Linger` is a set of closing connections that belongs to a loop.
A worker that has a loop watches it there; for the others `LingerThread` is the loop.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import functools
import math
import os
import selectors
import socket
import ssl
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most that is discarded at once: more than a Linux socket holds before it grows.
DISCARD_SIZE: Final = 1024 * 1024

#: Seconds of a stopping worker's grace that are left to the exit itself: gunicorn's master, which
#: has begun to count before, kills those that are late.
EXIT_MARGIN: Final = 0.2

#: On Linux TCP drops what it was asked for instead of copying it (tcp(7), MSG_TRUNC).
_DISCARD: Final = socket.MSG_TRUNC if sys.platform == "linux" else 0


def close_notify(sock: socket.socket) -> bool:
    """Tell a TLS peer that nothing follows; nothing on other sockets. It does not wait.

    "Servers MUST attempt to initiate an exchange of closure alerts with the client before closing
    the connection" (RFC 9112 section 9.8): without it, the peer can't tell the end of a response
    that has no length from one that was cut off.

    Returns:
        False if there is no room for it: it is to be told again when the socket is writable.

    """
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.settimeout(0)
            sock.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):
            pass  # a peer that is gone; or, which is the rule, one whose own alert did not come yet
    return True


def half_close(sock: socket.socket) -> socket.socket | None:
    """Say that nothing follows. It does not wait, and it raises nothing.

    Args:
        sock: the connection, behind its close_notify. It is closed for who has it.

    Returns:
        What is left of it, to be read and thrown away, non-blocking and without TLS: what comes
        from now on need not be understood. None if it is closed: the peer had gone already.

    """
    try:
        sock.shutdown(socket.SHUT_WR)
        rest = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    except OSError:
        sock.close()
        return None
    rest.setblocking(False)
    return rest


def close(sock: socket.socket) -> None:
    """Close a connection on which nothing should be on its way. It does not wait."""
    close_notify(sock)
    with contextlib.suppress(OSError):
        # If something has come all the same, the system would send a reset for it.
        sock.settimeout(0)
        sock.recv(65536)
    sock.close()


#: How a connection ended: the peer closed it, or had before we came to it; its time was up; it
#: made room for another one, or the worker stopped.
Outcome = Literal["closed", "timed_out", "dropped"]


class Linger:
    """The closing connections of a worker. Every thread may close one; one thread is the loop."""

    def __init__(
        self,
        total: float,
        idle: float,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        outcome: Callable[[Outcome], object] = lambda _: None,
    ) -> None:
        """Begin with none.

        Args:
            total: seconds that a closing connection is read at most.
            idle: seconds without a byte after which it is closed.
            connections: how many there may be; one more, and the oldest is closed.
            clock: seconds.
            outcome: called at the end of each connection with what it was. It must not raise.

        """
        self._total = total
        self._idle = idle
        self._connections = connections
        self._clock = clock
        self.outcome = outcome
        # Of what is closing, and when that is due.
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._answering: dict[socket.socket, socket.socket] = {}
        self._closing: dict[socket.socket, _Deadlines] = {}  # the oldest first
        self._due = math.inf
        # Never written to where the kernel drops the bytes, and so never in memory either.
        self._buffer = bytearray(DISCARD_SIZE)

    def __len__(self) -> int:
        """Count the closing connections."""
        return len(self._closing)

    # While the answer is written.

    def discard(self, sock: socket.socket) -> None:
        """Throw away what comes on a connection whose answer is still being written.

        A client that will read its answer when it has sent its body would otherwise wait for us
        to read, and we for it.
        """
        with contextlib.suppress(OSError, ValueError):  # closed since
            # A copy: who writes the answer needs the socket as it is, TLS and all.
            copy = socket.fromfd(sock.fileno(), sock.family, sock.type)
            if not os.get_blocking(copy.fileno()):
                copy.setblocking(False)  # gevent's would wait
            self._answering[sock] = copy
            self.watch(copy, self._discard_of_answering)

    def stop_discarding(self, sock: socket.socket) -> None:
        """End what `discard` began: the answer is written."""
        copy = self._answering.pop(sock, None)
        if copy is not None:
            self._forget(copy)

    # When it is written.

    def close(self, sock: socket.socket) -> None:
        """Close a connection that has its answer: at once if the peer has, else in order."""
        self.stop_discarding(sock)
        if not close_notify(sock):
            self._add(sock, self._close_when_writable, selectors.EVENT_WRITE)
            return
        self.keep(half_close(sock))

    def keep(self, rest: socket.socket | None) -> None:
        """Read on what `half_close` has left."""
        if rest is None:
            self.outcome("closed")
        elif self._discard(rest) == 0:
            rest.close()
            self.outcome("closed")
        else:
            self._add(rest, self._discard_of_closing)

    def _add(
        self,
        sock: socket.socket,
        ready: Callable[[socket.socket], object],
        event: int = selectors.EVENT_READ,
    ) -> None:
        if not self._connections:
            sock.close()
            self.outcome("dropped")
            return
        with self._lock:
            while len(self._closing) >= self._connections:
                self._end(next(iter(self._closing)), "dropped")
            now = self._clock()
            deadlines = _Deadlines(total=now + self._total, idle=now + self._idle)
            self._closing[sock] = deadlines
            self._due = min(self._due, deadlines.next)
            self.watch(sock, ready, event)

    # The loop.

    def fileno(self) -> int:
        """Give a file number to poll; it is readable when `turn` has something to do."""
        return self._selector.fileno()

    def watch(
        self,
        sock: socket.socket,
        ready: Callable[[socket.socket], object],
        event: int = selectors.EVENT_READ,
    ) -> None:
        """Let `turn` call this whenever there is something to read, or room to write."""
        self._selector.register(sock, event, ready)

    def turn(self, timeout: float = 0) -> None:
        """Discard what has come; wait so many seconds for something to come."""
        for key, _ in self._selector.select(None if timeout == math.inf else timeout):
            key.data(key.fileobj)

    def due_in(self) -> float:
        """Give the seconds until `expire` has something to do; math.inf: never."""
        return max(0.0, self._due - self._clock())

    def expire(self) -> None:
        """Close the connections whose time is up."""
        now = self._clock()
        if now < self._due:
            return
        with self._lock:
            for sock, deadlines in list(self._closing.items()):
                if now >= deadlines.total or (now >= deadlines.idle and _is_acknowledged(sock)):
                    self._end(sock, "timed_out")
                elif now >= deadlines.idle:
                    # "or until the server is reasonably certain that its own TCP stack has received
                    # the client's acknowledgement" (RFC 9112 section 9.6): it is not yet.
                    deadlines.idle = now + self._idle
            self._due = min((x.next for x in self._closing.values()), default=math.inf)

    def finish(self, deadline: float, notify: Callable[[], object]) -> None:
        """Be the loop, until all are closed or the clock shows this; then close them all.

        Args:
            deadline: of the clock.
            notify: called at least every second.

        """
        while self._closing and (left := deadline - self._clock()) > 0:
            self.turn(min(1.0, left, self.due_in()))
            self.expire()
            notify()
        for sock in list(self._closing):
            self._end(sock, "dropped")
        for sock in list(self._answering):
            self.stop_discarding(sock)

    def _discard_of_answering(self, copy: socket.socket) -> None:
        if copy.fileno() == -1:
            return  # its answer has ended, since the selector saw it
        if self._discard(copy) == 0:
            self._selector.unregister(copy)  # the answer goes on

    def _close_when_writable(self, sock: socket.socket) -> None:
        with self._lock:
            if sock not in self._closing:
                return
            del self._closing[sock]
            self._selector.unregister(sock)
        self.close(sock)

    def _discard_of_closing(self, sock: socket.socket) -> None:
        deadlines = self._closing.get(sock)
        if deadlines is None:
            return  # made room for another one, since the selector saw it
        size = self._discard(sock)
        now = self._clock()
        if size == 0:
            self._end(sock, "closed")
        elif now >= deadlines.total:
            self._end(sock, "timed_out")
        elif size:
            deadlines.idle = now + self._idle

    def _discard(self, sock: socket.socket) -> int | None:
        """Throw away what is here; tell how much it was, 0 at the end, None for nothing yet."""
        try:
            return sock.recv_into(self._buffer, DISCARD_SIZE, _DISCARD | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return 0  # reset

    def _end(self, sock: socket.socket, outcome: Outcome) -> None:
        with self._lock:
            if self._closing.pop(sock, None) is None:
                return  # another thread has ended it
            self._forget(sock)
        self.outcome(outcome)

    def _forget(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()


@dataclasses.dataclass
class _Deadlines:
    """When a closing connection is late, by the clock of its linger."""

    total: float
    idle: float

    @property
    def next(self) -> float:
        return min(self.total, self.idle)


def _is_acknowledged(sock: socket.socket) -> bool:
    """Tell whether the peer's system has all that was sent, as far as this system can tell.

    If not, it is thrown away when the socket is closed and the peer sends something more.
    """
    if not hasattr(termios, "TIOCOUTQ"):
        return True
    try:
        unsent = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return True
    return not int.from_bytes(unsent, sys.byteorder)


class LingerThread:
    """A `Linger` with a loop of its own, for workers that have none; for every thread.

    The loop is a daemon thread that begins with the first connection that needs it. Where gevent
    has patched the standard library it is a greenlet.
    """

    def __init__(self, linger: Linger) -> None:
        """Be the loop of this linger."""
        self._linger = linger
        self._thread: threading.Thread | None = None
        self._calls: collections.deque[Callable[[], object]] = collections.deque()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._stopping = False
        self._lock = threading.Lock()  # there is one loop, whoever begins it

    def discard(self, sock: socket.socket) -> None:
        """Throw away what comes on a connection whose answer is still being written."""
        self._call(functools.partial(self._linger.discard, sock))

    def close(self, sock: socket.socket) -> None:
        """Close a connection that has its answer: at once if the peer has, else in order."""
        self._call(functools.partial(self._linger.stop_discarding, sock))
        if not close_notify(sock):
            self._call(functools.partial(self._linger.close, sock))
            return
        self._call(functools.partial(self._linger.keep, half_close(sock)))

    def finish(self, deadline: float, notify: Callable[[], object]) -> None:
        """Wait until all are closed or `time.monotonic` shows this; notify every second."""
        if self._thread is None:
            return
        self._call(self._stop)
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self._thread.join(min(1.0, left))
            notify()
        for _ in range(len(self._linger)):
            self._linger.outcome("dropped")  # they end with the process

    def _stop(self) -> None:
        self._stopping = True

    def _call(self, function: Callable[[], object]) -> None:
        """Let the loop call this."""
        self._calls.append(function)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="linger", daemon=True)
                self._thread.start()
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._button.send(b".")

    def _run(self) -> None:
        self._linger.watch(self._bell, self._answer_the_bell)
        self._answer_the_bell(self._bell)
        while not self._stopping or len(self._linger):
            self._linger.turn(self._linger.due_in())
            self._linger.expire()

    def _answer_the_bell(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            bell.recv(4096)
        while self._calls:
            self._calls.popleft()()
