"""The proxies of examples/deploy, each before a real gunicorn, over TCP and over a unix socket."""

import contextlib
import hashlib
import json
import os
import select
import tempfile
from pathlib import Path

import pytest

from realworld.proxies import PROXIES, RunningProxy, Upstream
from support import PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.server import Server

MIB = 1 << 20
TOKEN = "Authorization: Bearer letmein"
LIMIT = 512 * MIB


@pytest.fixture(scope="module", params=["tcp", "unix"])
def gunicorn(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with Server(
        app="examples.flask_upload:app",
        transport=request.param,
        env={"UPLOAD_FOLDER": str(folder), "UPLOAD_LIMIT": str(LIMIT)},
    ) as server:
        yield server


@pytest.fixture
def upstream(gunicorn):
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
        Path(folder).chmod(0o755)
        with Upstream(gunicorn, f"{folder}/socket") as upstream:
            yield upstream


@pytest.fixture(params=PROXIES)
def proxy(request, upstream):
    with RunningProxy(PROXIES[request.param], upstream) as proxy:
        yield proxy


def put(*fields):
    return request("PUT /files/big.iso", *fields)


def waiting_put(*fields):
    return waiting("PUT /files/big.iso", *fields)


def interim_and_final(client):
    """Receive a response; return the interim ones before it, its head and its body."""
    interim = []
    while (response := client.receive_response())[0].startswith(b"HTTP/1.1 1"):
        interim.append(response[0])
    return interim, *response


def interim_after_continue(client):
    """Do the same after a 100, without a second 100 of Caddy's own: docs/caddy.md."""
    interim, *response = interim_and_final(client)
    own = b"HTTP/1.1 100 Continue\r\nServer: Caddy\r\n\r\n"
    return [each for each in interim if each != own], *response


def body_bytes(upstream):
    """Return how many body bytes reached gunicorn, framing included."""
    sent = upstream.sent_by_clients()
    return sum(len(each.partition(b"\r\n\r\n")[2]) for each in sent)


REFUSALS = {
    "401": (b"401", ["Content-Length: 1000000"]),
    "413": (b"413", [TOKEN, f"Content-Length: {LIMIT + 1}"]),
    "401-chunked": (b"401", ["Transfer-Encoding: chunked"]),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_client_that_waits_gets_the_refusal_before_it_sends_its_body(proxy, upstream, refusal):
    status, fields = REFUSALS[refusal]
    with Client(proxy) as client:
        client.send(waiting_put(*fields))
        interim, head, _ = interim_and_final(client)
    proxy.process.terminate()
    assert head.startswith(b"HTTP/1.1 " + status)
    assert interim == ([] if proxy.proxy.asks_application else [CONTINUE])
    assert b"connection: close\r\n" in head.lower() or not proxy.proxy.asks_application
    assert body_bytes(upstream) == 0


class Uploader(Client):
    """A client that does not wait: it sends until it has a response, or has sent all."""

    def upload(self, size):
        """Send zeros; return how many."""
        piece = memoryview(bytes(64 * 1024))
        sent = 0
        self.socket.setblocking(False)
        while sent < size:
            readable, writable, _ = select.select([self.socket], [self.socket], [], PATIENCE)
            if readable:
                break
            assert writable
            sent += self.socket.send(piece[: size - sent])
        self.socket.settimeout(PATIENCE)
        return sent


def test_a_client_that_looks_for_an_answer_while_it_sends_gets_the_refusal(proxy, upstream):
    """Most proxies let the client stop early; httpd holds the response back until all has come."""
    size = LIMIT if proxy.proxy.stops_upload else 64 * MIB
    with Uploader(proxy) as client:
        client.send(put(f"Content-Length: {size}"))
        sent = client.upload(size)
        interim, head, _ = interim_and_final(client)
    proxy.process.terminate()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert interim == []
    received = body_bytes(upstream)
    if proxy.proxy.stops_upload:
        assert received <= sent < size
    else:
        assert received == sent == size


def test_a_client_that_sends_all_before_it_looks_gets_the_refusal(proxy):
    with Client(proxy) as client:
        # Caddy reads on for half a second at most, and then closes: it may not read all of this.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(put(f"Content-Length: {8 * MIB}"), bytes(8 * MIB))
        interim, head, _ = interim_and_final(client)
    assert head.startswith(b"HTTP/1.1 401 ")
    assert head.endswith(b"\r\n\r\n")
    assert interim == []


BODY = os.urandom(1024) * 3000


def chunked(body, size=100_000):
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in [*pieces, b""])


BODIES = {
    "length": (f"Content-Length: {len(BODY)}", BODY),
    "chunked": ("Transfer-Encoding: chunked", chunked(BODY)),
}


@pytest.mark.parametrize("framing", BODIES)
def test_two_accepted_bodies_on_one_connection_are_asked_for_once_and_arrive_whole(proxy, framing):
    field, body = BODIES[framing]
    with Client(proxy) as client:
        for _ in range(2):
            client.send(waiting_put(TOKEN, field))
            # Caddy puts a Server field into it.
            assert client.receive_head().startswith(b"HTTP/1.1 100 Continue\r\n")
            client.send(body)
            interim, head, answer = interim_after_continue(client)
            assert interim == []
            assert head.startswith(b"HTTP/1.1 201 ")
            assert json.loads(answer)["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_after_a_refusal_the_next_upload_through_the_proxy_works(proxy):
    for _ in range(3):
        with Client(proxy) as client:
            client.send(waiting_put("Content-Length: 5"))
            assert interim_and_final(client)[1].startswith(b"HTTP/1.1 401 ")
        with Client(proxy) as client:
            client.send(waiting_put(TOKEN, "Content-Length: 5"))
            assert client.receive_head().startswith(b"HTTP/1.1 100 Continue\r\n")
            client.send(b"hello")
            interim, head, _ = interim_after_continue(client)
        assert (interim, head[:13]) == ([], b"HTTP/1.1 201 ")


@pytest.fixture(scope="module")
def informing():
    with Server() as server:
        yield server


@pytest.mark.parametrize("name", PROXIES)
def test_a_104_reaches_a_client_that_waits(informing, name):
    with (
        Upstream(informing, "") as upstream,
        RunningProxy(PROXIES[name], upstream) as proxy,
        Client(proxy) as client,
    ):
        client.send(waiting("PUT /inform?force=1", "Content-Length: 5"))
        heads = []
        while not heads or b" 100 " not in heads[-1]:
            heads.append(client.receive_head())
        client.send(b"hello")
        interim, head, body = interim_after_continue(client)
    heads += [*interim, head]
    statuses = [int(head.split()[1]) for head in heads]
    created = heads[statuses.index(104)]
    assert b"\r\nlocation: /uploads/7\r\n" in created.lower()
    assert json.loads(body) == [True, True]
    if proxy.proxy.knows_interim:
        assert statuses == [104, 100, 104, 200]
    else:  # nginx has taken the 104 for the response
        assert statuses == [100, 104, 104, 200]
        assert b"\r\nConnection: " in created
