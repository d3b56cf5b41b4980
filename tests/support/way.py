"""Records every Python call that a worker makes for one request."""

import ast
import collections
import dataclasses
import functools
import json
import socket
import textwrap
import time

from support import CHECKOUT
from support.client import request, waiting
from support.server import Server

PACKAGE = CHECKOUT / "gunicorn_expect"

#: A configuration that writes each call of our functions and of gunicorn's into a file: the time,
#: whether it is in the main thread, the file of the caller, that of the called function, and its
#: name.
RECORDING = """
import json, os, sys, threading, time
events = []
# What the loop calls whenever it wakes, or once a second, not for a certain connection.
OF_EVERY_TURN = "tick", "notify", "_expire", "_watch_listeners", "wait"

def post_worker_init(worker):
    import gunicorn, gunicorn_expect
    roots = {
        os.path.dirname(gunicorn_expect.__file__) + os.sep: "ours",
        os.path.dirname(gunicorn.__file__) + os.sep: "gunicorn",
    }
    def file_of(code):
        for root, whose in roots.items():
            if code.co_filename.startswith(root):
                return whose, code.co_filename[len(root):]
    def profile(frame, event, argument):
        if event != "call" or file_of(frame.f_code) is None:
            return
        caller, back = None, frame
        while back is not None:
            if back.f_code.co_name in OF_EVERY_TURN:
                return
            if caller is None and back is not frame:
                caller = file_of(back.f_code)
            back = back.f_back
        is_main = threading.current_thread() is threading.main_thread()
        events.append((time.monotonic(), is_main, caller, file_of(frame.f_code), name(frame)))
    def name(frame):
        return getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # Python 3.10 has none
    threading.setprofile(profile)
    sys.setprofile(profile)
    if "Gevent" in type(worker).__name__:
        import greenlet
        greenlet.settrace(lambda event, arguments: sys.setprofile(profile))

def worker_exit(server, worker):
    sys.setprofile(None)
    with open(os.environ["CALLS"], "w") as file:
        json.dump(events, file)
"""

#: Calls that happen whether a request is served or not.
ALWAYS = ("Loop.run", "Loop.turn")

HEADS = {
    "get": request("GET /hello"),
    "refuse": waiting("PUT /refuse", "Content-Length: 1000000"),
    "upload": waiting("PUT /read", "Content-Length: 1000"),
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a function of ours, or of gunicorn's."""

    is_main: bool
    caller: tuple
    callee: tuple
    name: str

    @property
    def is_move(self):
        """Whether it enters a file of ours from another file."""
        return self.callee[0] == "ours" and self.caller != self.callee

    @property
    def is_crossing(self):
        """Whether it goes from ours to gunicorn, or back."""
        return self.caller is not None and self.caller[0] != self.callee[0]


def calls_of(kind, worker, directory):
    """Serve some requests of this kind; return the calls of the last one."""
    configuration = directory / "recording.py"
    configuration.write_text(RECORDING, "utf-8")
    calls = directory / "calls.json"
    recorded = Server(
        *("-c", configuration, "--keep-alive", "5", "--graceful-timeout", "2"),
        worker=worker,
        transport="unix",
        env={"CALLS": str(calls)},
    )
    with recorded as server:
        for _ in range(3):  # so that threads are started and caches filled
            with connected(server) as client:
                exchange(client, kind)
        settle()
        with connected(server) as client:
            if kind != "refuse":
                exchange(client, kind)
            settle()
            begun = time.monotonic()
            exchange(client, kind)
            settle()
        settle()
        ended = time.monotonic()
    return [
        Call(is_main, caller and tuple(caller), tuple(callee), name)
        for when, is_main, caller, callee, name in json.loads(calls.read_text("utf-8"))
        if begun <= when <= ended and name not in ALWAYS
    ]


def settle():
    """Wait until the calls after a response are recorded: the wire does not show their end."""
    time.sleep(1)


def connected(server):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(server.address)
    return client


def exchange(client, kind):
    client.sendall(HEADS[kind])
    received = client.recv(65536)
    if kind == "upload":
        assert received.startswith(b"HTTP/1.1 100 ")
        client.sendall(bytes(1000))
        received = client.recv(65536)
    assert received.startswith(b"HTTP/1.1 ")


def counted(calls):
    """Count the calls, moves between our files, crossings to gunicorn or back, and our files."""
    return collections.Counter(
        calls=len(calls),
        moves=sum(call.is_move for call in calls),
        crossings=sum(call.is_crossing for call in calls),
        files=len({call.callee for call in calls if call.callee[0] == "ours"}),
    )


def as_table(calls):
    """Return the table of the page: each call from one file of ours into another."""
    lines = ["| by | step | what it does |", "|---|---|---|"]
    for call in calls:
        if call.is_move:
            by = "loop" if call.is_main else "thread"
            file = call.callee[1]
            lines.append(
                f"| {by} | [{file}](../gunicorn_expect/{file}) `{call.name}` "
                f"| {summary(file, call.name)} |"
            )
    return "\n".join(lines)


@functools.cache
def summary(file, name):
    """Return the first line of a function's docstring; its class's, for an ``__init__``."""
    node = ast.parse((PACKAGE / file).read_text("utf-8"))
    owner = node
    for part in name.split("."):
        owner, node = node, next(x for x in node.body if getattr(x, "name", "") == part)
    if name.endswith("__init__"):
        node = owner
    return textwrap.dedent(ast.get_docstring(node) or "").partition("\n")[0]
