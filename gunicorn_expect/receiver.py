"""Receives the bytes of a body from a connection, or raises a timeout or a disconnect.

Two ways to receive:

* It receives what has arrived without waiting, and waits for more by poll.
* A large body on a plain blocking socket is received by blocking calls that the kernel ends after
  `TICK` (SO_RCVTIMEO), each for as many bytes as are wanted (MSG_WAITALL): one call and no copy for
  a piece of it. While a client does not keep up with that, the first way is used.

Neither touches the timeout of the socket: another thread may be writing the response.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from gunicorn_expect.errors import BodyError, BodyTimeout, ClientDisconnected
from gunicorn_expect.transport import READ

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from gunicorn_expect.transport import Transport

#: Seconds for which a read of a large body blocks before it counts as waiting for its client. Long
#: beside the pauses of an upload in a data centre, where 64 KiB at 50 Mbit/s take as long.
TICK: Final = 0.01

_TICK: Final = struct.pack("ll", 0, int(TICK * 1_000_000))  # struct timeval
_NO_TICK: Final = struct.pack("ll", 0, 0)

#: Seconds that a read waits for a client that keeps up before it lends its thread's place: most in
#: a data centre answer a 100 within that, even where other processes want the cores, too. To lend
#: a place wakes another thread, and with 1 ms a busy machine spent twice the CPU on each upload.
#: Two hundred clients a second that don't answer so fast occupy one place by it.
BRIEF: Final = 0.005

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


def _keep_near(sock: socket.socket) -> None:
    """Let a sender on this machine, such as a proxy, be no further ahead than the caches reach."""
    if not hasattr(socket, "TCP_WINDOW_CLAMP"):
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # gone
        if sock.getpeername()[0] == sock.getsockname()[0]:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR)


class Allowance:
    """How long a client may be waited for in all, while it sends one body.

    That is ``timeout`` seconds, and one more for every ``min_rate`` bytes that came: the rule of
    Apache's RequestReadTimeout. It is looked at when bytes are missing, so that a body that is
    whole is never late.
    """

    __slots__ = ("_at_first", "_min_rate", "came", "waited")

    def __init__(self, timeout: float, min_rate: float) -> None:
        """Begin with a client that has sent nothing.

        Args:
            timeout: seconds; 0: no limit.
            min_rate: bytes; 0: no limit.

        """
        limited = timeout and min_rate
        self._at_first = timeout if limited else math.inf
        self._min_rate = min_rate if limited else math.inf
        #: Bytes that came, and seconds that they were waited for.
        self.came = 0
        self.waited = 0.0

    @property
    def left(self) -> float:
        """Seconds that it may still be waited for."""
        return self._at_first + self.came / self._min_rate - self.waited

    def bytes_for(self, seconds: float) -> float:
        """Return how many bytes buy so much time."""
        return 0 if self._min_rate == math.inf else self._min_rate * seconds

    def used_up(self) -> BodyTimeout:
        """Return the error of a client that has used it up."""
        return BodyTimeout(
            f"{self.came} bytes came in {self.waited:.1f} s of waiting, fewer than "
            f"{self._min_rate:g} a second after the first {self._at_first:g} s"
        )


class Receiver:
    """Receives from a connection: first the bytes that came with the head, then the socket's."""

    def __init__(
        self,
        transport: Transport,
        ahead: bytes = b"",
        *,
        timeout: float = 0,
        min_rate: float = 0,
        waiting: Callable[[], AbstractContextManager[object]] | None = None,
        ticks: bool = True,
        awaited: bool = False,
    ) -> None:
        """Receive from this connection.

        Args:
            transport: the connection, TLS or not.
            ahead: bytes that were received after the head.
            timeout: maximum seconds to wait for the next bytes; 0: no limit.
            min_rate: with timeout the `Allowance` of all of them; 0: no limit.
            waiting: entered by the thread that reads while it waits for the client for longer than
                `BRIEF`.
            ticks: whether the kernel may wait for the rest of a large body.
            awaited: the client begins to send only now, so that the first read has to wait.

        """
        #: Seconds to wait for the next bytes, for now; 0: don't.
        self.patience = timeout or math.inf
        self._ahead = ahead
        self._taken = 0  # of what is ahead
        self._transport = transport
        sock = self._sock = transport.sock
        self._waiting = waiting
        self._allowance = Allowance(timeout, min_rate)
        self._allowance.came = len(ahead)
        self._since = 0.0  # when bytes last arrived
        self._ticks = False
        self._awaited = awaited
        #: Whether the rest came within a tick when a read last found too little here. Only a client
        #: that keeps up gets a call that blocks: waiting for others must not occupy a place.
        self._keeps_up = True
        #: Bytes that buy a tick: if they come whole within one they need no clock.
        self._fast_enough = math.inf
        #: Bytes received, after which the kernel is to wait for the others.
        self._tick_after: float = LARGE
        if not ticks or sock.gettimeout() is not None:
            self._tick_after = math.inf  # it can't

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
        return len(self._ahead) - self._taken + self._transport.here()

    def receive(self, size: int, *, whole: bool = False) -> bytes:
        """Receive up to ``size`` bytes, and at least one; ``b""``: the client sends no more.

        Args:
            size: 1 or more.
            whole: wait for as many as possible; otherwise return what has arrived.

        Raises:
            BodyTimeout: it sends too little.
            ClientDisconnected: the connection broke.
            BlockingIOError: nothing is here, and ``patience`` is 0.

        """
        if self._taken < len(self._ahead):
            data = self._ahead[self._taken : self._taken + size]
            self._taken += len(data)
            return data
        if size > MOST:
            size = MOST
        if self._allowance.came > self._tick_after:
            self._let_the_kernel_wait()
        fast = whole and self._keeps_up and size >= self._fast_enough
        start = None if fast else time.monotonic()
        if self._awaited:
            self._awaited = False
            received = None
        else:
            received = self._receive(size, socket.MSG_WAITALL if whole else 0)
        if received is None or (whole and 0 < len(received) < size):
            if start is None:
                start = time.monotonic() - TICK  # so long has the kernel waited
            return self._receive_slowly(size, received or b"", start, whole=whole)
        if start is None:
            self._allowance.came += len(received)
            self._allowance.waited += TICK  # at most; they have bought as much
        else:
            self._note(len(received), start)
        return received

    def receive_into(self, view: memoryview) -> int:
        """Receive as many bytes as this has room for, or fewer; 0: the client sends no more.

        Those of a large body come straight into it. Raises what `receive` does.
        """
        size = 0
        if self._kernel_waits() and self.nothing_ahead:
            start = time.monotonic()
            try:
                size = self._sock.recv_into(view, 0, socket.MSG_WAITALL)
            except OSError:
                pass  # the next call raises it
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
            limit: bytes after which an unfinished line is returned as it is.

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

    def close(self) -> bytes:
        """Leave the socket as it was; return what was received and is not taken."""
        self._tick_after = self._fast_enough = math.inf
        if self._ticks:
            self._ticks = False
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _NO_TICK)
        return self._ahead[self._taken :]

    def _let_the_kernel_wait(self) -> None:
        """Make further calls block for up to `TICK`; limit how far ahead a large body is sent."""
        with contextlib.suppress(OSError):  # gone
            if not self._ticks:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TICK)
            if self._allowance.came > LARGE:
                _keep_near(self._sock)
        self._ticks = True
        self._fast_enough = self._allowance.bytes_for(TICK)
        self._tick_after = math.inf if self._allowance.came > LARGE else LARGE

    def _kernel_waits(self) -> bool:
        """Return whether the next call may block, until a tick is over."""
        return bool(self._ticks and self._keeps_up and self.patience and not self._transport.ended)

    def _receive(self, size: int, flags: int = 0) -> bytes | None:
        """Receive what is here, or what a fast large body brings within a tick; None: nothing."""
        try:
            if self._kernel_waits():
                return self._sock.recv(size, flags)
            return self._transport.receive(size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ClientDisconnected(f"the client is gone: {error}") from error

    def _receive_slowly(self, size: int, data: bytes, start: float, *, whole: bool) -> bytes:
        """Receive the rest of ``size`` bytes from a client that has to be waited for."""
        if not self.patience:
            if data:
                return data
            raise BlockingIOError(errno.EAGAIN, "nothing is here")
        pieces = [data] if data else []  # one piece is not copied by the join
        brief = BRIEF if self._keeps_up and not self._ticks else 0
        self._keeps_up = False
        try:
            since = self._since = self._note(len(data), start)
            if self._waiting is None:
                self._gather(pieces, size, math.inf, whole=whole)
            elif not self._gather(pieces, size, since + brief, whole=whole):
                with self._waiting():
                    self._gather(pieces, size, math.inf, whole=whole)
        except BodyError as error:
            error.partial = b"".join(pieces)
            raise
        self._keeps_up = self._since - start < TICK
        return b"".join(pieces)

    def _gather(self, pieces: list[bytes], size: int, until: float, *, whole: bool) -> bool:
        """Wait for pieces until they are ``size`` bytes, or the client sends no more.

        Returns:
            Whether that was so before ``until``, a time of `time.monotonic`.

        """
        left = size - sum(map(len, pieces))
        nothing_is_here = not pieces
        while left and (whole or left == size):
            if nothing_is_here and not self._wait(until):
                return False
            piece = self._receive(left)
            nothing_is_here = piece is None
            if piece is not None:
                self._since = self._note(len(piece), self._since)
                pieces.append(piece)
                left -= len(piece)
                if not piece:
                    break
        return True

    def _wait(self, until: float) -> bool:
        """Wait for bytes before ``until``; return whether they came. BodyTimeout: too late."""
        now = time.monotonic()
        limit = min(self.patience, self._allowance.left)
        seconds = limit - (now - self._since)
        if until - now < seconds:
            return until > now and bool(self._transport.wait(READ, until - now))
        timeout = None if limit == math.inf else seconds
        if seconds <= 0 or not self._transport.wait(READ, timeout):
            raise self._late(max(limit, time.monotonic() - self._since))
        return True

    def _note(self, size: int, since: float) -> float:
        """Count bytes and the time that was waited for them; return the time now."""
        now = time.monotonic()
        self._allowance.came += size
        self._allowance.waited += now - since
        if self._ticks and self._allowance.left <= 0:
            self.close()  # the kernel would wait on
        return now

    def _late(self, waited: float) -> BodyTimeout:
        if waited >= self.patience:
            return BodyTimeout(f"nothing came from the client for {self.patience:g} s")
        self._allowance.waited += waited
        return self._allowance.used_up()
