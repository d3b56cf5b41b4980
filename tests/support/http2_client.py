"""A client of HTTP/2, which records what it receives on each stream."""

import collections
import contextlib
import socket

import h2.config
import h2.connection
import h2.events

from support import PATIENCE

EXPECT = ("expect", "100-continue")


RESET_NO_ERROR = "reset NO_ERROR"


@contextlib.contextmanager
def connect(server, certificates=None, *, settings=()):
    """Connect, over TLS if there are certificates."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(server.address, PATIENCE))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if certificates:
            sock = certificates.trust("h2").wrap_socket(sock, server_hostname="localhost")
            stack.enter_context(sock)
            assert sock.selected_alpn_protocol() == "h2"
        connection = new_connection()
        connection.initiate_connection()
        if settings:
            connection.update_settings(settings)
        yield Http2Client(server, sock, connection)


def new_connection():
    return h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))


def head_of(line):
    method, path = line.split()
    return [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")]


class Http2Client:
    """A connection. `received` has what was received on each of its streams, in order.

    That is the status of each HEADERS frame, the bytes of all DATA frames together, "end", and
    "reset" with the name of the error code.
    """

    def __init__(self, server, sock, connection):
        self.server = server
        self.socket = sock
        self.received = collections.defaultdict(list)
        self.fields = collections.defaultdict(list)
        self._settled = False
        self._h2 = connection
        self._flush()

    def open(self, line, *fields, data=b"", end=False):
        """Open a stream; data and the end are sent together with the HEADERS frame."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, [*head_of(line), *fields], end_stream=end and not data)
        if data:
            self._h2.send_data(stream, data, end_stream=end)
        self._flush()
        return stream

    def send(self, stream, data, *, end=True):
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def ping(self):
        self._h2.ping(b"are you?")
        self._flush()

    def widen(self, stream, size):
        """Allow the server to send ``size`` more bytes on this stream: send a WINDOW_UPDATE."""
        self._h2.increment_flow_control_window(size, stream)
        self._flush()

    def reset(self, stream):
        self._h2.reset_stream(stream)
        self._flush()

    def first(self, stream):
        """Return what is received first on a stream."""
        while not self.received[stream] and self.receive():
            pass
        return self.received[stream][:1]

    def answer(self, stream):
        """Return all that is received on a stream, even after its end."""
        while not self.is_over(stream) and self.receive():
            pass
        self.settle()
        return self.received[stream]

    def settle(self):
        """Wait until the server has received all that was sent."""
        # The server answers a ping after everything that it has sent before.
        self._settled = False
        self._h2.ping(b"settled?")
        self._flush()
        while not self._settled and self.receive():
            pass
        assert self._settled, "the server closed the connection"

    def get(self, path):
        return self.answer(self.open(f"GET {path}", end=True))

    def receive(self, data=b""):
        """Receive what arrives next, or process bytes that were received already."""
        data = data or self.socket.recv(65536)
        for event in self._h2.receive_data(data):
            received = self.received[getattr(event, "stream_id", None)]
            match event:
                case h2.events.PingAckReceived():
                    self._settled = True
                case h2.events.StreamEnded():
                    received.append("end")
                case h2.events.StreamReset():
                    received.append(f"reset {event.error_code.name}")
                case h2.events.DataReceived(data=bytes(piece)) if piece:
                    received.append(
                        (received.pop() if isinstance(received[-1], bytes) else b"") + piece
                    )
                case h2.events.InformationalResponseReceived() | h2.events.ResponseReceived():
                    self.fields[event.stream_id].append(dict(event.headers))
                    received.append(dict(event.headers)[":status"])
        self._flush()
        return data

    def is_over(self, stream):
        return any(item == "end" or str(item).startswith("reset") for item in self.received[stream])

    def _flush(self):
        self.socket.sendall(self._h2.data_to_send())
