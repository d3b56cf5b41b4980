"""What a client costs that waits for a word: memory of one gevent worker, beside stock gevent.

Stock gunicorn has told its clients to go on before the application runs; they wait for nothing, and
their applications wait for a body that is not sent. That is as near as it comes.
"""

from __future__ import annotations

import socket
import time

from servers import print_machine, resident, served, worker_of

CLIENTS = 1000
HEAD = (
    b"PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n"
    b"Expect: 100-continue\r\n\r\n"
)
PATIENCE = 60.0


def waiting(address: tuple[str, int]) -> int:
    """Ask how many applications wait."""
    with socket.create_connection(address) as asked:
        asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := asked.recv(4096):
            answer += data
    return int(answer.rpartition(b"\r\n\r\n")[2])


def measure(name: str, worker: str) -> None:
    """Print a line of the table."""
    with served("wait", worker) as (address, master):
        waiting(address)  # the application is loaded
        pid = worker_of(master)
        before = resident(pid)
        clients = [socket.create_connection(address) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(HEAD)
        deadline = time.monotonic() + PATIENCE
        while waiting(address) < CLIENTS:
            assert time.monotonic() < deadline, f"{waiting(address)} of {CLIENTS} wait"
        after = resident(pid)
        for client in clients:
            client.close()
    print(f"  {name:16} {(after - before) / CLIENTS:6.1f} KiB for each of {CLIENTS} clients")


def main() -> None:
    """Print the table."""
    print_machine()
    print("Memory of the worker process:")
    measure("stock gevent", "gevent")
    measure("gunicorn_expect", "gunicorn_expect.GeventWorker")


if __name__ == "__main__":
    main()
