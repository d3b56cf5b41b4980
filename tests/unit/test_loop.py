"""The loop of the thread worker without its pool, with a clock that the tests advance.

test_linger.py tests how its connections linger.
"""

import contextlib
import errno
import os
import socket
import types

import pytest

from gunicorn_expect import Refuse
from gunicorn_expect.connection import Connection
from gunicorn_expect.settings import Settings
from gunicorn_expect.transport import Transport
from gunicorn_expect.workers import loop as loop_module
from gunicorn_expect.workers.loop import Deadlines, Loop
from support import PATIENCE
from support.client import request, waiting
from support.clock import Clock
from support.connections import service

HEAD_TIMEOUT = 10
KEEPALIVE = 5
GET = request("GET /hello")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop_module, "time", clock)
    return clock


# Deadlines.


@pytest.fixture
def deadlines(clock):
    return Deadlines(10)


def test_the_connection_that_was_added_first_expires_first(deadlines, clock):
    assert deadlines.first() == (None, float("inf"))
    for name in "abc":
        assert deadlines.put(name) == clock.now + 10
        clock.now += 1
    assert deadlines.first() == ("a", 1010)
    del deadlines["a"]
    assert deadlines.first() == ("b", 1011)
    assert list(deadlines) == ["b", "c"]


def test_adding_a_connection_again_restarts_its_timeout(deadlines, clock):
    deadlines.put("a")
    deadlines.put("b")
    clock.now += 5
    deadlines.put("a")
    assert deadlines.first() == ("b", 1010)
    del deadlines["b"]
    assert deadlines.first() == ("a", 1015)


def test_a_timeout_of_0_never_expires(clock):
    deadlines = Deadlines(0)
    deadlines.put("a")
    assert deadlines.first() == ("a", float("inf"))


def test_shortened_timeouts_expire_first(deadlines, clock):
    for name in "abc":
        deadlines.put(name)
        clock.now += 1
    deadlines.shorten(2, lambda name: name != "b")
    due = []
    while deadlines:
        due.append(deadlines.first())
        deadlines.popitem(last=False)
    assert due == [("a", 1005), ("c", 1005), ("b", 1011)]
    deadlines.put("d")
    assert deadlines.first() == ("d", 1005)


def test_shortening_does_not_delay_an_earlier_timeout(deadlines, clock):
    deadlines.put("a")
    clock.now += 9
    deadlines.shorten(2)
    assert deadlines.first() == ("a", 1010)


# The loop.


class PoolWithoutThreads:
    """Collects the connections that were started; the test calls their tasks."""

    def __init__(self):
        self.connections = []
        self.busy = False
        self.has_threads = True

    def place(self):
        return types.SimpleNamespace(waiting=contextlib.nullcontext)

    def run(self, task, place):
        if not self.has_threads:
            raise RuntimeError("can't start new thread")
        [conn] = task.args
        conn.task = task
        self.connections.append(conn)


class Driven:
    """A loop that turns when the test says so, and the connections that it has started."""

    def __init__(self, of, most=10, **how):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.service = of
        self.pool = PoolWithoutThreads()
        self.started = self.pool.connections
        self.loop = Loop(of, [self.listener], self.pool, most=most, keepalive=KEEPALIVE, **how)
        self.clients = []

    def listen_on(self, kind):
        """Begin again, with a listener of another class."""
        self.listener = kind(fileno=self.listener.detach())
        self.listener.setblocking(False)
        self.loop.end()
        self.loop = Loop(self.service, [self.listener], self.pool, most=10)
        return self.listener

    def client(self, data=b""):
        client = socket.create_connection(self.listener.getsockname())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(PATIENCE)
        self.clients.append(client)
        if data:
            client.sendall(data)
        return client

    def turn(self, times=1):
        for _ in range(times):
            self.loop.turn(0)
        started, self.started[:] = list(self.started), []
        return started

    def until_started(self):
        """Turn until a connection is started; return it."""
        for _ in range(PATIENCE):
            self.loop.turn(1)
            if self.started:
                return self.started.pop()
        raise AssertionError("nothing was started")

    def close(self):
        self.loop.end()
        self.listener.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def drive(clock):
    """Return a function that makes a loop for the test to drive."""
    with contextlib.ExitStack() as stack:

        def make(*, head_timeout=HEAD_TIMEOUT, how=None, **given):
            settings = Settings(expect_head_timeout=head_timeout)
            of = stack.enter_context(service(settings=settings, **given))
            driven = Driven(of, **(how or {}))
            stack.callback(driven.close)
            return driven

        yield make


@pytest.fixture
def driven(drive):
    return drive()


def readable(client):
    """Return, without waiting, whether the client has received something."""
    client.setblocking(False)
    try:
        client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        client.settimeout(PATIENCE)
    return True


def test_a_head_that_arrives_with_its_connection_is_started_in_the_turn_that_accepts_it(driven):
    driven.client(GET)
    [conn] = driven.turn()
    assert conn.request.path == "/hello"


def test_the_loop_waits_for_a_head_that_arrives_in_pieces(driven):
    client = driven.client(GET[:5])
    assert driven.turn(3) == []
    client.sendall(GET[5:-1])
    assert driven.turn(3) == []
    client.sendall(GET[-1:])
    assert driven.until_started().request.path == "/hello"


def test_the_head_timeout_applies_to_the_whole_head(driven, clock):
    client = driven.client(GET[:5])
    driven.turn()
    clock.now += HEAD_TIMEOUT - 1
    client.sendall(GET[5:-1])
    driven.turn()
    assert not readable(client)
    clock.now += 1
    driven.turn()
    assert client.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert driven.loop.lingering == 1


def test_a_client_that_sent_nothing_times_out_without_a_response(driven, clock):
    client = driven.client()
    driven.turn()
    clock.now += HEAD_TIMEOUT
    driven.turn()
    assert client.recv(1000) == b""


def test_without_a_head_timeout_a_head_may_take_any_time(drive, clock):
    driven = drive(head_timeout=0)
    client = driven.client(GET[:5])
    driven.turn()
    clock.now += 10**9
    driven.turn()
    client.sendall(GET[5:])
    assert driven.until_started()


def test_a_turn_waits_until_the_next_timeout_and_no_longer(monkeypatch, drive):
    """If it waited longer, this test would take 600 s."""
    monkeypatch.undo()  # use the real clock
    driven = drive(head_timeout=0.05)
    client = driven.client(GET[:5])
    driven.loop.turn(600)
    driven.loop.turn(600)
    assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_its_client_has_closed_is_closed(driven):
    client = driven.client()
    driven.turn()
    assert driven.loop.busy
    client.close()
    driven.loop.turn(PATIENCE)
    assert not driven.loop.busy
    assert driven.loop.lingering == 0


def test_a_malformed_head_is_answered_by_the_loop(driven):
    client = driven.client(b"NONSENSE\r\n\r\n")
    assert driven.turn() == []
    assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert driven.loop.lingering == 1


def test_a_refusal_of_an_inline_policy_is_answered_by_the_loop(drive):
    driven = drive(inline=lambda environ: Refuse(403))
    client = driven.client(waiting("PUT /", "Content-Length: 5"))
    assert driven.turn() == []
    assert client.recv(1000).startswith(b"HTTP/1.1 403 ")
    assert driven.loop.lingering == 1


def test_an_inline_policy_that_ends_the_worker_leaves_no_connection_behind(drive):
    asked = []

    def policy(environ):
        asked.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/exit":
            raise SystemExit(3)
        return Refuse(403)

    driven = drive(inline=policy)
    first = driven.client(waiting("PUT /exit", "Content-Length: 5"))
    second = driven.client(waiting("PUT /", "Content-Length: 5"))
    with pytest.raises(SystemExit):
        driven.turn(2)
    assert first.recv(1000) == b""
    assert second.recv(1000).startswith(b"HTTP/1.1 403 ")
    assert asked == ["/exit", "/"]
    assert not driven.loop.busy


def test_requests_that_arrived_in_time_are_answered_however_many_and_however_late(drive, clock):
    driven = drive(how={"most": 200})
    clients = [driven.client(GET[:5]) for _ in range(100)]
    while driven.loop.waiting < len(clients):
        driven.loop.turn(PATIENCE)
    for client in clients:
        client.sendall(GET[5:])
    clock.now += HEAD_TIMEOUT  # as if the system had not run this process meanwhile
    assert len(driven.turn()) == len(clients)


# Connections that threads give back.


def kept(driven):
    """Have a request answered so that its connection is kept; return it and its client."""
    client = driven.client(GET)
    [conn] = driven.turn()
    driven.service.application = empty
    conn.task()
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    return conn, client


def empty(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []


def test_the_next_head_on_a_kept_connection_starts_it_again(driven):
    conn, client = kept(driven)
    assert len(driven.loop.kept) == 1
    assert driven.turn() == []
    client.sendall(GET)
    assert driven.until_started() is conn
    assert len(driven.loop.kept) == 0


def test_an_idle_connection_is_closed_after_keepalive_without_a_response(driven, clock):
    _, client = kept(driven)
    clock.now += KEEPALIVE - 1
    driven.turn()
    assert len(driven.loop.kept) == 1
    clock.now += 1
    driven.turn()
    assert len(driven.loop.kept) == 0
    assert client.recv(1000) == b""


def test_a_head_that_has_begun_on_a_kept_connection_has_the_head_timeout(driven, clock):
    conn, client = kept(driven)
    client.sendall(GET[:5])
    driven.loop.turn(PATIENCE)
    assert len(driven.loop.kept) == 0
    clock.now += HEAD_TIMEOUT - 1
    driven.turn()
    client.sendall(GET[5:])
    assert driven.until_started() is conn


def test_an_exception_that_ends_a_thread_ends_the_worker(driven):
    def application(environ, start_response):
        raise SystemExit(3)

    client = driven.client(GET)
    [conn] = driven.turn()
    driven.service.application = application
    conn.task()
    with pytest.raises(SystemExit):
        driven.loop.turn(600)  # if the thread did not wake it, this would take 600 s
    assert client.recv(1000) == b""


def test_a_pipelined_request_is_answered_by_the_same_thread_if_no_task_waits(driven):
    driven.service.application = empty
    client = driven.client(GET * 3)
    [conn] = driven.turn()
    conn.task()
    assert driven.turn() == []
    assert client.recv(10_000).count(b"HTTP/1.1 200 OK\r\n") == 3
    assert len(driven.loop.kept) == 1


def test_tasks_that_wait_for_a_thread_go_before_a_pipelined_request(driven):
    driven.service.application = empty
    driven.pool.busy = True
    client = driven.client(GET * 2)
    [conn] = driven.turn()
    conn.task()
    assert client.recv(10_000).count(b"HTTP/1.1 200 OK\r\n") == 1
    assert driven.turn() == [conn]


def test_the_head_timeout_applies_to_a_partial_head_that_came_with_a_request(driven, clock):
    driven.service.application = empty
    client = driven.client(GET + GET[:5])
    [conn] = driven.turn()
    conn.task()
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(driven.loop.kept) == 0
    clock.now += HEAD_TIMEOUT
    driven.turn()
    assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_client_gets_503_if_no_thread_can_start(driven, caplog):
    driven.pool.has_threads = False
    client = driven.client(GET)
    driven.turn()
    assert client.recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert driven.loop.lingering == 1
    [record] = caplog.records
    assert record.message == "No thread can start, so a client gets 503: can't start new thread"


# Room for new connections.


def test_a_full_loop_accepts_no_connection_until_one_is_closed(drive):
    driven = drive(how={"most": 2})
    for _ in range(3):
        driven.client(GET)
    first, second = driven.turn(3)
    assert driven.turn(3) == []
    driven.loop.close(first, "dropped")
    assert driven.until_started() is not second


def test_a_thread_that_closes_a_connection_wakes_a_loop_that_waits_for_room(drive, monkeypatch):
    def wait(poller, timeout):
        while conns:
            driven.loop.close(conns.pop(), "dropped")
        return wait_by_epoll(poller, timeout)

    driven = drive(how={"most": 1})
    for _ in range(2):
        driven.client(GET)
    conns = driven.turn(3)
    wait_by_epoll = loop_module.Epoll.wait
    monkeypatch.setattr(loop_module.Epoll, "wait", wait)
    driven.loop.turn(600)  # if the thread did not wake it, this would take 600 s
    assert driven.until_started()


def test_a_lingering_connection_is_closed_to_make_room_for_a_new_one(drive):
    driven = drive(how={"most": 2})
    refused = driven.client(b"NONSENSE\r\n\r\n")
    driven.turn()
    assert refused.recv(1000).startswith(b"HTTP/1.1 400 ")
    for _ in range(2):
        driven.client(GET)
    assert len(driven.turn(3)) == 2
    assert driven.loop.lingering == 0
    assert driven.service.counters.lingered_as == ["dropped"]


def test_a_lingering_connection_may_be_closed_in_the_turn_in_which_its_bytes_arrive(drive):
    driven = drive(how={"most": 2})
    for _ in range(2):
        client = driven.client(b"NONSENSE\r\n\r\n")
        driven.turn()
        client.sendall(b"more")
    for _ in range(2):
        driven.client(GET)
    assert len(driven.turn(3)) == 2
    assert driven.loop.lingering == 0


class FailingListener(socket.socket):
    """A listener whose `accept` fails while `error` is set."""

    error = None

    def accept(self):
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accept_is_retried_after_a_pause_when_the_system_has_no_room_and_that_is_logged_once(
    drive, clock, caplog, code
):
    driven = drive()
    listener = driven.listen_on(FailingListener)
    listener.error = code
    driven.client(GET)
    for _ in range(5):
        driven.turn()
        clock.now += 2 * loop_module.PAUSE
    assert [x.levelname for x in caplog.records if "until the system has room" in x.message] == [
        "WARNING"
    ]
    listener.error = None
    assert driven.until_started()


def test_an_error_of_the_listening_socket_ends_the_worker(drive):
    driven = drive()
    listener = driven.listen_on(FailingListener)
    listener.error = errno.EBADF
    driven.client(GET)
    with pytest.raises(OSError, match="Bad file descriptor"):
        driven.loop.turn(PATIENCE)


class BrokenConnection(Connection):
    """A connection that raises an unexpected error when it advances, or when it is answered."""

    def advance(self):
        if self.fails == "advance":
            raise LookupError("unexpected")
        return super().advance()

    def answer(self):
        raise LookupError("unexpected")


@pytest.mark.parametrize("step", ["advance", "answer"])
def test_an_unexpected_error_in_a_connection_ends_only_that_connection(
    driven, caplog, monkeypatch, step
):
    BrokenConnection.fails = step
    with monkeypatch.context() as patched:
        patched.setattr(loop_module, "Connection", BrokenConnection)
        broken = driven.client(GET)
        for conn in driven.turn():
            conn.task()
    driven.client(GET)
    assert len(driven.turn()) == 1
    with contextlib.suppress(ConnectionResetError):
        assert broken.recv(1000) == b""
    assert [x.exc_info[0] for x in caplog.records if x.exc_info] == [LookupError]


# The end of the worker.


def test_a_stopping_loop_waits_only_for_heads_that_have_begun(driven, clock):
    begun, silent = driven.client(GET[:5]), driven.client()
    driven.turn()
    _, idle = kept(driven)
    driven.loop.stop(2)
    late = driven.client(GET)
    clock.now += 2
    driven.turn()
    for client in (silent, idle):
        assert client.recv(1000) == b""
    assert driven.turn(3) == []  # no connection is accepted
    begun.sendall(GET[5:])
    assert driven.until_started().request.path == "/hello"
    assert not readable(late)


def test_an_idle_lingering_connection_is_closed_as_soon_as_its_response_is_acknowledged(
    driven, clock, monkeypatch
):
    acknowledged = iter([False, False, True])
    monkeypatch.setattr(Transport, "is_acknowledged", lambda _: next(acknowledged))
    client = driven.client(b"NONSENSE\r\n\r\n")
    driven.turn()
    assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    left = []
    for _ in range(3):
        clock.now += driven.service.settings.expect_linger_idle
        driven.turn()
        left.append(driven.loop.lingering)
    assert left == [1, 1, 0]


def test_a_loop_that_ends_closes_all_its_connections(driven, clock):
    clients = [driven.client(), driven.client(GET[:5]), driven.client(b"NONSENSE\r\n\r\n")]
    driven.turn()
    _, idle = kept(driven)
    driven.loop.end()
    for client in [*clients, idle]:
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1000):
                pass
    assert driven.service.counters.lingered_as == ["dropped"] * 4
    driven.loop = types.SimpleNamespace(end=lambda: None)  # it has ended


def test_waking_a_loop_that_has_ended_writes_to_no_other_file(driven):
    driven.loop.end()
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(os.fdopen(fd, "rb"))
            for _ in range(3)
            for fd in reused_file_numbers()
        ]
        driven.loop.wake()
        assert [file.read(1) for file in files] == [None] * len(files)
    driven.loop = types.SimpleNamespace(end=lambda: None)  # it has ended


def reused_file_numbers():
    """Yield the file numbers of a new connection: those of the files that were closed last."""
    for end in socket.socketpair():
        end.setblocking(False)
        yield end.detach()
