"""How much of a refused upload crosses a slow network, and what its client receives.

The clients run in a network namespace of their own. This script passes the packets between it and
the servers through two TUN devices: it delays each of them, and limits their rate. (`tc netem`
would do the same, but not every kernel is built with it.) Run it by hand, as root, on Linux with
iproute2 and curl:

    sudo .venv/bin/python benchmarks/network.py --round-trip 50 --rate 100 --decides-in 200
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HERE: Final = Path(__file__).parent
NAMESPACE: Final = f"up{os.getpid()}"
#: TEST-NET-2 of RFC 5737, which belongs to nobody.
SERVER, CLIENT = "198.51.100.1", "198.51.100.2"
SIZE: Final = 100_000_000
#: The variable that has the seconds which the application takes to decide.
DECIDES_IN: Final = "DECIDES_IN"
#: A packet is dropped if the line needs more seconds than this for those that wait before it.
QUEUE: Final = 0.1

WORKERS: Final = {"stock": "gthread", "ours": "gunicorn_expect.Worker"}

#: A client that does not wait, and reads the response only after it has sent the whole body.
SENDS_FIRST: Final = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1])
try:
    connection.request("PUT", "/", open("big.iso", "rb"))
    print(connection.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""


def app(_environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Refuse without reading, like an application that first looks up a token elsewhere."""
    time.sleep(float(os.environ[DECIDES_IN]))
    start_response("401 Unauthorized", [("Content-Length", "0")])
    return []


def clients(address: str) -> dict[str, list[str]]:
    """Return the command of each client. Each prints the status code that it has seen."""
    curl = ["curl", "-s", "-o", "body", "-w", "%{http_code}, curl's exit code %{exitcode}"]
    curl += ["-T", "big.iso", f"http://{address}/"]
    return {
        "curl, which waits": curl,
        "curl -H Expect:, which doesn't": [*curl, "-H", "Expect:"],
        "http.client, which sends all first": [sys.executable, "-c", SENDS_FIRST, address],
    }


def run(*command: str) -> str:
    """Run a command; return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Line:
    """One direction of the network: packets wait for their turn, and then for the delay."""

    def __init__(self, source: int, target: int, delay: float, rate: float) -> None:
        """Pass packets between two devices, after seconds of delay, with so many bits a second."""
        self.source, self._target, self._delay, self._rate = source, target, delay, rate
        self._packets: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self.sent = 0  # bytes

    def receive(self) -> None:
        """Take a packet, or drop it if the queue before the line is full, as a router does."""
        packet, now = os.read(self.source, 65536), time.monotonic()
        if self._free_at - now < QUEUE:
            self._free_at = max(now, self._free_at) + 8 * len(packet) / self._rate
            self._packets.append((self._free_at + self._delay, packet))
            self.sent += len(packet)

    def deliver(self) -> None:
        """Pass on what has arrived by now."""
        while self._packets and self._packets[0][0] <= time.monotonic():
            os.write(self._target, self._packets.popleft()[1])

    def pause(self) -> float:
        """Return the seconds until the next packet arrives."""
        if not self._packets:
            return 0.1
        return max(0.0, self._packets[0][0] - time.monotonic())


def forward(up: Line, down: Line, ended: threading.Event) -> None:
    """Pass packets in both directions."""
    while not ended.is_set():
        readable, _, _ = select.select(
            [up.source, down.source], [], [], min(up.pause(), down.pause())
        )
        for line in (up, down):
            if line.source in readable:
                line.receive()
            line.deliver()


def device(name: str) -> int:
    """Create a TUN device; return its file descriptor. Linux's Documentation/networking/tuntap."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    set_interface, layer_3, no_header = 0x400454CA, 0x0001, 0x1000
    fcntl.ioctl(tun, set_interface, struct.pack("16sH", name.encode(), layer_3 | no_header))
    return tun


@contextlib.contextmanager
def network(round_trip: float, rate: float) -> Iterator[Line]:
    """Connect a namespace with the servers'; yield the line from the namespace."""
    inside = ("ip", "-n", NAMESPACE)
    run("ip", "netns", "add", NAMESPACE)
    ended = threading.Event()
    here, there = device(f"{NAMESPACE}s"), device(f"{NAMESPACE}c")
    up = Line(there, here, round_trip / 2, rate)
    forwarding = threading.Thread(
        target=forward, args=(up, Line(here, there, round_trip / 2, rate), ended)
    )
    try:
        run("ip", "address", "add", SERVER, "peer", CLIENT, "dev", f"{NAMESPACE}s")
        run("ip", "link", "set", f"{NAMESPACE}s", "up")
        run("ip", "link", "set", f"{NAMESPACE}c", "netns", NAMESPACE)
        run(*inside, "address", "add", CLIENT, "peer", SERVER, "dev", f"{NAMESPACE}c")
        run(*inside, "link", "set", f"{NAMESPACE}c", "up")
        forwarding.start()
        yield up
    finally:
        ended.set()
        forwarding.join()
        os.close(here)
        os.close(there)
        run("ip", "netns", "delete", NAMESPACE)


def silent(line: Line) -> int:
    """Wait until nothing more is sent; return how many bytes were sent in all."""
    while True:
        before = line.sent
        time.sleep(0.5)
        if line.sent == before:
            return before


@contextlib.contextmanager
def served(worker: str, decides_in: float) -> Iterator[str]:
    """Run gunicorn with `app`; yield its address."""
    bind = ("--bind", f"{SERVER}:0", "--threads", "8", "--no-control-socket")
    command = (sys.executable, "-m", "gunicorn", "-k", worker, *bind, "network:app")
    paths = os.pathsep.join(map(str, (HERE, HERE.parent)))
    env = os.environ | {"PYTHONPATH": paths, DECIDES_IN: str(decides_in)}
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"Listening at: http://(\S+)", line):
                yield found[1]
                break
        else:
            sys.exit(f"gunicorn did not start; try it by hand: {' '.join(command)}")
    finally:
        server.terminate()
        server.wait()


def tried(command: list[str], folder: str, line: Line) -> tuple[int, float, str]:
    """Run a client; return how many bytes it sent, how many seconds it took and what it printed."""
    before, start = line.sent, time.monotonic()
    inside = ("ip", "netns", "exec", NAMESPACE, *command)
    seen = subprocess.run(inside, cwd=folder, check=False, capture_output=True, text=True).stdout
    seconds = time.monotonic() - start
    return silent(line) - before, seconds, seen.strip()


def main() -> None:
    """Print a line for each client with each server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--round-trip", type=float, default=50, help="of the network, in milliseconds (50)"
    )
    parser.add_argument("--rate", type=float, default=100, help="of the network, in Mbit/s (100)")
    parser.add_argument(
        "--decides-in",
        type=float,
        default=0,
        help="milliseconds that the application takes to refuse (0)",
    )
    parser.add_argument(
        "--tries", type=int, default=10, help="uploads of each client to each server (10)"
    )
    options = parser.parse_args()
    line = network(options.round_trip / 1000, options.rate * 1_000_000)
    with tempfile.TemporaryDirectory() as folder, line as up:
        with Path(folder, "big.iso").open("wb") as file:
            file.truncate(SIZE)
        for name, worker in WORKERS.items():
            with served(worker, options.decides_in / 1000) as address:
                for client, command in clients(address).items():
                    tries = [tried(command, folder, up) for _ in range(options.tries)]
                    megabytes = [f"{size / 1e6:.2f}" for size, _, _ in tries]
                    seconds = [f"{took:.1f}" for _, took, _ in tries]
                    seen = {what: [t[2] for t in tries].count(what) for *_, what in tries}
                    print(
                        f"{name}, {client}: MB {megabytes}, seconds {seconds}, {seen}", flush=True
                    )


if __name__ == "__main__":
    main()
