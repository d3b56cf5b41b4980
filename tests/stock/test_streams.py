"""Streams of HTTP/2 are answered as by stock gunicorn: events, hooks, arguments, environ, logs."""

import re
import socket

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest

from stock.comparing import both, shown
from support import PATIENCE
from support.client import request

KEPT = (
    h2.events.InformationalResponseReceived,
    h2.events.ResponseReceived,
    h2.events.TrailersReceived,
    h2.events.DataReceived,
    h2.events.StreamEnded,
    h2.events.StreamReset,
    h2.events.ConnectionTerminated,
)

#: Method, path, body and header fields.
STREAMS = {
    "GET": ("GET", "/hello?a=%20b&c", b"", ("x-of-client", "1"), ("referer", "/there")),
    "HEAD": ("HEAD", "/hello"),
    "cookies": ("GET", "/hello", b"", ("cookie", "a=1"), ("cookie", "b=2")),
    "POST": ("POST", "/read", b"hello", ("content-length", "5"), ("content-type", "text/plain")),
    "POST without length": ("POST", "/read", b"hello"),
    "POST unread": ("POST", "/hello", b"hello", ("content-length", "5")),
    "lines": ("POST", "/read-lines", b"a\nb\nc\n"),
    "generator": ("GET", "/generator"),
    "generator HEAD": ("HEAD", "/generator"),
    "list without length": ("GET", "/list-without-length"),
    "write": ("GET", "/write"),
    "empty": ("GET", "/empty"),
    "start late": ("GET", "/start-late"),
    "204": ("GET", "/status?204+No+Content"),
    "304": ("GET", "/status?304+Not+Modified"),
    "204 with body": ("GET", "/status-with-body?204+No+Content"),
    "bad status": ("GET", "/status?OK"),
    "too long": ("GET", "/too-long"),
    "too short": ("GET", "/too-short"),
    "several fields": ("GET", "/several-fields"),
    "bad field": ("GET", "/bad-field"),
    "404": ("GET", "/none"),
    "fail": ("GET", "/fail"),
    "fail with body": ("POST", "/fail", b"hello"),
    "fail after start": ("GET", "/fail-after-start"),
    "fail after first byte": ("GET", "/fail-after-first-byte"),
    "fail in close": ("GET", "/fail-in-close"),
    "None": ("GET", "/nothing"),
    "start twice": ("GET", "/start-twice"),
    "errors": ("GET", "/errors"),
    "hints": ("GET", "/hints"),
    "trailers": ("GET", "/trailers"),
    "file": ("GET", "/file?0"),
    "memory file": ("GET", "/memory-file"),
    "pre_request fails": ("GET", "/pre-request-fails"),
    "post_request fails": ("GET", "/post-request-fails"),
}


class Connection:
    """A client of HTTP/2."""

    def __init__(self, server, certificates=None):
        self.socket = socket.create_connection(server.address, PATIENCE)
        if certificates:
            self.socket = certificates.trust("h2").wrap_socket(
                self.socket, server_hostname="localhost"
            )
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self._heard = []
        self._scheme = "https" if certificates else "http"

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def begin(self):
        self._h2.initiate_connection()
        self._flush()

    def upgrade(self, line, *fields):
        """Begin with a request of HTTP/1.1 that asks for an upgrade; return the response head."""
        settings = self._h2.initiate_upgrade_connection().decode()
        self.socket.sendall(
            request(
                line,
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                f"HTTP2-Settings: {settings}",
                *fields,
            )
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        self._flush()
        return head

    def ask(self, method, path, body=b"", *fields):
        """Send a request; return what is received until its stream is over."""
        stream = self._h2.get_next_available_stream_id()
        head = {":method": method, ":path": path, ":scheme": self._scheme, ":authority": "test"}
        self._h2.send_headers(stream, [*head.items(), *fields], end_stream=not body)
        if body:
            self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return self.hear(stream)

    def hear(self, stream):
        over = (h2.events.StreamEnded, h2.events.StreamReset)
        heard = []
        while not any(isinstance(e, over) and e.stream_id == stream for e in heard):
            data = self.socket.recv(65536)
            try:
                heard += self._h2.receive_data(data)
            except h2.exceptions.InvalidBodyLengthError:
                return "less than its Content-Length"
            self._flush()
            if not data:
                break
        return [*plain(heard)]

    def hear_the_end(self):
        heard = []
        while data := self.socket.recv(65536):
            heard += self._h2.receive_data(data)
        return [*plain(heard)]

    def _flush(self):
        self.socket.sendall(self._h2.data_to_send())


def plain(events):
    for event in events:
        if isinstance(event, KEPT):
            facts = {
                name: getattr(event, name)
                for name in ("stream_id", "data", "error_code", "last_stream_id")
                if hasattr(event, name)
            }
            if getattr(event, "headers", None):
                facts["headers"] = [
                    (name, "-" if name == "date" and value != "yesterday" else value)
                    for name, value in event.headers
                ]
            yield type(event).__name__, facts


@pytest.fixture(scope="module", params=["thread", "gevent"])
def worker(request):
    return request.param


@pytest.fixture(scope="module", params=["tls", "tcp"])
def connect(request, certificates):
    """Return the function that connects a client."""

    def connect(server):
        return Connection(server, certificates if request.param == "tls" else None)

    connect.transport = request.param
    return connect


@pytest.fixture(scope="module")
def servers(worker, connect, certificates):
    with both(
        worker,
        *("--http-protocols", "h1,h2", "--http2-cleartext", "both"),
        transport=connect.transport,
        certificates=certificates,
    ) as servers:
        yield servers


def asking(*stream):
    def converse(connection):
        connection.begin()
        return connection.ask(*stream)

    return converse


def split(seen):
    """Return what was received, what was noted, the access log, and the errors.

    Over HTTP/2, stock gunicorn writes the access log line and the error at other moments than over
    HTTP/1, and on gevent it writes the error twice.
    """
    received, lines = seen
    noted = [line for line in lines if not isinstance(line, str) and line[0] != "ssl_context"]
    written = [line for line in lines if isinstance(line, str)]
    access = [line for line in written if line.startswith("127.")]
    errors = {line for line in written if re.match(r"[\w.]*(Error|Header)\b", line)}
    return received, noted, access, errors


#: In the access log, stock gunicorn has the status that the application meant to send, or None.
#: Ours has a line for the 500, as over HTTP/1, even after a line for the response that was begun.
FAIL = {
    *("bad status", "bad field", "fail", "fail with body", "fail after start", "None"),
    *("start twice", "pre_request fails"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_answered_as_by_stock_gunicorn(servers, connect, name):
    ours, stock = (split(shown(server, asking(*STREAMS[name]), connect)) for server in servers)
    if name in FAIL:
        assert "|500|" in ours[2].pop()
        stock[2].clear()
        ours[2].clear()
    assert ours == stock


@pytest.mark.parametrize("path", ["/stop-iteration", "/os-error"])
def test_what_closes_a_connection_of_http_1_resets_a_stream(servers, connect, path):
    ours, stock = (shown(server, asking("GET", path), connect)[0] for server in servers)
    error = {"stream_id": 1, "error_code": h2.errors.ErrorCodes.INTERNAL_ERROR}
    assert ours == [("StreamReset", error)]
    assert stock[0][1]["headers"][0] == (":status", "500")


def test_a_connection_begun_by_an_upgrade_is_served_as_by_stock_gunicorn(servers, connect):
    if connect.transport == "tls":
        pytest.skip("there is no such upgrade over TLS")

    def converse(connection):
        return [
            connection.upgrade("GET /hello?upgraded", "X-Of-Client: 1"),
            connection.hear(1),
            connection.ask("POST", "/read", b"hello"),
        ]

    ours, stock = (split(shown(server, converse, connect)) for server in servers)
    assert ours[0][0].startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert ours == stock


def test_goaway_names_the_last_stream_when_the_worker_stops(worker, connect, certificates):
    with both(
        worker,
        *("--http-protocols", "h1,h2", "--http2-cleartext", "both"),
        transport=connect.transport,
        certificates=certificates,
    ) as servers:
        heard = []
        for server in servers:
            with connect(server) as connection:
                connection.begin()
                connection.ask("GET", "/hello")
                heard.append(connection.ask("GET", "/stop") + connection.hear_the_end())
    ours, stock = heard
    assert stock in (ours, ours[:-1])  # stock gunicorn means to send GOAWAY, but may not
    assert ours[-1] == ("ConnectionTerminated", {"error_code": 0, "last_stream_id": 3})
