"""The head of a request while it comes: whether a parser would know what to make of it."""

from __future__ import annotations

import re
from typing import Final

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")


class Head:
    """What has come of a request head, and of what follows it."""

    __slots__ = ("_data", "_limit", "_line_limit")

    def __init__(self, line_limit: int, limit: int) -> None:
        """Begin with nothing.

        Args:
            line_limit: bytes that the request line may have; 0: any number.
            limit: bytes that the whole head may have.

        """
        self._line_limit = line_limit
        self._limit = limit
        self._data = bytearray()

    def __len__(self) -> int:
        """Count the bytes."""
        return len(self._data)

    @property
    def too_long(self) -> bool:
        """Whether it is longer than it may be, and no end of it has come."""
        return len(self._data) > self._limit

    def add(self, piece: bytes) -> bool:
        """Add what has come; tell whether the head is whole, or one that no parser would take.

        What was looked at is not looked at again: a head that comes in small pieces costs no more
        than one that comes at once.
        """
        data = self._data
        seen = len(data)
        data += piece
        # "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
        # empty line (CRLF) received prior to the request-line" (RFC 9112 section 2.2). gunicorn
        # ignores one.
        begin = 2 if data.startswith(b"\r\n") else 0
        if data.find(b"\r\n\r\n", max(begin, seen - 3)) >= 0 or data.startswith(b"\r\n", 2, 4):
            return True
        end = self._line_limit + begin + 2
        if self._line_limit and seen <= end < len(data) and data.find(b"\r\n", begin, end) < 0:
            return True
        return self.too_long or _BARE_LF.search(data, max(0, seen - 1)) is not None

    def take(self) -> bytes:
        """Give all that has come, and begin with nothing."""
        data = bytes(self._data)
        self._data.clear()
        return data
