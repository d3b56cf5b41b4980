"""Reading a body that does not come whole."""

import collections

import gunicorn_expect
from apps.routes import answer, route
from apps.switchboard import tell


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
