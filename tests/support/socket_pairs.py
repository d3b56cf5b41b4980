"""Both ends of a connection, for tests that need no server."""

import contextlib
import functools
import math
import select
import socket
import ssl
import struct
import threading
import types
from unittest import mock

import gevent.socket

from gunicorn_expect import receiver, transport
from gunicorn_expect.transport import TLSTransport, Transport
from support import PATIENCE

#: Kinds of the server's end: a blocking socket of TCP, and of a unix socket; gevent's, whose file
#: does not block; TLS.
KINDS = ["tcp", "unix", "gevent", "tls"]


@contextlib.contextmanager
def connected(kind, certificates):
    """Yield the server's end of a connection, and the client's."""
    if kind == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind == "gevent":
        ours = gevent.socket.socket(fileno=ours.detach())
        ours.settimeout(0)  # otherwise gevent's socket itself would wait
    elif kind == "tls":
        # Each end does its part of the handshake in a thread of its own.
        trusting = threading.Thread(target=lambda: got.append(_trust(certificates, theirs)))
        got = []
        trusting.start()
        ours = _context(certificates).wrap_socket(ours, server_side=True)
        trusting.join()
        [theirs] = got
    with ours, theirs:
        theirs.settimeout(PATIENCE)
        yield ours, theirs


@functools.cache
def _context(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    # A client that closes before it has read its session tickets resets the connection.
    context.num_tickets = 0
    return context


@functools.cache
def _trusting(certificates):
    return certificates.trust()


def _trust(certificates, sock):
    return _trusting(certificates).wrap_socket(sock, server_hostname="localhost")


def transport_of(sock):
    """Return the transport of the server's end."""
    return TLSTransport(sock) if isinstance(sock, ssl.SSLSocket) else Transport(sock)


def packets(sock):
    """Return how many packets a TCP socket has received."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    [count] = struct.unpack_from("I", info, 140)  # tcpi_segs_in, in Linux's struct tcp_info
    return count


def receive_rest(sock):
    """Receive everything until the peer closes."""
    sock.settimeout(PATIENCE)
    return b"".join(iter(lambda: sock.recv(65536), b""))


def announcing(event):
    """Return a ``waiting`` for a receiver; it sets this event when it is entered."""

    @contextlib.contextmanager
    def waiting():
        event.set()
        yield

    return waiting


class WaitCounter:
    """A ``waiting`` for a receiver; it counts how often it is entered and left."""

    def __init__(self):
        self.entered = 0
        self.left = 0

    @contextlib.contextmanager
    def __call__(self):
        self.entered += 1
        try:
            yield
        finally:
            self.left += 1


class PacedClient:
    """Sends the next piece only when the reader waits for it.

    So the reader receives each piece alone, without a sleep and without a race. When it waits and
    no piece is left, the client leaves. If the client stays, and the reader would wait for ever,
    it gets an AssertionError.
    """

    def __init__(self, ours, theirs, pieces, *, stays=False):
        self.ours = ours
        self._theirs = theirs
        self._pieces = list(pieces)
        self._stays = stays
        self.now = 0.0
        #: Seconds that pass before each piece, by the clock of the reader.
        self.pace = 0.0
        self._due = None

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        fake = types.SimpleNamespace(poll=lambda: self, POLLIN=select.POLLIN)
        self._stack.enter_context(mock.patch.object(transport, "select", fake))
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        self._stack.enter_context(mock.patch.object(receiver, "time", clock))
        least = struct.pack("ll", 0, 1)
        self._stack.enter_context(mock.patch.object(receiver, "_TICK", least))
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def send_all(self):
        """Send what is left now, and leave unless it stays."""
        for piece in self._pieces:
            self._theirs.sendall(piece)
        self._pieces = []
        if not self._stays:
            self._theirs.shutdown(socket.SHUT_WR)

    # The methods of a poller.

    def register(self, sock, events):
        assert sock is self.ours

    def poll(self, milliseconds):
        ready = [(self.ours.fileno(), select.POLLIN)]
        if self._is_readable(0):
            return ready
        # In whole milliseconds, as poll(2); and the clock has to advance.
        self.now += 1e-6
        until = math.inf if milliseconds is None else self.now + math.ceil(milliseconds) / 1000
        if self._due is None:
            self._due = self.now + self.pace if self._pieces or not self._stays else math.inf
        assert min(self._due, until) < math.inf, "the reader waits for bytes that never arrive"
        if self._due > until:
            self.now = until
            return []
        self.now = self._due
        self._due = None
        if self._pieces:
            self._theirs.sendall(self._pieces.pop(0))
        else:
            self._theirs.shutdown(socket.SHUT_WR)
        assert self._is_readable(PATIENCE)
        return ready

    def _is_readable(self, timeout):
        return bool(select.select([self.ours.fileno()], [], [], timeout)[0])


#: What sending raises after the other side has closed its socket.
CLOSED = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


def reset(peer):
    """Close with a reset, as a process does that ends with unread bytes."""
    if peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


def raw(tls):
    """Return the plain socket below a TLS socket, which can't be used any more."""
    sock = socket.socket(fileno=tls.detach())
    sock.settimeout(PATIENCE)
    return sock
