"""``wsgi.input``: the whole body or an error. The first read asks the client for the body."""

from __future__ import annotations

import dataclasses
import io
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gunicorn_expect.errors import BodyError
from gunicorn_expect.fields import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from gunicorn_expect.callers import Calls
    from gunicorn_expect.exchange import Exchange, Framing

T = TypeVar("T")

#: Bytes that are read ahead for small reads, and to find the end of a line.
AHEAD: Final = 8192

#: The size of a small read: below it, copying the bytes once more costs less than a system call.
SMALL: Final = 1024


#: The module that calls the application.
_SERVER: Final = "gunicorn_expect.answer"


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Body:
    """The body of one request, as PEP 3333 describes ``wsgi.input``, and with ``readinto``.

    If the body does not arrive completely, reading it raises one of these:

    * ClientDisconnected, an OSError: the client disconnected before the end
    * BodyTimeout, a TimeoutError: the client sent nothing for too long, or too slowly
    * MalformedBody, an OSError: the chunks are malformed
    * ContentTooLarge, an OSError: the body is longer than `limit` allows

    Every later read raises the error again, so an incomplete body never looks complete. Each of
    these errors is a BodyError, whose ``partial`` has the bytes that the failed call had read.
    """

    _exchange: Exchange
    """It sends 100 before the first read, lets one thread read at a time, and keeps the error of a
    read that failed."""
    _notes_reader: bool = False
    """Whether to note which code reads the body, for a warning."""
    _ahead: io.BytesIO = dataclasses.field(default_factory=io.BytesIO)
    """What was read ahead, and not returned yet."""
    first_reader: Calls | None = None
    """The application's calls that led to the first read, if they are noted; None: nobody has
    read."""

    # What the application may use (PEP 3333, and io.BufferedIOBase for the details).

    # The arguments have the names that callers of gunicorn's own input use; PEP 3333 has none.

    def read(self, size: int | None = None) -> bytes:
        """Read ``size`` bytes, or fewer at the end of the body; without a size, all the rest."""
        size = self._want(size)
        if not size:
            return b""
        with self._exchange.reading:
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
        with self._exchange.reading:
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
        """Read all lines that are left, or stop after the line that completes ``hint`` bytes.

        Args:
            hint: bytes; None, 0 or less: all lines.
            size: another name for ``hint``, which gunicorn's own input uses.

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
        """Fill a writable buffer; return the number of bytes, lower only at the end of the body.

        After a BodyError the buffer begins with the bytes of its ``partial``.
        """
        with memoryview(buffer).cast("B") as view:
            if not self._want(len(view)):
                return 0
            with self._exchange.reading:
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
        """Return the lines that are left."""
        return self

    def __next__(self) -> bytes:
        """Return the next line."""
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
        """Set the header fields of every ``100 Continue``. The case of names is not changed.

        Raises:
            ValueError: a name or a value that can't be sent.

        """
        self._exchange.set_headers(checked(headers, "a 100 Continue"))

    def send_hundred_continue_response(self) -> None:
        """Send ``100 Continue``, also if one was sent before.

        The client may then send another chunked body. Nothing is sent if the client sent no
        ``Expect``, or after the final response has started.
        """
        if self._exchange.proceed_again(()):
            with self._exchange.reading:
                self._exchange.open_body().follow_up()

    # What a policy may use.

    def limit(self, size: int) -> None:
        """Make reads raise ContentTooLarge if the body is longer than ``size`` bytes.

        It limits only a body without a ``Content-Length``: the length of others is in the environ.
        Call it before the first read.
        """
        self._exchange.limit(size)

    # How it is read.

    def _want(self, size: int | None) -> int:
        """Ask the client for the body unless ``size`` is 0; return the most bytes to read."""
        if size is None or size < 0:
            size = sys.maxsize
        if size and self.first_reader is None:
            self._ask()
        return size

    def _ask(self) -> None:
        """Send 100 if the client waits for it, before the first read."""
        try:
            self._exchange.read()
        except OSError as error:
            with self._exchange.reading:
                self._exchange.fail(error)
            self._note_reader()
            raise
        # Last: other threads read as soon as they see it, so the 100 must be out. Not after an
        # interrupt, such as gevent.Timeout: it may have come before the 100, so ask again.
        self._note_reader()

    def _note_reader(self) -> None:
        self.first_reader = _calls() if self._notes_reader else ()

    def _next(self, size: int) -> bytes:
        """Read up to ``size`` bytes when none are read ahead; ``b""`` at the end of the body."""
        if size > SMALL:
            return self._receive(lambda framing: framing.read(size, whole=True))
        self._read_ahead()
        return self._ahead.read(size)

    def _next_into(self, view: memoryview) -> int:
        if len(view) > SMALL:
            return self._receive(lambda framing: framing.read_into(view))
        self._read_ahead()
        return self._ahead.readinto(view)

    def _read_ahead(self) -> None:
        """Read ahead what has arrived of the body; wait if nothing has."""
        self._ahead = io.BytesIO(self._receive(lambda framing: framing.read(AHEAD)))

    def _receive(self, take: Callable[[Framing], T]) -> T:
        """Read from the body. The exchange keeps a failure, and every later read raises it."""
        exchange = self._exchange
        if exchange.failure is not None:
            exchange.raise_failure()
        try:
            return take(exchange.framing or exchange.open_body())
        except BaseException as error:
            exchange.fail(error)
            raise


def _calls() -> Calls:
    """Return the calls of the application that have led to this one, the innermost first."""
    found = []
    # Beginning with `read`: a frame that is looked at takes memory until its call returns.
    frame: FrameType | None = sys._getframe(4)  # noqa: SLF001  it is documented
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    while frame is not None and (module := frame.f_globals.get("__name__", "?")) != _SERVER:
        found.append((module, frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)
