"""tuswsgi with one folder, and nothing behind it."""

import os

from tuswsgi import TusMiddleware


def finished(_environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []


app = TusMiddleware(finished, "/files", tmp_dir=os.environ["FOLDER"], max_size=30_000_000)
