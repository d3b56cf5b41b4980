"""What resumable uploads cost: 5 GiB stored by the example, and by a plain view.

`app` is the application that the server serves: it has both.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from flask import Flask, request
from load import GIB, MIB, head
from noise import Effort, spread, steady
from servers import THREADS, Server, started

SIZE: Final = 5 * GIB
#: With ``--quick``.
SMALL_SIZE: Final = 512 * MIB
#: Bytes after which the plain view calls fsync: as often as the example, so both wait for the disk.
SYNC_EVERY: Final = 32 * MIB
PIECE: Final = 65536
AIM: Final = 0.8

PLAIN, RESUMABLE = "plain", "resumable"
PATHS: Final = {PLAIN: "/plain/big.iso", RESUMABLE: "/files/big.iso"}


def app() -> Flask:
    """Return the example with a plain view, and a page that shows that the server has started."""
    from examples.resumable_upload import FOLDER, app  # it reads UPLOAD_FOLDER

    @app.get("/")
    def started() -> str:
        return "hello\n"

    @app.put("/plain/<name>")
    def plain(name: str) -> tuple[str, int]:
        part = FOLDER / f"{name}.part"
        read, since = request.environ["wsgi.input"].read, 0
        with part.open("wb", buffering=0) as file:
            while piece := read(PIECE):
                file.write(piece)
                since += len(piece)
                if since >= SYNC_EVERY:
                    os.fsync(file.fileno())
                    since = 0
            os.fsync(file.fileno())
        part.replace(FOLDER / name)
        return "", 201

    return app


class Stored(NamedTuple):
    """MB/s in each round, by the view."""

    size: int
    rates: dict[str, list[float]]

    @property
    def title(self) -> str:
        """What was stored."""
        return f"{self.size / GIB:g} GiB stored, MB/s"

    def ratio(self) -> float:
        """Return how much of the plain view's rate the example has."""
        pairs = zip(self.rates[RESUMABLE], self.rates[PLAIN], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def spread(self) -> float:
        """Return how far the rounds of the less steady view are apart."""
        return max(map(spread, self.rates.values()))


def _put(server: Server, path: str, size: int) -> float:
    """Upload zeros; return the MB/s."""
    fields = (f"Content-Length: {size}", "Upload-Complete: ?1", "Connection: close")
    piece, answer = bytes(MIB), b""
    begun = time.perf_counter()
    with server.connect() as connection:
        connection.settimeout(600)  # a disk may be slow
        connection.sendall(head(f"PUT {path}", *fields))
        for _ in range(size // MIB):
            connection.sendall(piece)
        while data := connection.recv(65536):
            answer += data
    assert b"HTTP/1.1 201 " in answer, answer
    return size / 1e6 / (time.perf_counter() - begun)


def _in_turn(size: int, effort: Effort) -> Stored:
    kind = THREADS[1]._replace(command=(*THREADS[1].command[:-1], "storing:app()"))
    rates: dict[str, list[float]] = {PLAIN: [], RESUMABLE: []}
    with contextlib.ExitStack() as stack:
        # Not in the folder for temporary files, which may be memory.
        temporary = tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-")
        folder = stack.enter_context(temporary)
        [server] = stack.enter_context(started([kind], {"UPLOAD_FOLDER": folder}))
        for number in range(effort.rounds):
            for view in (PLAIN, RESUMABLE) if number % 2 else (RESUMABLE, PLAIN):
                rates[view].append(_put(server, PATHS[view], size))
                Path(folder, "big.iso").unlink()
    return Stored(size, rates)


def measure(effort: Effort, size: int) -> Stored:
    """Measure both."""
    return steady("resumable", effort, lambda: _in_turn(size, effort))
