"""Starts a real gunicorn, by default with the applications of `apps`, and reads its log."""

import contextlib
import itertools
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from support import CHECKOUT, PATIENCE, TESTS
from support.client import Client, request
from support.installed import require_fast_parser
from support.switchboard import Switchboard


class Server:
    """A gunicorn master and its worker, on an address of the system's choice.

    Transports: ``tcp``; ``unix``; ``tls``, with the certificates given; ``proxy-v1`` and
    ``proxy-v2``, TCP behind something that speaks the PROXY protocol.
    """

    def __init__(
        self,
        *arguments,
        app="apps.router:app",
        worker="gunicorn_expect.Worker",
        transport="tcp",
        gunicorn=None,
        certificates=None,
        env=(),
    ):
        if ("--http-parser", "fast") in itertools.pairwise(arguments):
            require_fast_parser()
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
        # The error pages of stock gunicorn are compared with ours, on every Python.
        stock = not worker.startswith("gunicorn_expect") and sys.version_info >= (3, 14)
        module = "support.dedent" if stock else "gunicorn"
        threads = () if worker in ("sync", "gunicorn_expect.Sync") else ("--threads", "8")
        self._start(
            [sys.executable, "-m", module, "-k", worker, *threads, *arguments, app],
            {"PYTHONPATH": os.pathsep.join(path), **dict(env)},
            transport=transport,
            certificates=certificates,
        )

    @classmethod
    def of(cls, command, *, env=(), cwd=None):
        """Start a gunicorn with this command."""
        server = cls.__new__(cls)
        server._start(command, dict(env), cwd)  # noqa: SLF001  its own
        return server

    @classmethod
    def by_command_line(cls, command, folder):
        """Start a gunicorn with a command line of a page, in this folder."""
        _, *arguments = shlex.split(command)
        return cls.of(
            [sys.executable, "-m", "gunicorn", *arguments],
            cwd=folder,
            env={"PYTHONPATH": str(CHECKOUT)},
        )

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
        self._log_ended = False
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
        listening = self.wait_for_log(r"Listening at: (\w+:\S+)")[1]
        self.addresses = [*map(_address, listening.split(","))]
        self.address = self.addresses[0]
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._log_reader.join(PATIENCE)
        self.process.stdout.close()
        self.board.close()
        self._folder.cleanup()

    def kill(self):
        """Kill the master, and then its workers; the other way round it would start new ones."""
        workers = re.findall(r"Booting worker with pid: (\d+)", "\n".join(self.lines))
        for pid in (self.process.pid, *map(int, workers)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def connect(self, address=None):
        """Connect as a client of this transport does, to the first address or to this one."""
        address = address or self.address
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(address)
            return sock
        sock = socket.create_connection(address, PATIENCE)
        # So that the bytes leave at once.
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
        """Wait for a line of the log or the access log; return the match of the pattern."""

        def found():
            return next(filter(None, (re.search(pattern, x) for x in self.lines[start:])), None)

        with self._changed:
            # The process may have ended although its last lines have not been read yet.
            match = self._changed.wait_for(lambda: found() or self._log_ended, PATIENCE)
            match = found() or match
        if not isinstance(match, re.Match):
            log = "\n".join(self.lines)
            raise AssertionError(f"no line like {pattern!r} in the log:\n{log}")
        return match

    def get(self, path):
        """GET a path on a new connection; return the body of the response."""
        with Client(self) as client:
            client.send(request(f"GET {path}", "Connection: close"))
            return client.receive_response()[1]

    def _read_log(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()


def _address(name):
    """Return an address in gunicorn's log as `socket.connect` takes it."""
    scheme, _, place = name.partition(":")
    if scheme == "unix":
        return place
    host, _, port = place.removeprefix("//").rpartition(":")
    return host, int(port)
