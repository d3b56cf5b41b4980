"""One request on one connection, with gunicorn's own parser and a pair of sockets."""

import gc
import socket
import struct

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from wire import request, waiting

from gunicorn_expect import ClientDisconnected, MalformedBody, exchange
from gunicorn_expect.receiver import Receiver
from gunicorn_expect.settings import Settings

HEAD = waiting("PUT /", "Content-Length: 5")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(7)
        yield [ours, theirs]


@pytest.fixture
def parser(pair):
    terms = exchange.Terms(Settings(expect_body_timeout=20, expect_min_rate=0), discard=pair.append)
    return exchange.adopt(RequestParser(Config(), pair[0], ("127.0.0.1", 1)), terms)


def test_looking_for_the_body_leaves_the_timeout_of_the_socket(parser, pair):
    pair[1].sendall(HEAD)
    assert next(parser).body.expectation.pending
    assert pair[0].gettimeout() == 7


def test_what_comes_behind_a_body_is_of_the_next_request(parser, pair):
    pair[1].sendall(HEAD + b"hello" + HEAD.replace(b"PUT /", b"PUT /next"))
    assert next(parser).body.read() == b"hello"
    assert next(parser).path == "/next"


def test_what_comes_behind_a_chunked_body_is_of_the_next_request(parser, pair):
    head = request("PUT /", "Transfer-Encoding: chunked")
    pair[1].sendall(head + b"5\r\nhello\r\n0\r\n\r\n" + HEAD.replace(b"PUT /", b"PUT /next"))
    assert next(parser).body.read() == b"hello"
    assert next(parser).path == "/next"


def test_a_socket_waits_for_ever_again_when_its_body_was_read(parser, pair):
    pair[0].settimeout(None)
    pair[1].sendall(HEAD + b"hel")
    body = next(parser).body
    assert body.read(3) == b"hel"
    pair[1].sendall(b"lo" + HEAD)
    assert body.read() == b"lo"
    next(parser)
    limit = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert not any(limit)


def test_a_client_that_sends_no_more_did_not_send_a_body(parser, pair):
    pair[1].sendall(HEAD)
    pair[1].shutdown(socket.SHUT_WR)
    assert next(parser).body.expectation.pending


def test_trailers_are_given_to_the_request(parser, pair):
    head = request("PUT /", "Transfer-Encoding: chunked")
    pair[1].sendall(head + b"0\r\nX-One: 1\r\nX-Two: 2\r\n\r\n")
    req = next(parser)
    assert req.body.read() == b""
    assert req.trailers == [("X-ONE", "1"), ("X-TWO", "2")]


@pytest.mark.parametrize("trailer", [b"No colon", b"Content-Length: 5", b"X : 1", b" X: 1"])
def test_a_malformed_trailer_section_is_an_error(parser, pair, trailer):
    head = request("PUT /", "Transfer-Encoding: chunked")
    pair[1].sendall(head + b"0\r\n" + trailer + b"\r\n\r\n")
    with pytest.raises(MalformedBody, match="trailer section is malformed"):
        next(parser).body.read()


def test_nothing_of_a_refusal_is_left_to_the_garbage_collector(parser, pair):
    gc.collect()
    gc.disable()
    try:
        pair[1].sendall(HEAD)
        req = next(parser)
        req.body.on_respond()
        assert req.should_close()
        req = parser.mesg = None
        kinds = (exchange.Request, exchange.ConnectionWire, Receiver)
        assert [x for x in gc.get_objects() if isinstance(x, kinds)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize("framing", ["X-No: framing", "Content-Length: 0"])
def test_a_request_without_a_body_is_known_by_its_framing(parser, pair, framing):
    pair[1].sendall(waiting("PUT /", framing))
    assert not exchange.has_body(next(parser))


def test_what_a_gunicorn_lacks_is_named():
    with pytest.raises(RuntimeError, match=r"which has no gunicorn\.http:Telepathy; it needs"):
        exchange.require_gunicorn("gunicorn.http:Telepathy")


@pytest.mark.parametrize("when", ["before the look", "before the 100"])
def test_a_client_that_is_gone_when_the_body_is_asked_for_is_gone_for_good(when):
    lost = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        terms = exchange.Terms(Settings(), discard=lost.append, record=Failures(lost))
        parser = exchange.adopt(RequestParser(Config(), ours, ("127.0.0.1", 1)), terms)
        theirs.sendall(HEAD)
        body = next(parser).body
        if when == "before the look":
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()  # a reset
        else:
            ours.shutdown(socket.SHUT_WR)
        for _ in range(3):
            with pytest.raises(ClientDisconnected):
                body.read(1)
        assert lost == [ClientDisconnected]


class Failures:
    def __init__(self, failures):
        self._failures = failures

    def decided(self, *anything):
        pass

    def failed(self, error):
        self._failures.append(type(error))
