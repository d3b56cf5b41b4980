"""Views that wait for an event of the test."""

from apps.routes import KEY, answer, route
from apps.switchboard import tell


@route("/read-after-event")
def read_after_event(environ, start_response):
    tell("set entered-" + environ["QUERY_STRING"])
    tell("wait " + environ["QUERY_STRING"])
    body = environ["wsgi.input"].read()
    return answer(start_response, [body.decode(), str(environ[KEY])])


@route("/refuse-after-event")
def refuse_after_event(environ, start_response):
    tell("set entered-" + environ["QUERY_STRING"])
    tell("wait " + environ["QUERY_STRING"])
    return answer(start_response, b"no", "403 Forbidden")


@route("/refuse-after-event-without-a-body")
def refuse_after_event_without_a_body(environ, start_response):
    refuse_after_event(environ, lambda *_: None)
    start_response("403 Forbidden", [("Content-Length", "0")])
    return []


@route("/answer-after-event")
def answer_after_event(environ, start_response):
    """Read as many bytes as the query says, and answer at an event of the test."""
    environ["wsgi.input"].read(int(environ["QUERY_STRING"]))
    tell("wait " + environ["HTTP_X_EVENT"])
    return answer(start_response, b"unread")


class Closing:
    """An iterable with a close method (PEP 3333), which tells the test that it was called."""

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
