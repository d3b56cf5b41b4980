"""Collects the bytes of a head until they are a request or an error, for all workers.

It has no socket and does not know gunicorn: the owner of the connection passes it what arrived, and
it asks a parser. When the head is whole, the parser makes a request of it. Before that, the parser
judges what looks wrong: whether that is an error depends on the parser and on its settings.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final, Generic, Protocol, TypeVar

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_END: Final = b"\r\n\r\n"

#: The lines that every parser accepts, with any settings. Others are for a parser to judge.
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{3,20} /(?!/)[\x21-\x7e]* HTTP/1\.[01]\r\n")
_FIELD_LINE: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n"  # RFC 9110 section 5
)

#: Ends a head that isn't whole, so that a parser judges what there is of it. It has 12 bytes:
#: gunicorn looks for the PROXY protocol in so many before it looks at anything else.
_CUT: Final = b"\r\n" * 6

#: How often a parser is asked about one head that isn't whole. Each time it parses all of it:
#: a client could make that expensive if the settings allow unusual lines, such as folded ones.
_MOST_DOUBTS: Final = 8

#: The first bytes of the PROXY protocol, version 1 and 2.
_PROXY_V1: Final = b"PROXY "
_PROXY_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
#: "a 107-byte buffer is always enough to store all the line" (PROXY protocol, section 2.1)
_PROXY_V1_SIZE: Final = 107
#: Signature, version, family and length (PROXY protocol, section 2.2).
_PROXY_V2_SIZE: Final = 16


class TooLargeError(Exception):
    """The header fields have more bytes than they may have, and no end."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """From which sizes on a head is suspicious, in bytes, without the CRLF."""

    line: int = 4094
    """Of the request line."""
    fields: int = 100
    """The number of header fields: the only limit that is not in bytes."""
    field: int = 8190
    """Of a line of the header fields."""
    all_fields: int = 100 * (8190 + 2) + 4
    """Of all header fields together. More is an error."""
    proxy: str = "off"
    """How the first head may begin: "v1", "v2" or "auto", the versions of the PROXY protocol."""


class Parser(Protocol[R_co]):
    """Makes a request of a head. What it raises is the error that the client gets."""

    def parse(self, data: bytes) -> tuple[R_co, bytes] | None:
        """Return the request and the bytes after its head.

        None: the head isn't whole.
        """

    def judge(self, data: bytes) -> None:
        """Raise if these lines can't begin a request."""


class Head(Generic[R]):
    """The bytes of one head that have arrived.

    Each byte is looked at a fixed number of times, in however many pieces the head comes.
    """

    __slots__ = (
        "_doubts",
        "_fields",
        "_limits",
        "_line",
        "_lines",
        "_may_be_proxied",
        "_parser",
        "_received",
        "_skipped",
        "_start",
    )

    def __init__(self, limits: Limits, parser: Parser[R], *, is_first: bool) -> None:
        """Begin a head, which is the first one of its connection or not."""
        self._limits = limits
        self._parser = parser
        self._received = bytearray()
        self._doubts = 0
        self._may_be_proxied = is_first and limits.proxy != "off"
        # Where the request line begins, the line that has not ended, and the header fields.
        self._start = self._line = self._fields = 0
        self._lines = 0  # that have ended
        self._skipped = False  # an empty line before the request line

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has arrived; a CRLF before the request line doesn't count."""
        size = len(self._received) - self._start
        return size > 1 or (size == 1 and not self._received.endswith(b"\r"))

    def feed(self, piece: bytes) -> tuple[R, bytes] | None:
        """Add a piece; return the request and the bytes after its head; None: it isn't whole.

        Raises:
            TooLargeError: there are too many bytes.
            Exception: what the parser raises.

        """
        if not self._received and piece.endswith(_END):
            found = self._parser.parse(piece)  # whole in one piece, as most heads are
            if found is not None:
                return found
        data = self._received
        seen = len(data)
        data += piece
        if self._may_be_proxied:
            if not self._pass_proxy_header(seen):
                return None
            seen = self._start  # what follows was not looked at before
        self._pass_empty_line()
        if data.find(_END, max(self._start, seen - 3)) >= 0 or self._look(seen):
            found = self._parser.parse(bytes(data))
            if found is not None:
                return found
        if self._lines and len(data) - self._fields > self._limits.all_fields:
            raise TooLargeError
        return None

    def end(self) -> None:
        """Raise what the parser raises for an unfinished head: the client sends no more."""
        if self._received:
            self._parser.judge(bytes(self._received))

    def _look(self, seen: int) -> bool:
        """Look at the lines that came, and have the parser judge what looks wrong.

        Return whether the head may have ended, for a parser that takes a bare LF for a CRLF.
        """
        data = self._received
        while (end := data.find(b"\n", max(self._line, seen))) >= 0:
            line = bytes(data[self._line : end + 1])
            plain, longest = self._expected()
            self._line = end + 1
            self._lines += 1
            if self._lines == 1:
                self._fields = self._line
            elif line in (b"\n", b"\r\n"):
                self._doubts += 1
                return self._doubts <= _MOST_DOUBTS
            if (
                not plain.fullmatch(line)
                or len(line) - 2 > longest
                or self._lines - 1 > self._limits.fields
            ):
                self._judge(self._line)
        if self._doubts_tail(seen):
            self._judge(len(data))
        return False

    def _expected(self) -> tuple[re.Pattern[bytes], int]:
        """Return the pattern and the limit of the line that has not ended."""
        if self._lines:
            return _FIELD_LINE, self._limits.field
        return _REQUEST_LINE, self._limits.line

    def _doubts_tail(self, seen: int) -> bool:
        """Return whether the line that has not ended has begun to look wrong."""
        data, line = self._received, self._line
        if data.find(b"\r", max(line, seen - 1), len(data) - 1) >= 0:
            return True  # no LF follows it
        if seen <= line < len(data) and data[line] in b" \t":
            return True
        _, longest = self._expected()
        return seen - line <= longest + 2 < len(data) - line

    def _judge(self, end: int) -> None:
        """Have the parser judge the bytes before ``end``, as if the head ended there."""
        self._doubts += 1
        if self._doubts <= _MOST_DOUBTS:
            # A CR at the end is a part of the CRLF that comes.
            self._parser.judge(bytes(self._received[:end].removesuffix(b"\r") + _CUT))

    def _pass_empty_line(self) -> None:
        # "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
        # empty line (CRLF) received prior to the request-line" (RFC 9112 section 2.2). gunicorn
        # ignores one.
        if not (self._lines or self._skipped) and self._received.startswith(b"\r\n", self._start):
            self._skipped = True
            self._start += 2
            self._line = self._start

    def _pass_proxy_header(self, seen: int) -> bool:
        """Skip the header of the PROXY protocol, if any; return False while its end is missing.

        The parser judges it: whether it is allowed depends on who has sent it, too.
        """
        data, mode = self._received, self._limits.proxy
        end = 0
        if mode in ("v2", "auto") and data[:12] == _PROXY_V2[: len(data)]:
            if len(data) < _PROXY_V2_SIZE:
                return False
            end = _PROXY_V2_SIZE + int.from_bytes(data[14:16], "big")
            if seen < _PROXY_V2_SIZE:
                self._parser.judge(bytes(data[:_PROXY_V2_SIZE]))
        elif mode in ("v1", "auto") and data[:6] == _PROXY_V1[: len(data)]:
            found = data.find(b"\r\n", max(0, seen - 1))
            if found < 0 and len(data) > _PROXY_V1_SIZE:
                self._judge(len(data))
            end = found + 2 if found >= 0 else len(data) + 1
        if len(data) < end:
            if len(data) > self._limits.all_fields:
                raise TooLargeError
            return False
        if end:
            self._parser.judge(bytes(data[:end]))
        self._may_be_proxied = False
        self._start = self._line = end
        return True
