"""Header fields that a server may add to a response of its own accord (RFC 9110 section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable

Headers = Iterable[tuple[str, str]]

#: RFC 9110 section 5.6.2
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9110 section 5.5: "field values are usually constrained to the range of US-ASCII characters";
#: beyond it HTTP/1 and HTTP/2 would not carry the same bytes. No CR, no LF, no NUL.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")
#: They define where a message ends, or belong to its connection: only the server sets them. "A
#: server MUST NOT send" the first two in a 1xx (RFC 9110 section 8.6, RFC 9112 section 6.1), and
#: HTTP/2 breaks on TE.
_OF_THE_SERVER = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    }
)


def checked(headers: Headers, message: str) -> tuple[tuple[str, str], ...]:
    """Return header fields unchanged, if they can be sent.

    Args:
        headers: pairs of field name and value, both str.
        message: the response that carries them, for the error.

    Raises:
        ValueError: a name or a value that can't be sent, or that only the server may set.

    """
    fields = []
    for number, field in enumerate(headers, 1):
        match field:
            case (str(name), str(value)):
                fields.append((name, value))
            case _:
                raise ValueError(f"header field {number} of {message} is not a pair of str")
        if not _TOKEN.fullmatch(name):
            # Don't show the name: the value may be in it.
            raise ValueError(
                f"header field {number} of {message} has a name with a character that can't be "
                "sent in one (RFC 9110 section 5.6.2), or none"
            )
        if name.lower() in _OF_THE_SERVER:
            raise ValueError(f"{message} can't be given {name}: only the server may set it")
        if not _FIELD_VALUE.fullmatch(value):
            # Show only the name: the value may be a secret.
            raise ValueError(
                f"the value of {name} can't be sent in {message}: "
                "it has a control character (CR, LF, NUL) or one outside ASCII"
            )
    return tuple(fields)
