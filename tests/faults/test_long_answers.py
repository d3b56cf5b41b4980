"""Long responses to unread bodies: none is lost, even if the client sends everything first."""

import contextlib
import functools
import http.client
import io
import itertools
import select
import ssl
from types import SimpleNamespace

import pytest

from faults.unfriendly import LONG, WatchedWorker, at_once, in_parallel, serve
from support import PATIENCE
from support.client import Client, request
from support.matrix import WORKERS

CLIENTS = 4
#: Bytes of a response that does not fit into a new send buffer.
ANSWER = 17_000
#: The two framings of a request body, each with 200,000 bytes of content.
POSTS = [
    ("Content-Length: 200000", bytes(200_000)),
    ("Transfer-Encoding: chunked", b"30D40\r\n" + bytes(200_000) + b"\r\n0\r\n\r\n"),
]


@pytest.fixture(scope="module", params=WORKERS)
def served(request, transport, certificates):
    worker = WORKERS[request.param][0]
    with serve(worker, transport=transport, certificates=certificates) as server:
        yield WatchedWorker(server, at_once=at_once(request.param))


@contextlib.contextmanager
def noted(lost):
    """Add what the socket raises to ``lost``."""
    try:
        yield
    except OSError as error:
        lost.append(repr(error))


@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"], indirect=True)
def test_no_answer_to_an_ordinary_post_is_lost(served, transport, thorough):
    number = 4000 if transport == "tcp" or thorough else 400
    lost = []

    def post(framing, body):
        with Client(served.server) as client, noted(lost):
            client.send(request(f"POST /unread?{ANSWER}", framing), body)
            head, body = client.receive_response()
            if not head.startswith(b"HTTP/1.1 200 OK\r\n") or body != bytes(ANSWER):
                lost.append((head, len(body)))

    in_parallel(post, itertools.islice(itertools.cycle(POSTS), number), CLIENTS)
    assert lost == []
    served.check_nothing_is_left()


# Clients that send 30 MB before they read, and long responses.

LARGE = 30_000_000
PIECE = bytes(1_000_000)

#: Whether the body has a Content-Length or is chunked.
FRAMINGS = ["length", "chunks"]
#: Pairs of the framing of the response and that of the body, so that each is used.
BOTH_FRAMINGS = [("&length", "length"), ("", "chunks")]


def large(path, framing):
    """Yield a request with a large body, in pieces."""
    chunked = framing == "chunks"
    field = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {LARGE}"
    yield request(f"POST {path}", field, "Connection: close")
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    yield from itertools.repeat(piece, LARGE // len(PIECE))
    if chunked:
        yield b"0\r\n\r\n"


def body_of(file):
    """Return the body of the response that is in this file."""
    response = http.client.HTTPResponse(SimpleNamespace(makefile=lambda *_: file))
    response.begin()
    assert response.status == 200
    return response.read()


def answer_behind(client, pieces):
    """Send everything; then receive."""
    for piece in pieces:
        client.send(piece)
    return body_of(client.socket.makefile("rb"))


def answer_beside(client, pieces):
    """Send, and receive meanwhile, by one thread: two may not use an SSL object at once."""
    sock, data, received = client.socket, memoryview(b"".join(pieces)), bytearray()
    later = contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    sock.settimeout(0)
    while data:
        assert any(select.select([sock], [sock], [], PATIENCE)), (
            "the server neither reads nor sends"
        )
        with later:
            data = data[sock.send(data[:100_000]) :]
        with later:
            received += sock.recv(1_000_000)
    sock.settimeout(PATIENCE)
    return body_of(io.BytesIO(bytes(received) + client.receive_all()))


def check_answer(how, patience, server, length, framing):
    with Client(server) as client:
        client.socket.settimeout(patience)
        assert answer_behind(client, large(f"/long?{how}{length}", framing)) == bytes(LONG)


def test_a_long_list_arrives_whole_at_a_client_that_sends_everything_first(served):
    calls = itertools.product([served.server], ["&length", ""], FRAMINGS)
    in_parallel(functools.partial(check_answer, "list", PATIENCE), calls)
    served.check_nothing_is_left()


@pytest.mark.parametrize("how", ["generator", "write"])
def test_a_long_answer_in_pieces_arrives_whole_at_a_client_that_sends_everything_first(served, how):
    calls = [(served.server, *framings) for framings in BOTH_FRAMINGS]
    in_parallel(functools.partial(check_answer, how, PATIENCE), calls)


def check_read_behind_answer(server, framing):
    with Client(server) as client:
        client.socket.settimeout(PATIENCE)
        answer = answer_behind(client, large("/long-then-read", framing))
        assert answer[:LONG] == bytes(LONG)
        assert answer[LONG:] == b"OSError"


def test_a_read_after_a_long_answer_is_an_error_if_the_client_sent_everything_first(served):
    in_parallel(check_read_behind_answer, itertools.product([served.server], FRAMINGS))


def check_read_while_answering(server, path, framing):
    with Client(server) as client:
        answer = answer_beside(client, large(path, framing))
        assert answer[:LONG] == bytes(LONG)
        assert answer[LONG:] == b"%d bytes" % LARGE


def test_a_read_after_a_long_answer_is_whole_if_the_client_reads_while_it_sends(served):
    calls = itertools.product([served.server], ["/long-then-read"], FRAMINGS)
    in_parallel(check_read_while_answering, calls)
    served.check_nothing_is_left()


def test_one_thread_may_read_the_body_while_another_one_writes_the_answer(served):
    """OpenSSL can't do that for one connection: the data of the two must not mix."""
    calls = itertools.product([served.server], ["/long-beside-read"], FRAMINGS)
    in_parallel(check_read_while_answering, calls)
    served.check_nothing_is_left()
