"""Closing in order by itself: real sockets, and a clock that only the tests advance."""

import contextlib
import errno
import math
import os
import pathlib
import socket
import ssl
import threading
import time

import pytest
import trustme
from wire import PATIENCE

from gunicorn_expect import linger
from gunicorn_expect.linger import Linger, LingerThread

TOTAL = 30
IDLE = 2

#: What a peer meets that sends to a connection that is closed.
CLOSED = (ConnectionResetError, BrokenPipeError)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def connect(kind, receive_buffer=None):
    """Give both ends of a connection, the server's first; no end waits longer than PATIENCE."""
    if kind == "unix":
        ends = socket.socketpair(socket.AF_UNIX)
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.socket()
            if receive_buffer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            peer.connect(listener.getsockname())
            ends = listener.accept()[0], peer
    for end in ends:
        end.settimeout(PATIENCE)
    return ends


@pytest.fixture(params=["tcp", "unix"])
def kind(request):
    return request.param


@pytest.fixture
def pairs(kind):
    """Make connections; the ends of the peers are closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(receive_buffer=None):
            server, peer = connect(kind, receive_buffer)
            stack.enter_context(peer)
            stack.callback(server.close)
            return server, peer

        yield make


@pytest.fixture
def pair(pairs):
    return pairs()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outcomes():
    """How the connections of `make_linger` have ended."""
    return []


def close_loop(lingering):
    """Close what a loop has open as long as its process lives."""
    lingering.finish(-math.inf, lambda: None)
    for file in vars(lingering).values():
        if isinstance(file, socket.socket | linger.selectors.BaseSelector):
            file.close()


@pytest.fixture
def make_linger(clock, outcomes):
    with contextlib.ExitStack() as stack:

        def make(total=TOTAL, idle=IDLE):
            lingering = Linger(total, idle, clock, outcome=outcomes.append)
            stack.callback(close_loop, lingering)
            return lingering

        yield make


@pytest.fixture
def lingering(make_linger):
    return make_linger()


def pass_time(lingering, clock, seconds):
    """Let the loop do what it does when so much time has passed."""
    clock.now += seconds
    lingering.turn()
    lingering.expire()


def turn_until(lingering, condition):
    """Be the loop until this is so; bytes take their time, even on loopback."""
    give_up = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < give_up:
        lingering.turn(0.05)
    assert condition()


def close(lingering, server):
    """Close a connection, and be the loop that takes it over."""
    lingering.close(server)
    lingering.take_over()


def discard(lingering, server):
    """Begin to throw away what comes, and be the loop that does it."""
    lingering.discard(server)
    lingering.take_over()


def close_and_wait_for_the_acknowledgement(lingering, server):
    """Close; now the idle time counts: the peer's system has all that was sent, the FIN, too."""
    with socket.socket(fileno=os.dup(server.fileno())) as copy:
        copy.shutdown(socket.SHUT_WR)
        is_acknowledged = linger._is_acknowledged  # noqa: SLF001  tested by what it does
        turn_until(lingering, lambda: is_acknowledged(copy))
    close(lingering, server)


def send_to_the_discard(lingering, peer, data):
    """Send, and let the loop turn until these bytes have been seen."""
    seen = []

    def discard(sock):
        seen.append(original(sock))
        return seen[-1]

    original, lingering._discard = lingering._discard, discard  # noqa: SLF001  to see it
    try:
        peer.sendall(data)
        turn_until(lingering, lambda: sum(size or 0 for size in seen) >= len(data))
    finally:
        lingering._discard = original  # noqa: SLF001


def check_closed(peer):
    """Check that nobody reads on."""
    give_up = time.monotonic() + PATIENCE

    def send():
        while time.monotonic() < give_up:
            peer.sendall(b"more")

    with pytest.raises(CLOSED):
        send()


def receive_all(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def count_open_files():
    return len(list(pathlib.Path("/dev/fd").iterdir()))


# The half-close.


def test_a_half_close_says_that_nothing_follows_and_leaves_what_can_be_read(pair):
    server, peer = pair
    server.sendall(b"the answer")
    rest = linger.half_close(server)
    with rest:
        assert server.fileno() == -1
        assert not rest.getblocking()
        assert receive_all(peer) == b"the answer"
        with pytest.raises(BlockingIOError):
            rest.recv(1)
        peer.sendall(b"body")
        peer.close()
        rest.settimeout(PATIENCE)
        assert receive_all(rest) == b"body"


def reset(peer):
    """Leave by a reset, as a process does that ends with bytes unread."""
    if peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_half_close_raises_nothing_when_the_peer_is_gone(pair, leave):
    server, peer = pair
    leave(peer)
    rest = linger.half_close(server)
    assert server.fileno() == -1
    if rest is not None:
        rest.close()


@pytest.mark.parametrize("kind", ["tcp"], indirect=True)
def test_nothing_is_left_of_a_connection_that_was_reset(pair):
    server, peer = pair
    reset(peer)
    with contextlib.suppress(ConnectionResetError):
        server.recv(1)
    assert linger.half_close(server) is None
    assert server.fileno() == -1


def test_nothing_is_left_of_a_socket_that_is_closed(pair, lingering):
    server, _ = pair
    server.close()
    linger.close_notify(server)
    assert linger.half_close(server) is None
    linger.close(server)
    discard(lingering, server)
    lingering.stop_discarding(server)
    close(lingering, server)
    assert len(lingering) == 0


def test_a_close_at_once_ends_the_answer_in_order_with_bytes_of_the_peer_unread(pair):
    server, peer = pair
    server.sendall(b"the answer")
    peer.sendall(b"more")
    server.recv(1)  # they are here
    linger.close(server)
    assert server.fileno() == -1
    assert receive_all(peer) == b"the answer"
    check_closed(peer)


# TLS.


@pytest.fixture(scope="module")
def contexts():
    """Contexts of a server, and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def tls_pair(contexts):
    server, peer = connect("tcp")
    wrapped = []

    def shake_hands():
        wrapped.append(contexts[0].wrap_socket(server, server_side=True))

    thread = threading.Thread(target=shake_hands)
    thread.start()
    # What is received ends only where the server says so.
    tls = contexts[1].wrap_socket(peer, server_hostname="localhost", suppress_ragged_eofs=False)
    thread.join(PATIENCE)
    with tls, wrapped[0]:
        yield wrapped[0], tls


def raw_socket(tls):
    """Take the connection from under TLS."""
    sock = socket.socket(fileno=tls.detach())
    sock.settimeout(PATIENCE)
    return sock


def test_a_tls_connection_ends_with_a_close_notify_and_then_a_fin(tls_pair, lingering):
    server, peer = tls_pair
    server.sendall(b"the answer")
    close(lingering, server)
    assert receive_all(peer) == b"the answer"  # a FIN without a close_notify would raise
    with raw_socket(peer) as raw:
        assert raw.recv(1) == b""
    turn_until(lingering, lambda: len(lingering) == 0)


def test_what_comes_by_tls_after_the_close_notify_need_not_be_understood(tls_pair, lingering):
    server, peer = tls_pair
    close(lingering, server)
    assert peer.recv(1) == b""
    with raw_socket(peer) as raw:
        send_to_the_discard(lingering, raw, b"no TLS at all" * 100_000)
        assert len(lingering) == 1
        assert raw.recv(1) == b""


def test_a_tls_client_in_the_middle_of_its_body_gets_the_answer_and_its_end(tls_pair, lingering):
    server, peer = tls_pair
    peer.sendall(b"x" * 100_000)
    server.recv(1)  # the rest of a record, and more records, are in front of the client's alert
    server.sendall(b"the answer")
    close(lingering, server)
    assert receive_all(peer) == b"the answer"
    sender = threading.Thread(target=peer.sendall, args=(b"x" * 10_000_000,))
    sender.start()
    turn_until(lingering, lambda: not sender.is_alive())
    assert len(lingering) == 1


def test_a_tls_answer_is_written_while_what_comes_is_thrown_away(tls_pair, lingering):
    server, peer = tls_pair
    discard(lingering, server)
    send_to_the_discard(lingering, peer, b"x" * 10_000)
    server.sendall(b"the answer")
    close(lingering, server)
    assert receive_all(peer) == b"the answer"


def test_a_tls_client_that_is_gone_is_no_error(tls_pair, lingering):
    server, peer = tls_pair
    with raw_socket(peer) as raw:
        reset(raw)
    discard(lingering, server)
    close(lingering, server)
    turn_until(lingering, lambda: len(lingering) == 0)


def test_a_tls_client_that_never_finished_its_handshake_is_no_error(contexts, lingering):
    server, peer = connect("tcp")
    with peer:
        wrapped = contexts[0].wrap_socket(server, server_side=True, do_handshake_on_connect=False)
        close(lingering, wrapped)
        assert wrapped.fileno() == -1
        receive_all(peer)  # to its FIN
        assert len(lingering) == 1


# How long.


def test_a_connection_that_the_peer_has_closed_is_closed_at_once(pair, lingering, outcomes):
    server, peer = pair
    peer.close()
    close(lingering, server)
    assert len(lingering) == 0
    assert outcomes == ["closed"]
    assert server.fileno() == -1


def test_a_connection_is_closed_when_the_peer_closes(pair, lingering, clock, outcomes):
    server, peer = pair
    close(lingering, server)
    assert len(lingering) == 1
    peer.sendall(b"the last of the body")
    assert outcomes == []
    peer.close()
    turn_until(lingering, lambda: len(lingering) == 0)
    assert outcomes == ["closed"]
    assert clock.now == 1000


def test_a_connection_is_closed_after_its_idle_time_without_a_byte(
    pair, lingering, clock, outcomes
):
    server, peer = pair
    close_and_wait_for_the_acknowledgement(lingering, server)
    pass_time(lingering, clock, IDLE - 0.5)
    assert len(lingering) == 1
    pass_time(lingering, clock, 0.5)
    assert len(lingering) == 0
    assert outcomes == ["timed_out"]
    check_closed(peer)


def test_every_byte_begins_the_idle_time_anew(pair, lingering, clock):
    server, peer = pair
    close_and_wait_for_the_acknowledgement(lingering, server)
    for _ in range(5):
        pass_time(lingering, clock, IDLE - 0.5)
        send_to_the_discard(lingering, peer, b"x")
    pass_time(lingering, clock, IDLE - 0.5)
    assert len(lingering) == 1
    pass_time(lingering, clock, 0.5)
    assert len(lingering) == 0


def test_a_peer_that_trickles_is_late_at_the_first_read_after_its_total_time(
    pair, lingering, clock, outcomes
):
    server, peer = pair
    close(lingering, server)
    while clock.now < 1000 + TOTAL - 1:
        clock.now += 1
        send_to_the_discard(lingering, peer, b"x")  # expire() is not called: the read tells
    assert len(lingering) == 1
    clock.now += 1
    peer.sendall(b"x")
    turn_until(lingering, lambda: len(lingering) == 0)
    assert outcomes == ["timed_out"]
    check_closed(peer)


def test_a_peer_that_is_never_idle_is_closed_after_its_total_time(pair, lingering, clock):
    server, peer = pair
    close(lingering, server)
    for _ in range(TOTAL - 1):
        pass_time(lingering, clock, 1)
        send_to_the_discard(lingering, peer, b"x")
    assert len(lingering) == 1
    clock.now += 1
    lingering.expire()
    assert len(lingering) == 0


def test_a_peer_is_read_on_for_as_many_bytes_as_it_likes(pair, lingering):
    server, peer = pair
    close(lingering, server)
    sender = threading.Thread(target=peer.sendall, args=(b"x" * 100_000_000,))
    sender.start()
    turn_until(lingering, lambda: not sender.is_alive())
    assert len(lingering) == 1


def test_it_tells_how_soon_it_has_something_to_do(pairs, lingering, clock):
    assert lingering.due_in() == math.inf
    close_and_wait_for_the_acknowledgement(lingering, pairs()[0])
    assert lingering.due_in() == IDLE
    clock.now += 1.5
    close_and_wait_for_the_acknowledgement(lingering, pairs()[0])
    assert lingering.due_in() == 0.5
    pass_time(lingering, clock, 0.5)
    assert len(lingering) == 1
    assert lingering.due_in() == 1.5
    clock.now += TOTAL
    assert lingering.due_in() == 0
    lingering.expire()
    assert lingering.due_in() == math.inf


def test_the_file_number_is_readable_when_there_is_something_to_discard(pair, lingering):
    server, peer = pair
    close(lingering, server)
    with linger.selectors.DefaultSelector() as loop:
        loop.register(lingering.fileno(), linger.selectors.EVENT_READ)
        assert loop.select(0) == []
        peer.sendall(b"x")
        assert loop.select(PATIENCE)
        send_to_the_discard(lingering, peer, b"x")
        assert loop.select(0) == []


# An answer that the peer has not taken yet.


def answer_that_fills_all_buffers(server):
    """Send as much as goes without a reader; tell how much that was."""
    server.settimeout(0.2)
    size = 0
    with contextlib.suppress(TimeoutError):
        while True:
            size += server.send(b"x" * 65536)
    return size


def test_an_idle_connection_whose_answer_is_on_its_way_is_kept(pairs, lingering, clock):
    server, peer = pairs(receive_buffer=4096)
    size = answer_that_fills_all_buffers(server)
    close(lingering, server)
    for _ in range(5):
        pass_time(lingering, clock, IDLE)
        assert len(lingering) == 1
        assert lingering.due_in() == IDLE
    assert len(receive_all(peer)) == size
    clock.now += IDLE
    # The acknowledgement of the last byte may be on its way: it is looked for when time passes.
    turn_until(lingering, lambda: pass_time(lingering, clock, IDLE) or len(lingering) == 0)
    assert clock.now < 1000 + TOTAL


def test_an_answer_that_is_never_taken_is_kept_for_the_total_time(pairs, lingering, clock):
    server, _ = pairs(receive_buffer=4096)
    answer_that_fills_all_buffers(server)
    close(lingering, server)
    while clock.now < 1000 + TOTAL - IDLE:
        pass_time(lingering, clock, IDLE)
    assert len(lingering) == 1
    pass_time(lingering, clock, IDLE)
    assert len(lingering) == 0


# How many.


def test_the_oldest_goes_first_when_there_has_to_be_room(pairs, lingering, outcomes):
    peers = []
    for _ in range(5):
        server, peer = pairs()
        close(lingering, server)
        assert receive_all(peer) == b""
        peers.append(peer)
    assert len(lingering) == 5
    lingering.make_room(3)
    assert len(lingering) == 3
    assert outcomes == ["dropped", "dropped"]
    for peer in peers[:2]:
        check_closed(peer)
    for peer in peers[2:]:
        send_to_the_discard(lingering, peer, b"x" * 1000)
    assert len(lingering) == 3


@pytest.mark.parametrize("most", [0, -1])
def test_where_there_is_no_room_all_of_them_go(pair, lingering, outcomes, most):
    server, peer = pair
    close(lingering, server)
    lingering.make_room(most)
    assert len(lingering) == 0
    assert outcomes == ["dropped"]
    check_closed(peer)


def test_one_that_is_gone_needs_no_room(pairs, lingering):
    server, gone = pairs()
    gone.close()
    close(lingering, server)
    assert len(lingering) == 0


def test_one_that_makes_room_in_the_turn_in_which_its_bytes_are_seen_is_no_error(pairs, lingering):
    first, sender = pairs()
    third, bell = pairs()
    with third:
        third.setblocking(False)
        lingering.watch(third, lambda sock: sock.recv(100) and lingering.make_room(0))
        close(lingering, first)
        sender.sendall(b"x")
        bell.sendall(b"x")
        turn_until(lingering, lambda: len(lingering) == 0)
        lingering.turn()
        check_closed(sender)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM])
def test_one_that_the_system_can_not_watch_is_closed_at_once(
    pair, lingering, outcomes, monkeypatch, code
):
    def watch(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lingering, "watch", watch)
    server, peer = pair
    server.sendall(b"the answer")
    discard(lingering, server)
    close(lingering, server)
    assert outcomes == ["dropped"]
    assert len(lingering) == 0
    assert receive_all(peer) == b"the answer"


# While the answer is written.


def test_what_comes_is_thrown_away_while_the_answer_is_written(pair, lingering):
    server, peer = pair
    discard(lingering, server)
    sender = threading.Thread(target=peer.sendall, args=(b"x" * 10_000_000,))
    sender.start()
    turn_until(lingering, lambda: not sender.is_alive())
    assert len(lingering) == 0  # it is not closing
    server.sendall(b"the answer")
    assert peer.recv(100) == b"the answer"
    lingering.stop_discarding(server)


def test_a_socket_that_blocks_still_does_while_its_input_is_thrown_away(pair, lingering):
    server, _ = pair
    server.settimeout(None)
    discard(lingering, server)
    assert os.get_blocking(server.fileno())
    lingering.stop_discarding(server)
    assert os.get_blocking(server.fileno())


def test_nothing_is_thrown_away_after_it_was_told_to_stop(pair, lingering):
    server, peer = pair
    discard(lingering, server)
    send_to_the_discard(lingering, peer, b"x")
    lingering.stop_discarding(server)
    lingering.take_over()
    peer.sendall(b"the next request")
    lingering.turn()
    assert server.recv(100) == b"the next request"
    lingering.stop_discarding(server)


def test_a_peer_that_sends_no_more_is_answered_all_the_same(pair, lingering):
    server, peer = pair
    discard(lingering, server)
    peer.shutdown(socket.SHUT_WR)
    lingering.turn(PATIENCE)
    with linger.selectors.DefaultSelector() as loop:
        loop.register(lingering.fileno(), linger.selectors.EVENT_READ)
        assert loop.select(0) == []  # it is not looked at again and again
    server.sendall(b"the answer")
    close(lingering, server)
    assert receive_all(peer) == b"the answer"
    assert len(lingering) == 0


def test_a_connection_is_closed_in_order_while_its_input_is_thrown_away(pair, lingering, clock):
    server, peer = pair
    discard(lingering, server)
    send_to_the_discard(lingering, peer, b"x")
    server.sendall(b"the answer")
    close(lingering, server)
    assert receive_all(peer) == b"the answer"
    send_to_the_discard(lingering, peer, b"x")
    assert len(lingering) == 1
    pass_time(lingering, clock, TOTAL)
    check_closed(peer)


def test_an_answer_that_ends_in_the_turn_in_which_bytes_are_seen_is_no_error(pairs, lingering):
    server, peer = pairs()
    discard(lingering, server)
    told, bell = pairs()
    told.setblocking(False)
    lingering.watch(told, lambda sock: sock.recv(100) and lingering.stop_discarding(server))
    bell.sendall(b"x")
    peer.sendall(b"x")
    turn_until(lingering, lambda: not lingering._answering)  # noqa: SLF001  it is not counted
    lingering.turn()


# The end.


def test_finishing_waits_until_every_peer_has_closed(pair, lingering, clock):
    server, peer = pair
    close(lingering, server)
    notes = []

    def notify():
        notes.append(None)
        peer.close()

    lingering.finish(clock.now + 0.05, notify)
    assert notes
    assert len(lingering) == 0
    assert clock.now == 1000


def test_finishing_reads_on_and_closes_what_is_left_when_its_time_is_up(pair, lingering, clock):
    server, peer = pair
    close(lingering, server)
    assert receive_all(peer) == b""
    peer.sendall(b"x" * 1000)
    notes = []

    def notify():
        notes.append(clock.now)
        clock.now += 0.5
        peer.sendall(b"x" * 1000)

    lingering.finish(clock.now + 1.5, notify)
    assert notes == [1000, 1000.5, 1001]
    assert len(lingering) == 0
    check_closed(peer)


def test_finishing_does_not_wait_longer_than_the_idle_time(pair, lingering, clock):
    server, peer = pair
    close_and_wait_for_the_acknowledgement(lingering, server)
    clock.now += IDLE
    lingering.finish(math.inf, lambda: None)
    assert len(lingering) == 0
    check_closed(peer)


def test_finishing_late_closes_everything_at_once(pairs, lingering, clock, outcomes):
    peers = []
    for _ in range(3):
        server, peer = pairs()
        close(lingering, server)
        peers.append(peer)
    lingering.finish(clock.now, lambda: pytest.fail("there is nothing to wait for"))
    assert len(lingering) == 0
    assert outcomes == ["dropped"] * 3
    for peer in peers:
        check_closed(peer)


def test_finishing_with_nothing_left_does_not_wait(lingering):
    lingering.finish(math.inf, lambda: pytest.fail("there is nothing to wait for"))


def test_no_file_is_left_open(lingering, clock, kind):
    before = count_open_files()
    peers = []
    for number in range(20):
        server, peer = connect(kind)
        peers.append(peer)
        if number % 2:
            discard(lingering, server)
        if number % 3 == 0:
            peer.close()
        elif number % 5 == 0:
            reset(peer)
        lingering.turn()
        close(lingering, server)
    assert len(lingering) > 0
    lingering.make_room(5)
    assert len(lingering) == 5
    pass_time(lingering, clock, TOTAL)
    assert len(lingering) == 0
    for peer in peers:
        peer.close()
    assert count_open_files() == before


# A loop of its own.


@pytest.fixture
def thread(outcomes):
    """A LingerThread whose connections end only when their peers close."""
    lingering = LingerThread(Linger(math.inf, math.inf, outcome=outcomes.append))
    yield lingering
    lingering.finish(time.monotonic() + PATIENCE, lambda: None)
    close_loop(lingering._linger)  # noqa: SLF001  its own


def test_the_thread_begins_with_the_first_connection_that_needs_it(thread, pair):
    before = threading.active_count()
    server, peer = pair
    peer.close()
    thread.close(server)
    assert threading.active_count() == before + 1


def test_the_thread_reads_on_until_the_peer_closes(thread, pair, outcomes):
    server, peer = pair
    server.sendall(b"the answer")
    thread.close(server)
    assert receive_all(peer) == b"the answer"
    peer.sendall(b"x" * 100_000_000)
    peer.close()
    thread.finish(math.inf, lambda: None)
    assert outcomes == ["closed"]


def test_the_thread_throws_away_what_comes_while_the_answer_is_written(thread, pair):
    server, peer = pair
    thread.discard(server)
    peer.sendall(b"x" * 10_000_000)
    server.sendall(b"the answer")
    thread.close(server)
    peer.sendall(b"x" * 10_000_000)
    assert receive_all(peer) == b"the answer"


def test_the_thread_closes_an_idle_connection(thread, pair):
    thread._linger.idle = 0  # noqa: SLF001  late at once
    server, peer = pair
    thread.close(server)
    thread.finish(math.inf, lambda: None)
    check_closed(peer)


def test_the_thread_is_for_every_thread(thread, pairs):
    """Each of eight threads answers and closes connections, the first one all at once."""
    connections = [[pairs() for _ in range(5)] for _ in range(8)]
    barrier = threading.Barrier(len(connections))

    def serve(pairs):
        barrier.wait()
        for server, _ in pairs:
            thread.discard(server)
            server.sendall(b"the answer")
            thread.close(server)

    threads = [threading.Thread(target=serve, args=(pairs,)) for pairs in connections]
    for each in threads:
        each.start()
    for pairs_of_thread in connections:
        for _, peer in pairs_of_thread:
            peer.sendall(b"x" * 1_000_000)
            assert receive_all(peer) == b"the answer"
    for each in threads:
        each.join(PATIENCE)
    for pairs_of_thread in connections:
        for _, peer in pairs_of_thread:
            peer.close()
    thread.finish(math.inf, lambda: None)


def test_there_is_one_loop_however_many_threads_begin_it(thread, pairs, monkeypatch):
    begun = []
    barrier = threading.Barrier(2, timeout=0.5)

    class Thread(threading.Thread):
        """A thread that takes its time to be made, until another one is."""

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            begun.append(self)
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait()

        def run(self):
            """Be no loop: it is only counted."""

    closers = [threading.Thread(target=thread.discard, args=(pairs()[0],)) for _ in range(2)]
    monkeypatch.setattr(linger.threading, "Thread", Thread)
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(PATIENCE)
    assert len(begun) == 1


def test_finishing_the_thread_waits_until_every_peer_has_closed(thread, pair):
    server, peer = pair
    thread.close(server)
    told = threading.Event()
    finished = threading.Event()

    def finish():
        thread.finish(math.inf, told.set)
        finished.set()

    finishing = threading.Thread(target=finish)
    finishing.start()
    assert told.wait(PATIENCE)  # it waits, and notifies
    assert not finished.is_set()
    peer.close()
    finishing.join(PATIENCE)
    assert finished.is_set()


def test_finishing_the_thread_late_does_not_wait(thread, pair, outcomes):
    server, peer = pair
    thread.close(server)
    assert receive_all(peer) == b""
    turn_until(thread._linger, lambda: len(thread._linger))  # noqa: SLF001  to see it
    thread.finish(time.monotonic(), lambda: pytest.fail("there is no time to wait"))
    assert outcomes == ["dropped"]
    peer.sendall(b"x")  # it reads on: the process ends with it


def test_finishing_a_thread_that_never_began_does_nothing(thread):
    thread.finish(math.inf, lambda: pytest.fail("there is nothing to wait for"))
    assert "linger" not in {each.name for each in threading.enumerate()}


def test_the_thread_outlives_connections_that_are_gone_or_closed(thread, pairs, outcomes):
    closed, _ = pairs()
    closed.close()
    gone, peer = pairs()
    reset(peer)
    for server in (closed, gone):
        thread.discard(server)
        thread.close(server)
    server, peer = pairs()
    thread.close(server)
    peer.sendall(b"x" * 10_000_000)
    assert receive_all(peer) == b""
    peer.close()
    thread.finish(math.inf, lambda: None)
    assert outcomes == ["closed"] * 3


def test_the_thread_leaves_no_file_open(thread, kind):
    with contextlib.ExitStack() as stack:
        server, peer = connect(kind)
        thread.close(server)
        assert receive_all(peer) == b""
        peer.close()  # the loop is running, and has what it needs
        before = count_open_files()
        for _ in range(20):
            server, peer = connect(kind)
            stack.enter_context(peer)
            thread.discard(server)
            thread.close(server)
            assert receive_all(peer) == b""
    thread.finish(math.inf, lambda: None)
    assert count_open_files() <= before
