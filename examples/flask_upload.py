"""An upload service in Flask: PUT stores a file, or refuses it before its body is sent.

``make serve`` runs it.

UPLOAD_FOLDER is where files go, UPLOAD_TOKEN the token that a client needs, and UPLOAD_LIMIT how
many bytes a file may have.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from pathlib import Path

from flask import Flask, Response, jsonify, request, send_from_directory, url_for
from werkzeug.utils import secure_filename

from gunicorn_expect.contrib import flask as uploads

FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
TOKEN = os.environ.get("UPLOAD_TOKEN", "letmein")
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(5 * 1024**3)))
PIECE = 64 * 1024

app = Flask(__name__)
uploads.init_app(app)  # a broken upload gets 400 or 408, not 500


PAGE = """\
The body of a refused upload is never sent. Try it:

    truncate -s 100M big.iso
    curl -i -T big.iso {files}big.iso
    curl -i -H 'Authorization: Bearer letmein' -T big.iso {files}big.iso
    curl -i -H 'Authorization: Bearer letmein' -o again.iso {files}big.iso

The first upload sends its headers, gets 401, and sends no byte of the file.
"""


@app.get("/")
def index() -> Response:
    """Show commands to try."""
    return Response(PAGE.format(files=request.url_root + "files/"), mimetype="text/plain")


def has_token() -> bool:
    """Return whether the client has the token."""
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {TOKEN}".encode())


@app.get("/files/<name>")
def download(name: str) -> Response:
    """Send a file that was stored."""
    if not has_token():
        return Response(status=401, headers={"WWW-Authenticate": "Bearer"})
    if name != secure_filename(name):
        return Response(status=404)
    return send_from_directory(FOLDER.absolute(), name, as_attachment=True)


@app.put("/files/<name>")
def upload(name: str) -> Response:
    """Store a file, or refuse it. Nothing is read before the last refusal."""
    # To refuse, return a response.
    if not has_token():
        return Response(status=401, headers={"WWW-Authenticate": "Bearer"})
    if name != secure_filename(name):
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
            while piece := request.stream.read(PIECE):
                size += len(piece)
                if size > LIMIT:  # a chunked body does not announce its length
                    return Response(status=413)
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(FOLDER / name)

    response = jsonify(name=name, size=size, sha256=digest.hexdigest())
    response.status_code = 201
    response.headers["Location"] = url_for("upload", name=name)
    return response
