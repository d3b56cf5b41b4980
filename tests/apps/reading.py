"""Reading the body, by every method and at different moments."""

import functools
import threading

from apps.routes import answer, route


@route("/read")
def read(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read())


@route("/read-then-refuse")
def read_then_refuse(environ, start_response):
    for _ in environ["wsgi.input"]:
        pass
    return answer(start_response, b"", "403 Forbidden")


def all_of(read):
    return b"".join(iter(read, b""))


def into_a_buffer(body):
    buffer = bytearray(4)
    return bytes(buffer[: body.readinto(buffer)])


WAYS_TO_READ = {
    "read": lambda body: body.read(),
    "read-minus-one": lambda body: body.read(-1),
    "read-3": lambda body: all_of(lambda: body.read(3)),
    "readline": lambda body: all_of(body.readline),
    "readline-2": lambda body: all_of(lambda: body.readline(2)),
    "readlines": lambda body: b"".join(body.readlines()),
    "readlines-1": lambda body: all_of(lambda: b"".join(body.readlines(1))),
    "iteration": lambda body: b"".join(body),
    "next": lambda body: next(body) + b"".join(body),
    "readinto": lambda body: all_of(lambda: into_a_buffer(body)),
    "read-size": lambda body: all_of(lambda: body.read(size=3)),
    "readline-size": lambda body: all_of(lambda: body.readline(size=2)),
    "readlines-size": lambda body: all_of(lambda: b"".join(body.readlines(size=1))),
    "readlines-hint": lambda body: all_of(lambda: b"".join(body.readlines(hint=1))),
}


@route("/read-by")
def read_by(environ, start_response):
    """Read all of the body by the named method only."""
    way = WAYS_TO_READ[environ["QUERY_STRING"]]
    return answer(start_response, way(environ["wsgi.input"]))


@route("/read-nothing")
def read_nothing(environ, start_response):
    body = environ["wsgi.input"]
    nothing = [body.read(0), body.readline(0), body.readinto(bytearray())]
    return answer(start_response, str(nothing).encode(), "403 Forbidden")


@route("/read-some")
def read_some(environ, start_response):
    return answer(start_response, environ["wsgi.input"].read(int(environ["QUERY_STRING"])))


@functools.cache
def barrier(parties):
    return threading.Barrier(parties)


@route("/read-together")
def read_together(environ, start_response):
    """Read once as many requests as the query says have got here."""
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


@route("/write-then-read")
def write_then_read(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "7")])
    write(b"no")
    return [environ["wsgi.input"].read()]


@route("/yield-then-read")
def yield_then_read(environ, start_response):
    start_response("200 OK", [("Content-Length", "11")])
    yield b"first "
    yield environ["wsgi.input"].read()
