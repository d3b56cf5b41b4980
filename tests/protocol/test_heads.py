"""The main loop of the thread worker, on the wire: it waits for heads and calls inline policies."""

import contextlib
import re
import signal
import uuid

import pytest

from support.client import CONTINUE, Client, request, waiting
from support.server import Server

HEAD = b"GET /hello HTTP/1.1\r\nHost: test\r\n"
THREADS = 2
SLOW = ["--threads", str(THREADS), "--keep-alive", "5"]


@pytest.fixture(scope="module")
def server():
    with Server(*SLOW) as server:
        yield server


def hello(client):
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"


def test_clients_that_send_half_a_head_occupy_no_thread(server):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(4 * THREADS)]
        for number, client in enumerate(clients):
            if number % 2:
                hello(client)  # half of them are on kept connections
            client.send(HEAD)
        for _ in range(3):
            assert server.get("/hello") == b"hello"
        for client in clients:
            client.send(b"\r\n")
            assert client.receive_response()[1] == b"hello"


def test_a_head_may_arrive_byte_by_byte(server):
    with Client(server) as client:
        for head in (request("GET /hello"), b"\r\n" + request("GET /hello")):
            for byte in head:
                client.send(bytes([byte]))
            assert client.receive_response()[1] == b"hello"


def test_requests_that_arrive_together_are_answered_in_order(server):
    with Client(server) as client:
        upload = request("PUT /read", "Content-Length: 5") + b"hello"
        get = request("GET /hello")
        client.send(get, upload, get, upload[:20])
        for body in (b"hello",) * 3:
            assert client.receive_response()[1] == body
        client.send(upload[20:])
        assert client.receive_response()[1] == b"hello"


def test_a_client_that_waits_on_a_kept_connection_gets_its_100(server):
    with Client(server) as client:
        hello(client)
        for _ in range(3):  # until no thread stays with the connection
            assert server.get("/hello") == b"hello"
        for _ in range(2):
            client.send(waiting("PUT /read", "Content-Length: 5"))
            assert client.receive_head() == CONTINUE
            client.send(b"hello")
            assert client.receive_response()[1] == b"hello"


def test_a_head_that_arrives_byte_by_byte_without_end_gets_408():
    env = {"GUNICORN_EXPECT_HEAD_TIMEOUT": "0.2"}
    with (
        Server(*SLOW, env=env) as server,
        Client(server) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.socket.settimeout(0.01)
        answer = b""
        for byte in b"GET /" + b"x" * 3000:
            client.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer += client.socket.recv(4096)
            if answer:
                break
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"GET /" + b"x" * 5000,
        b"GET / HTTP/1.1\r\nx: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200000,
        b"NONSENSE\r\n\r\n",
        request("GET /hello", "Expect: x"),
    ],
)
def test_an_invalid_head_gets_the_same_status_line_as_from_stock_gunicorn(head):
    answers = []
    for worker in ("gunicorn_expect.Worker", "gthread"):
        with Server("--http-parser", "python", worker=worker) as server, Client(server) as client:
            with contextlib.suppress(ConnectionError):
                client.send(head)
            # Only the status line: the page names the byte where parsing failed, which may differ.
            answers.append(client.receive_until(b"\r\n"))
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 4")


def test_a_stopping_worker_waits_only_for_heads_that_have_begun():
    with Server("--graceful-timeout", "20", *SLOW) as server:
        with Client(server) as begun, Client(server) as idle:
            begun.send(HEAD)
            assert server.get("/hello") == b"hello"
            server.process.send_signal(signal.SIGTERM)
            assert idle.receive_all() == b""
            begun.send(b"\r\n")
            head, body = begun.receive_response()
            assert b"\r\nConnection: close\r\n" in head
            assert body == b"hello"
        server.process.wait(10)


def test_a_full_worker_accepts_again_when_a_thread_has_closed_a_connection():
    with Server("--worker-connections", "3", "--threads", "1", "--keep-alive", "0") as server:
        for _ in range(20):
            assert server.get("/hello") == b"hello"


# Inline policies.

INLINE = {"GUNICORN_EXPECT_POLICY": "apps.deciding:inline_policy"}
LENGTH = "Content-Length: 5"


@pytest.fixture(scope="module")
def inline():
    with Server("--threads", "1", env=INLINE) as server:
        yield server


@pytest.fixture(scope="module")
def threaded():
    with Server("--threads", "1", env={"GUNICORN_EXPECT_POLICY": "apps.deciding:policy"}) as server:
        yield server


@contextlib.contextmanager
def busy(server):
    """Keep the only thread of a server busy, so that only its loop can answer."""
    event = f"go-{uuid.uuid4()}"
    with Client(server) as client:
        client.send(request(f"PUT /read-after-event?{event}", LENGTH))
        server.board.wait(f"entered-{event}")
        yield
        server.board.set(event)
        client.send(b"hello")
        client.receive_response()


def refused(server, path, *fields):
    """Return the answer to a client that waits."""
    with Client(server) as client:
        client.send(waiting(f"PUT {path}", LENGTH, "X-Decide: refuse 403", *fields))
        return client.receive_all()


def test_a_refusal_by_an_inline_policy_takes_no_thread(inline):
    with busy(inline):
        assert refused(inline, "/read").startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("fields", [[], ["X-A: 1", "X-A: 2"]], ids=["plain", "not plain"])
@pytest.mark.parametrize(
    "understands", [[], ["Upload-Complete: ?1"]], ids=["does not understand", "understands"]
)
def test_early_hints_of_an_inline_policy_go_to_a_client_that_understands(
    inline, fields, understands
):
    with busy(inline):  # so that the loop calls the policy
        answer = refused(inline, "/read", "X-Hint: 1", *fields, *understands)
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" if understands else b""
    assert answer.startswith(hints + b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize("head", [waiting, request])
@pytest.mark.parametrize(
    "decision",
    ["nothing", "proceed", "refuse 413", "refuse 403 no", "limit 3", "raise", "nonsense 1", "read"],
)
def test_an_inline_policy_leads_to_the_same_response_as_one_on_a_thread(
    inline, threaded, head, decision
):
    answers = []
    for server in (inline, threaded):
        with Client(server) as client:
            client.send(head("PUT /read", LENGTH, f"X-Decide: {decision}", "Connection: close"))
            if head is request or decision.split()[0] in ("nothing", "proceed", "limit", "read"):
                client.send(b"hello")
            # There may be a 100 or none: the body may arrive before it is asked for.
            answer = re.sub(
                rb"^HTTP/1.1 100 .*?\r\n\r\n", b"", client.receive_all(), flags=re.DOTALL
            )
            answers.append(re.sub(rb"\r\nDate: .*?\r\n", b"\r\n", answer))
    assert answers[0] == answers[1]


def test_the_loop_does_not_wait_for_the_rest_of_a_refused_body():
    with Server("--threads", "2", env=INLINE) as server, Client(server) as client:
        client.send(request("PUT /read", LENGTH, "X-Decide: refuse 403"))
        assert client.receive_head().startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert server.get("/hello") == b"hello"
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # the connection is open: a thread waits for the rest
            client.socket.recv(1)


def test_an_inline_policy_refuses_on_a_thread_on_a_kept_connection(inline):
    with Client(inline) as client:
        client.send(request("GET /hello"))
        client.receive_response()
        client.send(waiting("PUT /read", LENGTH, "X-Decide: refuse 403"))
        assert client.receive_all().startswith(b"HTTP/1.1 403 Forbidden\r\n")


HOOKS = """
def pre_request(worker, req):
    worker.log.info("before %s", req.path)
    if req.path == "/hook":
        raise LookupError("of a hook")

def post_request(worker, req, environ, response):
    worker.log.info("after %s: %s", req.path, response.status)
    raise LookupError("of the other one")
"""


def test_hooks_and_access_log_see_a_refusal_in_the_loop(tmp_path):
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOKS, "utf-8")
    log = tmp_path / "access"
    options = ["--config", str(hooks), "--threads", "1", "--access-logfile", str(log)]
    options += ["--access-logformat", "%(U)s %(s)s %(B)s %({gunicorn_expect.expectation}e)s"]
    with Server(*options, env=INLINE) as server, busy(server):
        assert refused(server, "/read").startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert refused(server, "/hook").startswith(b"HTTP/1.1 500 ")
        assert refused(server, "/read").startswith(b"HTTP/1.1 403 Forbidden\r\n")
    messages = [line.partition("[INFO] ")[2] for line in server.lines]
    assert [line for line in messages if line.startswith(("before", "after"))] == [
        "before /read-after-event",
        *("before /read", "after /read: 403 Forbidden"),
        "before /hook",  # then post_request gets no response, as in gunicorn, and fails
        *("before /read", "after /read: 403 Forbidden"),
        "after /read-after-event: 200 OK",
    ]
    assert log.read_text("utf-8").splitlines() == [
        "/read 403 0 declined",
        "None 500 0 -",  # gunicorn's line for a request whose hook failed
        "/read 403 0 declined",
        "/read-after-event 200 17 none",
    ]


def test_a_refusal_in_the_loop_counts_for_max_requests():
    with Server("--threads", "1", "--max-requests", "3", env=INLINE) as server:
        for _ in range(3):
            assert refused(server, "/read").startswith(b"HTTP/1.1 403 ")
    assert sum("Autorestarting worker" in line for line in server.lines) == 1


def test_a_slow_inline_policy_is_logged_once_by_its_name():
    with Server(env=INLINE) as server:
        for _ in range(2):
            with Client(server) as client:
                client.send(waiting("PUT /read", LENGTH, "X-Decide: refuse 403", "X-Slowly: yes"))
                client.receive_all()
        server.get("/hello")
        warnings = [line for line in server.lines if "apps.deciding.inline_policy took" in line]
        assert len(warnings) == 1
