"""A real gunicorn, and clients that say exactly what a test wants them to say."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent

#: Seconds after which a byte or a log line that a test waits for counts as never coming. It is
#: the bound of a failure; nothing that succeeds takes this long.
PATIENCE = 20

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def request(line, *fields):
    """Give a request head: ``request("PUT /read", "Content-Length: 5")``."""
    if " HTTP/" not in line:
        line += " HTTP/1.1"
    return "\r\n".join([line, "Host: test", *fields, "", ""]).encode("latin-1")


def waiting(line, *fields):
    """Give the head of a client that waits for a word."""
    return request(line, "Expect: 100-continue", *fields)


class Client:
    """One connection, raw bytes both ways."""

    def __init__(self, server):
        self.socket = server.connect()
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def send(self, *pieces):
        """Send these bytes by one call, so that they arrive together."""
        self.socket.sendall(b"".join(pieces))

    def shut_down(self):
        """Send no more; over TLS, leave without a word."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def receive(self, size):
        """Receive this many bytes; fewer if the server closes."""
        while len(self.unread) < size and self._more():
            pass
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def receive_until(self, mark):
        while mark not in self.unread and self._more():
            pass
        size = self.unread.find(mark) + len(mark) if mark in self.unread else len(self.unread)
        return self.receive(size)

    def receive_head(self):
        return self.receive_until(b"\r\n\r\n")

    def receive_response(self):
        """Receive a final response with a Content-Length or chunked body; give head and body."""
        head = self.receive_head()
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length:
            return head, self.receive(int(length[1]))
        if b"Transfer-Encoding: chunked" in head:
            body = b""
            while size := int(self.receive_until(b"\r\n") or b"0", 16):
                body += self.receive(size)
                self.receive(2)
            self.receive(2)
            return head, body
        return head, b""

    def receive_all(self):
        """Receive what comes until the server closes."""
        while self._more():
            pass
        data, self.unread = self.unread, b""
        return data

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.unread += data
        return bool(data)


class Switchboard:
    """Where tests and applications wait for each other, each event under its name."""

    def __init__(self):
        self._events = collections.defaultdict(threading.Event)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def set(self, name):
        self._events[name].set()

    def wait(self, name):
        assert self._events[name].wait(PATIENCE), f"{name} did not happen"

    def happened(self, name):
        return self._events[name].is_set()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def _accept(self):
        while True:
            try:
                application, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(application,), daemon=True).start()

    def _answer(self, application):
        with application, application.makefile() as lines:
            line = lines.readline()
            if not line:
                return  # its worker was killed
            verb, name = line.split()
            if verb == "set":
                self._events[name].set()
            else:
                self._events[name].wait(PATIENCE)
            application.sendall(b".")


class Server:
    """A gunicorn master and its worker, on an address of the system's choice.

    Transports: ``tcp``; ``unix``; ``tls``, with the certificates given; ``proxy-v1`` and
    ``proxy-v2``, TCP behind something that speaks the PROXY protocol.
    """

    def __init__(
        self,
        *arguments,
        app="apps:app",
        worker="gunicorn_expect.Worker",
        transport="tcp",
        python=sys.executable,
        gunicorn=None,
        certificates=None,
        env=(),
    ):
        path = [str(TESTS), str(CHECKOUT)]
        if gunicorn is not None:
            path.insert(0, str(gunicorn))
        if transport == "tls":
            arguments = (
                *("--certfile", certificates.certificate, "--keyfile", certificates.key),
                *arguments,
            )
        elif transport.startswith("proxy"):
            arguments = ("--proxy-protocol", transport.removeprefix("proxy-"), *arguments)
        threads = () if worker.endswith("sync.Worker") or worker == "sync" else ("--threads", "8")
        self._start(
            [python, "-m", "gunicorn", "-k", worker, *threads, *arguments, app],
            {"PYTHONPATH": os.pathsep.join(path), **dict(env)},
            transport=transport,
            certificates=certificates,
        )

    @classmethod
    def of(cls, command, *, env=(), cwd=None):
        """Start a gunicorn by this command."""
        server = cls.__new__(cls)
        server._start(command, dict(env), cwd)  # noqa: SLF001  its own
        return server

    def _start(self, command, env, cwd=None, transport="tcp", certificates=None):
        self._transport = transport
        self._certificates = certificates
        self._folder = tempfile.TemporaryDirectory(prefix="wire-")
        unix = f"unix:{self._folder.name}/socket"
        arguments = [
            *("--bind", unix if transport == "unix" else "127.0.0.1:0"),
            *("--no-control-socket", "--graceful-timeout", "2", "--access-logfile", "-"),
            *("--access-logformat", "'%(r)s -> %(s)s %({gunicorn_expect.expectation}e)s'"),
        ]
        self.board = Switchboard()
        self.lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ
            | {
                "PYTHONUNBUFFERED": "1",
                "SWITCHBOARD": self.board.address,
                "GUNICORN_CMD_ARGS": " ".join(arguments),
            }
            | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._log_reader = threading.Thread(target=self._read_log, daemon=True)
        self._log_reader.start()

    def __enter__(self):
        listening = self.wait_for_log(r"Listening at: (?:https?|unix):(?://)?(\S+)")[1]
        if self._transport == "unix":
            self.address = listening
        else:
            host, port = listening.split(",")[0].rsplit(":", 1)
            self.address = (host, int(port))
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._log_reader.join(PATIENCE)
        self.process.stdout.close()
        self.board.close()
        self._folder.cleanup()

    def connect(self):
        """Connect as a client of this transport does."""
        if self._transport == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(self.address)
            return sock
        sock = socket.create_connection(self.address, PATIENCE)
        # What a test has sent is on its way when the call returns.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._transport == "tls":
            return self._certificates.trust().wrap_socket(sock, server_hostname="localhost")
        if self._transport == "proxy-v1":
            sock.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 56789 443\r\n")
        elif self._transport == "proxy-v2":
            addresses = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + struct.pack("!HH", 56789, 443)
            head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
            sock.sendall(head + struct.pack("!H", len(addresses)) + addresses)
        return sock

    def wait_for_log(self, pattern, start=0):
        """Wait for a line of the log, the access log among it; give its match."""

        def found():
            return next(filter(None, (re.search(pattern, x) for x in self.lines[start:])), None)

        with self._changed:
            match = self._changed.wait_for(
                lambda: found() or self.process.poll() is not None, PATIENCE
            )
            match = found() or match
        if not isinstance(match, re.Match):
            log = "\n".join(self.lines)
            raise AssertionError(f"no line like {pattern!r} in the log:\n{log}")
        return match

    def get(self, path):
        """Get the body of a path, on a connection of its own."""
        with Client(self) as client:
            client.send(request(f"GET {path}", "Connection: close"))
            return client.receive_response()[1]

    def _read_log(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


class Relay:
    """Stands between clients and a server, and keeps the bytes that each of them sent."""

    def __init__(self, server):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._sent = []
        self._answered = []
        self._threads = []

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *exception):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def sent_by_clients(self):
        """Give the bytes of each connection; call it when the clients are done."""
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
        return self._sent

    def sent_by_server(self):
        """Give the bytes of each connection, in the same order."""
        self.sent_by_clients()
        return self._answered

    def _start(self, target, *arguments):
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sent.append(bytearray())
            self._answered.append(bytearray())
            self._start(self._relay, client, self._sent[-1], self._answered[-1])

    def _connect(self):
        return socket.create_connection(self._server.address, PATIENCE)

    def _relay(self, client, sent, answered):
        with client, self._connect() as server:
            back = threading.Thread(target=self._pump, args=(server, client, answered))
            back.start()
            self._pump(client, server, sent)
            back.join()

    @staticmethod
    def _pump(source, target, seen):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Scripted:
    """A server of one connection that is no server: it says what a test has written for it."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}/".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.heard = b""

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._thread.join(PATIENCE)
        self._listener.close()

    def _serve(self):
        client, _ = self._listener.accept()
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            self.converse(client)

    def converse(self, client):
        """Hear and say it all."""
        raise NotImplementedError

    def hear(self, client, mark):
        """Hear on until this has been said."""
        while mark not in self.heard and (data := client.recv(65536)):
            self.heard += data
