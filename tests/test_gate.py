"""The gate alone: it is plain WSGI, so a plain WSGI server stands on its other side."""

import contextlib
import io
import sys

import pytest
from pairs import Silence

from gunicorn_expect import (
    BodyTimeout,
    ClientDisconnected,
    ContentTooLarge,
    Expectation,
    MalformedBody,
    Proceed,
    Refuse,
    State,
    inline,
)
from gunicorn_expect.body import Reader
from gunicorn_expect.gate import EXITS_KEY, KEY, SENT_AT_ONCE, AnswerCutOff, Gate


class Input:
    """A body that somebody waits to send."""

    failure = None

    def __init__(self):
        self.expectation = Expectation(Silence())

    def read(self, size=-1):
        self.expectation.on_read()
        return b"body"

    def on_respond(self, *, discard=False):
        self.expectation.on_respond()
        self.discarded = discard

    def decline(self):
        self.expectation.on_respond()


class Response:
    """What a server knows of the answer, when it knows it."""

    def __init__(self):
        self.starts = []
        self.written = []

    def start_response(self, status, headers, exc_info=None):
        self.starts.append((status, headers))
        return self.written.append


def call(application, method="PUT", *, policy=None, response=None, **environ):
    response = response or Response()
    environ = {
        "REQUEST_METHOD": method,
        "wsgi.input": Input(),
        "wsgi.file_wrapper": io.BytesIO,
        **environ,
    }
    items = Gate(application, policy)(environ, response.start_response)
    response.body = environ["wsgi.input"]
    return response, items, environ[KEY]


def answering(status, headers=(), items=()):
    def application(environ, start_response):
        start_response(status, list(headers))
        return items

    return application


@pytest.mark.parametrize("by_the_loop", [False, True])
@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_a_refusal_is_the_same_by_whom_it_is_asked(by_the_loop, method):
    refusal = Refuse(401, [("WWW-Authenticate", "Bearer")], b"why")
    gate = Gate(answering("200 OK"), inline(lambda environ: refusal))
    environ = {"REQUEST_METHOD": method, "wsgi.input": Input()}
    response = Response()
    if by_the_loop:
        assert gate.ask_inline(environ) is refusal
        items = gate.refuse(refusal, environ, response.start_response)
    else:
        items = gate(environ, response.start_response)
    fields = [("WWW-Authenticate", "Bearer"), ("Content-Length", "3")]
    assert response.starts == [("401 Unauthorized", fields)]
    assert list(items) == ([b"why"] if method == "PUT" else [])
    assert environ[KEY].state is State.DECLINED


@pytest.mark.parametrize(
    ("decision", "told"),
    [(None, []), (Proceed(), []), (Refuse(413), ["413 Content Too Large"])],
    ids=["None", "Proceed", "Refuse"],
)
def test_a_refusal_of_the_policy_is_told_with_its_status(decision, told):
    said = []
    gate = Gate(answering("200 OK"), lambda environ: decision, on_refused=said.append)
    gate({"REQUEST_METHOD": "PUT", "wsgi.input": Input()}, Response().start_response)
    assert said == told


def test_the_answer_is_held_until_its_first_byte():
    response, items, expectation = call(answering("200 OK", items=iter([b"", b"one", b"", b"two"])))
    assert response.starts == []
    assert expectation.pending
    assert next(items) == b"one"
    assert response.starts == [("200 OK", [])]
    assert expectation.state is State.DECLINED
    assert list(items) == [b"", b"two"]


def test_header_fields_are_those_of_the_call():
    headers = [("X-One", "1")]
    response, items, _ = call(answering("200 OK", headers, [b"x"]))
    headers.clear()
    assert list(items) == [b"x"]
    assert response.starts == [("200 OK", [("X-One", "1")])]


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("PUT", "401 Unauthorized", [("Content-Length", "0")]),
        ("PUT", "204 No Content", []),
        ("PUT", "304 Not Modified", []),
        ("HEAD", "200 OK", []),
    ],
)
def test_an_answer_without_a_body_says_so_where_it_could_have_one(method, status, length):
    response, items, _ = call(answering(status), method)
    assert list(items) == []
    assert response.starts == [(status, length)]


def test_an_answer_without_a_body_keeps_the_length_that_it_has():
    response, items, _ = call(answering("200 OK", [("content-length", "7")]))
    assert list(items) == []
    assert response.starts == [("200 OK", [("content-length", "7")])]


def test_a_file_reaches_the_server_as_it_is():
    with open(__file__, "rb") as file:  # noqa: PTH123

        class FileWrapper:
            filelike = file

        wrapped = FileWrapper()
        response, items, expectation = call(
            answering("200 OK", items=wrapped), **{"wsgi.file_wrapper": FileWrapper}
        )
    assert items is wrapped
    assert expectation.state is State.DECLINED
    assert response.starts == [("200 OK", [])]


def test_the_answer_of_an_error_handler_replaces_what_was_said():
    def application(environ, start_response):
        start_response("200 OK", [("X-Said", "first")])
        try:
            raise LookupError
        except LookupError:
            start_response("500 Internal Server Error", [], sys.exc_info())
        return [b"sorry"]

    response, items, _ = call(application)
    assert list(items) == [b"sorry"]
    assert response.starts == [("500 Internal Server Error", [])]


@pytest.mark.parametrize("settle", ["refused", "asked"])
def test_early_hints_go_out_only_when_the_body_was_asked_for(settle):
    hints = []

    def application(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</1>")])
        if settle == "asked":
            environ["wsgi.input"].read()
        start_response("200 OK", [])
        yield b"one"
        environ["wsgi.early_hints"]([("Link", "</2>")])

    _, items, _ = call(application, **{"wsgi.early_hints": hints.append})
    assert list(items) == [b"one"]
    assert hints == ([] if settle == "refused" else [[("Link", "</2>")]])


def test_the_items_are_closed_when_a_header_field_cannot_be_sent():
    closed = []

    class Items(list):
        def close(self):
            closed.append(True)

    def application(environ, start_response):
        start_response("200 OK", [])
        environ["wsgi.input"].read()
        return Items([b"one"])

    _, items, _ = call(application)
    items.close()
    assert closed == [True]


def test_an_application_that_fails_has_declined_the_body():
    def application(environ, start_response):
        environ["kept"] = environ[KEY]
        raise LookupError

    environ = {"REQUEST_METHOD": "PUT", "wsgi.input": Input()}
    with pytest.raises(LookupError):
        Gate(application)(environ, Response().start_response)
    assert environ["kept"].state is State.DECLINED


def test_an_application_that_fails_before_its_first_byte_has_declined_the_body():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b""
        raise LookupError

    _, items, expectation = call(application)
    with pytest.raises(LookupError):
        next(items)
    assert expectation.state is State.DECLINED


# What the body is told of the answer.

LONG = b"x" * (SENT_AT_ONCE + 1)


@pytest.mark.parametrize(
    ("discard", "headers", "items"),
    [
        (True, [], [LONG]),
        (True, [], (LONG[1:], b"x")),
        (True, [("Content-Length", str(len(LONG)))], iter([LONG])),
        (False, [], [LONG[1:]]),
        (False, [], iter([LONG])),
        (False, [("Content-Length", str(len(LONG) + 1))], iter([LONG, b"x"])),
        (False, [], []),
    ],
)
def test_the_body_is_given_up_when_a_long_answer_is_all_there_is(discard, headers, items):
    response, answered, _ = call(answering("413 Content Too Large", headers, items))
    list(answered)
    assert response.body.discarded is discard


def test_an_application_that_says_nothing_is_an_error():
    _, items, _ = call(lambda environ, start_response: [b"body"])
    with pytest.raises(AssertionError, match="did not call start_response"):
        next(items)


@pytest.mark.parametrize("kind", [list, iter])
def test_an_item_that_is_no_bytes_is_an_error_before_the_answer_begins(kind):
    response = Response()
    with pytest.raises(TypeError, match="yielded str, not bytes"):
        list(call(answering("200 OK", items=kind(["text"])), response=response)[1])
    assert response.starts == []


def test_a_list_reaches_the_server_as_it_is():
    answer = [b"one", b"two"]
    response, items, expectation = call(answering("200 OK", items=answer))
    assert items is answer
    assert response.starts == [("200 OK", [])]
    assert expectation.state is State.DECLINED


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BodyTimeout("late"), "408 Request Timeout"),
        (ClientDisconnected("gone"), "400 Bad Request"),
        (MalformedBody("malformed"), "400 Bad Request"),
    ],
)
@pytest.mark.parametrize("when", ["called", "iterated"])
def test_a_body_that_is_an_error_is_answered_where_the_application_lets_it_pass(
    error, status, when
):
    def at_once(environ, start_response):
        raise error

    def later(environ, start_response):
        start_response("200 OK", [("X-Said", "first")])
        yield b""
        raise error

    response, items, _ = call(at_once if when == "called" else later)
    assert list(items) == []
    assert response.starts == [(status, [("Content-Length", "0")])]


def test_an_answer_that_breaks_off_ends_the_connection_and_says_why():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        raise LookupError("lost")

    _, items, _ = call(application)
    assert next(items) == b"one"
    with pytest.raises(AnswerCutOff, match="lost") as raised:
        next(items)
    assert isinstance(raised.value.__cause__, LookupError)


def test_an_empty_write_says_nothing_of_the_length():
    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"")
        return [b"more"]

    response, items, _ = call(application)
    assert list(items) == [b"more"]
    assert response.starts == [("200 OK", [])]


class Unusable:
    """What an application must not return."""

    closed = False

    def __iter__(self):
        raise ContentTooLarge(5)

    def close(self):
        self.closed = True


def test_an_error_of_what_is_iterated_is_the_applications():
    unusable = Unusable()
    response, items, expectation = call(answering("200 OK", items=unusable))
    assert list(items) == []
    items.close()
    assert response.starts == [("413 Content Too Large", [("Content-Length", "0")])]
    assert expectation.state is State.DECLINED
    assert unusable.closed


def test_what_can_not_be_iterated_is_an_error_and_the_expectation_is_settled():
    _, items, expectation = call(answering("200 OK", items=None))
    with pytest.raises(TypeError, match="not iterable"):
        list(items)
    assert expectation.state is State.DECLINED


# What the policy wants done at the end.


@pytest.mark.parametrize("error", [RuntimeError, LookupError])
def test_what_is_done_at_the_end_can_not_hide_an_error_of_the_application(error):
    done = []

    def policy(environ):
        environ[EXITS_KEY].enter_context(contextlib.suppress(RuntimeError))
        environ[EXITS_KEY].callback(done.append, "done")

    def application(environ, start_response):
        raise error

    with pytest.raises(error):
        call(application, policy=policy)
    assert done == ["done"]


def test_what_the_application_adds_while_it_is_iterated_is_done_too():
    done = []

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        environ[EXITS_KEY].callback(done.append, "added")
        yield b"two"

    _, items, _ = call(application, policy=lambda environ: None)
    assert list(items) == [b"one", b"two"]
    assert done == []
    items.close()
    assert done == ["added"]


# An upload that is refused when it has been read.


def reading_first(status):
    def application(environ, start_response):
        environ["wsgi.input"].read()
        start_response(status, [])
        return []

    return application


class Read(Input):
    """A body that somebody has read."""

    first_reader = Reader("some.middleware", "parse", 12)


def warnings_of(application, times=1, **environ):
    warnings = []
    gate = Gate(application, warn=warnings.append)
    for _ in range(times):
        list(gate({**ENVIRON, "CONTENT_LENGTH": "65537", **environ}, Response().start_response))
    return warnings


ENVIRON = {"REQUEST_METHOD": "PUT", "wsgi.input": Read(), "wsgi.file_wrapper": io.BytesIO}


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 No", "413 Too Much", "415 What"])
def test_a_refusal_of_a_body_that_was_read_is_warned_of_with_its_place(status):
    [warning] = warnings_of(reading_first(status))
    assert repr(status) in warning
    assert "in some.middleware.parse, line 12." in warning
    assert "expect_warn = False" in warning


def test_each_place_is_warned_of_once():
    assert len(warnings_of(reading_first("403 Forbidden"), times=3)) == 1


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found", "422 No"])
def test_what_is_known_only_from_the_body_is_not_warned_of(status):
    assert warnings_of(reading_first(status)) == []


def test_a_body_that_would_be_read_anyway_is_not_warned_of():
    assert warnings_of(reading_first("401 Unauthorized"), CONTENT_LENGTH="65536") == []


def test_a_body_that_turned_out_too_long_is_not_warned_of():
    application = reading_first("413 Content Too Large")
    warnings = []
    environ = {**ENVIRON}
    list(Gate(application, warn=warnings.append)(environ, Response().start_response))
    assert warnings == []


def test_a_body_that_nobody_read_is_not_warned_of():
    unread = Input()
    unread.first_reader = None
    assert warnings_of(answering("403 Forbidden"), **{"wsgi.input": unread}) == []
