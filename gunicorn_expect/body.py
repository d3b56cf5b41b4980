"""``wsgi.input``: every way to read it asks for the body first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Source(Protocol):
    """The body as gunicorn reads it."""

    def read(self, size: int | None = None, /) -> bytes:
        """Read up to ``size`` bytes, or all."""

    def readline(self, size: int | None = None, /) -> bytes:
        """Read a line, or ``size`` bytes of it."""

    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """Read the lines that are left."""

    @property
    def failed(self) -> bool:
        """Whether its end can't be found any more."""


class Listener(Protocol):
    """Who is told that the application wants body bytes."""

    def on_read(self) -> None:
        """Say 100 if the client waits for it."""


class Body:
    """The body of one request, as PEP 3333 describes ``wsgi.input``, and with ``readinto``.

    It holds no bytes of its own: the source knows what is left. Every method that reads raises
    OSError when the client is gone (over HTTP/2 gunicorn's HTTP2Error), and what gunicorn raises
    when the framing of the body is broken.
    """

    def __init__(self, source: Source, expectation: Listener) -> None:
        """Read from this source, and tell the expectation before the first byte is wanted."""
        self._source = source
        self.expectation = expectation

    @property
    def failed(self) -> bool:
        """Whether reading it raised, so that nobody knows where the next request begins."""
        return self._source.failed

    def read(self, size: int | None = None) -> bytes:
        """Read up to ``size`` bytes; all that is left without a size."""
        if size != 0:
            self.expectation.on_read()
        return self._source.read(size)

    def readline(self, size: int | None = None) -> bytes:
        """Read a line, or ``size`` bytes of it."""
        if size != 0:
            self.expectation.on_read()
        return self._source.readline(size)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Read the lines that are left; the source may stop where the hint says."""
        self.expectation.on_read()
        return self._source.readlines(hint)

    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer, and tell how many bytes it got."""
        with memoryview(buffer).cast("B") as view:
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)

    def __iter__(self) -> Iterator[bytes]:
        """Give the lines that are left."""
        return self

    def __next__(self) -> bytes:
        """Give the next line."""
        line = self.readline()
        if not line:
            raise StopIteration
        return line
