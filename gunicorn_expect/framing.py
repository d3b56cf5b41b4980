"""Where the body of an HTTP/1.1 request ends (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

import copy
import enum
import math
import re
import time
from typing import TYPE_CHECKING, Final

from gunicorn_expect.errors import (
    BodyError,
    BodyTimeout,
    ClientDisconnected,
    ContentTooLarge,
    MalformedBody,
)
from gunicorn_expect.exchange import Framing
from gunicorn_expect.receiver import FILL_SIZE, MOST
from gunicorn_expect.states import Rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gunicorn_expect.receiver import Receiver

#: Bytes of an unread body that are read so that its connection can be kept: as many as arrive in
#: about one round trip (a receive buffer of Linux announces 64 KiB to begin with), and what stock
#: gunicorn drains.
DRAIN_SIZE: Final = 65536

#: From this chunk size on, one more recv for the size line costs less than copying the chunk: both
#: take a microsecond or two.
LARGE_CHUNK: Final = 32768


class _OnAConnection(Framing):
    """A body that is followed by the next request."""

    def __init__(self, receiver: Receiver) -> None:
        """Read from this connection."""
        self.receiver = receiver

    def drain(self, deadline: float) -> None:
        """Read and discard the rest, until ``deadline`` by `time.monotonic`; raises as `read`."""
        while (left := deadline - time.monotonic()) > 0:
            self.receiver.patience = left
            if not self.read(DRAIN_SIZE):
                return
        raise BodyTimeout("the rest of the body did not arrive in time to be discarded")


class Sized(_OnAConnection):
    """A body whose length the head announces."""

    def __init__(self, receiver: Receiver, length: int) -> None:
        """Read a body of ``length`` bytes."""
        super().__init__(receiver)
        self._length = length
        self._left = length

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return not self._left

    @property
    def received(self) -> int:
        """How many bytes of it were read."""
        return self._length - self._left

    def read(self, size: int, *, whole: bool = False) -> bytes:
        """Read straight off the connection."""
        left = self._left
        if not left:
            return b""
        try:
            data = self.receiver.receive(size if size < left else left, whole=whole)
        except BodyError as error:
            self._left -= len(error.partial)
            raise
        if not data:
            self._fail_at_the_end()
        self._left = left - len(data)
        return data

    def read_into(self, view: memoryview) -> int:
        """Read straight off the connection, into this."""
        if not self._left:
            return 0
        try:
            size = self.receiver.receive_into(view[: self._left])
        except BodyError as error:
            self._left -= len(error.partial)
            raise
        if not size:
            self._fail_at_the_end()
        self._left -= size
        return size

    def rest(self) -> Rest:
        """Return what is left, which is known."""
        if not self._left:
            return Rest.NOTHING
        if self._left <= DRAIN_SIZE or self._left <= self.receiver.here():
            return Rest.LITTLE
        return Rest.MUCH

    def _fail_at_the_end(self) -> None:
        came = self._length - self._left
        raise ClientDisconnected(f"the client left after {came} of {self._length} bytes")


class _Part(enum.Enum):
    SIZE = "the line with the size of a chunk"
    DATA = "the bytes of a chunk"
    DATA_END = "what follows the bytes of a chunk"
    TRAILERS = "a line of the trailer section"
    END = "nothing: the body has ended"


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
#: "chunk-size [ chunk-ext ] CRLF", with bad white space where RFC 9112 section 7.1.1 has it.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]+)"
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
    rb"\r\n"
)


#: What usually stands between the bytes of two chunks.
_NEXT_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})\r\n")


class Chunked(_OnAConnection):
    """A body in chunks (RFC 9112 section 7.1)."""

    def __init__(
        self,
        receiver: Receiver,
        line_limit: int,
        trailer_limit: int,
        on_trailers: Callable[[bytes], object],
    ) -> None:
        """Begin with the first chunk.

        Args:
            receiver: the connection.
            line_limit: bytes that the line with a chunk's size may have.
            trailer_limit: bytes that the trailer section may have.
            on_trailers: called with its lines, each with its CRLF. MalformedBody: it is wrong.

        """
        super().__init__(receiver)
        self._line_limit = line_limit
        self._trailer_limit = trailer_limit
        self._on_trailers = on_trailers
        self._part = _Part.SIZE
        self._left = 0  # of the chunk
        self._between = FILL_SIZE  # bytes to receive after it
        self._came = 0
        self._most: float = math.inf
        self._trailers = b""
        self._held = b""  # read to find the end, and not returned yet
        self._failure: BodyError | None = None  # of that read; raised after what is held

    @property
    def ended(self) -> bool:
        """Whether the last chunk and the trailers were read."""
        return self._part is _Part.END

    @property
    def received(self) -> int:
        """How many bytes of its chunks were read, or read ahead to find its end."""
        return self._came

    def read(self, size: int, *, whole: bool = False) -> bytes:
        """Read bytes of one chunk; of several if ``whole``."""
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        if self._failure is not None:
            raise copy.copy(self._failure)
        left = min(size, MOST)
        pieces = []
        try:
            while left and (data := self._read_chunk(left, whole=whole)):
                pieces.append(data)
                left -= len(data)
                if not whole:
                    break
        except BodyError as error:
            self._came += len(error.partial)
            error.partial = b"".join([*pieces, error.partial])
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_chunk(self, size: int, *, whole: bool) -> bytes:
        if self._part is _Part.DATA_END:
            if self.receiver.nothing_ahead:
                self.receiver.fill(self._between)
            if match := self.receiver.take(_NEXT_CHUNK):
                self._begin_chunk(match)
        while self._part not in (_Part.DATA, _Part.END):
            self._next_line()
        if self.ended:
            return b""
        data = self.receiver.receive(min(size, self._left), whole=whole)
        if not data:
            self._fail_at_the_end()
        self._came += len(data)
        self._left -= len(data)
        if not self._left:
            self._part = _Part.DATA_END
        return data

    def rest(self) -> Rest:
        """Read ahead to find the end: only if it has arrived can the connection be kept."""
        patience, self.receiver.patience = self.receiver.patience, 0
        pieces = [self._held]
        room = DRAIN_SIZE
        self._held = b""
        try:
            while room and (data := self.read(room)):
                pieces.append(data)
                room -= len(data)
        except BlockingIOError:
            pass
        except BodyError as error:
            # A copy: the error itself holds the frames of this call.
            self._failure = copy.copy(error)
            return Rest.BROKEN
        finally:
            self.receiver.patience = patience
            self._held = b"".join(pieces)  # the application may still read it
        return Rest.NOTHING if self.ended else Rest.MUCH

    def follow_up(self) -> None:
        """Begin again with a first chunk, if the last one was read."""
        if self.ended:
            self._part = _Part.SIZE
            self._trailers = b""

    def limit(self, size: float) -> None:
        """Allow at most ``size`` bytes; a lower limit set before stays."""
        self._most = min(self._most, size)

    def _next_line(self) -> None:
        limit = {_Part.SIZE: self._line_limit, _Part.DATA_END: 2}.get(
            self._part, self._trailer_limit
        )
        line = self.receiver.line(limit)
        if line is None:
            self._fail_at_the_end()
        elif not line.endswith(b"\r\n") or len(line) > limit:
            # A proxy that accepts a bare LF as the end of a line would see another body than we
            # do.
            raise MalformedBody(
                f"{self._part.value} does not end with CRLF after {limit} bytes or less"
            )
        elif self._part is _Part.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise MalformedBody(f"a line of {len(line)} bytes is not the size of a chunk")
            self._begin_chunk(match)
        elif self._part is _Part.DATA_END:
            self._part = _Part.SIZE  # the line has no room for more than CRLF
        elif line == b"\r\n":
            if self._trailers:
                self._on_trailers(self._trailers)
            self._part = _Part.END
        else:
            self._trailers += line
            if len(self._trailers) > self._trailer_limit:
                raise MalformedBody(f"the trailer section is over {self._trailer_limit} bytes")

    def _begin_chunk(self, size: re.Match[bytes]) -> None:
        self._left = int(size[1], 16)
        if self._came + self._left > self._most:
            raise ContentTooLarge(int(self._most))
        self._part = _Part.DATA if self._left else _Part.TRAILERS
        # A chunk is mostly as large as the one before. After a large one, receive only the size
        # line of the next, so that the bytes of that chunk need not be copied.
        self._between = FILL_SIZE if self._left < LARGE_CHUNK else len(f"\r\n{self._left:x}\r\n")

    def _fail_at_the_end(self) -> None:
        raise ClientDisconnected(f"the client left after {self._came} bytes, before the last chunk")
