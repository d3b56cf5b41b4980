"""The differences from gunicorn that are meant, each with its words in docs/compatibility.md.

The responses to a stream are compared in their order. If two differ, one of the rules below must
explain why, from what both servers made of the same request. Our connection closes after each such
difference, so that the servers can't read a later byte in two ways. Three differences close
nothing: `CORRECTIONS` makes them in gunicorn's responses before these are compared.
"""

import dataclasses
import re

from differential.servers import Exchange
from gunicorn_expect.framing import DRAIN_SIZE

_ERRORS = (b"400", b"403", b"414", b"417", b"431", b"501")
_BODY_ERRORS = {
    *("InvalidChunkSize", "InvalidChunkExtension", "ChunkMissingTerminator", "NoMoreData"),
    # of the trailer section
    *("InvalidHeader", "InvalidHeaderName", "LimitRequestHeaders", "ObsoleteFolding"),
}
_EMPTY_400 = re.compile(
    rb"HTTP/\d\.\d 400 Bad Request\r\nServer: gunicorn\r\nConnection: close\r\n"
    rb"Content-Length: 0\r\n\r\n"
)
_OF_THE_PROXY_HEADER = (
    *("PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT"),
    *("REMOTE_ADDR", "REMOTE_PORT"),
)
_EXPECT = re.compile("(?<=e)x(?=pect)", re.IGNORECASE)
_CHUNKED = re.compile(r"(?:^|,)[ \t]*chunked[ \t]*(?:,|$)", re.IGNORECASE)


@dataclasses.dataclass
class Case:
    """One response of each server, with what is needed to explain why they differ."""

    ours: Exchange
    theirs: Exchange
    #: Whether the stream came in several pieces, or was cut off.
    in_pieces: bool
    #: Whether a line of the stream, with its CRLF, reaches the limit of a header field.
    has_long_line: bool
    #: Returns gunicorn's responses to the stream as it is when its head is cut off after each piece
    #: or line.
    cut_responses: object

    @property
    def environ(self):
        return self.theirs.environ or {}

    def field(self, name):
        return self.environ.get(name, "")

    @property
    def is_chunked(self):
        return bool(_CHUNKED.search(self.field("HTTP_TRANSFER_ENCODING")))

    def same_request(self):
        return self.ours.environ == self.theirs.environ is not None

    def status(self):
        return self.ours.sent[9:12]

    def closing(self):
        """Return gunicorn's response as if it had closed the connection."""
        return self.theirs.sent.replace(
            b"\r\nConnection: keep-alive\r\n", b"\r\nConnection: close\r\n", 1
        )

    def only_closes(self):
        """Return whether the only difference is that our connection closes."""
        return self.same_request() and self.ours.sent == self.closing()


# The rules: each returns whether it explains the difference.


def unknown_expectation(case):
    # Ours sends the 417 first, even if gunicorn can't make an environ of the request.
    no_environ = case.theirs.environ is None and case.theirs.sent.startswith(b"HTTP/1.1 500 ")
    return case.status() == b"417" and (expects_unknown(case.environ) or no_environ)


def declined(case):
    # A client that waits gets no other interim response.
    response = case.closing().removeprefix(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    return case.ours.state == "DECLINED" and case.same_request() and case.ours.sent == response


def closes_as_asked(case):
    return asks_to_close(case.environ) and case.only_closes()


def body_ends_early(case):
    return (
        case.same_request()
        and case.ours.raised == "ClientDisconnected"
        and case.theirs.raised in (None, "NoMoreData", "ChunkMissingTerminator")
        and _EMPTY_400.fullmatch(case.ours.sent)
    )


def malformed_body(case):
    return (
        case.same_request()
        and case.is_chunked
        and case.ours.raised == "MalformedBody"
        and (case.theirs.raised in _BODY_ERRORS or case.has_long_line)
        and _EMPTY_400.fullmatch(case.ours.sent)
    )


def malformed_rest_of_a_body(case):
    if not (case.same_request() and case.is_chunked and case.ours.raised is None):
        return False
    if case.theirs.raised in _BODY_ERRORS:
        # gunicorn had to read ahead for the one byte that our application got.
        return len(case.ours.read) == 1 and b"\r\nConnection: close\r\n" in case.ours.sent
    response = case.closing()
    second = response[len(case.ours.sent) :]
    # An application that fails after the first byte ends gunicorn's connection, too.
    ended = second[9:12] in _ERRORS or (case.ours.responds == "fails late" and not second)
    return response.startswith(case.ours.sent) and ended


def unread_rest(case):
    unknown = case.is_chunked and (case.in_pieces or case.has_long_line)
    much = (
        case.field("CONTENT_LENGTH").isdecimal() and int(case.field("CONTENT_LENGTH")) > DRAIN_SIZE
    )
    return (unknown or much) and case.ours.raised is None and case.only_closes()


def malformed_line_before_the_end(case):
    return (
        case.in_pieces
        and case.ours.environ is case.theirs.environ is None
        and case.status() in _ERRORS
        and not case.theirs.sent
        and case.ours.sent in case.cut_responses()
    )


def two_errors(case):
    return (
        case.in_pieces
        and case.ours.environ is case.theirs.environ is None
        and case.status() in _ERRORS
        and case.theirs.sent[9:12] in _ERRORS
        and case.ours.sent in case.cut_responses()
    )


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A difference that is meant."""

    tells: object
    #: The words of docs/compatibility.md.
    documented: str


DEVIATIONS = [
    Deviation(unknown_expectation, "has an `Expect` member other than `100-continue`"),
    Deviation(declined, "answered while its client waits"),
    Deviation(closes_as_asked, "`close` in any `Connection` field"),
    Deviation(body_ends_early, "closes its side of the connection before the end of its body"),
    Deviation(malformed_body, "malformed chunked body"),
    Deviation(malformed_rest_of_a_body, "malformed chunked body"),
    Deviation(unread_rest, "is more than 64 KiB, or comes in chunks that have not all arrived"),
    Deviation(
        malformed_line_before_the_end, "A request head with a line that gunicorn's parser refuses"
    ),
    Deviation(two_errors, "has two errors and comes in pieces"),
]


def expects_unknown(environ):
    """Return whether a request has an unknown expectation."""
    members = environ.get(as_ordinary_field("HTTP_EXPECT"), "").split(",")
    return any(member.strip(" \t").lower() not in ("", "100-continue") for member in members)


def asks_to_close(environ):
    """Return whether a request has the connection option "close"."""
    options = environ.get("HTTP_CONNECTION", "").split(",")
    return any(option.strip(" \t").lower() == "close" for option in options)


def must_differ(exchange):
    """Return whether docs/compatibility.md says that ours differs from this exchange."""
    environ = exchange.environ or {}
    keeps = b"\r\nConnection: keep-alive\r\n" in exchange.sent
    return expects_unknown(environ) or (asks_to_close(environ) and keeps)


def as_ordinary_field(data):
    """Return bytes, or a text, with `Expect` as a field that means nothing to gunicorn.

    Our rules for `Expect` are our own. So gunicorn gets the field under another name of the same
    length, and only what it makes of the rest is compared.
    """
    if isinstance(data, str):
        return _EXPECT.sub(lambda match: "W" if match[0] == "X" else "w", data)
    return as_ordinary_field(data.decode("latin-1")).encode("latin-1")


# Corrections: each changes gunicorn's exchanges to what ours must be.


def carry_proxy_header(ours, stock):
    first = (stock[0].environ if stock else None) or {}
    for exchange in stock[1:] if "PROXY_PROTOCOL" in first else []:
        if exchange.environ is not None:
            exchange.environ.update({name: first[name] for name in _OF_THE_PROXY_HEADER})


def tell_length(ours, stock):
    chunked, sized = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Content-Length: 0\r\n\r\n"
    for mine, theirs in zip(ours, stock, strict=False):
        if mine.state:  # an upload
            theirs.sent = theirs.sent.replace(b"\r\n" + chunked, b"\r\n" + sized, 1)


def replace_fields(ours, stock):
    for mine, theirs in zip(ours, stock, strict=False):
        if mine.state and b" 500 Replaced\r\n" in theirs.sent:
            theirs.sent = theirs.sent.replace(b"Content-Type: text/plain\r\n", b"", 1)


CORRECTIONS = [
    Deviation(carry_proxy_header, "for every request on its connection"),
    Deviation(tell_length, "An empty response to a request with a body"),
    Deviation(replace_fields, "replaces the response to a request with a body"),
]

#: What marks a response of gunicorn that depends on the pieces in which a stream comes. Ours must
#: be gunicorn's response to the same stream in one piece.
BY_PIECES = Deviation(
    (
        b"max buffer headers",  # bytes after a head count, too
        b"Invalid HTTP request line: &#x27;&#x27;",  # an empty line after a PROXY header
    ),
    "depends on the pieces in which a head comes",
)
