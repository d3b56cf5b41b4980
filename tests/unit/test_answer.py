"""One request answered, on a real connection: the unusual cases.

What a client sees is tested elsewhere: the rule in protocol/test_rule.py, broken bodies in
protocol/test_uploads.py, and policies in policies/test_policy.py.
"""

import contextlib
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import gevent
import pytest

from gunicorn_expect import ContentTooLarge, Refuse, State, inline
from gunicorn_expect.answer import SENT_AT_ONCE
from gunicorn_expect.connection import Wants
from gunicorn_expect.decision import EXITS_KEY
from gunicorn_expect.settings import Settings
from support import PATIENCE
from support.client import request, waiting
from support.connections import answered, connection, service
from support.socket_pairs import connected, packets, receive_rest

LENGTH = "Content-Length: 5"


class AnsweredRequest:
    """The response to a request, the state of its expectation, and what its connection wants."""

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
    """Return a function that lets an application answer a request.

    By default it is the request of a client that waits for a 100.
    """

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


def test_a_response_without_a_body_keeps_the_content_length_that_the_application_set(ask):
    result = ask(answering("200 OK", [("content-length", "7")]), waiting("HEAD /", LENGTH))
    assert result.field(b"Content-Length") == [b"7"]


class Closing(list):
    """A list of items that has something to do after the response."""

    def close(self):
        """Do it."""


@pytest.mark.parametrize(
    ("items", "gunicorn", "count"),
    [
        ([b"hello"], {}, 1),
        ((b"hello",), {}, 1),
        ([b"hel", b"lo"], {}, 1),
        # These may do something that takes long, and the client must not wait for it.
        ([b"hello"], {"post_request": lambda worker, req, environ, resp: None}, 2),
        (iter([b"hello"]), {}, 2),
        (Closing([b"hello"]), {}, 2),
    ],
)
def test_a_response_and_the_end_of_its_connection_are_one_packet_if_nothing_is_between(
    certificates, items, gunicorn, count
):
    with (
        connected("tcp", certificates) as (ours, theirs),
        service(answering("200 OK", [("Content-Length", "5")], items), gunicorn=gunicorn) as made,
    ):
        theirs.sendall(request("GET /", "Connection: close"))
        conn = connection(made, ours)
        assert conn.wait_for_head(5)
        before = packets(theirs)
        _, answer = answered(conn, theirs)
        assert packets(theirs) - before == count
        conn.transport.close()
    assert answer.endswith(b"\r\n\r\nhello")


def test_a_list_of_headers_may_be_changed_after_start_response(ask):
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
def test_an_item_that_is_not_bytes_gets_500(ask, caplog, kind, item):
    result = ask(answering("200 OK", items=kind([item])))
    assert result.status == "500 Internal Server Error"
    assert result.state is State.DECLINED
    message = f"the application yielded {type(item).__name__}, not bytes"
    assert [str(x.exc_info[1]) for x in caplog.records if x.exc_info] == [message]


def at_once(environ, start_response):
    raise LookupError


def before_the_first_byte(environ, start_response):
    start_response("200 OK", [])
    yield b""
    raise LookupError


@pytest.mark.parametrize(
    "application", [at_once, before_the_first_byte, answering("200 OK", items=None)]
)
def test_an_application_that_fails_without_reading_declines_the_body(ask, application):
    result = ask(application)
    assert result.status == "500 Internal Server Error"
    assert result.field(b"Connection") == [b"close"]
    assert result.state is State.DECLINED
    assert result.wants is Wants.END


class FailingIterable:
    """The result of an application; iterating it fails."""

    closed = False

    def __iter__(self):
        raise ContentTooLarge(5)

    def close(self):
        self.closed = True


def test_an_error_of_iterating_the_result_is_handled_like_one_of_the_application(ask):
    iterable = FailingIterable()
    result = ask(answering("200 OK", [("X-Said", "first")], iterable))
    assert result.status == "413 Content Too Large"
    assert result.field(b"Content-Length") == [b"0"]
    assert result.field(b"X-Said") == []
    assert result.state is State.DECLINED
    assert iterable.closed


class RecordingSocket(socket.socket):
    """Records the calls of `shutdown`."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.shutdowns = []

    def shutdown(self, how):
        self.shutdowns.append(how)
        super().shutdown(how)


@pytest.mark.parametrize("size", [0, 100, 1_000_000])
def test_after_a_refusal_of_any_length_the_connection_is_half_closed_once(certificates, size):
    application = answering("403 Forbidden", [("Content-Length", str(size))], [bytes(size)])
    with (
        connected("tcp", certificates) as (ours, theirs),
        RecordingSocket(ours) as recording,
        service(application) as made,
        ThreadPoolExecutor() as pool,
    ):
        theirs.sendall(waiting("PUT /", LENGTH))
        conn = connection(made, recording)
        assert conn.wait_for_head(PATIENCE)
        received = pool.submit(receive_rest, theirs)
        assert conn.answer() is Wants.END
        assert recording.shutdowns == []
        closing = pool.submit(conn.linger_here, PATIENCE)
        head, _, body = received.result().partition(b"\r\n\r\n")
        theirs.close()
        closing.result()
        assert head.count(b"\r\nConnection: close") == 1
        assert body == bytes(size)
        assert recording.shutdowns == [socket.SHUT_WR]
        assert made.counters.lingered_as == ["closed"]


def test_the_response_to_a_broken_body_is_known_to_be_complete(certificates):
    def application(environ, start_response):
        yield environ["wsgi.input"].read()

    known = []
    with connected("unix", certificates) as (ours, theirs), service(application) as made:
        theirs.sendall(request("PUT /", LENGTH) + b"hel")
        theirs.shutdown(socket.SHUT_WR)
        conn = connection(made, ours)
        assert conn.wait_for_head(PATIENCE)
        conn.transport.discard_when_stuck = lambda _, *, complete: known.append(complete)
        conn.answer()
        assert theirs.recv(10_000).startswith(b"HTTP/1.1 400 ")
        conn.transport.close()
    assert known == [True]


# The policy.


@contextlib.contextmanager
def waiting_client(certificates, method="PUT", **given):
    """Yield a connection on which a client waits for 100 Continue, and the client's end of it."""
    with connected("unix", certificates) as (ours, theirs), service(**given) as made:
        theirs.sendall(waiting(f"{method} /", LENGTH))
        conn = connection(made, ours)
        conn.advance()
        yield conn, theirs
        conn.transport.close()


@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_a_refusal_is_the_same_from_the_loop_and_from_a_thread(certificates, method):
    policy = inline(lambda environ: Refuse(401, [("WWW-Authenticate", "Bearer")], b"why"))
    answers = []
    for by_the_loop in (True, False):
        part = policy if by_the_loop else None
        with waiting_client(certificates, method, policy=policy, inline=part) as (conn, theirs):
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


def test_a_refusal_in_the_loop_does_not_look_whether_the_body_has_just_arrived(certificates):
    """The loop has read the head a moment ago, and nothing was behind it."""
    policy = inline(lambda environ: Refuse(401))
    with waiting_client(certificates, policy=policy, inline=policy) as (conn, theirs):
        exchange = conn.exchange
        theirs.sendall(b"hello")
        assert conn.answer_inline()
        assert exchange.state is State.DECLINED
        assert b"\r\nConnection: close\r\n" in theirs.recv(10_000)


@pytest.mark.parametrize(
    ("before", "most", "refused"), [(0, 2, True), (0, 1, False), (1, 9, False)]
)
def test_the_loop_refuses_only_a_first_request_and_not_the_last_one_of_a_worker(
    certificates, before, most, refused
):
    """A later request may find the send buffer full. The last request ends the worker."""
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
def test_the_loop_leaves_a_refusal_that_is_too_long_to_send_at_once_to_a_thread(
    certificates, more, refused
):
    policy = inline(lambda environ: Refuse(401, body=bytes(SENT_AT_ONCE + more)))
    with waiting_client(certificates, policy=policy, inline=policy) as (conn, _):
        assert conn.answer_inline() is refused


def test_an_inline_policy_that_reads_is_called_again_on_a_thread(certificates):
    def reads(environ):
        return Refuse(401, body=environ["wsgi.input"].read())

    policy = inline(reads)
    with waiting_client(certificates, policy=policy, inline=policy) as (conn, theirs):
        theirs.sendall(b"hello")
        assert not conn.answer_inline()
        assert conn.exchange.received == 0
        conn.answer()
        conn.transport.half_close()
        assert receive_rest(theirs).endswith(b"\r\n\r\nhello")


class HiddenError(Exception):
    """The error that the policy tries to hide."""


def hiding(calls):
    """Return a policy that registers for the end of the upload: something that hides the error."""

    def policy(environ):
        environ[EXITS_KEY].enter_context(contextlib.suppress(HiddenError))
        environ[EXITS_KEY].callback(calls.append, "called")

    return policy


def test_what_a_policy_registered_for_the_end_can_not_hide_an_error_of_the_application(ask, caplog):
    def application(environ, start_response):
        raise HiddenError

    calls = []
    assert ask(application, policy=hiding(calls)).status == "500 Internal Server Error"
    assert calls == ["called"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [HiddenError]


@pytest.mark.parametrize("error", [ConnectionResetError, StopIteration, LookupError])
def test_what_a_policy_registered_for_the_end_can_not_replace_an_error_of_the_application(
    ask, caplog, error
):
    def policy(environ):
        environ[EXITS_KEY].callback(fail)

    def fail():
        raise error

    def application(environ, start_response):
        raise HiddenError

    assert ask(application, policy=policy).status == "500 Internal Server Error"
    found = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert found == [error, HiddenError]


def test_what_a_policy_registered_for_the_end_can_not_keep_a_connection_whose_response_broke_off(
    ask,
):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        yield environ["wsgi.input"].read(3)
        raise HiddenError

    result = ask(application, request("PUT /", LENGTH), b"hello", policy=hiding([]))
    assert result.body == b"hel"
    assert result.wants is Wants.END


def test_what_the_application_registers_for_the_end_while_it_is_iterated_is_called_too(ask):
    calls = []

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        environ[EXITS_KEY].callback(calls.append, "called")
        yield b"two"
        calls.append("iterated")

    assert ask(application, policy=lambda environ: None).body.startswith(
        b"3\r\none\r\n3\r\ntwo\r\n"
    )
    assert calls == ["iterated", "called"]


# An upload that is refused after it was read.


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
def test_a_refusal_after_reading_logs_a_warning_with_the_line_that_read(ask, caplog, status):
    ask(reading_first(status), **LARGE)
    [warning] = warnings(caplog)
    assert repr(status) in warning
    assert f"in {__name__}.application ({__file__}, line " in warning
    assert "expect_warn = False" in warning


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "404 Not Found", "422 No"])
def test_a_status_that_may_depend_on_the_body_logs_no_warning(ask, caplog, status):
    ask(reading_first(status), **LARGE)
    assert warnings(caplog) == []


def test_a_refusal_after_reading_a_small_body_logs_no_warning(ask, caplog):
    ask(reading_first("401 Unauthorized"), **upload(65536))
    assert warnings(caplog) == []


@pytest.mark.parametrize(("status", "count"), [("413 Content Too Large", 0), ("403 Forbidden", 1)])
def test_a_413_after_reading_a_chunked_body_logs_no_warning(ask, caplog, status, count):
    ask(
        reading_first(status),
        request("PUT /", "Transfer-Encoding: chunked"),
        b"5\r\nhello\r\n0\r\n\r\n",
    )
    assert len(warnings(caplog)) == count


def test_a_refusal_without_reading_logs_no_warning(ask, caplog):
    ask(answering("403 Forbidden"), **LARGE)
    assert warnings(caplog) == []


def test_a_worker_logs_a_limited_number_of_warnings(caplog, monkeypatch, certificates):
    monkeypatch.setattr("gunicorn_expect.advice.MOST_WARNINGS", 2)
    with service() as made:
        for name in "abc":
            functions = {}
            exec(  # another function for each name
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


def test_only_calls_of_the_application_are_recorded_as_the_first_reader(ask):
    """The server's calls are always the same, and each waiting client would keep them in memory."""
    seen = []

    def reads(environ):
        for _line in environ["wsgi.input"]:  # which calls __next__, readline and more
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


def test_a_greenlet_may_begin_with_a_read(ask):
    """Then no frame of the application is below it."""

    def application(environ, start_response):
        start_response("200 OK", [])
        return [gevent.spawn(environ["wsgi.input"].read).get()]

    result = ask(application, request("PUT /", LENGTH), b"hello")
    assert result.status == "200 OK"
    assert b"hello" in result.body


def test_the_first_reader_is_not_recorded_if_warnings_are_off(ask):
    seen = []

    def application(environ, start_response):
        environ["wsgi.input"].read()
        seen.append(environ["wsgi.input"].first_reader)
        return answering("403 Forbidden")(environ, start_response)

    ask(application, settings=Settings(expect_warn=False), **LARGE)
    assert seen == [()]
