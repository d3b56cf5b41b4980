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
    rest = half_close(sock)  # a process that the application has forked may have the socket, too
    if rest is not None:
        with contextlib.suppress(OSError):
            # If something has come all the same, the system would send a reset for it.
            rest.recv(65536)
        rest.close()


#: How a connection ended: the peer closed it, or had before we came to it; its time was up; it
#: made room for another one, or the worker stopped.
Outcome = Literal["closed", "timed_out", "dropped"]


class Linger:
    """The closing connections of a worker, which belong to one thread: the loop.

    Any thread that owns a connection may call `discard`, `stop_discarding` and `close`. The loop
    calls everything else, and nobody else touches what the loop watches.
    """

    def __init__(
        self,
        total: float,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        outcome: Callable[[Outcome], object] = lambda _: None,
    ) -> None:
        """Begin with none.

        Args:
            total: seconds that a closing connection is read at most.
            idle: seconds without a byte after which it is closed.
            clock: seconds.
            outcome: called at the end of each connection with what it was. It must not raise.

        """
        self._total = total
        self.idle = idle
        self._clock = clock
        self.outcome = outcome
        # Of any thread: each has its own sockets in the one, and what it hands over in the other.
        self._answering: dict[socket.socket, socket.socket] = {}
        self._handed_over: collections.deque[Callable[[], object]] = collections.deque()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._rung = False
        # Of the loop alone.
        self._selector = selectors.DefaultSelector()
        self._closing: dict[socket.socket, _Deadlines] = {}  # the oldest first
        self._due = math.inf
        # Never written to where the kernel drops the bytes, and so never in memory either.
        self._buffer = bytearray(DISCARD_SIZE)
        self.watch(self._bell, self._answer_the_bell)

    def __len__(self) -> int:
        """Count the closing connections (any thread)."""
        return len(self._closing)

    # While the answer is written (the thread that owns the connection).

    def discard(self, sock: socket.socket) -> None:
        """Throw away what comes on a connection whose answer is still being written.

        A client that will read its answer when it has sent its body would otherwise wait for us
        to read, and we for it.
        """
        try:
            # A copy: who writes the answer needs the socket as it is, TLS and all.
            copy = socket.fromfd(sock.fileno(), sock.family, sock.type)
        except (OSError, ValueError):
            return  # closed since, or the process may have no more files
        if not os.get_blocking(copy.fileno()):
            copy.setblocking(False)  # gevent's would wait
        self._answering[sock] = copy
        self.hand_over(functools.partial(self._watch_answering, copy))

    def stop_discarding(self, sock: socket.socket) -> None:
        """End what `discard` began: the answer is written."""
        copy = self._answering.pop(sock, None)
        if copy is not None:
            self.hand_over(functools.partial(self._forget, copy))

    # When it is written (likewise; it owns the connection no longer).

    def close(self, sock: socket.socket) -> None:
        """Close a connection that has its answer: at once if the peer has, else in order."""
        self.stop_discarding(sock)
        self._close(sock, self._clock() + self._total)

    def _close(self, sock: socket.socket, deadline: float) -> None:
        if not close_notify(sock):
            write = self._close_when_writable, selectors.EVENT_WRITE
            self.hand_over(functools.partial(self._add, sock, deadline, *write))
            return
        rest = half_close(sock)
        if rest is None:
            self.outcome("closed")
        elif self._discard(rest) == 0:
            rest.close()
            self.outcome("closed")
        else:
            self.hand_over(functools.partial(self._add, rest, deadline, self._discard_of_closing))

    def hand_over(self, call: Callable[[], object]) -> None:
        """Let the loop call this, after what it was given before."""
        self._handed_over.append(call)
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):  # nobody listens any more
                self._button.send(b".")

    # The loop.

    def fileno(self) -> int:
        """Return a file number to poll; it is readable when `turn` has something to do."""
        return self._selector.fileno()

    def watch(
        self,
        sock: socket.socket,
        ready: Callable[[socket.socket], object],
        event: int = selectors.EVENT_READ,
    ) -> None:
        """Let `turn` call this whenever there is something to read, or room to write.

        Raises:
            OSError: the system has no room for it.

        """
        self._selector.register(sock, event, ready)

    def turn(self, timeout: float = 0) -> None:
        """Discard what has come; wait so many seconds for something to come."""
        for key, _ in self._selector.select(None if timeout == math.inf else timeout):
            key.data(key.fileobj)

    def due_in(self) -> float:
        """Return the seconds until `expire` has something to do; math.inf: never."""
        return max(0.0, self._due - self._clock())

    def expire(self) -> None:
        """Close the connections whose time is up."""
        now = self._clock()
        if now < self._due:
            return
        for sock, deadlines in list(self._closing.items()):
            if now >= deadlines.total or (now >= deadlines.idle and _is_acknowledged(sock)):
                self._end(sock, "timed_out")
            elif now >= deadlines.idle:
                # "or until the server is reasonably certain that its own TCP stack has received
                # the client's acknowledgement" (RFC 9112 section 9.6): it is not yet.
                deadlines.idle = now + self.idle
        self._due = min((x.next for x in self._closing.values()), default=math.inf)

    def make_room(self, most: int) -> None:
        """Close the oldest connections until there are no more than so many."""
        while len(self._closing) > max(0, most):
            self._end(next(iter(self._closing)), "dropped")

    def finish(self, deadline: float, notify: Callable[[], object]) -> None:
        """Be the loop, until all are closed or the clock shows this; then close them all.

        Args:
            deadline: of the clock.
            notify: called at least every second.

        """
        self.take_over()
        while self._closing and (left := deadline - self._clock()) > 0:
            self.turn(min(1.0, left, self.due_in()))
            self.expire()
            notify()
        self.make_room(0)
        for sock in list(self._answering):
            self.stop_discarding(sock)
        self.take_over()

    def dispose(self) -> None:
        """Close the loop's own files, when nobody will be the loop any more."""
        self._selector.close()
        self._bell.close()
        self._button.close()

    def take_over(self) -> None:
        """Do what other threads have handed over; `turn` does, too."""
        if self._handed_over:
            self._answer_the_bell(self._bell)

    def _answer_the_bell(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):  # the one who rings has not come to it yet
            bell.recv(4096)
        self._rung = False  # before what was handed over is done: from now on it rings again
        while self._handed_over:
            self._handed_over.popleft()()

    def _add(
        self,
        sock: socket.socket,
        deadline: float,
        ready: Callable[[socket.socket], object],
        event: int = selectors.EVENT_READ,
    ) -> None:
        try:
            self.watch(sock, ready, event)
        except OSError:  # the system has no room for it
            sock.close()
            self.outcome("dropped")
            return
        deadlines = _Deadlines(total=deadline, idle=self._clock() + self.idle)
        self._closing[sock] = deadlines
        self._due = min(self._due, deadlines.next)

    def _watch_answering(self, copy: socket.socket) -> None:
        # Without room for it, the answer is written as to any other client.
        with contextlib.suppress(OSError):
            self.watch(copy, self._discard_of_answering)

    def _discard_of_answering(self, copy: socket.socket) -> None:
        if copy.fileno() == -1:
            return  # its answer has ended, since the selector saw it
        if self._discard(copy) == 0:
            self._selector.unregister(copy)  # the answer goes on

    def _close_when_writable(self, sock: socket.socket) -> None:
        deadlines = self._closing.pop(sock, None)
        if deadlines is not None:
            self._selector.unregister(sock)
            self._close(sock, deadlines.total)

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
            deadlines.idle = now + self.idle

    def _discard(self, sock: socket.socket) -> int | None:
        """Throw away what is here; return how much it was, 0 at the end, None for nothing yet."""
        try:
            return sock.recv_into(self._buffer, DISCARD_SIZE, _DISCARD | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return 0  # reset

    def _end(self, sock: socket.socket, outcome: Outcome) -> None:
        del self._closing[sock]
        self._forget(sock)
        self.outcome(outcome)

    def _forget(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError):  # not watched, or no longer
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
        self._stopping = False
        self._lock = threading.Lock()  # there is one loop, whoever begins it

    def __len__(self) -> int:
        """Count the closing connections."""
        return len(self._linger)

    def discard(self, sock: socket.socket) -> None:
        """Throw away what comes on a connection whose answer is still being written."""
        if self._begin():
            self._linger.discard(sock)

    def close(self, sock: socket.socket) -> None:
        """Close a connection that has its answer: at once if the peer has, else in order.

        It waits only if the system has no thread left, and no longer than the idle time.
        """
        begun = self._begin()
        self._linger.close(sock)
        if not begun:
            self._linger.finish(time.monotonic() + self._linger.idle, lambda: None)

    def make_room(self, most: int) -> None:
        """Let the loop close the oldest connections until there are no more than so many."""
        if len(self._linger) > max(0, most):
            self._linger.hand_over(functools.partial(self._linger.make_room, most))

    def finish(self, deadline: float, notify: Callable[[], object]) -> None:
        """Wait until all are closed or `time.monotonic` shows this; notify every second."""
        if self._thread is None:
            return
        self._linger.hand_over(self._stop)
        while self._thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self._thread.join(min(1.0, left))
            notify()
        for _ in range(len(self._linger)):
            self._linger.outcome("dropped")  # they end with the process

    def dispose(self) -> None:
        """Close the loop's own files, unless it goes on until the process ends."""
        if self._thread is None or not self._thread.is_alive():
            self._linger.dispose()

    def _stop(self) -> None:
        self._stopping = True

    def _begin(self) -> bool:
        """Begin the loop, if it has not begun; return whether it has."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="linger", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no more of them
                    return False
                self._thread = thread
        return True

    def _run(self) -> None:
        while not self._stopping or len(self._linger):
            self._linger.turn(self._linger.due_in())
            self._linger.expire()
