"""A worker in memory: its connection, exchange and answer, for a client that is a test.

The rules are the worker's own. This module only makes the bytes that the client sends, from the
environ of a test, and keeps the bytes that it receives.
"""

from __future__ import annotations

import dataclasses
import enum
import http.client
import io
import logging
import string
import types
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, cast
from wsgiref.util import is_hop_by_hop

from gunicorn.config import Config
from gunicorn.workers import base

from gunicorn_expect import host
from gunicorn_expect.answer import KEY, Answer, Service
from gunicorn_expect.body import Body
from gunicorn_expect.connection import Connection, Wants
from gunicorn_expect.counters import Counters
from gunicorn_expect.decision import PolicyFailedError
from gunicorn_expect.settings import Settings
from gunicorn_expect.states import State
from gunicorn_expect.testing.interim import INTERIM, Interim
from gunicorn_expect.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from gunicorn_expect.decision import Policy
    from gunicorn_expect.exchange import Exchange, Responses
    from gunicorn_expect.response import Response

#: Environ keys: the test sets the `Manners` of the client, and the server sets the `Upload`.
MANNERS_KEY: Final = "gunicorn_expect.testing.manners"
UPLOAD_KEY: Final = "gunicorn_expect.testing.upload"

#: Bytes of a chunk: as http.client sends a file.
CHUNK_SIZE: Final = 8192

#: Environ keys that the worker sets; values of a test are ignored.
_OF_THE_WORKER: Final = frozenset(
    {"wsgi.input", "wsgi.input_terminated", "wsgi.early_hints", "wsgi.file_wrapper"}
)

#: The header fields that gunicorn adds to every response instead of those of the application.
_OF_GUNICORN: Final = frozenset({"Server", "Date"})


class DecidedBy(enum.Enum):
    """Who decided whether the client sends its body."""

    POLICY_PROCEEDED = "the policy, which returned Proceed or read"
    POLICY_REFUSED = "the policy, which returned Refuse"
    APPLICATION_READ = "the application, which read, or called proceed()"
    APPLICATION_ANSWERED = "the application, which answered first"
    NOBODY = "nobody waited: no Expect: 100-continue, or HTTP/1.0, or no body to send"


_DECIDED: Final = {
    # what became of the expectation, and whether the application had it to decide
    (State.CONTINUED, False): DecidedBy.POLICY_PROCEEDED,
    (State.DECLINED, False): DecidedBy.POLICY_REFUSED,
    (State.CONTINUED, True): DecidedBy.APPLICATION_READ,
    (State.DECLINED, True): DecidedBy.APPLICATION_ANSWERED,
}


@dataclasses.dataclass(frozen=True)
class Manners:
    """How a client sends its body."""

    leaves_after: int | None = None
    """Bytes of the body after which the client leaves."""
    stalls_after: int | None = None
    """Bytes of the body after which the client sends nothing more, and stays."""

    def __post_init__(self) -> None:
        """Check it. ValueError: it both leaves and stalls, or a number is negative."""
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; it takes a number of bytes, 0 or more")
        if self.leaves_after is not None and self.stalls_after is not None:
            raise ValueError("a client leaves or stalls, not both: leaves_after and stalls_after")


class Server:
    """An application that serves another one as the worker does. For one thread."""

    def __init__(self, application: WSGIApplication, policy: Policy | None) -> None:
        """Serve this application, behind this policy."""
        self._application = application
        worker = _Worker()
        self._service = Service(
            worker=worker,
            cfg=worker.cfg,
            # No minimum rate: nobody is slow in memory.
            settings=Settings(expect_min_rate=0, expect_warn=False),
            counters=Counters(),
            head_limits=host.head_limits(worker.cfg),
            application=self._call,
            policy=policy,
            catches=(),  # the test gets every error
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request of a client in memory; its environ gets its `Upload` at `UPLOAD_KEY`."""
        client = Client(environ)
        upload = environ[UPLOAD_KEY] = Upload(client.interim)
        connection = _Connection(self._service, client, environ, upload)
        if connection.advance() is not Wants.ANSWER:
            raise ValueError("the environ does not make the head of a request")
        connection.answer()
        status, headers, body = client.response(environ["REQUEST_METHOD"])
        start_response(status, headers)
        return [body]

    def _call(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        upload: Upload = environ[UPLOAD_KEY]
        upload.was_left_to_the_application = environ[KEY].state is State.PENDING
        return self._application(environ, start_response)


class Upload:
    """How the upload of one request went."""

    #: None: the request has no body, or its head was malformed.
    body: CountedBody | None = None
    exchange: Exchange | None = None
    #: Whether the client still waited when the application was called.
    was_left_to_the_application = False

    def __init__(self, interim: list[Interim]) -> None:
        """Begin."""
        #: The responses that the client received before the final one, in order.
        self.interim = interim

    @property
    def decided_by(self) -> DecidedBy:
        """Who decided whether the client sends its body."""
        state = State.NONE if self.exchange is None else self.exchange.state
        return _DECIDED.get((state, self.was_left_to_the_application), DecidedBy.NOBODY)


class Client(Transport):
    """A client that sends its whole body at once when it may, and leaves when it is refused."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        """Send the request of an environ."""
        super().__init__(cast("Any", _NoSocket()))
        content = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(content)  # the test may look at it, or send it again
        manners: Manners = environ.get(MANNERS_KEY) or Manners()
        #: What it will send of its body.
        self._body = _body(content, manners, chunked=_is_chunked(environ))
        self._waits = _waits(environ)
        self._stalls = manners.stalls_after is not None
        # The bytes that the client has sent so far, and how many of them the server has received.
        self._sent = _head(environ) + (b"" if self._waits else self._body)
        self._received = 0
        self._response: list[bytes] = []
        self.interim: list[Interim] = []

    # The methods of a transport.

    def fileno(self) -> int:
        """Return -1: it has no file number."""
        return -1

    def here(self) -> int:
        """Count the bytes that can be received."""
        return len(self._sent) - self._received

    def receive(self, size: int) -> bytes | None:
        """Receive up to ``size`` bytes; ``b""`` at the end, None: nothing."""
        data = self._sent[self._received : self._received + size]
        self._received += len(data)
        return None if not data and (self._waits or self._stalls) else data

    def wait(self, events: int, timeout: float | None) -> int:  # noqa: ARG002  the transport's
        """Return at once; if nothing has arrived, as after a timeout."""
        is_silent = not self.here() and (self._waits or self._stalls)
        return 0 if is_silent else events

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # noqa: ARG002
        """Receive an interim response, or a piece of the final one."""
        match = None if self._response else INTERIM.match(data)
        if match is None:
            self._response.append(bytes(data))
            if self._waits:
                self._waits = self._stalls = False  # it was refused: it leaves
            return len(data)
        fields = http.client.parse_headers(io.BytesIO(bytes(data).partition(b"\r\n")[2]))
        self.interim.append(Interim(int(match[1]), fields.items()))
        if self._waits and match[1] == b"100":
            self._waits = False
            self._sent, self._received = self._body, 0
        return len(data)

    def response(self, method: str) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the status, the header fields and the body of the final response.

        The fields are the application's: gunicorn's, and those about the connection, are left out.

        Raises:
            http.client.HTTPException: there is none, or not all of it.

        """
        source = types.SimpleNamespace(makefile=lambda _: io.BytesIO(b"".join(self._response)))
        response = http.client.HTTPResponse(cast("Any", source), method=method)
        response.begin()
        fields = [
            (name, value)
            for name, value in response.getheaders()
            if name not in _OF_GUNICORN and not is_hop_by_hop(name)
        ]
        return f"{response.status} {response.reason}", fields, response.read()


class _Connection(Connection):
    """The worker's connection, to a client in memory."""

    def __init__(
        self, service: Service, client: Client, environ: WSGIEnvironment, upload: Upload
    ) -> None:
        server = environ["SERVER_NAME"], environ["SERVER_PORT"]
        super().__init__(service, client.sock, ("127.0.0.1", 0), server)
        self.transport = client
        self._environ = environ
        self._upload = upload

    def answer_once(self) -> bool:
        """Answer the request; raise what the application or the policy raises."""
        if self.error is not None:
            return super().answer_once()
        failure: BaseException | None = None
        try:
            _Answer(self.service, self.request, self.exchange, self).run()
        except PolicyFailedError as error:
            failure = error.__cause__
        if failure is not None:
            raise failure
        return False

    def create(self, request: Any, responses: Responses) -> tuple[Response, dict[str, Any]]:
        """Return the response of a request, and its environ: values of the test take precedence."""
        if self.exchange is not None:
            request.body = self._upload.body = CountedBody(self.exchange)
            self._upload.exchange = self.exchange
        response, made = super().create(request, responses)
        environ = {
            name: value
            for name, value in self._environ.items()
            # WebOb's notes about its own input are not true for ours.
            if name not in _OF_THE_WORKER and not name.startswith("webob.")
        }
        if _is_chunked(environ):
            environ.pop("CONTENT_LENGTH", None)
        return response, {**made, **environ}


class _Answer(Answer):
    """The worker's answer; its errors are raised in the test."""

    __slots__ = ()

    def _report_gone(self, error: Exception) -> None:
        raise error


class CountedBody(Body):
    """A body that counts the bytes that are read."""

    bytes_read = 0

    def read(self, size: int | None = None) -> bytes:
        """Read as `Body.read`."""
        data = super().read(size)
        self.bytes_read += len(data)
        return data

    def readline(self, size: int | None = None) -> bytes:
        """Read as `Body.readline`; `readlines` and iteration read by this."""
        line = super().readline(size)
        self.bytes_read += len(line)
        return line

    def readinto(self, buffer: Any, /) -> int:
        """Read as `Body.readinto`."""
        size = super().readinto(buffer)
        self.bytes_read += size
        return size


class _Worker(base.Worker):
    """gunicorn's worker, as far as one request needs it: no process, and nothing is logged."""

    def __init__(self) -> None:
        self.cfg = Config()
        self.cfg.set("sendfile", False)
        self.log = cast("Any", _NoLog("gunicorn_expect.testing", logging.CRITICAL + 1))
        self.nr = self.max_requests = 0
        self.alive = True


class _NoLog(logging.Logger):
    """A log that drops everything: a test sees responses and errors."""

    def access(self, *args: Any) -> None:
        """Do nothing."""


class _NoSocket:
    """Stands in for the socket, also as ``gunicorn.socket`` in the environ."""

    def fileno(self) -> int:
        return -1

    def gettimeout(self) -> float:
        return 0.0  # it never waits

    def getpeername(self) -> str:
        return ""  # as of a unix socket

    def settimeout(self, timeout: float | None) -> None:
        """Do nothing."""


# The request, as the client sends it.


def _is_chunked(environ: WSGIEnvironment) -> bool:
    return "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()


def _waits(environ: WSGIEnvironment) -> bool:
    """Return whether its client waits before it sends the body."""
    asks = "100-continue" in environ.get("HTTP_EXPECT", "").lower()
    has_body = _is_chunked(environ) or environ.get("CONTENT_LENGTH", "0") not in ("", "0")
    return asks and has_body and environ["SERVER_PROTOCOL"] != "HTTP/1.0"


def _head(environ: WSGIEnvironment) -> bytes:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = urllib.parse.quote(path, encoding="latin-1") or "/"
    if environ.get("QUERY_STRING"):
        query = environ["QUERY_STRING"]
        target += "?" + urllib.parse.quote(query, safe=string.punctuation, encoding="latin-1")
    lines = [f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}"]
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            lines.append(f"{name[5:].replace('_', '-')}: {value}")
        elif name == "CONTENT_TYPE" and value:
            lines.append(f"Content-Type: {value}")
        elif name == "CONTENT_LENGTH" and value and not _is_chunked(environ):
            lines.append(f"Content-Length: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _body(content: bytes, manners: Manners, *, chunked: bool) -> bytes:
    """Return what the client sends of its body in all."""
    most = manners.leaves_after if manners.stalls_after is None else manners.stalls_after
    sent = content[:most]
    if not chunked:
        return sent
    pieces = (sent[i : i + CHUNK_SIZE] for i in range(0, len(sent), CHUNK_SIZE))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + (b"0\r\n\r\n" if most is None else b"")
