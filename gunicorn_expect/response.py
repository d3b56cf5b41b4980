"""The response of one request: gunicorn's, whose first byte settles the exchange.

"The start_response callable must not actually transmit the response headers. Instead, it must
store them for the server or gateway to transmit only after the first iteration of the application
return value that yields a non-empty bytestring, or upon the application's first invocation of the
write() callable" (PEP 3333). So an application that has called start_response and then reads the
body has still asked for it, and what the head says of the connection is decided when it goes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gunicorn_expect import host
from gunicorn_expect.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import OptExcInfo

    from gunicorn_expect.exchange import Exchange


class _Settling:
    """What a response does besides gunicorn's, over HTTP/1 and HTTP/2."""

    # gunicorn's response.
    status: Any
    headers: Any
    headers_sent: Any
    response_length: Any
    chunked: Any
    upgrade: Any
    must_close: Any
    _omits_body: Any

    #: The upload of its request; None: the request has no body.
    exchange: Exchange | None = None
    #: Called when the response starts.
    on_start: Callable[[], object]
    #: Whether all of it is known, so that the application will not read any more.
    complete = False

    def start_response(self, status: str, headers: Any, exc_info: OptExcInfo | None = None) -> Any:
        """Note status and header fields, as PEP 3333 describes it.

        Raises:
            ValueError: the status is a 1xx, which is not final.

        """
        # A 101 does end the exchange, but "if a server receives both an Upgrade and an Expect
        # header field with the "100-continue" expectation, the server MUST send a 100 (Continue)
        # response before sending a 101 (Switching Protocols) response" (RFC 9110 section 7.8).
        if str(status)[:1] == "1" and (status[:3] != "101" or self._is_awaited()):
            raise ValueError(
                f"start_response({status!r}): a 1xx is not a final response. To let the client "
                "send the body, read wsgi.input, or call proceed() of the environ's "
                "'gunicorn_expect.expectation'"
            )
        if exc_info is not None and self.exchange is not None and not self.headers_sent:
            self.headers = []  # of the response that this one replaces
            self.response_length = None
        return super().start_response(status, headers, exc_info)  # type: ignore[misc]

    def replace(self, status: str) -> None:
        """Answer with this status and an empty body instead, as nothing was sent yet."""
        self.status = None
        self.headers = []
        self.response_length = None
        self.start_response(status, [("Content-Length", "0")])

    def first_byte(self) -> None:
        """Settle the exchange: from here on no 1xx is sent, and the connection's end is known."""
        if self.status is None:
            raise AssertionError("the application did not call start_response")
        exchange = self.exchange
        if exchange is not None and not exchange.respond():
            self.must_close = True
            self.discard()
            if exchange.state is State.DECLINED:
                self.upgrade = False  # "Connection: close" is what the client must see
        self.on_start()

    def discard(self) -> None:
        """Let what is left of the body be thrown away, if the response can't be sent else."""

    def close(self) -> None:
        """Send what is left."""
        if not self.headers_sent and self.exchange is not None and self.status is not None:
            self._say_that_it_is_empty()
        super().close()  # type: ignore[misc]

    def _say_that_it_is_empty(self) -> None:
        # Else gunicorn would send an empty chunked body, and Java 17's HttpClient waits for ever
        # when the response to its expectation has a body that is not of length 0.
        if self.response_length is None and not self._omits_body:
            self.headers.append(("Content-Length", "0"))
            self.response_length = 0
            self.chunked = False

    def _is_awaited(self) -> bool:
        return self.exchange is not None and self.exchange.state is State.PENDING


class Response(_Settling, host.Response):
    """A response over HTTP/1."""

    def __init__(
        self,
        request: Any,
        sock: Any,
        cfg: Any,
        exchange: Exchange | None,
        on_start: Callable[[], object],
    ) -> None:
        """Begin without a status."""
        super().__init__(request, sock, cfg)
        self.exchange = exchange
        self.on_start = on_start

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self.response_length is not None and len(data) == self.response_length:
            self.complete = True
        super().write(data)

    def discard(self) -> None:
        """Let what is left of the body be thrown away, if the response can't be sent else."""
        connection: Any = self.sock
        connection.discard_when_stuck(complete=self.complete)


class StreamResponse(_Settling, host.StreamResponse):
    """A response on a stream of HTTP/2."""

    def __init__(
        self,
        request: Any,
        sock: Any,
        cfg: Any,
        exchange: Exchange | None,
        on_start: Callable[[], object],
        http2: Any,
    ) -> None:
        """Begin without a status."""
        super().__init__(request, sock, cfg, http2, request.stream.stream_id)
        self.exchange = exchange
        self.on_start = on_start
