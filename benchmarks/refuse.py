"""What a refusal costs: refusals a second, time to the status, body bytes for each of them.

Each client announces 1 GiB with ``Expect: 100-continue`` and does what it is told: it sends when it
gets a 100, and stops and closes when it gets a final status. The application refuses them all, or,
in the third server, an inline policy does before it, in the main loop. Beside them those of
others.py.

Bars: no body byte; at 32 connections at least 3 times stock gthread's refusals a second by the
application and 5 times by the policy, ahead of the others, and 0.35 of the loop on a bare socket.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from servers import HERE, OURS, STOCK, apart, both, in_turn, print_machine, ratios

if TYPE_CHECKING:
    from collections.abc import Iterator

BY_POLICY = "ours_by_policy"
OTHERS = ("bare", "uvicorn", "pywsgi")
SECONDS = 2.0
ROUNDS = 7
PIECE = bytes(64 * 1024)
HEAD = (
    b"PUT /file HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    b"Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Upload:
    """One client."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Connect and show the head."""
        self.socket = socket.create_connection(address)
        self.start = time.perf_counter()
        self.socket.sendall(HEAD)
        self.socket.setblocking(False)
        self.received = b""
        self.body_bytes = 0
        self.refused_after = 0.0

    def wants(self) -> int:
        """Give the events that it waits for."""
        if self.received.startswith(CONTINUE):
            return selectors.EVENT_READ | selectors.EVENT_WRITE
        return selectors.EVENT_READ

    def go_on(self, events: int) -> bool:
        """Read or send; tell whether it is over."""
        if events & selectors.EVENT_READ:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return True
            if not data:
                return True
            self.received += data
            final = self.received.removeprefix(CONTINUE)
            if b"\r\n\r\n" in final:
                assert final.startswith(b"HTTP/1.1 403 Forbidden\r\n"), final
                self.refused_after = time.perf_counter() - self.start
                return True
        if events & selectors.EVENT_WRITE:
            try:
                self.body_bytes += self.socket.send(PIECE)
            except BlockingIOError:
                pass
            except OSError:
                return True
        return False


def refusals(address: tuple[str, int], connections: int) -> list[Upload]:
    """Keep this many clients busy for a while; give those that are done."""
    selector = selectors.DefaultSelector()
    done: list[Upload] = []
    stop = time.perf_counter() + SECONDS

    def begin() -> None:
        upload = Upload(address)
        selector.register(upload.socket, upload.wants(), upload)

    for _ in range(connections):
        begin()
    while time.perf_counter() < stop:
        for key, events in selector.select(1):
            upload: Upload = key.data
            if upload.go_on(events):
                selector.unregister(upload.socket)
                upload.socket.close()
                done.append(upload)
                begin()
            elif upload.wants() != key.events:
                selector.modify(upload.socket, upload.wants(), upload)
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    selector.close()
    return done


@contextlib.contextmanager
def other(name: str) -> Iterator[tuple[str, int]]:
    """Serve by one of others.py."""
    command = [sys.executable, str(HERE / "others.py"), name]
    env = os.environ | {"PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


@contextlib.contextmanager
def all_of_them() -> Iterator[dict[str, tuple[str, int]]]:
    """Serve by stock, by ours in two ways, and by the others."""
    with contextlib.ExitStack() as stack:
        policy = {"GUNICORN_EXPECT_POLICY": "apps:refusing"}
        addresses = stack.enter_context(both("refuse", **{BY_POLICY: policy}))
        yield addresses | {name: stack.enter_context(other(name)) for name in OTHERS}


def main() -> None:
    """Print the table."""
    print_machine()
    print("Refusing 1 GiB:")
    print("                                refused/s   to status   body bytes   not heard")
    with apart(all_of_them()) as addresses:
        for connections in (1, 32):
            uploads: dict[tuple[str, int], list[Upload]] = {x: [] for x in addresses.values()}

            def measure(
                address: tuple[str, int],
                connections: int = connections,
                uploads: dict[tuple[str, int], list[Upload]] = uploads,
            ) -> float:
                done = refusals(address, connections)
                uploads[address] += done
                return sum(upload.refused_after > 0 for upload in done) / SECONDS

            results = in_turn(addresses, measure, ROUNDS)
            for name in (STOCK, OURS, BY_POLICY, *OTHERS):
                done = uploads[addresses[name]]
                heard = [upload.refused_after for upload in done if upload.refused_after]
                to_status = statistics.median(heard) * 1000
                sent = statistics.mean(upload.body_bytes for upload in done)
                rate = statistics.median(results[name])
                unheard = 1 - len(heard) / len(done)
                print(
                    f"  {connections:2} connections, {name:22} {rate:8.0f} "
                    f"{to_status:8.2f} ms {sent:12.0f} {unheard:14.1%}"
                )
            pairs = [(OURS, STOCK), (BY_POLICY, STOCK), (BY_POLICY, OURS)]
            for name, to in pairs + [(BY_POLICY, other) for other in OTHERS]:
                ratio = statistics.median(ratios(results, name, to))
                print(f"  refusals a second, {name} to {to}: {ratio:.2f}")


if __name__ == "__main__":
    main()
