"""A refusal reaches its client: connections that close while a body is on its way.

With each worker, over TCP and TLS. The clients here are strict: for them a reset is an error, and
so is the end of a TLS connection without a close_notify.
"""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests
import urllib3

from support import PATIENCE
from support.client import Client, request, waiting
from support.installed import missing
from support.matrix import WORKERS
from support.sending import sending_on
from support.server import Server

MEGABYTE = 1_000_000
BODY = 20 * MEGABYTE
HALF = bytes(BODY // 2)

#: Longer than any test takes.
NEVER = {"GUNICORN_EXPECT_LINGER": "600", "GUNICORN_EXPECT_LINGER_IDLE": "600"}


class StrictClient(Client):
    """A client for which a reset is an error."""

    def __init__(self, server):
        super().__init__(server)
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.suppress_ragged_eofs = False

    def _more(self):
        data = self.socket.recv(65536)
        self.unread += data
        return bool(data)

    def check_refused(self, status=413):
        """Receive a whole response with this status, and nothing more until the server's FIN.

        After that, this client sends without TLS.
        """
        head, body = self.receive_response()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        length = f"\r\nContent-Length: {len(body)}\r\n".encode()
        assert length in head
        self.check_end()

    def check_end(self):
        """Receive the close_notify, if this is TLS, and the FIN."""
        assert self.receive_all() == b""
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket = socket.socket(fileno=self.socket.detach())
            self.socket.settimeout(PATIENCE)
            assert self.receive_all() == b""

    def check_server_reads_on(self):
        """Send more than the kernels buffer: that works only if the server reads."""
        self.send(HALF)

    def check_closed(self, *, every=0.0):
        """Send every so many seconds until that fails, because the server has closed its socket."""
        give_up = time.monotonic() + PATIENCE
        pause = threading.Event()

        def send():
            while time.monotonic() < give_up:
                pause.wait(every)
                self.send(b"more")

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send()


#: How often a test that depends on timing tries.
TIMES = 20


def one_at_a_time(worker):
    """Let a worker answer one request at a time, if it has threads."""
    return ["--threads", "1"] if worker == "thread" else []


@pytest.fixture(scope="module")
def server(worker, transport, certificates):
    """A server that lingers longer than any test, and answers one request at a time."""
    with Server(
        *("--keep-alive", "1", *one_at_a_time(worker)),
        worker=WORKERS[worker][0],
        transport=transport,
        certificates=certificates,
        env=NEVER,
    ) as server:
        yield server


@pytest.fixture
def start(worker):
    """Return a function that makes a server with this worker, over TCP."""

    def make(*arguments, **env):
        return Server(
            *(*one_at_a_time(worker), *arguments), worker=WORKERS[worker][0], env=NEVER | env
        )

    return make


def refused(server, stack):
    """Return a client that has received its refusal and keeps its connection open."""
    client = stack.enter_context(StrictClient(server))
    client.send(waiting("PUT /refuse-with-body", f"Content-Length: {BODY}"))
    client.check_refused()
    return client


# A client that is still sending.


STILL_SENDING = {
    "unread": (413, request("PUT /refuse-with-body", f"Content-Length: {BODY}")),
    "unread-chunked": (
        413,
        request("PUT /refuse-with-body", "Transfer-Encoding: chunked") + b"%X\r\n" % BODY,
    ),
    "half-read": (500, request("PUT /read-some-and-fail?1000000", f"Content-Length: {BODY}")),
    "failed": (500, request("PUT /fail", f"Content-Length: {BODY}")),
    "unknown-expectation": (
        417,
        request("PUT /read", "Expect: the best", f"Content-Length: {BODY}"),
    ),
    "bad-head": (400, request("PUT /read", "Bad Name: x", f"Content-Length: {BODY}")),
    "large-head": (
        431,
        request("PUT /read", *(f"X-{n}: x" for n in range(200)), f"Content-Length: {BODY}"),
    ),
}


@pytest.mark.parametrize("what", STILL_SENDING)
def test_a_client_that_is_still_sending_gets_the_whole_response_and_the_server_reads_on(
    server, what
):
    status, head = STILL_SENDING[what]
    with StrictClient(server) as client:
        client.send(head, HALF)
        client.check_refused(status)
        client.check_server_reads_on()


def test_a_client_that_sends_a_declined_body_gets_the_whole_response_and_the_server_reads_on(
    server,
):
    with contextlib.ExitStack() as stack:
        refused(server, stack).check_server_reads_on()


def test_a_client_that_sends_everything_before_it_reads_gets_the_whole_response(server):
    for _ in range(TIMES):
        with StrictClient(server) as client:
            client.send(STILL_SENDING["half-read"][1], HALF, HALF)
            client.check_refused(500)


@pytest.mark.parametrize("size", [64 * 1024, 4 * 1024**2], ids=["64K", "4M"])
def test_a_client_with_a_small_receive_window_gets_the_whole_response(server, size):
    for _ in range(TIMES):
        with StrictClient(SmallWindow(server)) as client:
            client.send(
                request(f"PUT /refuse-at-length?{size}", f"Content-Length: {BODY}"), HALF, HALF
            )
            head, body = client.receive_response()
            assert head.startswith(b"HTTP/1.1 413 ")
            assert len(body) == size


class SmallWindow:
    """Connects clients to a server over TCP or TLS with a small receive buffer."""

    def __init__(self, server):
        self._server = server

    def connect(self):
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(self._server.address)
        certificates = self._server._certificates  # noqa: SLF001  as Server.connect does
        if self._server._transport == "tls":  # noqa: SLF001
            return certificates.trust().wrap_socket(sock, server_hostname="localhost")
        return sock


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_the_first_part_of_a_response_that_breaks_off_is_received(server):
    with StrictClient(server) as client:
        client.send(request("PUT /fail-after-first-byte", f"Content-Length: {BODY}"), HALF)
        assert client.receive_head().startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.receive(5) == b"first"
        client.check_end()
        client.check_server_reads_on()


# Other clients.


#: Clients. If a worker spent 2 s on each of them, others would wait for longer than a test does.
MANY = 12


def test_clients_that_never_close_do_not_keep_others_from_being_served(server):
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(MANY):
            clients.append(stack.enter_context(StrictClient(server)))
            clients[-1].send(waiting("PUT /refuse-with-body", f"Content-Length: {BODY}"))
        assert server.get("/hello") == b"hello"
        for client in clients:
            client.check_refused()
        assert server.get("/hello") == b"hello"
        for client in clients:
            client.check_server_reads_on()


def test_clients_that_trickle_do_not_keep_others_from_being_served(server):
    with contextlib.ExitStack() as stack:
        clients = [refused(server, stack) for _ in range(MANY)]
        for _ in range(20):
            for client in clients:
                client.send(b"x")
            assert server.get("/hello") == b"hello"


def test_clients_that_did_not_wait_and_stall_do_not_keep_others_from_being_served(server):
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(MANY):
            clients.append(stack.enter_context(StrictClient(server)))
            clients[-1].send(request("PUT /refuse-with-body", f"Content-Length: {BODY}"), b"x")
        assert server.get("/hello") == b"hello"
        for client in clients:
            client.check_refused()


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_a_client_that_did_not_wait_and_trickles_does_not_keep_others_from_being_served(server):
    with StrictClient(server) as client:
        client.send(request("PUT /refuse-with-body", f"Content-Length: {BODY}"), b"x")
        assert client.receive_response()[1] == b"too large"
        with sending_on(client.send):
            assert server.get("/hello") == b"hello"


@pytest.mark.parametrize("worker", ["thread"], indirect=True)
@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_refused_clients_that_stay_connected_occupy_no_threads(transport, start):
    with start("--threads", "8") as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            clients = [stack.enter_context(StrictClient(server)) for _ in range(8)]
            for client in clients:
                client.send(waiting("PUT /refuse-with-body", f"Content-Length: {BODY}"))
            for client in clients:
                client.check_refused()
            assert server.get("/hello") == b"hello"


# How long connections linger, and how many.


def wait_for_open_files(server, number):
    give_up = time.monotonic() + PATIENCE
    while (found := json.loads(server.get("/open-files"))) > number:
        assert time.monotonic() < give_up, f"{found} files are open instead of {number}"


@contextlib.contextmanager
def no_file_left_open(server):
    """Check that the worker has no more files open at the end than at the beginning."""
    with contextlib.ExitStack() as stack:
        refused(server, stack)  # the first refusal may open files that stay open
    server.get("/open-files")
    before = json.loads(server.get("/open-files"))
    yield
    wait_for_open_files(server, before)


def test_a_client_that_sends_nothing_is_closed_after_the_idle_time(start):
    with start(GUNICORN_EXPECT_LINGER_IDLE="0.2") as server, contextlib.ExitStack() as stack:
        # Every 0.5 s: a client that sends within the idle time restarts it.
        refused(server, stack).check_closed(every=0.5)


def test_a_client_that_trickles_is_closed_after_the_total_time(start):
    with start(GUNICORN_EXPECT_LINGER="0.5") as server, contextlib.ExitStack() as stack:
        refused(server, stack).check_closed()


def test_a_client_that_closes_leaves_no_file_open(start):
    with start() as server, no_file_left_open(server):
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                refused(server, stack).check_server_reads_on()


def test_no_more_than_worker_connections_linger_and_the_oldest_goes_first(start):
    with start("--worker-connections", "3") as server, contextlib.ExitStack() as stack:
        clients = [refused(server, stack) for _ in range(5)]
        for client in clients[:2]:
            client.check_closed()
        for client in clients[2:]:
            client.check_server_reads_on()


# The end of the server.


def stop(server):
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Handling signal: term")


def test_a_server_that_stops_reads_on_until_the_last_client_has_closed(start):
    with start("--graceful-timeout", "60") as server:
        with contextlib.ExitStack() as stack:
            clients = [refused(server, stack) for _ in range(3)]
            stop(server)
            for client in clients:
                client.check_server_reads_on()
        assert server.process.wait(PATIENCE) == 0
        server.wait_for_log(r"Worker exiting \(pid: \d+\)")


def test_a_server_that_stops_lingers_no_longer_than_graceful_timeout(start):
    # Long enough for a busy machine to send 30 MB.
    with start("--graceful-timeout", "6") as server, contextlib.ExitStack() as stack:
        clients = [refused(server, stack) for _ in range(3)]
        stop(server)
        for client in clients:
            client.check_server_reads_on()
        assert server.process.wait(PATIENCE) == 0
        for client in clients:
            client.check_closed()


# Real clients: none of these waits, and all but curl send everything before they read.


def by_http_client(address, body):
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("PUT", "/refuse-with-body", body)
        response = connection.getresponse()
        return response.status, response.read()


def by_requests(address, body):
    url = "http://{}:{}/refuse-with-body".format(*address)
    response = requests.put(url, body, timeout=PATIENCE)
    return response.status_code, response.content


def by_urllib3(address, body):
    url = "http://{}:{}/refuse-with-body".format(*address)
    with urllib3.PoolManager(retries=False, timeout=PATIENCE) as pool:
        response = pool.request("PUT", url, body=body)
        return response.status, response.data


@pytest.mark.parametrize("put", [by_http_client, by_requests, by_urllib3])
@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_a_python_client_that_does_not_wait_receives_the_refusal(server, put):
    body = bytes(50 * MEGABYTE)
    assert [put(server.address, body) for _ in range(TIMES)] == [(413, b"too large")] * TIMES


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_curl_without_expect_receives_the_refusal(server, tmp_path):
    curl = shutil.which("curl") or missing("curl")
    body = tmp_path / "body"
    with body.open("wb") as file:
        file.truncate(50 * MEGABYTE)
    url = "http://{}:{}/refuse-with-body".format(*server.address)
    for _ in range(TIMES):
        result = subprocess.run(
            [
                *(curl, "--silent", "--show-error", "--header", "Expect:"),
                *("--upload-file", body, "--write-out", " %{http_code}", url),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "too large 413", "")


@pytest.mark.parametrize("worker", ["sync"], indirect=True)
def test_responses_that_break_off_do_not_keep_others_from_being_served(server):
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            client = stack.enter_context(StrictClient(server))
            client.send(request("GET /fail-after-first-byte"))
            assert client.receive_head().startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.get("/hello") == b"hello"
