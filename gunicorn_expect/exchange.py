"""One request on one connection: its expectation is opened here, and takes its effect here.

This room, ``worker.py``, ``connection.py`` and ``workers/`` touch parts of gunicorn that are not
documented for others, and no other room does. Of its requests, and only in this room:

* ``RequestParser.mesg_class``, the class that a parser makes its requests of; ``.mesg``, the last
  one; ``.finish_body()``, which ends its body before the next one is read; ``.cfg``,
  ``.source_addr`` and ``.unreader``
* ``Request._policy_expect_continue``: false leaves the Expect field to us. gunicorn neither
  answers it while it builds the environ nor refuses values that it does not know.
* ``Request.method``, ``.path``, ``.headers``, ``.version``, ``.parse()``, ``.parse_headers()``,
  ``.trailers``, and the limits ``.limit_request_line``, ``.limit_request_fields``,
  ``.limit_request_field_size`` and ``.max_buffer_headers``
* ``Request.set_body_reader()``, which concludes from a whole head where the body ends
* ``Request.should_close()``: whether the client asks for that
* ``Request.force_close()``: the response says ``Connection: close``, and the connection ends
* ``Request.body``, which becomes ``wsgi.input``; its ``reader.length`` is that of the body, 0 when
  there is none, and chunks have no length
* ``Unreader.take_buffered()``, the bytes that came behind the head, ``.unread()``, which gives back
  those of the next request, ``.buf``, where they are, and ``.sock``, the connection
* ``errors.ExpectationFailed``, which ``Worker.handle_error()`` answers with 417
* of HTTP/2: ``HTTP2Request.method``, ``.path``, ``.content_length`` and ``.stream`` with its
  ``.stream_id``, ``.expect_continue``, ``.body_size``, ``.unacked_size``, ``.body_complete``,
  ``.disconnected`` and ``.pop_chunk()``;
  ``HTTP2ServerConnection.send_informational()``, ``.send_error()``, ``.receive_data()``, which
  takes what was received, ``.pump()``, ``.is_closed``, ``.sock``, ``.stream_timeout``,
  ``.pending_requests`` and ``._deferred_events``, frames that were received while a response waited

Of its workers:

* ``load_wsgi()``, which sets ``.wsgi``; ``run()``, the main loop, and ``handle_exit()``, which ends
  it; ``notify()``; ``handle_request()`` and ``handle_http2_request()``, in which the application is
  called
* gthread: ``.poller``, and ``wait_for_and_dispatch_events()``, a turn of its loop;
  ``enqueue_req()``, through which a connection goes before its first byte is read;
  ``get_thread_pool()``, which makes ``.tpool``; ``handle()``, which gives True when the connection
  is kept;
  ``TConn``, whose attributes make another one, ``.cfg``, ``.sock``, ``.client`` and ``.server``
  among them, ``.init()``, which makes its ``.parser`` and is ``.initialized`` then, and
  ``.close()``; ``finish_request()``, ``handle_h2c_upgrade()`` and ``_keepalive_after()``
* in ``workers/inline.py``: ``wsgi.create()``, which makes environ and response,
  ``Response.start_response()``, ``.write()`` and ``.close()``; ``.nr``, which counts requests, and
  ``.max_requests``
* gevent and sync: ``handle()``, which serves a connection; ``timeout_ctx()``, ``handle_http2()``
  and ``_try_h2c_upgrade()`` of gevent
* in ``connection.py``, what their ``handle()`` is made of: ``http.get_parser()``,
  ``sock.ssl_wrap_socket()``, ``sock.is_http2_negotiated()``, ``http2.negotiation``,
  ``Worker.handle_error()``

`require_gunicorn` looks for each of them when gunicorn starts, but not for the last four: only a
connection has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import operator
import pkgutil
import socket
import time
import types
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import gunicorn
from gunicorn.config import Config
from gunicorn.http import errors, message, parser, unreader

from gunicorn_expect.body import Body
from gunicorn_expect.errors import BodyTimeout, ClientDisconnected, ContentTooLarge, MalformedBody
from gunicorn_expect.expectation import (
    NOBODY_WAITS,
    Expectation,
    State,
    UnknownExpectationError,
    expects_continue,
)
from gunicorn_expect.framing import Chunked, Framing, Sized
from gunicorn_expect.front import PIECE
from gunicorn_expect.head import Head, Limits, TooLargeError
from gunicorn_expect.receiver import FILL_SIZE, Allowance, Receiver
from gunicorn_expect.record import Record
from gunicorn_expect.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from gunicorn.http2.connection import HTTP2ServerConnection

    from gunicorn_expect.expectation import Wire
    from gunicorn_expect.fields import Headers
    from gunicorn_expect.settings import Settings

_RELIED_ON: Final = (
    "gunicorn.http.parser:RequestParser.mesg_class",
    "gunicorn.http.parser:RequestParser.finish_body",
    "gunicorn.http.message:Request._policy_expect_continue",
    "gunicorn.http.message:Request.parse",
    "gunicorn.http.message:Request.parse_headers",
    "gunicorn.http.message:Request.set_body_reader",
    "gunicorn.http.message:Request.should_close",
    "gunicorn.http.message:Request.force_close",
    "gunicorn.http.unreader:Unreader.unread",
    "gunicorn.http.unreader:Unreader.take_buffered",
    "gunicorn.http.errors:ExpectationFailed",
    "gunicorn.http2.stream:HTTP2Stream",
    "gunicorn.http2.request:HTTP2Request.content_length",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_informational",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_error",
    "gunicorn.http2.connection:HTTP2ServerConnection.receive_data",
    "gunicorn.http2.connection:HTTP2ServerConnection.pump",
    "gunicorn.http2.connection:HTTP2ServerConnection.is_closed",
    "gunicorn.http2.negotiation:prior_knowledge_allowed",
    "gunicorn.http2.negotiation:read_preface_blocking",
    "gunicorn.http2.negotiation:mismatch_is_error",
    "gunicorn.http:get_parser",
    "gunicorn.sock:ssl_wrap_socket",
    "gunicorn.sock:is_http2_negotiated",
    "gunicorn.workers.base:Worker.handle_error",
)
#: What only an object of it has.
_RELIED_ON_IN_A_REQUEST: Final = (
    "method",
    "path",
    "headers",
    "version",
    "limit_request_line",
    "limit_request_fields",
    "limit_request_field_size",
    "max_buffer_headers",
    "body.reader.length",
)
_RELIED_ON_IN_A_PARSER: Final = ("cfg", "source_addr", "mesg", "unreader.buf", "unreader.sock")
_RELIED_ON_IN_A_STREAM: Final = (
    "stream_id",
    "expect_continue",
    "body_size",
    "unacked_size",
    "body_complete",
    "disconnected",
    "pop_chunk",
)

#: How often a connection of HTTP/2 is received from to look for a frame that may be here. Over TLS
#: a call gives one record, and other frames may come before it: a few acknowledgements, mostly.
LOOKS: Final = 16


def require_gunicorn(*hooks: str) -> None:
    """Make sure that this gunicorn has what we rely on.

    Args:
        hooks: what a worker relies on besides, as ``module:Class.attribute``.

    Raises:
        RuntimeError: it lacks something. gunicorn prints the message and exits.

    """
    try:
        for name in (*_RELIED_ON, *hooks):
            pkgutil.resolve_name(name)
        head = unreader.IterUnreader((b"GET / HTTP/1.1\r\n\r\n",))
        a_request = message.Request(Config(), head, ("", 0))
        of_no_connection = types.SimpleNamespace(initial_window_size=0)
        stream_class = pkgutil.resolve_name("gunicorn.http2.stream:HTTP2Stream")
        with socket.socket() as sock:
            for thing, names in (
                (a_request, _RELIED_ON_IN_A_REQUEST),
                (parser.RequestParser(Config(), sock, ("", 0)), _RELIED_ON_IN_A_PARSER),
                (stream_class(1, of_no_connection), _RELIED_ON_IN_A_STREAM),
            ):
                for name in names:
                    operator.attrgetter(name)(thing)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"gunicorn_expect {__version__} can't work with gunicorn {gunicorn.__version__}, "
            f"which has no {name}; it needs gunicorn 27.0.0 or later"
        ) from error


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a worker grants the clients of its exchanges."""

    limits: Settings
    discard: Callable[[socket.socket], object]
    """Begins to throw away what comes on a connection whose response is being written."""
    record: Record = dataclasses.field(default_factory=Record)
    """Told what became of an exchange."""
    head_limits: Limits = dataclasses.field(default_factory=Limits)
    """Limits of request heads."""


class Request(message.Request):
    """gunicorn's request, whose Expect field and whose body are ours."""

    _policy_expect_continue = False

    # What there is to receive it from, if it has a body.
    receiver: Receiver | None = None

    # Set by the time we see it.
    version: tuple[int, int]
    body: Any
    unreader: Any

    def should_close(self) -> bool:
        """Return whether the connection ends with the response.

        "A server that receives a "close" connection option MUST initiate closure of the connection
        [...] after it sends the final response to the request that contained the "close" connection
        option" (RFC 9112 section 9.6), in any field and in a list. gunicorn knows it alone in the
        first one.
        """
        for name, value in self.headers:
            if name == "CONNECTION" and _has_close(value):
                return True
        return bool(super().should_close())


def _has_close(options: str) -> bool:
    return "close" in (option.strip(" \t") for option in options.lower().split(","))


def is_plain_http(cfg: Any) -> bool:
    """Tell whether what comes first on a connection is the head of a request, or HTTP/2's preface.

    And not TLS, the PROXY protocol, or uwsgi's.
    """
    return not cfg.is_ssl and cfg.proxy_protocol == "off" and cfg.protocol == "http"


def prior_knowledge(cfg: Config) -> Callable[[Any], bool]:
    """Give what tells whether the peer at an address may begin with HTTP/2's preface."""
    # Not at the top: a gunicorn that has no HTTP/2 is to be refused in words.
    from gunicorn.http2 import negotiation

    return partial(negotiation.prior_knowledge_allowed, cfg)


def head_limits(cfg: Config) -> Limits:
    """Return the limits of request heads, by gunicorn's settings.

    Raises:
        RuntimeError: ``http_parser`` is "fast" and that parser is missing, too old, or can't do
            what other settings ask for. gunicorn would answer each request with 500.

    """
    if cfg.protocol != "http":
        return Limits()  # it has no such heads, and no use for their parser
    empty: Any = _Empty(cfg, unreader.IterUnreader(()), ("", 0))
    return Limits(
        # 0 means no limit, but the fast parser has one of 1 MiB. So from there on it is asked.
        line=empty.limit_request_line or 1024 * 1024,
        fields=empty.limit_request_fields,
        field=empty.limit_request_field_size,
        all_fields=empty.max_buffer_headers,
        proxy=cfg.proxy_protocol,
    )


class _Lines(message.Request):
    """The lines of a head that isn't whole: the framing can't be known yet."""

    _policy_expect_continue = False

    def set_body_reader(self) -> None:
        """Conclude nothing: a header field that says more may follow."""


class _Empty(_Lines):
    """A request of which nothing has come. It has gunicorn's limits."""

    def parse(self, unreader: Any) -> bytes:  # noqa: ARG002  it would want a head
        """Read nothing."""
        return b""


class _NotWholeError(Exception):
    """The parser wants more than there is."""


class _Unreader(unreader.SocketUnreader):
    """gunicorn's, for a parser that is given whole heads: it never waits for the client."""

    def chunk(self, size_hint: int | None = None) -> bytes:  # noqa: ARG002
        """Raise _NotWholeError: nothing more has come."""
        raise _NotWholeError


class Parser(parser.RequestParser):
    """gunicorn's parser of a connection's requests, which opens their exchanges."""

    mesg_class = Request
    mesg: Request | None
    unreader: Any

    def __init__(
        self,
        cfg: Config,
        sock: socket.socket,
        peer: Any,
        terms: Terms,
        waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Parse what comes on this connection from this peer; enter ``waiting`` to wait for it."""
        super().__init__(cfg, (), peer)
        self.unreader = _Unreader(sock)
        self._terms = terms
        self._waiting = waiting
        self._head: Head[Request] = Head(terms.head_limits)
        # The next request, if it is parsed already, or what parsing it has raised.
        self._ahead: Request | Exception | None = None

    def offer(self, piece: bytes) -> bool:
        """Take what has come of the next head, without waiting for the rest.

        Return whether `next` has a request to give, or an error to raise.
        """
        try:
            self._ahead = self._head.feed(piece, self)
        except TooLargeError:
            self._ahead = errors.LimitRequestHeaders("max buffer headers")
        except Exception as error:  # noqa: BLE001  it is for who asks for the request
            self._ahead = error
        return self._ahead is not None

    def end(self) -> bool:
        """Take it that the client sends no more. Return whether `next` has an error to raise."""
        try:
            self._head.end(self)
        except Exception as error:  # noqa: BLE001  as in `offer`
            self._ahead = error
        return self._ahead is not None

    def pass_empty_line(self) -> None:
        """Take a CRLF that came behind the last request: it is not the beginning of the next."""
        if self.unreader.buf.getvalue() == b"\r\n":
            self.offer(self.unreader.take_buffered())

    def take_back(self) -> None:
        """Let what was offered of an unfinished head be what is read next."""
        if self.has_begun:
            self.unreader.unread(self._head.take())

    @property
    def ahead(self) -> Request | None:
        """The request that `next` will give, if it will."""
        return None if isinstance(self._ahead, Exception) else self._ahead

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next head was offered."""
        return self._head.has_begun

    def __next__(self) -> Request:
        """Return the next request when its head is here, with its exchange open if it has a body.

        Raises:
            gunicorn.http.errors.ExpectationFailed: it expects what we don't know. gunicorn answers
                417 and closes the connection.

        """
        if self._ahead is None:
            self._receive_head()
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Request):
            return ahead
        raise ahead or StopIteration

    def _receive_head(self) -> None:
        """Wait for the next head. StopIteration, NoMoreData: none comes, or only a part."""
        if (self.mesg and self.mesg.should_close()) or not self.finish_body():
            raise StopIteration
        piece = self.unreader.take_buffered()
        while not (piece and self.offer(piece)):
            piece = self.unreader.sock.recv(PIECE)
            if not piece:
                if self.end():
                    return
                raise errors.NoMoreData if self.has_begun else StopIteration

    # What the head asks, see `gunicorn_expect.head.Parser`.

    def judge(self, data: bytes) -> None:
        """Raise gunicorn's error if these lines can't begin a request."""
        came = unreader.IterUnreader((data,))
        with contextlib.suppress(errors.NoMoreData):
            _Lines(self.cfg, came, self.source_addr, self.req_count + 1)

    def parse(self, data: bytes) -> tuple[Request, int] | None:
        """Return the next request, its exchange open, and how many bytes follow its head."""
        self.unreader.unread(data)
        try:
            req: Request = super().__next__()  # type: ignore[assignment]
        except _NotWholeError:
            self.req_count -= 1
            return None
        behind = self.unreader.buf.getbuffer().nbytes
        waits = False
        for name, _ in req.headers:
            if name == "EXPECT":
                # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST
                # ignore that expectation" (RFC 9110 section 10.1.1).
                waits = _expects_continue(req.headers) and req.version >= (1, 1)
                break
        # "A server MAY omit sending a 100 (Continue) response [...] if the framing indicates that
        # there is no content" (RFC 9110 section 10.1.1), and botocore, which sends an expectation
        # with an empty body, does not wait.
        length = getattr(req.body.reader, "length", None)
        if length != 0:
            self._open(req, length, waits=waits)
        return req, behind

    # the stubs of gunicorn know a finish_body that gives nothing
    def finish_body(  # type: ignore[override]
        self,
        deadline: float | None = None,
        max_bytes: int | None = None,  # noqa: ARG002  what is too long was not to be kept
    ) -> bool:
        """Throw away what is left of the last request's body; True: another one may follow."""
        req = self.mesg
        # Most requests have none: they are not to pay for the looking.
        if req is None or req.receiver is None:
            return True
        followed: bool = req.body.finish(deadline)
        req.receiver.close()
        self.unreader.unread(req.receiver.ahead)
        req.receiver = None
        return followed

    def _open(self, req: Request, length: int | None, *, waits: bool) -> None:
        sock = self.unreader.sock
        behind = self.unreader.take_buffered()
        if length is not None:
            self.unreader.unread(behind[length:])  # of the next request
            behind = behind[:length]
        receiver = req.receiver = Receiver(
            sock,
            behind,
            timeout=self._terms.limits.expect_body_timeout,
            min_rate=self._terms.limits.expect_min_rate,
            waiting=self._waiting,
        )

        framing: Framing
        if length is not None:
            framing = Sized(receiver, length)
        else:
            limits = req.limit_request_field_size, req.max_buffer_headers
            framing = Chunked(receiver, *limits, on_trailers=partial(_parse_trailers, req))
        wire = ConnectionWire(req, sock, framing, self._terms)
        expectation = NOBODY_WAITS
        if waits:
            expectation = _expectation(req, length, wire, self._terms, arrived=bool(behind))
        req.body = Body(framing, expectation, wire, self._terms.record.failed)


def _parse_trailers(req: Request, lines: bytes) -> None:
    try:
        req.trailers = req.parse_headers(lines.removesuffix(b"\r\n"), from_trailer=True)
    except errors.ParseException as error:
        # Its own words quote the line.
        raise MalformedBody(f"the trailer section is malformed: {type(error).__name__}") from None


def adopt(
    connection_parser: Any,
    terms: Terms,
    waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Any:
    """Give a parser that goes on where this one is; the same one if it is not for HTTP/1."""
    if isinstance(connection_parser, parser.RequestParser):
        other: Any = connection_parser
        adopted = Parser(other.cfg, other.unreader.sock, other.source_addr, terms, waiting)
        adopted.unreader.unread(other.unreader.take_buffered())
        return adopted
    return connection_parser


def has_body(req: Any) -> bool:
    """Tell whether an HTTP/1 request has a body, and so an exchange."""
    return isinstance(req.body, Body)


def is_awaited(req: Any) -> bool:
    """Tell whether the client of an HTTP/1 request waits for a word, as far as it is known."""
    return has_body(req) and req.body.expectation.state is State.PENDING


def leave(req: Any) -> None:
    """Let no thread receive the body of a request any more: its connection is to be closed."""
    receiver: Receiver | None = getattr(req, "receiver", None)
    if receiver is not None:
        receiver.end()


def is_on_its_way(req: Any) -> bool:
    """Tell whether bytes of an HTTP/1 request's body may still come."""
    return has_body(req) and not req.body.ended


def _expects_continue(headers: Headers) -> bool:
    try:
        return expects_continue(headers)
    except UnknownExpectationError as error:
        raise errors.ExpectationFailed(str(error)) from None


def _expectation(
    req: Any, length: int | None, wire: Wire, terms: Terms, *, arrived: bool
) -> Expectation:
    # Not the request itself: it has the expectation.
    on_decided = partial(terms.record.decided, req.method, req.path, length)
    return Expectation(wire, arrived=arrived, on_decided=on_decided)


class ConnectionWire:
    """An HTTP/1 connection, as an expectation and a body know it."""

    def __init__(self, req: Request, sock: socket.socket, framing: Framing, terms: Terms) -> None:
        """Belong to this request."""
        self._req = req
        self._sock = sock
        self._framing = framing
        self._terms = terms

    def body_arrived(self) -> bool:
        """Look for body bytes without waiting; what comes is kept."""
        return self._framing.arrived()

    def send_continue(self, headers: Headers) -> None:
        """Send the 100 at once. ClientDisconnected: nobody is there."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        if self._sock.family in (socket.AF_INET, socket.AF_INET6):
            # Nagle's algorithm would hold it back while the last response is not acknowledged.
            # gunicorn asks for this on listening sockets; not every system hands it down.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._sock.sendall(f"HTTP/1.1 100 Continue\r\n{fields}\r\n".encode("latin-1"))
        except OSError as error:
            raise ClientDisconnected(f"the client is gone: {error}") from error

    def close_after_response(self) -> None:
        """End the connection with the response.

        The client may now send the body or leave it out, and nobody can tell which. "The server
        MUST NOT process any further requests received on that connection" (RFC 9112 section 9.6).
        """
        self._req.force_close()

    def discard(self) -> None:
        """Let what comes be thrown away while the response is written."""
        self._terms.discard(self._sock)


def open_stream(req: Any, connection: HTTP2ServerConnection, terms: Terms) -> bool:
    """Open the exchange of an HTTP/2 request, if it has a body.

    Tell whether the request is to be handled. If not it has been answered: it expects what we
    don't know.
    """
    stream = req.stream
    stream.expect_continue = False  # gunicorn's body would send a 100 of its own
    try:
        waits = _expects_continue(req.headers)
    except errors.ExpectationFailed as error:
        connection.send_error(stream.stream_id, 417, str(error))
        return False
    if req.content_length != 0 and not (stream.body_complete and not stream.body_size):
        frames = Frames(stream, connection, terms.limits)
        wire = StreamWire(frames)
        expectation = NOBODY_WAITS
        if waits:
            arrived = frames.have_come
            expectation = _expectation(req, req.content_length, wire, terms, arrived=arrived)
        req.body = Body(StreamFraming(frames), expectation, wire, terms.record.failed)
    return True


class Frames:
    """The frames of one stream of an HTTP/2 connection, until its body is read.

    gunicorn receives those of a connection by a call that may wait, and each frame of it starts
    the time anew. So they are received here, and given to gunicorn.
    """

    def __init__(self, stream: Any, connection: Any, limits: Settings) -> None:
        """Receive for this stream; what comes for others waits for its turn, as in gunicorn."""
        # Not at the top: a gunicorn that has no HTTP/2 is to be refused in words.
        from gunicorn.http2.errors import HTTP2Error
        from h2.exceptions import ProtocolError

        self._lost = (HTTP2Error, ProtocolError)
        self._stream = stream
        self._connection = connection
        self._timeout = limits.expect_body_timeout or math.inf
        self._allowance = Allowance(limits.expect_body_timeout, limits.expect_min_rate)
        self._receiver: Receiver | None = None

    @property
    def have_come(self) -> bool:
        """Whether frames of the body have come."""
        return bool(self._stream.body_size or self._stream.body_complete)

    def look(self) -> bool:
        """Tell, without waiting, whether frames of the body have come.

        Raises:
            ClientDisconnected: the stream was reset, or its connection is lost.

        """
        self._receive_what_is_here()
        return self.have_come

    def next(self) -> bytes:
        """Return the bytes of the next DATA frame; ``b""`` at the end of the body.

        Raises:
            ClientDisconnected: the stream was reset, or its connection is lost.
            BodyTimeout: the client sends too little of this body, whatever else it sends.

        """
        since = time.monotonic()
        self._allowance.came = self._stream.body_size
        late = since + min(self._timeout, self._allowance.left)
        self._receive_what_is_here()  # before the clock is looked at: what is whole is never late
        while not self._is_here():
            seconds = late - time.monotonic()
            if seconds <= 0:
                raise self._late(since)
            with contextlib.suppress(BodyTimeout):
                self._receive(seconds)
        self._allowance.waited += time.monotonic() - since
        with self._failing():
            return bytes(self._stream.pop_chunk() or b"")

    def send_continue(self, headers: Headers) -> None:
        """Send an informational HEADERS frame. ClientDisconnected: nobody is there."""
        with self._failing():
            self._connection.send_informational(self._stream.stream_id, 100, list(headers))

    def _is_here(self) -> bool:
        return bool(self._stream.body_complete or self._stream.unacked_size)

    def _receive_what_is_here(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(LOOKS):
                if self._is_here():
                    break
                self._receive(0)

    def _receive(self, seconds: float) -> None:
        """Receive what comes next on the connection within so many seconds.

        Raises:
            BlockingIOError, BodyTimeout: nothing did.

        """
        connection = self._connection
        if self._receiver is None:
            # As gunicorn does when it waits for a body: it is for what is sent meanwhile, too.
            connection.sock.settimeout(connection.stream_timeout)
            self._receiver = Receiver(connection.sock, ticks=False)
        with self._failing():
            if connection._deferred_events:  # noqa: SLF001  they came while the response waited
                connection.pump(self._stream.stream_id)
            elif not self._is_gone():
                self._receiver.patience = seconds
                data = self._receiver.receive(FILL_SIZE)
                connection.pending_requests.extend(connection.receive_data(data))
        if self._is_gone() and not self._is_here():
            raise ClientDisconnected("the stream or its connection was closed before the end")

    def _is_gone(self) -> bool:
        return bool(self._stream.disconnected or self._connection.is_closed)

    def _late(self, since: float) -> BodyTimeout:
        waited = time.monotonic() - since
        self._allowance.waited += waited
        if waited >= self._timeout:
            return BodyTimeout(f"no DATA came on the stream for {self._timeout:g} s")
        return self._allowance.used_up()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            raise ClientDisconnected(f"the body ended early: {error}") from error


class StreamWire:
    """An HTTP/2 stream, as an expectation knows it."""

    def __init__(self, frames: Frames) -> None:
        """Belong to the request of this stream."""
        self._frames = frames

    def body_arrived(self) -> bool:
        """Look for DATA frames without waiting; what comes is kept."""
        return self._frames.look()

    def send_continue(self, headers: Headers) -> None:
        """Send the 100 at once. ClientDisconnected: nobody is there."""
        self._frames.send_continue(headers)

    def close_after_response(self) -> None:
        """Leave it to gunicorn: the stream ends, the connection lives.

        "a server MAY request that the client abort transmission of a request without error by
        sending a RST_STREAM with an error code of NO_ERROR after sending a complete response"
        (RFC 9113 section 8.1), and gunicorn does so for every body that was not read to its end.
        """

    def discard(self) -> None:
        """Leave it to gunicorn, too."""


class StreamFraming:
    """The body of an HTTP/2 stream."""

    def __init__(self, frames: Frames) -> None:
        """Read what these hold."""
        self._frames = frames
        self._ahead = b""  # of a frame
        self._came = 0
        self._most: float = math.inf

    @property
    def ended(self) -> bool:
        """Leave it to gunicorn: a stream that ends leaves its connection alone."""
        return True

    def read(self, size: int, *, whole: bool = False) -> bytes:  # noqa: ARG002  one frame will do
        """Read up to ``size`` bytes of a frame, and at least one; ``b""`` at the end of the body.

        Raises:
            ClientDisconnected: the stream was reset, or its connection broke.
            BodyTimeout: the client sends too little.
            ContentTooLarge: there is more than it is limited to.

        """
        if not self._ahead:
            self._ahead = self._frames.next()
            self._came += len(self._ahead)
            if self._came > self._most:
                raise ContentTooLarge(int(self._most))
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def read_into(self, view: memoryview) -> int:
        """Read as many bytes as this has room for, or fewer; 0 at the end. Raises as `read`."""
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read_what_is_here(self) -> tuple[bytes, bool]:
        """Read nothing: a stream that ends leaves its connection alone."""
        return b"", True

    def drain(self, deadline: float) -> None:
        """Leave it to gunicorn."""

    def follow_up(self) -> None:
        """Leave it: a stream has one body."""

    def limit(self, size: int) -> None:
        """Allow no more than this, nor than an earlier limit: the head may not have told."""
        self._most = min(self._most, size)
