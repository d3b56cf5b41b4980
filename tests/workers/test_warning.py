"""The warnings of applications that read an upload and refuse it, or accept it without reading."""

import os
import re

import pytest

from support import CHECKOUT
from support.client import Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

PLACE = r"It was first read in apps\.reading\.read_then_refuse \(.*/apps/reading\.py, line \d+\)\."


def test_the_warning_names_the_line_that_read_and_is_logged_once(worker):
    with Server(worker=WORKERS[worker][0]) as server:
        for _ in range(3):
            with Client(server) as client:
                client.send(request("PUT /read-then-refuse", "Content-Length: 65537"), bytes(65537))
                assert client.receive_head().startswith(b"HTTP/1.1 403 ")
        server.wait_for_log(PLACE)
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert len([line for line in server.lines if re.search(PLACE, line)]) == 1


#: Two views that read through the same function, and one that does not read.
VIEWS = """
import flask, sentry_sdk, sentry_sdk.transport

class Nowhere(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        pass

app = flask.Flask(__name__)

def read():
    return flask.request.get_data()

@app.put("/one/<name>")
def one(name):
    read()
    return flask.Response(status=401)

@app.put("/two/<name>")
def two(name):
    read()
    return flask.Response(status=403)

@app.put("/unread/<name>")
def unread(name):
    return flask.Response(status=403)

def start_sentry(**options):
    sentry_sdk.init(
        dsn="http://key@localhost/1", transport=Nowhere, traces_sample_rate=1.0, **options
    )
    return app
"""

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def warnings_of(folder, app, *uploads):
    """Upload to these paths in turn; return the warnings in the log."""
    folder.joinpath("views.py").write_text(VIEWS, "utf-8")
    with Server(
        app=app, env={"PYTHONPATH": os.pathsep.join(map(str, (folder, CHECKOUT)))}
    ) as server:
        for path, head, body in uploads:
            with Client(server) as client:
                client.send(request(f"PUT {path}", head, "Connection: close"), body)
                assert client.receive_all().startswith(b"HTTP/1.1 40")
            # The client has the response before the log has its line.
            server.wait_for_log(f"PUT {path} ")
        return [line for line in server.lines if "[WARNING]" in line]


LARGE = ("Content-Length: 65537", bytes(65537))
IN_CHUNKS = ("Transfer-Encoding: chunked", CHUNKED)


def test_the_warning_is_logged_once_for_each_view_with_the_applications_own_line(tmp_path):
    uploads = [(path, *LARGE) for path in ("/one/a", "/one/b", "/two/c", "/two/d")]
    one, two = warnings_of(tmp_path, "views:app", *uploads)
    assert "PUT '/one/a' was answered with '401 UNAUTHORIZED'" in one
    assert "PUT '/two/c' was answered with '403 FORBIDDEN'" in two
    line = VIEWS[: VIEWS.index("return flask.request")].count("\n") + 1
    place = f"It was first read in views.read ({tmp_path}/views.py, line {line}) by werkzeug."
    assert place in one
    assert place in two


@pytest.mark.parametrize(
    ("options", "upload", "count"),
    [
        ("max_request_body_size='always'", LARGE, 1),
        ("max_request_body_size='medium'", IN_CHUNKS, 1),
        ("max_request_body_size='never'", IN_CHUNKS, 0),
    ],
)
def test_the_warning_names_sentrys_sdk_if_it_reads_an_upload_that_a_view_refuses(
    tmp_path, options, upload, count
):
    found = warnings_of(tmp_path, f"views:start_sentry({options})", ("/unread/a", *upload))
    assert len(found) == count
    for line in found:
        assert "sentry_sdk.integrations.flask" in line
        assert "Sentry's SDK read it: set its max_request_body_size to 'never'" in line


def test_a_refusal_without_a_read_logs_no_warning():
    with Server() as server:
        with Client(server) as client:
            client.send(waiting("PUT /refuse?status=403+Forbidden", "Content-Length: 5"))
            client.receive_all()
        server.wait_for_log("PUT /refuse")
        assert not [line for line in server.lines if "[WARNING]" in line]


def test_the_warning_of_a_late_refusal_can_be_turned_off():
    with Server(env={"GUNICORN_EXPECT_WARN": "false"}) as server:
        with Client(server) as client:
            client.send(request("PUT /read-then-refuse", "Content-Length: 65537"), bytes(65537))
            client.receive_head()
        server.wait_for_log("PUT /read-then-refuse")
        assert not [line for line in server.lines if "[WARNING]" in line]


# A 2xx response to an unread body.

LOST = r"The application answered PUT '/hello' with '200 OK' and did not read the body"
CHUNK = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (waiting("PUT /hello", "Content-Length: 5"), b""),
        (waiting("PUT /hello", "Transfer-Encoding: chunked"), b""),
        (request("PUT /hello", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (request("PUT /hello", "Content-Length: 65537", "Connection: close"), bytes(65537)),
    ],
    ids=["waits", "waits, in chunks", "in chunks", "large"],
)
def test_a_2xx_response_to_an_unread_body_logs_a_warning_once(worker, head, body):
    with Server(worker=WORKERS[worker][0]) as server:
        for _ in range(2):
            with Client(server) as client:
                client.send(head, body)
                assert client.receive_all().startswith(b"HTTP/1.1 200 OK\r\n")
        server.wait_for_log(LOST)
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert len([line for line in server.lines if re.search(LOST, line)]) == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("PUT /hello", "Content-Length: 5", "Connection: close"), b"hello"),
        (request("PUT /hello", "Transfer-Encoding: chunked", "Connection: close"), CHUNK[-5:]),
        (request("PUT /read", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (request("PUT /write-while-iterated?yr", "Content-Length: 65537"), bytes(65537)),
        (request("PUT /refuse", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (waiting("PUT /start?500+Error", "Content-Length: 65537"), b""),
    ],
    ids=["a short form", "no bytes", "read", "read when the response has begun", "refused", "500"],
)
def test_other_responses_log_no_warning_of_a_lost_body(head, body):
    with Server() as server:
        with Client(server) as client:
            client.send(head, body)
            client.shut_down()
            assert client.receive_all().startswith(b"HTTP/1.1 ")
        server.wait_for_log(r" HTTP/1.1 -> \d+ ")
        assert not [line for line in server.lines if "[WARNING]" in line]


def test_the_warning_of_a_lost_body_can_be_turned_off():
    with Server(env={"GUNICORN_EXPECT_WARN": "false"}) as server:
        with Client(server) as client:
            client.send(waiting("PUT /hello", "Content-Length: 5"))
            client.receive_all()
        server.wait_for_log("PUT /hello")
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert not [line for line in server.lines if "[WARNING]" in line]
