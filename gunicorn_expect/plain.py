"""Plain heads: what nearly every client sends, parsed in one strict pass.

A head that is not plain is for gunicorn's own parser, byte for byte: one that is wrong, one with a
field that appears twice, an obsolete line fold, an absolute target, or a PROXY line. So a plain
head never needs an error of its own, and every rule and setting of gunicorn's still holds.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect import host

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from gunicorn.config import Config

    from gunicorn_expect.head import Limits

#: gunicorn treats two slashes, and a CONNECT, in its own way; "#" begins a fragment.
_REQUEST_LINE: Final = re.compile(r"(?!CONNECT )([A-Z]{3,20}) (/(?!/)[!-\"$-~]*) HTTP/1\.([01])")

#: RFC 9110 section 5.6.2, without the underscore: "X_A" and "X-A" are one key of the environ.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")

#: The characters of a value. The fields of a head of 8 KiB are looked at in a few microseconds.
_PRINTABLE: Final = bytes(code for code in range(256) if chr(code).isprintable())

#: No body is so long that it needs more digits. Digits of other alphabets are not allowed (RFC 9110
#: section 8.6).
_LENGTH: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

#: The field names whose key in an environ does not begin with ``HTTP_``, and that key.
_KEYS: Final = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}

#: Returned instead of a body's length.
NOT_PLAIN: Final = -1

#: Maximum field names, and client addresses, to remember: an application sees some dozens.
_REMEMBERED: Final = 1024

#: A name of so many bytes is not remembered: no field that is registered with IANA is as long.
_LONG_NAME: Final = 64


class PlainHeads:
    """Makes requests of the plain heads that arrive at one listener (any thread)."""

    def __init__(self, cfg: Config, limits: Limits, listener: Any, *, multithread: bool) -> None:
        """Make the part that all of its requests share.

        Args:
            cfg: gunicorn's configuration.
            limits: of the heads.
            listener: its address: a pair of host and port, or the path of a unix socket.
            multithread: for the environ.

        """
        self._limits = limits
        self._listener = listener
        self._request_class = host.request_class(cfg)
        self._environ = host.environ_template(cfg)
        self._environ["wsgi.multithread"] = multithread
        self._has_hook = host.has_request_hook(cfg)
        # By a field's name as it was sent: the name in upper case, and its key in an environ.
        self._names: dict[str, tuple[str, str]] = {}
        # Whether a peer is trusted is asked once, and not for each of its requests.
        self._schemes_of = functools.lru_cache(_REMEMBERED)(
            lambda address: host.trusted_scheme_headers(cfg, address)
        )

    def parse(self, data: bytes, peer: Any, number: int) -> tuple[host.Request, bytes] | None:
        """Return the request and the bytes after its head; None: the head isn't plain.

        Args:
            data: the bytes that arrived.
            peer: the address of the client.
            number: of the request on its connection.

        """
        end = data.find(b"\r\n\r\n")
        head = data[: max(0, end)]
        line, *lines = str(head, "latin-1").split("\r\n")
        match = _REQUEST_LINE.fullmatch(line)
        if (
            match is None
            or len(line) + 2 > self._limits.line
            or len(lines) > self._limits.fields
            # Only printable characters and the CRLFs of the lines: no CR or LF by itself.
            or head.translate(None, _PRINTABLE) != b"\r\n" * len(lines)
        ):
            return None
        method, target, minor = match.groups()
        environ = self._environ.copy()
        headers = self._take_fields(lines, environ)
        scheme = self._scheme(environ, peer)
        length = _body_length(environ, minor)
        if headers is None or scheme is None or length == NOT_PLAIN:
            return None
        environ["wsgi.url_scheme"] = scheme
        self._put_addresses(environ, peer, scheme)
        request = self._request_class.__new__(self._request_class)
        request.method, request.uri = method, target
        request.path, request.query = _put_target(environ, method, target, minor)
        request.version = (1, int(minor))
        request.headers, request.trailers = headers, []
        request.scheme = scheme
        request.peer_addr = request.remote_addr = peer
        request.req_number = number
        request.content_length = length
        if not self._has_hook:
            request.environ = environ
            request.persists = minor == "1" and "HTTP_CONNECTION" not in environ
        return request, data[end + 4 :]

    def _take_fields(
        self, lines: list[str], environ: WSGIEnvironment
    ) -> list[tuple[str, str]] | None:
        """Put the header fields into an environ, and return them; None: they aren't plain."""
        headers = []
        size = len(environ) + len(lines)  # no name twice
        for line in lines:
            name, colon, value = line.partition(":")
            names = self._names.get(name) or self._learn(name)
            if names is None or not colon:
                return None
            upper, key = names
            environ[key] = value = value.strip(" ")
            headers.append((upper, value))
        if len(environ) != size or max(map(len, lines), default=0) + 2 > self._limits.field:
            return None
        return headers

    def _learn(self, name: str) -> tuple[str, str] | None:
        if _TOKEN.fullmatch(name) is None:
            return None
        upper = name.upper()
        names = upper, _KEYS.get(upper) or "HTTP_" + upper.replace("-", "_")
        if len(self._names) < _REMEMBERED and len(name) < _LONG_NAME:
            self._names[name] = names
        return names

    def _scheme(self, environ: WSGIEnvironment, peer: Any) -> str | None:
        """Return the scheme of the request; None: a trusted proxy names two."""
        address = peer[0] if isinstance(peer, tuple) else None
        named = {
            "https" if environ[key] == secure else "http"
            for key, secure in self._schemes_of(address)
            if key in environ
        }
        if len(named) > 1:
            return None
        return named.pop() if named else self._request_class.scheme

    def _put_addresses(self, environ: WSGIEnvironment, peer: Any, scheme: str) -> None:
        if isinstance(peer, tuple):
            environ["REMOTE_ADDR"] = peer[0]
            environ["REMOTE_PORT"] = str(peer[1])
        else:
            environ["REMOTE_ADDR"] = peer if isinstance(peer, str) else peer.decode()
        server = self._listener
        if isinstance(server, str):  # a unix socket: as the client names it
            name, port = environ.get("HTTP_HOST"), "80" if scheme == "http" else "443"
            server = [*name.split(":"), port] if name else (server, "")
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = str(server[1])


def _put_target(environ: WSGIEnvironment, method: str, target: str, minor: str) -> tuple[str, str]:
    """Put the request line into an environ; return path and query."""
    path, _, query = target.partition("?")
    environ["REQUEST_METHOD"] = method
    environ["RAW_URI"] = target
    environ["PATH_INFO"] = (
        path if "%" not in path else urllib.parse.unquote_to_bytes(path).decode("latin-1")
    )
    environ["QUERY_STRING"] = query
    environ["SERVER_PROTOCOL"] = "HTTP/1." + minor
    return path, query


def _body_length(environ: WSGIEnvironment, minor: str) -> int | None:
    """Return the bytes of the body; None: it comes in chunks; `NOT_PLAIN`: it isn't plain."""
    length = environ.get("CONTENT_LENGTH")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        plain = coding.lower() == "chunked" and length is None and minor == "1"
        return None if plain else NOT_PLAIN
    if length is None:
        return 0
    return int(length) if _LENGTH.fullmatch(length) else NOT_PLAIN
