"""Long answers to bodies that nobody reads: none is lost, whoever sends everything first."""

import contextlib

import pytest
from conftest import WORKERS
from unfriendly import Worker, at_once, in_parallel, serve
from wire import Client, request

CLIENTS = 4
#: Bytes of an answer that is longer than a send buffer is at first.
ANSWER = 17_000
BODY = bytes(200_000)


@pytest.fixture(scope="module", params=["tcp", "tls"])
def transport(request):
    return request.param


@pytest.fixture(params=WORKERS)
def served(request, transport, certificates):
    worker = WORKERS[request.param][0]
    with serve(worker, transport=transport, certificates=certificates) as server:
        yield Worker(server, at_once=at_once(request.param))


@contextlib.contextmanager
def noted(lost):
    """Note what the socket raises."""
    try:
        yield
    except OSError as error:
        lost.append(repr(error))


def test_no_answer_to_an_ordinary_post_is_lost(served, transport, thorough):
    posts = 4000 if transport == "tcp" or thorough else 400
    data = request(f"POST /unread?{ANSWER}", f"Content-Length: {len(BODY)}") + BODY
    lost = []

    def post():
        with Client(served.server) as client, noted(lost):
            client.send(data)
            head, body = client.receive_response()
            if not head.startswith(b"HTTP/1.1 200 OK\r\n") or body != bytes(ANSWER):
                lost.append((head, len(body)))

    in_parallel(post, [()] * posts, CLIENTS)
    assert lost == []
    served.check_nothing_is_left()
