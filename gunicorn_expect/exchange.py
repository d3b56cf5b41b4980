"""One request on one connection: its expectation is opened here, and takes its effect here.

This room, ``connection.py`` and ``workers/`` touch parts of gunicorn that are not documented for
others, and no other room does. Of its requests, and only in this room:

* ``RequestParser.mesg_class``, the class that a parser makes its requests of; ``.mesg``, the last
  one; ``.finish_body()``, which discards what is left of its body; ``.cfg``, ``.source_addr`` and
  ``.unreader``
* ``Request._policy_expect_continue``: false leaves the Expect field to us. gunicorn neither
  answers it while it builds the environ nor refuses values that it does not know.
* ``Request.set_body_reader()``, called when the head is known, ``.headers``, ``.version``
* ``Request.force_close()``: the response says ``Connection: close``, and the connection ends
* ``Request.body``, which becomes ``wsgi.input``; its ``reader.length`` is 0 when there is none
* ``Request.unreader``: ``.buf`` holds bytes that came behind the head, ``.unread()`` adds to them,
  ``.sock`` is the connection
* ``Body.failed``: gunicorn reads no further request behind a body whose framing broke
* ``errors.ExpectationFailed``, which ``Worker.handle_error()`` answers with 417
* of HTTP/2: ``HTTP2Request.content_length``, ``.stream`` with its ``.expect_continue``,
  ``.body_size`` and ``.body_complete``; ``HTTP2ServerConnection.send_informational()`` and
  ``.send_error()``

Of its workers:

* ``load_wsgi()``, which sets ``.wsgi``; ``run()``, the main loop, and ``handle_exit()``, which ends
  it; ``notify()``; ``handle_http2_request()``, in which the application is called
* gthread: ``.poller``, and ``wait_for_and_dispatch_events()``, a turn of its loop;
  ``enqueue_req()``, through which a connection goes before its first byte is read;
  ``TConn(cfg, sock, client, server)`` with attributes of these names, ``.init()``, which makes its
  ``.parser`` and is ``.initialized`` then, and ``.close()``; ``handle_h2c_upgrade()`` and
  ``_keepalive_after()``
* gevent and sync: ``handle()``, which serves a connection, and ``handle_request()``;
  ``timeout_ctx()``, ``handle_http2()`` and ``_try_h2c_upgrade()`` of gevent
* in ``connection.py``, what their ``handle()`` is made of: ``http.get_parser()``,
  ``sock.ssl_wrap_socket()``, ``sock.is_http2_negotiated()``, ``http2.negotiation``,
  ``Worker.handle_error()``

`require_gunicorn` looks for each of them when gunicorn starts.
"""

from __future__ import annotations

import operator
import pkgutil
import select
import socket
import ssl
import types
from typing import TYPE_CHECKING, Any, Final

import gunicorn
from gunicorn.config import Config
from gunicorn.http import errors, message, parser, unreader

from gunicorn_expect.body import Body
from gunicorn_expect.expectation import (
    Expectation,
    Headers,
    UnknownExpectationError,
    expects_continue,
)
from gunicorn_expect.version import __version__

if TYPE_CHECKING:
    from gunicorn.http2.connection import HTTP2ServerConnection

#: The most that is taken from the socket to see whether body bytes are here; gunicorn's own step.
ARRIVAL_SIZE: Final = 8192

#: Seconds that a read waits for a body that was not asked for. The patience of clients that send
#: one all the same is 1 s (curl, Go) to 3 s; gunicorn's threads wait 5 s for the first bytes of
#: a connection.
UNINVITED_TIMEOUT: Final = 5.0


_RELIED_ON: Final = (
    "gunicorn.http.parser:RequestParser.mesg_class",
    "gunicorn.http.parser:RequestParser.finish_body",
    "gunicorn.http.message:Request._policy_expect_continue",
    "gunicorn.http.message:Request.set_body_reader",
    "gunicorn.http.message:Request.force_close",
    "gunicorn.http.unreader:Unreader.unread",
    "gunicorn.http.errors:ExpectationFailed",
    "gunicorn.http2.request:HTTP2Request.content_length",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_informational",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_error",
    "gunicorn.http2.negotiation:prior_knowledge_allowed",
    "gunicorn.http2.negotiation:read_preface_blocking",
    "gunicorn.http2.negotiation:mismatch_is_error",
    "gunicorn.http:get_parser",
    "gunicorn.sock:ssl_wrap_socket",
    "gunicorn.sock:is_http2_negotiated",
    "gunicorn.workers.base:Worker.handle_error",
)
_RELIED_ON_IN_A_REQUEST: Final = (
    "headers",
    "version",
    "unreader.buf",
    "body.failed",
    "body.reader.length",
)
_RELIED_ON_IN_A_STREAM: Final = ("expect_continue", "body_size", "body_complete")


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
        req = message.Request(Config(), head, ("", 0))
        for name in _RELIED_ON_IN_A_REQUEST:
            operator.attrgetter(name)(req)
        of_no_connection = types.SimpleNamespace(initial_window_size=0)
        stream = pkgutil.resolve_name("gunicorn.http2.stream:HTTP2Stream")(1, of_no_connection)
        for name in _RELIED_ON_IN_A_STREAM:
            operator.attrgetter(name)(stream)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"gunicorn_expect {__version__} can't work with gunicorn {gunicorn.__version__}, "
            f"which has no {name}; it needs gunicorn 27.0.0 or later"
        ) from error


class Request(message.Request):
    """gunicorn's request, whose Expect field and whose body are ours.

    Raises:
        gunicorn.http.errors.ExpectationFailed: it expects what we don't know. gunicorn answers
            417 and closes the connection.

    """

    _policy_expect_continue = False

    # Set by the time we see it.
    version: tuple[int, int]
    body: Any
    unreader: Any

    def set_body_reader(self) -> None:
        """Open the exchange, if there is a body; gunicorn calls this when it has the head."""
        super().set_body_reader()
        waits = False
        for name, _ in self.headers:
            if name == "EXPECT":
                # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST
                # ignore that expectation" (RFC 9110 section 10.1.1).
                waits = _expects_continue(self.headers) and self.version >= (1, 1)
                break
        # "A server MAY omit sending a 100 (Continue) response [...] if the framing indicates that
        # there is no content" (RFC 9110 section 10.1.1), and botocore, which sends an expectation
        # with an empty body, does not wait.
        if getattr(self.body.reader, "length", None) != 0:
            self.body = Body(self.body, Expectation(ConnectionWire(self) if waits else None))


class Parser(parser.RequestParser):
    """gunicorn's parser of a connection's requests, which makes them of our class."""

    mesg_class = Request

    @classmethod
    def instead_of(cls, other: Any) -> Any:
        """Give a parser that goes on where this one is; the same one if it is not for HTTP/1."""
        if not isinstance(other, parser.RequestParser):
            return other
        ours = cls(other.cfg, (), other.source_addr)
        ours.unreader = other.unreader
        return ours

    # the stubs of gunicorn know a finish_body that gives nothing
    def finish_body(  # type: ignore[override]
        self, deadline: float | None = None, max_bytes: int | None = None
    ) -> bool:
        """Discard what is left of the body of the last request; True: another one may follow."""
        # Most requests have none: they are not to pay for the looking.
        if self.mesg is None or not has_body(self.mesg):
            return True
        return bool(super().finish_body(deadline, max_bytes))


def has_body(req: Any) -> bool:
    """Tell whether an HTTP/1 request has a body, and so an exchange."""
    return isinstance(req.body, Body)


def _expects_continue(headers: Headers) -> bool:
    try:
        return expects_continue(headers)
    except UnknownExpectationError as error:
        raise errors.ExpectationFailed(str(error)) from None


def open_stream(req: Any, connection: HTTP2ServerConnection) -> bool:
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
        wire = StreamWire(stream, connection) if waits else None
        req.body = Body(req.body, Expectation(wire))
    return True


class ConnectionWire:
    """An HTTP/1 connection, as an expectation knows it."""

    def __init__(self, req: Request) -> None:
        """Belong to this request."""
        self._req = req
        self._sock = req.unreader.sock
        self._came_uninvited = False

    def body_arrived(self) -> bool:
        """Look for body bytes without waiting; what comes is kept for the parser."""
        if self._req.unreader.buf.getvalue():
            return True
        # Not MSG_PEEK: a TLS socket has none.
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            data = self._sock.recv(ARRIVAL_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._sock.settimeout(timeout)
        self._req.unreader.unread(data)
        return bool(data)

    def send_continue(self, headers: Headers) -> None:
        """Send the 100 at once."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        if self._sock.family in (socket.AF_INET, socket.AF_INET6):
            # Nagle's algorithm would hold it back while the last response is not acknowledged.
            # gunicorn asks for this on listening sockets; not every system hands it down.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(f"HTTP/1.1 100 Continue\r\n{fields}\r\n".encode("latin-1"))

    def close_after_response(self) -> None:
        """End the connection with the response.

        The client may now send the body or leave it out, and nobody can tell which. "The server
        MUST NOT process any further requests received on that connection" (RFC 9112 section 9.6).
        """
        self._req.force_close()

    def await_uninvited(self) -> None:
        """Wait for the first body bytes from a client that has its answer.

        Raises:
            TimeoutError: none came. Most clients don't send a body that was not asked for.

        """
        if self._came_uninvited:
            return
        if not self._req.unreader.buf.getvalue() and not _readable(self._sock, UNINVITED_TIMEOUT):
            raise TimeoutError(
                "the answer began before the body was asked for, and the client did not send it: "
                "read wsgi.input, or call proceed(), before the first byte of the answer"
            )
        self._came_uninvited = True


class StreamWire:
    """An HTTP/2 stream, as an expectation knows it."""

    def __init__(self, stream: Any, connection: HTTP2ServerConnection) -> None:
        """Belong to the request of this stream."""
        self._stream = stream
        self._connection = connection

    def body_arrived(self) -> bool:
        """Tell whether DATA frames came. Those on the socket are not seen: to read is to wait."""
        return bool(self._stream.body_size or self._stream.body_complete)

    def send_continue(self, headers: Headers) -> None:
        """Send an informational HEADERS frame."""
        self._connection.send_informational(self._stream.stream_id, 100, list(headers))

    def close_after_response(self) -> None:
        """Leave it to gunicorn: the stream ends, the connection lives.

        "a server MAY request that the client abort transmission of a request without error by
        sending a RST_STREAM with an error code of NO_ERROR after sending a complete response"
        (RFC 9113 section 8.1), and gunicorn does so for every body that was not read to its end.
        """

    def await_uninvited(self) -> None:
        """Leave it to gunicorn, which waits for frames no longer than its ``timeout``."""


def _readable(sock: socket.socket, timeout: float) -> bool:
    """Wait for bytes without touching the timeout of the socket: another thread may be sending."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(timeout * 1000))
