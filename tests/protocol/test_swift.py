"""Several 100s in one request, as OpenStack Swift sends them."""

import json

import pytest

from support.client import CONTINUE, request, waiting

WITH_HEADERS = b"HTTP/1.1 100 Continue\r\nX-Obj-Multiphase-Commit: yes\r\n\r\n"


def test_each_100_is_followed_by_a_chunked_body(server, client):
    client.send(waiting("PUT /phases?3", "Transfer-Encoding: chunked"))
    assert client.receive(len(WITH_HEADERS)) == WITH_HEADERS
    client.send(b"5\r\nfirst\r\n0\r\n\r\n")
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"6\r\nsecond\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"0\r\n\r\n")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert json.loads(body) == ["first", "second", ""]


@pytest.mark.keeps_alive
def test_the_connection_is_kept_after_the_last_body(server, client):
    for _ in range(2):
        client.send(waiting("PUT /phases?2", "Transfer-Encoding: chunked"))
        assert client.receive(len(WITH_HEADERS)) == WITH_HEADERS
        client.send(b"5\r\nfirst\r\n0\r\n\r\n")
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"6\r\nsecond\r\n0\r\n\r\n")
        head, body = client.receive_response()
        assert b"\r\nConnection: keep-alive\r\n" in head
        assert json.loads(body) == ["first", "second"]


def test_a_second_body_that_is_cut_off_is_an_error(server, client):
    client.send(waiting("PUT /phases?2", "Transfer-Encoding: chunked"))
    assert client.receive(len(WITH_HEADERS)) == WITH_HEADERS
    client.send(b"5\r\nfirst\r\n0\r\n\r\n")
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"6\r\nsec")
    client.shut_down()
    assert not client.receive_all().startswith(b"HTTP/1.1 201")


def test_a_client_that_sent_no_expect_gets_no_100(server, client):
    client.send(
        request("PUT /phases?2", "Transfer-Encoding: chunked"),
        b"5\r\nfirst\r\n0\r\n\r\n",
        b"6\r\nsecond\r\n0\r\n\r\n",
    )
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 201 Created\r\n")
    assert json.loads(body) == ["first", "second"]


def test_a_100_that_is_sent_before_the_first_read_is_the_only_one(client):
    client.send(waiting("PUT /send-then-read", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"
