"""An upload service in Pyramid: PUT stores a file, or refuses it before its body is sent.

``gunicorn -k gunicorn_expect.Worker --threads 8 examples.pyramid_upload:app``

UPLOAD_FOLDER is where files go, UPLOAD_TOKEN the token that a client needs, and UPLOAD_LIMIT how
many bytes a file may have.
"""
# Pyramid has no type hints.
# mypy: disable-error-code=import-untyped

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pyramid.config import Configurator
from pyramid.response import Response

if TYPE_CHECKING:
    from pyramid.request import Request

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
TOKEN = os.environ.get("UPLOAD_TOKEN", "letmein")
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
PIECE = 64 * 1024
NAME = re.compile(r"\w[\w.-]*", re.ASCII)


class TokenPolicy:
    """The security policy: a client with the token may do everything."""

    def identity(self, request: Request) -> str | None:
        """Return the identity of the client; None without the token."""
        given = request.headers.get("Authorization", "")
        good = hmac.compare_digest(given.encode(), f"Bearer {TOKEN}".encode())
        return "who has the token" if good else None

    def authenticated_userid(self, request: Request) -> str | None:
        """Return the name of the client."""
        return self.identity(request)

    def permits(self, request: Request, _context: object, _permission: str) -> bool:
        """Return whether the client has the token."""
        return self.identity(request) is not None


# To refuse, return a response.


def unauthorized(_request: Request) -> Response:
    """Refuse a client without the token. Pyramid looks for the permission before the view."""
    return Response(status=401, headerlist=[("WWW-Authenticate", "Bearer")])


def upload(request: Request) -> Response:
    """Store a file, or refuse it. Nothing is read before the last refusal."""
    # To refuse, return a response.
    name = request.matchdict["name"]
    if not NAME.fullmatch(name):
        return Response(status=400)
    if (request.content_length or 0) > LIMIT:
        return Response(status=413)

    # To accept, read: the first read asks the client for the body.
    FOLDER.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryDirectory(prefix=".part-", dir=FOLDER) as folder:
        part = Path(folder, name)
        with part.open("wb") as file:
            while piece := request.body_file.read(PIECE):
                size += len(piece)
                if size > LIMIT:  # a chunked body does not announce its length
                    return Response(status=413)
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(FOLDER / name)

    response = Response(json_body={"name": name, "size": size, "sha256": digest.hexdigest()})
    response.status_code = 201
    response.location = request.route_path("file", name=name)
    return response


# Pyramid does not catch the error of a broken upload, so the server answers 400 or 408.
with Configurator() as config:
    config.set_security_policy(TokenPolicy())
    config.add_route("file", "/files/{name}")
    config.add_view(upload, route_name="file", request_method="PUT", permission="upload")
    config.add_forbidden_view(unauthorized)
    app = config.make_wsgi_app()
