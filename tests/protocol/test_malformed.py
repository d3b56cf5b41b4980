"""Request heads that are malformed, unfinished or unusual."""

import contextlib

import pytest

from support.client import Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

#: Refused as soon as the last byte has arrived, though the head has not ended.
MALFORMED = {
    "one-word": b"BAD\r\n",
    "target": b"GET hello HTTP/1.1\r\n",
    "version": b"GET /hello HTTP/3.0\r\n",
    "folded-first": b"GET /hello HTTP/1.1\r\n Host: test",
    "folded": b"GET /hello HTTP/1.1\r\nHost: test\r\n test",
    "bare-cr-in-request-line": b"GET /hello HTTP/1.1\rHost: test\r\n",
    "bare-cr-before-field": b"PUT /read HTTP/1.1\r\nContent-Length: 3\r\n\rabc",
    "no-colon": b"GET /hello HTTP/1.1\r\nHost\r\n",
    "space-before-colon": b"GET /hello HTTP/1.1\r\nHost : test\r\n",
    "control-character": b"GET /hello HTTP/1.1\r\nHost: te\0st\r\n",
    "second-empty-line": b"\r\n\r\n",
}

UNFINISHED = {
    "nothing": b"",
    "empty-line": b"\r\n",
    "method": b"GE",
    "request-line": b"GET /hello HTTP/1.1\r\n",
    "field": b"GET /hello HTTP/1.1\r\nHost: te",
    "no-empty-line": b"GET /hello HTTP/1.1\r\nHost: test\r\n",
}

#: Seconds. A server that waited for the client or for a timeout would take 10 or longer.
AT_ONCE = 9


def is_refused(client):
    return client.receive_until(b"\r\n").startswith(b"HTTP/1.1 400 ") and client.receive_all()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head_is_refused_without_waiting_for_its_end(server, name):
    with Client(server) as client:
        client.socket.settimeout(AT_ONCE)
        client.send(MALFORMED[name])
        assert is_refused(client)


@pytest.mark.parametrize("name", ["one-word", "folded-first", "bare-cr-before-field"])
def test_a_malformed_head_that_arrives_byte_by_byte_is_refused(server, name):
    with Client(server) as client:
        client.socket.settimeout(AT_ONCE)
        for byte in MALFORMED[name]:
            client.send(bytes([byte]))
        assert is_refused(client)


@pytest.mark.keeps_alive
def test_a_malformed_head_after_a_request_is_refused(server):
    with Client(server) as client:
        client.socket.settimeout(AT_ONCE)
        client.send(request("GET /hello"), MALFORMED["folded-first"])
        assert client.receive_response()[1] == b"hello"
        assert is_refused(client)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_client_that_half_closes_after_a_malformed_head_gets_400(server, cell, name):
    if cell.transport == "tls":
        pytest.skip("a client that has ended a TLS connection receives nothing more")
    with Client(server) as client:
        client.socket.settimeout(AT_ONCE)
        client.send(MALFORMED[name])
        client.shut_down()
        assert is_refused(client)


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_client_that_half_closes_in_the_middle_of_a_head_is_disconnected_at_once(
    server, cell, name
):
    with Client(server) as client:
        client.socket.settimeout(AT_ONCE)
        client.send(UNFINISHED[name])
        client.shut_down()
        answer = client.receive_all()
        assert cell.transport == "tls" or answer == b""


@pytest.mark.keeps_alive
def test_an_empty_line_after_a_request_does_not_begin_the_next_one(server):
    with Client(server) as client:
        upload = request("PUT /read", "Content-Length: 5") + b"hello\r\n"
        client.send(upload)
        assert client.receive_response()[1] == b"hello"
        client.send(waiting("PUT /read", "Content-Length: 5"))
        assert client.receive_head().startswith(b"HTTP/1.1 100 ")
        client.send(b"hello\r\n")
        assert client.receive_response()[1] == b"hello"
        client.send(request("GET /hello"), b"\r\n", request("GET /hello"), b"\r\n")
        assert client.receive_response()[1] == b"hello"
        assert client.receive_response()[1] == b"hello"
        assert client.receive_all() == b""  # after keepalive, it is closed


def test_an_idle_connection_with_an_empty_line_is_closed_without_a_408():
    env = {"GUNICORN_EXPECT_HEAD_TIMEOUT": "0.2"}
    with Server("--keep-alive", "1", env=env) as server:
        for behind in (b"\r\n", b""):
            with Client(server) as client:
                client.send(request("GET /hello"), behind)
                assert client.receive_response()[1] == b"hello"
                if not behind:
                    client.send(b"\r\n")
                assert client.receive_all() == b""


#: Longer than all header fields together may be.
LONG = request("GET /hello?" + "a" * 100_000)


@pytest.mark.parametrize("parser", ["python", "fast"])
def test_a_request_line_may_be_of_any_length_if_there_is_no_limit(worker, parser):
    options = ["--limit-request-line", "0", "--limit-request-fields", "5", "--http-parser", parser]
    with Server(*options, worker=WORKERS[worker][0]) as server:
        with Client(server) as client:
            client.send(LONG)
            assert client.receive_response()[1] == b"hello"
        with Client(server) as client, contextlib.suppress(ConnectionError):
            client.send(request("GET /hello", "x: " + "y" * 9000))
            assert client.receive_head().startswith(b"HTTP/1.1 431 ")


def test_nothing_of_a_malformed_body_is_in_the_log_or_the_response(worker):
    with Server("--log-level", "debug", worker=WORKERS[worker][0]) as server:
        for body in (b"s3cret\r\n", b"0\r\nX-Token : s3cret\r\n\r\n"):
            start = len(server.lines)
            with Client(server) as client:
                client.send(request("PUT /read", "Transfer-Encoding: chunked"), body)
                answer = client.receive_all()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"s3cret" not in answer
            server.wait_for_log("Body not received: ", start)
            assert "s3cret" not in "\n".join(server.lines[start:])


def test_unusual_lines_that_gunicorns_settings_allow_are_accepted(worker):
    options = ["--permit-obsolete-folding", "--strip-header-spaces", "--casefold-http-method"]
    options += ["--permit-unconventional-http-method", "--permit-unconventional-http-version"]
    head = b"get /hello HTTP/2.0\r\nHost : test\r\n" + b"X: a\r\n b\r\n" * 20 + b"\r\n"
    with Server(*options, worker=WORKERS[worker][0]) as server:
        with Client(server) as client:
            for byte in head:
                client.send(bytes([byte]))
            assert client.receive_response()[1] == b"hello"
        with Client(server) as client:
            # The body's end depends on both Transfer-Encoding fields: the first one is no error.
            client.send(
                b"POST /read HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\nX: a\r\n b"
            )
            client.send(b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            assert client.receive_response()[0].startswith(b"HTTP/1.1 200 ")
