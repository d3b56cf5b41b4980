"""New requests while others take their time: beside the rate without them.

200 uploads have their 100 and send nothing; 1,000 clients send their heads byte by byte. Bar: 0.9.
Stock gunicorn's gthread worker with 8 threads serves nothing from the eighth of either on.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from typing import TYPE_CHECKING

from servers import apart, print_machine, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UPLOADS = 200
HEADS = 1000
SECONDS = 1.0
ROUNDS = 7
#: Seconds without an answer after which a server counts as one that serves nothing.
PATIENCE = 2.0
HEAD = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
ENV = {
    "GUNICORN_EXPECT_BODY_TIMEOUT": "3600",
    "GUNICORN_EXPECT_MIN_RATE": "0",
    "GUNICORN_EXPECT_HEAD_TIMEOUT": "3600",
}


def requests_a_second(address: tuple[str, int]) -> float:
    """Ask on new connections, one at a time: stock gthread waits until each is closed."""
    done = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        with socket.create_connection(address, PATIENCE) as connection:
            connection.sendall(GET)
            try:
                while connection.recv(4096):
                    pass
            except TimeoutError:
                return 0.0
        done += 1
    return done / elapsed


@contextlib.contextmanager
def stalled(address: tuple[str, int]) -> Iterator[int]:
    """Let uploads stall; give how many have their 100."""
    uploads = [socket.create_connection(address, PATIENCE) for _ in range(UPLOADS)]
    told = 0
    for upload in uploads:
        upload.sendall(HEAD)
    with contextlib.suppress(TimeoutError):  # then the others would wait as long
        for upload in uploads:
            told += upload.recv(100).startswith(b"HTTP/1.1 100 ")
    yield told
    for upload in uploads:
        upload.close()


@contextlib.contextmanager
def trickling(address: tuple[str, int]) -> Iterator[int]:
    """Let clients send a byte of their head each second; give how many are connected."""
    clients = [socket.create_connection(address, PATIENCE) for _ in range(HEADS)]
    over = threading.Event()

    def trickle() -> None:
        for byte in GET:
            for client in clients:
                with contextlib.suppress(OSError):
                    client.sendall(bytes([byte]))
            if over.wait(1):
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    time.sleep(0.5)  # until each has sent its first
    yield len(clients)
    over.set()
    thread.join()
    for client in clients:
        client.close()


def compare(
    name: str,
    worker: str,
    rounds: int,
    others: Callable[[tuple[str, int]], contextlib.AbstractContextManager[int]],
) -> None:
    """Print a line of a table."""
    rates: list[tuple[float, float]] = []
    with apart(served("store", worker, ENV)) as (address, _):
        requests_a_second(address)  # warm up
        for _ in range(rounds):
            alone = requests_a_second(address)
            with others(address) as told:
                rates.append((alone, requests_a_second(address)))
    print(
        f"  {name:24}{statistics.median(x for x, _ in rates):8.0f}"
        f"{statistics.median(x for _, x in rates):8.0f}"
        f"{statistics.median(y / x for x, y in rates):8.2f}{told:8}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    print_machine()
    for what, counted, others in (
        (f"{UPLOADS} stalled uploads", "told", stalled),
        (f"{HEADS} heads that trickle", "there", trickling),
    ):
        print(f"New GET requests a second, alone and beside {what}.")
        print(f"  {'':24}{'alone':>8}{'beside':>8}{'ratio':>8}{counted:>8}")
        compare("stock gthread", "gthread", 1, others)
        compare("gunicorn_expect gthread", "gunicorn_expect.Worker", ROUNDS, others)
        compare("stock gevent", "gevent", ROUNDS, others)
        compare("gunicorn_expect gevent", "gunicorn_expect.GeventWorker", ROUNDS, others)


if __name__ == "__main__":
    main()
