"""Falcon: ``gunicorn_expect.contrib.falcon.init_app(app)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon

from gunicorn_expect import contrib
from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from falcon import App, Request, Response


def init_app(app: App[Any, Any]) -> None:
    """Answer an upload that does not arrive completely with 400, 408 or 413, and log one line.

    The responder still sees the error first, and can clean up. The response is that of a
    `falcon.HTTPError`.

    Args:
        app: the application.

    """
    app.add_error_handler(BodyError, _answer)


def _answer(req: Request, _resp: Response, error: BodyError, _params: dict[str, Any]) -> None:
    contrib.log(error, req.method, req.path)
    raise falcon.HTTPError(error.status) from error
