"""What an application finds in its environ, and what it can do with it."""

import json
import urllib.parse

import pytest

from support.client import CONTINUE, request, waiting


def test_the_expectation_goes_from_pending_to_continued(client):
    client.send(waiting("PUT /state", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert json.loads(client.receive_response()[1]) == ["pending", True, "continued", "CONTINUED"]


@pytest.mark.parametrize(
    ("head", "body"), [("GET /state", b""), ("PUT /state", b"hello")], ids=["GET", "PUT"]
)
def test_a_request_without_expect_has_the_state_none(client, head, body):
    client.send(request(head, f"Content-Length: {len(body)}"), body)
    assert json.loads(client.receive_response()[1]) == ["none", False, "none", "NONE"]


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (request("GET /hello?log-1"), "GET /hello?log-1 HTTP/1.1 -> 200 none"),
        (waiting("PUT /refuse?log-2", "Content-Length: 5"), "log-2 HTTP/1.1 -> 401 declined"),
        (waiting("PUT /read-some?1", "Content-Length: 1") + b"1", "-> 200 waived"),
    ],
)
def test_the_access_log_can_print_the_state(server, client, head, line):
    start = len(server.lines)
    client.send(head)
    client.receive_response()
    server.wait_for_log(line.replace("?", r"\?"), start)


def test_the_time_of_the_decision_is_known_once_it_has_been_made(client):
    client.send(waiting("PUT /decided-after", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    before, after = json.loads(client.receive_response()[1])
    assert before is None
    assert after >= 0


def test_there_is_no_time_of_a_decision_if_the_client_does_not_wait(client):
    client.send(request("PUT /decided-after", "Content-Length: 5"), b"hello")
    assert json.loads(client.receive_response()[1]) == [None, None]


def test_proceed_sends_one_100_with_its_header_fields(client):
    client.send(waiting("PUT /proceed", "Content-Length: 5"))
    interim = client.receive_head()
    assert interim == b"HTTP/1.1 100 Continue\r\nX-Node: 7\r\nLocation: http://elsewhere/\r\n\r\n"
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


def test_proceed_sends_nothing_to_a_client_that_does_not_wait(client):
    client.send(request("PUT /proceed", "Content-Length: 5"), b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


def test_an_application_may_proceed_and_then_refuse(client):
    client.send(waiting("PUT /proceed-and-refuse", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert body == b"no"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Bad", "a\r\nX-Injected: 1"),
        ("X-Bad", "a\nb"),
        ("X-Bad", "a\rb"),
        ("X-Bad", "a\0b"),
        ("X-Bad", "\u20ac"),
        ("X Bad", "a"),
        ("X-Bad:", "a"),
        ("X-Bad\r\nX-Injected", "a"),
        ("", "a"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("Trailer", "X-Hash"),
        ("TE", "5"),
        ("Upgrade", "h2c"),
        ("X-Bad", "caf\xe9"),
    ],
    ids=repr,
)
def test_proceed_refuses_header_fields_that_cannot_be_sent(client, name, value):
    fields = urllib.parse.urlencode({"name": name, "value": value})
    client.send(waiting(f"PUT /proceed-badly?{fields}", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    message, state = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert "100 Continue" in message
    assert state == "pending"


def test_early_hints_are_not_sent_before_the_100(client):
    client.send(waiting("PUT /hints", "Content-Length: 5"))
    assert client.receive_head() == CONTINUE
    client.send(b"hello")
    hints = client.receive_head()
    assert hints == b"HTTP/1.1 103 Early Hints\r\nLink: </after>\r\n\r\n"
    assert client.receive_response()[1] == b"hello"


def test_early_hints_are_not_sent_to_a_waiting_client_that_is_refused(client):
    client.send(waiting("PUT /hints-and-refuse", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.count(b"HTTP/1.1") == 1


def test_early_hints_go_to_a_client_that_does_not_wait(client):
    client.send(request("PUT /hints", "Content-Length: 5"), b"hello")
    assert b"Link: </before>" in client.receive_head()
    assert b"Link: </after>" in client.receive_head()
    assert client.receive_response()[1] == b"hello"


@pytest.mark.keeps_alive
def test_all_requests_of_a_connection_have_the_same_client_address(client, cell):
    """With the PROXY protocol, only the beginning of the connection has that address."""
    peers = []
    for _ in range(3):
        client.send(request("GET /peer"))
        peers.append(json.loads(client.receive_response()[1]))
    assert len({*peers}) == 1
    if cell.transport.startswith("proxy"):
        assert peers[0] == "203.0.113.7"
