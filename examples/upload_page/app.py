"""A page to drop a file on: ``gunicorn -k gunicorn_expect.Worker examples.upload_page.app:app``.

A browser never asks before it sends. So the page does, by a request without a body: what will be
refused is refused at once, and the reason is shown. The upload itself is decided in the same way.

UPLOAD_FOLDER is where files go, UPLOAD_LIMIT how large they may be.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flask import Flask, Response, request, send_from_directory
from werkzeug.utils import secure_filename

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("UPLOAD_FOLDER", "uploads"))
LIMIT = int(os.environ.get("UPLOAD_LIMIT", str(100 * 1024**2)))
PIECE = 64 * 1024

app = Flask(__name__)


@app.get("/")
def page() -> Response:
    """Show the page."""
    return send_from_directory(HERE, "page.html")


@app.get("/files/<name>/welcome")
def welcome(name: str) -> Response:
    """Say whether such a file would be taken; the query has its size and its type."""
    size = request.args.get("size", 0, type=int)
    return refusal(name, size, request.args.get("type", "")) or Response(status=204)


@app.put("/files/<name>")
def upload(name: str) -> Response:
    """Store a file, or say why not before it is read."""
    if request.content_length is None:
        return Response("The length of the file is missing.", 411, mimetype="text/plain")
    if refused := refusal(name, request.content_length, request.mimetype):
        return refused
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=FOLDER) as folder:
        part = Path(folder, name)
        with part.open("wb") as file:
            while piece := request.stream.read(PIECE):
                file.write(piece)
        part.replace(FOLDER / name)
    return Response(f"{name} is stored.", 201, mimetype="text/plain")


def refusal(name: str, size: int, media_type: str) -> Response | None:
    """Give the reason why such a file is not taken, in words for who sends it."""
    if name != secure_filename(name):
        return Response("Please give the file a plainer name.", 400, mimetype="text/plain")
    if not media_type.startswith(("image/", "video/")):
        return Response("Only pictures and films are taken here.", 415, mimetype="text/plain")
    if size > LIMIT:
        most = f"{LIMIT / 1e6:,.0f} MB"
        return Response(f"This file is too large: {most} is the most.", 413, mimetype="text/plain")
    return None
