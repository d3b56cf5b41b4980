"""The upload service of examples/flask_upload.py, with /metrics for Prometheus.

Keep /metrics private: the proxy in front answers it with 404, and Prometheus asks gunicorn itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.flask_upload import app as uploads
from gunicorn_expect.contrib.prometheus import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the metrics, or as the upload service."""
    answer = metrics if environ["PATH_INFO"] == "/metrics" else uploads
    return answer(environ, start_response)
