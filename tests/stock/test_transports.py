"""What comes before a request, or around it: PROXY and uwsgi protocols, unix sockets, TLS."""

import socket
import struct
from functools import partial

import pytest

from stock.comparing import both, exchange, get, shown, without
from support import PATIENCE
from support.client import Client, request
from support.uwsgi import packet

GET = request("GET /hello", "Connection: close")
POST = request("POST /read", "Content-Length: 5", "Connection: close") + b"hello"

V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56789 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 56789 443\r\n"


def v2(command=1, family=0x11, content=bytes([203, 0, 113, 7, 192, 0, 2, 1, 221, 213, 1, 187])):
    head = bytes([0x20 | command, family]) + struct.pack("!H", len(content))
    return b"\r\n\r\n\0\r\nQUIT\n" + head + content


PROXIED = {
    "none": GET,
    "v1": V1 + GET,
    "v1 with body": V1 + POST,
    "v1 of IPv6": V1_6 + GET,
    "v1 unknown": b"PROXY UNKNOWN\r\n" + GET,
    "v1 with a bad port": b"PROXY TCP4 203.0.113.7 192.0.2.1 567890 443\r\n" + GET,
    "v1 with a bad address": b"PROXY TCP4 203.0.113 192.0.2.1 56789 443\r\n" + GET,
    "v1 of another family": b"PROXY UDP4 203.0.113.7 192.0.2.1 56789 443\r\n" + GET,
    "v2": v2() + GET,
    "v2 with body": v2() + POST,
    "v2 local": v2(command=0, family=0, content=b"") + GET,
    "v2 of IPv6": v2(family=0x21, content=bytes(15) + b"\7" + bytes(15) + b"\1" + b"\1\2\3\4")
    + GET,
    "v2 of another version": v2().replace(b"\x21", b"\x31", 1) + GET,
    "v2 too short": v2(content=bytes(4)) + GET,
}


@pytest.fixture(
    scope="module",
    params=[
        "tcp auto",
        "tcp v1",
        "tcp auto --proxy-allow-from 192.0.2.9",
        "tls auto",
    ],
)
def behind_a_proxy(request, worker, certificates):
    transport, *mode = request.param.split()
    arguments = "--proxy-protocol", *mode
    header = V1 if mode == ["v1"] else b""
    with both(worker, *arguments, transport=transport, certificates=certificates) as servers:
        yield servers, lambda path: header + get(path)


@pytest.mark.parametrize("name", PROXIED)
def test_the_proxy_protocol_is_served_as_by_stock_gunicorn(worker, behind_a_proxy, name):
    check(worker, *behind_a_proxy, PROXIED[name])


def check(worker, servers, get, data):
    ours, stock = (shown(server, exchange(data), get=get) for server in servers)
    if worker == "gevent":  # its stock worker makes one TLS context when it starts
        for _, lines in (ours, stock):
            lines[:] = [line for line in lines if line[0] != "ssl_context"]
    assert ours == stock


PACKETS = {
    "GET": packet("GET", "/hello", QUERY_STRING="a=b", HTTP_CONNECTION="close"),
    "HEAD": packet("HEAD", "/hello", HTTP_CONNECTION="close"),
    "POST": packet("POST", "/read", b"hello", HTTP_CONNECTION="close", CONTENT_TYPE="text/plain"),
    "POST unread": packet("POST", "/hello", b"hello", HTTP_CONNECTION="close"),
    "kept": packet("GET", "/hello") + packet("GET", "/hello?last", HTTP_CONNECTION="close"),
    "HTTPS": packet("GET", "/hello", HTTPS="on", HTTP_CONNECTION="close"),
    "generator": packet("GET", "/generator", HTTP_CONNECTION="close"),
    "fail": packet("GET", "/fail"),
    "another modifier": b"\7" + packet("GET", "/hello")[1:],
    "malformed": struct.pack("<BHB", 0, 4, 0) + b"\xff\xffab",
}


@pytest.fixture(scope="module")
def behind_uwsgi(worker):
    with both(worker, "--protocol", "uwsgi") as servers:
        yield servers


@pytest.mark.parametrize("name", PACKETS)
def test_uwsgis_protocol_is_served_as_by_stock_gunicorn(worker, behind_uwsgi, name):
    check(worker, behind_uwsgi, partial(packet, "GET", HTTP_CONNECTION="close"), PACKETS[name])


def test_a_peer_that_may_not_speak_uwsgis_protocol_is_refused_as_by_stock_gunicorn(worker):
    found = []
    arguments = ("--protocol", "uwsgi", "--uwsgi-allow-from", "192.0.2.9")
    with both(worker, *arguments) as servers:
        for server in servers:
            with Client(server) as client:
                received = exchange(PACKETS["GET"])(client)
            found.append((received, server.wait_for_log(r".*ForbiddenUWSGIRequest: .*")[0]))
    ours, stock = found
    assert ours[0].startswith(b"HTTP/1.1 500 ")
    assert ours == stock


# Unix sockets and TLS.

SOME = {
    "GET": GET,
    "POST": POST,
    "kept": request("GET /hello") + GET,
    "fail": request("GET /fail"),
    "nonsense": b"NONSENSE\r\n\r\n",
}


@pytest.fixture(scope="module")
def on_a_unix_socket(worker):
    with both(worker, transport="unix") as servers:
        yield servers


@pytest.mark.parametrize("name", SOME)
def test_a_unix_socket_is_served_as_by_stock_gunicorn(worker, on_a_unix_socket, name):
    check(worker, on_a_unix_socket, get, SOME[name])


@pytest.fixture(scope="module", params=["", "--suppress-ragged-eofs --do-handshake-on-connect"])
def by_tls(worker, request, certificates):
    options = request.param.split()
    with both(worker, *options, transport="tls", certificates=certificates) as servers:
        yield servers


class Plain(Client):
    """A client that does not speak TLS."""

    def __init__(self, server):
        self.socket = socket.create_connection(server.address, PATIENCE)
        self.unread = b""


def leaving_rudely(data):
    """Return a function that sends this, and leaves without a close_notify."""

    def converse(client):
        client.send(data)
        client.shut_down()
        return bool(client.receive_all())

    return converse


@pytest.mark.parametrize(
    ("connect", "converse"),
    [
        (Client, exchange(GET)),
        (Plain, exchange(GET)),
        (Plain, exchange(b"\x16\x03\x01\x00\x05hello")),
        (Client, leaving_rudely(b"")),
        (Client, leaving_rudely(GET)),
        (Client, leaving_rudely(GET[:20])),
    ],
    ids=["GET", "plain HTTP", "a bad hello", "leaving", "leaving after a GET", "leaving in a head"],
)
def test_tls_is_served_as_by_stock_gunicorn(worker, by_tls, connect, converse):
    ours, stock = (without("ssl_context", shown(server, converse, connect)) for server in by_tls)
    if worker == "gevent" and connect is Plain:  # its stock worker has gevent write a traceback
        assert ours[0] == stock[0]
    else:
        assert ours == stock


def test_the_tls_context_is_made_for_each_connection(by_tls):
    _, lines = shown(by_tls[0], exchange(GET))
    assert lines[0] == ("ssl_context", True)
