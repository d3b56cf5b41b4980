"""Sends the request on one connection and records what happens. h11 parses the responses."""

from __future__ import annotations

import dataclasses
import select
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Literal

import h11

from gunicorn_expect.probe import timeline as events
from gunicorn_expect.probe.question import Manner

if TYPE_CHECKING:
    from gunicorn_expect.probe.question import Question

#: Seconds to keep watching after everything has arrived: a server that closes does so at once, and
#: one that keeps a connection does so for longer (gunicorn's keepalive: 2 s).
KEEP_WATCHING: Final = 1.0
#: Bytes to receive at once. A TLS record has at most 16 KiB, so no bytes stay in the TLS layer.
_PIECE: Final = 64 * 1024
#: What a non-blocking socket raises if nothing has arrived, or if its send buffer is full.
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: The beginning of a 100, wherever it appears.
_CONTINUE: Final = b"HTTP/1.1 100 "
#: Fields of a response whose values may be secrets.
_SECRET: Final = frozenset({"set-cookie", "cookie", "authorization", "proxy-authorization"})


def request_of(question: Question) -> h11.Request:
    """Return the head of the request.

    Raises:
        ValueError: it can't be sent. The message shows no value of a field: it may be a secret.

    """
    for name, value in question.fields:  # each alone: h11 quotes the value that it can't send
        host = [] if name.lower() == "host" else [("Host", "-")]
        try:
            h11.Request(method="PUT", target="/", headers=[*host, (name, value)])
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise ValueError(
                f"the field {_printable(name.encode())} has a character that can't be sent"
            ) from None
    try:
        return h11.Request(
            method=question.method, target=question.target, headers=list(question.fields)
        )
    except UnicodeEncodeError:
        raise ValueError("the method or the URL is not ASCII: percent-encode it") from None
    except h11.LocalProtocolError as error:
        raise ValueError(f"the request can't be sent: {error}") from None


def ask(question: Question, context: ssl.SSLContext, timeout: float) -> events.Timeline:
    """Send the request on a new connection; return the events.

    Args:
        question: what to ask.
        context: for TLS, where the scheme is https.
        timeout: maximum seconds to connect, and again for everything after the head.

    Raises:
        ValueError: it can't be sent.

    """
    exchange = _Exchange(question)
    exchange.run(context, timeout)
    zero = next(
        (event.at for event in exchange.timeline if isinstance(event, events.HeadSent)), 0.0
    )
    return tuple(
        dataclasses.replace(event, at=round(event.at - zero, 3)) for event in exchange.timeline
    )


class _Exchange:
    """One connection, from its beginning to its end."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._request = request_of(question)
        self._start = time.monotonic()
        self.timeline: list[events.Event] = []

        self._reader = h11.Connection(h11.CLIENT)  # a new one reads after the final response
        self._head = self._reader.send(self._request)
        self._unsent = question.length
        self._sending = False
        self._broken = False  # a send raised a reset: a read then shows only the end
        self._in_content = False
        self._size = 0  # of the content so far
        self._tail = b""  # of it
        self._complete_at: float | None = None  # when everything that is expected had arrived
        self._done = False

    def run(self, context: ssl.SSLContext, timeout: float) -> None:
        """Connect, send, and watch until it is over."""
        try:
            sock = self._connect(context, timeout)
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error.strerror or str(error)
            self.timeline.append(events.Unreachable(self._at(), reason))
            return
        with sock:
            try:
                sock.sendall(self._head)
            except OSError:
                self.timeline.append(events.Closed(self._at(), "reset"))
                return
            self.timeline.append(
                events.HeadSent(
                    self._at(),
                    self._question.method,
                    self._question.target.partition("?")[0],
                    self._question.given,
                    self._question.length,
                )
            )
            self._sending = self._question.manner is Manner.IMPATIENT
            self._watch(sock, timeout)

    def _connect(self, context: ssl.SSLContext, timeout: float) -> socket.socket:
        question = self._question
        if question.unix_socket is None:
            sock = socket.create_connection((question.host, question.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            to = "{}:{}".format(*sock.getpeername())
        else:
            to = question.unix_socket
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
        try:
            if question.unix_socket is not None:
                sock.connect(question.unix_socket)
            self.timeline.append(events.Connected(self._at(), to))
            if question.scheme == "https":
                sock = context.wrap_socket(sock, server_hostname=question.host)
                self.timeline.append(events.Secured(self._at(), sock.version() or ""))
        except BaseException:
            sock.close()
            raise
        return sock

    def _watch(self, sock: socket.socket, timeout: float) -> None:
        begun = time.monotonic()
        sock.setblocking(False)
        while not self._done:
            until = begun + timeout
            if self._complete_at is not None and not self._sending:
                until = min(until, self._complete_at + KEEP_WATCHING)
            now = time.monotonic()
            if now >= until:
                self._stop_sending()
                self.timeline.append(
                    events.Left(self._at(), round(now - (self._complete_at or begun), 1))
                )
                return
            readable, writable, _ = select.select(
                [sock], [sock] if self._sending else [], [], until - now
            )
            try:
                if readable:
                    self._receive(sock)
                if writable and self._sending:
                    self._send(sock)
            except _NOT_NOW:
                continue

    # Sending.

    def _send(self, sock: socket.socket) -> None:
        try:
            sent = sock.send(bytes(min(self._unsent, _PIECE)))
        except _NOT_NOW:
            raise
        except OSError:  # a response may still have arrived
            self._broken = True
            self._stop_sending()
            return
        self._unsent -= sent
        if not self._unsent:
            self._stop_sending()

    def _stop_sending(self) -> None:
        if self._sending:
            self._sending = False
            self.timeline.append(events.BodySent(self._at(), self._sent, self._question.length))
            if self._complete_at is not None:
                self._complete_at = time.monotonic()

    @property
    def _sent(self) -> int:
        return self._question.length - self._unsent

    # Receiving.

    def _receive(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_PIECE)
        except _NOT_NOW:
            raise
        except ssl.SSLError as error:
            self._malformed(f"TLS: {error.reason}")
            return
        except OSError:
            self._closed("reset")
            return
        try:
            self._reader.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            if data:
                # After the colon h11 quotes what it read, which may be what we sent.
                self._malformed(str(error).partition(":")[0])
                return
        if not data:
            self._closed("reset" if self._broken else "end")

    def _read(self) -> None:
        while True:
            match self._reader.next_event():
                case h11.InformationalResponse() as interim:
                    self._interim(interim)
                case h11.Response() as final:
                    self._final(final)
                case h11.Data() as content:
                    self._content(bytes(content.data))
                case h11.EndOfMessage():
                    self._whole()
                case _:  # it needs more, or there is no more
                    return

    def _interim(self, interim: h11.InformationalResponse) -> None:
        fields = _fields(interim)
        self.timeline.append(
            events.Interim(self._at(), interim.status_code, _printable(interim.reason), fields)
        )
        if interim.status_code == 100 and self._complete_at is None:
            if self._question.manner is Manner.WAITS:
                self._complete_at = time.monotonic()
            elif self._unsent:
                self._sending = True

    def _final(self, final: h11.Response) -> None:
        fields = _fields(final)
        self.timeline.append(
            events.Final(
                self._at(),
                final.status_code,
                _printable(final.reason),
                tuple(field for field in fields if field[0].lower() in {"server", "via"}),
                _closes(final),
                self._sent,
            )
        )
        self._in_content = True
        self._size = 0
        self._tail = b""
        self._complete_at = None

    def _content(self, data: bytes) -> None:
        self._size += len(data)
        data = self._tail + data
        if _CONTINUE in data:
            self.timeline.append(events.ContinueInContent(self._at()))
        self._tail = data[-len(_CONTINUE) + 1 :]

    def _whole(self) -> None:
        self.timeline.append(events.Whole(self._at(), self._size))
        self._in_content = False
        self._complete_at = time.monotonic()
        rest, _ = self._reader.trailing_data
        self._reader = h11.Connection(h11.CLIENT)
        self._reader.send(self._request)
        if rest:
            self._reader.receive_data(rest)

    def _closed(self, by: Literal["end", "reset"]) -> None:
        self._stop_sending()
        if self._in_content or self._reader.trailing_data[0]:
            self.timeline.append(events.CutOff(self._at()))
        self.timeline.append(events.Closed(self._at(), by))
        self._done = True

    def _malformed(self, reason: str) -> None:
        self._stop_sending()
        self.timeline.append(events.Malformed(self._at(), reason))
        self._done = True

    def _at(self) -> float:
        return (time.monotonic() - self._start) * 1000


def _closes(response: h11.Response) -> bool:
    """Return whether the connection closes after this response (RFC 9112 section 9.3)."""
    options = {
        option.strip().lower()
        for name, value in response.headers
        if name == b"connection"
        for option in value.split(b",")
    }
    persists = response.http_version >= b"1.1" or b"keep-alive" in options
    return b"close" in options or not persists


def _fields(response: h11.InformationalResponse | h11.Response) -> events.Fields:
    return tuple(
        (_printable(name), "***" if name.decode().lower() in _SECRET else _printable(value))
        for name, value in response.headers.raw_items()
    )


def _printable(text: bytes) -> str:
    r"""Return text for a terminal: control and non-ASCII characters become \x... ."""
    return text.decode("latin-1").encode("unicode_escape").decode()
