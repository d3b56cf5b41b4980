"""Five kinds of client, on real connections: each sends uploads as some real clients do.

They differ in three things: whether they send ``Expect: 100-continue``, how long they wait for a
response, and how they send the body. `http.client` parses what they receive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import math
import select
import socket
import time
import types
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn_expect.testing.interim import INTERIM, Interim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gunicorn_expect.fields import Headers


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    interim: list[Interim]
    """The interim responses, in order."""
    status: int
    """Of the final response."""
    headers: http.client.HTTPMessage
    """Its header fields; they are found by their names in any case."""
    body: bytes
    """Its content."""
    body_bytes_sent: int
    """Bytes of the request's body that were given to the system to send."""
    closed: bool
    """Whether the server closed the connection after the response."""
    next: Outcome | None = None
    """The outcome of the second request of `SkipsTheBody`; None: it had no response."""

    @property
    def continued(self) -> bool:
        """Whether the client received a ``100 Continue``."""
        return any(interim.status == 100 for interim in self.interim)


@dataclasses.dataclass(frozen=True)
class Client:
    """The base of all clients: each request has a connection of its own."""

    timeout: float = 30.0
    """Seconds without a byte after which it gives up."""

    sends_expect: ClassVar[bool] = True
    """Whether it sends ``Expect: 100-continue``."""
    patience: ClassVar[float | None] = None
    """Seconds that it waits for a response before it sends the body; None: its timeout."""

    def put(
        self, url: str, body: bytes = b"", headers: Headers | Mapping[str, str] = ()
    ) -> Outcome:
        """Send a PUT, as `request` does."""
        return self.request("PUT", url, body, headers)

    def post(
        self, url: str, body: bytes = b"", headers: Headers | Mapping[str, str] = ()
    ) -> Outcome:
        """Send a POST, as `request` does."""
        return self.request("POST", url, body, headers)

    def request(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Headers | Mapping[str, str] = (),
    ) -> Outcome:
        """Send a request.

        Args:
            method: such as "PUT".
            url: ``http://``, with a host.
            body: sent with a Content-Length.
            headers: further fields; one of the same name replaces the client's own.

        Raises:
            ValueError: the URL does not begin with ``http://`` and a host.
            TimeoutError: nothing came for ``timeout`` seconds.
            ConnectionError: no final response came.
            http.client.HTTPException: the response is malformed.

        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} has to begin with http:// and a host")
        own = {
            "Content-Length": str(len(body)),
            **({"Expect": "100-continue"} if self.sends_expect else {}),
        }
        given = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in given}
        fields = [field for field in own.items() if field[0].lower() not in names] + given
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        with _Connection(parts.hostname, parts.port or 80, self.timeout) as connection:
            sent = self._send(connection, connection.head(method, target, fields), body)
            outcome = connection.receive(method, sent)
            return self._after_skipped_body(connection, outcome) if body and not sent else outcome

    def _send(self, connection: _Connection, head: bytes, body: bytes) -> int:
        """Send the head and the body, as this client does; return the bytes of the body sent."""
        connection.send([head])
        return self._send_body(connection, body) if body and self._may_send(connection) else 0

    def _may_send(self, connection: _Connection) -> bool:
        """Wait for a response; return whether to send the body."""
        # "A user agent MAY ignore unexpected 1xx responses" (RFC 9110 section 15.2): clients that
        # wait for a 100 wait no longer because of them.
        ends = math.inf if self.patience is None else time.monotonic() + self.patience
        while connection.is_readable_within(min(self.timeout, ends - time.monotonic())):
            interim = connection.receive_interim()
            if interim is None:
                return False
            if interim.status == 100:
                return True
        if self.patience is None:
            raise TimeoutError(f"no response came in {self.timeout:g} s")
        return True

    def _send_body(self, connection: _Connection, body: bytes) -> int:
        """Send the body; return how many bytes were sent."""
        return connection.send([body])

    def _after_skipped_body(self, connection: _Connection, outcome: Outcome) -> Outcome:  # noqa: ARG002
        """Do what this client does after it was refused and has not sent the body."""
        return outcome


class Waits(Client):
    """Waits for a response until its timeout, as aiohttp, tornado and Node's http do."""


class WaitsOneSecond(Client):
    """Sends the body after a second of silence, as curl, boto3, Go and .NET do."""

    patience = 1.0


class DoesNotWait(Client):
    """Sends the whole body before it reads the response, as browsers and requests do.

    It sends no Expect, unless with ``headers={"Expect": "100-continue"}``; nor does it wait then.
    """

    sends_expect = False

    def _send(self, connection: _Connection, head: bytes, body: bytes) -> int:
        # By one call, so that a server that has the head has bytes of the body.
        return max(0, connection.send([head + body]) - len(head))


@dataclasses.dataclass(frozen=True)
class SkipsTheBody(Client):
    """Waits; if it is refused, skips the body and sends another request.

    A client may do so if the connection is kept. This one does it after a ``Connection: close``,
    too, like a client that has already sent its next request. A server that has announced the close
    must not answer that request, and one that keeps the connection must not take it for the body.
    """

    then: str = "/"
    """The target of the other request, a GET."""

    def _after_skipped_body(self, connection: _Connection, outcome: Outcome) -> Outcome:
        following = None
        with contextlib.suppress(ConnectionError):
            connection.send([connection.head("GET", self.then, [])])
            following = connection.receive("GET", 0)
        return dataclasses.replace(outcome, next=following)


@dataclasses.dataclass(frozen=True)
class Trickles(Client):
    """Waits, and then sends a few bytes at a time until a response comes."""

    size: int = 1
    """Bytes that it sends at once, 1 or more."""
    interval: float = 0.1
    """Seconds between them."""

    def _send_body(self, connection: _Connection, body: bytes) -> int:
        pieces = (body[i : i + self.size] for i in range(0, len(body), self.size))
        return connection.send(pieces, self.interval)


class _Writer(http.client.HTTPConnection):
    """Keeps the bytes of a request instead of sending them."""

    written = b""

    def send(self, data: Any) -> None:
        self.written += data


class _Incoming(io.BufferedReader):
    """The bytes that a connection receives; a line can be put back."""

    _line = b""

    def unread(self, line: bytes) -> None:
        self._line = line

    def readline(self, size: int | None = -1, /) -> bytes:
        line, self._line = self._line, b""
        return line or super().readline(size)

    def close(self) -> None:
        """Stay open: `http.client` closes what it has read a response from."""


class _Connection:
    """One connection, and what it has received since the last final response."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._host = host
        self._port = port
        self._socket = socket.create_connection((host, port), timeout)
        # Nagle's algorithm would hold back a small piece of a body while the head is on its way.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = _Incoming(self._socket.makefile("rb", buffering=0))
        self._interim: list[Interim] = []

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._incoming.raw.close()
        self._socket.close()

    def head(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """Return the head of a request."""
        writer = _Writer(self._host, self._port)
        writer.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            writer.putheader(name, value)
        writer.endheaders()
        return writer.written

    def send(self, pieces: Iterable[bytes], interval: float = 0.0) -> int:
        """Send these; return how many bytes were sent before the server closed or responded.

        A response is noticed only in an interval between two pieces.
        """
        sent = 0
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                if interval and sent and self._is_answered_within(interval):
                    break
                view = memoryview(piece)
                while view:
                    size = self._socket.send(view)
                    view = view[size:]
                    sent += size
        return sent

    def is_readable_within(self, seconds: float) -> bool:
        """Wait up to ``seconds``; return whether bytes, or the end, have arrived."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            if self._incoming.peek(1):
                return True
        except ConnectionError:
            return True
        finally:
            self._socket.settimeout(timeout)
        return bool(select.select([self._socket], [], [], max(0.0, seconds))[0])

    def _is_answered_within(self, seconds: float) -> bool:
        """Wait up to ``seconds``; return whether the final response has begun to arrive."""
        ends = time.monotonic() + seconds
        while self.is_readable_within(ends - time.monotonic()):
            if self.receive_interim() is None:
                return True
        return False

    def receive_interim(self) -> Interim | None:
        """Receive an interim response; None: the next one is the final response.

        Raises:
            ConnectionError: the connection ended.

        """
        line = self._incoming.readline()
        if not line:
            raise ConnectionError("the server closed the connection without a response")
        match = INTERIM.match(line)
        if match is None:
            self._incoming.unread(line)
            return None
        headers = http.client.parse_headers(self._incoming)
        self._interim.append(Interim(int(match[1]), headers.items()))
        return self._interim[-1]

    def receive(self, method: str, body_bytes_sent: int) -> Outcome:
        """Receive the final response, with the interim ones before it."""
        while self.receive_interim():
            pass
        # http.client skips a 100 silently: so it gets only the final response.
        source = types.SimpleNamespace(makefile=lambda _: self._incoming)
        response = http.client.HTTPResponse(source, method=method)  # type: ignore[arg-type]
        response.begin()
        closes = response.will_close
        body = response.read()
        interim, self._interim = self._interim, []
        closed = closes and self._ends()
        return Outcome(interim, response.status, response.headers, body, body_bytes_sent, closed)

    def _ends(self) -> bool:
        """Return whether the server closes the connection now."""
        try:
            return not self._incoming.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False
