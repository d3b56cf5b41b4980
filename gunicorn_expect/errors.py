"""What reading a body may raise. Each error knows its response and its counter."""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Final


class BodyError(OSError):
    """The body of a request did not arrive completely."""

    #: The status line that the client gets if the application sends no response.
    status: ClassVar[str]
    #: The name of its counter in statsd, without ``gunicorn.expect.`` at the beginning.
    counter: ClassVar[str]
    _errno: ClassVar[int]

    #: The bytes that the failed call had read, like `http.client.IncompleteRead.partial`. ``b""``
    #: if an earlier call had already failed.
    partial: bytes = b""

    def __init__(self, message: str) -> None:
        """Say what was wrong."""
        super().__init__(self._errno, message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it with the argument of its class, not with those of OSError."""
        return type(self), (self.strerror,), vars(self)


class ClientDisconnected(BodyError, ConnectionResetError):  # noqa: N818  the name is the contract's
    """The client disconnected before the end of the body."""

    # A client that has left won't get it. One that has only closed its sending side will.
    status = "400 Bad Request"
    counter = "disconnected"
    _errno = errno.ECONNRESET


class BodyTimeout(BodyError, TimeoutError):  # noqa: N818  the name is the contract's
    """The client sent nothing for ``expect_body_timeout`` seconds, or sent too slowly."""

    status = "408 Request Timeout"
    counter = "body_timeout"
    _errno = errno.ETIMEDOUT


class MalformedBody(BodyError):  # noqa: N818  as the other two
    """The chunks of the body are malformed (RFC 9112 section 7.1)."""

    status = "400 Bad Request"
    counter = "malformed"
    _errno = errno.EBADMSG


class ContentTooLarge(BodyError):  # noqa: N818  RFC 9110's words
    """A body without a ``Content-Length`` is longer than its limit."""

    status = "413 Content Too Large"
    counter = "too_large"
    _errno = errno.EFBIG

    def __init__(self, limit: int) -> None:
        """Make the message: how many bytes it may have."""
        super().__init__(f"the body has more than {limit} bytes")
        self.limit: Final = limit

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it as its base class, with its own argument."""
        return type(self), (self.limit,), vars(self)
