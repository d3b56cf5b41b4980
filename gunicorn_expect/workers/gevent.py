"""The worker on gevent: ``gunicorn -k gunicorn_expect.GeventWorker``."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn_expect import connection, exchange, worker

try:
    from gunicorn.workers import ggevent  # first: it says which gevent it needs

    from gevent import GreenletExit  # type: ignore[import-untyped]  # isort: skip
except (ImportError, RuntimeError) as error:
    raise RuntimeError(
        f"gunicorn_expect.GeventWorker needs the extra gunicorn-expect[gevent]: {error}"
    ) from error

if TYPE_CHECKING:
    import socket

    from gunicorn.http.message import Request

    from gunicorn_expect import linger
    from gunicorn_expect.settings import Settings


@dataclasses.dataclass(frozen=True)
class Listener:
    """What gunicorn asks a listener for a connection that it has accepted."""

    name: Any

    def getsockname(self) -> Any:
        """Return it, though the listener may be closed by now."""
        return self.name


class Worker(worker.Worker, ggevent.GeventWorker):
    """gunicorn's gevent worker, for applications that take uploads."""

    passing = (*worker.Worker.passing, GreenletExit)
    hooks = (
        "gunicorn.workers.ggevent:GeventWorker.load_wsgi",
        "gunicorn.workers.ggevent:GeventWorker.handle",
        "gunicorn.workers.ggevent:GeventWorker.handle_request",
        "gunicorn.workers.ggevent:GeventWorker.handle_http2",
        "gunicorn.workers.ggevent:GeventWorker.handle_http2_request",
        "gunicorn.workers.ggevent:GeventWorker._try_h2c_upgrade",
        "gunicorn.workers.ggevent:GeventWorker.timeout_ctx",
    )

    #: Connections that greenlets serve now.
    _served = 0

    def open(self, closing: linger.Linger, limits: Settings) -> None:
        """Note the listeners' names, too: they are closed before the last greenlets begin."""
        super().open(closing, limits)
        self._listeners = {each: Listener(each.getsockname()) for each in self.sockets}

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection; the oldest closing ones make room for it (greenlet of the pool)."""
        self._served += 1
        try:
            self.lingering.make_room(self.worker_connections - self._served)
            self._serve(self._listeners[listener], client, addr)
        finally:
            self._served -= 1

    def _serve(self, listener: Listener, client: socket.socket, addr: Any) -> None:
        def answer(req: Request, sock: socket.socket) -> bool:
            self.handle_request(listener.name, req, sock, addr)
            return bool(self.cfg.keepalive)

        client.setblocking(True)
        connection.serve(
            self,
            client,
            addr,
            answer,
            http2=partial(self.handle_http2, listener),  # type: ignore[arg-type]
            upgrade=partial(self._try_h2c_upgrade, listener),  # type: ignore[attr-defined]
            # gunicorn's time to keep alive; it is for a first request, too, but never none at all.
            patience=self.timeout_ctx if self.cfg.keepalive else nullcontext,  # type: ignore[arg-type]
        )

    def handle_http2_request(
        self,
        listener_name: Any,
        req: Any,
        sock: Any,
        addr: Any,
        h2_conn: Any,
    ) -> None:
        """Handle a request on a stream (greenlet of the connection)."""
        if exchange.open_stream(req, h2_conn, self.terms):
            super().handle_http2_request(listener_name, req, sock, addr, h2_conn)
