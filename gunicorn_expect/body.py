"""``wsgi.input``: the whole body or an error, and every way to read it asks for it first."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Bytes that are read ahead for small reads, and to find the end of a line.
AHEAD: Final = 8192

#: The size of a small read: below it, copying the bytes once more costs less than a system call.
SMALL: Final = 1024

#: Seconds that the rest of an unread body is waited for when its connection is to be kept:
#: gunicorn's own time.
DRAIN_TIMEOUT: Final = 5.0


class Reader(NamedTuple):
    """A place in the code that reads a body."""

    module: str
    function: str
    line: int

    def __str__(self) -> str:
        """Give it as a log shows it."""
        return f"{self.module}.{self.function}, line {self.line}"


class Framing(Protocol):
    """Where the body comes from, and where it ends."""

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""

    def read(self, size: int, *, whole: bool = False) -> bytes:
        """Read up to ``size`` bytes, and at least one; ``b""`` at the end of the body."""

    def read_into(self, view: memoryview) -> int:
        """Read as many bytes as this has room for, or fewer; 0 at the end."""

    def read_what_is_here(self) -> tuple[bytes, bool]:
        """Read a little without waiting; tell whether the connection can be kept."""

    def drain(self, deadline: float) -> None:
        """Read to the end and throw it away."""

    def follow_up(self) -> None:
        """Expect another body behind this one, if it is of chunks."""

    def limit(self, size: int) -> None:
        """Allow no more than ``size`` bytes where the head did not tell how many there are."""


class Wire(Protocol):
    """What the body asks of its connection."""

    def close_after_response(self) -> None:
        """Make the response say ``Connection: close``, and the connection end with it."""

    def discard(self) -> None:
        """Throw away what comes, while the response is written."""


class Expects(Protocol):
    """The expectation of the client."""

    def on_read(self) -> None:
        """Say 100 if the client waits for it."""

    def proceed_again(self) -> None:
        """Say 100."""

    def set_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Give the header fields of every 100."""

    def on_respond(self) -> None:
        """Note that the next byte sent is the first of the final response. OSError: gone."""


class Body:
    """The body of one request, as PEP 3333 describes ``wsgi.input``, and with ``readinto``.

    Every method that reads gives what the head announced, or raises:

    * ClientDisconnected, an OSError: the client left before the end
    * BodyTimeout, a TimeoutError: it sent too little for too long
    * MalformedBody, an OSError: its chunks are malformed
    * ContentTooLarge, an OSError: it is longer than `limit` allows

    and does so again when it is called again: there is no short body that looks complete. Each is a
    BodyError, whose ``partial`` has the bytes that the call had taken before it failed.
    """

    def __init__(
        self,
        framing: Framing,
        expectation: Expects,
        wire: Wire,
        on_failed: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        """Read this, and tell the expectation before the first byte is wanted.

        Args:
            framing: where it comes from.
            expectation: of its client.
            wire: its connection, until the response begins.
            on_failed: called with what a read has raised, the first time only. It must not raise.

        """
        self.expectation = expectation
        self._framing = framing
        self._wire: Wire | None = wire  # until the response begins
        self._ahead = io.BytesIO()  # what was read and not given
        self._failure: OSError | None = None
        #: Who read first.
        self.first_reader: Reader | None = None
        self._on_failed = on_failed
        # One thread may read the body while another one begins the answer, or ends it.
        self._lock = threading.Lock()

    # What the application may use (PEP 3333, and io.BufferedIOBase for the details).

    # The arguments have the names that callers of gunicorn's own input use; PEP 3333 has none.

    def read(self, size: int | None = None) -> bytes:
        """Read ``size`` bytes, fewer at the end of the body only; all that is left without one."""
        size = self._want(size)
        if not size:
            return b""
        with self._lock:
            data = self._ahead.read(size) or self._next(size)
            if len(data) == size or not data:
                return data
            # Not a list of pieces and a join: that would hold a large body twice.
            pieces = io.BytesIO()
            pieces.write(data)
            size -= len(data)
            try:
                while size and (data := self._next(size)):
                    pieces.write(data)
                    size -= len(data)
            except BodyError as error:
                error.partial = pieces.getvalue() + error.partial
                raise
            return pieces.getvalue()

    def readline(self, size: int | None = None) -> bytes:
        """Read a line with its LF, or ``size`` bytes of it."""
        size = self._want(size)
        if not size:
            return b""
        with self._lock:
            line = self._ahead.readline(size)
            pieces = [line]
            try:
                while not line.endswith(b"\n") and (size := size - len(line)):
                    self._read_ahead()
                    line = self._ahead.readline(size)
                    if not line:
                        break
                    pieces.append(line)
            except BodyError as error:
                error.partial = b"".join(pieces)
                raise
            return b"".join(pieces)

    def readlines(self, hint: int | None = None, *, size: int | None = None) -> list[bytes]:
        """Read the lines that are left, or so many that they have ``hint`` bytes together.

        Args:
            hint: bytes; None, 0 or less: all.
            size: another name for it, which gunicorn's own input uses.

        """
        hint = size if hint is None else hint
        lines: list[bytes] = []
        total = 0
        try:
            for line in self:
                lines.append(line)
                total += len(line)
                if hint is not None and 0 < hint <= total:
                    break
        except BodyError as error:
            error.partial = b"".join(lines) + error.partial
            raise
        return lines

    def readinto(self, buffer: Any, /) -> int:
        """Fill a writable buffer; return how many bytes it got, fewer at the end only.

        After a BodyError the buffer begins with its ``partial``.
        """
        with memoryview(buffer).cast("B") as view:
            if not self._want(len(view)):
                return 0
            with self._lock:
                filled = self._ahead.readinto(view)
                try:
                    while filled < len(view) and (size := self._next_into(view[filled:])):
                        filled += size
                except BodyError as error:
                    end = filled + len(error.partial)
                    view[filled:end] = error.partial
                    error.partial = bytes(view[:end])
                    raise
                return filled

    def __iter__(self) -> Iterator[bytes]:
        """Give the lines that are left."""
        return self

    def __next__(self) -> bytes:
        """Give the next line."""
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    # What OpenStack Swift calls, by the names of eventlet's input.

    def set_hundred_continue_response_headers(
        self,
        headers: Iterable[tuple[str, str]],
        capitalize_response_headers: bool = True,  # noqa: ARG002  as in eventlet
    ) -> None:
        """Give the header fields of every ``100 Continue``; their names are sent as they are.

        Raises:
            ValueError: a name or a value that can't be sent.

        """
        self.expectation.set_headers(headers)

    def send_hundred_continue_response(self) -> None:
        """Send ``100 Continue``, again if one was sent; another chunked body may follow it.

        Nothing is sent to a client that expects none, or when the final response has begun.
        """
        if self._wire is None:
            return
        self.expectation.proceed_again()
        with self._lock:
            self._framing.follow_up()

    # What a policy may use.

    def limit(self, size: int) -> None:
        """Raise ContentTooLarge from the reads as soon as more than ``size`` bytes are announced.

        For a body whose length the head did not tell; of others it is known before they come. To
        be called before the first read.
        """
        self._framing.limit(size)

    # What happens around it.

    @property
    def failure(self) -> BodyError | None:
        """What reading it has raised, and raises from now on."""
        return self._failure if isinstance(self._failure, BodyError) else None

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        return self._framing.ended

    def on_respond(self, *, discard: bool = False) -> None:
        """Note that the next byte sent is the first of the final response.

        The connection ends with it if the rest of the body is too long, or not known, to be read
        so that another request can follow.

        Args:
            discard: the response is long and nobody will read: then what is left is thrown away
                while it is written.

        Raises:
            ClientDisconnected: the client left while it waited for `100 Continue`.

        """
        try:
            self._end_asking()
        finally:
            wire, self._wire = self._wire, None  # once; and what leads to the request is let go
            if wire is not None and not self._can_be_kept():
                wire.close_after_response()
                if discard:
                    wire.discard()

    def decline(self) -> None:
        """Note that the final response follows, and the connection ends with it."""
        with contextlib.suppress(OSError):  # gone: the server will find out
            self._end_asking()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close_after_response()

    def finish(self, deadline: float | None = None) -> bool:
        """Throw away what was not read; tell whether another request may follow it.

        Who reads it after this gets an OSError.

        Args:
            deadline: of `time.monotonic`; by default `DRAIN_TIMEOUT` from now.

        """
        if deadline is None:
            deadline = time.monotonic() + DRAIN_TIMEOUT
        # A thread of the application may still be reading.
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            if self._failure is None and not self._framing.ended:
                self._framing.drain(deadline)
        except OSError as error:
            self._fail(error)
        finally:
            followed = self._failure is None
            self._failure = self._failure or OSError("this request has ended, and its body with it")
            self._ahead = io.BytesIO()
            self._lock.release()
        return followed

    def _want(self, size: int | None) -> int:
        """Ask for the body, unless nothing is wanted; give how much is, at most."""
        if size is None or size < 0:
            size = sys.maxsize
        if size and self.first_reader is None:
            self._ask()
        return size

    def _ask(self) -> None:
        """Say 100 if the client waits for it, before the first read."""
        try:
            self.expectation.on_read()
        except OSError as error:
            with self._lock:
                self._fail_reading(error)
            raise
        # Last: a thread that finds it reads at once, and the wire may not be looked at meanwhile.
        self.first_reader = _caller()

    def _end_asking(self) -> None:
        try:
            self.expectation.on_respond()
        except OSError as error:
            with self._lock:
                self._fail_reading(error)
            raise

    def _can_be_kept(self) -> bool:
        if self._framing.ended:
            return True
        if not self._lock.acquire(blocking=False):
            return False  # a thread waits for the client
        try:
            if self._failure is not None:
                return False
            data, kept = self._framing.read_what_is_here()
            self._put_back(data)
        except OSError as error:
            if isinstance(error, BodyError):
                self._put_back(error.partial)
            self._fail(error)
            return False
        finally:
            self._lock.release()
        return kept

    def _put_back(self, data: bytes) -> None:
        if data:
            self._ahead = io.BytesIO(self._ahead.read() + data)

    def _next(self, size: int) -> bytes:
        """Read up to ``size`` bytes when nothing is ahead; ``b""`` at the end of the body."""
        if size > SMALL:
            return self._more(size, whole=True)
        self._read_ahead()
        return self._ahead.read(size)

    def _next_into(self, view: memoryview) -> int:
        if len(view) > SMALL:
            return self._more_into(view)
        self._read_ahead()
        return self._ahead.readinto(view)

    def _read_ahead(self) -> None:
        """Read what is here of the body; wait if that is nothing."""
        self._ahead = io.BytesIO(self._more(AHEAD))

    def _more(self, size: int, *, whole: bool = False) -> bytes:
        if self._failure is not None:
            raise copy.copy(self._failure)
        try:
            return self._framing.read(size, whole=whole)
        except BaseException as error:
            self._fail_reading(error)
            raise

    def _more_into(self, view: memoryview) -> int:
        if self._failure is not None:
            raise copy.copy(self._failure)
        try:
            return self._framing.read_into(view)
        except BaseException as error:
            self._fail_reading(error)
            raise

    def _fail_reading(self, error: BaseException) -> None:
        """Fail, and tell that a read has; once, as who is gone may be asked again."""
        if self._failure is None:
            self._on_failed(error)
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Raise this from now on.

        After what interrupts a read, as gevent.Timeout does, too: the bytes that it had are lost,
        and who read on would take those of the next request for them.
        """
        if isinstance(error, OSError):
            # A copy: the error itself has the frames of who reads, with the buffer and the body.
            self._failure = copy.copy(error)
        else:
            self._failure = OSError(f"a read of the body was interrupted: {type(error).__name__}")
        if isinstance(self._failure, BodyError):
            self._failure.partial = b""  # it belongs to the call that failed first


def _caller() -> Reader | None:
    """Tell who has called a method of this file."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    if frame is None:
        return None
    return Reader(frame.f_globals.get("__name__", "?"), frame.f_code.co_name, frame.f_lineno)
