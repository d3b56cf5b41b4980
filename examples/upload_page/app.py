"""A page to drop files on: ``gunicorn -k gunicorn_expect.Worker examples.upload_page.app:app``.

A browser sends no Expect, and does not wait before it sends. So the page asks first: it creates a
resumable upload by a request without a body. A file that will be refused is refused there, with
the reason. An upload that breaks off is resumed, also if the server was started again or the page
was closed meanwhile.

UPLOAD_FOLDER is where files go, UPLOAD_LIMIT how many bytes a file may have.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, request, send_from_directory

from examples.resumable_upload import LIMIT, number, uploads
from gunicorn_expect.contrib import flask as contrib

app = Flask(__name__)
app.register_blueprint(uploads)
contrib.init_app(app)  # a broken upload gets 400 or 408, not 500


@app.get("/")
def page() -> Response:
    """Show the page."""
    return send_from_directory(Path(__file__).parent, "page.html")


@app.before_request
def refuse() -> Response | None:
    """Refuse a file before it is sent, with a message for the user."""
    if request.endpoint != "uploads.create":
        return None
    if not request.mimetype.startswith(("image/", "video/")):
        return Response("Only pictures and films are taken here.", 415, mimetype="text/plain")
    if (number("Upload-Length") or 0) > LIMIT:
        most = f"{LIMIT / 1e6:,.0f} MB"
        return Response(f"This file is too large: {most} is the most.", 413, mimetype="text/plain")
    return None
