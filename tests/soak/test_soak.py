"""A crowd of clients, well and badly behaved, while the server is reloaded and its worker killed.

Beside them, unfriendly clients begin short exchanges of every kind, and leave in the middle.
``make soak`` takes ten minutes for each worker; ``make test`` takes one for all three.
"""

import collections
import hashlib
import itertools
import json
import os
import random
import re
import signal
import threading
import time

import pytest

from faults.unfriendly import (
    EXCHANGES,
    HTTP2_EXCHANGES,
    WAYS_TO_LEAVE,
    Http2Server,
    ScriptedExchange,
    footprint,
    workers_of,
)
from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

CROWD = 12
UNFRIENDLY = 8
LARGEST = 3_000_000
#: Bytes of a response that does not fit into a new send buffer.
UNREAD = 17_000
#: The signals that the server (SIGHUP) or its workers get, one after the other.
SIGNALS = [signal.SIGHUP, signal.SIGKILL, signal.SIGKILL, signal.SIGHUP]
#: Seconds between two of them.
EVERY = 2
#: Seconds before and after a signal in which a connection may break.
AROUND_A_SIGNAL = 4
#: Seconds that the test may take besides the load: on a slow machine, clients and workers end late.
BESIDES = 600
#: KiB by which a worker may grow when the same load is repeated: for each of its 8 threads the
#: largest body and the pieces in which it came, whose memory the C library keeps for the next one.
GROWTH = 2 * 8 * LARGEST // 1024

KINDS = [
    "waits",
    "sends",
    "chunks",
    "trickles",
    "refused",
    "refused-late",
    "unread",
    "leaves",
    "resets",
    "gets",
]

#: Each kind of exchange that a client may break off, over HTTP/1.1.
SHORT = {
    **EXCHANGES,
    "malformed head": ScriptedExchange(b"BAD\r\n\r\n"),
    "malformed chunks": ScriptedExchange(
        request("PUT /read", "Transfer-Encoding: chunked") + b"five\r\n"
    ),
    "two lengths": ScriptedExchange(request("PUT /read", "Content-Length: 5", "Content-Length: 6")),
}


class Crowd:
    """Clients that send requests until the test stops them; each outcome is counted."""

    def __init__(self, server, seed, short):
        self.server = server
        self.outcomes = collections.Counter()
        self.wrong = []
        self.broken = []
        self._short = short
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = iter(range(10**9))
        clients = [(KINDS, self._act)] * CROWD + [([*short], self._begin_and_leave)] * UNFRIENDLY
        self._threads = [
            threading.Thread(target=self._run, args=(*client, random.Random(f"{seed} {number}")))
            for number, client in enumerate(clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kinds, act, chance):
        while not self._stop.is_set():
            kind = chance.choice(kinds)
            try:
                act(kind, chance)
            except (OSError, EOFError) as error:
                self.broken.append((time.monotonic(), kind, repr(error)))
            except AssertionError as error:
                self.wrong.append((kind, str(error)[:500]))
            else:
                with self._lock:
                    self.outcomes[kind] += 1

    def _begin_and_leave(self, kind, chance):
        server, exchange = self._short[kind]
        size = chance.choice([len(exchange), chance.randrange(len(exchange))])
        with Client(server) as client:
            exchange.begin(client, size)
            time.sleep(chance.choice([0, 0, 0.05]))  # some are silent for a while
            chance.choice([*WAYS_TO_LEAVE.values()])(client)

    def _act(self, kind, chance):
        body = chance.randbytes(chance.choice([1, 100, 70_000, chance.randrange(LARGEST)]))
        length = f"Content-Length: {len(body)}"
        with Client(self.server) as client:
            if kind == "gets":
                client.send(request("GET /hello"))
                check(client, b"200", b"hello")
            elif kind == "refused":
                client.send(waiting("PUT /refuse", length))
                check(client, b"403", b"no")
            elif kind == "refused-late":
                client.send(request("PUT /refuse", length), body)
                check(client, b"403", b"no")
            elif kind == "unread":
                client.send(request(f"PUT /unread?{UNREAD}", length), body)
                check(client, b"200", bytes(UNREAD))
            else:
                self._upload(kind, body, client, chance)

    def _upload(self, kind, body, client, chance):
        sha256 = hashlib.sha256(body).hexdigest()
        with self._lock:
            line = f"PUT /store/{next(self._numbers)}-{len(body)}-{sha256}"
        length = f"Content-Length: {len(body)}"
        if kind in ("leaves", "resets"):
            client.send(request(line, length), body[: len(body) // 2])
            WAYS_TO_LEAVE["RST" if kind == "resets" else "FIN"](client)
            return
        if kind == "waits":
            client.send(waiting(line, length))
            heard = client.receive(len(CONTINUE))
            if not heard:
                raise EOFError
            assert heard == CONTINUE, heard
            client.send(body)
        elif kind == "sends":
            client.send(request(line, length), body)
        elif kind == "chunks":
            client.send(request(line, "Transfer-Encoding: chunked"))
            for piece in cut(body, chance):
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
        else:
            client.send(request(line, length))
            for piece in cut(body, chance):
                client.send(piece)
                time.sleep(0.01)  # this is the slow client
        check(client, b"201", json.dumps({"size": len(body), "sha256": sha256}).encode())


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


def settled(pid, enough=lambda files, threads: True):
    """Wait until a worker's files and threads stay the same and are `enough`; return all."""
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


def the_last_worker_of(server):
    """Wait until the signals have taken effect and one worker is left; return its pid."""
    deadline = time.monotonic() + 40
    while len(workers_of(server)) != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert server.get("/hello") == b"hello"
    [pid] = workers_of(server)
    return pid


def pytest_generate_tests(metafunc):
    """Try each worker, with a timeout that leaves the load the time that ``--soak`` asks for."""
    seconds = metafunc.config.getoption("soak")
    timeout = pytest.mark.timeout(seconds + BESIDES)
    cells = [pytest.param(worker, seconds, marks=timeout, id=worker) for worker in WORKERS]
    metafunc.parametrize(("worker", "seconds"), cells)


def check_log(lines, killed):
    """Check that nothing failed, and that only the signals ended workers."""
    killings = [f"Worker (pid:{pid}) was sent SIGKILL!" for pid in killed]
    for number, line in enumerate(lines):
        failed = re.search(r"Traceback|\[(ERROR|CRITICAL)\]", line)
        if failed and not any(killing in line for killing in killings):
            pytest.fail("\n".join(lines[max(0, number - 10) : number + 50]))
    booted = sum("Booting worker" in line for line in lines)
    reloads = sum("Handling signal: hup" in line for line in lines)
    assert booted <= 1 + reloads + len(killed), "a worker ended by itself"


def disturb(server, seconds):
    """Reload the server, or kill its workers, for so long; return the times and the killed pids."""
    times, killed = [], []
    for act in itertools.islice(itertools.cycle(SIGNALS), int(seconds / EVERY) - 1):
        time.sleep(EVERY)
        times.append(time.monotonic())
        if act == signal.SIGHUP:
            server.process.send_signal(act)
        else:
            for pid in workers_of(server):
                killed.append(pid)
                os.kill(pid, act)
    time.sleep(EVERY)
    return times, killed


def test_no_upload_is_stored_incomplete_and_no_resource_leaks(worker, tmp_path, seconds):
    folder = tmp_path / "stored"
    folder.mkdir()
    tmp_path.joinpath("parts").mkdir()
    env = {
        "SOAK_FOLDER": str(tmp_path),
        "GUNICORN_EXPECT_LINGER": "3",
        "GUNICORN_EXPECT_LINGER_IDLE": "0.5",
        "GUNICORN_EXPECT_POLICY": "faults.faulted:policy",
    }
    http2 = () if worker == "sync" else ("--http-protocols", "h1,h2", "--http2-cleartext", "both")
    with Server(
        *("--graceful-timeout", "10", *http2),
        worker=WORKERS[worker][0],
        app="soak.soaking:app",
        env=env,
    ) as server:
        short = {kind: (server, exchange) for kind, exchange in SHORT.items()}
        if http2:
            for kind, exchange in HTTP2_EXCHANGES.items():
                short[f"{kind}, HTTP/2"] = Http2Server(server), exchange
        with Crowd(server, f"{worker} and faults", short) as faults:
            signals, killed = disturb(server, seconds * 0.35)
        assert faults.wrong == []
        unexplained = [
            broken
            for broken in faults.broken
            if not any(-1 < broken[0] - sent < AROUND_A_SIGNAL for sent in signals)
        ]
        assert unexplained == []

        pid = the_last_worker_of(server)
        with Crowd(server, f"{worker} warming up", short) as warming:
            time.sleep(seconds * 0.3)
        files, threads, memory = settled(pid)
        with Crowd(server, f"{worker} and no faults", short) as steady:
            time.sleep(seconds * 0.35)
        assert steady.wrong == []
        assert steady.broken == []
        outcomes = faults.outcomes + warming.outcomes + steady.outcomes
        assert outcomes.keys() == {*KINDS, *short}, "a kind of client was never served"
        now = settled(pid, lambda more_files, more_threads: more_files <= files)
        assert now[0] <= files
        assert now[1] <= threads
        assert now[2] <= memory + GROWTH
        assert json.loads(server.get("/under-way")) == [0, 0], "slots of the policy are still taken"
        assert workers_of(server) == [pid]
    check_log(server.lines, killed)
    assert stored_short(folder) == []
