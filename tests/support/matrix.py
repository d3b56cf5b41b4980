"""The matrix: the kinds of server that the tests run against.

A cell of the matrix is a worker on a transport, with a parser and a gunicorn. The quick choice has
each value of each axis in some cell. ``--matrix wide``, which CI runs, has each combination of
three values in some cell, and ``--matrix all`` has every cell. With ``--matrix versions``, a small
choice, noxfile.py tries versions of Python and of packages.
"""

import dataclasses
import importlib.util
import itertools

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
]
ALL = [Cell(*values) for values in itertools.product(WORKERS, TRANSPORTS, PARSERS, GUNICORNS)]


def _is_even(cell):
    axes = ([*WORKERS], TRANSPORTS, PARSERS, GUNICORNS)
    values = dataclasses.astuple(cell)
    return sum(axis.index(value) for axis, value in zip(axes, values, strict=True)) % 2 == 0


#: Half of all cells. Each combination of three values is in one of them: of the cells with these
#: three values, every second one is even.
WIDE = [cell for cell in ALL if _is_even(cell)]
#: With the parser that gunicorn chooses by itself.
VERSIONS = [
    Cell(worker, transport, "fast" if importlib.util.find_spec("gunicorn_h1c") else "python")
    for worker, transport in (
        *(("thread", "tcp"), ("thread", "tls"), ("gevent", "tcp"), ("gevent", "tls")),
        ("sync", "tcp"),
    )
]
MATRICES = {"quick": QUICK, "wide": WIDE, "all": ALL, "versions": VERSIONS}
