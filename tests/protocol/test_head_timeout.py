"""`expect_head_timeout` on every worker and transport, also for what comes before the head."""

import contextlib
import socket

import pytest

from support import PATIENCE
from support.client import Client, request
from support.matrix import WORKERS
from support.server import Server

SECOND = {"GUNICORN_EXPECT_HEAD_TIMEOUT": "1"}

HALF = b"GET /hello HTTP/1.1\r\nHost: te"


@pytest.fixture(params=["tcp", "unix", "tls", "proxy-v1", "proxy-v2"], scope="module")
def transport(request):
    return request.param


@pytest.fixture(scope="module")
def server(worker, transport, certificates):
    with Server(
        worker=WORKERS[worker][0], transport=transport, certificates=certificates, env=SECOND
    ) as server:
        yield server


def raw(server):
    """Connect without the TLS handshake or the header of the PROXY protocol."""
    if isinstance(server.address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        return sock
    return socket.create_connection(server.address, PATIENCE)


def test_half_a_head_gets_408_after_the_timeout(server):
    with Client(server) as client:
        client.send(HALF)
        answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_client_that_sends_nothing_is_disconnected_without_a_response(server):
    with raw(server) as sock:
        assert sock.recv(100) == b""


def test_the_timeout_applies_to_the_next_head_of_a_kept_connection(server, worker):
    if worker == "sync":
        pytest.skip("it closes every connection")
    with Client(server) as client:
        client.send(request("GET /hello"))
        assert client.receive_response()[1] == b"hello"
        client.send(HALF)
        assert client.receive_all().startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize("transport", ["tls"], indirect=True)
def test_a_stalled_tls_handshake_ends_the_connection_after_the_timeout(server):
    with raw(server) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        assert sock.recv(100) == b""


@pytest.mark.parametrize("worker", ["thread", "gevent"])
@pytest.mark.parametrize("transport", ["tls", "proxy-v1"])
def test_clients_that_stall_before_their_head_do_not_keep_others_from_being_served(
    worker, transport, certificates
):
    with (
        Server(
            *("--threads", "2"),
            worker=WORKERS[worker][0],
            transport=transport,
            certificates=certificates,
            env={"GUNICORN_EXPECT_HEAD_TIMEOUT": "600"},
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(20):
            stack.enter_context(raw(server)).sendall(b"\x16\x03" if transport == "tls" else b"PRO")
        assert server.get("/hello") == b"hello"


@pytest.mark.parametrize("worker", ["thread", "gevent"])
def test_an_idle_tls_connection_is_closed_after_keepalive_and_not_after_the_head_timeout(
    worker, certificates
):
    with (
        Server(
            *("--keep-alive", "1"),
            worker=WORKERS[worker][0],
            transport="tls",
            certificates=certificates,
            env={"GUNICORN_EXPECT_HEAD_TIMEOUT": str(3 * PATIENCE)},
        ) as server,
        Client(server) as client,
    ):
        client.send(request("GET /hello"))
        assert client.receive_response()[1] == b"hello"
        assert client.receive_all() == b""  # if the head timeout applied, the client would time out
