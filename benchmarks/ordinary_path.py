"""What a GET pays for our worker, beside stock gthread: keep-alive requests a second, and others.

Bars: 1.2 times stock on connections that are kept, 1.5 times on those that are closed.
"""

from __future__ import annotations

import socket
import statistics
import time
from typing import TYPE_CHECKING

import stalled
from servers import OURS, STOCK, both, in_turn, print_machine, ratios

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 8  # one for each thread of the server
SECONDS = 0.5
ROUNDS = 8
#: Two processes of the same program differ by 1 or 2 % for as long as they live (the addresses of
#: their memory, the seeds of their hashes), which is as much as is measured here.
STARTS = 8
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"


def requests_a_second(address: tuple[str, int]) -> float:
    """Keep all connections busy for a second, each with one request at a time."""
    connections = [socket.create_connection(address) for _ in range(CONNECTIONS)]
    connections[0].sendall(REQUEST)
    size = len(connections[0].recv(65536))  # every answer is as long as the first one
    done = 0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            received = 0
            while received < size:
                data = connection.recv(65536)
                assert data, "the server closed a connection that it was to keep"
                received += len(data)
        done += CONNECTIONS
    elapsed = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return done / elapsed


def compare(what: str, measure: Callable[[tuple[str, int]], float], rounds: int) -> None:
    """Print a table."""
    medians: dict[str, list[float]] = {OURS: [], STOCK: []}
    pairs: list[float] = []
    for _ in range(STARTS):
        with both("hello") as addresses:
            for address in addresses.values():
                measure(address)  # warm up
            results = in_turn(addresses, measure, rounds)
        pairs += ratios(results, OURS, STOCK)
        for name, values in results.items():
            medians[name].append(statistics.median(values))
    quarters = statistics.quantiles(pairs, n=4)
    print(f"GET, {what}, requests a second:")
    print(f"  stock gthread    {statistics.median(medians[STOCK]):8.0f}")
    print(f"  gunicorn_expect  {statistics.median(medians[OURS]):8.0f}")
    print(
        f"  ratio            {statistics.median(pairs):8.3f}"
        f"   (middle half of {len(pairs)} pairs: {quarters[0]:.3f} to {quarters[2]:.3f})",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    print_machine()
    compare(f"{CONNECTIONS} keep-alive connections", requests_a_second, ROUNDS)
    compare("one connection after the other", stalled.requests_a_second, 3)


if __name__ == "__main__":
    main()
