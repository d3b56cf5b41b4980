"""Servers to measure: each has one worker process, on a core of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE: Final = Path(__file__).parent
CORES: Final = sorted(os.sched_getaffinity(0))
CLIENT_CORE: Final = CORES[0]
SERVER_CORE: Final = CORES[-1]
#: Seconds that a server has to boot, beside a dozen others on the same core.
BOOT: Final = 60.0
#: More than the connections of any benchmark.
CONNECTIONS: Final = 12000


class Kind(NamedTuple):
    """A server that can be started."""

    name: str
    command: tuple[str, ...]
    ours: bool = False


def gunicorn(
    name: str, worker: str, *options: str, ours: bool = False, parser: str = "fast"
) -> Kind:
    """Return a gunicorn with this worker class and parser."""
    module = (sys.executable, "-m", "gunicorn", "-k", worker, "--http-parser", parser)
    limits = ("--backlog", "2048", "--worker-connections", str(CONNECTIONS))
    # Longer than any benchmark, so that idle connections stay.
    times = ("--keep-alive", "600", "--timeout", "600", "--graceful-timeout", "1")
    return Kind(
        name, (*module, *limits, *times, *options, "--no-control-socket", "apps:app"), ours=ours
    )


def _three(kind: str, stock: str, ours: str, *options: str) -> list[Kind]:
    return [
        gunicorn(f"stock {kind}", stock, *options),
        gunicorn(f"ours, {kind}", ours, *options, ours=True),
        gunicorn(f"ours, {kind}, python", ours, *options, ours=True, parser="python"),
    ]


THREADS: Final = _three("gthread", "gthread", "gunicorn_expect.Worker", "--threads", "8")
GEVENT: Final = _three("gevent", "gevent", "gunicorn_expect.GeventWorker")
SYNC: Final = _three("sync", "sync", "gunicorn_expect.Sync")


def peer(name: str) -> Kind:
    """Return a server of peers.py."""
    return Kind(name, (sys.executable, str(HERE / "peers.py"), name))


class Server:
    """A server that runs."""

    def __init__(self, kind: Kind, port: int, env: Mapping[str, str]) -> None:
        """Start it."""
        self.name = kind.name
        self.ours = kind.ours
        self.port = port
        at = [str(port)] if "peers.py" in kind.command[1] else ["--bind", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [*kind.command, *at],
            env=os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"} | dict(env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.sched_setaffinity(self._process.pid, {SERVER_CORE})  # its children inherit it

    def wait_until_ready(self) -> None:
        """Wait for its first response."""
        deadline = time.monotonic() + BOOT
        while True:
            with contextlib.suppress(OSError), self.connect() as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if connection.recv(4096).startswith(b"HTTP/1.1 200 "):
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                command = " ".join(map(str, self._process.args))  # type: ignore[arg-type]
                sys.exit(f"{self.name} does not answer. Start it by hand in benchmarks/: {command}")
            time.sleep(0.05)

    def connect(self) -> socket.socket:
        """Connect to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=BOOT)

    def _processes(self) -> list[int]:
        """Return its process ids; the worker's is the last."""
        found = [self._process.pid]
        for pid in found:  # grows meanwhile
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                    found += map(int, children.read_text("ascii").split())
        return found

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        # The clock of another process, by clock_getcpuclockid(3), which Python does not have.
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self._processes())

    def resident(self) -> int:
        """Return the KiB of memory that its worker has."""
        status = Path(f"/proc/{self._processes()[-1]}/status").read_text("ascii")
        match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert match
        return int(match[1])

    def open_files(self) -> int:
        """Return how many files its worker has open, its connections among them."""
        return len(list(Path(f"/proc/{self._processes()[-1]}/fd").iterdir()))

    def stop(self) -> None:
        """Stop it."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self._process.wait()


@contextlib.contextmanager
def started(
    kinds: Sequence[Kind],
    env: Mapping[str, str] | None = None,
    of_ours: Mapping[str, str] | None = None,
) -> Iterator[list[Server]]:
    """Start servers, and stop them at the end.

    Args:
        kinds: which servers.
        env: further variables for the environment of each.
        of_ours: further variables for our workers only.

    """
    with contextlib.ExitStack() as held:
        ports = []
        for _ in kinds:
            free = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(free.getsockname()[1])
    with contextlib.ExitStack() as stack:
        servers = []
        for kind, port in zip(kinds, ports, strict=True):
            server = Server(kind, port, {**(env or {}), **(of_ours or {} if kind.ours else {})})
            stack.callback(server.stop)
            servers.append(server)
        for server in servers:
            server.wait_until_ready()
        yield servers
