"""gunicorn also speaks uWSGI's protocol, which has no word for a client that waits."""

import struct

import pytest
from conftest import WORKERS
from wire import Client, Server


def packet(method, path, body=b"", **variables):
    variables = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "test",
        "CONTENT_LENGTH": str(len(body)),
        **variables,
    }
    block = b"".join(
        struct.pack("<H", len(text)) + text.encode() for pair in variables.items() for text in pair
    )
    return struct.pack("<BHB", 0, len(block), 0) + block + body


@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
def test_no_100_is_sent_in_a_protocol_that_has_none(worker):
    with Server("--protocol", "uwsgi", worker=worker) as server:
        with Client(server) as client:
            client.send(packet("GET", "/hello"))
            assert client.receive_response()[1] == b"hello"
        with Client(server) as client:
            client.send(packet("PUT", "/ordinary-read", b"hello", HTTP_EXPECT="100-continue"))
            head, body = client.receive_response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b'["hello", "none"]'
