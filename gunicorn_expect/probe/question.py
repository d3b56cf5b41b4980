"""The request of the probe, and the response that its user expects. No I/O."""

from __future__ import annotations

import enum
import urllib.parse
from dataclasses import dataclass
from typing import Final

#: The ports that a URL need not name (RFC 9110 sections 4.2.1 and 4.2.2).
PORTS: Final = {"http": 80, "https": 443}
#: The probe sends these itself.
_OF_THE_PROBE: Final = frozenset({"expect", "content-length", "transfer-encoding"})


class Manner(enum.Enum):
    """When the body is sent."""

    WAITS = "no byte of it is sent"
    SENDS = "it is sent when a 100 asks for it"
    IMPATIENT = "it is sent at once, without waiting for a response"


@dataclass(frozen=True)
class Question:
    """A request with ``Expect: 100-continue``, and the response that its user expects."""

    #: "http" or "https"
    scheme: str
    #: A name or an address, without brackets; for a certificate, too.
    host: str
    port: int
    #: The request target, with its query.
    target: str
    #: All fields of the head, in order.
    fields: tuple[tuple[str, str], ...]
    #: The names of the fields that the user passed; their values may be secrets.
    given: tuple[str, ...] = ()
    method: str = "PUT"
    #: Bytes of the body that the head announces.
    length: int = 1
    manner: Manner = Manner.WAITS
    #: The status of the refusal that the user expects; None: the user expects a 100.
    refusal: int | None = None
    #: The path of a unix socket, in place of host and port.
    unix_socket: str | None = None


def question_about(
    url: str,
    fields: list[str],
    *,
    method: str,
    length: int,
    manner: Manner,
    refusal: int | None,
    unix_socket: str | None,
) -> Question:
    """Return the question to ask at this URL.

    Args:
        url: http or https.
        fields: header fields as they are typed, ``"Name: value"``.
        method: of the request.
        length: bytes of its body.
        manner: when the body is sent.
        refusal: the status that the user expects; None: the user expects a 100.
        unix_socket: the path of a socket to connect to, instead of the host.

    Raises:
        ValueError: the request can't be sent. The message shows no value: it may be a secret.

    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:  # its message quotes the URL
        raise ValueError("the host or the port of the URL is malformed") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError("the URL has to be http://HOST/PATH or https://HOST/PATH")
    if "@" in parts.netloc:
        raise ValueError("the URL has a user or a password: give a field Authorization by -H")
    given = [_field(line) for line in fields]
    host = [] if any(name.lower() == "host" for name, _ in given) else [("Host", parts.netloc)]
    asked = [("Expect", "100-continue"), ("Content-Length", str(length))]
    return Question(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        fields=(*host, *given, *asked),
        given=tuple(name for name, _ in given),
        method=method,
        length=length,
        manner=manner,
        refusal=refusal,
        unix_socket=unix_socket,
    )


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError("a field given by -H has no colon: it is 'Name: value', in one argument")
    if name.lower() in _OF_THE_PROBE:
        raise ValueError(f"{name} is for the probe to send; --length says how long the body is")
    return name, value.strip(" \t")
