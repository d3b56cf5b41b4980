"""Applications that take over the socket are served as by stock gunicorn."""

import pytest
import simple_websocket

from stock.comparing import both, get, masked, shown, without
from support import PATIENCE
from support.client import request


@pytest.fixture(scope="module")
def servers(worker, transport, certificates):
    with both(worker, transport=transport, certificates=certificates) as servers:
        yield servers


def check(servers, converse):
    ours, stock = (without("ssl_context", shown(server, converse)) for server in servers)
    assert ours == stock
    return ours


@pytest.mark.parametrize("protocol", ["websocket", "WebSocket", "echo"])
@pytest.mark.parametrize("how", ["", "?handled"])
def test_a_socket_that_an_application_takes_over_is_blocking(worker, servers, protocol, how):
    if how and worker != "gevent":
        pytest.skip("only gevent's worker has ALREADY_HANDLED")

    def converse(client):
        client.send(request(f"GET /take-over{how}", "Connection: Upgrade", f"Upgrade: {protocol}"))
        heard = [client.receive_head()]
        for word in (b"hello", b"there"):
            client.send(word)
            heard.append(client.receive(5))
        return heard

    (head, *words), lines = check(servers, converse)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert words == [b"HELLO", b"THERE"]
    assert ("the client has left",) in lines


def test_an_upgrade_that_the_application_ignores_leaves_the_connection_as_it_was(servers):
    def converse(client):
        client.send(request("GET /hello?1", "Connection: Upgrade", "Upgrade: websocket"))
        first = client.receive_response()
        client.send(get("/hello?2"))
        return masked(b"".join([*first, client.receive_all()]))

    check(servers, converse)


def test_a_kept_connection_that_was_not_taken_over_delays_no_other_connection(worker, servers):
    """Not even while the worker waits for the rest of a request on it."""
    if worker == "sync":
        pytest.skip("the sync worker keeps no connection")

    def converse(client):
        client.send(request("GET /hello?1", "Connection: Upgrade", "Upgrade: websocket"))
        client.receive_response()
        part, rest = get("/hello?2")[:20], get("/hello?2")[20:]
        client.send(part)
        assert servers[0].get("/hello") == b"hello"
        client.send(rest)
        return masked(client.receive_all())

    received, _ = shown(servers[0], converse)
    assert received.startswith(b"HTTP/1.1 200 ")


def test_flask_sock_echoes(servers, transport):
    if transport == "tls":
        pytest.skip("simple-websocket's client reads and writes TLS in two threads")
    for server in servers:
        client = simple_websocket.Client(f"ws://127.0.0.1:{server.address[1]}/flask")
        client.send("hello")
        assert client.receive(PATIENCE) == "olleh"
        client.close()
        assert server.get("/hello") == b"hello"
