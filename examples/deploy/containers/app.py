"""The upload service of examples/flask_upload.py, with a page that the probes of containers ask."""

from __future__ import annotations

from flask import Response

from examples.flask_upload import app


@app.get("/healthz")
def healthz() -> Response:
    """Answer that a thread of this application is free to answer."""
    return Response(status=204)
