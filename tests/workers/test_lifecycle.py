"""What happens around requests: stopping, reloading, max_requests, several addresses, closing.

With each worker, on the transports for which it makes a difference.
"""

import contextlib
import json
import signal
import socket

import pytest

from support import PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.ended import refusal_of
from support.matrix import WORKERS
from support.server import Server

#: With this configuration a worker logs when it is ready and when it gets SIGTERM.
CONFIGURATION = """
import os
import signal

def say(worker, what):
    os.write(1, f"worker {worker.pid} {what}\\n".encode())

def post_worker_init(worker):
    def on_term(*arguments):
        say(worker, "is told to stop")
        stop(*arguments)

    stop = signal.signal(signal.SIGTERM, on_term)
    say(worker, "is ready")
"""


@pytest.fixture
def start(worker, tmp_path):
    """Return a function that makes a server with this worker; its access log has the pid."""
    configuration = tmp_path / "configuration.py"
    configuration.write_text(CONFIGURATION, "utf-8")

    def make(*arguments, **options):
        return Server(
            *("-c", str(configuration), "--access-logformat", "%(p)s %(r)s -> %(s)s"),
            *arguments,
            worker=WORKERS[worker][0],
            **options,
        )

    return make


def pid_of_worker_that_served(server, line):
    return server.wait_for_log(rf"^<(\d+)> {line} HTTP/1\.1 -> 200$")[1]


def next_worker(server, pid):
    """Wait for a worker other than this one; return its pid."""
    return server.wait_for_log(rf"worker (?!{pid} )(\d+) is ready")[1]


def upload(client, path="/read", body=b"a body of 18 bytes"):
    """Upload a body after the 100; return the head and the body of the response."""
    client.send(waiting(f"PUT {path}", f"Content-Length: {len(body)}"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(body)
    return client.receive_response()


def check_accept_and_refuse(server, *address):
    """Check that an upload that is read gets a 100, and that one that is refused gets none."""
    with Client(server, *address) as client:
        head, body = upload(client)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"a body of 18 bytes"
    with Client(server, *address) as client:
        client.send(waiting("PUT /refuse", "Content-Length: 5"))
        answer = client.receive_all()
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1


# Stopping and reloading.


@contextlib.contextmanager
def client_that_waits(server):
    """Yield a client that waits; the application has been called and has not read yet."""
    with Client(server) as client:
        client.send(waiting("PUT /read-after-event?signalled", "Content-Length: 5"))
        server.board.wait("entered-signalled")
        yield client


def finish_the_upload(server, client):
    """Let the application read, and check its response."""
    server.board.set("signalled")
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == ["hello", "continued"]


def stop(server):
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Handling signal: term")
    server.wait_for_log(r"worker \d+ is told to stop")


def check_that_it_stopped_in_order(server):
    assert server.process.wait(PATIENCE) == 0
    server.wait_for_log("Shutting down: Master")
    server.wait_for_log(r"Worker exiting \(pid: \d+\)")


def test_a_client_that_waits_when_the_server_is_stopped_gets_its_100_and_its_response(start):
    with start("--graceful-timeout", "30") as server:
        with client_that_waits(server) as client:
            stop(server)
            finish_the_upload(server, client)
        check_that_it_stopped_in_order(server)


def test_an_upload_that_is_half_sent_when_the_server_is_stopped_is_finished(start):
    with start("--graceful-timeout", "30") as server:
        with Client(server) as client:
            client.send(waiting("PUT /read", "Content-Length: 10"))
            assert client.receive(len(CONTINUE)) == CONTINUE
            client.send(b"first")
            stop(server)
            client.send(b" last")
            head, body = client.receive_response()
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == b"first last"
        check_that_it_stopped_in_order(server)


def test_a_client_that_waits_when_the_server_is_reloaded_is_served_by_the_old_worker(start):
    with start("--graceful-timeout", "30") as server:
        old = server.wait_for_log(r"worker (\d+) is ready")[1]
        with client_that_waits(server) as client:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("Handling signal: hup")
            new = next_worker(server, old)
            server.wait_for_log(f"worker {old} is told to stop")
            finish_the_upload(server, client)
        line = r"PUT /read-after-event\?signalled"
        assert pid_of_worker_that_served(server, line) == old
        server.wait_for_log(rf"Worker exiting \(pid: {old}\)")
        check_accept_and_refuse(server)
        assert pid_of_worker_that_served(server, "PUT /read") == new


def test_a_client_that_waits_gets_its_100_in_the_last_request_of_max_requests(start):
    with start("--max-requests", "1", "--graceful-timeout", "30") as server:
        old = server.wait_for_log(r"worker (\d+) is ready")[1]
        with client_that_waits(server) as client:
            server.wait_for_log("Autorestarting worker after current request")
            server.board.set("signalled")
            assert client.receive(len(CONTINUE)) == CONTINUE
            client.send(b"hello")
            head, body = client.receive_response()
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in head
            assert json.loads(body) == ["hello", "continued"]
            assert client.receive_all() == b""
        new = next_worker(server, old)
        with Client(server) as client:
            assert upload(client)[1] == b"a body of 18 bytes"
        assert pid_of_worker_that_served(server, "PUT /read") == new


# Several addresses, several workers.


@pytest.mark.parametrize("second", ["127.0.0.1:0", "unix:{}/socket"], ids=["tcp", "unix"])
def test_uploads_are_accepted_and_refused_on_every_address(start, tmp_path, second):
    binds = ("--bind", "127.0.0.1:0", "--bind", second.format(tmp_path))
    with start(*binds) as server:
        assert len(set(server.addresses)) == 2
        for _ in range(2):
            for address in server.addresses:
                check_accept_and_refuse(server, address)


def test_uploads_are_accepted_and_refused_with_reuse_port(start):
    with socket.socket() as reserving, contextlib.ExitStack() as stack:
        # Bound, but not listening: it reserves the port, which the workers share.
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserving.bind(("127.0.0.1", 0))
        host, port = reserving.getsockname()
        server = start("--reuse-port", "--workers", "2", "--bind", f"{host}:{port}")
        stack.push(server)  # not entered: with this option the log names no address to wait for
        server.address = (host, port)
        next_worker(server, server.wait_for_log(r"worker (\d+) is ready")[1])
        served = set()
        for number in range(20):
            check_accept_and_refuse(server)
            with Client(server) as client:
                assert upload(client, f"/read?{number}")[0].startswith(b"HTTP/1.1 200 OK\r\n")
            served.add(pid_of_worker_that_served(server, rf"PUT /read\?{number}"))
        assert len(served) == 2


# Starting.


@pytest.mark.parametrize("where", ["command line", "configuration file"])
def test_the_sync_worker_refuses_threads_and_names_the_worker_that_has_them(tmp_path, where):
    threads = ["--threads", "2"]
    if where == "configuration file":
        configuration = tmp_path / "configuration.py"
        configuration.write_text("threads = 2\n", "utf-8")
        threads = ["-c", str(configuration)]
    line = refusal_of("-k", WORKERS["sync"][0], *threads)
    assert line.startswith("Error: gunicorn_expect.Sync ")
    assert "threads is 2" in line
    assert "use gunicorn_expect.Worker" in line


# Closing.


def test_a_read_after_the_response_has_started_times_out(start, worker):
    env = {"GUNICORN_EXPECT_BODY_TIMEOUT": "1"}
    with start(env=env) as server, Client(server) as client:
        client.send(waiting("PUT /yield-then-read", "Content-Length: 5"))
        head = client.receive_head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in head
        assert client.receive(6) == b"first "
        if worker != "sync":
            assert server.get("/hello") == b"hello"
        assert client.receive_all() == b""
        gave_up = r"BodyTimeout: .* nothing came from the client for 1 s"
        gave_up = server.wait_for_log(gave_up).string
        if worker != "sync":
            pid = pid_of_worker_that_served(server, "GET /hello")
            hello = f"<{pid}> GET /hello HTTP/1.1 -> 200"
            assert server.lines.index(hello) < server.lines.index(gave_up)  # nobody else waited


@pytest.mark.parametrize("worker", ["gevent", "sync"], indirect=True)
def test_a_base_exception_gets_500_and_the_worker_survives(start):
    with start() as server:
        with Client(server) as client:
            client.send(waiting("PUT /fail-badly", "Content-Length: 5"))
            assert client.receive_all().startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        server.wait_for_log("BaseException: the application failed badly")
        check_accept_and_refuse(server)
        assert len([line for line in server.lines if "Booting worker" in line]) == 1


@pytest.mark.parametrize("worker", ["gevent"], indirect=True)
def test_without_keepalive_the_connection_closes_when_the_application_exits(start):
    with start("--keep-alive", "0") as server, Client(server) as client:
        client.send(request("GET /exit"))
        assert client.receive_all() == b""


@pytest.mark.parametrize("worker", ["thread", "gevent"], indirect=True)
def test_without_keepalive_the_server_still_waits_for_a_first_request(start):
    with start("--keep-alive", "0") as server, Client(server) as early:
        for _ in range(3):
            assert server.get("/hello") == b"hello"
        # By now it has been accepted, because it connected before the others.
        early.send(request("GET /hello"))
        head, body = early.receive_response()
        assert b"\r\nConnection: close\r\n" in head
        assert body == b"hello"


@pytest.fixture
def tls_socket(start, certificates):
    """Yield a TLS connection on which a FIN without a close_notify is an error."""
    context = certificates.trust()
    with (
        start("--keep-alive", "1", transport="tls", certificates=certificates) as server,
        socket.create_connection(server.address, PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
    ):
        yield tls


def receive_to_close_notify(tls):
    """Receive until the close_notify. A FIN without one raises ssl.SSLEOFError."""
    return b"".join(iter(lambda: tls.recv(65536), b""))


def test_a_refusal_over_tls_ends_with_a_close_notify(tls_socket):
    tls_socket.sendall(waiting("PUT /refuse", "Content-Length: 5"))
    answer = receive_to_close_notify(tls_socket)
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("worker", ["thread", "gevent"], indirect=True)
def test_an_idle_connection_over_tls_ends_with_a_close_notify(tls_socket):
    tls_socket.sendall(request("GET /hello"))
    answer = receive_to_close_notify(tls_socket)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in answer
    assert answer.endswith(b"\r\n\r\nhello")
