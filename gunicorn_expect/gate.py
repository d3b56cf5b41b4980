"""The WSGI callable around the application: it sees the first byte of the answer before it goes.

"The start_response callable must not actually transmit the response headers. Instead, it must
store them for the server or gateway to transmit only after the first iteration of the application
return value that yields a non-empty bytestring, or upon the application's first invocation of the
write() callable" (PEP 3333). While a client waits, the gate does so itself: an application that
has called start_response and then reads the body has still asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.expectation import Expectation, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEY: Final = "gunicorn_expect.expectation"

#: The expectation of every request that has no body. It never changes.
NOBODY_WAITS: Final = Expectation()


class Gate:
    """An application whose clients may wait for a word."""

    def __init__(self, application: WSGIApplication) -> None:
        """Stand before this application."""
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the application, and see to it that its answer is announced as what it is."""
        expectation: Expectation | None = getattr(environ["wsgi.input"], "expectation", None)
        if expectation is None:
            environ[KEY] = NOBODY_WAITS
            return self._application(environ, start_response)

        environ[KEY] = expectation
        if expectation.pending and "wsgi.early_hints" in environ:
            environ["wsgi.early_hints"] = _settled(expectation, environ["wsgi.early_hints"])
        answer = _Answer(expectation, start_response, environ["REQUEST_METHOD"])
        try:
            items = self._application(environ, answer.start)
        except BaseException:
            answer.settle()  # the server answers in its place
            raise
        if answer.held and _is_file(items, environ.get("wsgi.file_wrapper")):
            answer.begin()  # the server must get it as it is, to send it by sendfile
        elif answer.held or expectation.pending:
            return _Items(items, answer)
        return items


class _Answer:
    """The application's answer, held until its first byte has to go out."""

    def __init__(
        self, expectation: Expectation, start_response: StartResponse, method: str
    ) -> None:
        self._expectation = expectation
        self._start_response = start_response
        self._method = method
        self._write: Callable[[bytes], object] | None = None
        #: Status and header fields that the server does not have yet.
        self.held: tuple[str, list[tuple[str, str]]] | None = None
        self.begun = False

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: OptExcInfo | None = None,
    ) -> Callable[[bytes], object]:
        """Stand in for ``start_response`` (PEP 3333)."""
        self._check_final(status)
        if self.held is None and not self._expectation.pending:
            return self._start_response(status, headers, exc_info)
        if self.held is not None and exc_info is None:
            raise AssertionError("start_response was called a second time without exc_info")
        self.held = (status, list(headers))
        return self.write

    def write(self, data: bytes, /) -> None:
        """Stand in for the ``write`` that ``start_response`` returns."""
        self.begin()
        assert self._write is not None  # noqa: S101  only start() hands out this method
        self._write(data)

    def settle(self) -> None:
        """Note that the next byte sent is the first of the answer, this one or the server's."""
        self.begun = True
        self._expectation.on_respond()

    def begin(self, *, empty: bool = False) -> None:
        """Let go of the answer: what follows are its bytes, or nothing if it is empty."""
        self.settle()
        if self.held is None:
            return
        status, headers = self.held
        self.held = None
        if self._expectation.state is State.DECLINED:
            # The server says close, unless the application says upgrade.
            headers = [field for field in headers if field[0].lower() != "connection"]
        if empty and self._may_have_a_body(status) and not _has_length(headers):
            # Else the server would send an empty chunked body, and Java 17's HttpClient waits
            # for ever when the answer to its expectation has a body that is not of length 0.
            headers = [*headers, ("Content-Length", "0")]
        self._write = self._start_response(status, headers)

    def _check_final(self, status: str) -> None:
        # A 101 does end the exchange, but "if a server receives both an Upgrade and an Expect
        # header field with the "100-continue" expectation, the server MUST send a 100 (Continue)
        # response before sending a 101 (Switching Protocols) response" (RFC 9110 section 7.8).
        if status[:1] == "1" and (status[:3] != "101" or self._expectation.pending):
            raise ValueError(
                f"start_response({status!r}): a 1xx is not a final response. To let the client "
                f"send the body, read wsgi.input or call environ[{KEY!r}].proceed()"
            )

    def _may_have_a_body(self, status: str) -> bool:
        return self._method != "HEAD" and status[:3] not in ("204", "304")


class _Items:
    """What the application yields while its client waits; the first item begins the answer."""

    def __init__(self, items: Iterable[bytes], answer: _Answer) -> None:
        self._items = items
        self._iterator = iter(items)
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._answer.begun:
            return next(self._iterator)
        try:
            for item in self._iterator:
                if item:
                    self._answer.begin()
                    return item
            self._answer.begin(empty=True)
        except BaseException:
            self._answer.settle()  # the server answers in its place
            raise
        raise StopIteration

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()


def _settled(
    expectation: Expectation, early_hints: Callable[[Any], object]
) -> Callable[[Any], None]:
    """Keep 103 from a client that waits: boto3 takes it for success and never sends the body."""

    def send_early_hints(headers: Any) -> None:
        if expectation.state not in (State.PENDING, State.DECLINED):
            early_hints(headers)

    return send_early_hints


def _is_file(items: object, file_wrapper: type | None) -> bool:
    """Tell whether this is a file that the server can send without reading from our input."""
    if file_wrapper is None or not isinstance(items, file_wrapper):
        return False
    try:
        # gunicorn's name for what it wraps. What only looks like a file has no number.
        items.filelike.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return False
    return True


def _has_length(headers: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)
