"""Failing at different moments of a response."""

from apps.routes import route


@route("/fail")
def fail(environ, start_response):
    raise LookupError("the application failed")


@route("/fail-badly")
def fail_badly(environ, start_response):
    """Fail with a BaseException, as gevent.Timeout and asyncio.CancelledError are."""
    raise BaseException("the application failed badly")


@route("/exit")
def exit_(environ, start_response):
    raise SystemExit


@route("/fail-after-start")
def fail_after_start(environ, start_response):
    start_response("200 OK", [])
    raise LookupError("the application failed")


@route("/fail-after-first-byte")
def fail_after_first_byte(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"first"
    raise LookupError("the application failed")


@route("/read-some-and-fail")
def read_some_and_fail(environ, start_response):
    environ["wsgi.input"].read(int(environ["QUERY_STRING"]))
    raise LookupError("the application failed in the middle of an upload")


@route("/start-twice")
def start_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []
