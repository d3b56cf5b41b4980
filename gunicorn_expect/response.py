"""The response of one request: gunicorn's, whose first byte settles the exchange.

"The start_response callable must not actually transmit the response headers. Instead, it must
store them for the server or gateway to transmit only after the first iteration of the application
return value that yields a non-empty bytestring, or upon the application's first invocation of the
write() callable" (PEP 3333). So an application that has called start_response and then reads the
body has still asked for it, and what the head says of the connection is decided when it goes out.
"""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect import host
from gunicorn_expect.states import State

if TYPE_CHECKING:
    import threading

    from _typeshed import OptExcInfo

    from gunicorn_expect.decision import Refuse
    from gunicorn_expect.exchange import Responses

#: Reason phrases of interim responses: IANA's registry, and draft-ietf-httpbis-resumable-upload.
#: boto3 fails on a response without one.
REASONS: Final = {
    100: "Continue",
    102: "Processing",
    103: "Early Hints",
    104: "Upload Resumption Supported",
}


class _Settling:
    """What a response does besides gunicorn's, over HTTP/1 and HTTP/2."""

    # gunicorn's response.
    status: Any
    status_code: Any
    headers: Any
    headers_sent: Any
    response_length: Any
    chunked: Any
    upgrade: Any
    must_close: Any
    _omits_body: Any
    req: Any
    sock: Any

    #: All responses to the request; this is the final one. For an upload it is the `Exchange`.
    responses: Responses
    #: Whether the application has returned all of it, so that it won't read the body any more.
    complete = False
    #: Whether the connection, if it closes, does so right after the last byte: nothing that may
    #: take long comes between.
    ends_at_once = False

    def start_response(self, status: str, headers: Any, exc_info: OptExcInfo | None = None) -> Any:
        """Note status and header fields, as PEP 3333 describes it.

        Raises:
            ValueError: the status is a 1xx, which is not final.

        """
        # A 101 does end the exchange, but "if a server receives both an Upgrade and an Expect
        # header field with the "100-continue" expectation, the server MUST send a 100 (Continue)
        # response before sending a 101 (Switching Protocols) response" (RFC 9110 section 7.8).
        if str(status)[:1] == "1" and (
            status[:3] != "101" or self.responses.state is State.PENDING
        ):
            raise ValueError(
                f"start_response({status!r}): a 1xx is not a final response. To let the client "
                "send the body, read wsgi.input, or call proceed() of the environ's "
                "'gunicorn_expect.expectation'; to send another 1xx, call its inform()"
            )
        if exc_info is not None and self.responses.has_body and not self.headers_sent:
            self.headers = []  # of the response that this one replaces
            self.response_length = None
        return super().start_response(status, headers, exc_info)  # type: ignore[misc]

    def refuse(self, refusal: Refuse) -> None:
        """Note what a policy responds, as `start_response` would; it is known to be valid."""
        self.status = str(refusal.status)
        self.status_code = int(self.status[:3])
        self.headers = [
            (name, value.strip(" \t"))
            for name, value in refusal.headers
            if not host.is_hop_by_hop(name)
        ]
        self._omits_body = self.status_code == 304 or self.req.method == "HEAD"
        # "A server MUST NOT send Content-Length in such a response [304] unless its field value
        # equals" that of the 200 (RFC 9110 section 8.6), which nobody knows here.
        if self.status_code != 304:
            self.response_length = len(refusal.body)
            self.headers.append(("Content-Length", str(self.response_length)))
        self.chunked = False

    def replace(self, status: str) -> None:
        """Replace this response, of which nothing was sent yet, by an empty one."""
        self.status = None
        self.headers = []
        self.response_length = None
        self.complete = True
        self.start_response(status, [("Content-Length", "0")])

    def settle(self) -> None:
        """Settle the exchange: no 1xx may follow, and it is known whether to close."""
        if self.status is None:
            raise AssertionError("the application did not call start_response")
        if not self.responses.respond():
            self.must_close = True
            self.discard()
            if self.responses.state is State.DECLINED:
                self.upgrade = False  # "Connection: close" is what the client must see

    def discard(self) -> None:
        """Allow the rest of the body to be discarded, if the response can't be sent otherwise."""

    def say_that_it_is_empty(self) -> None:
        """Announce an empty body, if nothing of the response was sent yet."""
        # Otherwise gunicorn sends an empty chunked body, and Java 17's HttpClient waits for ever
        # when the response to its expectation has a body that is not of length 0.
        if not (
            self.headers_sent
            or self._omits_body
            or not self.responses.has_body
            or self.status is None
            or self.response_length is not None
        ):
            self.headers.append(("Content-Length", "0"))
            self.response_length = 0
            self.chunked = False


class Response(_Settling, host.BaseResponse):
    """A response over HTTP/1. Its head and the first piece of its body are one send."""

    def __init__(self, request: Any, sock: Any, cfg: Any, responses: Responses) -> None:
        """Begin without a status. What gunicorn calls ``sock`` is the transport."""
        super().__init__(request, sock, cfg)
        self.responses = responses
        #: Whether the connection closes after it: known once its head is made.
        self.closes = True
        self._head = b""  # not sent yet
        self._holds_head = True

    def write(self, data: bytes) -> None:
        """Send a piece of the body; the first one that is not empty starts the response."""
        check_item(data)
        if not data and not self.headers_sent:
            return
        size, length = len(data), self.response_length
        if size == length:
            self.complete = True
        self.send_headers()
        if self._omits_body or (length is not None and self.sent + size > length):
            super().write(data)  # it sends only the bytes that may be sent
            if self._head:
                self._emit_body(b"")
        elif data:
            self.sent += size
            self._emit_body(data)

    def should_close(self) -> bool:
        """Return whether the connection ends with this response: what gunicorn's own returns."""
        has_end = self.chunked or self._omits_body or self.response_length is not None
        if self.must_close or not has_end:
            return True
        return not self.req.persists and bool(self.req.should_close())

    def send_headers(self) -> None:
        """Make the head; it goes out with the first piece of the body."""
        if self.headers_sent:
            return
        self.settle()
        self.closes = self.should_close()
        connection = "upgrade" if self.upgrade else "close" if self.closes else "keep-alive"
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\nServer: {host.SERVER}\r\n"
            f"Date: {_http_date(int(time.time()))}\r\nConnection: {connection}\r\n"
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        for name, value in self.headers:
            lines.append(f"{name}: {value}\r\n")
        lines.append("\r\n")
        self.headers_sent = True
        self._head = "".join(lines).encode("latin-1")
        if not self._holds_head:
            self._send(b"")

    def _emit_body(self, data: bytes) -> None:
        if self.chunked and data:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        self._send(data)

    def sendfile(self, respiter: Any) -> bool:
        """Send a file without copying it, if that can be done; return whether it was."""
        self._holds_head = False  # gunicorn sends the file after the head
        try:
            return bool(super().sendfile(respiter))
        finally:
            self._holds_head = True

    def close(self) -> None:
        """Send what is left."""
        self.say_that_it_is_empty()
        self.send_headers()
        if self.chunked:
            self._send(b"0\r\n\r\n")
        elif self._head:
            self._send(b"")

    def discard(self) -> None:
        """Allow the rest of the body to be discarded, if the response can't be sent otherwise."""
        self.sock.discard_when_stuck(self.responses.give_up_body, complete=self.complete)

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        last = self.ends_at_once and self.closes and self.complete
        self.sock.sendall(head + data if head else data, last=last)


class StreamResponse(_Settling, host.BaseStreamResponse):
    """A response on a stream of HTTP/2."""

    closes = False  # a stream ends by itself

    def __init__(
        self,
        request: Any,
        sock: Any,
        cfg: Any,
        responses: Responses,
        http2: Any,
        lock: threading.Lock,
    ) -> None:
        """Begin without a status. Whoever uses the HTTP/2 connection holds the lock."""
        super().__init__(request, sock, cfg, http2, request.stream.stream_id)
        self.responses = responses
        self._lock = lock

    def send_headers(self) -> None:
        """Send the head."""
        if not self.headers_sent:
            self.settle()
            with self._lock:
                super().send_headers()

    def write(self, data: bytes) -> None:
        """Send a piece of the body; the first one that is not empty starts the response."""
        check_item(data)
        if data or self.headers_sent:
            self.send_headers()
            with self._lock:
                super().write(data)

    def close(self) -> None:
        """End the stream."""
        self.say_that_it_is_empty()
        self.send_headers()
        with self._lock:
            super().close()


def check_item(data: object) -> None:
    """Raise TypeError if this is not bytes: gunicorn would notice after making the head."""
    if not isinstance(data, bytes):
        raise TypeError(f"the application yielded {type(data).__name__}, not bytes")


@functools.lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    """Return a time in HTTP's format (RFC 9110 section 5.6.7). Most calls repeat the last one."""
    return formatdate(second, usegmt=True)
