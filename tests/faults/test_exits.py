"""SystemExit, raised by an application, a policy or a hook: our workers do what gunicorn's do.

gunicorn's thread worker ends, unless SystemExit is raised while the response is iterated, and the
next worker serves at once. gunicorn's other workers go on.
"""

import time

import pytest

from faults.destruction import start, state
from faults.unfriendly import http2
from support.client import Client, request, waiting
from support.matrix import WORKERS

#: Maximum seconds for an exit. A worker that is held up ends only after gunicorn's timeout, 30 s.
AT_ONCE = 15

#: After an exit, gevent's workers close a connection only after these seconds.
KEPT_BRIEFLY = ("--keep-alive", "1")

#: Where SystemExit is raised, and what is sent for it.
PLACES = {
    "view": request("GET /exit"),
    "view of an upload": request("POST /exit", "Content-Length: 5") + b"hello",
    "pre_request": request("GET /exit-in-pre-request"),
    "response": request("GET /exit-while-iterated"),
    "post_request": request("GET /exit-in-post-request"),
}

#: Places that stock gunicorn does not have.
OUR_PLACES = {
    "policy": request("POST /exit-in-policy", "Content-Length: 5") + b"hello",
    "policy, waiting": waiting("POST /exit-in-policy", "Content-Length: 5"),
    "inline policy": request("POST /exit-in-inline-policy", "Content-Length: 5") + b"hello",
    "inline policy, waiting": waiting("POST /exit-in-inline-policy", "Content-Length: 5"),
}

#: Places that are reached after the first byte of the response.
LATE = ("response", "post_request")

#: How the response begins if SystemExit is raised before that; b"": the connection is closed.
ANSWERS = {"thread": b"", "gevent": b"", "sync": b"HTTP/1.1 500"}

#: gunicorn's own workers run the same tests, so that what we say of them is checked, too.
KINDS = [
    (worker, whose, transport)
    for worker in WORKERS
    for whose, transport in (("ours", "tcp"), ("ours", "tls"), ("stock", "tcp"))
]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def served(kind, certificates):
    worker, whose, transport = kind
    with start(
        worker,
        *KEPT_BRIEFLY,
        stock=whose == "stock",
        transport=transport,
        certificates=certificates,
        GUNICORN_EXPECT_POLICY="faults.faulty:policy",
    ) as server:
        yield server


def exits(server, sent):
    """Send this on a connection of its own; return the response, read until the server closes."""
    with Client(server) as client:
        client.send(sent)
        return client.receive_all()


def check_next_worker_serves(server, pid):
    """Check that the worker has ended in order, and that another one serves."""
    server.wait_for_log(f"worker_exit has run in {pid}")
    server.wait_for_log(f"atexit has run in {pid}")
    assert state(server)["pid"] != pid


@pytest.mark.parametrize("place", PLACES | OUR_PLACES)
def test_an_exit_ends_a_thread_worker_as_in_stock_gunicorn_and_no_other_worker(served, kind, place):
    worker, whose, _ = kind
    if whose == "stock" and place in OUR_PLACES:
        pytest.skip("stock gunicorn has no policy")
    pid = state(served)["pid"]
    begun = time.monotonic()
    answer = exits(served, (PLACES | OUR_PLACES)[place])
    assert answer[:12] == (b"HTTP/1.1 200" if place in LATE else ANSWERS[worker])
    if worker == "thread" and place != "response":
        check_next_worker_serves(served, pid)
    else:
        assert state(served)["pid"] == pid
    assert time.monotonic() - begun < AT_ONCE


@pytest.mark.parametrize("whose", ["ours", "stock"])
@pytest.mark.parametrize("worker", ["thread", "gevent"])
def test_an_exit_on_a_stream_of_http_2_does_the_same(worker, whose):
    with start(
        worker,
        *KEPT_BRIEFLY,
        *("--http-protocols", "h1,h2", "--http2-cleartext", "both"),
        stock=whose == "stock",
    ) as server:
        for line in ("GET /exit", "PUT /exit"):
            pid = state(server)["pid"]
            begun = time.monotonic()
            exits(server, http2(line).data)
            if worker == "thread":
                check_next_worker_serves(server, pid)
            else:
                assert state(server)["pid"] == pid
            assert time.monotonic() - begun < AT_ONCE


@pytest.mark.parametrize("whose", ["ours", "stock"])
def test_an_upload_on_another_thread_is_finished_when_a_view_exits(whose):
    with start("thread", "--graceful-timeout", "30", stock=whose == "stock") as server:
        pid = state(server)["pid"]
        with Client(server) as upload, Client(server) as client:
            upload.send(waiting("POST /read", "Content-Length: 10"))
            assert b" 100 " in upload.receive_head()
            client.send(request("GET /exit"))
            upload.send(b"first")
            time.sleep(2)  # a worker that does not wait for it has ended by then
            upload.send(b" last")
            assert upload.receive_response()[1] == b"10"
        check_next_worker_serves(server, pid)
