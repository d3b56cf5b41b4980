"""One connection, from accept to its end: head, answer, then keep, drain, linger or close.

At each moment it has one owner: the loop, or the thread (or greenlet) that answers its request. The
methods that read a head never wait, those that answer may. What follows a response is decided
once, by the second table of ``states.py``.
"""

from __future__ import annotations

import contextlib
import enum
import io
import math
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect import host, streams
from gunicorn_expect.answer import Answer
from gunicorn_expect.body import Body
from gunicorn_expect.errors import ClientDisconnected, MalformedBody
from gunicorn_expect.exchange import Exchange, UnknownExpectationError, expects_continue
from gunicorn_expect.framing import Chunked, Sized
from gunicorn_expect.head import Head, TooLargeError
from gunicorn_expect.receiver import FILL_SIZE, Receiver
from gunicorn_expect.response import REASONS, Response
from gunicorn_expect.states import End, State
from gunicorn_expect.transport import READ, WRITE, TLSTransport, Transport, wait_by_poll

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from gunicorn_expect.answer import Service
    from gunicorn_expect.exchange import Responses
    from gunicorn_expect.fields import Headers
    from gunicorn_expect.transport import Wait

#: Bytes received in one call while a head is read: as many as gunicorn's own parser asks for.
PIECE: Final = 8192


class Wants(enum.Enum):
    """What a connection waits for."""

    REQUEST = "the next request, of which nothing has come"
    READ = "something to read"
    WRITE = "room to write"
    ANSWER = "an answer: a request is here, or an error in its place"
    END = "nothing: the client is gone"


class Connection:
    """One connection of a client. Its exchanges reach the client through it."""

    def __init__(
        self,
        service: Service,
        sock: socket.socket,
        peer: Any,
        server: Any,
        waiting: Callable[[], AbstractContextManager[object]] | None = None,
        wait: Wait = wait_by_poll,
    ) -> None:
        """Begin with a connection of which nothing was read.

        Args:
            service: of the worker.
            sock: the connection, not TLS yet.
            peer: the address of the client.
            server: the address of the listener.
            waiting: entered by a thread while it waits for the client to send its body.
            wait: the function that waits for the socket.

        """
        self.service = service
        self.peer = peer
        self.server = server
        self.transport = Transport(sock, wait)
        self.fd = sock.fileno()
        #: For the loop: whether its poller knows the connection, and its place among the threads.
        self.is_registered = False
        self.place: Any = None
        self._waiting = waiting
        self._wait = wait
        self._cfg = service.cfg
        # Functions, not methods of this connection: those would make a cycle of references.
        self._step = Connection._begin_tls if self._cfg.is_ssl else Connection._receive
        self._heads = 0  # complete ones, so far
        #: The next head, while only a part of it has arrived.
        self._head: Head[Any] | None = None
        #: Bytes received after the last head: of its body, or of the next head.
        self._behind = b""
        #: Whether nothing more was here when the head was read, in this turn of the loop.
        self._has_looked = False
        self._preface = b""
        self._speaks_uwsgi = self._cfg.protocol == "uwsgi"
        h2c = self._cfg.http2_cleartext != "off"
        self._may_be_http2 = h2c and host.may_begin_http2(self._cfg, peer)
        self._may_upgrade = h2c and host.may_upgrade_to_http2(self._cfg, peer)
        self._plain = service.plain_heads(server)
        self._proxy_info: Any = None
        self._receiver: Receiver | None = None
        self._is_lent = False  # the application has the socket, in blocking mode
        #: What is to be answered: a request with its exchange, if it has a body; or an error; or
        #: the first bytes of HTTP/2.
        self.request: Any = None
        self.exchange: Exchange | None = None
        self.error: Exception | None = None
        self.http2: bytes | None = None

    # The head: by the loop, or by a worker that has none. It never waits.

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has come."""
        return bool(self._preface) or (self._head is not None and self._head.has_begun)

    def advance(self) -> Wants:
        """Read what has arrived of a head; return what the connection waits for now."""
        try:
            return self._step(self)
        except ssl.SSLError as error:
            if error.args[0] == ssl.SSL_ERROR_EOF:
                return Wants.END
            self.error = error
            return Wants.ANSWER
        except OSError:
            return Wants.END

    def _begin_tls(self) -> Wants:
        sock = host.wrap_tls(self.transport.sock, self._cfg)
        self.transport = TLSTransport(sock, self._wait)
        self._step = Connection._shake_hands
        return self._shake_hands()

    def _shake_hands(self) -> Wants:
        assert isinstance(self.transport, TLSTransport)  # noqa: S101  _begin_tls has made it one
        waits_for = self.transport.handshake()
        if waits_for:
            return Wants.READ if waits_for == READ else Wants.WRITE
        self._step = Connection._receive
        if host.chose_http2(self.transport.sock):
            self._step = Connection._receive_http2
        return self._step(self)

    def _receive_http2(self) -> Wants:
        piece = self.transport.receive(PIECE)
        if piece:
            self.http2 = piece
            return Wants.ANSWER
        return Wants.READ if piece is None else Wants.END

    def _receive(self) -> Wants:
        while True:
            piece = self.transport.receive(PIECE)
            if piece is None:
                return Wants.READ
            if not piece:
                return self._end_head()
            # TLS may hold bytes that the socket does not show.
            self._has_looked = len(piece) < PIECE and not self._cfg.is_ssl
            wants = self._take(piece)
            if wants is not Wants.READ or self._has_looked:
                return wants

    def _end_head(self) -> Wants:
        """Return what follows when the client sends no more: END, or ANSWER for a bad head."""
        try:
            if self._head is not None:
                self._head.end()
        except Exception as error:  # noqa: BLE001  the client gets a response for it
            self.error = error
            return Wants.ANSWER
        return Wants.END

    def _take(self, piece: bytes) -> Wants:
        try:
            if self._may_be_http2:
                return self._look_for_preface(piece)
            found = self._parse(piece)
            if found is None:
                return Wants.READ
            self._heads += 1
            self._head = None
            request, self._behind = found
            self._open(request)
        except TooLargeError:
            self.error = host.too_large()
        except Exception as error:  # noqa: BLE001  whatever it is, it ends this connection only
            self.error = error
        return Wants.ANSWER

    def _parse(self, piece: bytes) -> tuple[Any, bytes] | None:
        """Return the request and the bytes after its head; None: the head isn't whole."""
        number = self._heads + 1
        if self._speaks_uwsgi:
            # A packet of the uwsgi protocol has 64 KiB at most.
            self._preface += piece
            found = host.Parser(self._cfg, self.peer, number).parse(self._preface)
            self._preface = self._preface if found is None else b""
            return found
        if self._head is None:
            plain = self._plain.parse(piece, self.peer, number) if self._plain else None
            if plain is not None:
                return plain
            parser = host.Parser(self._cfg, self.peer, number)
            self._head = Head(self.service.head_limits, parser, is_first=number == 1)
        return self._head.feed(piece)

    def _look_for_preface(self, piece: bytes) -> Wants:
        self._preface += piece
        matches = host.preface_match(self._preface)
        if matches is None:
            return Wants.READ
        received, self._preface = self._preface, b""
        self._may_be_http2 = False
        if matches:
            self.http2 = received
        else:
            self.error = host.bad_preface(self._cfg, received)
            if self.error is None:
                return self._take(received)
        return Wants.ANSWER

    def _open(self, request: Any) -> None:
        """Open the exchange of a request that has a body."""
        # The PROXY protocol says once, at the beginning of the connection, who the client is.
        self._proxy_info = request.proxy_protocol_info or self._proxy_info
        request.proxy_protocol_info = self._proxy_info
        self.request = request
        try:
            # "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore
            # that expectation" (RFC 9110 section 10.1.1).
            expected = [value for name, value in request.headers if name == "EXPECT"]
            waits = bool(expected) and expects_continue(expected) and request.version >= (1, 1)
            waits = waits and self._cfg.protocol == "http"  # the uwsgi protocol has no 100
        except UnknownExpectationError as error:
            raise host.expectation_failed(str(error)) from None
        # "A server MAY omit sending a 100 (Continue) response [...] if the framing indicates that
        # there is no content" (RFC 9110 section 10.1.1), and botocore, which sends an expectation
        # with an empty body, does not wait.
        if request.content_length == 0:
            request.body = request.body or io.BytesIO()
            return
        counters = self.service.counters
        callbacks = counters.callbacks(request) if counters.enabled else {}
        self.exchange = Exchange(self, waits=waits, **callbacks)
        request.body = Body(self.exchange, self.service.settings.expect_warn)
        if waits and self._behind:
            self.exchange.look()  # body bytes came with the head: the client did not wait

    # Waiting in place: by a worker that has no loop.

    def wait_for_first_byte(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the next request to begin; return whether it did."""
        return bool(self.transport.wait(READ, seconds))

    def wait_for_head(self, seconds: float) -> bool:
        """Wait for a head; return whether there is a request, or an error, to answer.

        Args:
            seconds: maximum time for the head, the TLS handshake included; 0: no limit.

        """
        ends = time.monotonic() + (seconds or math.inf)
        while True:
            wants = self.advance()
            if wants in (Wants.ANSWER, Wants.END):
                return wants is Wants.ANSWER
            left = ends - time.monotonic()
            if left <= 0:
                self.send_late()
                return False
            self.transport.wait(
                READ if wants is Wants.READ else WRITE, None if left == math.inf else left
            )

    def linger_here(self, seconds: float) -> None:
        """Close in order, and wait for that up to ``seconds`` in all."""
        outcome = "dropped"  # unless it comes to an end: a greenlet may be killed to make room
        try:
            outcome = self._wait_for_close(time.monotonic() + seconds)
        except OSError:
            outcome = "closed"
        finally:
            self.transport.close()
            if self.service.counters.enabled:
                self.service.counters.lingered(outcome)

    def _wait_for_close(self, ends: float) -> str:
        """Half-close, and discard what still arrives; return how that ended."""
        transport = self.transport
        idle = self.service.settings.expect_linger_idle
        while not transport.half_close():
            if not transport.wait(WRITE, min(idle, ends - time.monotonic())):
                return "timed_out"
        while (left := ends - time.monotonic()) > 0:
            size = transport.discard(self.service.scrap)
            if size == 0:
                return "closed"
            late = size is None and not transport.wait(READ, min(idle, left))
            if late and transport.is_acknowledged():
                break
        return "timed_out"

    # The answer: by the thread or greenlet that owns the connection. It may wait.

    def answer_inline(self) -> bool:
        """Answer without a thread if possible; return whether that was done (loop).

        Only errors and refusals by the inline policy need no thread. The connection then ends.
        """
        if self.error is not None:
            self.answer()
            return True
        if self.exchange is None:
            return False
        answer = Answer(self.service, self.request, self.exchange, self)
        if not answer.refuse_inline():
            return False
        self._forget_exchange()
        return True

    def answer(self) -> Wants:
        """Answer the request or the error; return what the connection waits for then.

        END: it is to be closed. This raises only what ends a worker.
        """
        self._has_looked = False  # time has passed since the head was read
        may_follow = self.answer_once()
        behind = self._behind
        if self._receiver is not None:
            behind = self._receiver.close() + behind  # these bytes are of the next request
        self._forget_exchange()
        if not may_follow:
            return Wants.END
        wants = self._take(behind) if behind else Wants.REQUEST
        if self._cfg.is_ssl and wants is not Wants.ANSWER:
            wants = self.advance()  # TLS may hold bytes that the socket does not show
        return Wants.REQUEST if wants is Wants.READ and not self.has_begun else wants

    def _forget_exchange(self) -> None:
        # They refer to this connection: kept, they would be a cycle of references.
        self.request = self.exchange = self._receiver = self.transport.give_up_body = None
        self._behind = b""

    def answer_once(self) -> bool:
        """Answer the request or the error; return whether another request may follow."""
        if self.error is not None:
            if not host.is_end_of_data(self.error):
                self.send_error(self.request, self.error)
            return False
        if self.http2 is not None:
            streams.serve(self, self.http2)
            return False
        if self._may_upgrade and self._upgrades():
            return False
        end = Answer(self.service, self.request, self.exchange, self).run()
        if self._is_lent:
            self._is_lent = False
            with contextlib.suppress(OSError):  # the application has closed it
                self.transport.sock.settimeout(0)
        if end is End.DRAIN:
            return self.exchange is None or self.exchange.drain()
        return end is End.KEEP

    def _upgrades(self) -> bool:
        """Serve HTTP/2 if the request asks for it; return whether it did.

        "A server MAY ignore a received Upgrade header field" (RFC 9110 section 7.8), and does if
        there is a body: only the application may ask for that.
        """
        settings = host.upgrade_settings(self.request)
        if settings is None or self.exchange is not None:
            return False
        behind, self._behind = self._behind, b""
        try:
            self.transport.sendall(host.upgrade_response())
        except OSError:
            return True
        streams.serve(self, behind, upgrade=(settings, self.request))
        return True

    # Called by the answer and by the exchange.

    def create(self, request: Any, responses: Responses) -> tuple[Response, dict[str, Any]]:
        """Return the response of a request, and its environ."""
        sock = self.transport.sock
        if request.environ is not None:
            response = Response(request, self.transport, self._cfg, responses)
            environ, request.environ = request.environ, None
            environ["wsgi.input"] = request.body
        else:
            response, environ = host.create(
                request,
                self.transport,
                self.peer,
                self.server,
                self._cfg,
                Response,
                (responses,),
            )
            environ["wsgi.multithread"] = self.service.multithread
        environ["gunicorn.socket"] = sock
        if not responses.has_body and "HTTP_UPGRADE" in environ:
            # A WebSocket application uses the socket itself, and expects it to block.
            sock.settimeout(None)
            self._is_lent = True
        return response, environ

    def arrived(self) -> bool:
        """Return, without waiting, whether body bytes have arrived. Only before `open_body`.

        Raises:
            ClientDisconnected: the connection broke.

        """
        if not self._behind and not self._has_looked:
            # Not MSG_PEEK: a TLS socket has none.
            try:
                self._behind = self.transport.receive(FILL_SIZE) or b""
            except OSError as error:
                raise ClientDisconnected(f"the client is gone: {error}") from error
        return bool(self._behind)

    def open_body(self) -> Sized | Chunked:
        """Return what reads the body: the bytes that came with the head, then the transport.

        Raises:
            ClientDisconnected: the request has ended, without its body.

        """
        request, settings = self.request, self.service.settings
        if request is None:
            raise ClientDisconnected("the request has ended, and its body with it")
        length = request.content_length
        behind, self._behind = self._behind, b""
        if length is not None:
            behind, self._behind = behind[:length], behind[length:]
        self._receiver = Receiver(
            self.transport,
            behind,
            timeout=settings.expect_body_timeout,
            min_rate=settings.expect_min_rate,
            waiting=self._waiting,
            awaited=self.exchange is not None and self.exchange.state is State.CONTINUED,
        )
        if length is not None:
            return Sized(self._receiver, length)
        return Chunked(
            self._receiver,
            request.limit_request_field_size,
            request.max_buffer_headers,
            on_trailers=partial(_parse_trailers, request),
        )

    def send_interim(self, status: int, headers: Headers) -> bool:
        """Send an interim response at once; return False if the client's protocol has none.

        Raises:
            ClientDisconnected: the client is gone.

        """
        request = self.request
        if request is None:
            raise ClientDisconnected("the request has ended, and its response with it")
        # "A server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 section 15.2).
        if request.version < (1, 1) or self._speaks_uwsgi:
            return False
        line = f"HTTP/1.1 {status} {REASONS.get(status, 'Informational')}"
        lines = [line, *map(": ".join, headers), "\r\n"]
        try:
            self.transport.sendall("\r\n".join(lines).encode("latin-1"))
        except OSError as error:
            raise ClientDisconnected(f"the client is gone: {error}") from error
        return True

    def send_error(self, request: Any, error: BaseException) -> None:
        """Send gunicorn's response to an error; nothing if the socket has no room for it."""
        answer = host.error_answer(self.service.worker, request, self.peer, error)
        try:
            self.transport.send(answer)
        except OSError as gone:
            self.service.worker.log.debug("Failed to send error message: %s", gone)

    def send_late(self) -> None:
        """Send 408 if a part of a head has come, but not all of it in time (loop)."""
        if self.has_begun:
            self.service.counters.late()
            self.send_page(408, "Request Timeout")

    def send_page(self, status: int, reason: str) -> None:
        """Send gunicorn's page for this status; nothing if the socket has no room for it."""
        with contextlib.suppress(OSError):
            self.transport.send(host.error_page(status, reason))


def _parse_trailers(request: Any, lines: bytes) -> None:
    try:
        host.parse_trailers(request, lines)
    except host.ParseError as error:
        # Not the parser's words: they quote the line.
        raise MalformedBody(f"the trailer section is malformed: {type(error).__name__}") from None
