"""A crowd of clients, well and badly behaved, while the server is reloaded and its worker killed.

``make soak`` takes ten minutes for each worker; ``make test`` takes one for all three.
"""

import collections
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import threading
import time

import pytest
from conftest import WORKERS
from wire import CHECKOUT, CONTINUE, TESTS, Client, Server, request, waiting

CROWD = 12
LARGEST = 3_000_000
#: Seconds before and after a signal in which a connection may break.
AROUND_A_SIGNAL = 4
#: KiB that a worker may grow by under the same load as before: a largest body for each of its 8
#: threads, whose memory the C library keeps for the next one.
GROWTH = 8 * LARGEST // 1024

KINDS = [
    "waits",
    "sends",
    "chunks",
    "trickles",
    "refused",
    "refused-late",
    "leaves",
    "resets",
    "gets",
]


class Crowd:
    """Clients that go on until they are told to stop; what became of each is counted."""

    def __init__(self, server, seed):
        self.server = server
        self.outcomes = collections.Counter()
        self.wrong = []
        self.broken = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {number}"),))
            for number in range(CROWD)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance):
        while not self._stop.is_set():
            kind = chance.choice(KINDS)
            body = chance.randbytes(chance.choice([1, 100, 70_000, chance.randrange(LARGEST)]))
            try:
                with Client(self.server) as client:
                    outcome = self._act(kind, body, client, chance)
            except (OSError, EOFError) as error:
                self._count("broken")
                self.broken.append((time.monotonic(), kind, repr(error)))
            except AssertionError as error:
                self._count("wrong")
                self.wrong.append((kind, len(body), str(error)[:500]))
            else:
                self._count(outcome)

    def _count(self, outcome):
        with self._lock:
            self.outcomes[outcome] += 1

    def _act(self, kind, body, client, chance):
        with self._lock:
            name = f"{next(self._numbers)}-{len(body)}-{hashlib.sha256(body).hexdigest()}"
        length = f"Content-Length: {len(body)}"
        if kind == "gets":
            client.send(request("GET /hello"))
            check(client, b"200", b"hello")
        elif kind == "refused":
            client.send(waiting("PUT /refuse", length))
            check(client, b"413", b"too large")
        elif kind == "refused-late":
            client.send(request("PUT /refuse", length), body)
            check(client, b"413", b"too large")
        elif kind in ("leaves", "resets"):
            client.send(request(f"PUT /{name}", length), body[: len(body) // 2])
            if kind == "resets":
                client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        else:
            if kind == "waits":
                client.send(waiting(f"PUT /{name}", length))
                heard = client.receive(len(CONTINUE))
                if not heard:
                    raise EOFError
                assert heard == CONTINUE, heard
                client.send(body)
            elif kind == "sends":
                client.send(request(f"PUT /{name}", length), body)
            elif kind == "chunks":
                client.send(request(f"PUT /{name}", "Transfer-Encoding: chunked"))
                for piece in cut(body, chance):
                    client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                client.send(b"0\r\n\r\n")
            else:
                client.send(request(f"PUT /{name}", length))
                for piece in cut(body, chance):
                    client.send(piece)
                    time.sleep(0.01)  # a slow client is what this is
            seen = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            check(client, b"201", json.dumps(seen).encode())
        return kind


def cut(body, chance):
    ends = [*sorted(chance.sample(range(len(body)), min(5, len(body)))), len(body)]
    starts = [0, *ends]
    return [body[start:end] for start, end in zip(starts, ends, strict=False) if start < end]


def check(client, status, body):
    head = client.receive_head()
    if not head:
        raise EOFError
    assert head.split()[1] == status, head
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    got = client.receive(length)
    if len(got) < length:
        raise EOFError
    assert got == body, got


def footprint(pid):
    """Give the open files, the threads, and the KiB of a process."""
    process = pathlib.Path(f"/proc/{pid}")
    status = process.joinpath("status").read_text("ascii")
    return (
        len(list(process.joinpath("fd").iterdir())),
        int(re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)[1]),
        int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1]),
    )


def settled(pid, enough=lambda files, threads: True):
    """Wait until a worker's files and threads change no more, and are enough; give what it has."""
    deadline = time.monotonic() + 40
    seen = collections.deque(maxlen=10)
    while True:
        now = footprint(pid)
        seen.append(now[:2])
        if seen.count(now[:2]) == seen.maxlen and enough(*now[:2]):
            return now
        if time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def stored_short(folder):
    return [
        (file.name, file.read_text("utf-8"))
        for file in folder.iterdir()
        if "{1}-{2}".format(*file.name.split("-"))
        != "{size}-{sha256}".format(**json.loads(file.read_text("utf-8")))
    ]


def workers_of(server):
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text("ascii").split()]


def the_last_worker_of(server):
    """Wait until the signals have done their work: there is one worker, and it answers."""
    deadline = time.monotonic() + 40
    while len(workers_of(server)) != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert server.get("/hello") == b"hello"
    [pid] = workers_of(server)
    return pid


@pytest.fixture
def seconds(request):
    return request.config.getoption("soak")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("worker", WORKERS)
def test_nothing_is_stored_short_and_nothing_stays(worker, tmp_path, seconds):
    folder = tmp_path / "stored"
    folder.mkdir()
    tmp_path.joinpath("parts").mkdir()
    env = {
        "SOAK_FOLDER": str(tmp_path),
        "GUNICORN_EXPECT_LINGER": "3",
        "GUNICORN_EXPECT_LINGER_IDLE": "0.5",
        "PYTHONPATH": os.pathsep.join(map(str, (TESTS / "soak", CHECKOUT))),
    }
    with Server(
        *("--graceful-timeout", "10"),
        worker=WORKERS[worker][0],
        app="soaking:app",
        env=env,
    ) as server:
        signals = []
        with Crowd(server, f"{worker} and faults") as faults:
            end = time.monotonic() + seconds * 0.35
            kinds = random.Random(worker)
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, 2.5))
                signals.append(time.monotonic())
                if kinds.random() < 0.5:
                    server.process.send_signal(signal.SIGHUP)
                else:
                    for pid in workers_of(server):
                        os.kill(pid, signal.SIGKILL)
        assert faults.wrong == []
        assert faults.outcomes.keys() >= {*KINDS}, "a kind of client was never served"
        unexplained = [
            broken
            for broken in faults.broken
            if not any(-1 < broken[0] - sent < AROUND_A_SIGNAL for sent in signals)
        ]
        assert unexplained == []

        pid = the_last_worker_of(server)
        with Crowd(server, f"{worker} warming up"):
            time.sleep(seconds * 0.3)
        files, threads, memory = settled(pid)
        with Crowd(server, f"{worker} and no faults") as steady:
            time.sleep(seconds * 0.35)
        assert steady.wrong == []
        assert steady.broken == []
        now = settled(pid, lambda more_files, more_threads: more_files <= files)
        assert now[0] <= files
        assert now[1] <= threads
        assert now[2] <= memory + GROWTH
        assert workers_of(server) == [pid]
    assert stored_short(folder) == []
