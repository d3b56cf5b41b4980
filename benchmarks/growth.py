"""Whether a refusal costs more if more connections are open, or if its headers are longer."""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

from beside import KINDS, PATIENT, waiting
from load import EXPECT, GET, GIB, REFUSED, Load, head
from noise import spread, steady
from servers import THREADS, started

if TYPE_CHECKING:
    from collections.abc import Callable

    from noise import Effort

CONNECTIONS: Final = (10, 100, 1000, 10_000)
SIZES: Final = (200, 512, 1024, 2048, 4096, 8192)


class Growth(NamedTuple):
    """Refusals per second of some servers, at each step of something that grows."""

    name: str
    title: str
    steps: tuple[int, ...]
    rounds: dict[str, list[list[float]]]  # by server: for each round a rate for each step

    def rates(self, server: str) -> list[float]:
        """Return the median rate at each step."""
        return [statistics.median(step) for step in zip(*self.rounds[server], strict=True)]

    def least(self, server: str) -> float:
        """Return the lowest rate as a part of the first."""
        rates = self.rates(server)
        return min(rates) / rates[0]

    def spread(self) -> float:
        """Return how far the rounds are apart at the least steady step."""
        steps = [step for rates in self.rounds.values() for step in zip(*rates, strict=True)]
        return max(map(spread, steps))


def connections(load: Load, effort: Effort) -> Growth:
    """Measure beside connections that have had a response and are idle."""
    with started(KINDS, of_ours=PATIENT) as servers:
        rates: dict[str, list[list[float]]] = {server.name: [] for server in servers}
        for _ in range(effort.rounds):
            for server in servers:
                load(server, REFUSED, effort.seconds / 2)  # warm up
                this = []
                with contextlib.ExitStack() as stack:
                    for more, step in zip((0, *CONNECTIONS), CONNECTIONS, strict=False):
                        stack.enter_context(waiting(server, step - more, GET.head))
                        this.append(load(server, REFUSED, effort.seconds).rate)
                rates[server.name].append(this)
    return Growth("connections", "open connections", CONNECTIONS, rates)


def _head(size: int, *, cookie: bool) -> bytes:
    """Return the head of an upload, of this size: with one long field, or with many."""
    start = head("PUT /refuse", f"Content-Length: {GIB}", EXPECT)
    left = size - len(start)
    if cookie:
        fields = [b"Cookie: " + b"c" * (left - 10)]
    else:
        names = (b"X-Field-%d: " % number for number in range(left // 100 or 1))
        fields = [name + b"c" * (left // (left // 100 or 1) - len(name) - 2) for name in names]
    return start[:-2] + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def sizes(load: Load, effort: Effort) -> Growth:
    """Measure heads that are longer: by one field, a cookie, and by fields of 100 bytes."""
    with started(THREADS[:2]) as servers:
        rates: dict[str, list[list[float]]] = {
            f"{server.name}, {what}": [] for server in servers for what in ("a cookie", "fields")
        }
        for server in servers:
            load(server, REFUSED, effort.seconds / 2)  # warm up
        for _ in range(effort.rounds):
            for cookie, what in ((True, "a cookie"), (False, "fields")):
                for server in servers:
                    requests = (REFUSED._replace(head=_head(x, cookie=cookie)) for x in SIZES)
                    this = [load(server, each, effort.seconds).rate for each in requests]
                    rates[f"{server.name}, {what}"].append(this)
    return Growth("sizes", "bytes of the request headers", SIZES, rates)


GROWTHS: Final[dict[str, Callable[[Load, Effort], Growth]]] = {
    "connections": connections,
    "sizes": sizes,
}


def measure(load: Load, name: str, effort: Effort) -> Growth:
    """Measure one of `GROWTHS`."""
    return steady(name, effort, lambda: GROWTHS[name](load, effort))
