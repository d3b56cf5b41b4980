"""Reading bodies that are cut off, stall or are malformed."""

import collections

import gunicorn_expect
from apps.routes import answer, route
from apps.switchboard import tell


@route("/read-broken")
def read_broken(environ, start_response):
    """Answer with the name of the error that the read raised."""
    try:
        environ["wsgi.input"].read()
    except Exception as error:  # noqa: BLE001
        return answer(start_response, type(error).__name__.encode())
    return answer(start_response, b"whole")


@route("/swallow")
def swallow(environ, start_response):
    """Catch the error of a read and don't call start_response."""
    how = environ["QUERY_STRING"].partition("&")[2]
    try:
        environ["wsgi.input"].read()
    except OSError:
        return {"": [], "generator": iter(()), "empty-items": [b"", b""], "text": [b"text"]}[how]
    return answer(start_response, b"whole")


@route("/partial")
def partial(environ, start_response):
    """Read twice by the method in the query; answer with each error and its `partial`.

    At the end of the answer is what `readinto` has put into its buffer.
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


@route("/tell-broken")
def tell_broken(environ, start_response):
    """Read the body, then set an event: its name is the query and how the read ended."""
    try:
        environ["wsgi.input"].read()
    except Exception as error:
        tell(f"set {environ['QUERY_STRING']}-{type(error).__name__}")
        raise
    tell(f"set {environ['QUERY_STRING']}-whole")
    return answer(start_response, b"whole")


@route("/read-for-a-moment")
def read_for_a_moment(environ, start_response):
    """Interrupt a read, as an application does that has a time limit of its own."""
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
