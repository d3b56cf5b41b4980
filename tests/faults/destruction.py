"""Servers under faults, and what must be the same afterwards."""

import contextlib
import json
import pathlib
import time

from support import PATIENCE
from support.client import Client, request
from support.matrix import WORKERS
from support.server import Server

HERE = pathlib.Path(__file__).parent


def start(worker, *arguments, stock=False, transport="tcp", certificates=None, **env):
    """Return a server of this worker kind; with ``stock``, one of gunicorn's own."""
    return Server(
        *("-c", str(HERE / "configuration.py"), *arguments),
        app="faults.faulty:app",
        worker=WORKERS[worker][stock],
        transport=transport,
        certificates=certificates,
        env=env,
    )


def get(server, path):
    with Client(server) as client:
        client.send(request(f"GET {path}", "Connection: close"))
        head, body = client.receive_response()
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body


def post(server, path):
    """Send all of a long body, and then receive; return the status and the body of the response."""
    with Client(server) as client:
        client.send(request(f"POST {path}", "Content-Length: 200000"), b"x" * 200_000)
        head, answer = client.receive_response()
        return head[9:12], answer


def state(server):
    """Return the pid of the worker, and how many files and threads it has."""
    return json.loads(get(server, "/state"))


@contextlib.contextmanager
def unharmed(server):
    """Check that the same worker serves at the end, with no more files, threads or errors."""
    for _ in range(3):  # what a worker opens for its first requests and keeps
        get(server, "/hello")
        post(server, "/unread")
    before = settled(server, lambda _: True)
    yield before
    # A connection may be closing at this moment.
    after = settled(
        server,
        lambda found: (
            found["pid"] != before["pid"]
            or (found["files"] <= before["files"] + 1 and found["threads"] <= before["threads"] + 8)
        ),
    )
    assert after["pid"] == before["pid"], "\n".join(server.lines[-50:])
    assert not [line for line in server.lines if "Traceback" in line]


def settled(server, accepted):
    """Wait until the state no longer changes and is `accepted`; return it."""
    give_up = time.monotonic() + PATIENCE
    last = None
    while (found := state(server)) != last or not accepted(found):
        assert time.monotonic() < give_up, (found, server.lines[-20:])
        last = found
        time.sleep(0.1)
    return found
