"""Every name of gunicorn that is not documented for others: read this file when gunicorn changes.

What it documents is its command line, its settings, its hooks and how to write a worker class.
All else that we use is here, as a function or a subclass with its reason. `require` looks for each
when gunicorn starts, so that a gunicorn that lacks one is refused in one line.
"""

from __future__ import annotations

import contextlib
import operator
import os
import pkgutil
import re
import types
from typing import TYPE_CHECKING, Any, Final

import gunicorn
from gunicorn import config, util
from gunicorn import sock as gunicorn_sock
from gunicorn.config import Config
from gunicorn.http import errors, message, unreader, wsgi

from gunicorn_expect.head import Limits
from gunicorn_expect.version import __version__

try:
    from gunicorn.http2 import negotiation
    from gunicorn.http2.errors import HTTP2Error
    from gunicorn.http2.response import HTTP2Response
except ImportError:  # an older gunicorn: `require` refuses it in words
    negotiation, HTTP2Error, HTTP2Response = None, OSError, wsgi.Response  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    import socket
    import ssl

    from gunicorn.workers.base import Worker

#: The client has left in the middle of what gunicorn reads.
NoMoreData = errors.NoMoreData

#: What is raised for a stream or a connection of HTTP/2 that is lost.
Http2Error: type[Exception] = HTTP2Error

#: A request that breaks the rules of HTTP, as gunicorn's parsers raise it.
ParseError = errors.ParseException

# What `require` looks for. As ``module:name``.
_NAMES: Final = (
    "gunicorn.http.message:Request._policy_expect_continue",
    "gunicorn.http.message:Request.parse_headers",
    "gunicorn.http.message:Request.force_close",
    "gunicorn.http.message:Request.should_close",
    "gunicorn.http.unreader:Unreader.read",
    "gunicorn.http.unreader:Unreader.take_buffered",
    "gunicorn.http.errors:ExpectationFailed",
    "gunicorn.http.errors:NoMoreData",
    "gunicorn.http.errors:InvalidH2CPreface",
    "gunicorn.config:PreRequest.default",
    "gunicorn.config:PostRequest.default",
    "gunicorn.http.message:Request._peer_trusted_for_forwarded",
    "gunicorn.http.wsgi:create",
    "gunicorn.http.wsgi:base_environ",
    "gunicorn.http.wsgi:WSGIErrorsWrapper",
    "gunicorn:SERVER",
    "gunicorn.http.wsgi:FileWrapper",
    "gunicorn.http.wsgi:Response.start_response",
    "gunicorn.util:is_hoppish",
    "gunicorn.http.wsgi:Response.send_headers",
    "gunicorn.http.wsgi:Response._emit_body",
    "gunicorn.http.wsgi:Response.default_headers",
    "gunicorn.http.wsgi:Response.force_close",
    "gunicorn.http.wsgi:Response.write_file",
    "gunicorn.http.wsgi:Response.sendfile",
    "gunicorn.http2.response:HTTP2Response.send_headers",
    "gunicorn.http2.stream:HTTP2Stream",
    "gunicorn.http2.stream:StreamState.CLOSED",
    "gunicorn.http2.request:HTTP2Body",
    "gunicorn.http2.request:HTTP2Request.content_length",
    "gunicorn.http2.connection:HTTP2ServerConnection.initiate_connection",
    "gunicorn.http2.connection:HTTP2ServerConnection.initiate_upgrade",
    "gunicorn.http2.connection:HTTP2ServerConnection.receive_data",
    "gunicorn.http2.connection:HTTP2ServerConnection.cleanup_stream",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_informational",
    "gunicorn.http2.connection:HTTP2ServerConnection.send_error",
    "gunicorn.http2.connection:HTTP2ServerConnection.is_closed",
    "gunicorn.http2.negotiation:prior_knowledge_allowed",
    "gunicorn.http2.negotiation:peer_trusted_for_h2c",
    "gunicorn.http2.negotiation:preface_match",
    "gunicorn.http2.negotiation:mismatch_is_error",
    "gunicorn.http2.negotiation:upgrade_allowed",
    "gunicorn.http2.negotiation:upgrade_settings",
    "gunicorn.http2.negotiation:UPGRADE_101",
    "gunicorn.sock:ssl_context",
    "gunicorn.sock:is_http2_negotiated",
    "gunicorn.workers.base:Worker.handle_error",
)
#: The attributes that only an object has, not its class.
_OF_A_REQUEST: Final = (
    "method",
    "path",
    "headers",
    "version",
    "req_number",
    "proxy_protocol_info",
    "limit_request_line",
    "limit_request_field_size",
    "max_buffer_headers",
    "body.reader.length",
)
_OF_A_RESPONSE: Final = (
    "status",
    "headers",
    "headers_sent",
    "chunked",
    "upgrade",
    "response_length",
    "must_close",
    "_omits_body",
)
_OF_A_STREAM: Final = ("expect_continue", "body_size", "body_complete", "state", "stream_id")
_OF_ITS_BODY: Final = ("_buf",)


def require(*hooks: str) -> None:
    """Make sure that this gunicorn has what we rely on.

    Args:
        hooks: what a worker relies on besides, as ``module:Class.attribute``.

    Raises:
        RuntimeError: it lacks something. gunicorn prints the message and exits.

    """
    try:
        for name in (*_NAMES, *hooks):
            pkgutil.resolve_name(name)
        a_request: Any = Request(Config(), _Bytes(b"GET / HTTP/1.1\r\n\r\n"), ("", 0))
        of_no_socket: Any = None
        a_response = wsgi.Response(a_request, of_no_socket, Config())
        of_no_connection = types.SimpleNamespace(initial_window_size=0)
        for thing, names in (
            (a_request, _OF_A_REQUEST),
            (a_response, _OF_A_RESPONSE),
            (
                pkgutil.resolve_name("gunicorn.http2.stream:HTTP2Stream")(1, of_no_connection),
                _OF_A_STREAM,
            ),
            (pkgutil.resolve_name("gunicorn.http2.request:HTTP2Body")(b""), _OF_ITS_BODY),
        ):
            for name in names:
                operator.attrgetter(name)(thing)
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"gunicorn_expect {__version__} can't work with gunicorn {gunicorn.__version__}, "
            f"which has no {name}; it needs gunicorn 27.0.0 or later"
        ) from error


class Snapshot(Config):
    """The settings as plain attributes.

    gunicorn's own looks each one up through two functions, some forty times for a request.
    """

    # Properties in gunicorn's.
    is_ssl: bool = False
    sendfile: bool = True

    def __init__(self, cfg: Config) -> None:
        """Take the settings as they are when the worker has booted."""
        mine = vars(self)
        mine.update(vars(cfg))
        mine.update((name, setting.get()) for name, setting in cfg.settings.items())
        mine.update(is_ssl=cfg.is_ssl, sendfile=cfg.sendfile)


# Heads.


class _NotWholeError(Exception):
    """A parser wants more bytes than have come."""


#: The option of a Connection field, anywhere in its list.
_CLOSE: Final = re.compile(r"(?:^|,)[ \t]*close[ \t]*(?:,|$)", re.IGNORECASE)


class Request(message.Request):
    """gunicorn's request, whose Expect field and whose body are ours."""

    # gunicorn would send the 100 while it builds the environ, before the application is called,
    # and would refuse unknown values by its own rule instead of ours.
    _policy_expect_continue = False

    version: tuple[int, int]
    body: Any
    #: Bytes of the body; None: it comes in chunks.
    content_length: int | None = 0
    #: Of a plain head: its environ, until the application gets it; and whether the head is known to
    #: keep the connection open, so that nobody has to search its fields for a "close".
    environ: dict[str, Any] | None = None
    persists = False

    def should_close(self) -> bool:
        """Return whether the request ends the connection."""
        for name, value in self.headers:
            # "A server that receives a 'close' connection option MUST initiate closure of the
            # connection" (RFC 9112 section 9.6), in whichever field and place of the list it is.
            if name == "CONNECTION" and _CLOSE.search(value):
                return True
        return super().should_close()


class _Lines(Request):
    """The lines of a head that isn't whole: the framing can't be known yet."""

    def set_body_reader(self) -> None:
        """Do nothing: a header field that defines the framing may follow."""


class _Empty(_Lines):
    """A request without a byte, from which gunicorn's limits are read."""

    def parse(self, unreader: Any) -> bytes:  # noqa: ARG002  it would want a head
        """Read nothing."""
        return b""


def has_request_hook(cfg: Config) -> bool:
    """Return whether a ``pre_request`` of the user's may change a request before it is an environ.

    Some append header fields there.
    """
    return cfg.pre_request is not config.PreRequest.default


def has_end_hook(cfg: Config) -> bool:
    """Return whether a ``post_request`` of the user's is called after each response."""
    return cfg.post_request is not config.PostRequest.default


def _empty(cfg: Config, peer: Any) -> Any:
    make: Any = _Empty
    return make(cfg, _Bytes(b""), peer)


def request_class(cfg: Config) -> Any:
    """Return a class of requests that holds what all of them share, such as gunicorn's limits.

    A request that waits for its client then needs less memory.
    """
    same = {**vars(_empty(cfg, ("", 0))), "unreader": None, "body": None, "fragment": ""}
    return type("PlainRequest", (Request,), same)


def may_be_plain(cfg: Config, listener: Any) -> bool:
    """Return whether the heads that come to this listener may be plain."""
    return (
        cfg.protocol == "http"
        and cfg.proxy_protocol == "off"
        and not os.environ.get("SCRIPT_NAME")
        and not (isinstance(listener, str) and ":" in listener)
    )


def trusted_scheme_headers(cfg: Config, address: str | None) -> tuple[tuple[str, str], ...]:
    """Return the keys of an environ, and their values, by which this peer may say "https".

    The address of a peer on a unix socket is None.
    """
    empty = _empty(cfg, "" if address is None else (address, 0))
    names, _ = empty._peer_trusted_for_forwarded()  # noqa: SLF001
    return tuple(
        ("HTTP_" + name.replace("-", "_"), value)
        for name, value in names.items()
        if "_" not in name  # no plain head has such a field, and it is not the one with a hyphen
    )


def is_trusted(cfg: Config, peer: Any) -> bool:
    """Return whether ``forwarded_allow_ips`` names this peer. A unix socket is trusted."""
    return bool(negotiation.peer_trusted_for_h2c(cfg, peer))


class _Errors(wsgi.WSGIErrorsWrapper):
    """``wsgi.errors`` of all requests. gunicorn's own keeps the log files that were open before.

    SIGUSR1 opens new ones.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg

    def write(self, data: Any) -> None:
        """Write to the error log."""
        make: Any = wsgi.WSGIErrorsWrapper
        make(self._cfg).write(data)


def environ_template(cfg: Config) -> dict[str, Any]:
    """Return what is the same in the environ of every request."""
    return {
        **wsgi.base_environ(cfg),
        "wsgi.errors": _Errors(cfg),
        "SCRIPT_NAME": "",
    }


class _Bytes(unreader.Unreader):
    """Bytes that are here, for gunicorn's parsers: they never wait for more."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data: bytes | None = data

    def chunk(self, size_hint: int | None = None) -> bytes:  # noqa: ARG002  all there is
        data, self._data = self._data, None
        if data is None:
            raise _NotWholeError
        return data


class Parser:
    """gunicorn's parsers, for one head: what `gunicorn_expect.head` asks."""

    __slots__ = ("_cfg", "_number", "_peer")

    def __init__(self, cfg: Config, peer: Any, number: int) -> None:
        """Parse what this peer sends: the request of this number on its connection."""
        self._cfg = cfg
        self._peer = peer
        self._number = number

    def parse(self, data: bytes) -> tuple[Any, bytes] | None:
        """Return the request and the bytes after its head; None: the head isn't whole.

        Raises:
            ParseError: it breaks the rules of HTTP.

        """
        source = _Bytes(data)
        kind: Any = Request
        if self._cfg.protocol == "uwsgi":
            from gunicorn.uwsgi.message import UWSGIRequest as kind  # noqa: N813
        try:
            request = kind(self._cfg, source, self._peer, self._number)
        except _NotWholeError:
            return None
        request.content_length = getattr(request.body.reader, "length", None)
        request.environ = None  # `create` makes it
        request.persists = False  # `should_close` tells
        return request, source.take_buffered()

    def judge(self, data: bytes) -> None:
        """Raise gunicorn's error if these lines can't begin a request."""
        with contextlib.suppress(_NotWholeError):
            _Lines(self._cfg, _Bytes(data), self._peer, self._number)


def head_limits(cfg: Config) -> Limits:
    """Return the limits of request heads, by gunicorn's settings.

    Raises:
        RuntimeError: ``http_parser`` is "fast" and that parser is missing, too old, or can't do
            what other settings ask for. gunicorn would answer each request with 500.

    """
    if cfg.protocol != "http":
        return Limits()  # it has no such heads, and no use for their parser
    empty = _empty(cfg, ("", 0))
    return Limits(
        # 0 means no limit, but the fast parser has one of 1 MiB. So beyond that it is asked.
        line=empty.limit_request_line or 1024 * 1024,
        fields=empty.limit_request_fields,
        field=empty.limit_request_field_size,
        all_fields=empty.max_buffer_headers,
        proxy=cfg.proxy_protocol,
    )


def expectation_failed(value: str) -> ParseError:
    """Return the error of a request that expects what we don't know; it is answered with 417."""
    error: ParseError = errors.ExpectationFailed(value)
    return error


def too_large() -> ParseError:
    """Return the error of a head that is too large, and has no end."""
    error: ParseError = errors.LimitRequestHeaders("max buffer headers")
    return error


def parse_trailers(request: Any, lines: bytes) -> None:
    """Parse the trailers of a request. ParseError: they break the rules."""
    request.trailers = request.parse_headers(lines.removesuffix(b"\r\n"), from_trailer=True)


# Answers.


#: gunicorn's responses: `gunicorn_expect.response` makes them settle an exchange.
BaseResponse = wsgi.Response
BaseStreamResponse = HTTP2Response

#: What ``environ["wsgi.file_wrapper"]`` is: a response may send it by sendfile.
FileWrapper = wsgi.FileWrapper

SERVER: Final[str] = gunicorn.SERVER


def create(
    request: Any,
    sock: Any,
    peer: Any,
    server: Any,
    cfg: Config,
    response_class: type,
    arguments: tuple[Any, ...] = (),
) -> tuple[Any, dict[str, Any]]:
    """Return response and environ, as gunicorn makes them."""
    create_both: Any = wsgi.create  # the stubs are older
    response, environ = create_both(
        request, sock, peer, server, cfg, response_class=response_class, response_args=arguments
    )
    return response, environ


def is_hop_by_hop(name: str) -> bool:
    """Return whether gunicorn leaves this header field out of a response."""
    return bool(util.is_hoppish(name))


def has_number(items: Any) -> bool:
    """Return whether the file of a ``wsgi.file_wrapper`` has a file number."""
    return bool(util.has_fileno(items.filelike))


class _Caught:
    """What ``handle_error`` takes for a socket: it keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def gettimeout(self) -> float:
        return 0.0  # or it would be told to be non-blocking

    def sendall(self, data: bytes) -> None:
        self.data += data


def error_answer(worker: Worker, request: Any, peer: Any, error: BaseException) -> bytes:
    """Let gunicorn log an error and return the response that it writes for it."""
    caught: Any = _Caught()
    try:
        raise error  # gunicorn logs the exception that is being handled
    except BaseException:  # noqa: BLE001
        worker.handle_error(request, caught, peer, error)
    return well_formed(caught.data) if caught.data else b""


def error_page(status: int, reason: str) -> bytes:
    """Return the page that gunicorn writes for this status."""
    caught: Any = _Caught()
    util.write_error(caught, status, reason, "")
    return well_formed(caught.data)


def well_formed(response: bytes) -> bytes:
    """Return a response of gunicorn's with the line ends of HTTP.

    gunicorn makes the head with ``textwrap.dedent``. Since Python 3.14 that turns the empty line
    at the end, which is a CR then, into a bare LF.
    """
    head, _, content = re.split(rb"(\r?\n){2}", response, maxsplit=1)
    return b"\r\n".join([*head.splitlines(), b"", content])


def is_end_of_data(error: BaseException) -> bool:
    """Return whether a parser found that the client has left in the middle of a head."""
    return isinstance(error, errors.NoMoreData)


# TLS and HTTP/2.


def wrap_tls(sock: socket.socket, cfg: Config) -> ssl.SSLSocket:
    """Return the socket as a TLS one, whose handshake is not begun.

    The context is made for each connection, as gthread does: certificates are renewed that way.
    """
    context: ssl.SSLContext = gunicorn_sock.ssl_context(cfg)
    return context.wrap_socket(
        sock,
        server_side=True,
        suppress_ragged_eofs=cfg.suppress_ragged_eofs,
        do_handshake_on_connect=False,
    )


def chose_http2(sock: Any) -> bool:
    """Return whether HTTP/2 was agreed on in the handshake."""
    return bool(gunicorn_sock.is_http2_negotiated(sock))


def may_begin_http2(cfg: Config, peer: Any) -> bool:
    """Return whether this peer may begin with HTTP/2's preface."""
    return bool(negotiation.prior_knowledge_allowed(cfg, peer))


def preface_match(data: bytes) -> bool | None:
    """Return whether these bytes begin with HTTP/2's preface; None: too few to tell."""
    match = negotiation.preface_match(data)
    return None if match is negotiation.PARTIAL else match is negotiation.MATCH


def bad_preface(cfg: Config, data: bytes) -> Exception | None:
    """Return the error of a peer that had to begin with HTTP/2's preface and did not."""
    if negotiation.mismatch_is_error(cfg):
        error: Exception = errors.InvalidH2CPreface(data)
        return error
    return None


def may_upgrade_to_http2(cfg: Config, peer: Any) -> bool:
    """Return whether a request of this peer may ask for HTTP/2."""
    return bool(negotiation.upgrade_allowed(cfg, peer))


def upgrade_settings(request: Any) -> bytes | None:
    """Return the HTTP2-Settings of a request that asks for HTTP/2; else None."""
    settings: bytes | None = negotiation.upgrade_settings(request)
    return settings


def upgrade_response() -> bytes:
    """Return the 101 that goes before HTTP/2."""
    return bytes(negotiation.UPGRADE_101)


def http2_connection(cfg: Config, sock: Any, peer: Any) -> Any:
    """Return gunicorn's side of an HTTP/2 connection."""
    from gunicorn import http

    return http.get_parser(cfg, sock, peer, http2_connection=True)


def http2_errors() -> tuple[type[Exception], ...]:
    """Return what gunicorn and h2 raise for a stream or a connection that is lost."""
    from h2.exceptions import ProtocolError  # an extra

    return HTTP2Error, ProtocolError


def holds_frames(http2: Any) -> bool:
    """Return whether frames were received while a response waited for its window."""
    return bool(http2._deferred_events)  # noqa: SLF001  there is no other way to ask


def stream_is_closed(request: Any) -> bool:
    """Return whether the client has reset the stream of an HTTP/2 request."""
    from gunicorn.http2.stream import StreamState

    return request.stream.state is StreamState.CLOSED
