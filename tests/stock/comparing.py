"""What can be seen of an exchange on a server: its bytes, the calls of its hooks, its log."""

import contextlib
import itertools
import json
import re

from support.client import Client, request
from support.matrix import WORKERS
from support.server import Server

#: All parts of an access log line except times and durations.
ACCESS = "|".join(
    f"%({atom})s"
    for atom in (
        *"hlurmUqHsBbfa",
        *("{host}i", "{x-of-client}i", "{content-length}o", "{x-of-application}o"),
        *("{wsgi.url_scheme}e", "{x.set_by_application}e"),
    )
)

#: The lines of a traceback, except its last one: they differ, so they are left out.
_TRACE = re.compile(r"[ \t]|Traceback|During handling|The above exception|StopIteration$|$")


def start(
    worker, *arguments, stock, app="stock.recorded:app", transport="tcp", certificates=None, **env
):
    """Return a server of this worker kind, ours or gunicorn's own, which writes what it does."""
    return Server(
        *("-c", "python:stock.recording", "--threads", "1", "--access-logformat", ACCESS),
        *arguments,
        app=app,
        worker=WORKERS[worker][stock],
        transport=transport,
        certificates=certificates,
        env={"GUNICORN_EXPECT_WARN": "false"} | env,  # stock gunicorn has no such warnings
    )


@contextlib.contextmanager
def both(worker, *arguments, **options):
    """Start our worker and gunicorn's own with the same arguments."""
    with (
        start(worker, *arguments, stock=False, **options) as ours,
        start(worker, *arguments, stock=True, **options) as stock,
    ):
        for server in (ours, stock):
            server.wait_for_log("NOTED .*post_worker_init")
        yield ours, stock


_marks = itertools.count()


def exchange(*pieces):
    """Return a function that sends these bytes, and receives until the server closes."""

    def converse(client):
        client.send(*pieces)
        return masked(client.receive_all())

    return converse


def get(path):
    return request(f"GET {path}", "Connection: close")


def shown(server, converse, connect=Client, get=get):
    """Return what the client received, and what hooks, application and log wrote meanwhile.

    A second request marks the end: when it has been answered, all of that has been written.
    """
    start = len(server.lines)
    with connect(server) as client:
        port = client.socket.getsockname()
        received = converse(client)
    mark = f"/mark?{next(_marks)}"
    with Client(server) as client:
        client.send(get(mark))
        client.receive_all()
    server.wait_for_log(rf'NOTED \["post_request".*"uri": "{re.escape(mark)}"', start)
    lines = server.lines[start:]
    end = next(i for i, line in enumerate(lines) if f'"uri": "{mark}"' in line)
    return received, [*written(server, lines[:end], port)]


def without(what, seen):
    """Leave out the notes of this name."""
    received, lines = seen
    return received, [line for line in lines if line[0] != what]


def masked(data):
    return re.sub(rb"(?i)\r\ndate: (?!yesterday)[^\r]*", b"\r\nDate: -", data)


def written(server, lines, peer=None):
    """Yield what hooks and application noted, and the lines of both logs."""
    for line in lines:
        if _TRACE.match(line):
            continue
        line = re.sub(r"^\[[^\]]*\] \[\d+\] ", "", line)
        if isinstance(server.address, tuple):
            line = line.replace(f'"{server.address[1]}"', '"the port"')
        if isinstance(peer, tuple):
            line = re.sub(rf"\b{peer[1]}\b", "0", line)
        line = re.sub(r"\(_ssl\.c:\d+\)", "", line)  # where in Python's source
        if not line.startswith("NOTED "):
            yield line
            continue
        what, *arguments = json.loads(line.removeprefix("NOTED "))
        yield what, *map(comparable, arguments)


def comparable(argument):
    match argument:
        case {"gunicorn_expect.expectation": _}:
            return {k: v for k, v in argument.items() if not k.startswith("gunicorn_expect.")}
    return argument
