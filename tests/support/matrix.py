"""Which gunicorns the tests talk to.

A cell of the matrix is a worker on a transport, with a parser, a gunicorn and a Python. The quick
choice has each value of each axis in some cell; ``--matrix wide``, which CI runs, has every cell of
one Python and some of the others; ``--matrix full`` has every cell.
"""

import dataclasses
import itertools

from support.installed import PYTHONS

WORKERS = {
    "thread": ("gunicorn_expect.Worker", "gthread"),
    "gevent": ("gunicorn_expect.GeventWorker", "gevent"),
    "sync": ("gunicorn_expect.Sync", "sync"),
}
TRANSPORTS = ["tcp", "unix", "tls", "proxy-v1", "proxy-v2"]
PARSERS = ["python", "fast"]
GUNICORNS = ["newest", "oldest"]


@dataclasses.dataclass(frozen=True)
class Cell:
    worker: str = "thread"
    transport: str = "tcp"
    parser: str = "python"
    gunicorn: str = "newest"
    python: str = "current"

    def __str__(self):
        return "-".join(dataclasses.astuple(self))


QUICK = [
    Cell("thread", "tcp"),
    Cell("gevent", "tcp"),
    Cell("sync", "tcp"),
    Cell("thread", "tls", gunicorn="oldest"),
    Cell("gevent", "tls", "fast"),
    Cell("sync", "tls"),
    Cell("thread", "unix", "fast"),
    Cell("gevent", "unix", gunicorn="oldest"),
    Cell("sync", "proxy-v1", "fast", "oldest"),
    Cell("thread", "proxy-v2"),
    *(
        Cell(worker, transport, python=python)
        for python, worker, transport in zip(
            [python for python in PYTHONS if python != "current"],
            itertools.cycle(["gevent", "thread", "sync"]),
            itertools.cycle(["tls", "tcp"]),
            strict=False,
        )
    ),
]
FULL = [
    Cell(*values) for values in itertools.product(WORKERS, TRANSPORTS, PARSERS, GUNICORNS, PYTHONS)
]
WIDE = [
    cell
    for cell in FULL
    if cell.python == "current"
    or (cell.transport, cell.parser, cell.gunicorn) == ("tls", "python", "newest")
]
MATRICES = {"quick": QUICK, "wide": WIDE, "full": FULL}
