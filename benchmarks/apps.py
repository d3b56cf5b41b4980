"""The applications that are measured."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from gunicorn_expect import Refuse, inline

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def hello(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer a GET."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"hello\n"]


def refuse(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Refuse an upload."""
    start_response("403 Forbidden", [("Content-Length", "0")])
    return []


FORBIDDEN = Refuse(403)


@inline
def refusing(_environ: WSGIEnvironment) -> Refuse:
    """Be the policy that refuses as `refuse` does."""
    return FORBIDDEN


def refuse_uploads(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer a GET, refuse an upload."""
    if environ["REQUEST_METHOD"] == "GET":
        return hello(environ, start_response)
    start_response("413 Content Too Large", [("Content-Length", "10")])
    return [b"too large\n"]


PIECE = 65536


def store(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Read an upload in pieces, and answer with its size."""
    read = environ["wsgi.input"].read
    size = 0
    while data := read(PIECE):
        size += len(data)
    answer = b"%d" % size
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


class Wait:
    """An application that keeps its uploads waiting, and tells a GET how many there are."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting = 0
        self._never = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Wait, or tell."""
        if environ["REQUEST_METHOD"] == "GET":
            answer = str(self._waiting).encode()
            start_response("200 OK", [("Content-Length", str(len(answer)))])
            return [answer]
        self._waiting += 1
        self._never.wait()
        return []


wait = Wait()
