"""Measures one server with one kind of request, by `load.c` on the core for clients."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from servers import HERE

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
#: Clients at the same time, each with one request, unless the request says otherwise.
CLIENTS: Final = 32


def head(start: str, *fields: str) -> bytes:
    """Return a request head, with the fields that most clients send."""
    common = ("Host: localhost", "User-Agent: bench", "Accept: */*")
    return "\r\n".join((f"{start} HTTP/1.1", *common, *fields, "", "")).encode()


class Request(NamedTuple):
    """A request, and how it is sent."""

    head: bytes
    status: int = 200
    body: int = 0  # bytes
    send: int = 65536  # bytes a call; curl's upload buffer holds as many
    clients: int = CLIENTS


EXPECT: Final = "Expect: 100-continue"
GET: Final = Request(head("GET /"))
CLOSING: Final = Request(head("GET /", "Connection: close"))
REFUSED: Final = Request(head("PUT /refuse", f"Content-Length: {GIB}", EXPECT), 403, GIB)


class Figures(NamedTuple):
    """What was measured."""

    rate: float  # requests a second
    cpu: float  # microseconds of the server's CPU for each request
    sent: float  # bytes of the body for each request
    busy: float  # part of its core that the client used; near 1: the client was the limit


class Load:
    """The client, compiled."""

    def __init__(self, folder: Path) -> None:
        """Compile it.

        Raises:
            SystemExit: there is no C compiler.

        """
        self._program = folder / "load"
        try:
            subprocess.run(["cc", "-O2", "-o", self._program, HERE / "load.c"], check=True)
        except FileNotFoundError:
            raise SystemExit("The client is in C: install a C compiler, so that cc runs") from None

    def __call__(self, server: Server, request: Request, seconds: float) -> Figures:
        """Send requests for ``seconds``.

        Raises:
            SystemExit: a response has another status, or the server is gone.

        """
        arguments = (server.port, seconds, request.clients)
        expected = (request.status, request.body, request.send)
        before = server.cpu()
        done = subprocess.run(
            [self._program, *map(str, arguments + expected)],
            input=request.head,
            stdout=subprocess.PIPE,
            check=False,
        )
        cpu = server.cpu() - before
        if done.returncode:
            raise SystemExit(f"The client stopped at {server.name}, see above: {request}")
        seen = json.loads(done.stdout)
        answered = seen["done"]
        each = max(answered, 1)
        return Figures(
            answered / seen["seconds"],
            cpu / each * 1e6,
            seen["sent"] / each,
            seen["busy"] / seen["seconds"],
        )
