"""The upload service of examples/flask_upload.py, with a page for health checks of containers."""

from __future__ import annotations

from flask import Response

from examples.flask_upload import app


@app.get("/healthz")
def healthz() -> Response:
    """Answer health checks: a thread of this application is free."""
    return Response(status=204)
