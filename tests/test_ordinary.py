"""A request without a body is served byte for byte as stock gunicorn serves it."""

import re

import pytest
from wire import Client, request


def exchange(server, data):
    with Client(server) as client:
        client.send(data)
        return re.sub(rb"Date: [^\r]*", b"Date: -", client.receive_all())


@pytest.mark.parametrize(
    "data",
    [
        request("GET /hello", "Connection: close"),
        request("HEAD /hello", "Connection: close"),
        request("GET /hello HTTP/1.0"),
        request("GET /hello HTTP/1.0", "Connection: keep-alive") + request("GET /hello HTTP/1.0"),
        request("GET /hello") * 3 + request("GET /hello", "Connection: close"),
        request("GET /chunks", "Connection: close"),
        request("GET /no-content", "Connection: close"),
        request("GET /early", "Connection: close"),
        request("GET /file", "Connection: close"),
        request("GET /memory-file", "Connection: close"),
        request("GET /refuse", "Connection: close"),
        request("GET /refuse-without-length", "Connection: close"),
        request("GET /refuse-without-length?generator", "Connection: close"),
        request("GET /fail"),
        request("GET /fail-after-start"),
        request("GET /fail-after-first-byte"),
        request("GET /start?101+Switching+Protocols", "Connection: close"),
        request("GET /refuse-twice", "Connection: close"),
        request("GET /keep-alive-please?upgrade", "Connection: close"),
        request("GET /yield-then-read", "Connection: close"),
        request("DELETE /read", "Content-Length: 0", "Connection: close"),
        request("GET /hello", "Connection: close", "X-Space : 1"),
        b"NONSENSE\r\n\r\n",
    ],
    ids=repr,
)
def test_an_ordinary_request_is_answered_byte_for_byte_as_by_stock_gunicorn(server, stock, data):
    ours = exchange(server, data)
    assert ours.count(b"HTTP/1.") >= 1
    assert ours == exchange(stock, data)
