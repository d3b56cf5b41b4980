"""To accept, read. To refuse, answer. On the wire, against a real gunicorn."""

import contextlib
import json
import re

import pytest

from apps.reading import WAYS_TO_READ
from support import TESTS
from support.client import CONTINUE, Client, request, waiting

# Reading.


@pytest.mark.parametrize("way", WAYS_TO_READ)
def test_every_way_to_read_sends_one_100(client, way):
    client.send(waiting(f"PUT /read-by?{way}", "Content-Length: 12"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"one\ntwo\nlast")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"one\ntwo\nlast"


@pytest.mark.parametrize("way", WAYS_TO_READ)
def test_every_way_to_read_asks_for_a_chunked_body(client, way):
    client.send(waiting(f"PUT /read-by?{way}", "Transfer-Encoding: chunked"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"4\r\none\n\r\n", b"8\r\ntwo\nlast\r\n", b"0\r\n\r\n")
    assert client.receive_response()[1] == b"one\ntwo\nlast"


def test_reading_no_bytes_does_not_ask_for_the_body(client):
    client.send(waiting("PUT /read-nothing", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"[b'', b'', 0]")


def test_an_application_may_call_start_response_and_then_read(client):
    client.send(waiting("PUT /start-then-read", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.count(b"X-Said: first\r\n") == 1
    assert body == b"hello"


def test_yielding_empty_bytes_does_not_start_the_response(client):
    client.send(waiting("PUT /read-while-yielding-nothing", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"


@pytest.mark.parametrize("path", ["/echo-file", "/echo-buffered"])
def test_a_file_wrapper_around_the_input_reads_it(client, path):
    client.send(waiting(f"PUT {path}", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"


def test_the_100_is_sent_at_once_because_of_tcp_nodelay(client):
    client.send(waiting("PUT /nodelay", "Content-Length: 1"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"1")
    assert client.receive_response()[1] == b"true"


# Refusing.


@pytest.mark.parametrize(
    "status",
    [
        "200 OK",
        "204 No Content",
        "302 Found",
        "307 Temporary Redirect",
        "401 Unauthorized",
        "403 Forbidden",
        "413 Content Too Large",
        "415 Unsupported Media Type",
        "417 Expectation Failed",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ],
)
def test_a_response_without_a_read_sends_no_100_and_closes_the_connection(client, status):
    client.send(waiting(f"PUT /refuse?status={status.replace(' ', '+')}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/refuse-with-body", b"too large"),
        ("/refuse-by-write", b"no"),
        ("/memory-file", b"memory"),
    ],
)
def test_a_refusal_may_have_a_body(client, path, body):
    client.send(waiting(f"PUT {path}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n" + body)


def test_a_refusal_may_be_a_file(client):
    client.send(waiting("PUT /file", "Content-Length: 5"))
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert body == TESTS.joinpath("apps/files.py").read_bytes()
    assert client.receive_all() == b""


def test_the_iterable_of_a_refusal_is_closed(server, client):
    client.send(waiting("PUT /refuse-and-close?refusal-closed", "Content-Length: 5"))
    assert client.receive_all().endswith(b"\r\n\r\nno")
    server.board.wait("refusal-closed")


@pytest.mark.parametrize("how", ["list", "generator", "empty-items"])
def test_a_refusal_without_a_body_has_content_length_0(client, how):
    client.send(waiting(f"PUT /refuse-without-length?{how}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nContent-Length: 0\r\n" in answer
    assert b"Transfer-Encoding" not in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_204_to_a_waiting_client_has_no_content_length(client):
    client.send(waiting("PUT /no-content", "Content-Length: 5"))
    answer = client.receive_all()
    assert b"Content-Length" not in answer
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")


def test_start_response_may_be_called_with_keywords(client):
    client.send(waiting("PUT /keywords", "Content-Length: 5"))
    assert client.receive_all().startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("option", ["keep-alive", "upgrade"])
def test_an_application_can_not_keep_the_connection_alive_after_a_refusal(client, option):
    client.send(waiting(f"PUT /keep-alive-please?{option}", "Content-Length: 5"))
    answer = client.receive_all()
    assert re.findall(rb"(?i)\r\nconnection: ([^\r]*)", answer) == [b"close"]


def test_nothing_that_a_refused_client_sends_is_read_as_a_request(server, client):
    client.send(
        waiting("PUT /refuse", "Content-Length: 60"), request("GET /hello?smuggled-with-the-head")
    )
    client.send(request("GET /hello?smuggled-before-the-answer"))
    client.receive_head()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may have closed
        client.send(request("GET /hello?smuggled-after-the-answer"))
    client.receive_all()
    client.close()
    assert b"smuggled" not in server.get("/seen")


def test_nothing_sent_after_a_refusal_is_read_as_a_request(server, client):
    client.send(waiting("PUT /refuse", "Content-Length: 60"))
    head = client.receive_head()
    assert b"\r\nConnection: close\r\n" in head
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(request("GET /hello?smuggled-by-a-waiting-client"))
    assert client.receive_all() == b""
    client.close()
    assert b"smuggled-by-a-waiting-client" not in server.get("/seen")


def test_an_error_handler_may_change_the_response_before_it_starts(client):
    client.send(waiting("PUT /refuse-twice", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert re.findall(rb"X-Said: (\w+)", answer) == [b"second"]


@pytest.mark.parametrize("head", [request, waiting], ids=["no Expect", "Expect"])
def test_nothing_that_follows_a_broken_body_is_read_as_a_request(server, client, head):
    client.send(
        head("PUT /read-broken", "Transfer-Encoding: chunked"),
        b"5\r\nhelloXY\r\n",
        request("GET /hello?smuggled-behind-a-broken-chunk"),
    )
    answer = client.receive_all()
    assert answer.endswith(b"\r\n\r\nMalformedBody")
    client.close()
    assert b"smuggled-behind-a-broken-chunk" not in server.get("/seen")


# Failing.


@pytest.mark.parametrize("path", ["/fail", "/fail-after-start", "/start-twice"])
def test_an_application_that_fails_before_it_reads_gets_500_and_no_100(client, path):
    client.send(waiting(f"PUT {path}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_an_application_that_fails_in_the_middle_of_its_response_ends_the_connection(client):
    client.send(waiting("PUT /fail-after-first-byte", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"\r\n\r\nfirst")


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_start_response_with_a_1xx_gets_500(server, client, status):
    start = len(server.lines)
    client.send(waiting(f"PUT /start?{status.replace(' ', '+')}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    server.wait_for_log(rf"ValueError: start_response\('{status}'\): a 1xx is not", start)


def test_start_response_with_a_1xx_gets_500_for_an_upload_that_does_not_wait(server, client):
    start = len(server.lines)
    client.send(request("PUT /start?100+Continue", "Content-Length: 5"), b"12345")
    assert client.receive_all().startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    server.wait_for_log(r"ValueError: start_response\('100 Continue'\): a 1xx is not", start)


@pytest.mark.parametrize("head", ["GET", "GET HTTP/1.0", "HEAD", "PUT"])
@pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints"])
def test_start_response_with_a_1xx_gets_500_for_a_request_without_a_body(
    server, client, head, status
):
    start = len(server.lines)
    method, *version = head.split()
    line = " ".join([method, f"/start?{status.replace(' ', '+')}", *version])
    client.send(request(line, "Content-Length: 0"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    server.wait_for_log(rf"ValueError: start_response\('{status}'\): a 1xx is not", start)


def test_a_client_that_leaves_while_it_waits_does_not_affect_others(server):
    with Client(server) as client:
        client.send(waiting("PUT /read-after-event?left", "Content-Length: 5"))
        server.board.wait("entered-left")
    server.board.set("left")
    assert server.get("/hello") == b"hello"


# The order of the first bytes.


@pytest.mark.parametrize("path", ["/yield-then-read", "/write-then-read"])
def test_no_100_is_sent_after_the_first_byte_of_the_response(client, path):
    client.send(waiting(f"PUT {path}", "Content-Length: 5"))
    head = client.receive_head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in head
    client.send(b"hello")
    assert client.receive_all().endswith(b"hello")


def test_no_100_is_sent_in_the_middle_of_a_response_while_another_thread_reads(client):
    client.send(waiting("PUT /thread-reads-late", "Content-Length: 5"))
    head, body = client.receive_response()
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"".join(b"%010d" % number for number in range(100))


@pytest.mark.parametrize("spin", [0, 10, 100, 1_000, 10_000])
def test_threads_that_read_while_the_response_starts_send_one_100_before_it_or_none(server, spin):
    for _ in range(20):
        with Client(server) as client:
            client.send(waiting(f"PUT /threads-race?{spin}", "Content-Length: 4"))
            first = client.receive_head()
            if first == CONTINUE:
                client.send(b"1234")
                head = client.receive_head()
                assert client.receive(4) == b"body"
            else:
                head = first
                assert b"\r\nConnection: close\r\n" in head
                assert client.receive_all() == b"body"
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")


# Clients that get no 100.


@pytest.mark.parametrize(
    "head",
    [
        waiting("PUT /ordinary-read HTTP/1.0", "Content-Length: 5", "Connection: keep-alive"),
        request("PUT /ordinary-read", "Content-Length: 5"),
    ],
    ids=["HTTP/1.0", "no Expect"],
)
def test_a_client_of_http_1_0_or_without_expect_gets_no_100(client, head):
    client.send(head)
    client.send(b"hello")
    answer, body = client.receive_response()
    assert answer.split(b" ", 1)[1].startswith(b"200 OK\r\n")
    assert json.loads(body) == ["hello", "none"]


@pytest.mark.keeps_alive
@pytest.mark.parametrize(
    "head",
    [
        waiting("GET /ordinary-read"),
        waiting("PUT /ordinary-read"),
        waiting("PUT /ordinary-read", "Content-Length: 0"),
        waiting("PUT /ordinary-read", "Content-Length: 00"),
    ],
    ids=["GET", "no length", "length 0", "length 00"],
)
def test_a_request_without_a_body_gets_no_100_and_keeps_its_connection(client, head):
    for _ in range(2):
        client.send(head)
        answer, body = client.receive_response()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: keep-alive\r\n" in answer
        assert json.loads(body) == ["", "none"]


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Content-Length: 5", b"h"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"5"),
    ],
)
def test_no_100_is_sent_if_body_bytes_came_with_the_head(client, framing, body):
    client.send(waiting("PUT /state", framing), body)
    if len(body) == 1:
        client.send(b"ello" if body == b"h" else b"\r\nhello\r\n0\r\n\r\n")
    head, states = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(states) == ["waived", False, "waived", "WAIVED"]


def test_no_100_is_sent_if_body_bytes_came_before_the_application_reads(server, client):
    client.send(waiting("PUT /read-after-event?impatient", "Content-Length: 5"))
    server.board.wait("entered-impatient")
    client.send(b"hel")
    server.board.set("impatient")
    client.send(b"lo")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == ["hello", "waived"]


# The connection afterwards.


@pytest.mark.keeps_alive
def test_a_request_that_got_a_100_keeps_its_connection(client):
    for number in range(3):
        client.send(waiting("PUT /read", "Content-Length: 5"))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"body%d" % number)
        head, body = client.receive_response()
        assert b"\r\nConnection: keep-alive\r\n" in head
        assert body == b"body%d" % number


@pytest.mark.keeps_alive
def test_the_unread_rest_of_a_body_after_a_100_is_drained_without_another_100(client):
    client.send(waiting("PUT /read-some?2", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert b"\r\nConnection: keep-alive\r\n" in head
    assert body == b"he"
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"


@pytest.mark.keeps_alive
def test_a_body_that_came_with_the_head_is_drained_without_a_100(client):
    client.send(waiting("PUT /refuse-with-body", "Content-Length: 5"), b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in head
    assert body == b"too large"
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"


@pytest.mark.keeps_alive
def test_a_request_with_expect_and_without_a_body_does_not_affect_the_next_one(client):
    client.send(waiting("PUT /refuse", "Content-Length: 0"))
    assert client.receive_response()[0].startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    client.send(waiting("PUT /read", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"


@pytest.mark.keeps_alive
def test_pipelined_requests_are_answered_in_order(client):
    client.send(
        request("GET /hello"),
        waiting("PUT /read", "Content-Length: 3"),
        b"one",
        request("PUT /read", "Content-Length: 3"),
        b"two",
        waiting("PUT /read", "Transfer-Encoding: chunked"),
        b"5\r\nthree\r\n0\r\n\r\n",
        request("GET /chunks"),
        waiting("PUT /read", "Content-Length: 4"),
    )
    bodies = [client.receive_response() for _ in range(5)]
    assert [body for _, body in bodies] == [b"hello", b"one", b"two", b"three", b"onetwo"]
    assert all(head.startswith(b"HTTP/1.1 200 OK\r\n") for head, _ in bodies)
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"four")
    assert client.receive_response()[1] == b"four"
