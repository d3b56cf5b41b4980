"""A client leaves after each byte of its exchange, in each way: the worker keeps nothing of it."""

import itertools
import socket
from types import SimpleNamespace

import pytest

from faults.unfriendly import (
    EXCHANGES,
    HTTP2_EXCHANGES,
    LONG,
    WAYS_TO_LEAVE,
    Http2Server,
    ScriptedExchange,
    WatchedWorker,
    at_once,
    client_hello,
    in_parallel,
    serve,
)
from support import PATIENCE
from support.client import Client, request
from support.matrix import WORKERS


@pytest.fixture(scope="module", params=["tcp", "unix", "tls"])
def transport(request):
    return request.param


@pytest.fixture(scope="module")
def served(worker, transport, certificates):
    with serve(WORKERS[worker][0], transport=transport, certificates=certificates) as server:
        yield WatchedWorker(server, at_once=at_once(worker))


@pytest.fixture(scope="module", params=["thread", "gevent"])
def http2_worker(request):
    return request.param


@pytest.fixture(scope="module", params=["prior knowledge", "alpn"])
def http2_served(http2_worker, request, certificates):
    by_alpn = request.param == "alpn"
    arguments = () if by_alpn else ("--http2-cleartext", "both")
    with serve(
        WORKERS[http2_worker][0],
        *("--http-protocols", "h1,h2", *arguments),
        transport="tls" if by_alpn else "tcp",
        certificates=certificates,
    ) as server:
        clients = Http2Server(server, certificates if by_alpn else None)
        yield SimpleNamespace(worker=WatchedWorker(server, at_once=8), clients=clients)


def all_leave(places, ways, leave_after):
    """Start clients that leave at each of these places, and in each of these ways."""
    turns = itertools.count()
    in_parallel(
        leave_after,
        [
            (place, [*WAYS_TO_LEAVE.values()][next(turns) % len(WAYS_TO_LEAVE)])
            for place in places
            # The ways take turns, so that each is used even if a place has only one of them.
            for _ in range(ways)
        ],
    )


@pytest.mark.parametrize("kind", EXCHANGES)
def test_nothing_is_left_of_a_client_that_leaves_after_any_byte(served, transport, kind, thorough):
    exchange = EXCHANGES[kind]

    def leave_after(size, leave):
        with Client(served.server) as client:
            exchange.begin(client, size)
            leave(client)

    ways = len(WAYS_TO_LEAVE) if transport != "tls" or thorough else 1
    all_leave(range(len(exchange) + 1), ways, leave_after)
    served.check_nothing_is_left()


@pytest.mark.parametrize("path", ["/unread", "/yielded"])
def test_nothing_is_left_of_a_client_that_leaves_after_any_byte_of_its_answer(
    served, path, thorough
):
    exchange = ScriptedExchange(request(f"PUT {path}?{LONG}", "Content-Length: 100000") + b"hello")

    def leave_after(size, leave):
        with Client(served.server) as client:
            exchange.begin(client, len(exchange))
            assert len(client.receive(size)) == size
            leave(client)

    sizes = [*range(200), 16_384, 17_000, 100_000, 1_000_000]
    all_leave(sizes, len(WAYS_TO_LEAVE) if thorough else 1, leave_after)
    served.check_nothing_is_left()


@pytest.mark.parametrize("transport", ["tls"], indirect=True)
@pytest.mark.parametrize("worker", ["thread", "gevent", "sync"], indirect=True)
def test_nothing_is_left_of_a_client_that_leaves_after_any_byte_of_its_handshake(
    served, certificates, thorough
):
    hello = client_hello(certificates.trust())

    def leave_after(size, leave):
        with socket.create_connection(served.server.address, PATIENCE) as sock:
            sock.sendall(hello[:size])
            leave(SimpleNamespace(socket=sock, close=sock.close))

    all_leave(range(len(hello) + 1), len(WAYS_TO_LEAVE) if thorough else 1, leave_after)
    served.check_nothing_is_left()


@pytest.mark.parametrize("kind", HTTP2_EXCHANGES)
def test_nothing_is_left_of_a_client_that_leaves_after_any_byte_of_http_2(
    http2_served, kind, thorough
):
    exchange = HTTP2_EXCHANGES[kind]

    def leave_after(size, leave):
        with Client(http2_served.clients) as client:
            exchange.begin(client, size)
            leave(client)

    all_leave(range(len(exchange) + 1), len(WAYS_TO_LEAVE) if thorough else 1, leave_after)
    http2_served.worker.check_nothing_is_left()
