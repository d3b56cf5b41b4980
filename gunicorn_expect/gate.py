"""The WSGI callable around the application: it sees the first byte of the answer before it goes.

"The start_response callable must not actually transmit the response headers. Instead, it must
store them for the server or gateway to transmit only after the first iteration of the application
return value that yields a non-empty bytestring, or upon the application's first invocation of the
write() callable" (PEP 3333). For a request that has a body the gate does so itself: an application
that has called start_response and then reads the body has still asked for it, and what the head
says of the connection depends on what was read by then.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.decision import Proceed, Refuse, inline_part, not_a_decision
from gunicorn_expect.errors import BodyError
from gunicorn_expect.expectation import NOBODY_WAITS, State
from gunicorn_expect.framing import DRAIN_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from gunicorn_expect.body import Body, Reader
    from gunicorn_expect.decision import Policy
    from gunicorn_expect.expectation import Expectation

KEY: Final = "gunicorn_expect.expectation"

#: A `contextlib.ExitStack` for the policy: what it puts there is done when the upload is over.
EXITS_KEY: Final = "gunicorn_expect.exits"

#: What could have been answered before the body was read.
_LATE: Final = frozenset({"401", "403", "413", "415"})

#: Bytes of an answer that every system takes without waiting for the client to read: Linux begins
#: with a send buffer of 16 KiB (tcp(7), tcp_wmem).
SENT_AT_ONCE: Final = 16384


class AnswerCutOff(OSError):  # noqa: N818  it is no fault of the server's
    """The application failed when its answer had begun: the connection ends in the middle of it.

    An OSError, because the server closes in order for it. For others it waits for the client.
    """

    def __init__(self, error: Exception) -> None:
        """Say what it failed of."""
        super().__init__(f"the answer is cut off after its beginning: {error!r}")


class Gate:
    """An application whose clients may wait for a word."""

    def __init__(
        self,
        application: WSGIApplication,
        policy: Policy | None = None,
        *,
        guards_all: bool = False,
        warn: Callable[[str], object] | None = None,
        report: Callable[[str], object] | None = None,
        on_refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Stand before this application.

        Args:
            application: WSGI.
            policy: asked before it, of every request that has a body.
            guards_all: an answer that breaks off ends its connection without a wait, that of a
                request without a body as well. For a server that has one thread.
            warn: told that a body was read and then refused, once for each place that reads, and
                of each failed body that the application did not answer.
            report: told in one line of what the policy returned that is no decision, and the client
                gets 500; None: it is a TypeError.
            on_refused: called with the status line of each refusal of the policy. It must not
                raise.

        """
        self._application = application
        self._policy = policy
        self._inline = inline_part(policy)
        self._guards_all = guards_all
        self._warn = warn
        self._warned: set[Reader] = set()
        self._report = report
        self._on_refused = on_refused

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the application, and see to it that its answer is announced as what it is."""
        body = environ["wsgi.input"]
        expectation: Expectation | None = getattr(body, "expectation", None)
        if expectation is None:
            environ[KEY] = NOBODY_WAITS
            items = self._application(environ, partial(_start_final, start_response))
            if self._guards_all and not isinstance(items, (list, environ["wsgi.file_wrapper"])):
                return _Guarded(items)
            return items

        environ[KEY] = expectation
        if expectation.state is State.PENDING and "wsgi.early_hints" in environ:
            environ["wsgi.early_hints"] = _settled(expectation, environ["wsgi.early_hints"])
        late = partial(self._refused_late, environ) if self._warn else None
        answer = _Answer(
            body, expectation, start_response, environ["REQUEST_METHOD"], late, self._warn
        )
        if self._policy is None:
            return self._answer(environ, answer)
        exits = environ[EXITS_KEY] = contextlib.ExitStack()
        try:
            items = self._answer(environ, answer)
        except BaseException:
            exits.close()
            raise
        if isinstance(items, _Held):
            items.exits = exits  # the application may read on while it is iterated
        else:
            exits.close()
        return items

    # For a loop, which must not wait.

    @property
    def has_inline(self) -> bool:
        """Whether there is something to be asked by `ask_inline`."""
        return self._inline is not None

    def ask_inline(self, environ: WSGIEnvironment) -> Refuse | None:
        """Ask the part of the policy that never waits, of a client that does.

        Returns:
            What to call `refuse` with; None: the gate is to be called, on a thread. An error of the
            policy is one there, too.

        """
        if self._inline is None:
            return None
        body = environ["wsgi.input"]
        environ["wsgi.input"] = _Withheld()
        try:
            decision = self._inline(environ)
        except Exception:  # noqa: BLE001  it fails again on a thread, and is answered there
            return None
        finally:
            environ["wsgi.input"] = body
        if isinstance(decision, Refuse) and len(decision.body) <= SENT_AT_ONCE // 2:
            return decision
        return None

    def refuse(
        self, refusal: Refuse, environ: WSGIEnvironment, start_response: StartResponse
    ) -> list[bytes]:
        """Answer in place of the application; the connection ends with it."""
        body: Body = environ["wsgi.input"]
        environ[KEY] = body.expectation
        body.decline()
        return self._refusal(refusal, environ, start_response)

    # What the application answers.

    def _answer(self, environ: WSGIEnvironment, answer: _Answer) -> Iterable[bytes]:
        try:
            items = self._decided(environ, answer)
            if items is None:
                items = self._application(environ, answer.start)
            if answer.held and isinstance(items, list | tuple) and _are_bytes(items):
                answer.begin(sum(map(len, items)), complete=True)
                return items
        except BaseException as error:  # noqa: BLE001  the server's, too
            answer.fail(error)
            answer.begin(0, complete=True)
            return ()
        if answer.held and _is_file(items, environ.get("wsgi.file_wrapper")):
            # The server must get it as it is, to send it by sendfile.
            answer.begin(None, complete=True)
            return items
        return _Held(items, answer)

    def _decided(self, environ: WSGIEnvironment, answer: _Answer) -> Iterable[bytes] | None:
        """Ask the policy; None: the application is to answer."""
        if self._policy is None:
            return None
        decision = self._policy(environ)
        if decision is None:
            return None
        if isinstance(decision, Refuse):
            return self._refusal(decision, environ, answer.start)
        if isinstance(decision, Proceed):
            environ[KEY].proceed(decision.headers)
            return None
        message = not_a_decision(self._policy, decision)
        if self._report is None:
            raise TypeError(message)
        self._report(message)
        answer.start("500 Internal Server Error", [("Content-Length", "0")])
        return []

    def _refusal(
        self, refusal: Refuse, environ: WSGIEnvironment, start_response: StartResponse
    ) -> list[bytes]:
        self._on_refused(str(refusal.status))
        headers = list(refusal.headers)
        # "A server MUST NOT send Content-Length in such a response unless its field value equals
        # the decimal number of octets that would have been sent in the content of a 200 (OK)
        # response to the same request" (RFC 9110 section 8.6), of a 304.
        if not str(refusal.status).startswith("304"):
            headers.append(("Content-Length", str(len(refusal.body))))
        start_response(str(refusal.status), headers)
        return [refusal.body] if environ["REQUEST_METHOD"] != "HEAD" else []

    def _refused_late(self, environ: WSGIEnvironment, status: str, reader: Reader) -> None:
        """Warn of an upload that was paid for nothing."""
        if reader in self._warned or self._warn is None:
            return
        length = environ.get("CONTENT_LENGTH") or None
        if length is None and status.startswith("413"):
            return  # only who reads such a body can know
        if length is not None and int(length) <= DRAIN_SIZE:
            return  # a form, perhaps: so much is read anyway, for the connection to be kept
        self._warned.add(reader)
        self._warn(
            f"An upload was read and then refused with {status!r}: its body was sent for nothing. "
            f"It was read first in {reader}. Decide before that, or in expect_policy; "
            "expect_warn = False turns this warning off"
        )


class _Answer:
    """The application's answer, held until its first byte has to go out."""

    __slots__ = (
        "_body",
        "_expectation",
        "_late",
        "_method",
        "_start_response",
        "_warn",
        "_write",
        "begun",
        "held",
    )

    def __init__(
        self,
        body: Body,
        expectation: Expectation,
        start_response: StartResponse,
        method: str,
        late: Callable[[str, Reader], object] | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        self._body = body
        self._expectation = expectation
        self._start_response = start_response
        self._method = method
        self._late = late
        self._warn = warn
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
        if self.begun:
            return self._start_response(status, headers, exc_info)
        if self.held is not None and exc_info is None:
            raise AssertionError("start_response was called a second time without exc_info")
        self.held = (status, list(headers))
        if self._late is not None and status[:3] in _LATE:
            reader = self._body.first_reader
            if reader is not None:
                self._late(status, reader)
        return self.write

    def write(self, data: bytes, /) -> None:
        """Stand in for the ``write`` that ``start_response`` returns."""
        if not self.begun:
            self.begin(len(data), complete=False)
        assert self._write is not None  # noqa: S101  it has begun
        self._write(data)

    def begin(self, size: int | None, *, complete: bool) -> None:
        """Let go of the answer: its first bytes follow.

        Args:
            size: how many bytes; None: not known.
            complete: nothing follows them, and the application will not read.

        """
        if self.held is None:
            self.held = self._in_place_of_none(size)
        status, headers = self.held
        long = size is None or size > SENT_AT_ONCE
        discard = long and (complete or size == _length(headers))
        try:
            self._body.on_respond(discard=discard)
        except BodyError as error:
            # The client left while it waited: it was not refused, and this is for the log alone.
            status, headers = error.status, [("Content-Length", "0")]
        if self._expectation.state is State.DECLINED:
            # The server says close, unless the application says upgrade.
            headers = [field for field in headers if field[0].lower() != "connection"]
        empty = complete and size == 0
        if empty and _length(headers) is None and self._may_have_a_body(status):
            # Else the server would send an empty chunked body, and Java 17's HttpClient waits
            # for ever when the answer to its expectation has a body that is not of length 0.
            headers = [*headers, ("Content-Length", "0")]
        self._write = self._start_response(status, headers)
        self.held = None
        self.begun = True

    def _in_place_of_none(self, size: int | None) -> tuple[str, list[tuple[str, str]]]:
        """Return the response for an application that has none."""
        failure = self._body.failure
        if failure is None or size:
            raise AssertionError("the application did not call start_response")
        if self._warn is not None:
            self._warn(
                f"The application caught {type(failure).__name__} and did not answer: the client "
                f"got {failure.status!r}. The body was read first in {self._body.first_reader}. "
                "Answer there, or let the error pass"
            )
        return failure.status, [("Content-Length", "0")]

    def fail(self, error: BaseException) -> None:
        """End as the application has. It returns if there is an answer to that, and raises else."""
        if self.begun:
            if isinstance(error, Exception) and not isinstance(error, OSError):
                raise AnswerCutOff(error) from error
            raise error
        if not isinstance(error, BodyError):
            with contextlib.suppress(BodyError):
                self._body.on_respond()  # the server answers in its place
            raise error
        self.held = (error.status, [("Content-Length", "0")])

    def _check_final(self, status: str) -> None:
        # A 101 does end the exchange, but "if a server receives both an Upgrade and an Expect
        # header field with the "100-continue" expectation, the server MUST send a 100 (Continue)
        # response before sending a 101 (Switching Protocols) response" (RFC 9110 section 7.8).
        if _is_interim(status) or (
            status[:3] == "101" and self._expectation.state is State.PENDING
        ):
            raise ValueError(
                f"start_response({status!r}): a 1xx is not a final response. To let the client "
                f"send the body, read wsgi.input or call environ[{KEY!r}].proceed()"
            )

    def _may_have_a_body(self, status: str) -> bool:
        return self._method != "HEAD" and status[:3] not in ("204", "304")


class _Items:
    """What the application yields."""

    def __init__(self, items: Iterable[bytes]) -> None:
        self._items = items

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()


class _Guarded(_Items):
    """Items, and an error of their own when they fail after the first."""

    def __iter__(self) -> Iterator[bytes]:
        begun = False
        try:
            for item in self._items:
                yield item
                begun = True
        except Exception as error:
            if not begun or isinstance(error, OSError):
                raise
            raise AnswerCutOff(error) from error


class _Held(_Items):
    """Items, the first of which begins the answer."""

    def __init__(self, items: Iterable[bytes], answer: _Answer) -> None:
        super().__init__(items)
        self.exits = contextlib.ExitStack()
        self._iterator: Iterator[bytes] | None = None
        self._answer = answer

    def close(self) -> None:
        with self.exits:
            super().close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        answer = self._answer
        try:
            if self._iterator is None:
                self._iterator = iter(self._items)
            # PEP 3333 forbids write() while the result is iterated, but gunicorn serves it, and
            # dulwich's git server does it: the answer may begin in each step of the iteration.
            for item in self._iterator:
                if answer.begun:
                    return item
                if item:
                    if not isinstance(item, bytes):  # before the server has sent the head
                        raise TypeError(f"the application yielded {type(item).__name__}, not bytes")
                    answer.begin(len(item), complete=False)
                    return item
            if not answer.begun:
                answer.begin(0, complete=True)
        except StopIteration:
            raise
        except BaseException as error:  # noqa: BLE001  the server's, too
            answer.fail(error)
            answer.begin(0, complete=True)
        raise StopIteration


class _Withheld:
    """``wsgi.input`` for an inline policy: to read it would be to wait."""

    def limit(self, size: int) -> None:
        """Leave it: on the thread it is asked for again."""


def _start_final(
    start_response: StartResponse,
    status: str,
    headers: list[tuple[str, str]],
    exc_info: OptExcInfo | None = None,
) -> Callable[[bytes], object]:
    """Stand in for ``start_response`` (PEP 3333) where the request has no body."""
    if _is_interim(status):
        raise ValueError(f"start_response({status!r}): a 1xx is not a final response")
    return start_response(status, headers, exc_info)


def _is_interim(status: str) -> bool:
    # A 101 is the last response of HTTP/1.1 on its connection (RFC 9110 section 15.2.2).
    return status[:1] == "1" and status[:3] != "101"


def _are_bytes(items: Sequence[object]) -> bool:
    return all(isinstance(item, bytes) for item in items)


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


def _length(headers: list[tuple[str, str]]) -> int | None:
    for name, value in headers:
        if name.lower() == "content-length" and value.isascii() and value.isdigit():
            return int(value)
    return None
