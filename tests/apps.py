"""The applications that the wire tests talk to, one for each path."""

import collections
import functools
import io
import json
import os
import pathlib
import socket
import threading
import time
import urllib.parse

import gunicorn_expect

KEY = "gunicorn_expect.expectation"
ROUTES = {}

#: The request lines that reached an application.
SEEN = []


def app(environ, start_response):
    SEEN.append(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}")
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


def route(path):
    return functools.partial(ROUTES.setdefault, path)


def answer(start_response, body, status="200 OK"):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]


def query(environ):
    return dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))


def tell(what):
    """Tell the test that something happened, or wait until the test says that it did."""
    host, port = os.environ["SWITCHBOARD"].split(":")
    with socket.create_connection((host, int(port))) as board:
        board.sendall(what.encode() + b"\n")
        board.recv(1)


def policy(environ):
    """Be the policy of the tests of what is counted."""
    if environ["PATH_INFO"] == "/refused-by-policy":
        return gunicorn_expect.Refuse(413)
    if environ["QUERY_STRING"].startswith("limit"):
        environ["wsgi.input"].limit(3)
    return None


@route("/seen")
def seen(environ, start_response):
    return answer(start_response, SEEN)


@route("/asked")
def asked(environ, start_response):
    """Tell what the policy was asked, and what has reached an application."""
    from deciding import ASKED

    return answer(start_response, [ASKED, [line.partition("?")[0] for line in SEEN]])


@route("/asked-by")
def asked_by(environ, start_response):
    return answer(start_response, environ["asked.pid"] == os.getpid())


@route("/hello")
def hello(environ, start_response):
    return answer(start_response, b"hello")


# Reading.


@route("/read")
def read(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read())


@route("/read-then-refuse")
def read_then_refuse(environ, start_response):
    for _ in environ["wsgi.input"]:
        pass
    return answer(start_response, b"", "403 Forbidden")


@route("/read-by")
def read_by(environ, start_response):
    """Read all of the body by the named method only."""
    body = environ["wsgi.input"]

    def all_of(read):
        return b"".join(iter(read, b""))

    def readinto():
        buffer = bytearray(4)
        return bytes(buffer[: body.readinto(buffer)])

    ways = {
        "read": body.read,
        "read-minus-one": lambda: body.read(-1),
        "read-3": lambda: all_of(lambda: body.read(3)),
        "readline": lambda: all_of(body.readline),
        "readline-2": lambda: all_of(lambda: body.readline(2)),
        "readlines": lambda: b"".join(body.readlines()),
        "readlines-1": lambda: all_of(lambda: b"".join(body.readlines(1))),
        "read-size": lambda: all_of(lambda: body.read(size=3)),
        "readline-size": lambda: all_of(lambda: body.readline(size=2)),
        "readlines-size": lambda: all_of(lambda: b"".join(body.readlines(size=1))),
        "readlines-hint": lambda: all_of(lambda: b"".join(body.readlines(hint=1))),
        "iteration": lambda: b"".join(body),
        "next": lambda: next(body) + b"".join(body),
        "readinto": lambda: all_of(readinto),
    }
    return answer(start_response, ways[environ["QUERY_STRING"]]())


@route("/read-nothing")
def read_nothing(environ, start_response):
    body = environ["wsgi.input"]
    nothing = [body.read(0), body.readline(0), body.readinto(bytearray())]
    return answer(start_response, str(nothing).encode(), "403 Forbidden")


@route("/read-some")
def read_some(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read(int(environ["QUERY_STRING"])))


@route("/read-after-event")
def read_after_event(environ, start_response):
    tell("set entered-" + environ["QUERY_STRING"])
    tell("wait " + environ["QUERY_STRING"])
    body = environ["wsgi.input"].read()
    return answer(start_response, [body.decode(), str(environ[KEY])])


@functools.cache
def barrier(parties):
    return threading.Barrier(parties)


@route("/refuse-after-event")
def refuse_after_event(environ, start_response):
    tell("set entered-" + environ["QUERY_STRING"])
    tell("wait " + environ["QUERY_STRING"])
    return answer(start_response, b"no", "403 Forbidden")


@route("/read-together")
def read_together(environ, start_response):
    """Read when as many clients as the query says are waiting."""
    barrier(int(environ["QUERY_STRING"])).wait(60)
    return answer(start_response, environ["wsgi.input"].read())


@route("/start-then-read")
def start_then_read(environ, start_response):
    start_response("200 OK", [("Content-Length", "5"), ("X-Said", "first")])
    return [environ["wsgi.input"].read()]


@route("/read-while-yielding-nothing")
def read_while_yielding_nothing(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    yield b""
    yield environ["wsgi.input"].read(2)
    yield b""
    yield environ["wsgi.input"].read()


# Answering.


@route("/refuse")
def refuse(environ, start_response):
    start_response(query(environ).get("status", "401 Unauthorized"), [("Content-Length", "0")])
    return []


@route("/refuse-with-body")
def refuse_with_body(environ, start_response):
    return answer(start_response, b"too large", "413 Content Too Large")


@route("/refuse-without-length")
def refuse_without_length(environ, start_response):
    start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
    how = environ["QUERY_STRING"]
    if how == "generator":
        return iter(())
    if how == "empty-items":
        return [b"", b""]
    return []


@route("/refuse-by-write")
def refuse_by_write(environ, start_response):
    write = start_response("403 Forbidden", [("Content-Length", "2")])
    write(b"no")
    environ["wsgi.input"].read(0)
    return []


@route("/write-then-read")
def write_then_read(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "7")])
    write(b"no")
    return [environ["wsgi.input"].read()]


@route("/write-while-iterated")
def write_while_iterated(environ, start_response):
    """Do what PEP 3333 forbids and dulwich's git server does."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    steps = {
        "w": write,
        "r": lambda _: environ["wsgi.input"].read(),
        "e": lambda _: b"".index(b"x"),
    }
    for step in environ["QUERY_STRING"]:
        if step in steps:
            steps[step](b"written ")
        else:
            yield {"y": b"yielded ", "0": b""}[step]


@route("/yield-then-read")
def yield_then_read(environ, start_response):
    start_response("200 OK", [("Content-Length", "11")])
    yield b"first "
    yield environ["wsgi.input"].read()


@route("/refuse-twice")
def refuse_twice(environ, start_response):
    """Change one's mind before the first byte, as error handlers do."""
    start_response("200 OK", [("X-Said", "first")])
    try:
        raise LookupError
    except LookupError as error:
        start_response(
            "503 Service Unavailable",
            [("Content-Length", "0"), ("X-Said", "second")],
            (LookupError, error, error.__traceback__),
        )
    return []


@route("/start-twice")
def start_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


@route("/start")
def start(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("Content-Length", "0")])
    return []


@route("/keep-alive-please")
def keep_alive_please(environ, start_response):
    start_response(
        "401 Unauthorized", [("Content-Length", "0"), ("Connection", environ["QUERY_STRING"])]
    )
    return []


@route("/fail")
def fail(environ, start_response):
    raise LookupError("the application failed")


@route("/fail-badly")
def fail_badly(environ, start_response):
    """Fail as gevent.Timeout and asyncio.CancelledError do, which are no Exception."""
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


@route("/file")
def file(environ, start_response):
    opened = pathlib.Path(__file__).open("rb")  # noqa: SIM115  the server closes it
    start_response("403 Forbidden", [])
    return environ["wsgi.file_wrapper"](opened)


@route("/memory-file")
def memory_file(environ, start_response):
    start_response("403 Forbidden", [("Content-Length", "6")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"memory"))


@route("/echo-file")
def echo_file(environ, start_response):
    start_response("200 OK", [("Content-Length", environ["CONTENT_LENGTH"])])
    return environ["wsgi.file_wrapper"](environ["wsgi.input"])


@route("/echo-buffered")
def echo_buffered(environ, start_response):
    """Give what looks like a file, has no file number, and reads the input."""

    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return environ["wsgi.input"].readinto(buffer)

    start_response("200 OK", [("Content-Length", environ["CONTENT_LENGTH"])])
    return environ["wsgi.file_wrapper"](io.BufferedReader(Raw()))


@route("/keywords")
def keywords(environ, start_response):
    start_response(status="403 Forbidden", headers=[("Content-Length", "0")], exc_info=None)
    return []


@route("/read-broken")
def read_broken(environ, start_response):
    """Answer what reading raised."""
    try:
        environ["wsgi.input"].read()
    except Exception as error:  # noqa: BLE001
        return answer(start_response, type(error).__name__.encode())
    return answer(start_response, b"whole")


@route("/swallow")
def swallow(environ, start_response):
    """Answer nothing when reading fails."""
    how = environ["QUERY_STRING"].partition("&")[2]
    try:
        environ["wsgi.input"].read()
    except OSError:
        return {"": [], "generator": iter(()), "empty-items": [b"", b""], "text": [b"text"]}[how]
    return answer(start_response, b"whole")


@route("/partial")
def partial(environ, start_response):
    """Answer the kind of error that reading by the named method ends with, and what it had taken.

    Twice: the second call fails at once.
    """
    body = environ["wsgi.input"]
    buffer = bytearray(100)
    ways = {
        "read": body.read,
        "read-100": lambda: body.read(100),
        "readline": lambda: collections.deque(iter(body.readline, b"")),
        "readlines": body.readlines,
        "iteration": lambda: collections.deque(body),
        "readinto": lambda: body.readinto(buffer),
    }
    found = []
    for _ in range(2):
        try:
            ways[environ["QUERY_STRING"]]()
        except gunicorn_expect.BodyError as error:  # noqa: PERF203
            found += [type(error).__name__, error.partial.decode()]
    found.append(buffer.rstrip(b"\0").decode())
    return answer(start_response, found)


class Closing:
    """An iterable that wants to be closed (PEP 3333)."""

    def __init__(self, name):
        self.name = name

    def __iter__(self):
        return iter([b"no"])

    def close(self):
        tell("set " + self.name)


@route("/refuse-and-close")
def refuse_and_close(environ, start_response):
    start_response("403 Forbidden", [("Content-Length", "2")])
    return Closing(environ["QUERY_STRING"])


# The expectation.


@route("/state")
def state(environ, start_response):
    expectation = environ[KEY]
    states = [str(expectation), expectation.pending]
    environ["wsgi.input"].read()
    return answer(start_response, [*states, str(expectation), expectation.state.name])


@route("/decided-after")
def decided_after(environ, start_response):
    """Give the time of the decision before it and after it."""
    seconds = [environ[KEY].decided_after]
    environ["wsgi.input"].read()
    return answer(start_response, [*seconds, environ[KEY].decided_after])


@route("/proceed")
def proceed(environ, start_response):
    environ[KEY].proceed([("X-Node", "7"), ("Location", "http://elsewhere/")])
    environ[KEY].proceed()
    return answer(start_response, environ["wsgi.input"].read())


@route("/proceed-badly")
def proceed_badly(environ, start_response):
    try:
        environ[KEY].proceed([("X-Good", "1"), (query(environ)["name"], query(environ)["value"])])
    except ValueError as error:
        return answer(start_response, [str(error), str(environ[KEY])], "400 Bad Request")
    return answer(start_response, b"accepted")


@route("/proceed-and-refuse")
def proceed_and_refuse(environ, start_response):
    environ[KEY].proceed()
    return answer(start_response, b"no", "403 Forbidden")


@route("/hints")
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</before>")])
    body = environ["wsgi.input"].read()
    environ["wsgi.early_hints"]([("Link", "</after>")])
    return answer(start_response, body)


@route("/hints-and-refuse")
def hints_and_refuse(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</before>")])
    return answer(start_response, b"no", "403 Forbidden")


@route("/nodelay")
def nodelay(environ, start_response):
    environ["wsgi.input"].read(1)
    sock = environ["gunicorn.socket"]
    if sock.family == socket.AF_UNIX:
        return answer(start_response, True)
    return answer(start_response, bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))


@route("/thread-reads-late")
def thread_reads_late(environ, start_response):
    """Answer, and read from another thread while the answer goes out."""
    start_response("200 OK", [("Content-Length", "1000")])
    reader = threading.Thread(target=environ["wsgi.input"].read, daemon=True)
    for number in range(100):
        yield b"%010d" % number
        if number == 0:
            reader.start()


@route("/threads-race")
def threads_race(environ, start_response):
    """Read from four threads at once while the answer begins."""
    barrier = threading.Barrier(5)

    def read():
        barrier.wait()
        environ["wsgi.input"].read(1)

    for _ in range(4):
        threading.Thread(target=read, daemon=True).start()
    start_response("200 OK", [("Content-Length", "4")])
    barrier.wait()
    for _ in range(int(environ["QUERY_STRING"])):
        time.perf_counter()
    yield b"body"


# For a browser.


def page(start_response, html, status="200 OK"):
    start_response(status, [("Content-Type", "text/html"), ("Content-Length", str(len(html)))])
    return [html.encode()]


@route("/upload-page")
def upload_page(environ, start_response):
    return page(
        start_response,
        '<!DOCTYPE html><title>Upload</title><link rel="icon" href="data:,">'
        f'<form method="post" action="/refuse-with-page?{environ["QUERY_STRING"]}"'
        ' enctype="multipart/form-data"><input type="file" name="file"></form>',
    )


@route("/refuse-with-page")
def refuse_with_page(environ, start_response):
    """Refuse with a page of this size, which says why at its end."""
    begin = '<!DOCTYPE html><title>Refused</title><link rel="icon" href="data:,">'
    end = "<h1>Too large</h1>"
    size = int(environ["QUERY_STRING"])
    return page(start_response, begin.ljust(size - len(end)) + end, "413 Content Too Large")


# The ordinary.


@route("/chunks")
def chunks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one", b"", b"two"]


@route("/no-content")
def no_content(environ, start_response):
    start_response("204 No Content", [])
    return []


@route("/early")
def early(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return answer(start_response, b"after hints")


@route("/ordinary-read")
def ordinary_read(environ, start_response):
    return answer(start_response, [environ["wsgi.input"].read().decode(), str(environ[KEY])])


# What Swift does.


@route("/phases")
def phases(environ, start_response):
    """Read as many chunked bodies as the query says, with a 100 before each."""
    body = environ["wsgi.input"]
    body.set_hundred_continue_response_headers([("X-Obj-Multiphase-Commit", "yes")])
    phases = [body.read().decode()]
    body.set_hundred_continue_response_headers([])
    for _ in range(int(environ["QUERY_STRING"]) - 1):
        body.send_hundred_continue_response()
        phases.append(body.read().decode())
    start_response("201 Created", [])
    yield json.dumps(phases).encode()
    body.send_hundred_continue_response()  # too late: nothing is sent


@route("/send-then-read")
def send_then_read(environ, start_response):
    environ["wsgi.input"].send_hundred_continue_response()
    return answer(start_response, environ["wsgi.input"].read())


# Closing.


@route("/refuse-at-length")
def refuse_at_length(environ, start_response):
    """Refuse without reading, in as many bytes as the query says, as one item."""
    return answer(start_response, bytes(int(environ["QUERY_STRING"])), "413 Content Too Large")


@route("/read-some-and-fail")
def read_some_and_fail(environ, start_response):
    environ["wsgi.input"].read(int(environ["QUERY_STRING"]))
    raise LookupError("the application failed in the middle of an upload")


@route("/open-files")
def open_files(environ, start_response):
    """Give the number of files that this worker has open."""
    return answer(start_response, len(list(pathlib.Path("/dev/fd").iterdir())))


@route("/answer-after-event")
def answer_after_event(environ, start_response):
    """Read so many bytes as the query says, and answer when the test says so."""
    environ["wsgi.input"].read(int(environ["QUERY_STRING"]))
    tell("wait " + environ["HTTP_X_EVENT"])
    return answer(start_response, b"unread")


# Bodies that do not come whole.


@route("/tell-broken")
def tell_broken(environ, start_response):
    """Tell the test, under the name that the query says, what reading gave."""
    try:
        environ["wsgi.input"].read()
    except Exception as error:
        tell(f"set {environ['QUERY_STRING']}-{type(error).__name__}")
        raise
    tell(f"set {environ['QUERY_STRING']}-whole")
    return answer(start_response, b"whole")


@route("/threads")
def threads(environ, start_response):
    return answer(start_response, threading.active_count())


@route("/read-for-a-moment")
def read_for_a_moment(environ, start_response):
    """Give up in the middle of a read, as an application does that has a time of its own."""
    import gevent

    body = environ["wsgi.input"]
    try:
        with gevent.Timeout(0.1):
            body.read()
    except gevent.Timeout:
        pass
    try:
        return answer(start_response, body.read())
    except OSError as error:
        return answer(start_response, type(error).__name__.encode(), "504 Gateway Timeout")
