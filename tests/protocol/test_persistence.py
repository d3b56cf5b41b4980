"""Whether a connection is kept, by the Connection field of the request (RFC 9112 section 9.3)."""

import pytest

from support.client import Client, request

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
REQUESTS = {
    "get": ("GET /hello", [], b""),
    "get-1.0": ("GET /hello HTTP/1.0", [], b""),
    "length": ("PUT /read", ["Content-Length: 5"], b"hello"),
    "length-1.0": ("PUT /read HTTP/1.0", ["Content-Length: 5"], b"hello"),
    "chunked": ("PUT /read", ["Transfer-Encoding: chunked"], CHUNKED),
    "unread": ("PUT /hello", ["Content-Length: 5"], b"hello"),
}
CLOSING = [
    ["close"],
    ["Close"],
    ["keep-alive, close"],
    ["close,keep-alive"],
    ["x ,\tCLOSE , y"],
    ["keep-alive", "close"],
    ["x", "close"],
]
KEEPING = [["keep-alive"], ["x-close, keep-alive"], ["closed"], ['x="close"']]


def ask(client, kind, options):
    line, fields, body = REQUESTS[kind]
    client.send(request(line, *fields, *(f"Connection: {option}" for option in options)), body)
    head, body = client.receive_response()
    assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 "))
    assert body == b"hello"
    return head


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("get", options) for options in CLOSING),
        *((kind, ["keep-alive", "x, close"]) for kind in REQUESTS),
    ],
    ids=repr,
)
def test_close_in_any_connection_field_or_list_closes_the_connection(server, kind, options):
    with Client(server) as client:
        head = ask(client, kind, options)
        assert b"\r\nConnection: close\r\n" in head
        assert client.receive_all() == b""


@pytest.mark.keeps_alive
@pytest.mark.parametrize("options", KEEPING, ids=repr)
def test_an_option_that_only_looks_like_close_keeps_the_connection(server, options):
    with Client(server) as client:
        for kind in ("get", "length", "chunked", "get"):
            assert b"\r\nConnection: keep-alive\r\n" in ask(client, kind, options)


@pytest.mark.keeps_alive
def test_a_client_of_http_1_0_may_keep_its_connection(server):
    with Client(server) as client:
        for _ in range(2):
            assert b"\r\nConnection: keep-alive\r\n" in ask(client, "length-1.0", ["keep-alive"])


@pytest.mark.keeps_alive
@pytest.mark.parametrize("size", [7000, 8192, 9000])
def test_two_requests_that_arrive_in_one_piece_are_both_answered(server, size):
    """Over TLS the second may be in the same record: then the socket has nothing more to read."""
    first = request("GET /hello", f"X-One: {'x' * 4000}", "X-Two: ")
    first = first.replace(b"X-Two: ", b"X-Two: " + b"x" * (size - len(first)))
    assert len(first) == size
    with Client(server) as client:
        client.send(first + request("GET /hello", f"X-One: {'y' * 3000}"))
        for _ in range(2):
            assert client.receive_response()[1] == b"hello"
