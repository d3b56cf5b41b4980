"""Receiving the bytes of a body, and its time limits, with real pairs of sockets."""

import functools
import itertools
import socket
import threading

import pytest

from gunicorn_expect import BodyTimeout, ClientDisconnected
from gunicorn_expect import receiver as receiver_module
from gunicorn_expect.receiver import BRIEF, FILL_SIZE, LARGE, MOST, TICK, Receiver
from gunicorn_expect.transport import READ
from support import PATIENCE
from support.socket_pairs import (
    KINDS,
    PacedClient,
    WaitCounter,
    announcing,
    connected,
    receive_rest,
    transport_of,
)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def receive_all(receiver, size, **how):
    return b"".join(iter(lambda: receiver.receive(size, **how), b""))


# Bytes that arrive.


def test_bytes_that_came_with_the_head_are_received_first(ours, theirs):
    receiver = Receiver(transport_of(ours), b"with the head")
    theirs.sendall(b" and behind it")
    assert receiver.receive(4) == b"with"
    assert receiver.ahead == b" the head"
    assert receiver.receive(100) == b" the head"
    assert receiver.receive(4, whole=True) == b" and"
    assert receiver.ahead == b""


def test_receive_returns_what_has_arrived(ours, theirs):
    theirs.sendall(b"here")
    assert Receiver(transport_of(ours)).receive(100) == b"here"


def test_receive_whole_waits_for_all_bytes(ours, theirs):
    with PacedClient(ours, theirs, [b"one", b"two", b"three"]):
        assert Receiver(transport_of(ours)).receive(8, whole=True) == b"onetwoth"


def test_receive_whole_returns_fewer_bytes_if_the_client_leaves(ours, theirs):
    receiver = Receiver(transport_of(ours))
    with PacedClient(ours, theirs, [b"one", b"two"]):
        assert receiver.receive(8, whole=True) == b"onetwo"
        assert receiver.receive(8, whole=True) == b""
        assert receiver.receive(1) == b""


@pytest.mark.parametrize(
    "leave", [lambda theirs: transport_of(theirs).half_close(), lambda theirs: None]
)
def test_a_read_ends_when_the_client_leaves_with_or_without_a_half_close(ours, theirs, leave):
    theirs.sendall(b"last")
    leave(theirs)
    theirs.close()
    receiver = Receiver(transport_of(ours))
    assert receiver.receive(100, whole=True) == b"last"
    assert receiver.receive(100) == b""


def test_a_connection_that_breaks_is_an_error(certificates):
    with connected("tcp", certificates) as (ours, theirs):
        receiver = Receiver(transport_of(ours))
        # A client that closes its socket with unread bytes resets the connection.
        ours.sendall(b"not read")
        assert theirs.recv(1) == b"n"
        theirs.close()
        with pytest.raises(ClientDisconnected, match=r"the client is gone: .*reset"):
            receiver.receive(1)


def test_plain_text_on_a_tls_connection_is_an_error(certificates):
    with (
        connected("tls", certificates) as (ours, theirs),
        socket.socket(fileno=theirs.detach()) as plain,
    ):
        plain.sendall(b"plain text, and more of it than the head of a TLS record")
        with pytest.raises(ClientDisconnected, match="the client is gone"):
            Receiver(transport_of(ours)).receive(1)


def test_a_buffer_is_filled_over_any_pieces(ours, theirs):
    receiver = Receiver(transport_of(ours), b"ahead ")
    buffer = bytearray(20)
    with PacedClient(ours, theirs, [b"one ", b"two ", b"three ", b"four"]):
        filled = 0
        while filled < len(buffer):
            filled += receiver.receive_into(memoryview(buffer)[filled:])
        assert buffer == b"ahead one two three "
        assert receiver.receive_into(memoryview(buffer)) == 4
        assert buffer[:4] == b"four"
        assert receiver.receive_into(memoryview(buffer)) == 0


def test_large_pieces_are_received_completely(ours, theirs):
    data = bytes(itertools.islice(itertools.cycle(range(251)), 3 * MOST))
    sending = threading.Thread(target=theirs.sendall, args=[data])
    sending.start()
    receiver = Receiver(transport_of(ours))
    assert receiver.receive(len(data), whole=True) == data[:MOST]
    buffer = bytearray(2 * MOST)
    filled = 0
    while filled < len(buffer):
        filled += receiver.receive_into(memoryview(buffer)[filled:])
    assert buffer == data[MOST:]
    sending.join()


def test_the_error_of_a_large_body_that_stalls_has_the_bytes_of_the_failed_call(ours, theirs):
    data = bytes(2 * LARGE)
    sending = threading.Thread(target=theirs.sendall, args=[data])
    sending.start()
    receiver = Receiver(transport_of(ours), timeout=PATIENCE)
    left = len(data)
    while left:
        left -= len(receiver.receive(min(left, FILL_SIZE), whole=True))
    sending.join()
    receiver.patience = 0.05
    theirs.sendall(b"begun")
    with pytest.raises(BodyTimeout) as late:
        receiver.receive_into(memoryview(bytearray(1000)))
    assert late.value.partial == b"begun"


# Lines.


def test_a_line_is_returned_with_its_lf(ours, theirs):
    receiver = Receiver(transport_of(ours), b"first\r\nsec")
    with PacedClient(ours, theirs, [b"ond\r", b"\nthird\nrest", b" of it"]):
        assert receiver.line(100) == b"first\r\n"
        assert receiver.line(100) == b"second\r\n"
        assert receiver.line(100) == b"third\n"
        assert receiver.ahead == b"rest"
        assert receiver.line(100) is None
        assert receiver.ahead == b"rest of it"


def test_a_line_that_is_too_long_is_returned_without_its_end(ours, theirs):
    receiver = Receiver(transport_of(ours))
    with PacedClient(ours, theirs, [b"1234", b"5678", b"90"]):
        assert receiver.line(8) == b"1234567890"


def test_fill_appends_to_the_bytes_that_are_ahead(ours, theirs):
    receiver = Receiver(transport_of(ours), b"ahead ")
    assert receiver.receive(2) == b"ah"
    theirs.sendall(b"more")
    assert receiver.fill()
    assert receiver.ahead == b"ead more"
    theirs.shutdown(socket.SHUT_WR)
    assert not receiver.fill()
    assert receiver.ahead == b"ead more"


def test_bytes_that_are_ahead_are_kept_when_the_client_sends_no_more(ours):
    receiver = Receiver(transport_of(ours), b"ahead")
    receiver.patience = 0
    with pytest.raises(BlockingIOError):
        receiver.fill()
    assert receiver.ahead == b"ahead"


# Without waiting.


def test_without_patience_a_read_never_waits(ours, theirs):
    waiting = WaitCounter()
    receiver = Receiver(transport_of(ours), waiting=waiting)
    receiver.patience = 0
    with pytest.raises(BlockingIOError):
        receiver.receive(1)
    with pytest.raises(BlockingIOError):
        receiver.receive_into(memoryview(bytearray(1)))
    theirs.sendall(b"12")
    assert receiver.receive(8, whole=True) == b"12"
    with pytest.raises(BlockingIOError):
        receiver.receive(8, whole=True)
    theirs.shutdown(socket.SHUT_WR)
    assert receiver.receive(1) == b""
    assert waiting.entered == 0


def test_patience_may_be_set_to_0_after_a_read(ours, theirs):
    receiver = Receiver(transport_of(ours))
    theirs.sendall(b"1")
    assert receiver.receive(1) == b"1"
    receiver.patience = 0
    with pytest.raises(BlockingIOError):
        receiver.receive(1)
    with pytest.raises(BlockingIOError):
        receiver.receive_into(memoryview(bytearray(1)))


def test_here_counts_the_bytes_that_have_arrived(kind, ours, theirs):
    receiver = Receiver(transport_of(ours), b"123")
    receiver.receive(1)
    assert receiver.here() == 2
    theirs.sendall(b"4567")
    # Over TLS this can't be known before the bytes are read.
    assert receiver.here() == (2 if kind == "tls" else 6)


# Time limits.


def test_a_client_that_sends_nothing_times_out(ours):
    receiver = Receiver(transport_of(ours), timeout=0.05)
    with pytest.raises(BodyTimeout, match=r"nothing came from the client for 0\.05 s"):
        receiver.receive(1)
    with pytest.raises(BodyTimeout):
        receiver.receive_into(memoryview(bytearray(1)))


@pytest.mark.parametrize("whole", [False, True])
def test_each_piece_restarts_the_timeout(ours, theirs, whole):
    with PacedClient(ours, theirs, [b"1", b"2", b"3"], stays=True) as client:
        client.pace = 20
        receiver = Receiver(transport_of(ours), timeout=30)
        got = [receiver.receive(1, whole=whole) for _ in range(3)]
        assert got == [b"1", b"2", b"3"]
        with pytest.raises(BodyTimeout, match="nothing came from the client for 30 s"):
            receiver.receive(10, whole=whole)
        assert client.now == pytest.approx(90, abs=0.1)


def test_pieces_that_each_arrive_in_time_may_take_longer_than_the_timeout_together(ours, theirs):
    with PacedClient(ours, theirs, [b"%d" % x for x in range(10)]) as client:
        client.pace = 20
        assert Receiver(transport_of(ours), timeout=30).receive(10, whole=True) == b"0123456789"
        assert client.now == pytest.approx(200, abs=0.1)


def test_receive_into_times_out_if_the_client_stalls_after_some_bytes(ours, theirs):
    with PacedClient(ours, theirs, [b"1", b"2", b"3"], stays=True) as client:
        client.pace = 20
        buffer = bytearray(10)
        with pytest.raises(BodyTimeout, match="for 30 s"):
            Receiver(transport_of(ours), timeout=30).receive_into(memoryview(buffer))


def test_without_a_timeout_a_read_waits_as_long_as_it_takes(ours, theirs):
    with PacedClient(ours, theirs, [b"1"]) as client:
        client.pace = 1e6
        assert Receiver(transport_of(ours)).receive(1) == b"1"


def reader(receiver, size):
    """Return each way to receive so many bytes."""

    def receive_into():
        buffer = bytearray(size)
        return bytes(buffer[: receiver.receive_into(memoryview(buffer))])

    return {
        "receive": functools.partial(receiver.receive, size),
        "receive whole": functools.partial(receiver.receive, size, whole=True),
        "receive_into": receive_into,
    }


by_each_way = pytest.mark.parametrize("way", ["receive", "receive whole", "receive_into"])


@by_each_way
def test_each_byte_that_arrives_extends_the_time_limit_by_the_minimum_rate(ours, theirs, way):
    """100 bytes every 2 s extend the limit of 30 s by 1/2.4 s each time, at 240 bytes a second."""
    waiting = WaitCounter()
    receiver = Receiver(transport_of(ours), timeout=30, min_rate=240, waiting=waiting)
    read = reader(receiver, 100)[way]
    with PacedClient(ours, theirs, [b"x" * 100] * 30) as client:
        client.pace = 2
        came = []
        message = (
            r"1800 bytes came in 37\.5 s of waiting, fewer than 240 a second after the first 30 s"
        )
        with pytest.raises(BodyTimeout, match=message):
            came.extend(iter(read, b""))
        # 18 pieces extend the limit by 7.5 s to 37.5 s, and the 19th would arrive at 38 s.
        assert client.now == pytest.approx(37.5, abs=0.1)
        assert b"".join(came) == b"x" * 1800
    assert waiting.entered == waiting.left == 19


@by_each_way
def test_a_body_that_is_complete_within_the_timeout_may_be_below_the_minimum_rate(
    ours, theirs, way
):
    pieces = [b"x"] * 29
    receiver = Receiver(transport_of(ours), timeout=30, min_rate=240)
    with PacedClient(ours, theirs, pieces) as client:
        client.pace = 1
        read = reader(receiver, 1)[way]
        assert b"".join(read() for _ in pieces) == b"x" * 29
        assert client.now == pytest.approx(29, abs=0.1)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("size", "seconds"), [(1, 5.1), (342, 5.3), (1200, 29)])
def test_a_small_body_may_arrive_at_any_time_before_the_timeout(ours, theirs, size, seconds, whole):
    with PacedClient(ours, theirs, [b"x" * size]) as client:
        client.pace = seconds
        receiver = Receiver(transport_of(ours), timeout=30, min_rate=240)
        assert receiver.receive(size, whole=whole) == b"x" * size


def test_bytes_that_came_with_the_head_extend_the_time_as_well(ours, theirs):
    receiver = Receiver(transport_of(ours), b"x" * 2400, timeout=30, min_rate=240)
    with PacedClient(ours, theirs, [b"1", b"2", b"3"]) as client:
        client.pace = 19
        receiver.receive(2400)
        assert receiver.receive(1) == b"1"
        assert receiver.receive(1) == b"2"  # 38 s of 40
        with pytest.raises(BodyTimeout):
            receiver.receive(1)
        assert client.now == pytest.approx(40, abs=0.1)


def test_a_client_that_is_fast_enough_on_average_may_pause(ours, theirs):
    pieces = [b"x" * 10_000, *[b"x"] * 60]
    with PacedClient(ours, theirs, pieces) as client:
        client.pace = 1
        received = receive_all(Receiver(transport_of(ours), timeout=30, min_rate=240), 20_000)
        assert len(received) == 10_060
        assert client.now > 2 * 30


@pytest.mark.parametrize("limits", [{"timeout": 0, "min_rate": 240}, {"timeout": 0, "min_rate": 0}])
def test_without_a_timeout_there_is_no_limit_of_either_kind(ours, theirs, limits):
    with PacedClient(ours, theirs, [b"x"] * 5) as client:
        client.pace = 1e6
        assert Receiver(transport_of(ours), **limits).receive(5, whole=True) == b"xxxxx"


def test_without_a_minimum_rate_only_the_gaps_between_pieces_are_limited(ours, theirs):
    with PacedClient(ours, theirs, [b"x"] * 5) as client:
        client.pace = 29
        assert (
            Receiver(transport_of(ours), timeout=30, min_rate=0).receive(5, whole=True) == b"xxxxx"
        )


class SlowSocket(socket.socket):
    """A socket whose `recv` takes half a tick, by the clock of the reader."""

    client = None

    def recv(self, *arguments):
        self.client.now += TICK / 2
        return super().recv(*arguments)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(("size", "is_slow"), [(1, True), (10, False)])
def test_time_that_a_blocking_call_waits_counts_against_the_minimum_rate(
    ours, theirs, size, is_slow, monkeypatch
):
    """But only a read that has to wait can time out."""
    monkeypatch.setattr(receiver_module, "LARGE", 0)
    reads = 3000  # they take 15 s, and a byte in each of them extends the limit by 12.5 s
    with (
        PacedClient(ours, theirs, [], stays=True) as client,
        SlowSocket(fileno=ours.detach()) as slow,
    ):
        client.ours = slow
        slow.client = client
        receiver = Receiver(transport_of(slow), timeout=2, min_rate=240)
        theirs.sendall(b"x" * (1 + 1 + reads * size))
        for _ in range(2):
            receiver.receive(1)
        for _ in range(reads):
            assert receiver.receive(size, whole=True) == b"x" * size
        end = client.now
        with pytest.raises(BodyTimeout, match="fewer than 240" if is_slow else "nothing came"):
            receiver.receive(size, whole=True)
        assert client.now - end == pytest.approx(0 if is_slow else 2, abs=0.1)


def test_time_that_the_application_takes_between_reads_does_not_count(ours, theirs):
    with PacedClient(ours, theirs, [b"x"] * 5) as client:
        receiver = Receiver(transport_of(ours), min_rate=240)
        client.pace = 0.1
        for _ in range(5):
            assert receiver.receive(1) == b"x"
            client.now += 1000


# What enters `waiting`, and blocking calls.


def test_a_read_of_bytes_that_have_arrived_does_not_wait(ours, theirs):
    waiting = WaitCounter()
    receiver = Receiver(transport_of(ours), b"ahead", waiting=waiting)
    theirs.sendall(b"0123456789")
    receiver.receive(5)
    assert receiver.receive(4, whole=True) == b"0123"
    assert receiver.receive(1) == b"4"
    assert receiver.receive_into(memoryview(bytearray(5))) == 5
    theirs.shutdown(socket.SHUT_WR)
    assert receiver.receive(1) == b""
    assert waiting.entered == 0


def test_a_whole_read_of_several_pieces_enters_waiting_once(ours, theirs):
    waiting = WaitCounter()
    with PacedClient(ours, theirs, [b"1", b"2", b"3"]) as client:
        client.pace = TICK / 4
        assert Receiver(transport_of(ours), waiting=waiting).receive(3, whole=True) == b"123"
    assert waiting.entered == waiting.left == 1


class RecordingSocket(socket.socket):
    """A socket that records the flags of each `recv`."""

    def recv(self, size, flags=0):
        self.seen.append(flags)
        return super().recv(size, flags)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_read_blocks_in_the_kernel_only_for_a_client_that_keeps_up(ours, theirs, monkeypatch):
    """During a blocking call, the request of a stalled client would occupy one of `threads`."""
    monkeypatch.setattr(receiver_module, "LARGE", 0)
    with (
        PacedClient(ours, theirs, [b"34", b"56"]) as client,
        RecordingSocket(fileno=ours.detach()) as sock,
    ):
        client.ours = sock
        sock.seen = []
        receiver = Receiver(transport_of(sock))

        def first_flags_of(size):
            sock.seen.clear()
            receiver.receive(size, whole=True)
            return sock.seen[0]

        theirs.sendall(b"12")
        assert first_flags_of(1) == socket.MSG_DONTWAIT  # the body may be a small one
        assert first_flags_of(1) == socket.MSG_WAITALL
        client.pace = 2 * TICK
        assert first_flags_of(2) == socket.MSG_WAITALL  # which ends after a tick
        client.pace = TICK / 2
        assert first_flags_of(2) == socket.MSG_DONTWAIT  # but now the bytes arrive within a tick
        theirs.sendall(b"7")
        assert first_flags_of(1) == socket.MSG_WAITALL


def test_a_read_enters_waiting_if_the_client_does_not_send_soon_after_its_100(ours, theirs):
    """The read waits briefly first: many clients send within a millisecond of their 100."""
    waiting = WaitCounter()
    with PacedClient(ours, theirs, [b"12"]) as client:
        client.pace = 20 * BRIEF
        receiver = Receiver(transport_of(ours), waiting=waiting, awaited=True)
        assert receiver.receive(2, whole=True) == b"12"
    assert waiting.entered == waiting.left == 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_client_that_sends_at_once_after_its_100_costs_one_call_and_no_waiting(ours, theirs):
    waiting = WaitCounter()
    theirs.sendall(b"12")
    with RecordingSocket(fileno=ours.detach()) as sock:
        sock.seen = []
        receiver = Receiver(transport_of(sock), waiting=waiting, awaited=True)
        assert receiver.receive(2, whole=True) == b"12"
        assert sock.seen == [socket.MSG_DONTWAIT]
    assert waiting.entered == 0


@pytest.mark.parametrize("whole", [False, True])
def test_a_read_that_waits_leaves_waiting_when_it_continues(ours, theirs, whole):
    waiting = WaitCounter()
    receiver = Receiver(transport_of(ours), timeout=30, waiting=waiting)
    with PacedClient(ours, theirs, [b"1", b"2", b"3"]) as client:
        client.pace = 1
        assert receiver.receive(3, whole=whole) == (b"123" if whole else b"1")
    assert waiting.entered == waiting.left == 1


def test_a_read_that_fails_has_left_waiting(ours, theirs):
    waiting = WaitCounter()
    receiver = Receiver(transport_of(ours), timeout=0.03, waiting=waiting)
    with pytest.raises(BodyTimeout):
        receiver.receive(1)
    assert waiting.entered == waiting.left == 1
    theirs.close()
    assert receiver.receive(1) == b""
    assert waiting.entered == waiting.left == 1


def test_a_read_continues_with_each_piece_that_its_client_sends(ours, theirs):
    waiting = threading.Event()

    receiver = Receiver(transport_of(ours), waiting=announcing(waiting))

    def send():
        for _ in range(3):
            assert waiting.wait(20)
            waiting.clear()
            theirs.sendall(b"piece ")

    sending = threading.Thread(target=send)
    sending.start()
    for _ in range(3):
        assert receiver.receive(6, whole=True) == b"piece "
    sending.join()


# The socket.


def limit_of(sock):
    return any(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))


def test_the_socket_is_left_as_it_was(kind, ours, theirs, monkeypatch):
    monkeypatch.setattr(receiver_module, "LARGE", 0)
    transport = transport_of(ours)
    timeout = ours.gettimeout()
    receiver = Receiver(transport, timeout=0.03)
    theirs.sendall(b"12")
    assert receiver.receive(1) == b"1"
    receiver.receive(1)
    with pytest.raises(BodyTimeout):
        receiver.receive(1)
    assert limit_of(ours) == (kind in ("tcp", "unix"))
    assert ours.gettimeout() == timeout
    receiver.close()
    receiver.close()
    assert not limit_of(ours)
    theirs.sendall(b"3")
    assert next_bytes(transport) == b"3"


def next_bytes(transport):
    assert transport.wait(READ, PATIENCE)
    return transport.receive(10)


def test_nothing_is_received_after_the_connection_has_ended(ours, theirs):
    """Another connection may have the same file number by then."""
    transport = transport_of(ours)
    receiver = Receiver(transport, timeout=PATIENCE)
    transport.ended = True
    theirs.sendall(b"of another connection")
    for receive in reader(receiver, 2).values():
        with pytest.raises(ClientDisconnected, match="the connection is closed"):
            receive()
    transport.ended = False
    assert next_bytes(transport).startswith(b"of")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_nothing_of_a_large_body_is_received_after_the_connection_has_ended(
    ours, theirs, monkeypatch
):
    monkeypatch.setattr(receiver_module, "LARGE", 0)
    transport = transport_of(ours)
    receiver = Receiver(transport, timeout=PATIENCE)
    theirs.sendall(b"12of another connection")
    for _ in range(2):
        receiver.receive(1, whole=True)
    assert limit_of(ours)  # the kernel may wait in the next call
    transport.ended = True
    for receive in reader(receiver, 2).values():
        with pytest.raises(ClientDisconnected, match="the connection is closed"):
            receive()
    transport.ended = False
    assert next_bytes(transport).startswith(b"of")


def test_a_receiver_of_a_closed_socket_may_be_closed(ours, theirs):
    receiver = Receiver(transport_of(ours))
    theirs.sendall(b"1")
    receiver.receive(1)
    ours.close()
    assert receiver.here() == 0
    receiver.close()


@pytest.mark.parametrize("size", [1, 10**6])
def test_another_thread_may_write_while_one_waits_for_bytes(certificates, size):
    with connected("tcp", certificates) as (ours, theirs):
        receiver = Receiver(transport_of(ours), timeout=20)
        got = []
        reading = threading.Thread(target=lambda: got.append(receiver.receive(5, whole=True)))
        theirs.sendall(b"1234")
        reading.start()
        client = threading.Thread(target=lambda: got.append(receive_rest(theirs)))
        client.start()
        for _ in range(20):
            ours.sendall(b"x" * size)
        theirs.sendall(b"5")
        reading.join()
        ours.shutdown(socket.SHUT_WR)
        client.join()
        assert got == [b"12345", b"x" * size * 20]
