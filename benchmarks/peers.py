"""Servers that are not gunicorn: ``python peers.py NAME PORT`` serves `apps` until it is killed.

``granian`` is a Rust server, ``uvicorn`` runs with httptools, ``pywsgi`` is gevent's. ``epoll`` and
``raw`` are floors: they do the least that a server in Python has to do. They parse no request and
call no application; ``epoll`` answers GETs and refuses uploads, ``raw`` reads uploads.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sys
from typing import Final

from apps import PIECE, app, asgi

BACKLOG: Final = 2048
_FIELDS: Final = b"Server: bare\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
HELLO: Final = b"HTTP/1.1 200 OK\r\n" + _FIELDS + b"Content-Length: 6\r\n\r\nhello\n"
REFUSAL: Final = (
    b"HTTP/1.1 403 Forbidden\r\n" + _FIELDS + b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)
STORED: Final = b"HTTP/1.1 200 OK\r\n" + _FIELDS + b"Content-Length: 3\r\n\r\nok\n"


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    # Connections inherit it. Without it each response of pywsgi on a kept connection takes 40 ms:
    # it is sent in two pieces, and Linux delays the ACK of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def epoll(port: int) -> None:
    """Answer each piece that arrives as if it were the whole head of a request."""
    listener = _listen(port)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            connection = connections[number]
            try:
                if head := connection.recv(8192):
                    get = head.startswith(b"GET ")
                    connection.send(HELLO if get else REFUSAL)
                    if not get or b"\r\nConnection: close" in head:
                        connection.shutdown(socket.SHUT_WR)
                    continue
            except OSError:  # the client has left
                pass
            connections.pop(number).close()


def raw(port: int) -> None:
    """Read uploads in pieces as large as the application's, one connection after the other."""
    listener = _listen(port)
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):  # the client has left
            while start := connection.recv(PIECE):
                head, _, body = start.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                left = int(length[1]) - len(body) if length else 0
                while left:
                    left -= len(connection.recv(min(PIECE, left))) or left
                connection.sendall(STORED)


def uvicorn(port: int) -> None:
    """Serve the ASGI application, on asyncio's own loop."""
    import uvicorn

    uvicorn.run(
        asgi,
        port=port,
        loop="asyncio",
        http="httptools",
        lifespan="off",
        log_level="critical",
        backlog=BACKLOG,
    )


def pywsgi(port: int) -> None:
    """Serve the WSGI application."""
    import gevent.socket  # type: ignore[import-untyped]
    from gevent import pywsgi

    listener = gevent.socket.socket(fileno=_listen(port).detach())
    pywsgi.WSGIServer(listener, app, log=None, error_log=None).serve_forever()


def granian(port: int) -> None:
    """Serve the WSGI application."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces

    Granian(
        "apps:app",
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        blocking_threads=8,
        backlog=BACKLOG,
        log_enabled=False,
    ).serve()


SERVERS: Final = {each.__name__: each for each in (epoll, raw, uvicorn, pywsgi, granian)}


def main() -> None:
    """Serve."""
    name, port = sys.argv[1:]
    SERVERS[name](int(port))


if __name__ == "__main__":
    main()
