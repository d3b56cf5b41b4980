"""HTTP/2: gunicorn parses the frames of a connection, and each stream is answered as a request.

A connection of HTTP/2 occupies a thread for as long as it is open.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect import host
from gunicorn_expect.answer import Answer
from gunicorn_expect.body import Body
from gunicorn_expect.errors import BodyTimeout, ClientDisconnected, ContentTooLarge
from gunicorn_expect.exchange import (
    Exchange,
    Framing,
    Responses,
    UnknownExpectationError,
    expects_continue,
)
from gunicorn_expect.receiver import FILL_SIZE, Allowance, Receiver
from gunicorn_expect.response import StreamResponse
from gunicorn_expect.states import Rest
from gunicorn_expect.transport import Transport, closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gunicorn_expect.connection import Connection
    from gunicorn_expect.fields import Headers

#: Maximum calls that look on the connection for a frame that may be here. Over TLS a call
#: gives one record, and other frames may come before it: a few acknowledgements, mostly.
LOOKS: Final = 16


def serve(conn: Connection, received: bytes, *, upgrade: tuple[bytes, Any] | None = None) -> None:
    """Answer the streams of a connection until it ends (the thread that owns it).

    Args:
        conn: the connection.
        received: bytes of HTTP/2 that have arrived already.
        upgrade: the HTTP2-Settings and the request of HTTP/1 that asked for HTTP/2.

    """
    worker = conn.service.worker
    conn.transport.sock.setblocking(True)  # gunicorn gives it the timeouts that it needs
    try:
        http2 = host.http2_connection(worker.cfg, conn.transport.sock, conn.peer)
        served = 0
        # Neither h2 nor OpenSSL can be used by two threads at once. One may read a body while
        # another one sends a response, an interim or the final one.
        lock = threading.Lock()
        requests: list[Any] = []
        if upgrade is None:
            http2.initiate_connection()
        else:
            requests = [http2.initiate_upgrade(*upgrade, b"")]
        if received:
            requests += http2.receive_data(received)
        while True:
            for request in requests:
                Stream(conn, http2, request, lock).answer()
                served = request.stream.stream_id
            if http2.is_closed:
                return
            if not worker.alive:
                break
            requests = http2.receive_data()
        # Requests that are here already are served; then GOAWAY names the last of them, so that the
        # client can repeat any after it. (gunicorn receives b"" here, which is the end for it: it
        # serves none of them, and sends no GOAWAY.)
        while http2.pending_requests:
            for request in http2.receive_data():
                Stream(conn, http2, request, lock).answer()
                served = request.stream.stream_id
        http2.close(last_stream_id=served)
    except (OSError, host.Http2Error, host.NoMoreData) as error:
        worker.log.debug("HTTP/2 connection closed: %s", error)


class Stream:
    """One stream: for its request it is what a `Connection` is for one of HTTP/1."""

    def __init__(self, conn: Connection, http2: Any, request: Any, lock: threading.Lock) -> None:
        """Answer this request. Whoever uses the connection holds the lock."""
        self._conn = conn
        self._http2 = http2
        self._lock = lock
        self._request = request
        self._stream = request.stream
        self._frames = Frames(self._stream, http2, conn, lock)

    def answer(self) -> None:
        """Answer the request, whatever happens to its stream."""
        try:
            if not host.stream_is_closed(self._request):
                self._answer()
        finally:
            with self._lock:
                self._frames.end()
                self._http2.cleanup_stream(self._stream.stream_id)

    def _answer(self) -> None:
        request = self._request
        self._stream.expect_continue = False  # gunicorn's body would send a 100 of its own
        try:
            waits = expects_continue(v for name, v in request.headers if name == "EXPECT")
        except UnknownExpectationError as error:
            self._http2.send_error(self._stream.stream_id, 417, str(error))
            return
        exchange = None
        if request.content_length != 0 and not (
            self._stream.body_complete and not self._stream.body_size
        ):
            service = self._conn.service
            counters = service.counters
            callbacks = counters.callbacks(request) if counters.enabled else {}
            exchange = Exchange(self._frames, waits=waits, **callbacks)
            if waits and self._frames.have_come:
                exchange.look()
            request.body = Body(exchange, service.settings.expect_warn)
        Answer(self._conn.service, request, exchange, self).run()

    # What an answer and an exchange ask.

    def create(self, request: Any, responses: Responses) -> tuple[StreamResponse, dict[str, Any]]:
        """Return the response of a request, and its environ."""
        conn = self._conn
        response, environ = host.create(
            request,
            conn.transport.sock,
            conn.peer,
            conn.server,
            conn.service.cfg,
            StreamResponse,
            (responses, self._http2, self._lock),
        )
        environ["HTTP_VERSION"] = "2"
        environ["wsgi.multithread"] = conn.service.multithread

        def send_trailers(trailers: Any) -> None:
            response.trailers = list(trailers)

        environ["gunicorn.http2.send_trailers"] = send_trailers
        return response, environ

    def send_interim(self, status: int, headers: Headers) -> bool:
        """Send an informational HEADERS frame. ClientDisconnected: it is gone."""
        return self._frames.send_interim(status, headers)

    def send_error(self, request: Any, error: BaseException) -> None:
        """Send what gunicorn answers for an error of the application, and log both."""
        log = self._conn.service.worker.log
        log.error("Error handling HTTP/2 request", exc_info=error)
        try:
            response, environ = self.create(request, Responses())
            response.status = "500 Internal Server Error"
            log.access(response, request, environ, datetime.timedelta())
            with self._lock:
                self._http2.send_error(self._stream.stream_id, 500, str(error))
        except Exception as failure:  # noqa: BLE001  nobody is there to be told
            log.debug("HTTP/2 error response failed: %s", failure)


class Frames:
    """The frames of one stream of an HTTP/2 connection, until its body is read.

    gunicorn's own call restarts its timeout with every frame of the connection. So the frames are
    received here, and passed on to gunicorn.
    """

    def __init__(
        self, stream: Any, connection: Any, conn: Connection, lock: threading.Lock
    ) -> None:
        """Receive for this stream; frames of others wait for their turn, as in gunicorn."""
        limits = conn.service.settings
        self._lost = host.http2_errors()
        self._stream = stream
        self._connection = connection
        self._polled = _Polled(conn.transport.sock, lock, self._feed)
        self._timeout = limits.expect_body_timeout or math.inf
        self._allowance = Allowance(limits.expect_body_timeout, limits.expect_min_rate)
        self._receiver: Receiver | None = None
        self._lock = lock

    @property
    def have_come(self) -> bool:
        """Whether frames of the body have come."""
        return bool(self._stream.body_size or self._stream.body_complete)

    def arrived(self) -> bool:
        """Return, without waiting, whether frames of the body have come.

        Raises:
            ClientDisconnected: the stream was reset, or its connection is lost.

        """
        self._receive_what_is_here()
        return self.have_come

    def open_body(self) -> StreamFraming:
        """Return what reads the body, from the next frame on."""
        return StreamFraming(self)

    def next(self) -> bytes:
        """Return the bytes of the next DATA frame; ``b""`` at the end of the body.

        Raises:
            ClientDisconnected: the stream was reset, or its connection is lost.
            BodyTimeout: the client sends too little of this body, whatever else it sends.

        """
        since = time.monotonic()
        self._allowance.came = self._stream.body_size
        late = since + min(self._timeout, self._allowance.left)
        self._receive_what_is_here()  # before the clock is looked at: what is whole is never late
        while not self._is_here():
            seconds = late - time.monotonic()
            if seconds <= 0:
                raise self._late(since)
            with contextlib.suppress(BodyTimeout):
                self._receive(seconds)
        self._allowance.waited += time.monotonic() - since
        with self._turn():
            return bytes(self._stream.pop_chunk() or b"")

    def send_interim(self, status: int, headers: Headers) -> bool:
        """Send an informational HEADERS frame. ClientDisconnected: it is gone."""
        with self._turn():
            self._connection.send_informational(self._stream.stream_id, status, list(headers))
        return True

    def _is_here(self) -> bool:
        return bool(self._stream.body_complete or self._stream.unacked_size)

    def _receive_what_is_here(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(LOOKS):
                if self._is_here():
                    break
                self._receive(0)

    def _receive(self, seconds: float) -> None:
        """Receive what comes next on the connection within so many seconds.

        Raises:
            BlockingIOError, BodyTimeout: nothing did.

        """
        connection = self._connection
        if self._receiver is None:
            # As gunicorn does when it waits for a body: it is for what is sent meanwhile, too.
            connection.sock.settimeout(connection.stream_timeout)
            self._receiver = Receiver(self._polled, ticks=False)
        with self._failing():
            if host.holds_frames(connection):  # they came while the response waited
                with self._turn():
                    connection.pump(self._stream.stream_id)
            elif not self._is_gone():
                self._receiver.patience = seconds
                self._receiver.receive(FILL_SIZE)
        if self._is_gone() and not self._is_here():
            raise ClientDisconnected("the stream or its connection was closed before the end")

    def _is_gone(self) -> bool:
        return bool(self._stream.disconnected or self._connection.is_closed)

    def _late(self, since: float) -> BodyTimeout:
        waited = time.monotonic() - since
        self._allowance.waited += waited
        if waited >= self._timeout:
            return BodyTimeout(f"no DATA came on the stream for {self._timeout:g} s")
        return self._allowance.used_up()

    def _feed(self, data: bytes) -> None:
        """Pass what was received on to gunicorn; ``b""`` at the end. Call it with the lock."""
        self._connection.pending_requests.extend(self._connection.receive_data(data))

    def end(self) -> None:
        """Leave the connection to the next stream. Call it with the lock."""
        self._polled.ended = True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the connection's lock. ClientDisconnected: the stream was answered already."""
        with self._failing(), self._lock:
            if self._polled.ended:
                raise ClientDisconnected("the request has ended, and its body with it")
            yield

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            raise ClientDisconnected(f"the body ended early: {error}") from error


class _Polled(Transport):
    """A connection that is looked at without waiting, though its socket has gunicorn's timeout."""

    def __init__(self, sock: Any, lock: threading.Lock, feed: Callable[[bytes], object]) -> None:
        """Look at this socket, under the connection's lock; pass on what came to ``feed``."""
        super().__init__(sock)
        self._lock = lock
        self._feed = feed

    def receive(self, size: int) -> bytes | None:
        """Receive what is here, up to ``size`` bytes; ``b""`` at the end, None: nothing yet."""
        with self._lock:
            if self.ended:
                raise closed()
            timeout = self.sock.gettimeout()
            self.sock.settimeout(0)
            try:
                data = self.sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
            finally:
                self.sock.settimeout(timeout)
            self._feed(data)  # under the same lock: a thread that sends may wait for these frames
            return data


class StreamFraming(Framing):
    """The body of an HTTP/2 stream."""

    def __init__(self, frames: Frames) -> None:
        """Read the body from these frames."""
        self._frames = frames
        self._ahead = b""  # of a frame
        self._came = 0
        self._most: float = math.inf

    @property
    def ended(self) -> bool:
        """Return True: a stream that ends leaves its connection alone."""
        return True

    @property
    def received(self) -> int:
        """How many bytes of it were read."""
        return self._came - len(self._ahead)

    def read(self, size: int, *, whole: bool = False) -> bytes:  # noqa: ARG002  one frame will do
        """Read up to ``size`` bytes of a frame, and at least one; ``b""`` at the end of the body.

        Raises:
            ClientDisconnected: the stream was reset, or its connection broke.
            BodyTimeout: the client sends too little.
            ContentTooLarge: there is more than it is limited to.

        """
        if not self._ahead:
            self._ahead = self._frames.next()
            self._came += len(self._ahead)
            if self._came > self._most:
                raise ContentTooLarge(int(self._most))
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def rest(self) -> Rest:
        """Return that nothing is left: a stream that ends leaves its connection alone."""
        return Rest.NOTHING

    def drain(self, deadline: float) -> None:
        """Do nothing: gunicorn does it.

        "a server MAY request that the client abort transmission of a request without error by
        sending a RST_STREAM with an error code of NO_ERROR after sending a complete response"
        (RFC 9113 section 8.1), and gunicorn does so for every body that was not read to its end.
        """

    def limit(self, size: float) -> None:
        """Allow at most ``size`` bytes; a lower limit set before stays."""
        self._most = min(self._most, size)
