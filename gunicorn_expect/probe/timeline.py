"""The events that the probe records on a connection, in order. `verdict` interprets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Event:
    """Something that the probe saw."""

    #: Milliseconds since the head was sent, negative before; without a head, since the start.
    at: float


@dataclass(frozen=True)
class Unreachable(Event):
    """The connection, or the TLS handshake, failed."""

    reason: str


@dataclass(frozen=True)
class Connected(Event):
    """There is a connection to this address or path."""

    to: str


@dataclass(frozen=True)
class Secured(Event):
    """The TLS handshake is complete; this is its version of TLS."""

    version: str


@dataclass(frozen=True)
class HeadSent(Event):
    """The request head was sent. Values are not recorded: they may be secrets."""

    method: str
    target: str
    #: The names of the fields that the user gave.
    given: tuple[str, ...]
    #: Bytes of the body that it announces.
    length: int


@dataclass(frozen=True)
class Interim(Event):
    """The head of an interim response, a 1xx, with all its fields."""

    status: int
    reason: str
    fields: Fields


@dataclass(frozen=True)
class Final(Event):
    """The head of a final response."""

    status: int
    reason: str
    #: Server and Via, where it has them.
    fields: Fields
    #: Whether it announces that the connection closes.
    closes: bool
    #: Bytes of the body that had been sent by then.
    body_sent: int


@dataclass(frozen=True)
class Whole(Event):
    """The final response is complete, with so many bytes of content."""

    size: int


@dataclass(frozen=True)
class ContinueInContent(Event):
    """The content of the final response contains what looks like a 100."""


@dataclass(frozen=True)
class BodySent(Event):
    """The probe has sent this many bytes of the body, and sends no more."""

    size: int
    length: int


@dataclass(frozen=True)
class Malformed(Event):
    """The bytes that arrived are not HTTP/1."""

    reason: str


@dataclass(frozen=True)
class CutOff(Event):
    """The connection ended in the middle of a response."""


@dataclass(frozen=True)
class Closed(Event):
    """The server closed the connection, or reset it."""

    by: Literal["end", "reset"]


@dataclass(frozen=True)
class Left(Event):
    """Nothing more arrived for so many seconds, and the probe closed the connection."""

    seconds: float


Timeline = tuple[Event, ...]
