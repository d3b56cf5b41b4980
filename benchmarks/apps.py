"""The applications that are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
