"""Pyramid: ``config.include("gunicorn_expect.contrib.pyramid")``."""
# Pyramid has no type hints.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import TYPE_CHECKING

from pyramid.httpexceptions import exception_response

from gunicorn_expect import contrib
from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from pyramid.config import Configurator
    from pyramid.request import Request
    from pyramid.response import Response


def includeme(config: Configurator) -> None:
    """Answer an upload that does not arrive completely with 400, 408 or 413, and log one line.

    The view still sees the error first, and can clean up.

    Args:
        config: of the application.

    """
    config.add_exception_view(_answer, context=BodyError)


def _answer(error: BodyError, request: Request) -> Response:
    contrib.log(error, request.method, request.path)
    return exception_response(contrib.status_code(error))
