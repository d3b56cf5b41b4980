"""The application that unfriendly clients meet, and its policy."""

import json

from apps import tell

from gunicorn_expect import Refuse, inline, policies
from gunicorn_expect.admission import admission

#: Uploads that the policy has admitted and that are not over.
under_way = []

#: More than any test has clients at once.
admitted = admission(1000)


@inline
def too_large(environ):
    """Refuse by the path, as another policy would by the length."""
    return Refuse(413) if environ["PATH_INFO"] == "/too-large" else None


def counted(environ):
    """Count an upload until it is over."""
    upload = object()
    under_way.append(upload)
    environ["gunicorn_expect.exits"].callback(under_way.remove, upload)


policy = policies.first(too_large, counted, admitted)


def app(environ, start_response):
    def answer(status, body):
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    path = environ["PATH_INFO"]
    if path == "/read":
        size = 0
        while data := environ["wsgi.input"].read(65536):
            size += len(data)
        return answer("200 OK", b"%d" % size)
    if path == "/wait":
        tell("set entered-" + environ["QUERY_STRING"])
        tell("wait " + environ["QUERY_STRING"])
        return answer("200 OK", environ["wsgi.input"].read())
    if path == "/refuse":
        return answer("403 Forbidden", b"no")
    if path == "/under-way":
        return answer("200 OK", json.dumps(len(under_way)).encode())
    if path == "/unread":
        return answer("200 OK", bytes(int(environ["QUERY_STRING"])))
    if path == "/yielded":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes(50_000) for _ in range(int(environ["QUERY_STRING"]) // 50_000))
    return answer("200 OK", b"hello")
