"""An upload service in Django: PUT stores a file, or refuses it before its body is sent.

``gunicorn -k gunicorn_expect.Worker --threads 8 examples.django_upload:app``

UPLOAD_FOLDER is where files go, UPLOAD_TOKEN the token that a client needs, and UPLOAD_LIMIT how
many bytes a file may have.
"""
# Django has no type hints, and so its decorators have none.
# mypy: disable-error-code="import-untyped, untyped-decorator"

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import django.conf
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
TOKEN = os.environ.get("UPLOAD_TOKEN", "letmein")
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
PIECE = 64 * 1024
NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def token_required(view: Callable[[HttpRequest], HttpResponse]) -> object:
    """Return a middleware that refuses a client without the token."""

    # To refuse, return a response.
    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {TOKEN}".encode()):
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
        return view(request)

    return middleware


@csrf_exempt  # a browser sends cookies by itself, but no token
@require_http_methods(["PUT"])
def upload(request: HttpRequest, name: str) -> HttpResponse:
    """Store a file, or refuse it. Nothing is read before the last refusal."""
    # To refuse, return a response.
    if not NAME.fullmatch(name):
        return HttpResponse(status=400)
    if int(request.headers.get("Content-Length", 0)) > LIMIT:
        return HttpResponse(status=413)

    # To accept, read: the first read asks the client for the body.
    FOLDER.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryDirectory(prefix=".part-", dir=FOLDER) as folder:
        part = Path(folder, name)
        with part.open("wb") as file:
            while piece := request.read(PIECE):
                size += len(piece)
                if size > LIMIT:  # a chunked body does not announce its length
                    return HttpResponse(status=413)
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(FOLDER / name)

    return JsonResponse(
        {"name": name, "size": size, "sha256": digest.hexdigest()},
        status=201,
        headers={"Location": reverse(upload, args=[name])},
    )


urlpatterns = [path("files/<name>", upload)]

django.conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        # It lets Django read chunked bodies, and answers a broken upload with 400 or 408.
        "gunicorn_expect.contrib.django.UploadMiddleware",
        # Before CsrfViewMiddleware, which reads forms to find the CSRF token.
        f"{__name__}.token_required",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "nothing is signed here"),
    USE_TZ=True,
)
app = get_wsgi_application()
