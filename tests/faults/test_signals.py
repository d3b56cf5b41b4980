"""Signals at each stage of an exchange: a worker ends in time, or nothing is lost."""

import contextlib
import itertools
import os
import pathlib
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from faults.unfriendly import serve, workers_of
from support import PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS

#: The graceful_timeout: seconds that a worker gives its requests when it ends.
GRACE = 1
#: Seconds more that the end may take on a slow machine; gevent's worker takes 3 on an idle one.
SLACK = 15
INF = float("inf")

LONG = 10_000_000

#: The signals that end a worker, and which process gets them.
ENDS = [
    *[(kind, "worker") for kind in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT)],
    (signal.SIGHUP, "master"),
]


def is_accepted(client):
    """Return whether a worker has accepted the connection: before, its server end has no inode."""
    port = f":{client.socket.getsockname()[1]:04X}"
    ends = map(str.split, pathlib.Path("/proc/net/tcp").read_text("ascii").splitlines())
    return any(end[2].endswith(port) and end[9] != "0" for end in ends)


# The stages. Each brings a client there and yields; when it goes on, it finishes the exchange.


def in_the_head(client, server):
    client.send(request("GET /hello")[:20])
    while not is_accepted(client):
        time.sleep(0.01)
    yield
    client.send(request("GET /hello")[20:])
    assert client.receive_response()[1] == b"hello"


def waiting_for_the_100(client, server):
    event = str(uuid.uuid4())
    client.send(waiting(f"PUT /wait?{event}", "Content-Length: 5"))
    server.board.wait(f"entered-{event}")
    try:
        yield
    finally:
        server.board.set(event)
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"


def in_the_body(client, server):
    client.send(waiting("PUT /read", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"he")
    yield
    client.send(b"llo")
    assert client.receive_response()[1] == b"5"


def in_the_answer(client, server):
    client.send(request(f"GET /yielded?{LONG}"))
    assert client.receive(1000)
    yield
    client.receive_until(b"\r\n0\r\n\r\n")
    assert client.unread == b""


def lingering(client, server):
    client.send(request("PUT /refuse", "Content-Length: 100000"))
    assert client.receive_response()[1] == b"no"
    yield
    client.send(bytes(50_000))
    client.send(bytes(50_000))


def kept(client, server):
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"
    yield
    client.send(request("GET /hello"))
    assert client.receive_response()[1] == b"hello"


STAGES = {
    stage.__name__: stage
    for stage in (in_the_head, waiting_for_the_100, in_the_body, in_the_answer, lingering, kept)
}

#: The stages in which an application runs.
BUSY = {"waiting_for_the_100", "in_the_body", "in_the_answer"}


class Held:
    """Clients, each at a stage of its exchange."""

    def __init__(self, server, stages):
        self._server = server
        self._stages = stages
        self._held = []

    def __enter__(self):
        for name in self._stages:
            client = Client(self._server)
            stage = STAGES[name](client, self._server)
            next(stage)
            self._held.append((client, stage))
        return self

    def finish(self):
        for _, stage in self._held:
            assert next(stage, "over") == "over"

    def __exit__(self, *exception):
        for client, stage in self._held:
            stage.close()
            client.close()


def test_nothing_is_lost_by_a_signal_that_ends_nothing(worker):
    with serve(WORKERS[worker][0]) as server:
        assert server.get("/hello") == b"hello"
        [pid] = workers_of(server)
        for stage in STAGES:
            if (worker, stage) == ("sync", "kept"):
                continue
            with Held(server, [stage]) as held:
                for _ in range(3):
                    os.kill(pid, signal.SIGWINCH)
                    os.kill(pid, signal.SIGUSR1)
                    server.process.send_signal(signal.SIGUSR1)
                    server.process.send_signal(signal.SIGWINCH)
                held.finish()
        assert server.get("/hello") == b"hello"
        assert workers_of(server) == [pid]
        assert "Traceback" not in "\n".join(server.lines)


def is_running(pid):
    """Return whether a process runs. One that has ended and waits for its parent does not."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def seconds_to_end(server, pid, kind, target, then):
    """Send the signal and call ``then``; return the seconds until the worker has ended."""
    begun = time.monotonic()
    if target == "worker":
        os.kill(pid, kind)
    else:
        server.process.send_signal(kind)
    then()
    while is_running(pid):
        if time.monotonic() - begun > GRACE + SLACK:
            return INF
        time.sleep(0.01)
    return time.monotonic() - begun


def is_finished(worker, kind, stages):
    """Return whether gunicorn's worker finishes this exchange, however long it takes."""
    graceful = kind in (signal.SIGTERM, signal.SIGHUP)
    return worker == "sync" and graceful and stages[0] in BUSY | {"in_the_head"}


def ends(worker, stages, *, stock=False):
    """Return the seconds until a worker has ended, for each of the signals, with these clients."""
    took = {}
    with serve(WORKERS[worker][stock], "--graceful-timeout", str(GRACE)) as server:
        for kind, target in ENDS:
            assert server.get("/hello") == b"hello"
            [pid] = workers_of(server)
            with Held(server, stages) as held:
                then = held.finish if is_finished(worker, kind, stages) else bool
                took[kind.name] = seconds_to_end(server, pid, kind, target, then)
            if took[kind.name] == INF:
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + PATIENCE
            while pid in (pids := workers_of(server)) or len(pids) != 1:
                assert time.monotonic() < deadline, "no other worker has started"
                time.sleep(0.01)
    return took


def compared(worker, stages):
    """Return for each signal how long our worker took to end, and gunicorn's if ours was late."""
    took = ends(worker, stages)
    took_stock = ends(worker, stages, stock=True) if INF in took.values() else {}
    return [(stages, name, seconds, took_stock.get(name)) for name, seconds in took.items()]


@pytest.fixture(scope="module")
def ended(worker, request):
    groups = [[stage] for stage in STAGES if (worker, stage) != ("sync", "kept")]
    if worker != "sync" and not request.config.getoption("thorough"):
        groups = [
            [stage for stage in STAGES if stage in BUSY],
            [stage for stage in STAGES if stage not in BUSY],
        ]
    with ThreadPoolExecutor() as servers:
        return [*itertools.chain(*servers.map(partial(compared, worker), groups))]


def test_a_worker_ends_in_time_whatever_its_clients_do(ended):
    assert [case for case in ended if case[2] == INF] == []


@pytest.mark.parametrize(("worker", "transport"), [*itertools.product(WORKERS, ["tcp", "tls"])])
def test_all_clients_are_answered_that_connect_while_a_busy_worker_is_told_to_end(
    worker, transport, certificates
):
    with serve(
        WORKERS[worker][0],
        *("--graceful-timeout", str(PATIENCE)),
        transport=transport,
        certificates=certificates,
    ) as server:
        for turn in range(2):
            assert server.get("/hello") == b"hello"
            [pid] = workers_of(server)
            with ThreadPoolExecutor(81) as crowd:
                busy = [crowd.submit(server.get, f"/busy?0.3&busy-{turn}")]
                server.board.wait(f"busy-{turn}")
                os.kill(pid, signal.SIGTERM)
                # gevent starts 50 greenlets before it looks at its timers, one of which ends the
                # worker. The other greenlets start when the listener is closed.
                busy += [crowd.submit(server.get, "/busy?0.025") for _ in range(80)]
            assert [each.result() for each in busy] == [b"done"] * 81
            server.wait_for_log(rf"Worker exiting \(pid: {pid}\)")
    assert "Traceback" not in "\n".join(server.lines)
