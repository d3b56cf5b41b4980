"""The application that unfriendly clients use, and its policy."""

import contextlib
import functools
import itertools
import threading
import time

from apps.routes import answer
from apps.switchboard import tell
from gunicorn_expect import Refuse, inline, policies
from gunicorn_expect.admission import admission

#: Uploads that the policy has admitted and that are not over.
under_way = []

#: More than any test has clients at once.
PLACES = 1000
admitted = admission(PLACES)


def taken_places():
    """Count the slots of `admission` that are taken, by taking the others for a moment."""
    with contextlib.ExitStack() as exits:
        free = 0
        while admitted({"gunicorn_expect.exits": exits}) is None:
            free += 1
    return PLACES - free


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


#: Cached, so that a response adds nothing to the memory that the tests measure.
zeros = functools.cache(bytes)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/read":
        size = 0
        while data := environ["wsgi.input"].read(65536):
            size += len(data)
        return answer(start_response, b"%d" % size)
    if path == "/wait":
        tell("set entered-" + environ["QUERY_STRING"])
        tell("wait " + environ["QUERY_STRING"])
        return answer(start_response, environ["wsgi.input"].read())
    if path == "/busy":
        seconds, _, name = environ["QUERY_STRING"].partition("&")
        if name:
            tell("set " + name)
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:  # and on gevent, nothing else runs
            pass
        return answer(start_response, b"done")
    if path == "/refuse":
        return answer(start_response, b"no", "403 Forbidden")
    if path == "/under-way":
        return answer(start_response, [len(under_way), taken_places()])
    if path == "/unread":
        return answer(start_response, zeros(int(environ["QUERY_STRING"])))
    if path == "/yielded":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes(50_000) for _ in range(int(environ["QUERY_STRING"]) // 50_000))
    if path == "/long":
        return long(environ["QUERY_STRING"], start_response)
    if path == "/long-then-read":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return itertools.chain(PIECES, outcome_of_reading(environ["wsgi.input"]))
    if path == "/long-beside-read":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return long_beside_reading(environ["wsgi.input"])
    return answer(start_response, b"hello")


#: A response of `unfriendly.LONG` bytes.
PIECES = [bytes(100_000)] * 100


def long(way, start_response):
    """Return a long response in this way."""
    how, _, length = way.partition("&")
    write = start_response("200 OK", [("Content-Length", "10000000")] if length else [])
    if how == "write":
        for piece in PIECES:
            write(piece)
        return []
    return PIECES if how == "list" else iter(PIECES)


def long_beside_reading(body):
    """Yield a long response while another thread reads the body; then what it has read."""
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(outcome_of_reading(body)))
    thread.start()
    yield from PIECES
    thread.join()
    yield from seen


def outcome_of_reading(body):
    """Read all of a body; yield its size, or what was raised."""
    size = 0
    try:
        while data := body.read(100_000):
            size += len(data)
    except OSError:
        yield b"OSError"
    else:
        yield b"%d bytes" % size
