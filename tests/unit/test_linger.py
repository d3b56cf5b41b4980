"""Closing in order: by the loop, with a clock that the tests advance; in place; by a thread."""

import contextlib
import errno
import os
import pathlib
import socket
import threading
import time

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
    """Make connections; both ends are closed with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(connected(kind, certificates))


@pytest.fixture
def full():
    """Give both ends of a connection whose client has little room, and what is on its way to it."""
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
    """Check that no more is read."""
    give_up = time.monotonic() + PATIENCE

    def send():
        while time.monotonic() < give_up:
            peer.sendall(b"more")

    with pytest.raises(CLOSED):
        send()


def count_open_files():
    return len(list(pathlib.Path("/dev/fd").iterdir()))


def made(of, server):
    """Return the connection of a client whose handshake is done, if it has one."""
    conn = connection(of, server)
    conn.transport = transport_of(server)
    return conn


class Lingering:
    """A loop that only lingers, whose turns the test takes."""

    def __init__(self, of, clock):
        self._service = of
        self.clock = clock
        self.loop = Loop(of, [], most=100)
        self.outcomes = of.counters.lingered_as

    def __len__(self):
        return self.loop.lingering

    def made(self, server):
        return made(self._service, server)

    def close(self, server):
        """Close in order; return the connection."""
        conn = self.made(server)
        self.loop.adopt(conn)
        return conn

    def close_acknowledged(self, server):
        """Close, and wait until the peer's system has all that was sent, the FIN, too."""
        conn = self.close(server)
        self.until(conn.transport.is_acknowledged)

    def pass_time(self, seconds):
        self.clock.now += seconds
        self.turn()

    def turn(self):
        for _ in range(3):  # to a bell, to what is here, and to what is due
            self.loop.turn(0)

    def until(self, condition):
        """Be the loop until this is so; bytes take their time, even on loopback."""
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
    """Keep how many bytes were discarded of each."""
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
    """Send, and let the loop turn until these bytes have been seen."""

    def send(peer, data):
        before = sum(discarded)
        peer.sendall(data)
        linger.until(lambda: sum(discarded) >= before + len(data))

    return send


# How long.


def test_a_connection_that_the_peer_has_closed_is_closed_in_the_next_turn(ours, theirs, linger):
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


def test_every_byte_begins_the_idle_time_anew(ours, theirs, linger, send):
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


def test_a_peer_is_read_on_for_as_many_bytes_as_it_likes(ours, theirs, linger):
    linger.close(ours)
    sender = threading.Thread(target=theirs.sendall, args=(b"x" * 100_000_000,))
    sender.start()
    linger.until(lambda: not sender.is_alive())
    assert len(linger) == 1


def test_the_loop_wakes_for_a_timeout(certificates):
    """One that waited as long as it may would stand still for the rest of the test run."""
    settings = Settings(expect_linger=600, expect_linger_idle=0.05)
    with connected("unix", certificates) as (ours, _), service(settings=settings) as of:
        loop = Loop(of, [], most=100)
        loop.adopt(connection(of, ours))
        while loop.lingering:
            loop.turn(600)
        loop.end()
    assert of.counters.lingered_as == ["timed_out"]


# An answer that the peer has not taken yet.


def test_an_idle_connection_whose_answer_is_on_its_way_is_kept(full, linger):
    ours, peer, size = full
    linger.close(ours)
    for _ in range(5):
        linger.pass_time(IDLE)
        assert len(linger) == 1
    assert len(receive_all(peer)) == size
    # The acknowledgement of the last byte may be on its way: it is looked for when time passes.
    linger.until(lambda: linger.pass_time(IDLE / 10) or len(linger) == 0)
    assert linger.outcomes == ["timed_out"]


def test_an_answer_that_is_never_taken_is_kept_for_the_total_time(full, linger):
    ours, _, _ = full
    linger.close(ours)
    while linger.clock.now < 1000 + TOTAL - IDLE:
        linger.pass_time(IDLE)
    assert len(linger) == 1
    linger.pass_time(IDLE)
    assert len(linger) == 0


@pytest.mark.parametrize("kind", ["tls"])
def test_the_end_of_a_tls_connection_that_has_no_room_is_sent_later(ours, theirs, linger):
    conn = linger.made(ours)
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


# How many.


def test_the_oldest_goes_first_when_there_has_to_be_room(pairs, linger, send):
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
def test_where_there_is_no_room_all_of_them_go(ours, theirs, linger, most):
    linger.close(ours)
    assert linger.loop.make_room(most)
    assert len(linger) == 0
    assert linger.outcomes == ["dropped"]
    check_closed(theirs)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM])
def test_one_that_the_system_can_not_watch_is_closed_at_once(
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


# In place, as gevent's greenlets do.


def linger_here(sock, total=PATIENCE, idle=PATIENCE):
    """Let a connection linger; return how that ended."""
    with service(settings=Settings(expect_linger_idle=idle)) as of:
        conn = made(of, sock)
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


# A loop of its own, as the sync worker has it.


@pytest.fixture
def thread():
    """The linger thread of a worker whose connections end only when their peers close."""
    with service(settings=NEVER, gunicorn={"graceful_timeout": 5}) as of:
        of.worker.service = of
        of.worker.connections = dict  # it has no loop of its own
        thread = sync.LingerThread(of.worker)
        yield thread
        thread.make_room(0)
        thread.finish()


@pytest.fixture
def close(thread):
    def close(server):
        thread.linger(made(thread._worker.service, server))  # noqa: SLF001  as its worker does

    return close


@pytest.fixture
def outcomes(thread):
    return thread._worker.service.counters.lingered_as  # noqa: SLF001


def linger_threads():
    return [each for each in threading.enumerate() if each.name == "linger"]


def test_the_thread_begins_with_the_first_connection(thread, close, pairs):
    thread.finish()
    assert linger_threads() == []
    for _ in range(3):
        close(pairs()[0])
        assert len(linger_threads()) == 1
    assert len(thread) == 3


def test_the_thread_reads_on_until_the_peer_closes(thread, close, ours, theirs, outcomes):
    ours.sendall(b"the answer")
    close(ours)
    assert receive_all(theirs) == b"the answer"
    theirs.sendall(b"x" * 10_000_000)
    theirs.close()
    until(lambda: outcomes == ["closed"])
    assert len(thread) == 0


def test_an_earlier_timeout_wakes_the_thread_at_once(pairs):
    """One that slept on would be late by a minute."""
    with service(settings=Settings(expect_linger_idle=0.02)) as of:
        of.worker.service = of
        of.worker.connections = dict  # it has no loop of its own
        thread = sync.LingerThread(of.worker)
        for _ in range(3):
            thread.linger(made(of, pairs()[0]))
            until(lambda: len(thread) == 0)
        thread.finish()
    assert of.counters.lingered_as == ["timed_out"] * 3


def test_the_thread_makes_room(thread, close, pairs, outcomes):
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


def test_the_thread_outlives_connections_that_are_gone(thread, close, pairs, outcomes, kind):
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


def test_the_end_of_the_thread_waits_until_every_peer_has_closed(
    thread, close, ours, theirs, outcomes
):
    close(ours)
    finishing = threading.Thread(target=thread.finish)
    finishing.start()
    finishing.join(0.05)  # long enough for one that does not wait
    assert finishing.is_alive()
    theirs.close()
    finishing.join(PATIENCE)
    # The thread has a moment to end; on a busy machine it takes longer.
    until(lambda: outcomes == ["closed"])
    until(lambda: linger_threads() == [])


def test_the_end_of_the_thread_closes_what_is_left(thread, close, ours, theirs, outcomes):
    close(ours)
    thread._worker.cfg.set("graceful_timeout", 0)  # noqa: SLF001  it has no time
    thread.finish()
    assert outcomes == ["dropped"]
    assert linger_threads() == []
    check_closed(theirs)


def test_without_a_thread_a_connection_lingers_in_place(
    thread, ours, theirs, outcomes, monkeypatch
):
    def start(self):
        raise RuntimeError("can't start new thread")

    before = count_open_files()
    monkeypatch.setattr(threading.Thread, "start", start)
    theirs.close()
    thread.linger(made(thread._worker.service, ours))  # noqa: SLF001
    assert outcomes == ["closed"]
    assert count_open_files() == before - 2
