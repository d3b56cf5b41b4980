"""The application that all servers serve, and the policy that refuses as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect import Refuse, inline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PIECE: Final = 65536
"""Bytes of each read of an upload."""
FORBIDDEN: Final = Refuse(403)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer a GET, refuse what is sent to ``/refuse``, and read any other upload."""
    if environ["REQUEST_METHOD"] == "GET":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        return [b"hello\n"]
    if environ["PATH_INFO"] == "/refuse":
        start_response("403 Forbidden", [("Content-Length", "0")])
        return []
    read = environ["wsgi.input"].read
    while read(PIECE):
        pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


@inline
def policy(_environ: WSGIEnvironment) -> Refuse:
    """Refuse an upload in the loop, as `app` refuses it on a thread."""
    return FORBIDDEN


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Do what `app` does, for ASGI servers."""
    status, body = 200, b"ok\n"
    headers = [(b"content-type", b"text/plain")]
    if scope["method"] == "GET":
        body = b"hello\n"
    elif scope["path"] == "/refuse":
        # An ASGI server would keep the connection and wait for a body that never comes.
        status, body, headers = 403, b"", [(b"connection", b"close")]
    else:
        while (await receive()).get("more_body"):
            pass
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
