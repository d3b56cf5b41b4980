"""gunicorn also speaks uWSGI's protocol, which has no interim responses."""

import pytest

from support.client import Client
from support.matrix import WORKERS
from support.server import Server
from support.uwsgi import packet


@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
def test_no_interim_response_is_sent_over_the_uwsgi_protocol(worker):
    with Server("--protocol", "uwsgi", worker=worker) as server:
        with Client(server) as client:
            client.send(packet("GET", "/hello"))
            assert client.receive_response()[1] == b"hello"
        with Client(server) as client:
            client.send(packet("PUT", "/ordinary-read", b"hello", HTTP_EXPECT="100-continue"))
            head, body = client.receive_response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b'["hello", "none"]'
        with Client(server) as client:
            client.send(packet("PUT", "/inform", b"hello", HTTP_UPLOAD_COMPLETE="?1"))
            head, body = client.receive_response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"[false, false]"
