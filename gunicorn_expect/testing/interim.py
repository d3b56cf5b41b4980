"""The responses that a client receives before the final one."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: The beginning of an interim response. Not of a 101: after it another protocol is spoken.
INTERIM: Final = re.compile(rb"HTTP/1\.[01] (1(?!01)[0-9]{2})\b")


class Interim(NamedTuple):
    """An interim response (RFC 9110 section 15.2)."""

    status: int
    """100; 103 for early hints; or what the application sends by ``inform()``, such as 104."""
    headers: list[tuple[str, str]]
    """Its header fields, in order: pairs of name and value."""
