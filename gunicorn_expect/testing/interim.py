"""What a client hears before the final response."""

from __future__ import annotations

from typing import NamedTuple


class Interim(NamedTuple):
    """An interim response (RFC 9110 section 15.2)."""

    status: int
    """100, or 103 for early hints."""
    headers: list[tuple[str, str]]
    """Its header fields, in order: pairs of name and value."""
