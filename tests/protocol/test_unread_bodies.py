"""Whether the response to an unread body announces `keep-alive` or `close`, and keeps to it."""

import itertools

import pytest

from gunicorn_expect.framing import DRAIN_SIZE
from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

KEPT = b"\r\nConnection: keep-alive\r\n"
CLOSED = b"\r\nConnection: close\r\n"

numbers = itertools.count()


def answered(server, client, *pieces, framing, reads=0):
    """Send a request and these pieces, then let the application respond; return the head."""
    event = f"announce-{next(numbers)}"
    client.send(request(f"PUT /answer-after-event?{reads}", framing, f"X-Event: {event}"))
    for piece in pieces:
        client.send(piece)
    server.board.set(event)
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"unread"
    return head


def assert_kept(client):
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"


def assert_closed(client, rest=b""):
    client.send(rest, request("GET /hello?announced-close"))
    assert client.receive_all() == b""


@pytest.mark.keeps_alive
@pytest.mark.parametrize("arrived", [0, 1, DRAIN_SIZE])
def test_a_short_unread_rest_of_a_body_is_drained_and_the_next_request_answered(
    server, client, arrived
):
    framing = f"Content-Length: {DRAIN_SIZE}"
    head = answered(server, client, bytes(arrived), framing=framing)
    assert KEPT in head
    client.send(bytes(DRAIN_SIZE - arrived))
    assert_kept(client)


def test_a_long_unread_rest_of_a_body_ends_the_connection(server, client):
    head = answered(server, client, b"x", framing=f"Content-Length: {DRAIN_SIZE + 2}")
    assert CLOSED in head
    assert_closed(client, bytes(DRAIN_SIZE + 1))


@pytest.mark.keeps_alive
def test_only_the_unread_rest_of_a_body_decides_whether_the_connection_is_kept(server, client):
    size = 4 * DRAIN_SIZE
    framing = f"Content-Length: {size}"
    head = answered(server, client, bytes(size), framing=framing, reads=size - DRAIN_SIZE)
    assert KEPT in head
    assert_kept(client)


@pytest.mark.keeps_alive
@pytest.mark.parametrize("reads", [0, 3, 5])
def test_unread_chunks_whose_end_has_arrived_are_drained(server, client, reads):
    """They are sent with the head, so that they have certainly arrived by then."""
    event = f"announce-{next(numbers)}"
    server.board.set(event)
    client.send(
        request(
            f"PUT /answer-after-event?{reads}", "Transfer-Encoding: chunked", f"X-Event: {event}"
        ),
        b"5\r\nhello\r\n0\r\n\r\n",
    )
    assert KEPT in client.receive_response()[0]
    assert_kept(client)


@pytest.mark.parametrize("chunks", [b"", b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n"])
def test_unread_chunks_whose_end_has_not_arrived_end_the_connection(server, client, chunks):
    head = answered(server, client, chunks, framing="Transfer-Encoding: chunked")
    assert CLOSED in head
    assert_closed(client)


def test_malformed_unread_chunks_end_the_connection_without_a_second_response(server, client):
    head = answered(server, client, b"5\r\nhelloXY", framing="Transfer-Encoding: chunked")
    assert CLOSED in head
    assert_closed(client)


@pytest.mark.parametrize("worker", ["thread", "gevent"])
def test_the_server_does_not_wait_without_end_for_the_short_rest_of_a_body(worker):
    with Server(worker=WORKERS[worker][0]) as server, Client(server) as client:
        head = answered(server, client, framing="Content-Length: 5")
        assert KEPT in head
        assert client.receive_all() == b""


@pytest.mark.parametrize("fields", [(), ("Expect: 100-continue",)], ids=["no Expect", "Expect"])
def test_a_client_that_sends_close_gets_close_and_its_next_request_is_ignored(
    server, client, fields
):
    client.send(request("PUT /read", "Content-Length: 5", "Connection: close", *fields))
    if fields:
        assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello", request("GET /hello?behind-a-close"))
    head, body = client.receive_response()
    assert CLOSED in head
    assert body == b"hello"
    assert client.receive_all() == b""
    assert b"behind-a-close" not in server.get("/seen")


def test_the_sync_worker_sends_connection_close_in_the_response_and_not_in_the_100():
    with Server(worker=WORKERS["sync"][0]) as server, Client(server) as client:
        client.send(waiting("PUT /read", "Content-Length: 5"))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"hello")
        assert CLOSED in client.receive_head()
        assert client.receive_all() == b"hello"
