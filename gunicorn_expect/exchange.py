"""One request on one connection: its expectation is opened here, and takes its effect here.

This is the only room that touches parts of gunicorn that are not documented for others. They are:

* ``RequestParser.mesg_class``, the class that a parser makes its requests of
* ``Request._policy_expect_continue``: false leaves the Expect field to us. gunicorn neither
  answers it while it builds the environ nor refuses values that it does not know.
* ``Request.headers``, ``.version``, ``.force_close()``: the head, and the end of the connection
* ``Request.body``, whose ``reader.length`` is 0 when there is no body, and whose ``failed`` tells
  ``Parser.finish_body()`` that the connection is lost
* ``Request.unreader``: ``.buf`` holds bytes that came behind the head, ``.unread()`` adds to them
* ``errors.ExpectationFailed``, which ``Worker.handle_error()`` answers with 417

and, of the workers, in ``workers/``: ``Worker.load_wsgi()`` and ``Worker.handle_request()``,
between which every request passes; ``ThreadWorker.enqueue_req()``, through which a connection goes
before its first byte is read; ``TConn.init()``, which makes its ``.parser``.

`require_gunicorn` looks for each of them when gunicorn starts.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import gunicorn
from gunicorn.http import body, errors, message, parser, unreader

from gunicorn_expect.body import Body
from gunicorn_expect.expectation import (
    Expectation,
    Headers,
    UnknownExpectationError,
    expects_continue,
)
from gunicorn_expect.version import __version__

if TYPE_CHECKING:
    from types import TracebackType

#: The most that is taken from the socket to see whether body bytes are here; gunicorn's own step.
ARRIVAL_SIZE: Final = 8192


def require_gunicorn(*hooks: tuple[type, str]) -> None:
    """Make sure that this gunicorn has what we rely on.

    Args:
        hooks: what a worker relies on besides, as pairs of a class and an attribute of it.

    Raises:
        RuntimeError: it lacks something. gunicorn prints the message and exits.

    """
    no_bytes = unreader.IterUnreader(())
    no_body = body.Body(body.LengthReader(no_bytes, 0))
    for owner, name in (
        (parser.RequestParser, "mesg_class"),
        (parser.RequestParser, "finish_body"),
        (message.Request, "_policy_expect_continue"),
        (message.Request, "force_close"),
        (no_body, "failed"),
        (no_body.reader, "length"),
        (no_bytes, "buf"),
        (no_bytes, "unread"),
        (errors, "ExpectationFailed"),
        *hooks,
    ):
        if not hasattr(owner, name):
            where = getattr(owner, "__name__", type(owner).__name__)
            raise RuntimeError(
                f"gunicorn_expect {__version__} can't work with gunicorn {gunicorn.__version__}, "
                f"which has no {where}.{name}; it needs gunicorn 27.0.0 or later"
            )


class Request(message.Request):
    """gunicorn's request, with the Expect field left to us."""

    _policy_expect_continue = False

    # Set by the time we see it.
    version: tuple[int, int]
    body: Any


def adopt(connection_parser: object) -> None:
    """Let this parser make requests of our class, if what it parses is HTTP/1."""
    # Not a subclass: uWSGI's protocol has no 100 Continue.
    if type(connection_parser) is parser.RequestParser:
        connection_parser.mesg_class = Request  # type: ignore[misc]  # of this one parser only


class Exchange:
    """A request that has a body, from its head to the end of its response."""

    def __init__(self, req: Request, sock: socket.socket, *, waits: bool) -> None:
        """Put our input in the place of gunicorn's; the client waits on this socket, or not."""
        self._req = req
        self._sock = sock
        self._expectation = Expectation(self if waits else None)
        if self._buffered():
            self._expectation.on_arrival()
        # gunicorn hands it to the application, and discards through it what is left.
        req.body = Body(req.body, self._expectation)

    def __enter__(self) -> None:
        """Begin: gunicorn builds the environ and calls the application."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: from here on gunicorn drains, or answers an error; neither may send a 100."""
        self._expectation.on_respond()

    # The wire, as the expectation knows it.

    def body_arrived(self) -> bool:
        """Look for body bytes without waiting; what comes is kept for the parser."""
        if self._buffered():
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
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(f"HTTP/1.1 100 Continue\r\n{fields}\r\n".encode("latin-1"))

    def close_after_response(self) -> None:
        """End the connection with the response.

        The client may now send the body or leave it out, and nobody can tell which. "The server
        MUST NOT process any further requests received on that connection" (RFC 9112 section 9.6).
        """
        self._req.force_close()

    def _buffered(self) -> bool:
        return bool(self._req.unreader.buf.getvalue())


def opened(req: Any, sock: socket.socket) -> Exchange | None:  # noqa: ANN401  of any parser
    """Open the exchange of a request that has a body; give None for one that has none.

    Raises:
        gunicorn.http.errors.ExpectationFailed: it expects what we don't know. gunicorn answers
            417 and closes the connection.

    """
    if type(req) is not Request:
        return None
    try:
        waits = expects_continue(req.headers)
    except UnknownExpectationError as error:
        raise errors.ExpectationFailed(str(error)) from None
    if getattr(req.body.reader, "length", None) == 0:
        # "A server MAY omit sending a 100 (Continue) response [...] if the framing indicates
        # that there is no content" (RFC 9110 section 10.1.1). botocore does not wait for it.
        return None
    # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore
    # that expectation" (RFC 9110 section 10.1.1).
    return Exchange(req, sock, waits=waits and req.version >= (1, 1))
