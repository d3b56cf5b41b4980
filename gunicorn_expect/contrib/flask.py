"""Flask: ``gunicorn_expect.contrib.flask.init_app(app)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, default_exceptions

from gunicorn_expect import contrib
from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from flask import Flask
    from flask.typing import ResponseReturnValue


def init_app(app: Flask) -> None:
    """Answer an upload that does not arrive completely with 400, 408 or 413, and log one line.

    The view still sees the error first, and can clean up. If the application has an error handler
    for the status, that one makes the response.

    Args:
        app: the application.

    """
    app.register_error_handler(BodyError, _answer)
    app.register_error_handler(ClientDisconnected, _answer_client_disconnected)


def _answer(error: BodyError) -> HTTPException | ResponseReturnValue:
    contrib.log(error, request.method, request.path)
    return current_app.handle_http_exception(default_exceptions[contrib.status_code(error)]())


def _answer_client_disconnected(error: ClientDisconnected) -> HTTPException | ResponseReturnValue:
    """Answer the error that Werkzeug raises for every read error if MAX_CONTENT_LENGTH is set."""
    cause = error.__context__
    return _answer(cause) if isinstance(cause, BodyError) else error
