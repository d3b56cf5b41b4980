"""One request answered, on a real connection: what an application and a policy may do to it.

What a client sees of the rule is in protocol/test_rule.py, of broken bodies in
protocol/test_uploads.py, and of policies in policies/test_policy.py. Here is what is odd.
"""

import contextlib
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from gunicorn_expect import ContentTooLarge, Refuse, State, inline
from gunicorn_expect.answer import SENT_AT_ONCE
from gunicorn_expect.connection import Wants
from gunicorn_expect.decision import EXITS_KEY
from gunicorn_expect.settings import Settings
from support import PATIENCE
from support.client import request, waiting
from support.connections import answered, connection, service
from support.socket_pairs import connected, what_is_left

LENGTH = "Content-Length: 5"


class AnsweredRequest:
    """What became of a request."""

    def __init__(self, wants, answer, state):
        self.wants = wants
        self.head, _, self.body = answer.partition(b"\r\n\r\n")
        self.status = self.head.partition(b"\r\n")[0].removeprefix(b"HTTP/1.1 ").decode()
        self.state = state

    def field(self, name):
        """Return the values of a header field."""
        lines = (line.partition(b": ") for line in self.head.split(b"\r\n")[1:])
        return [value for key, _, value in lines if key.lower() == name.lower()]


@pytest.fixture
def ask(certificates):
    """Return a function that lets an application answer a request, by default one that waits."""

    def ask(application, head=None, body=b"", **given):
        with (
            connected("unix", certificates) as (ours, theirs),
            service(application, **given) as made,
        ):
            theirs.sendall((head or waiting("PUT /", LENGTH)) + body)
            conn = connection(made, ours)
            assert conn.wait_for_head(5)
            exchange = conn.exchange
            wants, answer = answered(conn, theirs)
            conn.transport.close()
        return AnsweredRequest(wants, answer, exchange.state)

    return ask


def answering(status, headers=(), items=()):
    def application(environ, start_response):
        start_response(status, list(headers))
        return items

    return application


# The response.


@pytest.mark.parametrize(
    ("method", "status"),
    [("PUT", "204 No Content"), ("PUT", "304 Not Modified"), ("HEAD", "200 OK")],
)
def test_a_response_that_can_have_no_body_has_no_content_length(ask, method, status):
    result = ask(answering(status), waiting(f"{method} /", LENGTH))
    assert result.status == status
    assert result.field(b"Content-Length") == []
    assert result.body == b""


def test_an_answer_without_a_body_keeps_the_length_that_it_has(ask):
    result = ask(answering("200 OK", [("content-length", "7")]), waiting("HEAD /", LENGTH))
    assert result.field(b"Content-Length") == [b"7"]


def test_header_fields_are_those_of_the_call(ask):
    def application(environ, start_response):
        headers = [("X-One", "1")]
        start_response("200 OK", headers)
        headers.clear()
        return [b"x"]

    assert ask(application).field(b"X-One") == [b"1"]


def test_an_empty_write_sets_no_content_length(ask):
    def application(environ, start_response):
        start_response("200 OK", [])(b"")
        return [b"more"]

    result = ask(application)
    assert result.field(b"Content-Length") == []
    assert result.body == b"4\r\nmore\r\n0\r\n\r\n"


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("item", ["text", "", 7])
def test_an_item_that_is_no_bytes_is_an_error_before_the_answer_begins(ask, caplog, kind, item):
    result = ask(answering("200 OK", items=kind([item])))
    assert result.status == "500 Internal Server Error"
    assert result.state is State.DECLINED
    said = f"the application yielded {type(item).__name__}, not bytes"
    assert [str(x.exc_info[1]) for x in caplog.records if x.exc_info] == [said]


def at_once(environ, start_response):
    raise LookupError


def before_the_first_byte(environ, start_response):
    start_response("200 OK", [])
    yield b""
    raise LookupError


@pytest.mark.parametrize(
    "application", [at_once, before_the_first_byte, answering("200 OK", items=None)]
)
def test_an_application_that_fails_has_declined_the_body(ask, application):
    result = ask(application)
    assert result.status == "500 Internal Server Error"
    assert result.field(b"Connection") == [b"close"]
    assert result.state is State.DECLINED
    assert result.wants is Wants.END


class Unusable:
    """What an application must not return."""

    closed = False

    def __iter__(self):
        raise ContentTooLarge(5)

    def close(self):
        self.closed = True


def test_an_error_of_what_is_iterated_is_the_applications(ask):
    unusable = Unusable()
    result = ask(answering("200 OK", [("X-Said", "first")], unusable))
    assert result.status == "413 Content Too Large"
    assert result.field(b"Content-Length") == [b"0"]
    assert result.field(b"X-Said") == []
    assert result.state is State.DECLINED
    assert unusable.closed


class Counted(socket.socket):
    """Notes how it was ended."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.ended_by = []

    def shutdown(self, how):
        self.ended_by.append(how)
        super().shutdown(how)


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_a_connection_of_a_refusal_of_any_length_is_closed_in_order_once(certificates, size):
    application = answering("403 Forbidden", [("Content-Length", str(size))], [bytes(size)])
    with (
        connected("tcp", certificates) as (ours, theirs),
        Counted(ours) as counted,
        service(application) as made,
        ThreadPoolExecutor() as pool,
    ):
        theirs.sendall(waiting("PUT /", LENGTH))
        conn = connection(made, counted)
        assert conn.wait_for_head(PATIENCE)
        received = pool.submit(what_is_left, theirs)
        assert conn.answer() is Wants.END
        assert counted.ended_by == []
        closing = pool.submit(conn.linger_here, PATIENCE)
        head, _, body = received.result().partition(b"\r\n\r\n")
        theirs.close()
        closing.result()
        assert head.count(b"\r\nConnection: close") == 1
        assert body == bytes(size)
        assert counted.ended_by == [socket.SHUT_WR]
        assert made.counters.lingered_as == ["closed"]


# The policy.


@contextlib.contextmanager
def asked(certificates, method="PUT", **given):
    """Yield a connection on which a client waits for 100 Continue, and the client's end of it."""
    with connected("unix", certificates) as (ours, theirs), service(**given) as made:
        theirs.sendall(waiting(f"{method} /", LENGTH))
        conn = connection(made, ours)
        conn.advance()
        yield conn, theirs
        conn.transport.close()


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_a_refusal_is_the_same_whoever_calls_the_policy(certificates, method):
    policy = inline(lambda environ: Refuse(401, [("WWW-Authenticate", "Bearer")], b"why"))
    answers = []
    for by_the_loop in (True, False):
        part = policy if by_the_loop else None
        with asked(certificates, method, policy=policy, inline=part) as (conn, theirs):
            exchange = conn.exchange
            assert conn.answer_inline() is by_the_loop
            if not by_the_loop:
                assert conn.answer() is Wants.END
            assert exchange.state is State.DECLINED
            conn.transport.half_close()
            answers.append(re.sub(rb"\r\nDate: .*", b"", theirs.recv(10_000)))
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nWWW-Authenticate: Bearer\r\nContent-Length: 3\r\n" in answers[0]
    assert answers[0].endswith(b"\r\n\r\nwhy" if method == "PUT" else b"\r\n\r\n")


def test_a_refusal_in_the_loop_closes_the_connection_though_the_body_came_in_the_last_moment(
    certificates,
):
    policy = inline(lambda environ: Refuse(401))
    with asked(certificates, policy=policy, inline=policy) as (conn, theirs):
        exchange = conn.exchange
        theirs.sendall(b"hello")
        assert conn.answer_inline()
        assert exchange.state is State.WAIVED
        assert b"\r\nConnection: close\r\n" in theirs.recv(10_000)


@pytest.mark.parametrize(
    ("before", "most", "refused"), [(0, 2, True), (0, 1, False), (1, 9, False)]
)
def test_the_loop_refuses_the_first_request_of_a_connection_that_is_not_a_workers_last(
    certificates, before, most, refused
):
    """Another may find the send buffer full, and the last one ends the worker."""
    policy = inline(lambda environ: Refuse(401))
    with (
        connected("unix", certificates) as (ours, theirs),
        service(answering("200 OK", [], [b""]), policy=policy, inline=policy) as made,
    ):
        made.worker.max_requests = most
        conn = connection(made, ours)
        for _ in range(before):
            theirs.sendall(request("GET /"))
            conn.advance()
            assert conn.answer() is Wants.REQUEST
        theirs.sendall(waiting("PUT /", LENGTH))
        conn.advance()
        assert conn.answer_inline() is refused
        conn.transport.close()


@pytest.mark.parametrize(("more", "refused"), [(0, True), (1, False)])
def test_the_loop_sends_no_refusal_for_which_it_may_have_to_wait(certificates, more, refused):
    policy = inline(lambda environ: Refuse(401, body=bytes(SENT_AT_ONCE + more)))
    with asked(certificates, policy=policy, inline=policy) as (conn, _):
        assert conn.answer_inline() is refused


def test_an_inline_policy_that_reads_is_asked_again_on_a_thread(certificates):
    def reads(environ):
        return Refuse(401, body=environ["wsgi.input"].read())

    policy = inline(reads)
    with asked(certificates, policy=policy, inline=policy) as (conn, theirs):
        theirs.sendall(b"hello")
        assert not conn.answer_inline()
        assert conn.exchange.received == 0
        conn.answer()
        conn.transport.half_close()
        assert what_is_left(theirs).endswith(b"\r\n\r\nhello")


class HiddenError(Exception):
    """What the policy means to hide."""


def hiding(done):
    def policy(environ):
        environ[EXITS_KEY].enter_context(contextlib.suppress(HiddenError))
        environ[EXITS_KEY].callback(done.append, "done")

    return policy


def test_what_is_done_at_the_end_can_not_hide_an_error_of_the_application(ask, caplog):
    def application(environ, start_response):
        raise HiddenError

    done = []
    assert ask(application, policy=hiding(done)).status == "500 Internal Server Error"
    assert done == ["done"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [HiddenError]


def test_what_is_done_at_the_end_can_not_keep_a_connection_whose_answer_broke_off(ask):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        yield environ["wsgi.input"].read(3)
        raise HiddenError

    result = ask(application, request("PUT /", LENGTH), b"hello", policy=hiding([]))
    assert result.body == b"hel"
    assert result.wants is Wants.END


def test_what_the_application_adds_while_it_is_iterated_is_done_too(ask):
    done = []

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        environ[EXITS_KEY].callback(done.append, "added")
        yield b"two"
        done.append("iterated")

    assert ask(application, policy=lambda environ: None).body.startswith(
        b"3\r\none\r\n3\r\ntwo\r\n"
    )
    assert done == ["iterated", "added"]


# An upload that is refused when it has been read.


def reading_first(status):
    def application(environ, start_response):
        environ["wsgi.input"].read()
        start_response(status, [])
        return []

    return application


def upload(size):
    return {"head": request("PUT /", f"Content-Length: {size}"), "body": b"x" * size}


LARGE = upload(65537)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 No", "413 Too Much", "415 What"])
def test_a_refusal_of_a_body_that_was_read_is_warned_of_with_its_place(ask, caplog, status):
    ask(reading_first(status), **LARGE)
    [warning] = warnings(caplog)
    assert repr(status) in warning
    assert f"in {__name__}.application ({__file__}, line " in warning
    assert "expect_warn = False" in warning


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found", "422 No"])
def test_a_status_that_may_depend_on_the_body_is_not_warned_of(ask, caplog, status):
    ask(reading_first(status), **LARGE)
    assert warnings(caplog) == []


def test_a_body_that_would_be_read_anyway_is_not_warned_of(ask, caplog):
    ask(reading_first("401 Unauthorized"), **upload(65536))
    assert warnings(caplog) == []


@pytest.mark.parametrize(("status", "count"), [("413 Content Too Large", 0), ("403 Forbidden", 1)])
def test_a_body_that_turned_out_too_long_is_not_warned_of(ask, caplog, status, count):
    ask(
        reading_first(status),
        request("PUT /", "Transfer-Encoding: chunked"),
        b"5\r\nhello\r\n0\r\n\r\n",
    )
    assert len(warnings(caplog)) == count


def test_a_body_that_nobody_read_is_not_warned_of(ask, caplog):
    ask(answering("403 Forbidden"), **LARGE)
    assert warnings(caplog) == []


def test_the_warnings_of_a_worker_come_to_an_end(caplog, monkeypatch, certificates):
    monkeypatch.setattr("gunicorn_expect.advice.MOST_WARNINGS", 2)
    with service() as made:
        for name in "abc":
            functions = {}
            exec(  # a function of its own for each
                compile(
                    f"def {name}(environ): environ['wsgi.input'].read()", f"/srv/{name}.py", "exec"
                ),
                {"__name__": name},
                functions,
            )

            def application(environ, start_response, read=functions[name]):
                read(environ)
                start_response("403 Forbidden", [])
                return []

            made.application = application
            with connected("unix", certificates) as (ours, theirs):
                theirs.sendall(LARGE["head"] + LARGE["body"])
                conn = connection(made, ours)
                assert conn.wait_for_head(5)
                answered(conn, theirs)
                conn.transport.close()
    assert [re.search(r"first read in (\w)", text)[1] for text in warnings(caplog)] == ["a", "b"]


def test_the_calls_of_the_application_are_noted_and_no_others(ask):
    """Those of the server are the same each time, and each waiting client would hold them."""
    seen = []

    def reads(environ):
        for _line in environ["wsgi.input"]:  # by way of __next__, readline and more
            break

    def application(environ, start_response):
        reads(environ)
        seen.extend(environ["wsgi.input"].first_reader)
        return answering("403 Forbidden")(environ, start_response)

    ask(application, **LARGE)
    assert [(module, code) for module, code, _line in seen] == [
        (__name__, reads.__code__),
        (__name__, application.__code__),
    ]


def test_the_reader_is_not_noted_if_no_warning_is_wanted(ask):
    seen = []

    def application(environ, start_response):
        environ["wsgi.input"].read()
        seen.append(environ["wsgi.input"].first_reader)
        return answering("403 Forbidden")(environ, start_response)

    ask(application, settings=Settings(expect_warn=False), **LARGE)
    assert seen == [()]
