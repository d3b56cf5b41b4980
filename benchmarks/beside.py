"""What slow and idle clients cost: memory, and the rate of other requests meanwhile."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from load import CLOSING, EXPECT, GET, GIB, REFUSED, Load, Request, head
from noise import spread, steady
from servers import GEVENT, THREADS, Server, started

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from noise import Effort

KINDS: Final = (*THREADS[:2], *GEVENT[:2])
#: Seconds without a response after which a server counts as not serving at all.
PATIENCE: Final = 2.0
#: Seconds for a server to notice that the slow clients have left.
GONE: Final = 15.0
#: Files other than connections that a server may have opened meanwhile.
FILES: Final = 5
#: Timeouts that let the slow clients stay for as long as the server is measured.
PATIENT: Final = {
    f"GUNICORN_EXPECT_{name}": "3600"
    for name in ("BODY_TIMEOUT", "HEAD_TIMEOUT", "LINGER", "LINGER_IDLE")
} | {"GUNICORN_EXPECT_MIN_RATE": "0"}


@contextlib.contextmanager
def waiting(server: Server, count: int, data: bytes, *, answered: bool = True) -> Iterator[None]:
    """Connect ``count`` clients that send ``data``, get the beginning of a response, and stay."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(server.connect())
            connection.sendall(data)
            if answered:
                connection.settimeout(PATIENCE)
                try:
                    connection.recv(4096)
                except TimeoutError:  # the others would wait as long
                    answered = False
        yield


STALLED: Final = head("PUT /", f"Content-Length: {GIB}", EXPECT)
UNCLOSED: Final = head("PUT /refuse", f"Content-Length: {GIB}") + bytes(16 * 1024)


def stalled(server: Server) -> contextlib.AbstractContextManager[None]:
    """Let 200 uploads get their 100 and send nothing."""
    return waiting(server, 200, STALLED)


def refused(server: Server) -> contextlib.AbstractContextManager[None]:
    """Let 100 clients be refused in the middle of their upload, and neither send nor close."""
    return waiting(server, 100, UNCLOSED)


def idle(server: Server) -> contextlib.AbstractContextManager[None]:
    """Let 9,000 clients keep the connection on which they were answered."""
    return waiting(server, 9000, GET.head)


@contextlib.contextmanager
def slow_heads(server: Server) -> Iterator[None]:
    """Send request headers on 1,000 connections, one byte of each every second."""
    with contextlib.ExitStack() as stack:
        clients: list[socket.socket] = [stack.enter_context(server.connect()) for _ in range(1000)]
        begun, over = threading.Event(), threading.Event()

        def trickle() -> None:
            for byte in GET.head:
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.sendall(bytes([byte]))
                begun.set()
                if over.wait(1):
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        begun.wait()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Company(NamedTuple):
    """Slow or idle clients, and the requests that are measured beside them."""

    name: str
    title: str
    clients: int
    come: Callable[[Server], contextlib.AbstractContextManager[None]]
    requests: Mapping[str, Request]
    aims: Mapping[str, float]
    """By request: the part of its rate alone that our worker should keep beside them."""


_CLOSING: Final = {"GET, closed": CLOSING}
_IDLE: Final = {"GET, kept": GET, "GET, closed": CLOSING, "refusal": REFUSED}
COMPANIES: Final = (
    Company("stalled", "200 stalled uploads", 200, stalled, _CLOSING, {"GET, closed": 0.9}),
    Company("refused", "100 unclosed refusals", 100, refused, _CLOSING, {"GET, closed": 0.9}),
    Company("heads", "1,000 slow headers", 1000, slow_heads, _CLOSING, {"GET, closed": 0.9}),
    Company(
        "idle",
        "9,000 idle connections",
        9000,
        idle,
        _IDLE,
        {"GET, kept": 0.9, "GET, closed": 0.95, "refusal": 0.95},
    ),
)


class Cost(NamedTuple):
    """What these clients cost a server."""

    server: str
    ours: bool
    alone: dict[str, list[float]]  # requests a second, by request
    beside: dict[str, list[float]]
    memory: float  # KiB for each client

    def ratio(self, request: str) -> float:
        """Return the part of the rate that is left."""
        return statistics.median(self._ratios(request))

    def _ratios(self, request: str) -> list[float]:
        pairs = zip(self.beside[request], self.alone[request], strict=True)
        return [beside / alone for beside, alone in pairs]

    def spread(self) -> float:
        """Return how far the rounds are apart for the least steady request."""
        return max(spread(self._ratios(request)) for request in self.alone)


class Costs(NamedTuple):
    """What these clients cost each server."""

    company: Company
    costs: list[Cost]

    def spread(self) -> float:
        """Return how far the rounds of the least steady server are apart."""
        return max(cost.spread() for cost in self.costs)


def _wait_until_gone(server: Server, files: int) -> None:
    deadline = time.monotonic() + GONE
    while server.open_files() > files and time.monotonic() < deadline:
        time.sleep(0.05)


def _round(load: Load, company: Company, server: Server, cost: Cost, seconds: float) -> Cost:
    """Measure alone and beside them; return the cost, in the first round with the memory."""
    files = server.open_files() + FILES
    for name, request in company.requests.items():
        cost.alone[name].append(load(server, request, seconds).rate)
    _wait_until_gone(server, files)
    memory = server.resident()
    with company.come(server):
        grown = server.resident() - memory
        for name, request in company.requests.items():
            cost.beside[name].append(load(server, request, seconds).rate)
    _wait_until_gone(server, files)
    # The first round counts: later ones use the memory that the first has left.
    return cost._replace(memory=cost.memory or grown / company.clients)


def measure(load: Load, company: Company, effort: Effort) -> Costs:
    """Measure what these clients cost each server."""
    return steady(company.name, effort, lambda: _in_turn(load, company, effort))


def _in_turn(load: Load, company: Company, effort: Effort) -> Costs:
    with started(KINDS, of_ours=PATIENT) as servers:
        costs = {
            server.name: Cost(
                server.name,
                server.ours,
                {name: [] for name in company.requests},
                {name: [] for name in company.requests},
                0.0,
            )
            for server in servers
        }
        for server in servers:
            for request in company.requests.values():
                load(server, request, effort.seconds / 2)  # warm up
        for _ in range(effort.rounds):
            for server in servers:
                cost = costs[server.name]
                # A server that serves nothing beside these clients may not recover from them.
                if all(rates[-1:] != [0.0] for rates in cost.beside.values()):
                    costs[server.name] = _round(load, company, server, cost, effort.seconds)
    return Costs(company, list(costs.values()))
