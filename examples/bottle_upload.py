"""An upload service in Bottle: PUT stores a file, or refuses it before its body is sent.

``gunicorn -k gunicorn_expect.Worker --threads 8 examples.bottle_upload:app``

UPLOAD_FOLDER is where files go, UPLOAD_TOKEN the token that a client needs, and UPLOAD_LIMIT how
many bytes a file may have.
"""
# Bottle has no type hints, and so its decorators have none.
# mypy: disable-error-code="import-untyped, untyped-decorator"

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from pathlib import Path

from bottle import Bottle, HTTPResponse, request

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
TOKEN = os.environ.get("UPLOAD_TOKEN", "letmein")
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
PIECE = 64 * 1024
NAME = re.compile(r"\w[\w.-]*", re.ASCII)

app = Bottle(catchall=False)  # the server answers a broken body with 400 or 408


@app.hook("before_request")
def token_required() -> None:
    """Refuse a client without the token."""
    # To refuse in a hook, raise a response.
    given = request.get_header("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {TOKEN}".encode()):
        raise HTTPResponse(status=401, headers={"WWW-Authenticate": "Bearer"})


@app.put("/files/<name>", name="file")
def upload(name: str) -> HTTPResponse:
    """Store a file, or refuse it. Nothing is read before the last refusal."""
    # To refuse, return a response.
    if not NAME.fullmatch(name):
        return HTTPResponse(status=400)
    if request.content_length > LIMIT:
        return HTTPResponse(status=413)

    # To accept, read: the first read asks the client for the body.
    FOLDER.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryDirectory(prefix=".part-", dir=FOLDER) as folder:
        part = Path(folder, name)
        with part.open("wb") as file:
            # request.body would read the whole body first, and decode chunks a second time
            while piece := request.environ["wsgi.input"].read(PIECE):
                size += len(piece)
                if size > LIMIT:  # a chunked body does not announce its length
                    return HTTPResponse(status=413)
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(FOLDER / name)

    return HTTPResponse(
        {"name": name, "size": size, "sha256": digest.hexdigest()},
        status=201,
        headers={"Location": app.get_url("file", name=name)},
    )
