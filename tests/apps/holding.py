"""Applications that hold something, such as a lock, while they read; others wait for it.

Each tells the test when it wants it and when it has it, with events that have the name in the
query. It answers how many others were running when it began.
"""

import contextlib
import fcntl
import os
import pathlib
import queue
import sqlite3
import threading

from apps import router
from apps.routes import answer
from apps.switchboard import tell

LOCK = threading.Lock()
#: The names of the uploads that are running.
INSIDE = []
FOLDER = pathlib.Path(os.environ["HOLDING"])
#: One connection for each thread of the tests.
CONNECTIONS = queue.Queue()
for number in range(2):
    CONNECTIONS.put(number)


@contextlib.contextmanager
def file_lock():
    with FOLDER.joinpath("lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def connection():
    """Take a connection from a pool, and put it back at the end."""
    number = CONNECTIONS.get(timeout=10)
    try:
        yield
    finally:
        CONNECTIONS.put(number)


@contextlib.contextmanager
def transaction():
    """Hold a write transaction, of which there can be only one at a time."""
    with contextlib.closing(sqlite3.connect(FOLDER / "database", timeout=60)) as database:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("COMMIT")


HELD = {
    "/lock": lambda: LOCK,
    "/file-lock": file_lock,
    "/connection": connection,
    "/transaction": transaction,
    "/nothing": contextlib.nullcontext,
}


def app(environ, start_response):
    if environ["PATH_INFO"] not in HELD:
        return router.app(environ, start_response)
    name = environ["QUERY_STRING"]
    INSIDE.append(name)
    beside = len(INSIDE) - 1
    tell(f"set wants-{name}")
    with HELD[environ["PATH_INFO"]]():
        tell(f"set has-{name}")
        size = 0
        while piece := environ["wsgi.input"].read(65536):
            size += len(piece)
    INSIDE.remove(name)
    return answer(start_response, {"size": size, "beside": beside})
