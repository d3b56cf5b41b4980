"""Bottle: ``app.install(gunicorn_expect.contrib.bottle.plugin)``."""
# Bottle has no type hints.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bottle import HTTPError, request

from gunicorn_expect import contrib
from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable


def plugin(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Answer an upload that does not arrive completely with 400, 408 or 413, and log one line.

    The view still sees the error first, and can clean up. If the application has an error page for
    the status, that one is the response. An error that is raised in a hook is not answered.

    Args:
        callback: the view, as Bottle passes it.

    """

    @functools.wraps(callback)
    def answering(*arguments: Any, **named: Any) -> Any:
        try:
            return callback(*arguments, **named)
        except BodyError as error:
            contrib.log(error, request.method, request.path)
            raise HTTPError(contrib.status_code(error)) from error

    return answering
