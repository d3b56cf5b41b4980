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
    if what == "inform":
        return inform(environ, answer, detail)
    return answer(200, received(environ["wsgi.input"].read()))


def inform(environ, answer, when):
    """Take the body, and send a 104 before it, in the middle of it, or after it."""

    def send():
        expectation.inform(104, [("Upload-Offset", "0")], force=when != "unforced")

    expectation = environ["gunicorn_expect.expectation"]
    body, parts = environ["wsgi.input"], int(environ["CONTENT_LENGTH"]) // 4
    if when in ("before", "unforced"):
        send()
    data = body.read(parts)
    for _ in range(2):
        if when == "between":
            send()
        data += body.read(parts)
    data += body.read()
    if when == "behind":
        send()
    return answer(200, received(data))


def received(body):
    return "X-Received", f"{len(body)}:{hashlib.sha256(body).hexdigest()}"
