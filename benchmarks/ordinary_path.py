"""What a GET pays for our worker: keep-alive requests a second, beside stock gthread.

Bar: 0.98 of stock or better.
"""

from __future__ import annotations

import socket
import statistics
import time

from servers import OURS, STOCK, both, in_turn, print_machine, ratios

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


def main() -> None:
    """Print the table."""
    print_machine()
    medians: dict[str, list[float]] = {OURS: [], STOCK: []}
    pairs: list[float] = []
    for _ in range(STARTS):
        with both("hello") as addresses:
            for address in addresses.values():
                requests_a_second(address)  # warm up
            results = in_turn(addresses, requests_a_second, ROUNDS)
        pairs += ratios(results, OURS, STOCK)
        for name, values in results.items():
            medians[name].append(statistics.median(values))
    quarters = statistics.quantiles(pairs, n=4)
    print(f"GET, {CONNECTIONS} keep-alive connections, requests a second:")
    print(f"  stock gthread    {statistics.median(medians[STOCK]):8.0f}")
    print(f"  gunicorn_expect  {statistics.median(medians[OURS]):8.0f}")
    print(
        f"  ratio            {statistics.median(pairs):8.3f}"
        f"   (middle half of {len(pairs)} pairs: {quarters[0]:.3f} to {quarters[2]:.3f})"
    )


if __name__ == "__main__":
    main()
