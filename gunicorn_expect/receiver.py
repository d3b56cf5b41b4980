"""The receiving side of one connection while a body is read: what comes, or an error in time.

Two ways to receive:

* What is here is received without waiting; where that is too little, more is waited for by poll.
* A large body on a plain blocking socket is received by blocking calls that the kernel ends after
  `TICK` (SO_RCVTIMEO), each for as many bytes as are wanted (MSG_WAITALL): one call and no copy for
  a piece of it.

Neither touches the timeout of the socket while it waits: another thread may be writing the answer.
TLS is the exception, as its sockets have no other way to receive without waiting: there, who writes
while another one reads may find the answer cut off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from gunicorn_expect.errors import BodyError, BodyTimeout, ClientDisconnected

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from contextlib import AbstractContextManager

#: Seconds after which a read counts as one that waits for its client. Long beside the pauses of
#: an upload in a data centre; and a 64 KiB piece of one at 50 Mbit/s takes as long.
TICK: Final = 0.01

_TICK: Final = struct.pack("ll", 0, int(TICK * 1_000_000))  # struct timeval
_NO_TICK: Final = struct.pack("ll", 0, 0)

#: Bytes received at once where more may follow than is wanted: a default Linux receive buffer is
#: 128 KiB, and half of that is announced.
FILL_SIZE: Final = 65536

#: Bytes of a body after which it is a large one: one that is smaller, and here, gains less by ticks
#: than it costs to begin with them.
LARGE: Final = 4 * FILL_SIZE

#: The most that one call receives, so that nothing is allocated for bytes that may never come.
MOST: Final = 1024 * 1024

#: Bytes that a sender on this machine may be ahead. More of them lie in memory when they are read,
#: and not in a cache: a third of the speed. A round trip here takes some 50 us, so that this is
#: no limit below 10 GB/s; to a client elsewhere it would be one.
NEAR: Final = 512 * 1024

#: Seconds of waiting before the rate is looked at. Kestrel's grace, too.
RATE_GRACE: Final = 5.0


def _keep_near(sock: socket.socket) -> None:
    """Let a sender on this machine, such as a proxy, be no further ahead than the caches reach."""
    if not hasattr(socket, "TCP_WINDOW_CLAMP"):
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # gone
        if sock.getpeername()[0] == sock.getsockname()[0]:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR)


def _receive_blocking_now(sock: socket.socket, size: int) -> bytes:
    return sock.recv(size, socket.MSG_DONTWAIT)


def _receive_nonblocking_now(sock: socket.socket, size: int) -> bytes:
    return os.read(sock.fileno(), size)  # recv() of gevent's socket would wait


class Source:
    """Where the bytes of a body come from: those that were received first, then more of them."""

    def __init__(self, ahead: bytes = b"", *, timeout: float = 0) -> None:
        """Begin with what was received behind the head.

        Args:
            ahead: these bytes.
            timeout: seconds to wait for the next bytes; 0: for ever.

        """
        #: Seconds to wait for the next bytes, for now; 0: don't.
        self.patience = timeout or math.inf
        self._ahead = ahead
        self._taken = 0  # of what is ahead

    @property
    def ahead(self) -> bytes:
        """What was received and is not taken."""
        return self._ahead[self._taken :]

    @property
    def nothing_ahead(self) -> bool:
        """Whether all that was received is taken."""
        return self._taken == len(self._ahead)

    def here(self) -> int:
        """Count the bytes that can be received without waiting, as far as that can be known."""
        raise NotImplementedError

    def look(self, size: int) -> bool:
        """Tell, without waiting, whether bytes are here; receive up to ``size`` to know.

        A client that sends no more has none here. ClientDisconnected: the connection broke.
        """
        raise NotImplementedError

    def receive(self, size: int, *, whole: bool = False) -> bytes:
        """Receive up to ``size`` bytes, and at least one; ``b""``: the client sends no more.

        Args:
            size: 1 or more.
            whole: as many as possible are wanted; otherwise those that are here will do.

        Raises:
            BodyTimeout: it sends too little.
            ClientDisconnected: the connection broke.
            BlockingIOError: nothing is here, and ``patience`` is 0.

        """
        raise NotImplementedError

    def receive_into(self, view: memoryview) -> int:
        """Receive as many bytes as this has room for, or fewer; 0: the client sends no more.

        Raises: what `receive` does.
        """
        data = self.receive(len(view), whole=True)
        view[: len(data)] = data
        return len(data)

    def fill(self, size: int = FILL_SIZE) -> bool:
        """Receive more of what is ahead; False: the client sends no more. Raises as `receive`."""
        ahead = self.ahead
        self._ahead, self._taken = b"", 0
        try:
            ahead += (data := self.receive(size))
        finally:
            self._ahead = ahead
        return bool(data)

    def line(self, limit: int) -> bytes | None:
        """Take a line with its LF; None: the client sends no more. Raises as `receive`.

        Args:
            limit: bytes after which an unfinished line is given as it is.

        """
        while not (end := self._ahead.find(b"\n", self._taken) + 1):
            if len(self._ahead) - self._taken > limit:
                end = len(self._ahead)
                break
            if not self.fill():
                return None
        line = self._ahead[self._taken : end]
        self._taken = end
        return line

    def take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Take what this matches, if what is ahead begins with it."""
        match = pattern.match(self._ahead, self._taken)
        if match is not None:
            self._taken = match.end()
        return match


class Receiver(Source):
    """What comes on a connection: first what came with the head, then what the socket gives."""

    def __init__(
        self,
        sock: socket.socket,
        ahead: bytes = b"",
        *,
        timeout: float = 0,
        min_rate: float = 0,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Receive from this socket.

        Args:
            sock: the connection, TLS or not, blocking.
            ahead: bytes that were received behind the head.
            timeout: seconds to wait for the next bytes; 0: for ever.
            min_rate: bytes a second, averaged over the time waited; 0: any.
            waiting: entered while the client is waited for.

        """
        super().__init__(ahead, timeout=timeout)
        self._sock = sock
        self._min_rate = min_rate
        self._waiting = waiting
        self._waited = 0.0
        self._received = 0
        self._since = 0.0  # it was last heard of
        self._poller: select.poll | None = None
        self._ticks = False
        #: Bytes that are above the rate if they come whole within a tick: they need no clock.
        self._fast_enough = math.inf
        self._tls_lock = threading.Lock()  # of what comes by TLS, and of its end
        self._ended = False
        #: How to receive without waiting.
        self._receive_now: Callable[[socket.socket, int], bytes] = _receive_blocking_now
        #: Bytes received, after which the kernel is to wait for the others.
        self._tick_after: float = LARGE
        if isinstance(sock, ssl.SSLSocket):
            self._receive_now = self._receive_tls_now
            self._tick_after = math.inf
        elif not os.get_blocking(sock.fileno()):
            self._receive_now = _receive_nonblocking_now
            self._tick_after = math.inf

    def here(self) -> int:
        """Count them; what TLS holds back can't be known."""
        here = len(self._ahead) - self._taken
        if not isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                count = fcntl.ioctl(self._sock.fileno(), termios.FIONREAD, bytes(4))
                here += int.from_bytes(count, sys.byteorder)
        return here

    def look(self, size: int) -> bool:
        """Look for them on the socket."""
        if self.nothing_ahead:
            # Not MSG_PEEK: a TLS socket has none. And no ticks: nobody has read yet.
            self._ahead, self._taken = self._receive(min(size, FILL_SIZE)) or b"", 0
        here = not self.nothing_ahead
        if not here and self._tick_after < math.inf:
            self._tick_after = -1  # they will have to be waited for, from the first on
        return here

    def receive(self, size: int, *, whole: bool = False) -> bytes:
        """Take what is ahead, and receive the rest from the socket."""
        if self._taken < len(self._ahead):
            data = self._ahead[self._taken : self._taken + size]
            self._taken += len(data)
            return data
        if size > MOST:
            size = MOST
        if self._received > self._tick_after:
            self._let_the_kernel_wait()
        start = None if whole and size >= self._fast_enough else time.monotonic()
        received = self._receive(size, socket.MSG_WAITALL if whole else 0)
        if received is None or (whole and 0 < len(received) < size):
            if start is None:
                start = time.monotonic() - TICK  # so long has the kernel waited
            return self._receive_slowly(size, received or b"", start, whole=whole)
        if start is None:
            self._received += len(received)
        else:
            self._note(len(received), start)
        return received

    def receive_into(self, view: memoryview) -> int:
        """Receive straight into this, of a large body."""
        size = 0
        if self._ticks and self.patience and self.nothing_ahead:
            start = time.monotonic()
            try:
                size = self._sock.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError:
                pass  # the next one tells
            else:
                self._note(size, start)
                if not size or size == len(view):
                    return size
        try:
            data = self.receive(len(view) - size, whole=True)
        except BodyError as error:
            error.partial = bytes(view[:size]) + error.partial
            raise
        view[size : size + len(data)] = data
        return size + len(data)

    def close(self) -> None:
        """Leave the socket as it was."""
        if self._ticks:
            self._ticks = False
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _NO_TICK)

    def end(self) -> None:
        """Receive no more: the connection is about to be closed, and a thread may still read.

        OpenSSL knows it by the number of its file, which is that of the next connection then.
        """
        with self._tls_lock:
            self._ended = True

    def _receive_tls_now(self, sock: socket.socket, size: int) -> bytes:
        with self._tls_lock:
            if self._ended:
                raise OSError(errno.EBADF, "the connection is closed")
            timeout = sock.gettimeout()
            sock.settimeout(0)
            try:
                return sock.recv(size)
            finally:
                sock.settimeout(timeout)

    def _let_the_kernel_wait(self) -> None:
        """Wait for the rest of the body in one call; of a large one, let no more of it come."""
        with contextlib.suppress(OSError):  # gone
            if not self._ticks:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
            if self._received > LARGE:
                _keep_near(self._sock)
        self._ticks = True
        self._fast_enough = self._min_rate * TICK
        self._tick_after = math.inf if self._received > LARGE else LARGE

    def _receive(self, size: int, flags: int = 0) -> bytes | None:
        """Receive what is here; a large body is waited for a tick. None: nothing came."""
        try:
            if self._ticks and self.patience:
                return self._sock.recv(size, flags)
            return self._receive_now(self._sock, size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise ClientDisconnected(f"the client is gone: {error}") from error

    def _receive_slowly(self, size: int, data: bytes, start: float, *, whole: bool) -> bytes:
        """Receive the rest of ``size`` bytes from a client that has to be waited for."""
        if not self.patience:
            if data:
                return data
            raise BlockingIOError(errno.EAGAIN, "nothing is here")
        pieces = [data]
        try:
            self._since = self._note(len(data), start)
            if not self._gather(pieces, size, start + TICK, whole=whole):
                with self._waiting():
                    self._gather(pieces, size, math.inf, whole=whole)
        except BodyError as error:
            error.partial = b"".join(pieces)
            raise
        return b"".join(pieces)

    def _gather(self, pieces: list[bytes], size: int, until: float, *, whole: bool) -> bool:
        """Wait for pieces until they are ``size`` bytes or the end; False: it is late."""
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._sock, select.POLLIN)
        left = size - sum(map(len, pieces))
        nothing_is_here = not pieces[-1]
        while left and (whole or left == size):
            if nothing_is_here:
                now = time.monotonic()
                if now >= until:
                    return False
                if now - self._since >= self.patience:
                    raise BodyTimeout(f"nothing came from the client for {self.patience:g} s")
                end = min(until, self._since + self.patience)
                self._poller.poll(None if end == math.inf else (end - now) * 1000)
            piece = self._receive(left)
            nothing_is_here = piece is None
            if piece is not None:
                self._since = self._note(len(piece), self._since)
                pieces.append(piece)
                left -= len(piece)
                if not piece:
                    break
        return True

    def _note(self, size: int, since: float) -> float:
        """Count bytes and the time that was waited for them; give the time now."""
        now = time.monotonic()
        self._received += size
        self._waited += now - since
        if self._waited > RATE_GRACE:
            self._check_rate()
        return now

    def _check_rate(self) -> None:
        if self._received < self._waited * self._min_rate:
            raise BodyTimeout(
                f"{self._received} bytes came in {self._waited:.1f} s, "
                f"fewer than {self._min_rate:g} a second"
            )
