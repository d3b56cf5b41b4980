"""A client of *Resumable Uploads for HTTP*, on raw sockets, and the example that serves it."""

import contextlib
import fcntl
import hashlib
import re
import struct
import termios
from pathlib import Path
from typing import NamedTuple

from support import until
from support.client import Client, request
from support.matrix import WORKERS
from support.server import Server

APP = "examples.resumable_upload:app"
POLICY = "examples.resumable_upload:policy"
APPEND = "Content-Type: application/partial-upload"
WHOLE, PART = "Upload-Complete: ?1", "Upload-Complete: ?0"


class Answer(NamedTuple):
    """A final response, and the interim ones before it, each with its status and fields."""

    status: int
    fields: dict[str, str]
    body: bytes
    interim: list[tuple[int, dict[str, str]]]

    @property
    def offset(self):
        return int(self.fields["upload-offset"])

    @property
    def is_complete(self):
        return {"?1": True, "?0": False}[self.fields["upload-complete"]]


def parsed(head):
    """Return the status of a response, and its fields by their names in lower case."""
    line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    fields = (each.partition(": ") for each in lines)
    return int(line.split()[1]), {name.lower(): value for name, _, value in fields}


def receive_answer(client, method="PATCH"):
    """Receive responses up to a final one."""
    interim = []
    while True:
        head, body = client.receive_response() if method != "HEAD" else (client.receive_head(), b"")
        assert head, "the server closed the connection without a final response"
        status, fields = parsed(head)
        if status >= 200:
            return Answer(status, fields, body, interim)
        interim.append((status, fields))


def ask(server, line, *fields, body=None):
    """Send a request on a connection of its own."""
    if body is not None:
        fields = (*fields, f"Content-Length: {len(body)}")
    with Client(server) as client:
        client.send(request(line, "Connection: close", *fields))
        # The response may come before the body is sent: a refusal.
        with contextlib.suppress(ConnectionError):
            client.send(body or b"")
        return receive_answer(client, line.split()[0])


def create(server, *fields, body=b""):
    """Create an upload; return its path."""
    answer = ask(server, "POST /uploads", *(fields or (PART,)), body=body)
    assert answer.status == 201
    return answer.fields["location"]


def state(server, path):
    """Ask for the offset."""
    return ask(server, f"HEAD {path}")


def append(server, path, offset, data, *fields):
    """Append data at this offset."""
    fields = (APPEND, f"Upload-Offset: {offset}", *(fields or (WHOLE,)))
    return ask(server, f"PATCH {path}", *fields, body=data)


def resume(server, path, data):
    """Ask for the offset and send the rest, as a client does after its upload broke off."""
    before = state(server, path)
    assert before.status == 204
    if not before.is_complete:
        after = append(server, path, before.offset, data[before.offset :])
        if after.status in (409, 503):  # the server was still receiving the part that broke off
            assert resume(server, path, data) >= before.offset
        else:
            assert (after.status, after.is_complete) == (200, True), after
    return before.offset


def begin(client, line, *fields, size):
    """Send the head of a creation with data; return the path that the 104 names."""
    client.send(request(line, f"Content-Length: {size}", *fields))
    status, answered = parsed(client.receive_head())
    assert status == 104
    return answered["location"]


def wait_until_received(client):
    """Wait until the server has read all that this client has sent (Linux)."""
    ports = [sock[1] for sock in (client.socket.getpeername(), client.socket.getsockname())]
    theirs, ours = (f":{port:04X}" for port in ports)
    line = re.compile(rf"{theirs} \w+{ours} \w\w \w+:(\w+)")

    def received():
        unsent = struct.unpack("i", fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4)))[0]
        unread = line.search(Path("/proc/net/tcp").read_text("ascii"))
        return unsent == 0 and unread and int(unread[1], 16) == 0

    until(received)


class Site:
    """The example, storing in a folder, on servers that may be killed and started again."""

    def __init__(self, folder, worker="thread", processes=2, **env):
        self.folder = folder
        self._arguments = ("--workers", str(processes))
        self._worker = WORKERS[worker][0]
        self._env = {"UPLOAD_FOLDER": str(folder), "GUNICORN_EXPECT_POLICY": POLICY, **env}

    def serve(self):
        return Server(*self._arguments, app=APP, worker=self._worker, env=self._env)

    def stored(self):
        """Return the names of the files that are complete."""
        return sorted(path.name for path in self.folder.glob("*") if path.is_file())

    def unfinished(self):
        """Return the names of the files of uploads that are not complete."""
        return sorted(path.name for path in self.folder.glob(".uploads/*"))

    def has(self, name, data):
        """Return whether a file with this name has these contents."""
        stored = self.folder.joinpath(name).read_bytes()
        return hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
