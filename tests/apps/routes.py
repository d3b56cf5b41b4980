"""The applications by their paths, and what most of them need."""

import functools
import json
import urllib.parse

KEY = "gunicorn_expect.expectation"


ROUTES = {}


def route(path):
    return functools.partial(ROUTES.setdefault, path)


def answer(start_response, body, status="200 OK"):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


def query(environ):
    return dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
