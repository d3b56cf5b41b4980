"""A server of one request in memory: no connection, and all that the worker makes of an upload.

The expectation, the body with its framing, the policy and the gate are those of the worker. Here
are only the two ends of the connection: what the client sends, and what it hears.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import io
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import FileWrapper

from gunicorn_expect.body import Body
from gunicorn_expect.errors import BodyTimeout
from gunicorn_expect.expectation import (
    NOBODY_WAITS,
    Expectation,
    State,
    UnknownExpectationError,
    expects_continue,
)
from gunicorn_expect.framing import Chunked, Framing, Sized
from gunicorn_expect.gate import Gate
from gunicorn_expect.receiver import Source
from gunicorn_expect.settings import Settings
from gunicorn_expect.testing.interim import Interim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from gunicorn_expect.decision import Policy
    from gunicorn_expect.fields import Headers

#: Where the environ of a request has its `Manners`, and gets its `Upload`.
MANNERS_KEY: Final = "gunicorn_expect.testing.manners"
UPLOAD_KEY: Final = "gunicorn_expect.testing.upload"

#: Bytes of a chunk: as http.client sends a file.
CHUNK_SIZE: Final = 8192

#: gunicorn's limits of a field and of a head.
_LIMITS: Final = (8190, 65536)


class DecidedBy(enum.Enum):
    """Who decided whether the client sends its body."""

    POLICY_PROCEEDED = "the policy, which returned Proceed or read"
    POLICY_REFUSED = "the policy, which returned Refuse"
    APPLICATION_READ = "the application, which read, or called proceed()"
    APPLICATION_ANSWERED = "the application, which answered first"
    NOBODY = "nobody waited: no Expect: 100-continue, or HTTP/1.0, or no body to send"


_DECIDED: Final = {
    # what became of the expectation, and whether the application had been called
    (State.CONTINUED, False): DecidedBy.POLICY_PROCEEDED,
    (State.DECLINED, False): DecidedBy.POLICY_REFUSED,
    (State.CONTINUED, True): DecidedBy.APPLICATION_READ,
    (State.DECLINED, True): DecidedBy.APPLICATION_ANSWERED,
}


@dataclasses.dataclass(frozen=True)
class Manners:
    """How a client sends its body, once it does."""

    leaves_after: int | None = None
    """Bytes of the body after which it leaves."""
    stalls_after: int | None = None
    """Bytes of the body after which it sends nothing, and stays."""

    def __post_init__(self) -> None:
        """Check it. ValueError: it leaves and stays, or after fewer bytes than none."""
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; it takes a number of bytes, 0 or more")
        if self.leaves_after is not None and self.stalls_after is not None:
            raise ValueError("a client leaves or stalls, not both: leaves_after and stalls_after")


def serve(
    application: WSGIApplication,
    policy: Policy | None,
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer a request of a client in memory; its environ gets its `Upload` at `UPLOAD_KEY`."""
    upload = environ[UPLOAD_KEY] = Upload(environ)

    def called(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        upload.application_called = True
        return application(environ, start_response)

    def start(
        status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Any:
        upload.answered = True
        return start_response(status, headers, exc_info)

    try:
        served = upload.serve(environ)
    except UnknownExpectationError:
        start("417 Expectation Failed", [("Content-Length", "0")])
        return []
    return Gate(called, policy)(served, start)


class Upload:
    """One request, its client, and what the client heard. It is the wire of its own body."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        """Be asked for by this head."""
        self.application_called = False
        self.answered = False
        self.decided_by = DecidedBy.NOBODY
        self.interim: list[Interim] = []
        self.body: CountedBody | None = None
        self._http_1_1 = environ["SERVER_PROTOCOL"] != "HTTP/1.0"

    def serve(self, environ: WSGIEnvironment) -> WSGIEnvironment:
        """Give the environ that the worker makes of this one. UnknownExpectationError: 417."""
        chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        waits = expects_continue([("EXPECT", environ.get("HTTP_EXPECT", ""))]) and self._http_1_1
        served = {
            # What WebOb has noted of the input is not true of ours.
            **{name: value for name, value in environ.items() if not name.startswith("webob.")},
            "wsgi.early_hints": self._hint,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if chunked:
            served.pop("CONTENT_LENGTH", None)
        length = None if chunked else int(environ.get("CONTENT_LENGTH") or 0)
        if length != 0:
            served["wsgi.input"] = self.body = self._open(environ, length, waits=waits)
        return served

    def _open(self, environ: WSGIEnvironment, length: int | None, *, waits: bool) -> CountedBody:
        content = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(content)  # the test may look at it, or send it again
        self._sender = sender = Sender(content, length, environ.get(MANNERS_KEY) or Manners())
        framing: Framing
        if length is None:
            framing = Chunked(sender, *_LIMITS, on_trailers=lambda _: None)
        else:
            framing = Sized(sender, length)
        if waits:
            return CountedBody(framing, Expectation(self, on_decided=self._decided), self)
        sender.send()
        return CountedBody(framing, NOBODY_WAITS, self)

    def _decided(self, expectation: Expectation) -> None:
        self.decided_by = _DECIDED[expectation.state, self.application_called]

    def _hint(self, headers: Headers) -> None:
        if self._http_1_1 and not self.answered:
            self.interim.append(Interim(103, list(headers)))

    # What an expectation and a body ask of their connection.

    def body_arrived(self) -> bool:
        """Tell whether body bytes are here."""
        return self._sender.look(1)

    def send_continue(self, headers: Headers) -> None:
        """Let the client hear it, and send."""
        self.interim.append(Interim(100, list(headers)))
        self._sender.send()

    def close_after_response(self) -> None:
        """Leave it: there is no connection."""

    def discard(self) -> None:
        """Leave it."""


class Sender(Source):
    """A client that sends all that it will send at once when it is let to, and leaves if not."""

    def __init__(self, content: bytes, length: int | None, manners: Manners) -> None:
        """Have this to send.

        Args:
            content: the body.
            length: what its head says of it; None: it is sent in chunks.
            manners: how much of it is sent.

        """
        super().__init__(timeout=Settings.expect_body_timeout)
        stalls = manners.stalls_after is not None
        most = manners.stalls_after if stalls else manners.leaves_after
        sent = content[:most]
        if length is None:
            sent = _in_chunks(sent) + (b"0\r\n\r\n" if most is None else b"")
        self._sent = sent
        self._stalls = stalls
        self._stays = False

    def send(self) -> None:
        """Send; to do so again changes nothing."""
        self._ahead, self._stays = self._sent, self._stalls

    def here(self) -> int:
        """Count what it has sent and nobody has taken."""
        return len(self._ahead) - self._taken

    def look(self, size: int) -> bool:  # noqa: ARG002  all of it is here, or nothing
        """Tell whether there is any of it."""
        return not self.nothing_ahead

    def receive(self, size: int, *, whole: bool = False) -> bytes:  # noqa: ARG002  likewise
        """Take it."""
        data = self._ahead[self._taken : self._taken + size]
        if not data and not self.patience:
            raise BlockingIOError(errno.EAGAIN, "nothing is here")
        if not data and self._stays:
            raise BodyTimeout(f"nothing came from the client for {self.patience:g} s")
        self._taken += len(data)
        return data


class CountedBody(Body):
    """A body that counts what it gives."""

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


def _in_chunks(content: bytes) -> bytes:
    pieces = (content[i : i + CHUNK_SIZE] for i in range(0, len(content), CHUNK_SIZE))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
