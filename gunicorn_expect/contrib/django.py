"""Django: ``"gunicorn_expect.contrib.django.UploadMiddleware"`` in ``MIDDLEWARE``."""
# Django has no type hints.
# mypy: disable-error-code="import-untyped, misc"

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpResponse, UnreadablePostError

from gunicorn_expect import contrib
from gunicorn_expect.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


class UploadMiddleware:
    """Answer an upload that does not arrive completely, and let chunked bodies be read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Wrap the next middleware, or the view."""
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Make Django read a body without a Content-Length; otherwise it takes it for empty."""
        if request.META.get("wsgi.input_terminated") and not request.META.get("CONTENT_LENGTH"):
            # "Expects self._stream to be set to an appropriate source of bytes by a corresponding
            # request subclass" (django/http/request.py).
            request._stream = _UnknownLength(request.META["wsgi.input"], sys.maxsize)  # noqa: SLF001
            if request.content_type == "multipart/form-data":
                # Django parses no form without a length; with a large one it keeps files on disk.
                request.META["CONTENT_LENGTH"] = str(sys.maxsize)
        return self._get_response(request)

    def process_exception(self, _request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer with 400, 408 or 413 instead of 500. Django logs that in one line.

        The view still sees `UnreadablePostError` first, and can clean up.
        """
        error: BaseException | None = exception
        while isinstance(error, UnreadablePostError):  # `request.body` wraps what `read()` wraps
            error = error.__cause__
        if isinstance(error, BodyError):
            return HttpResponse(status=contrib.status_code(error))
        return None


class _UnknownLength(LimitedStream):
    """Django's stream over ``wsgi.input``, which itself knows where the body ends."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read; without a size, no more than Django's setting allows in memory."""
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if most is None or (size is not None and size >= 0):
            data: bytes = super().read(size)
            return data
        data = super().read(most + 1)
        if len(data) > most:
            raise RequestDataTooBig("Request body exceeded settings.DATA_UPLOAD_MAX_MEMORY_SIZE.")
        return data
