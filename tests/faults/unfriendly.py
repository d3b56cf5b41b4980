"""Clients that leave in the middle, and checks that the worker keeps nothing of them.

The clients know the wire and nothing else. What a worker holds is read from /proc, and from an
application that counts its uploads.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import socket
import ssl
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import h2.connection

from support import PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.server import Server

#: Seconds of every timeout. Nothing that a client leaves behind may stay until a timeout ends it:
#: `WatchedWorker.check_nothing_is_left` waits for less and would find it.
NEVER = "600"

#: How many clients there are at once.
CROWD = 8

#: Bytes of a response: far more than any system takes at once.
LONG = 10_000_000


@dataclasses.dataclass(frozen=True)
class ScriptedExchange:
    """What a client sends; `asked`: it sends what follows the head only after a 100."""

    data: bytes
    asked: bool = False

    def __len__(self):
        return len(self.data)

    def begin(self, client, size):
        """Send so many bytes of it."""
        end = self.data.index(b"\r\n\r\n") + 4 if self.asked else size
        client.send(self.data[: min(size, end)])
        if size > end:
            heard = client.receive(len(CONTINUE))
            if not heard:
                raise EOFError
            assert heard == CONTINUE
            client.send(self.data[end:size])


_SENT = request("PUT /read", "Content-Length: 5") + b"hello"
_CHUNKS = b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"

#: Each kind of exchange, as short as it can be.
EXCHANGES = {
    "accepted": ScriptedExchange(_SENT),
    "accepted after the 100": ScriptedExchange(
        waiting("PUT /read", "Content-Length: 5") + b"hello", asked=True
    ),
    "chunked": ScriptedExchange(request("PUT /read", "Transfer-Encoding: chunked") + _CHUNKS),
    "chunked after the 100": ScriptedExchange(
        waiting("PUT /read", "Transfer-Encoding: chunked") + _CHUNKS, asked=True
    ),
    "refused": ScriptedExchange(waiting("PUT /refuse", "Content-Length: 5") + b"hello"),
    "refused by the policy": ScriptedExchange(
        waiting("PUT /too-large", "Content-Length: 5") + b"hello"
    ),
    "pipelined": ScriptedExchange(
        _SENT + request("GET /hello") + request("PUT /refuse", "Content-Length: 2") + b"no" + _SENT
    ),
    "long and unread": ScriptedExchange(
        request(f"PUT /unread?{LONG}", "Content-Length: 100000") + b"hello"
    ),
    "long, yielded and unread": ScriptedExchange(
        request(f"PUT /yielded?{LONG}", "Content-Length: 100000") + b"hello"
    ),
}


def http2(line, *fields):
    """Return an exchange of HTTP/2: the connection's preface, a stream, and its body."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    method, path = line.split()
    head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")]
    connection.send_headers(1, [*head, *fields])
    connection.send_data(1, b"hello", end_stream=True)
    return ScriptedExchange(connection.data_to_send())


#: The same over HTTP/2, for the kinds that it has.
HTTP2_EXCHANGES = {
    "accepted": http2("PUT /read"),
    "refused": http2("PUT /refuse", ("expect", "100-continue")),
    "refused by the policy": http2("PUT /too-large", ("expect", "100-continue")),
    # As much as a stream's first window, so that it does not wait for another one.
    "long and unread": http2("PUT /unread?65000", ("content-length", "5")),
    "longer than the window": http2("PUT /unread?100000", ("content-length", "5")),
}


class Http2Server:
    """A server, for clients that choose HTTP/2: by ALPN, or with prior knowledge."""

    def __init__(self, server, certificates=None):
        self._server = server
        self._certificates = certificates

    def connect(self):
        sock = socket.create_connection(self._server.address, PATIENCE)
        if self._certificates is None:
            return sock
        return self._certificates.trust("h2").wrap_socket(sock, server_hostname="localhost")


def client_hello(context):
    """Return the first bytes of a TLS client."""
    sent = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()


def leave(client):
    """Close: by FIN, or by RST if there is something unread."""
    client.close()


def reset(client):
    """Close by RST."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def half_close(client):
    """Half-close, and receive all that the server sends."""
    sock = client.socket
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(0)
        with contextlib.suppress(OSError, ValueError):  # the server's close_notify did not come yet
            sock.unwrap()
        client.socket = sock = socket.socket(fileno=sock.detach())
        sock.settimeout(PATIENCE)
    with contextlib.suppress(OSError):  # the server has closed already
        sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while sock.recv(1_000_000):
            pass
    sock.close()


WAYS_TO_LEAVE = {"FIN": leave, "RST": reset, "half-close": half_close}


def in_parallel(act, calls, at_once=CROWD):
    """Call ``act`` with each of the arguments, so many at once; return what the calls returned."""
    with ThreadPoolExecutor(at_once) as crowd:
        outcomes = [crowd.submit(act, *arguments) for arguments in calls]
        return [outcome.result() for outcome in outcomes]


# What a worker holds.


def serve(worker, *arguments, env=(), **others):
    """Serve `faulted` by a worker whose timeouts are all `NEVER`."""
    names = ("BODY_TIMEOUT", "HEAD_TIMEOUT", "LINGER", "LINGER_IDLE")
    return Server(
        *("--keep-alive", NEVER, "--timeout", NEVER, *arguments),
        app="faults.faulted:app",
        worker=worker,
        env={
            "GUNICORN_EXPECT_POLICY": "faults.faulted:policy",
            **{f"GUNICORN_EXPECT_{name}": NEVER for name in names},
            **dict(env),
        },
        **others,
    )


def workers_of(server):
    """Return the process ids of the workers."""
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text("ascii").split()]


def footprint(pid):
    """Return the open files, the threads, and the KiB of a process."""
    process = pathlib.Path(f"/proc/{pid}")
    status = process.joinpath("status").read_text("ascii")
    return (
        len(list(process.joinpath("fd").iterdir())),
        int(re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)[1]),
        int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1]),
    )


def at_once(worker):
    """Return how many uploads to serve at once in `WatchedWorker`: at most twice the threads."""
    return 1 if worker == "sync" else 16


class WatchedWorker:
    """The only worker of a server, and what it held while it served nobody."""

    def __init__(self, server, *, at_once):
        """Let it serve so many clients at once: what it opens once and keeps is no leak."""
        self.server = server
        assert server.get("/hello") == b"hello"
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(at_once):
                client = stack.enter_context(Client(server))
                client.send(waiting("PUT /read", "Content-Length: 5"))
                assert client.receive(len(CONTINUE)) == CONTINUE
                clients.append(client)
            for client in clients:
                client.send(b"hello")
                assert client.receive_response()[1] == b"5"
        for path in ("/refuse", "/too-large"):
            with Client(server) as client:
                client.send(waiting(f"PUT {path}", "Content-Length: 100000"))
                client.receive_all()
        [self.pid] = workers_of(server)
        self.files, self.threads = self._settle(lambda *_: False, 0.3)
        self.lines = len(server.lines)

    def _settle(self, enough, seconds):
        deadline = time.monotonic() + seconds
        while True:
            now = footprint(self.pid)[:2]
            if enough(*now) or time.monotonic() > deadline:
                return now
            time.sleep(0.05)

    def check_nothing_is_left(self):
        """Check that the worker is the same, serves, and holds no more than before."""
        assert self.server.get("/hello") == b"hello"
        assert workers_of(self.server) == [self.pid]
        files, threads = self._settle(
            lambda files, threads: files <= self.files and threads <= self.threads, PATIENCE / 2
        )
        assert files <= self.files, "connections are left"
        assert threads <= self.threads, "threads are left"
        assert json.loads(self.server.get("/under-way")) == [0, 0], (
            "slots of the policy are still taken"
        )
        log = "\n".join(self.server.lines[self.lines :])
        assert "Traceback" not in log, log[-5000:]
        assert not re.search(r"\[(ERROR|CRITICAL)\]", log), log[-5000:]
