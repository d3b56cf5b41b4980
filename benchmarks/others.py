"""Other servers that refuse an upload: ``python others.py NAME`` prints a port and serves.

* ``bare``: a loop on a bare socket that writes what gunicorn does, one connection after the other
* ``uvicorn``: with httptools
* ``pywsgi``: of gevent
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from apps import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REFUSAL: Final = (
    b"HTTP/1.1 403 Forbidden\r\nServer: gunicorn\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


def bare(listener: socket.socket) -> None:
    """Read what comes at once, answer, and close in order as far as that needs no wait."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(8192)
            connection.sendall(REFUSAL)
            connection.shutdown(socket.SHUT_WR)


def uvicorn(listener: socket.socket) -> None:
    """Refuse by an ASGI application."""
    import uvicorn

    async def app(
        scope: dict[str, Any],
        _receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http="httptools", lifespan="off", log_level="error")
    asyncio.run(uvicorn.Server(config).serve([listener]))


def pywsgi(listener: socket.socket) -> None:
    """Refuse by the application of `apps`."""
    import gevent.socket  # type: ignore[import-untyped]
    from gevent import pywsgi

    own = gevent.socket.socket(fileno=listener.detach())
    pywsgi.WSGIServer(own, refuse, log=None).serve_forever()


SERVERS: Final = {"bare": bare, "uvicorn": uvicorn, "pywsgi": pywsgi}


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    SERVERS[sys.argv[1]](listener)


if __name__ == "__main__":
    main()
