"""The kinds of request, each measured on all servers: a line of the tables for each.

The servers of a line run at the same time. They are measured one after the other, in several
rounds, and the tables have the medians.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

from load import CLOSING, EXPECT, GET, MIB, REFUSED, Figures, Load, Request, head
from noise import Effort, spread, steady
from servers import GEVENT, SYNC, THREADS, peer, started

if TYPE_CHECKING:
    from collections.abc import Mapping

STOCK, OURS, PYTHON = (kind.name for kind in THREADS)
PEERS: Final = ("uvicorn", "pywsgi", "granian")
WARM_UP: Final = 0.2  # seconds


class Line(NamedTuple):
    """A kind of request."""

    name: str
    title: str
    request: Request
    aims: Mapping[str, float]
    """By the name of another server: how many times its rate ours should reach."""
    floor: str | None = None
    """The server of peers.py that is the floor for this request."""
    of_ours: Mapping[str, str] = {}
    env: Mapping[str, str] = {}
    scale: float = 1
    """MB of a request, where MB/s are shown and not requests a second."""


def _up(size: int, *fields: str, **more: int) -> Request:
    return Request(head("PUT /", f"Content-Length: {size}", *fields), body=size, **more)


SMALL: Final = 64 * 1024
LARGE: Final = 64 * MIB
#: If malloc returns the memory of each piece to the kernel, which depends on chance, a piece costs
#: some 16 page faults, and a server reads at a fraction of its speed. These thresholds prevent that
#: on all servers. malloc allows no threshold for mmap above 32 MiB.
MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": str(256 * MIB)}

LINES: Final = (
    Line(
        "refuse",
        "refuse 1 GiB, by the application",
        REFUSED,
        {STOCK: 6.5, "uvicorn": 1.0, "pywsgi": 2.0, "epoll": 0.45},
        "epoll",
    ),
    Line(
        "policy",
        "refuse 1 GiB, by an inline policy",
        REFUSED,
        {STOCK: 12, "uvicorn": 1.8, "pywsgi": 4, "granian": 1.0, "epoll": 0.85},
        "epoll",
        of_ours={"GUNICORN_EXPECT_POLICY": "apps:policy"},
    ),
    Line("get", "GET, connection kept", GET, {STOCK: 2.8, "uvicorn": 0.7}, "epoll"),
    Line("closing", "GET, connection closed", CLOSING, {STOCK: 2.2, "uvicorn": 1.2}, "epoll"),
    Line("upload", "64 KiB upload", _up(SMALL), {STOCK: 2.2, "uvicorn": 1.2}),
    Line("expect", "64 KiB upload with `Expect`", _up(SMALL, EXPECT), {STOCK: 2.2}),
    Line(
        "large",
        "64 MiB upload, 64 KiB sends, MB/s",
        _up(LARGE, clients=1),
        {STOCK: 5, "raw": 0.9},
        "raw",
        env=MALLOC,
        scale=LARGE / 1e6,
    ),
    Line(
        "large-sends",
        "64 MiB upload, 1 MiB sends, MB/s",
        _up(LARGE, clients=1, send=MIB),
        {STOCK: 5, "raw": 0.8},
        "raw",
        env=MALLOC,
        scale=LARGE / 1e6,
    ),
)


class Result(NamedTuple):
    """The results of a line."""

    line: Line
    figures: dict[str, list[Figures]]

    def rates(self, server: str) -> list[float]:
        """Return its requests a second, or MB/s, in each round."""
        return [each.rate * self.line.scale for each in self.figures[server]]

    def rate(self, server: str) -> float:
        """Return their median."""
        return statistics.median(self.rates(server))

    def cpu(self, server: str) -> float:
        """Return the microseconds of CPU for a request, or for a MB."""
        return statistics.median(each.cpu for each in self.figures[server]) / self.line.scale

    def ratio(self, server: str, to: str) -> float:
        """Return the rate of ``server`` divided by that of ``to``."""
        pairs = zip(self.rates(server), self.rates(to), strict=True)
        return statistics.median(one / other if other else 0.0 for one, other in pairs)

    def client_bound(self, server: str) -> bool:
        """Return whether the client had no time left, so that the server could do more."""
        return statistics.median(each.busy for each in self.figures[server]) > 0.9

    def spread(self) -> float:
        """Return how far the rounds of the least steady server are apart."""
        return max(spread(self.rates(server)) for server in self.figures)


def _in_turn(load: Load, line: Line, effort: Effort) -> Result:
    floor = (peer(line.floor),) if line.floor else ()
    kinds = (*THREADS, *map(peer, PEERS), *floor, *GEVENT, *SYNC)
    with started(kinds, line.env, line.of_ours) as servers:
        figures: dict[str, list[Figures]] = {server.name: [] for server in servers}
        for server in servers:
            load(server, line.request, WARM_UP)
        for number in range(effort.rounds):
            # The opposite order each time, so that no server is always the first.
            for server in servers if number % 2 else servers[::-1]:
                figures[server.name].append(load(server, line.request, effort.seconds))
    return Result(line, figures)


def measure(load: Load, line: Line, effort: Effort) -> Result:
    """Measure a line."""
    return steady(line.name, effort, lambda: _in_turn(load, line, effort))
