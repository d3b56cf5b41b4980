"""Many clients that wait for a 100 at the same time, in one worker process."""

import contextlib

import pytest

from support.client import CONTINUE, Client, waiting
from support.server import Server

CLIENTS = 1000


@pytest.mark.parametrize("path", ["/read-together?1000", "/refuse"])
def test_a_thousand_clients_wait_in_one_gevent_worker_and_each_is_answered(path):
    with (
        Server("--backlog", "1024", worker="gunicorn_expect.GeventWorker") as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(server)) for _ in range(CLIENTS)]
        for client in clients:
            client.send(waiting(f"PUT {path}", "Content-Length: 4"))
        if path == "/refuse":
            for client in clients:
                assert client.receive_head().startswith(b"HTTP/1.1 401 ")
                client.close()
            return
        # The application starts to read when it has been called for all clients.
        for client in clients:
            assert client.receive(len(CONTINUE)) == CONTINUE
        for number, client in enumerate(clients):
            client.send(b"%04d" % number)
        for number, client in enumerate(clients):
            assert client.receive_response()[1] == b"%04d" % number
