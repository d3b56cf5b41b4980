"""One connection, from its first request head to its end, on a pair of sockets."""

import socket
import struct

import pytest

from gunicorn_expect import (
    ClientDisconnected,
    Expectation,
    MalformedBody,
    Refuse,
    State,
    host,
    receiver,
)
from gunicorn_expect.connection import Connection, Wants
from gunicorn_expect.counters import Counters
from gunicorn_expect.exchange import Exchange, Responses
from gunicorn_expect.receiver import Receiver
from support.client import request, waiting
from support.connections import answered, connection, service
from support.garbage import no_garbage_of
from support.socket_pairs import connected

LENGTH = "Content-Length: 5"
HEAD = waiting("PUT /", LENGTH)
NEXT = waiting("PUT /next", LENGTH)
CHUNKED = request("PUT /", "Transfer-Encoding: chunked")


def reading(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def refusing(environ, start_response):
    start_response("403 Forbidden", [])
    return []


@pytest.fixture
def application():
    """Return the application of `served`; a test may replace it by parametrizing it."""
    return reading


@pytest.fixture
def served(application):
    with service(application) as made:
        yield made


@pytest.fixture
def conn(served, ours):
    conn = connection(served, ours)
    yield conn
    conn.transport.close()


def opened(conn):
    """Receive a request; return its body."""
    assert conn.advance() is Wants.ANSWER
    assert conn.error is None
    return conn.request.body


# The request.


def test_a_head_that_arrives_in_pieces_is_one_request(conn, theirs):
    assert conn.advance() is Wants.READ
    assert not conn.has_begun
    for piece in (HEAD[:1], HEAD[1:-1]):
        theirs.sendall(piece)
        assert conn.advance() is Wants.READ
        assert conn.has_begun
    theirs.sendall(HEAD[-1:])
    assert conn.advance() is Wants.ANSWER
    assert conn.request.path == "/"
    assert conn.exchange.state is State.PENDING


@pytest.mark.parametrize("framing", ["X-No: framing", "Content-Length: 0"])
def test_a_request_without_a_body_has_no_exchange(conn, theirs, framing):
    theirs.sendall(waiting("PUT /", framing))
    opened(conn)
    assert conn.exchange is None


def test_a_connection_ends_if_its_client_leaves_before_it_sends_a_head(conn, theirs):
    theirs.close()
    assert conn.advance() is Wants.END


def test_looking_for_body_bytes_does_not_change_the_timeout_of_the_socket(conn, theirs, ours):
    theirs.sendall(HEAD)
    opened(conn)
    assert conn.exchange.look()
    assert ours.gettimeout() is None


def test_a_client_that_half_closes_its_connection_still_waits_for_its_100(conn, theirs):
    theirs.sendall(HEAD)
    theirs.shutdown(socket.SHUT_WR)
    opened(conn)
    assert conn.exchange.look()


def test_trailers_are_stored_in_the_request(conn, theirs):
    theirs.sendall(CHUNKED + b"0\r\nX-One: 1\r\nX-Two: 2\r\n\r\n")
    assert opened(conn).read() == b""
    assert conn.request.trailers == [("X-ONE", "1"), ("X-TWO", "2")]


@pytest.mark.parametrize("trailer", [b"No colon", b"Content-Length: 5", b"X : 1", b" X: 1"])
def test_a_malformed_trailer_section_is_an_error(conn, theirs, trailer):
    theirs.sendall(CHUNKED + b"0\r\n" + trailer + b"\r\n\r\n")
    with pytest.raises(MalformedBody, match="trailer section is malformed"):
        opened(conn).read()


class Failures(Counters):
    """Records the classes of the errors that reads of a body raised."""

    def __init__(self):
        super().__init__()
        self.enabled = True
        self.kinds = []

    def failed(self, error):
        self.kinds.append(type(error))


@pytest.mark.parametrize("when", ["before the read", "before the 100"])
def test_every_read_from_a_client_that_was_gone_before_its_100_raises_the_same_error(
    certificates, when
):
    failures = Failures()
    with (
        connected("tcp", certificates) as (ours, theirs),
        service(counters=failures) as served,
    ):
        theirs.sendall(HEAD)
        body = opened(connection(served, ours))
        if when == "before the read":
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()  # a reset
        else:
            ours.shutdown(socket.SHUT_WR)
        for _ in range(3):
            with pytest.raises(ClientDisconnected):
                body.read(1)
    assert failures.kinds == [ClientDisconnected]


# The next request.


@pytest.mark.parametrize(
    "upload",
    [
        HEAD + b"hello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    ],
    ids=["sized", "chunked", "trailers"],
)
@pytest.mark.parametrize("cut", [0, 1, 10, 10_000])
def test_bytes_after_a_body_belong_to_the_next_request(conn, theirs, upload, cut):
    theirs.sendall(upload + NEXT[:cut])
    assert conn.wait_for_head(5)
    wants = conn.answer()
    assert wants is {0: Wants.REQUEST, 1: Wants.READ, 10: Wants.READ}.get(cut, Wants.ANSWER)
    theirs.sendall(NEXT[cut:])
    assert wants is Wants.ANSWER or conn.wait_for_head(5)
    assert conn.request.path == "/next"
    assert conn.exchange.state is State.PENDING


def test_the_receive_timeout_of_a_socket_is_removed_when_its_body_was_read(
    served, conn, theirs, ours, monkeypatch
):
    monkeypatch.setattr(receiver, "LARGE", 0)  # a large body is received by calls that may block
    limits = []

    def application(environ, start_response):
        assert environ["wsgi.input"].read(3) == b"hel"
        theirs.sendall(b"lo" + NEXT)
        assert environ["wsgi.input"].read() == b"lo"
        limits.append(any(limit_of(ours)))
        return reading(environ, start_response)

    served.application = application
    theirs.sendall(HEAD + b"hel")
    assert conn.wait_for_head(5)
    assert conn.answer() is not Wants.END
    limits.append(any(limit_of(ours)))
    assert limits == [True, False]


def limit_of(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)


@pytest.mark.parametrize("framing", [LENGTH, "Transfer-Encoding: chunked"])
def test_the_body_of_a_request_that_was_refused_can_not_be_read_when_it_has_ended(
    served, conn, theirs, framing
):
    kept = []

    def application(environ, start_response):
        kept.append(environ["wsgi.input"])
        return refusing(environ, start_response)

    served.application = application
    theirs.sendall(waiting("PUT /", framing))
    assert conn.wait_for_head(5)
    assert conn.answer() is Wants.END
    for _ in range(2):
        with pytest.raises(ClientDisconnected):
            kept[0].read(1)


@pytest.mark.parametrize("application", [refusing, reading])
def test_the_objects_of_a_request_are_freed_without_the_garbage_collector(served, certificates):
    kinds = (Connection, host.Request, Exchange, Responses, Expectation, Receiver)
    with no_garbage_of(*kinds), connected("unix", certificates) as (ours, theirs):
        theirs.sendall(HEAD + b"hello")
        conn = connection(served, ours)
        assert conn.wait_for_head(5)
        _, answer = answered(conn, theirs)
        assert answer.startswith(b"HTTP/1.1 ")
        conn.transport.close()
        del conn


def test_the_objects_of_a_request_that_the_loop_refused_are_freed_without_the_garbage_collector(
    served, certificates
):
    served.policy = served.inline = lambda _environ: Refuse(413)
    kinds = (Connection, host.Request, Exchange, Responses, Expectation, Receiver)
    with no_garbage_of(*kinds), connected("unix", certificates) as (ours, theirs):
        theirs.sendall(waiting("PUT /", LENGTH))
        conn = connection(served, ours)
        assert conn.wait_for_head(5)
        assert conn.answer_inline()
        assert theirs.recv(1000).startswith(b"HTTP/1.1 413 ")
        conn.transport.close()
        del conn


# Waiting for a head without a loop.


def test_a_client_that_does_not_finish_its_head_in_time_gets_408(certificates):
    with connected("unix", certificates) as (ours, theirs), service() as served:
        conn = connection(served, ours)
        theirs.sendall(HEAD[:10])
        assert not conn.wait_for_head(0.05)
        assert theirs.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_sends_nothing_gets_no_response(conn, theirs):
    assert not conn.wait_for_first_byte(0.01)
    assert not conn.wait_for_head(0.01)
    conn.transport.half_close()
    assert theirs.recv(1000) == b""
