"""One request on one connection, with gunicorn's own parser and a pair of sockets."""

import socket

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser
from wire import waiting

from gunicorn_expect import exchange

HEAD = waiting("PUT /", "Content-Length: 5")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(7)
        yield ours, theirs


@pytest.fixture
def parser(pair):
    return exchange.Parser.instead_of(RequestParser(Config(), pair[0], ("127.0.0.1", 1)))


def wire_of(parser, pair):
    pair[1].sendall(HEAD)
    return exchange.ConnectionWire(next(parser))


def test_looking_for_the_body_leaves_the_timeout_of_the_socket(parser, pair):
    wire = wire_of(parser, pair)
    assert not wire.body_arrived()
    assert pair[0].gettimeout() == 7


def test_bytes_that_were_found_are_read_again_by_the_parser(parser, pair):
    wire = wire_of(parser, pair)
    pair[1].sendall(b"hel")
    assert wire.body_arrived()
    pair[1].sendall(b"lo")
    assert parser.mesg.body.read() == b"hello"


def test_a_client_that_sends_no_more_did_not_send_a_body(parser, pair):
    wire = wire_of(parser, pair)
    pair[1].shutdown(socket.SHUT_WR)
    assert not wire.body_arrived()


@pytest.mark.parametrize("framing", ["X-No: framing", "Content-Length: 0"])
def test_a_request_without_a_body_is_known_by_its_framing(parser, pair, framing):
    pair[1].sendall(waiting("PUT /", framing))
    assert not exchange.has_body(next(parser))


def test_what_a_gunicorn_lacks_is_named():
    with pytest.raises(RuntimeError, match=r"which has no gunicorn\.http:Telepathy; it needs"):
        exchange.require_gunicorn("gunicorn.http:Telepathy")
