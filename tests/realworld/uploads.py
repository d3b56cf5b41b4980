"""The application that the clients upload to: the path says what it answers."""

import hashlib
from http import HTTPStatus


def app(environ, start_response):
    def answer(status, *headers):
        status = HTTPStatus(int(status))
        start_response(f"{status} {status.phrase}", [*headers, ("Content-Length", "0")])
        return []

    what, _, detail = environ["PATH_INFO"].removeprefix("/").partition("/")
    if environ["REQUEST_METHOD"] != "PUT":
        return answer(404)
    if what == "status":
        return answer(detail, ("WWW-Authenticate", "Bearer"))
    if what == "elsewhere":
        return answer(307, ("Location", f"http://127.0.0.1:{detail}/accept/file"))
    body = environ["wsgi.input"].read()
    return answer(200, ("X-Received", f"{len(body)}:{hashlib.sha256(body).hexdigest()}"))
