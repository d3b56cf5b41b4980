"""An upload service in Falcon: PUT stores a file, or refuses it before its body is sent.

``gunicorn -k gunicorn_expect.Worker --threads 8 examples.falcon_upload:app``

UPLOAD_FOLDER is where files go, UPLOAD_TOKEN the token that a client needs, and UPLOAD_LIMIT how
many bytes a file may have.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import falcon

from gunicorn_expect.contrib import falcon as uploads

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
TOKEN = os.environ.get("UPLOAD_TOKEN", "letmein")
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
PIECE = 64 * 1024
NAME = re.compile(r"\w[\w.-]*", re.ASCII)

Parameters = dict[str, Any]


# To refuse, raise a status. An HTTPStatus has no body, an HTTPError has one.


def may_upload(
    req: falcon.Request, _resp: falcon.Response, _resource: object, params: Parameters
) -> None:
    """Refuse an upload, before the responder is called."""
    given = req.get_header("Authorization", default="")
    if not hmac.compare_digest(given.encode(), f"Bearer {TOKEN}".encode()):
        raise falcon.HTTPStatus(401, {"WWW-Authenticate": "Bearer"})
    if not NAME.fullmatch(params["name"]):
        raise falcon.HTTPStatus(400)
    if (req.content_length or 0) > LIMIT:
        raise falcon.HTTPStatus(413)


class Files:
    """The files in the folder."""

    @falcon.before(may_upload)
    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Store a file. Nothing of its body has been read before."""
        # To accept, read: the first read asks the client for the body.
        FOLDER.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        size = 0
        with tempfile.TemporaryDirectory(prefix=".part-", dir=FOLDER) as folder:
            part = Path(folder, name)
            with part.open("wb") as file:
                # bounded_stream would treat a chunked body as empty
                while piece := req.stream.read(PIECE):
                    size += len(piece)
                    if size > LIMIT:  # a chunked body does not announce its length
                        raise falcon.HTTPStatus(413)
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            part.replace(FOLDER / name)

        resp.status = falcon.HTTP_201
        resp.location = req.path
        resp.media = {"name": name, "size": size, "sha256": digest.hexdigest()}


app = falcon.App()
app.add_route("/files/{name}", Files())
uploads.init_app(app)  # a broken upload gets 400 or 408, not 500
