"""A request without a body is served byte for byte as stock gunicorn serves it."""

import re

import pytest

from support.client import Client, request


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


#: What the application does, in order: w writes, y yields, 0 yields nothing, r reads the body, and
#: e raises an error.
@pytest.mark.parametrize("steps", ["w", "0w0", "wyw0y", "yw", "rwyw", "we"])
@pytest.mark.parametrize(
    "data",
    [
        request("GET /write-while-iterated?STEPS", "Connection: close"),
        request("PUT /write-while-iterated?STEPS", "Content-Length: 5", "Connection: close")
        + b"hello",
        request("PUT /write-while-iterated?STEPS HTTP/1.0", "Content-Length: 5") + b"hello",
        request(
            "PUT /write-while-iterated?STEPS", "Transfer-Encoding: chunked", "Connection: close"
        )
        + b"5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["no body", "length", "HTTP 1.0", "chunked"],
)
def test_data_written_while_the_result_is_iterated_is_sent_as_by_stock_gunicorn(
    server, stock, steps, data
):
    data = data.replace(b"STEPS", steps.encode())
    ours = exchange(server, data)
    assert ours.count(b"HTTP/1.") == 1
    assert b"written " in ours
    assert ours == exchange(stock, data)
