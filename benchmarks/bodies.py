"""What a body costs: MB/s of large ones, small ones a second, and memory while many come.

Ours beside stock gunicorn and beside a Python loop that does the same reads on a bare socket. Bars,
on the thread worker with Content-Length over TCP: 6 times stock and 0.9 of the bare loop for 64 MiB
read in 64 KiB pieces; twice stock's uploads a second for 64 KiB.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trustme
from servers import HERE, apart, print_machine, resident, served, worker_of

from apps import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024
LARGE = 64 * MIB
SMALL = 64 * 1024
SECONDS = 0.25
ROUNDS = 11
WORKERS = {
    "gthread": ("gthread", "gunicorn_expect.Worker"),
    "gevent": ("gevent", "gunicorn_expect.GeventWorker"),
    "sync": ("sync", "gunicorn_expect.Sync"),
}
#: For each thread of gthread. The sync worker serves one, and waits until it is closed.
CONNECTIONS = {"gthread": 8, "gevent": 8, "sync": 1}


class Way(NamedTuple):
    """How a body is sent."""

    chunk: int = 0  # bytes; 0: Content-Length
    expect: bool = False
    tls: bool = False
    sent: int = 65536  # bytes for one call: what curl's upload buffer holds

    def __str__(self) -> str:
        """Give its name in the table."""
        framing = f"chunks of {self.chunk // 1024} KiB" if self.chunk else "Content-Length"
        sent = "" if self.sent == 65536 else f", sent by {self.sent // 1024} KiB"
        return framing + ", Expect" * self.expect + ", TLS" * self.tls + sent


WAYS = [
    Way(),
    Way(sent=MIB),
    Way(expect=True),
    Way(chunk=65536),
    Way(chunk=8192),
    Way(tls=True),
    Way(chunk=65536, expect=True, tls=True),
]


class Client:
    """A connection on which uploads go one after the other."""

    def __init__(
        self,
        address: tuple[str, int],
        way: Way,
        trust: ssl.SSLContext | None = None,
        *,
        to_bare_loop: bool = False,
    ) -> None:
        """Connect when there is something to send."""
        self._address = address
        self._way = way
        self._trust = trust
        self._to_bare_loop = to_bare_loop
        self._socket: socket.socket | None = None

    def begin(self, size: int) -> None:
        """Send what comes before the body, and wait for the word if that is the way."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._trust is not None:
                self._socket = self._trust.wrap_socket(self._socket, server_hostname="localhost")
        if self._to_bare_loop:
            self._socket.sendall(size.to_bytes(8, "big"))
            return
        framing = "Transfer-Encoding: chunked" if self._way.chunk else f"Content-Length: {size}"
        expect = "Expect: 100-continue\r\n" if self._way.expect else ""
        self._socket.sendall(f"PUT / HTTP/1.1\r\nHost: x\r\n{expect}{framing}\r\n\r\n".encode())
        if self._way.expect:
            assert self._socket.recv(100).startswith(b"HTTP/1.1 100 ")

    def send(self, size: int, *, last: bool) -> None:
        """Send bytes of the body; the last of them, or not."""
        assert self._socket is not None
        sent = min(size, self._way.sent)
        data = bytes(sent)
        end = b""
        if self._way.chunk and not self._to_bare_loop:
            chunk = self._way.chunk
            data = (b"%x\r\n%b\r\n" % (chunk, data[:chunk])) * (sent // chunk)
            end = b"0\r\n\r\n" * last
        for _ in range(size // sent - 1):
            self._socket.sendall(data)
        self._socket.sendall(data + end)

    def finish(self, size: int) -> None:
        """Receive the answer."""
        assert self._socket is not None
        answer = b""
        while not answer.endswith(b"ok" if self._to_bare_loop else b"\r\n\r\n%d" % size):
            data = self._socket.recv(65536)
            assert data, answer
            answer += data
        if b"\r\nConnection: close\r\n" in answer:
            self.close()

    def close(self) -> None:
        """Leave."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def large(make: Callable[[], Client], _connections: int = 1) -> float:
    """Give the MB/s of one upload."""
    client = make()
    for _ in range(2):  # the second has a connection, and a thread, and nothing to begin
        start = time.perf_counter()
        client.begin(LARGE)
        client.send(LARGE, last=True)
        client.finish(LARGE)
    rate = LARGE / (time.perf_counter() - start) / 1e6
    client.close()
    return rate


def small(make: Callable[[], Client], connections: int) -> float:
    """Give the uploads a second on a few connections."""
    clients = [make() for _ in range(connections)]
    done = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        for client in clients:
            client.begin(SMALL)
            client.send(SMALL, last=True)
        for client in clients:
            client.finish(SMALL)
        done += connections
    for client in clients:
        client.close()
    return done / elapsed


@contextlib.contextmanager
def bare(*certificate: str) -> Iterator[tuple[str, int]]:
    """Serve by the bare loop."""
    command = [sys.executable, str(HERE / "raw.py"), *certificate]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


@contextlib.contextmanager
def three(worker: str, *certificate: str) -> Iterator[dict[str, tuple[str, int]]]:
    """Serve by stock, by ours and by the bare loop."""
    options = ("--certfile", certificate[0], "--keyfile", certificate[1]) if certificate else ()
    stock, ours = (served("store", name, None, *options) for name in WORKERS[worker])
    with stock as (of_stock, _), ours as (of_ours, _), bare(*certificate) as of_bare:
        yield {"stock": of_stock, "ours": of_ours, "bare": of_bare}


def compare(worker: str, way: Way, folder: Path) -> dict[str, float]:
    """Measure a way on a worker; print and give a line of the table."""
    certificate: tuple[str, ...] = ()
    trust = None
    if way.tls:
        certificate = (str(folder / "certificate.pem"), str(folder / "key.pem"))
        trust = ssl.create_default_context(cafile=str(folder / "authority.pem"))
    line: dict[str, float] = {}
    with apart(three(worker, *certificate)) as addresses:
        for measure in (large, small):
            rates: dict[str, list[float]] = {name: [] for name in addresses}
            for number in range(ROUNDS):
                names = list(addresses)
                for name in names if number % 2 else reversed(names):
                    make = partial(Client, addresses[name], way, trust, to_bare_loop=name == "bare")
                    rates[name].append(measure(make, CONNECTIONS[worker]))
            # Copies of 64 MiB run at one of two speeds, as the caches have it, and change between
            # them from one upload to the next: what the better half of them does is compared.
            for name, values in rates.items():
                line[f"{measure.__name__} {name}"] = statistics.quantiles(values, n=4)[2]
            for other in ("stock", "bare"):
                line[f"{measure.__name__} to {other}"] = (
                    line[f"{measure.__name__} ours"] / line[f"{measure.__name__} {other}"]
                )
    print(
        f"  {worker:8}{way!s:36}"
        "{large stock:7.0f}{large ours:7.0f}{large bare:7.0f}"
        "{large to stock:7.1f}{large to bare:6.2f}"
        "{small stock:9.0f}{small ours:7.0f}{small bare:7.0f}{small to stock:7.1f}".format(**line),
        flush=True,
    )
    return line


def memory(worker: str, uploads: int = 100, rounds: int = 16) -> None:
    """Print how much a worker has while many bodies come, a piece of each in turn."""
    with served("store", WORKERS[worker][1]) as (address, master):
        large(partial(Client, address, Way()))
        pid = worker_of(master)
        before = resident(pid)
        clients = [Client(address, Way()) for _ in range(uploads)]
        for client in clients:
            client.begin(rounds * MIB)
        seen = []
        for number in range(rounds):
            for client in clients:
                client.send(MIB, last=number == rounds - 1)
            seen.append(resident(pid))
        for client in clients:
            client.finish(rounds * MIB)
            client.close()
    print(
        f"  {worker}: {before / 1024:.1f} MiB before, {min(seen) / 1024:.1f} to "
        f"{max(seen) / 1024:.1f} while {uploads} uploads of {rounds} MiB come"
    )


def main() -> None:
    """Print the table; write it to a file as well, if one is named."""
    print_machine()
    print("64 MiB on one connection, in MB/s; 64 KiB on 8 (sync: 1), a second. Third quartiles.")
    print(f"The application reads {PIECE} bytes at a time.")
    print(f"  {'':44}{'64 MiB':>34}{'64 KiB':>30}")
    print(
        f"  {'':44}{'stock':>7}{'ours':>7}{'bare':>7}{'/stock':>7}{'/bare':>6}"
        f"{'stock':>9}{'ours':>7}{'bare':>7}{'/stock':>7}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
        table = {
            f"{worker}, {way}": compare(worker, way, folder) for worker in WORKERS for way in WAYS
        }
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(table, indent=1), "utf-8")
    print("Resident memory of the worker process:")
    memory("gthread")
    memory("gevent")


if __name__ == "__main__":
    main()
