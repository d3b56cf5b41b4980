"""How a connection lingers before it is closed: in the loop, in place, and in a linger thread.

The clock of the loop advances only when a test says so.
"""

import contextlib
import errno
import os
import pathlib
import socket
import threading
import time
from queue import SimpleQueue

import pytest

from gunicorn_expect.settings import Settings
from gunicorn_expect.transport import Transport
from gunicorn_expect.workers import loop as loop_module
from gunicorn_expect.workers import sync
from gunicorn_expect.workers.loop import Epoll, Loop
from support import PATIENCE, until
from support.clock import Clock
from support.connections import connection, service
from support.sending import sending_on
from support.socket_pairs import CLOSED, connected, raw, reset, transport_of

TOTAL = 30
IDLE = 2
SETTINGS = Settings(expect_linger=TOTAL, expect_linger_idle=IDLE)
NEVER = Settings(expect_linger=600, expect_linger_idle=600)


@pytest.fixture(params=["tcp", "unix", "tls"])
def kind(request):
    return request.param


@pytest.fixture
def pairs(kind, certificates):
    """Return a function that makes connections; both ends are closed when the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(connected(kind, certificates))


@pytest.fixture
def full():
    """Yield both ends of a connection with full buffers, and how many bytes the server has sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        ours, _ = listener.accept()
    size = 0
    while sent := Transport(ours).send(b"x" * 65536):
        size += sent
    peer.settimeout(PATIENCE)
    with ours, peer:
        yield ours, peer, size


def receive_all(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def check_closed(peer):
    """Check that sending to the server fails: it has closed the connection."""
    give_up = time.monotonic() + PATIENCE

    def send():
        while time.monotonic() < give_up:
            peer.sendall(b"more")

    with pytest.raises(CLOSED):
        send()


def count_open_files():
    return len(list(pathlib.Path("/dev/fd").iterdir()))


def ready_connection(of, server):
    """Return a connection on this socket, after its TLS handshake if it has one."""
    conn = connection(of, server)
    conn.transport = transport_of(server)
    return conn


class Lingering:
    """A loop with lingering connections only; the test decides when it turns."""

    def __init__(self, of, clock):
        self._service = of
        self.clock = clock
        self.loop = Loop(of, [], most=100)
        self.outcomes = of.counters.lingered_as

    def __len__(self):
        return self.loop.lingering

    def ready_connection(self, server):
        return ready_connection(self._service, server)

    def close(self, server):
        """Hand a connection over to the loop, which drains it; return it."""
        conn = self.ready_connection(server)
        self.loop.adopt(conn)
        return conn

    def close_acknowledged(self, server):
        """Do the same, and wait until the peer's kernel has acknowledged the FIN."""
        conn = self.close(server)
        self.until(conn.transport.is_acknowledged)

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.turn()

    def turn(self):
        for _ in range(3):  # for a wake-up, for what has arrived, and for what has timed out
            self.loop.turn(0)

    def until(self, condition):
        """Turn the loop until this is true; bytes take some time, even on loopback."""
        give_up = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < give_up:
            self.loop.turn(0.01)
        assert condition()


@pytest.fixture
def linger(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop_module, "time", clock)
    with service(settings=SETTINGS) as of:
        lingering = Lingering(of, clock)
        yield lingering
        lingering.loop.end()


@pytest.fixture
def discarded(monkeypatch):
    """Record how many bytes each call of `Transport.discard` has discarded."""
    sizes = []
    original = Transport.discard

    def discard(self, buffer):
        size = original(self, buffer)
        sizes.append(size or 0)
        return size

    monkeypatch.setattr(Transport, "discard", discard)
    return sizes


@pytest.fixture
def send(linger, discarded):
    """Return a function that sends bytes and turns the loop until it has discarded them."""

    def send(peer, data):
        before = sum(discarded)
        peer.sendall(data)
        linger.until(lambda: sum(discarded) >= before + len(data))

    return send


# How long a connection lingers.


def test_a_connection_that_the_peer_has_already_closed_is_closed_in_the_next_turn(
    ours, theirs, linger
):
    theirs.close()
    linger.close(ours)
    linger.turn()
    assert len(linger) == 0
    assert linger.outcomes == ["closed"]
    assert ours.fileno() == -1


def test_a_connection_is_closed_when_the_peer_closes(ours, theirs, linger):
    ours.sendall(b"the answer")
    linger.close(ours)
    assert receive_all(theirs) == b"the answer"
    assert len(linger) == 1
    theirs.sendall(b"the last of the body")
    linger.turn()
    assert linger.outcomes == []
    theirs.close()
    linger.until(lambda: len(linger) == 0)
    assert linger.outcomes == ["closed"]


def test_a_connection_is_closed_after_its_idle_time_without_a_byte(ours, theirs, linger):
    linger.close_acknowledged(ours)
    linger.pass_time(IDLE - 0.5)
    assert len(linger) == 1
    linger.pass_time(0.5)
    assert len(linger) == 0
    assert linger.outcomes == ["timed_out"]
    check_closed(theirs)


def test_every_byte_restarts_the_idle_time(ours, theirs, linger, send):
    linger.close_acknowledged(ours)
    for _ in range(5):
        linger.pass_time(IDLE - 0.5)
        send(theirs, b"x")
    linger.pass_time(IDLE - 0.5)
    assert len(linger) == 1
    linger.pass_time(0.5)
    assert len(linger) == 0


def test_a_peer_that_is_never_idle_is_closed_after_its_total_time(ours, theirs, linger, send):
    linger.close(ours)
    for _ in range(TOTAL - 1):
        linger.pass_time(1)
        send(theirs, b"x")
    assert len(linger) == 1
    linger.pass_time(1)
    assert len(linger) == 0
    assert linger.outcomes == ["timed_out"]
    check_closed(theirs)


def test_lingering_has_no_limit_of_bytes(ours, theirs, linger):
    linger.close(ours)
    sender = threading.Thread(target=theirs.sendall, args=(b"x" * 100_000_000,))
    sender.start()
    linger.until(lambda: not sender.is_alive())
    assert len(linger) == 1


def test_the_loop_wakes_up_when_the_idle_time_is_over(certificates):
    """If it did not, the turn below would take 600 s."""
    settings = Settings(expect_linger=600, expect_linger_idle=0.05)
    with connected("unix", certificates) as (ours, _), service(settings=settings) as of:
        loop = Loop(of, [], most=100)
        loop.adopt(connection(of, ours))
        while loop.lingering:
            loop.turn(600)
        loop.end()
    assert of.counters.lingered_as == ["timed_out"]


def test_a_connection_that_comes_while_the_loop_sleeps_is_closed_in_time(certificates):
    settings = Settings(expect_linger=600, expect_linger_idle=0.05)
    outcomes = SimpleQueue()
    with service(settings=settings) as of, contextlib.ExitStack() as stack:
        of.counters.lingered = outcomes.put
        loop = Loop(of, [], most=100)
        ending = threading.Event()

        def run():
            while not ending.is_set():
                loop.turn(600)

        def end():
            ending.set()
            loop.wake()
            thread.join()
            loop.end()

        thread = threading.Thread(target=run)
        thread.start()
        stack.callback(end)
        for _ in range(3):  # after each of them the loop has nothing to wait for
            ours, _ = stack.enter_context(connected("unix", certificates))
            loop.adopt(connection(of, ours))
            assert outcomes.get(timeout=PATIENCE) == "timed_out"


# A response that the peer has not received yet.


def test_an_idle_connection_stays_open_while_its_response_is_still_being_sent(full, linger):
    ours, peer, size = full
    linger.close(ours)
    for _ in range(5):
        linger.pass_time(IDLE)
        assert len(linger) == 1
    assert len(receive_all(peer)) == size
    # The acknowledgement of the last byte may still be on its way.
    linger.until(lambda: linger.pass_time(IDLE / 10) or len(linger) == 0)
    assert linger.outcomes == ["timed_out"]


def test_a_connection_whose_response_is_never_read_is_closed_after_the_total_time(full, linger):
    ours, _, _ = full
    linger.close(ours)
    while linger.clock.now < 1000 + TOTAL - IDLE:
        linger.pass_time(IDLE)
    assert len(linger) == 1
    linger.pass_time(IDLE)
    assert len(linger) == 0


@pytest.mark.parametrize("kind", ["tls"])
def test_a_close_notify_for_which_the_send_buffer_has_no_room_is_sent_later(ours, theirs, linger):
    conn = linger.ready_connection(ours)
    size = 0
    while sent := conn.transport.send(b"x" * 65536):
        size += sent
    linger.loop.adopt(conn)
    linger.pass_time(1)
    assert not conn.transport.half_closed
    received = []
    receiver = threading.Thread(target=lambda: received.append(len(receive_all(theirs))))
    receiver.start()
    linger.until(lambda: not receiver.is_alive())
    assert received[0] >= size
    assert len(linger) == 1


# How many connections linger.


def test_the_oldest_lingering_connections_are_closed_to_make_room(pairs, linger, send):
    peers = []
    for _ in range(5):
        server, peer = pairs()
        linger.close(server)
        assert receive_all(peer) == b""
        peers.append(peer)
    assert len(linger) == 5
    assert linger.loop.make_room(3)
    assert not linger.loop.make_room(3)
    assert len(linger) == 3
    assert linger.outcomes == ["dropped", "dropped"]
    for peer in peers[:2]:
        check_closed(peer)
    for peer in peers[2:]:
        send(peer, b"x" * 1000)
    assert len(linger) == 3


@pytest.mark.parametrize("most", [0, -1])
def test_all_lingering_connections_are_closed_if_none_may_stay(ours, theirs, linger, most):
    linger.close(ours)
    assert linger.loop.make_room(most)
    assert len(linger) == 0
    assert linger.outcomes == ["dropped"]
    check_closed(theirs)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM])
def test_a_connection_that_epoll_can_not_watch_is_closed_at_once(
    ours, theirs, linger, monkeypatch, code
):
    def add(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Epoll, "add", add)
    ours.sendall(b"the answer")
    linger.close(ours)
    assert linger.outcomes == ["dropped"]
    assert len(linger) == 0
    assert receive_all(theirs) == b"the answer"


def test_no_file_is_left_open(certificates, kind, linger):
    before = count_open_files()
    with contextlib.ExitStack() as stack:
        for number in range(20):
            server, peer = stack.enter_context(connected(kind, certificates))
            if number % 3 == 0:
                peer.close()
            elif number % 5 == 0:
                reset(raw(peer) if kind == "tls" else peer)
            linger.turn()
            linger.close(server)
        linger.loop.make_room(5)
        assert len(linger) == 5
        linger.pass_time(TOTAL)
        assert len(linger) == 0
        assert len(linger.outcomes) == 20
    assert count_open_files() == before


# Lingering in place, as gevent's greenlets do.


def linger_here(sock, total=PATIENCE, idle=PATIENCE):
    """Let a connection linger; return how that ended."""
    with service(settings=Settings(expect_linger_idle=idle)) as of:
        conn = ready_connection(of, sock)
        conn.linger_here(total)
        assert conn.transport.fileno() == -1
        return of.counters.lingered_as


def test_lingering_in_place_reads_until_the_peer_closes(ours, theirs):
    ours.sendall(b"the answer")
    answers = []

    def be_the_peer():
        answers.append(receive_all(theirs))
        theirs.sendall(b"x" * 1_000_000)
        theirs.close()

    peer = threading.Thread(target=be_the_peer)
    peer.start()
    assert linger_here(ours) == ["closed"]
    peer.join()
    assert answers == [b"the answer"]


def test_lingering_in_place_ends_when_the_peer_is_gone(ours, theirs, kind):
    reset(raw(theirs) if kind == "tls" else theirs)
    assert linger_here(ours) == ["closed"]


def test_lingering_in_place_ends_after_the_idle_time(ours, theirs):
    assert linger_here(ours, idle=0.02) == ["timed_out"]
    check_closed(theirs)


def test_lingering_in_place_ends_after_the_total_time(ours, theirs):
    with sending_on(theirs.sendall, every=0.001):
        assert linger_here(ours, total=0.1) == ["timed_out"]


def test_lingering_in_place_keeps_a_response_on_its_way_for_the_total_time(full):
    ours, _, _ = full
    begun = time.monotonic()
    assert linger_here(ours, total=0.3, idle=0.01) == ["timed_out"]
    assert time.monotonic() - begun >= 0.3


# The linger thread of the sync worker.


@pytest.fixture
def thread():
    """The linger thread of a worker with long timeouts: peers have to close their connections."""
    with service(settings=NEVER, gunicorn={"graceful_timeout": 5}) as of:
        of.worker.service = of
        of.worker.connections = dict  # a thread worker without its loop has none
        thread = sync.LingerThread(of.worker)
        yield thread
        thread.make_room(0)
        thread.finish()


@pytest.fixture
def close(thread):
    def close(server):
        conn = ready_connection(thread._worker.service, server)  # noqa: SLF001  as its worker does
        thread.linger(conn)

    return close


@pytest.fixture
def outcomes(thread):
    return thread._worker.service.counters.lingered_as  # noqa: SLF001


def linger_threads():
    return [each for each in threading.enumerate() if each.name == "linger"]


def test_the_linger_thread_starts_with_the_first_connection(thread, close, pairs):
    thread.finish()
    assert linger_threads() == []
    for _ in range(3):
        close(pairs()[0])
        assert len(linger_threads()) == 1
    assert len(thread) == 3


def test_the_linger_thread_reads_until_the_peer_closes(thread, close, ours, theirs, outcomes):
    ours.sendall(b"the answer")
    close(ours)
    assert receive_all(theirs) == b"the answer"
    theirs.sendall(b"x" * 10_000_000)
    theirs.close()
    until(lambda: outcomes == ["closed"])
    assert len(thread) == 0


def test_an_earlier_timeout_wakes_the_linger_thread(pairs):
    """If it did not, the thread would sleep for a minute."""
    with service(settings=Settings(expect_linger_idle=0.02)) as of:
        of.worker.service = of
        of.worker.connections = dict  # a thread worker without its loop has none
        thread = sync.LingerThread(of.worker)
        for _ in range(3):
            thread.linger(ready_connection(of, pairs()[0]))
            until(lambda: len(thread) == 0)
        thread.finish()
    assert of.counters.lingered_as == ["timed_out"] * 3


def test_the_linger_thread_closes_the_oldest_connections_to_make_room(
    thread, close, pairs, outcomes
):
    peers = []
    for _ in range(3):
        server, peer = pairs()
        close(server)
        assert receive_all(peer) == b""
        peers.append(peer)
    assert thread.make_room(1)
    assert not thread.make_room(1)
    assert outcomes == ["dropped", "dropped"]
    for peer in peers[:2]:
        check_closed(peer)
    peers[2].sendall(b"x" * 1_000_000)


def test_the_linger_thread_survives_connections_that_were_reset(
    thread, close, pairs, outcomes, kind
):
    for _ in range(2):
        server, peer = pairs()
        reset(raw(peer) if kind == "tls" else peer)
        close(server)
    server, peer = pairs()
    close(server)
    peer.sendall(b"x" * 1_000_000)
    assert receive_all(peer) == b""
    peer.close()
    until(lambda: outcomes == ["closed"] * 3)


def test_the_linger_thread_ends_when_every_peer_has_closed(thread, close, ours, theirs, outcomes):
    close(ours)
    finishing = threading.Thread(target=thread.finish)
    finishing.start()
    finishing.join(0.05)  # long enough for a `finish` that does not wait
    assert finishing.is_alive()
    theirs.close()
    finishing.join(PATIENCE)
    # The thread may end a little later, on a busy machine.
    until(lambda: outcomes == ["closed"])
    until(lambda: linger_threads() == [])


def test_the_linger_thread_closes_what_is_left_when_its_time_is_over(
    thread, close, ours, theirs, outcomes
):
    close(ours)
    thread._worker.cfg.set("graceful_timeout", 0)  # noqa: SLF001
    thread.finish()
    assert outcomes == ["dropped"]
    assert linger_threads() == []
    check_closed(theirs)


def test_a_connection_lingers_in_place_if_no_thread_can_start(
    thread, ours, theirs, outcomes, monkeypatch
):
    def start(self):
        raise RuntimeError("can't start new thread")

    before = count_open_files()
    monkeypatch.setattr(threading.Thread, "start", start)
    theirs.close()
    thread.linger(ready_connection(thread._worker.service, ours))  # noqa: SLF001
    assert outcomes == ["closed"]
    assert count_open_files() == before - 2
