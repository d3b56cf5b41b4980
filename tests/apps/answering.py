"""Answering requests as applications do that do not care about uploads."""

from apps.routes import KEY, answer, route


@route("/hello")
def hello(environ, start_response):
    return answer(start_response, b"hello")


@route("/start")
def start(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("Content-Length", "0")])
    return []


@route("/write-while-iterated")
def write_while_iterated(environ, start_response):
    """Call write() while the result is iterated. PEP 3333 forbids it; dulwich does it."""
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
