"""The socket of one connection, plain or TLS: what can be done without waiting, and waiting.

The socket never waits by itself, so that a thread may send while another one receives, and so that
every wait has a timeout. Only the owner of the connection calls these, or a thread that reads or
answers for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import select
import socket
import ssl
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Wait = Callable[[socket.socket, int, float | None], int]

#: The most that is discarded at once: more than a Linux socket holds before it grows.
DISCARD_SIZE: Final = 1024 * 1024

# Numbers, not enums: to join those takes as long as half a system call.
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)

#: On Linux TCP drops what it was asked for instead of copying it (tcp(7), MSG_TRUNC).
_DISCARD: Final = _DONTWAIT | int(socket.MSG_TRUNC if sys.platform == "linux" else 0)

#: Says that the end of the connection follows soon, so that Linux puts both into one packet. If it
#: does not follow within 200 ms, Linux sends what it has.
_LAST: Final = int(socket.MSG_MORE if sys.platform == "linux" else 0)

#: What `clear_tls_errors` makes TLS objects with.
_CONTEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

#: Bytes of a file for one call, where sendfile(2) can't be used.
FILE_PIECE: Final = 65536

#: Seconds without progress in sending after which the body of the request is discarded, although
#: the application might still have read it. A client that reads while it sends is never that slow.
STUCK: Final = 1.0

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT


def wait_by_poll(sock: socket.socket, events: int, timeout: float | None) -> int:
    """Wait until a socket is ready for one of these events; return which, 0 on timeout.

    Args:
        sock: it may be closed meanwhile.
        events: `READ`, `WRITE`, or both.
        timeout: seconds; None: for ever.

    """
    poller = select.poll()  # of this wait: another thread may wait for the other direction
    try:
        poller.register(sock, events)
    except ValueError:
        return events  # closed by its owner: the next call raises
    ready = poller.poll(None if timeout is None else max(0.0, timeout) * 1000)
    return ready[0][1] if ready else 0


class Transport:
    """A plain connection."""

    def __init__(self, sock: socket.socket, wait: Wait = wait_by_poll) -> None:
        """Take over a socket, blocking or not, and the function that waits for it."""
        self.sock = sock
        self._wait = wait
        #: Whether all that still arrives is discarded: a thread that still reads gets an
        #: error, and never bytes of the connection that has this one's file number next.
        self.ended = False
        #: Whether the client was told that nothing follows: `half_close` has succeeded.
        self.half_closed = False
        #: Returns whether the body may be discarded, for a response that the client does not read
        #: before; None: it may not.
        self.give_up_body: Callable[[], bool] | None = None
        self._discards_after = math.inf
        # Nagle's algorithm would hold a short piece back while the last is not acknowledged.
        # gunicorn asks for that on listening sockets, and Linux hands it down; not every system.
        if sys.platform != "linux" and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """Return the file number; -1 when it is closed."""
        return self.sock.fileno()

    def receive(self, size: int) -> bytes | None:
        """Receive what is here, up to ``size`` bytes; ``b""`` at the end, None: nothing yet."""
        if self.ended:
            raise closed()
        try:
            return self.sock.recv(size, _DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return None

    def here(self) -> int:
        """Count the bytes that can be received without waiting, as far as that can be known."""
        try:
            count = fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, bytes(4))
        except (OSError, ValueError):  # ValueError: closed by its owner
            return 0
        return int.from_bytes(count, sys.byteorder)

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send what there is room for; return how many bytes that were."""
        try:
            return self.sock.send(data, _DONTWAIT | flags)
        except (BlockingIOError, InterruptedError):
            return 0

    def wait(self, events: int, timeout: float | None) -> int:
        """Wait until the socket is ready for one of these events; return which, 0 on timeout.

        Args:
            events: `READ`, `WRITE`, or both.
            timeout: seconds; None: for ever.

        """
        return self._wait(self.sock, events, timeout)

    # A response. It waits.

    def sendall(self, data: bytes, *, last: bool = False) -> None:
        """Send all of these bytes.

        Args:
            data: the bytes.
            last: `half_close` follows soon, and may send them.

        Raises:
            OSError: the client is gone.

        """
        sent = self.send(data, _LAST if last else 0)
        if sent < len(data):
            self._send_slowly(memoryview(data)[sent:])

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> None:
        """Send ``count`` bytes of a file, or all. OSError: the client is gone."""
        if self.give_up_body is None:
            timeout = self.sock.gettimeout()
            self.sock.settimeout(None)  # sendfile(2) may wait; on gevent that is its own waiting
            try:
                self.sock.sendfile(file, offset, count)
            finally:
                self.sock.settimeout(timeout)
            return
        file.seek(offset)
        left = math.inf if count is None else count
        while left and (piece := file.read(int(min(left, FILE_PIECE)))):
            self.sendall(piece)
            left -= len(piece)

    def discard_when_stuck(self, give_up_body: Callable[[], bool], *, complete: bool) -> None:
        """Discard the body that arrives, while the response can't be sent.

        A client that reads its response only after sending its whole body would otherwise wait
        for us to read, and we for it.

        Args:
            give_up_body: called first, each time; returns False if a thread reads the body.
            complete: the response is complete, so that the application won't read any more.

        """
        self.give_up_body = give_up_body
        self._discards_after = 0.0 if complete else STUCK

    def _send_slowly(self, data: memoryview) -> None:
        moved = time.monotonic()
        while data:
            discards = math.inf
            if self.give_up_body is not None:
                discards = self._discards_after - (time.monotonic() - moved)
            ready = self.wait(
                WRITE if discards > 0 else WRITE | READ,
                None if discards == math.inf else max(0.0, discards) or None,
            )
            if ready & WRITE or ready & ~(READ | WRITE):
                sent = self.send(data)
                if sent:
                    data, moved = data[sent:], time.monotonic()
            if ready & READ:
                self._discard_body()

    def _discard_body(self) -> None:
        if self.give_up_body is None:
            return
        if not self.give_up_body() or self.receive(DISCARD_SIZE) == b"":
            self.give_up_body = None  # a thread reads it, or the client sends no more
        else:
            self._discards_after = 0.0  # what comes now is lost anyway

    # The end.

    def half_close(self) -> bool:
        """Half-close. Return False if the send buffer has no room for that yet.

        Raises:
            OSError: the client has gone.

        """
        self.ended = self.half_closed = True
        self.sock.shutdown(socket.SHUT_WR)
        return True

    def discard(self, buffer: bytearray) -> int | None:
        """Discard what is here; return how many bytes, 0 at the end, None: nothing yet."""
        try:
            return self.sock.recv_into(buffer, 0, _DISCARD)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return 0  # reset

    def is_acknowledged(self) -> bool:
        """Return whether the client's system has all that was sent, as far as ours can tell.

        Otherwise the rest is lost if we close the socket and the client sends something more.
        """
        if not hasattr(termios, "TIOCOUTQ"):
            return True
        try:
            unsent = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):  # ValueError: closed by its owner
            return True
        return not int.from_bytes(unsent, sys.byteorder)

    def close(self) -> None:
        """Close the socket."""
        if not self.ended:
            # Another process may have the socket, too, and must not keep the client waiting.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def closed() -> OSError:
    """Return the error of a call on a closed connection."""
    return OSError(errno.EBADF, "the connection is closed")


def clear_tls_errors() -> None:
    """Empty OpenSSL's queue of errors of this thread.

    "The current thread's error queue must be empty before the TLS/SSL I/O operation is attempted"
    (SSL_get_error(3)). Python leaves the error of a client that has reset its connection in there.
    With OpenSSL 3.5 the thread's next operation takes it for its own, and another client loses its
    connection (https://github.com/python/cpython/issues/148594). Python does empty the queue when
    it makes a TLS object, which takes 3 microseconds.
    """
    _CONTEXT.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


class TLSTransport(Transport):
    """A TLS connection. One thread may read while another writes, which OpenSSL does not allow.

    So each call is short, and holds a lock; waiting does not.
    """

    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, wait: Wait = wait_by_poll) -> None:
        """Take over a socket, whose handshake may still be to come."""
        super().__init__(sock, wait)
        sock.settimeout(0)
        self._lock = threading.Lock()

    def handshake(self) -> int:
        """Go on with the handshake; return what it waits for, 0: it is done.

        Raises:
            ssl.SSLError: it failed.

        """
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError:
            clear_tls_errors()
            raise
        return 0

    def receive(self, size: int) -> bytes | None:
        """Receive what is here, up to ``size`` bytes; ``b""`` at the end, None: nothing yet."""
        with self._lock:
            if self.ended:
                raise closed()
            try:
                return self.sock.recv(size)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            except OSError:
                clear_tls_errors()
                raise

    def here(self) -> int:
        """Return 0: what TLS holds back can't be known."""
        return 0

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # noqa: ARG002  TLS has none
        """Send what there is room for; return how many bytes that were."""
        with self._lock:
            if self.ended:
                raise closed()
            try:
                return self.sock.send(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return 0
            except OSError:
                clear_tls_errors()
                raise

    def half_close(self) -> bool:
        """Send close_notify and half-close. Return False if there is no room for that yet.

        "Servers MUST attempt to initiate an exchange of closure alerts with the client before
        closing the connection" (RFC 9112 section 9.8): without it, the client can't tell the end of
        a response that has no length from one that was cut off.
        """
        with self._lock:
            self.ended = True
            try:
                self.sock.settimeout(0)
                self.sock.unwrap()
            except ssl.SSLWantWriteError:
                return False
            except (OSError, ValueError):
                # The client is gone; or, which is the rule, its own alert did not come yet.
                clear_tls_errors()
            # This drops the TLS layer: what comes from here on need not be understood.
            return super().half_close()

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            super().close()
            self.ended = True
        clear_tls_errors()  # of what gunicorn has sent and received by itself, over HTTP/2
