"""What refused clients cost the others: new GET requests a second, beside 1,000 that never close.

Each of the 1,000 announces 1 GiB without ``Expect``, sends the beginning of it, gets its 413, and
then neither sends nor closes. Ours would let go of it after 2 s; here it is told to wait for an
hour, so that all of them are there. Stock gunicorn can't be told: it is measured when they have
come, and they have had some seconds to get their answers. Each GET has a connection of its own.

Bar: ours answers at least 0.9 of the GETs that it answers alone, with each worker.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from servers import apart, print_machine, resident, served, worker_of

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = {
    "gthread": "gunicorn_expect.Worker",
    "gevent": "gunicorn_expect.GeventWorker",
    "sync": "gunicorn_expect.Sync",
}
CLIENTS = 1000
CONNECTIONS = 8  # as many GETs at a time
SECONDS = 1.0
ROUNDS = 11
LONG = {"GUNICORN_EXPECT_LINGER": "3600", "GUNICORN_EXPECT_LINGER_IDLE": "3600"}
#: Seconds that 1,000 clients have to be refused. Stock gthread and sync take half an hour.
PATIENCE = 15.0
STOCK_PATIENCE = 4.0

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nConnection: close\r\n\r\n"
UPLOAD = (
    b"PUT /file HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n"
    b"Content-Length: 1073741824\r\n\r\n" + bytes(16 * 1024)
)


def gets_a_second(address: tuple[str, int]) -> float:
    """Ask for a while, always some at a time."""
    selector = selectors.DefaultSelector()
    done = 0

    def begin() -> None:
        connection = socket.create_connection(address, PATIENCE)
        connection.sendall(GET)
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, bytearray())

    for _ in range(CONNECTIONS):
        begin()
    start = time.perf_counter()
    while (left := start + SECONDS - time.perf_counter()) > 0:
        for key, _ in selector.select(left):
            connection: socket.socket = key.fileobj  # type: ignore[assignment]
            if data := connection.recv(65536):
                key.data.extend(data)
                continue
            assert key.data.endswith(b"\r\n\r\nhello\n"), key.data
            selector.unregister(connection)
            connection.close()
            done += 1
            begin()
    elapsed = time.perf_counter() - start
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    selector.close()
    return done / elapsed


class Refused:
    """Clients that neither send nor close, and how far they got."""

    def __init__(self) -> None:
        """There is none yet."""
        self.answered = 0
        self.ended = 0
        self._selector = selectors.DefaultSelector()

    def connect(self, address: tuple[str, int]) -> socket.socket:
        """Add one that has sent all it will."""
        client = socket.create_connection(address, PATIENCE)
        client.sendall(UPLOAD)
        client.setblocking(False)
        self._selector.register(client, selectors.EVENT_READ, bytearray())
        return client

    def listen(self, seconds: float) -> None:
        """Receive what comes in this time."""
        for key, _ in self._selector.select(seconds):
            try:
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            except ConnectionResetError:
                data = b""
            if data:
                key.data.extend(data)
                if key.data.endswith(b"\r\n\r\ntoo large\n"):
                    assert key.data.startswith(b"HTTP/1.1 413 "), key.data
                    self.answered += 1
            else:
                self.ended += 1
                self._selector.unregister(key.fileobj)

    def close(self) -> None:
        """Listen no more."""
        self._selector.close()


@contextlib.contextmanager
def refused_clients(address: tuple[str, int], *, linger: bool) -> Iterator[Refused]:
    """Give them when they have their answers, and linger if they will, or when time is up."""
    with contextlib.ExitStack() as stack, contextlib.closing(Refused()) as clients:
        for _ in range(CLIENTS):
            stack.enter_context(clients.connect(address))
        deadline = time.monotonic() + (PATIENCE if linger else STOCK_PATIENCE)
        while (clients.ended if linger else clients.answered) < CLIENTS:
            if (left := deadline - time.monotonic()) <= 0:
                break
            clients.listen(left)
        yield clients


def open_files(pid: int) -> int:
    """Count the open files of a process, its connections among them."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_until_closed(pid: int, before: int) -> None:
    """Wait until the server has no more connections than before."""
    deadline = time.monotonic() + PATIENCE
    while open_files(pid) > before:
        assert time.monotonic() < deadline, f"{open_files(pid) - before} are still open"
        time.sleep(0.01)


def measure(name: str, worker: str, *, ours: bool) -> None:
    """Print a line of the table."""
    alone: list[float] = []
    beside: list[float] = []
    answered: list[int] = []
    there: list[int] = []
    grown: list[float] = []
    server = served("refuse_uploads", worker, LONG if ours else None)
    with apart(server) as (address, master):
        with socket.create_connection(address, PATIENCE) as first:
            first.sendall(UPLOAD)
            first.recv(65536)
        gets_a_second(address)  # warm up
        time.sleep(1)  # the last connections close
        pid = worker_of(master)
        files = open_files(pid)
        for number in range(ROUNDS if ours else 1):
            alone.append(gets_a_second(address))
            memory = resident(pid)
            with refused_clients(address, linger=ours) as clients:
                if number == 0:  # later on there is room from the first time
                    grown.append(resident(pid) - memory)
                there.append(open_files(pid) - files)
                beside.append(gets_a_second(address))
                there.append(open_files(pid) - files)
                answered.append(clients.answered)
            if ours:
                wait_until_closed(pid, files)
    ratio = statistics.median(x / y for x, y in zip(beside, alone, strict=True))
    memory_each = f"{grown[0] / CLIENTS:8.1f} KiB" if ours and min(there) >= CLIENTS else ""
    print(
        f"  {name:24} {statistics.median(alone):8.0f} {statistics.median(beside):8.0f} {ratio:8.2f}"
        f" {min(answered):10} {min(there):8} {memory_each}"
    )


def main() -> None:
    """Print the table."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it
    print_machine()
    print(
        f"New GET requests a second, alone and beside {CLIENTS} refused clients that neither send "
        f"nor close.\nAnswered: how many of them had their 413 when the GETs began; open: how many "
        f"the worker had all\nthe while; memory: how much the worker grew for each.\n"
        f"gunicorn_expect with {' '.join(f'{name}={value}' for name, value in LONG.items())}:"
    )
    print("                              alone   beside    ratio   answered     open       memory")
    for kind, worker in WORKERS.items():
        measure(f"stock {kind}", kind, ours=False)
        measure(f"gunicorn_expect {kind}", worker, ours=True)


if __name__ == "__main__":
    main()
