"""Unfriendly clients, many of them: the worker stays, answers everybody, and keeps nothing."""

import contextlib
import socket
import ssl
import time

import pytest

from faults.destruction import get, settled, start, state, unharmed
from faults.unfriendly import in_parallel
from support import PATIENCE
from support.client import Client, request
from support.sending import sending_on

LONG = 17_000
LARGE = 1_500_000


def attempts(number, act):
    """Call ``act`` ``number`` times from four clients; return the results and the exceptions."""

    def tried():
        try:
            return act()
        except OSError as error:
            return repr(error)

    return in_parallel(tried, [()] * number, at_once=4)


def half_closing(server):
    with Client(server) as client:
        client.send(request("POST /unread", "Content-Length: 100000"), b"four")
        client.shut_down()
        return client.receive_response()[1]


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_many_clients_that_end_their_side_in_their_body_get_their_answers(worker, transport):
    with start(worker, transport=transport) as server:
        with unharmed(server):
            answers = attempts(400, lambda: half_closing(server))
        assert answers == [b"x" * LONG] * 400


def test_clients_that_never_close_are_closed_when_their_time_is_up(worker):
    env = {"GUNICORN_EXPECT_LINGER": "2", "GUNICORN_EXPECT_LINGER_IDLE": "2"}
    with start(worker, **env) as server, contextlib.ExitStack() as stack:
        before = settled(server, lambda _: True)
        clients = [stack.enter_context(Client(server)) for _ in range(100)]
        unused = iter(clients)

        def act():
            client = next(unused)
            client.send(request("POST /unread", "Content-Length: 200000"), b"x" * 100_000)
            return client.receive_response()[1]

        assert attempts(100, act) == [b"x" * LONG] * 100
        after = settled(server, lambda found: found["files"] <= before["files"] + 3)
        assert after["pid"] == before["pid"]


# A worker that ends.


def test_a_refused_client_that_sends_on_does_not_hold_a_worker_that_ends(worker):
    with start(worker, "--max-requests", "2", "--graceful-timeout", "30") as server:
        first = state(server)["pid"]
        with Client(server) as client:
            client.send(request("POST /refuse", "Content-Length: 100000000"), b"x" * 1000)
            assert client.receive_response()[0].startswith(b"HTTP/1.1 413 ")
            with sending_on(client.send, b"x" * 1000):
                begun = time.monotonic()
                while state(server)["pid"] == first:  # the first may accept some more connections
                    pass
                # The worker waits 2 s for the client. Without that limit it would wait 30 s.
                assert time.monotonic() - begun < 15


# The end of an answer.


@pytest.mark.parametrize("behind", [b"\r\n", request("GET /hello")], ids=["crlf", "request"])
def test_an_answer_is_whole_for_a_client_that_sends_more_behind_its_request(
    worker, transport, behind, certificates
):
    with start(worker, transport=transport, certificates=certificates) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        if transport == "tls":
            sock = certificates.trust().wrap_socket(sock, server_hostname="localhost")
        with sock:
            sock.sendall(request("GET /large", "Connection: close"))
            received = b""
            while b"\r\n\r\n" not in received:
                received += sock.recv(1000)
            # The worker has passed the whole response to the system, or is about to.
            get(server, "/hello")
            sock.sendall(behind)
            time.sleep(0.1)
            with contextlib.suppress(ssl.SSLEOFError):
                while data := sock.recv(65536):
                    received += data
            assert len(received.partition(b"\r\n\r\n")[2]) == LARGE


def test_an_answer_without_a_length_ends_though_a_child_of_the_application_lives(
    worker, transport, certificates
):
    with (
        start(worker, transport=transport, certificates=certificates) as server,
        Client(server) as client,
    ):
        client.send(request("GET /fork HTTP/1.0"))
        assert client.receive_all().endswith(b"forked")
