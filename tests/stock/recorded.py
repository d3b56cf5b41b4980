"""The applications of the servers that are compared, one for each path; they note what they do."""

import functools
import io
import os
import pathlib
import signal
import time

from stock import recording
from stock.recording import described, note

ROUTES = {}


def route(path):
    return functools.partial(ROUTES.setdefault, path)


def app(environ, start_response):
    note("application", described(environ))
    environ["x.set_by_application"] = "set"
    if environ["PATH_INFO"] not in ROUTES:
        return answer(start_response, b"nothing here", "404 Not Found")
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


def answer(start_response, body, status="200 OK", *headers):
    start_response(status, [("Content-Length", str(len(body))), *headers])
    return [body]


class Body:
    """A body of these items; it notes when its iteration begins and ends, and when it is closed."""

    def __init__(self, *items):
        self._items = items

    def __iter__(self):
        note("iteration begins")
        for item in self._items:
            if isinstance(item, BaseException):
                raise item
            yield item
        note("iteration ends")

    def close(self):
        note("close")


@route("/hello")
def hello(environ, start_response):
    return answer(start_response, b"hello", "200 OK", ("X-Of-Application", "yes"))


@route("/mark")
def mark(environ, start_response):
    return answer(start_response, b"")


@route("/read")
def read(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read())


@route("/read-lines")
def read_lines(environ, start_response):
    body = environ["wsgi.input"]
    return answer(start_response, repr([body.readline(), body.readlines(), body.read()]).encode())


@route("/generator")
def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body(b"one ", b"", b"two")


@route("/list-without-length")
def list_without_length(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one ", b"two"]


@route("/write")
def write_(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    note("written")
    return Body(b"yielded")


@route("/empty")
def empty(environ, start_response):
    start_response("200 OK", [])
    return Body()


@route("/status")
def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("X-Of-Application", "yes")])
    return Body()


@route("/status-with-body")
def status_with_body(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("Content-Length", "4")])
    return Body(b"body")


@route("/too-long")
def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return Body(b"four", b"five")


@route("/too-short")
def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "9")])
    return Body(b"four")


@route("/hop-by-hop")
def hop_by_hop(environ, start_response):
    start_response("200 OK", [("Content-Length", "0"), ("Connection", environ["QUERY_STRING"])])
    return []


@route("/several-fields")
def several_fields(environ, start_response):
    start_response(
        "200 OK",
        [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Server", "another"),
            ("Date", "yesterday"),
            ("X-Latin", "\xe9t\xe9"),
            ("Content-Length", "0"),
        ],
    )
    return []


@route("/bad-field")
def bad_field(environ, start_response):
    start_response("200 OK", [("X-Bad", "a\r\nb")])
    return [b"hello"]


@route("/bad-name")
def bad_name(environ, start_response):
    start_response("200 OK", [("X Bad", "a")])
    return [b"hello"]


@route("/fail")
def fail(environ, start_response):
    raise LookupError("the application failed")


@route("/fail-after-start")
def fail_after_start(environ, start_response):
    start_response("200 OK", [])
    return Body(LookupError("the body failed"))


@route("/fail-after-first-byte")
def fail_after_first_byte(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return Body(b"first", LookupError("the body failed"))


@route("/fail-in-close")
def fail_in_close(environ, start_response):
    class Failing(Body):
        def close(self):
            super().close()
            raise LookupError("close failed")

    start_response("200 OK", [("Content-Length", "5")])
    return Failing(b"first")


@route("/stop-iteration")
def stop_iteration(environ, start_response):
    raise StopIteration


@route("/stop-iteration-after-first-byte")
def stop_iteration_after_first_byte(environ, start_response):
    class Stopping(Body):
        def __iter__(self):
            write(b"first")
            raise StopIteration

    write = start_response("200 OK", [("Content-Length", "10")])
    return Stopping()


@route("/os-error")
def os_error(environ, start_response):
    raise FileNotFoundError(2, "no such file")


@route("/broken-pipe")
def broken_pipe(environ, start_response):
    raise BrokenPipeError(32, "another pipe is broken")


@route("/nothing")
def nothing(environ, start_response):
    return None


@route("/no-start")
def no_start(environ, start_response):
    return [b"hello"]


@route("/text")
def text(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


@route("/start-twice")
def start_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


@route("/start-late")
def start_late(environ, start_response):
    """Respond by a generator, which calls start_response in its first step."""
    note("begins")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"late"


@route("/change-after-first-byte")
def change_after_first_byte(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "10")])
    write(b"first")
    try:
        raise LookupError("changed")
    except LookupError as error:
        start_response("500 Oh", [], (LookupError, error, error.__traceback__))
    return []


@route("/errors")
def errors(environ, start_response):
    environ["wsgi.errors"].write("the application says so\n")
    environ["wsgi.errors"].flush()
    return answer(start_response, b"said")


@route("/hints")
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>")])
    return answer(start_response, b"after hints")


@route("/file")
def file(environ, start_response):
    opened = pathlib.Path(__file__).open("rb")  # noqa: SIM115  the server closes it
    opened.seek(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](opened)


@route("/memory-file")
def memory_file(environ, start_response):
    class File(io.BytesIO):
        def close(self):
            if not self.closed:
                note("close")
            super().close()

    start_response("200 OK", [("Content-Length", "6")])
    return environ["wsgi.file_wrapper"](File(b"memory"))


@route("/pid")
def pid(environ, start_response):
    return answer(start_response, str(os.getpid()).encode())


@route("/trailers")
def trailers(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    environ["gunicorn.http2.send_trailers"]([("x-sum", "1")])
    return Body(b"hello")


@route("/stop")
def stop(environ, start_response):
    """Answer when the worker has begun to stop."""
    os.kill(os.getpid(), signal.SIGTERM)
    while recording.WORKERS[-1].alive:
        time.sleep(0.01)
    return answer(start_response, b"stopping")


@route("/backlog")
def backlog(environ, start_response):
    """Answer how many connections wait to be accepted, from Linux's /proc: 0A is LISTEN."""
    port = f":{int(environ['SERVER_PORT']):04X}"
    sockets = map(str.split, pathlib.Path("/proc/net/tcp").read_text("utf-8").splitlines())
    [queues] = [sock[4] for sock in sockets if sock[1].endswith(port) and sock[3] == "0A"]
    return answer(start_response, str(int(queues.partition(":")[2], 16)).encode())


@route("/never")
def never(environ, start_response):
    note("waits")
    while True:
        time.sleep(60)


@route("/take-over")
def take_over(environ, start_response):
    """Speak another protocol on the blocking socket; then end the request in gunicorn's way."""
    sock = environ["gunicorn.socket"]
    note("takes over", sock.gettimeout() if environ["QUERY_STRING"] else None)
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    while data := sock.recv(100):
        sock.sendall(data.upper())
    note("the client has left")
    if environ["QUERY_STRING"] == "handled":
        from gunicorn.workers.base_async import ALREADY_HANDLED

        return ALREADY_HANDLED
    raise StopIteration


@functools.cache
def flask_app():
    """Return the Flask application. It is made on first use: most tests need no Flask."""
    import flask
    import flask_sock

    app = flask.Flask(__name__)

    @flask_sock.Sock(app).route("/flask")
    def echo(ws):
        while True:
            ws.send(ws.receive()[::-1])

    return app


@route("/flask")
def by_flask(environ, start_response):
    return flask_app()(environ, start_response)


@route("/hang")
def hang(environ, start_response):
    """Be busy for longer than the timeout of the worker, which is 3 s."""
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        pass
    return answer(start_response, b"late")
