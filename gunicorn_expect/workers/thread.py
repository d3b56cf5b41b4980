"""The worker on gunicorn's gthread: ``gunicorn -k gunicorn_expect.Worker --threads 8``."""

from __future__ import annotations

import collections
import contextlib
import math
import select
import selectors
import ssl
import time
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn import util
from gunicorn.workers import gthread

from gunicorn_expect import exchange, front, linger, worker
from gunicorn_expect.decision import name_of
from gunicorn_expect.pool import Pool
from gunicorn_expect.workers import inline

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request

    from gunicorn_expect.pool import Place
    from gunicorn_expect.settings import Settings


#: Seconds that a thread stays with the connection it has answered while there are threads for all.
#: A peer in the same data centre asks again within that; a new one waits no longer for the thread.
STAY: Final = 0.001


#: Seconds that a stopping worker waits for a head of which nothing has come: gunicorn's own for a
#: connection that it has kept.
STOPPING: Final = 2.0


class Connection(gthread.TConn):
    """A connection whose requests are ours, and which is closed in order."""

    parser: Any

    def __init__(
        self,
        conn: gthread.TConn,
        lingering: linger.Linger,
        terms: exchange.Terms,
        place: Place,
        *,
        fronted: bool,
    ) -> None:
        """Take over a connection that nothing was read from (main thread)."""
        vars(self).update(vars(conn))  # all that it is; made anew, it would cost twice
        self._lingering = lingering
        self._terms = terms
        #: What its requests have of the pool.
        self.place = place
        self._poller: select.poll | None = None
        #: Whether its heads are awaited by the loop.
        self.fronted = fronted

    def init(self) -> None:
        """Make the parser, once; it reads nothing yet (thread of the pool)."""
        if self.initialized:
            return
        if self.fronted:
            self.initialized = True
            self.sock.setblocking(True)
            self.parser = exchange.Parser(
                self.cfg, self.sock, self.client, self._terms, self._waiting()
            )
        else:
            try:
                super().init()
            except Exception as error:
                # gunicorn logs HTTP/2's own error of a client that has left with a traceback, and
                # answers it with 500; the error of its socket it ignores.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            self.parser = exchange.adopt(self.parser, self._terms, self._waiting())

    def _waiting(self) -> Callable[[], AbstractContextManager[object]]:
        return self.place.waiting if self._terms.limits.expect_lend_threads else nullcontext

    # While a head is awaited by the loop.

    def resume(self) -> bool:
        """Look at what came with the last request; tell as `offer` does."""
        if self.parser is None:
            return False
        ahead = self.parser.unreader.take_buffered()
        return bool(ahead) and self.offer(ahead)

    def offer(self, piece: bytes) -> bool:
        """Take what has come; tell whether there is a request, or an error in its place."""
        self.init()
        # As on the thread that will have it: how a body is received is settled when it is parsed.
        self.sock.setblocking(True)
        return bool(self.parser.offer(piece))

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next head has come."""
        return self.parser is not None and self.parser.has_begun

    # When it is answered.

    def asks_again(self, seconds: float) -> bool:
        """Tell whether the next request is here, or comes so soon (thread of the pool)."""
        if not self.fronted:
            return bool(self.parser.unreader.buf.getvalue()) or self._is_readable(seconds)
        if self.resume() or (self._is_readable(seconds) and self._receives()):
            return True
        self.parser.take_back()  # what is not whole is for the loop to wait for
        return False

    def _receives(self) -> bool:
        try:
            piece = self.sock.recv(front.PIECE)
        except OSError:
            return True  # gunicorn will find out, too
        return not piece or self.offer(piece)

    def _is_readable(self, seconds: float) -> bool:
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self.sock, select.POLLIN)
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        return bool(pending or self._poller.poll(seconds * 1000))

    def close(self, graceful: bool = False) -> None:
        """Close; if that is to be graceful, in order. It does not wait (any thread)."""
        exchange.leave(getattr(self.parser, "mesg", None))
        if graceful:
            self._lingering.close(self.sock)
        else:
            self._lingering.stop_discarding(self.sock)
            linger.close(self.sock)


class Worker(worker.Worker, gthread.ThreadWorker):
    """gunicorn's threaded worker, for applications that take uploads."""

    hooks = (
        "gunicorn.workers.gthread:ThreadWorker.load_wsgi",
        "gunicorn.workers.gthread:ThreadWorker.run",
        "gunicorn.workers.gthread:ThreadWorker.wait_for_and_dispatch_events",
        "gunicorn.workers.gthread:ThreadWorker.enqueue_req",
        "gunicorn.workers.gthread:ThreadWorker.get_thread_pool",
        "gunicorn.workers.gthread:ThreadWorker.handle",
        "gunicorn.workers.gthread:ThreadWorker.handle_request",
        "gunicorn.workers.gthread:ThreadWorker.handle_http2_request",
        "gunicorn.workers.gthread:ThreadWorker.handle_h2c_upgrade",
        "gunicorn.workers.gthread:ThreadWorker._keepalive_after",
        "gunicorn.workers.gthread:ThreadWorker.finish_request",
        "gunicorn.http.wsgi:create",
        "gunicorn.http.wsgi:Response.start_response",
        "gunicorn.http.wsgi:Response.write",
        "gunicorn.http.wsgi:Response.close",
        "gunicorn.workers.gthread:TConn.init",
        "gunicorn.workers.gthread:TConn.close",
    )
    lingering: linger.Linger
    front: front.Front[Connection]
    tpool: Pool  # type: ignore[assignment]  # what gunicorn uses of an executor

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Refuse what we can't work with, and warn as gunicorn does (master)."""
        super().check_config(cfg, log)
        gthread.ThreadWorker.check_config(cfg, log)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Have no connections (worker)."""
        super().__init__(*args, **kwargs)
        # Those that threads have closed, and the loop has to count.
        self._closed: collections.deque[Connection] = collections.deque()
        # Those that threads serve now.
        self._served: set[Connection] = set()
        # When to accept again, after the system had no room.
        self._accept_again = -math.inf

    def get_thread_pool(self) -> Pool:  # type: ignore[override]  # what gunicorn uses of one
        """Make the pool; it may have as many threads as there may be connections (worker)."""
        return Pool(self.cfg.threads, self.cfg.worker_connections)

    def open(self, closing: linger.Linger, limits: Settings) -> None:
        """Let the main loop be that of the closing connections, too (main thread)."""
        self.lingering = closing
        self.terms = exchange.Terms(
            limits,
            discard=closing.discard,
            record=self.record,
            head_limits=self._head_limits,
        )
        self._inline = inline.Inline(self, self.gate, name_of(self._policy))
        # For others gunicorn's parser waits, on a thread.
        self._fronts = exchange.is_plain_http(self.cfg)
        self._may_be_http2 = exchange.prior_knowledge(self.cfg)
        self.front = front.Front(
            self.poller,
            limits.expect_head_timeout,
            whole=self._on_whole,
            late=self._on_late,
            gone=self._on_end,
            failed=self._on_failed,
        )
        self.poller.register(closing.fileno(), selectors.EVENT_READ, lambda _: closing.turn())

    def wait_for_and_dispatch_events(self, timeout: float | None) -> None:
        """Do one turn of the main loop (main thread)."""
        if not self.alive:
            self.front.hurry(STOPPING)
        longest = 1.0 if timeout is None else timeout
        paused = max(0.0, self._accept_again - time.monotonic()) or math.inf
        due_in = min(self.lingering.due_in(), self.front.due_in(), paused)
        try:
            super().wait_for_and_dispatch_events(min(longest, due_in))
            self.lingering.expire()
            self.front.expire()
        except SystemExit:
            if not self.must_go:
                self._let_threads_finish()
            raise
        except Exception:
            self.log.exception("Error in the main loop; it goes on")
        self._count_closed()

    def _count_closed(self) -> None:
        while self._closed:
            self._closed.popleft()
            self.nr_conns -= 1
        # Those that are not connections of a client any more are closing ones now.
        self.lingering.take_over()

    def _let_threads_finish(self) -> None:
        """Wait for what other threads serve, as gthread does, but not for ever (main thread)."""
        self.tpool.shutdown(wait=False)
        deadline = self.grace_ends()
        while self._served and time.monotonic() < deadline:
            self.lingering.turn(0.05)
            self.lingering.expire()
            self.notify()

    # Accepting (main thread).

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Accept connections, or leave them to the system for now."""
        enabled = bool(enabled) and time.monotonic() >= self._accept_again
        try:
            super().set_accept_enabled(enabled)
        except OSError as error:  # of epoll_ctl
            for listener in self.sockets:
                with contextlib.suppress(KeyError):
                    self.poller.unregister(listener)
            self._pause(error)

    def accept(self, listener: Any) -> None:
        """Accept a connection; the oldest closing ones make room for it."""
        self._count_closed()
        self.lingering.make_room(self.worker_connections - self.nr_conns - 1)
        before = self.nr_conns
        try:
            super().accept(listener)
        except OSError as error:
            self.nr_conns = before  # enqueue_req raises none: there is no connection
            if not worker.is_passing(error):
                raise
            if len(self.lingering):
                self.lingering.make_room(len(self.lingering) - 1)
            elif error.errno in worker.NO_ROOM:
                self.set_accept_enabled(False)
                self._pause(error)

    def _pause(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._accept_again > 1:  # one line for each time that it is so, not for each try
            self.log.warning("Connections have to wait until the system has room: %s", error)
        self._accept_again = now + worker.PAUSE

    def enqueue_req(self, conn: gthread.TConn) -> None:
        """Await the next head of a connection, or let a thread await it (main thread)."""
        if not isinstance(conn, Connection):
            fronted = self._fronts and not self._may_be_http2(conn.client)
            place = self.tpool.place()
            conn = Connection(conn, self.lingering, self.terms, place, fronted=fronted)
        if conn.fronted:
            self.front.take(conn)
            return
        try:
            self._submit(conn)
        except Exception:  # noqa: BLE001  it is logged
            self._on_failed(conn)

    # What becomes of a connection in front (main thread).

    def _on_whole(self, conn: Connection) -> None:
        if self._inline.refuses(conn):
            self._on_gone(conn)
        else:
            self._submit(conn)

    def _on_late(self, conn: Connection) -> None:
        if conn.has_begun:
            self.record.late()
            self._refuse(conn, 408, "Request Timeout")
        self._on_gone(conn)

    def _refuse(self, conn: Connection, status: int, reason: str) -> None:
        with contextlib.suppress(OSError):
            conn.sock.setblocking(False)  # nobody waits for a client that does not read
            client: Any = worker.PageSocket(conn.sock)
            util.write_error(client, status, reason, "")

    def _on_failed(self, conn: Connection) -> None:
        """Let what was raised for one connection end that one alone."""
        self.log.exception("Error on a connection, which is closed now")
        self._on_gone(conn)

    def _on_end(self, conn: Connection) -> None:
        """Let go of a client that sends no more, or answer that its head is malformed."""
        if conn.parser is not None and conn.parser.end():
            self._submit(conn)
        else:
            self._on_gone(conn)

    def _on_gone(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close(graceful=True)

    # On a thread.

    def _submit(self, conn: Connection) -> None:
        """Let a thread serve a connection (main thread)."""
        try:
            self.tpool.run(partial(self._serve, conn), conn.place)
        except RuntimeError as error:  # not one thread can be had
            self.log.error("A client gets no answer but 503: %s", error)
            if conn.fronted:
                self._refuse(conn, 503, "Service Unavailable")
            self._on_gone(conn)

    def finish_request(self, conn: gthread.TConn, fs: Future[Any]) -> None:
        """Close a connection that a thread has served, or keep it (main thread)."""
        super().finish_request(conn, fs)
        for waiting in (self.keepalived_conns, self.pending_conns):
            if waiting and waiting[-1] is conn and conn.sock.fileno() == -1:
                waiting.pop()  # epoll had no room for it, and gunicorn has closed it

    def _serve(self, conn: Connection) -> None:
        """Serve a connection; then close it, or give it back to the loop (pool)."""
        self._served.add(conn)
        try:
            self._serve_and_pass_on(conn)
        finally:
            self._served.discard(conn)

    def _serve_and_pass_on(self, conn: Connection) -> None:
        try:
            kept = self.handle(conn)
            if not kept:
                self._close(conn)
                return
            outcome = _outcome(kept)
        except BaseException as error:  # noqa: BLE001  SystemExit, too: the loop ends with it
            outcome = _outcome(error=error)
        self.method_queue.defer(self.finish_request, conn, outcome)

    def _close(self, conn: Connection) -> None:
        """Close a connection without the loop, which is to count it when it wakes (pool)."""
        conn.close(graceful=True)
        self._closed.append(conn)
        if self.nr_conns >= self.worker_connections or not self.alive:
            self.method_queue.defer(_wake)

    def handle(self, conn: gthread.TConn) -> Any:
        """Handle the requests of a connection, until another one needs the thread (pool)."""
        assert isinstance(conn, Connection)  # noqa: S101  enqueue_req has made it one
        while True:
            kept = super().handle(conn)
            if kept is True:
                conn.parser.pass_empty_line()  # gunicorn would have a thread wait for the rest
            # Through the main loop a request wakes two threads, and passes the interpreter's lock
            # between them: most of what a request costs.
            if kept is not True or not self.alive or self.tpool.busy:
                return kept
            if not conn.asks_again(STAY if self.nr_conns <= self.cfg.threads else 0):
                return kept

    def handle_http2_request(self, req: Any, conn: gthread.TConn, h2_conn: Any) -> None:
        """Handle a request on a stream (thread of the pool)."""
        if exchange.open_stream(req, h2_conn, self.terms):
            super().handle_http2_request(req, conn, h2_conn)

    def handle_h2c_upgrade(self, conn: gthread.TConn, req: Request, settings: Any) -> Any:
        """Upgrade to HTTP/2, unless the request has a body: then it is answered as it came."""
        if exchange.has_body(req):
            keepalive = self.handle_request(req, conn)
            return self._keepalive_after(conn, keepalive)  # type: ignore[attr-defined]
        return super().handle_h2c_upgrade(conn, req, settings)


def _outcome(result: Any = None, error: BaseException | None = None) -> Future[Any]:
    """Give what an executor would: gunicorn's loop asks it."""
    outcome: Future[Any] = Future()
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)
    return outcome


def _wake() -> None:
    """Be something to do for a loop that waits until connections are closed."""
