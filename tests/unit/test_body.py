"""``wsgi.input`` over a pair of sockets: complete or an error, by every method that reads it."""

import gc
import io
import itertools
import pickle
import socket
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import gunicorn.http.body
import hypothesis
import pytest
from gunicorn.http.body import LengthReader
from gunicorn.http.unreader import SocketUnreader
from hypothesis import strategies as st

from gunicorn_expect import (
    BodyError,
    BodyTimeout,
    ClientDisconnected,
    ContentTooLarge,
    MalformedBody,
)
from gunicorn_expect import exchange as exchange_module
from gunicorn_expect import receiver as receiver_module
from gunicorn_expect.body import Body
from gunicorn_expect.exchange import Exchange
from gunicorn_expect.framing import DRAIN_SIZE, Chunked, Sized
from gunicorn_expect.receiver import Receiver
from gunicorn_expect.states import End
from support import PATIENCE
from support.chunks import in_chunks
from support.garbage import no_garbage_of
from support.sending import sending_on
from support.socket_pairs import (
    KINDS,
    PacedClient,
    WaitCounter,
    announcing,
    connected,
    receive_rest,
    transport_of,
)

HUGE = 2**62


class Wire:
    """The wire of a client that is still there and sends this body."""

    def __init__(self, framing):
        self._framing = framing

    def arrived(self):
        return False

    def open_body(self):
        return self._framing

    def send_interim(self, status, headers):
        return True


class CountingExchange(Exchange):
    """Counts the reads of the body."""

    reads = 0

    def read(self, headers=()):
        self.reads += 1
        super().read(headers)


def make(ours, length=None, *, ahead=b"", failures=None, receiver=Receiver, **terms):
    """Return a body, its exchange and its receiver.

    Args:
        ours: the server's end of the connection.
        length: the Content-Length; None: the body is in chunks.
        ahead: bytes that came with the head.
        failures: a list to which the class of each error that is reported is appended.
        receiver: the class of the receiver.
        terms: other arguments of the receiver.

    """
    source = receiver(transport_of(ours), ahead, **terms)
    if length is None:
        framing = Chunked(source, 100, 1000, lambda lines: None)
    else:
        framing = Sized(source, length)

    def on_failed(error):  # only its class is kept: the error refers to the body
        if failures is not None:
            failures.append(type(error))

    exchange = CountingExchange(Wire(framing), waits=False, on_failed=on_failed)
    return Body(exchange), exchange, source


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# Any body, in any pieces, read by any method.


def next_twice(body):
    return list(itertools.islice(body, 2))


def readinto(size):
    def read(body):
        buffer = bytearray(size)
        return bytes(buffer[: body.readinto(buffer)])

    return read


def method(name, *arguments):
    return lambda body: getattr(body, name)(*arguments)


SIZES = st.one_of(st.integers(0, 12), st.sampled_from([None, -1, -5, HUGE, 60, 9000]))
WAYS = st.one_of(
    st.sampled_from(
        [
            *(method("read"), method("readline"), method("readlines"), method("__next__")),
            *(list, next_twice),
        ]
    ),
    st.builds(method, st.sampled_from(["read", "readline", "readlines"]), SIZES),
    st.integers(0, 20).map(readinto),
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.text("ab\n", max_size=60).map(str.encode),
    st.sampled_from([b"line\n" * 4000, b"x" * 20_000 + b"\n", bytes(range(256)) * 300]),
)
BEHIND = b"GET /behind HTTP/1.1\r\n\r\n"


def result(way, body):
    """Return what this way to read returns; the class StopIteration if it raises that."""
    try:
        return way(body)
    except StopIteration:
        return StopIteration


@st.composite
def uploads(draw):
    """Return a body, its Content-Length or None for chunks, and the bytes that are sent."""
    body = draw(BODIES)
    length = len(body) if draw(st.booleans()) else None
    framed = body
    if length is None:
        # For a long body one chunk is enough.
        framed = (
            draw(in_chunks(body))
            if len(body) < 100
            else b"%x\r\n%b\r\n0\r\n\r\n" % (*(len(body), body),)
        )
    return body, length, framed


@st.composite
def in_pieces(draw, data):
    """Return the first piece, which comes with the head, and those that come after it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    first, *rest = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
    return first, [piece for piece in rest if piece]


#: Mostly "gevent", which is the fastest: the kernel does not wait for each piece, and there is no
#: handshake.
ANY_KIND = st.sampled_from(["gevent", "gevent", *KINDS])


@hypothesis.given(upload=uploads(), ways=st.lists(WAYS, max_size=6), kind=ANY_KIND, data=st.data())
@hypothesis.settings(max_examples=300)
def test_any_body_in_any_pieces_is_read_unchanged_by_every_method(
    certificates, upload, ways, kind, data
):
    whole, length, framed = upload
    if length is None:
        first, pieces = data.draw(in_pieces(framed + BEHIND))
    else:
        # The bytes after a body with a length never reach its receiver.
        first, pieces = data.draw(in_pieces(framed))
        pieces.append(BEHIND)
    with connected(kind, certificates) as (ours, theirs):
        body, _, receiver = make(ours, length, ahead=first)
        model = io.BytesIO(whole)
        with PacedClient(ours, theirs, pieces) as client:
            for way in ways:
                assert result(way, body) == result(way, model)
            assert body.read() == model.read()
            for way in ways:
                assert result(way, body) == result(way, model)
            client.send_all()
        assert receiver.ahead + receive_rest(ours) == BEHIND


@hypothesis.given(upload=uploads(), ways=st.lists(WAYS, max_size=6), kind=ANY_KIND, data=st.data())
@hypothesis.settings(max_examples=200)
def test_any_body_that_is_cut_off_raises_an_error_in_every_method(
    certificates, upload, ways, kind, data
):
    whole, length, framed = upload
    hypothesis.assume(framed)
    cut = data.draw(st.integers(0, len(framed) - 1))
    first, pieces = data.draw(in_pieces(framed[:cut]))
    with connected(kind, certificates) as (ours, theirs):
        body, exchange, _ = make(ours, length, ahead=first)
        model = io.BytesIO(whole)
        with PacedClient(ours, theirs, pieces):
            for way in ways:
                before = model.tell()
                expected = result(way, model)
                try:
                    assert result(way, body) == expected
                except ClientDisconnected as error:
                    assert model.tell() > before or before == len(whole)
                    partial = error.partial
                    break
            else:
                partial = b""
            if length is not None:
                assert whole[:cut].endswith(partial)
            for _ in range(3):
                with pytest.raises(ClientDisconnected):
                    body.read()
            with pytest.raises(ClientDisconnected):
                body.readline()
            with pytest.raises(ClientDisconnected):
                body.readinto(bytearray(1))
            with pytest.raises(ClientDisconnected):
                next(body)
            with pytest.raises(ClientDisconnected):
                body.readlines()
        assert not exchange.drain()


# The methods that read.


def test_a_read_of_0_bytes_returns_nothing_and_sends_no_100(ours):
    body, exchange, _ = make(ours, 5)
    assert body.read(0) == body.readline(0) == b""
    assert body.readinto(bytearray()) == 0
    assert exchange.reads == 0


@pytest.mark.parametrize(
    "way",
    [
        *(method("read"), method("read", 1), method("readline"), method("readline", 1)),
        *(method("readlines"), method("readlines", 1), method("__next__"), list, readinto(1)),
    ],
)
@pytest.mark.parametrize("length", [3, None])
def test_every_way_to_read_asks_for_the_body_first(ours, theirs, way, length):
    theirs.sendall(b"1\n2" if length else b"3\r\n1\n2\r\n0\r\n\r\n")
    body, exchange, _ = make(ours, length)
    result(way, body)
    assert exchange.reads > 0


@pytest.mark.parametrize("length", [12, None])
def test_reading_after_the_end_returns_nothing(ours, theirs, length):
    theirs.sendall(b"one\ntwo\nlast" if length else b"c\r\none\ntwo\nlast\r\n0\r\n\r\n")
    body, *_ = make(ours, length, timeout=0.2)
    assert body.readlines() == [b"one\n", b"two\n", b"last"]
    for _ in range(2):
        assert body.read() == body.read(1) == body.read(HUGE) == body.readline() == b""
        assert body.readlines() == list(body) == []
        assert body.readinto(bytearray(1)) == 0
        with pytest.raises(StopIteration):
            next(body)


@pytest.mark.parametrize(
    ("way", "data"),
    [
        (lambda body: body.read(size=3), b"one"),
        (lambda body: body.read(size=None), b"one\ntwo\nlast"),
        (lambda body: body.readline(size=2), b"on"),
        (lambda body: body.readlines(hint=5), [b"one\n", b"two\n"]),
        (lambda body: body.readlines(size=5), [b"one\n", b"two\n"]),
        (lambda body: body.readlines(5), [b"one\n", b"two\n"]),
    ],
)
@pytest.mark.parametrize("length", [12, None])
def test_a_size_may_be_given_by_keyword(ours, theirs, length, way, data):
    theirs.sendall(b"one\ntwo\nlast" if length else b"c\r\none\ntwo\nlast\r\n0\r\n\r\n")
    body, *_ = make(ours, length)
    assert way(body) == data


@pytest.mark.parametrize("length", [12, None])
@pytest.mark.parametrize("way", [method("read", 1), readinto(1)], ids=["read", "readinto"])
def test_small_reads_receive_what_has_arrived_and_do_not_wait_for_more(ours, theirs, length, way):
    received = []

    class Receives(Receiver):
        def receive(self, *arguments, **how):
            received.append(super().receive(*arguments, **how))
            return received[-1]

    theirs.sendall((b"one\ntwo\nlast" if length else b"c\r\none\ntwo\nlast\r\n0\r\n\r\n") + BEHIND)
    theirs.shutdown(socket.SHUT_WR)
    body, _, receiver = make(ours, length, receiver=Receives)
    assert b"".join(iter(lambda: way(body), b"")) == b"one\ntwo\nlast"
    assert received.count(b"one\ntwo\nlast") == 1
    assert receiver.ahead + receive_rest(ours) == BEHIND


@pytest.mark.parametrize("size", [1, 10, 100])
def test_a_small_read_makes_no_more_calls_than_in_stock_gunicorn(size):
    """Counted in calls of the interpreter, which are the same on every machine."""

    def calls(make_body):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"x" * 20_000)
            body = make_body(ours)
            count = 0

            def profile(frame, event, argument):
                nonlocal count
                count += event in ("call", "c_call")

            sys.setprofile(profile)
            try:
                while body.read(size):
                    pass
            finally:
                sys.setprofile(None)
        return count

    stock = calls(lambda sock: gunicorn.http.body.Body(LengthReader(SocketUnreader(sock), 20_000)))
    assert calls(lambda sock: make(sock, 20_000)[0]) <= stock


def test_readinto_fills_any_writable_buffer(ours, theirs):
    theirs.sendall(b"0123456789abcdef")
    body, *_ = make(ours, 16)
    numbers = memoryview(bytearray(8)).cast("I")
    assert body.readinto(numbers) == 8
    assert bytes(numbers) == b"01234567"
    with pytest.raises(TypeError, match="read-write"):
        body.readinto(b"1234")
    assert body.read() == b"89abcdef"


def test_a_body_can_be_wrapped_in_a_buffered_reader(ours, theirs):
    class Raw(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return body.readinto(buffer)

    theirs.sendall(b"one\ntwo\nlast")
    body, *_ = make(ours, 12)
    assert list(io.TextIOWrapper(io.BufferedReader(Raw(), 5))) == ["one\n", "two\n", "last"]


def test_lines_of_any_length_are_read_in_any_pieces(ours, theirs):
    lines = [b"x" * size + b"\n" for size in (0, 1, 8190, 8191, 8192, 8193, 30_000)]
    data = b"".join(lines)
    body, *_ = make(ours, len(data), ahead=data[:100])
    with PacedClient(ours, theirs, [data[100:8200], data[8200:20_000], data[20_000:]]):
        assert list(body) == lines


def test_two_threads_that_read_at_once_share_the_body(ours, theirs):
    records = [b"%08d" % number * 100 for number in range(300)]
    body, *_ = make(ours, sum(map(len, records)), timeout=20)
    got = [[], []]

    def read(records):
        while record := body.read(800):
            records.append(record)

    threads = [threading.Thread(target=read, args=[part]) for part in got]
    for thread in threads:
        thread.start()
    theirs.sendall(b"".join(records))
    for thread in threads:
        thread.join()
    assert sorted(got[0] + got[1]) == records


def test_a_thread_does_not_read_while_another_one_sends_the_100(ours, theirs):
    body, exchange, _ = make(ours, 2)
    both_ask = threading.Barrier(2)
    exchange.read = lambda: both_ask.wait(PATIENCE)
    theirs.sendall(b"12")
    with ThreadPoolExecutor() as pool:
        reads = [pool.submit(body.read, 1) for _ in range(2)]
        assert {read.result() for read in reads} == {b"1", b"2"}


def test_a_read_after_one_that_was_interrupted_before_the_100_sends_the_100(ours, theirs):
    body, exchange, _ = make(ours, 1)
    ask = exchange.read

    def interrupted():
        exchange.read = ask
        raise KeyboardInterrupt

    exchange.read = interrupted
    theirs.sendall(b"1")
    with pytest.raises(KeyboardInterrupt):
        body.read(1)
    assert body.read(1) == b"1"
    assert exchange.reads == 1


# Complete or an error.


@pytest.mark.parametrize("size", [None, HUGE, 10**12, 2000])
def test_no_memory_is_allocated_for_bytes_that_were_announced_and_did_not_arrive(
    ours, theirs, size
):
    theirs.sendall(b"x" * 1000)
    theirs.shutdown(socket.SHUT_WR)
    body, *_ = make(ours, 10**15)
    tracemalloc.start()
    try:
        with pytest.raises(ClientDisconnected, match="after 1000 of 1000000000000000 bytes"):
            body.read(size)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


def failed(ours, theirs):
    """Return a body whose client leaves after half of it."""
    theirs.sendall(b"12345")
    theirs.shutdown(socket.SHUT_WR)
    return make(ours, 10)[0]


def test_a_body_that_has_failed_keeps_no_reference_to_the_buffer_of_its_reader(ours, theirs):
    body = failed(ours, theirs)
    buffer = bytearray(10)
    for _ in range(2):
        with pytest.raises(ClientDisconnected):
            body.readinto(buffer)
    gc.collect()
    buffer.clear()  # raises BufferError if something still refers to it


def test_a_body_that_has_failed_is_freed_without_the_garbage_collector(ours, theirs):
    with no_garbage_of(Body):
        body = failed(ours, theirs)
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                body.read()
        del body


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("way", ["read", "readinto"])
def test_the_error_of_a_read_is_reported_once(ours, theirs, way, answered):
    failures = []
    body, exchange, _ = make(ours, DRAIN_SIZE + 10, failures=failures)
    if answered:
        exchange.respond()
    theirs.sendall(b"12345")
    theirs.shutdown(socket.SHUT_WR)
    for _ in range(2):
        with pytest.raises(ClientDisconnected):
            body.read() if way == "read" else body.readinto(bytearray(10))
    assert failures == [ClientDisconnected]


def test_a_client_that_leaves_while_nobody_reads_is_not_reported(ours, theirs):
    failures = []
    _, exchange, _ = make(ours, 10, failures=failures)
    exchange.respond()
    theirs.shutdown(socket.SHUT_WR)
    assert not exchange.drain()
    assert failures == []


@pytest.mark.parametrize(
    "error",
    [ClientDisconnected("why"), BodyTimeout("why"), MalformedBody("why"), ContentTooLarge(5)],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_pickled(error):
    error.partial = b"what came"
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


# The bytes that arrived before an error.

THREE = b"one\ntwo\nthr"

#: The error, the pieces that arrive before it (the first one with the head), and whether the body
#: has a length; otherwise it is in chunks.
BREAKING = {
    "leaves": (ClientDisconnected, [b"one\nt", b"wo\n", b"th", b"r"], True),
    "leaves in a chunk": (
        ClientDisconnected,
        [b"5\r\none\nt\r\n3", b"\r\nwo\n\r\n64\r\nth", b"r"],
        False,
    ),
    "stalls": (BodyTimeout, [b"one\nt", b"wo\n", b"th", b"r"], True),
    "stalls in a chunk": (BodyTimeout, [b"5\r\none\nt\r\n3", b"\r\nwo\n\r\n64\r\nth", b"r"], False),
    "stalls between chunks": (BodyTimeout, [b"b\r\none\ntwo", b"\nth", b"r\r\n"], False),
    "malformed": (MalformedBody, [b"5\r\none\nt", b"\r\n6\r\nwo\nthr", b"XXX"], False),
    "too large": (ContentTooLarge, [b"5\r\none\nt", b"\r\n6\r\nwo\nthr\r\n64\r\n"], False),
}


def readinto_and_check_the_buffer(size):
    def read(body):
        buffer = bytearray(size)
        with pytest.raises(BodyError) as raised:
            body.readinto(buffer)
        assert buffer.startswith(raised.value.partial)
        raise raised.value

    return read


@pytest.mark.parametrize(
    ("kind", "large"),
    [*((kind, False) for kind in KINDS), ("tcp", True)],
    ids=[*KINDS, "tcp, large"],
)
@pytest.mark.parametrize(
    ("way", "before", "partial"),
    [
        (method("read"), [], THREE),
        (method("read", 100), [], THREE),
        (method("read", 9000), [], THREE),
        (method("read", 100), [method("read", 2)], THREE[2:]),
        (method("read", 9000), [method("readline")], THREE[4:]),
        (method("readline"), [method("readline"), method("readline")], b"thr"),
        (method("readline", 7), [method("read", 8)], b"thr"),
        (method("readlines"), [], THREE),
        (method("readlines", 100), [method("readline")], THREE[4:]),
        (method("__next__"), [method("__next__"), method("__next__")], b"thr"),
        (list, [], b"thr"),  # a call for each line
        (readinto_and_check_the_buffer(100), [], THREE),
        (readinto_and_check_the_buffer(9000), [], THREE),
        (readinto_and_check_the_buffer(9000), [readinto(1)], THREE[1:]),
    ],
)
@pytest.mark.parametrize("how", BREAKING)
def test_an_error_has_the_bytes_that_the_failed_call_had_received(
    ours, theirs, how, way, before, partial, large, monkeypatch
):
    if large:  # as for a large body, the kernel waits for the bytes
        monkeypatch.setattr(receiver_module, "LARGE", -1)
    kind_of_error, (ahead, *pieces), sized = BREAKING[how]
    stays = kind_of_error is BodyTimeout
    with PacedClient(ours, theirs, pieces, stays=stays):
        body, *_ = make(ours, 10_000 if sized else None, ahead=ahead, timeout=30)
        if how == "too large":
            body.limit(len(THREE))
        for other in before:
            other(body)
        with pytest.raises(kind_of_error) as raised:
            way(body)
        assert raised.value.partial == partial
        for again in [way, method("read"), method("readline"), readinto_and_check_the_buffer(10)]:
            with pytest.raises(kind_of_error) as raised:
                again(body)
            assert raised.value.partial == b""


def test_an_error_has_the_bytes_that_arrived_before_the_response_started(ours, theirs):
    theirs.sendall(b"5\r\nhelloXYZ")
    body, exchange, _ = make(ours, timeout=20)
    exchange.respond()
    with pytest.raises(MalformedBody) as raised:
        body.read()
    assert raised.value.partial == b"hello"
    with pytest.raises(MalformedBody) as raised:
        body.read()
    assert raised.value.partial == b""


class Interruption(BaseException):
    """An exception like gevent.Timeout, or like one that a signal handler raises."""


@pytest.mark.parametrize("length", [10, None])
@pytest.mark.parametrize(
    "way", [method("read"), method("readline"), readinto(10)], ids=["read", "readline", "readinto"]
)
def test_a_read_after_an_interrupted_one_returns_all_bytes_or_raises_an_error(
    ours, theirs, length, way
):
    class Interrupting(PacedClient):
        def poll(self, milliseconds):
            if not self._pieces:
                raise Interruption
            return super().poll(milliseconds)

    head = b"" if length else b"a\r\n"
    body, exchange, _ = make(ours, length, ahead=head)
    with Interrupting(ours, theirs, [b"12", b"345"]) as client:
        with pytest.raises(Interruption):
            way(body)
        client._pieces = [b"6789a", b"" if length else b"\r\n0\r\n\r\n", BEHIND]  # noqa: SLF001
        client.send_all()
        try:
            rest = body.read()
        except OSError:
            assert not exchange.drain()
        else:
            assert rest == b"123456789a"


# Time limits.


@pytest.mark.parametrize("length", [10, None])
def test_every_read_after_a_timeout_raises_the_timeout_again(ours, theirs, length):
    waiting = WaitCounter()
    theirs.sendall(b"hello" if length else b"a\r\nhello")
    body, exchange, _ = make(ours, length, timeout=0.03, waiting=waiting)
    with pytest.raises(BodyTimeout):
        body.read()
    theirs.sendall(b"world" if length else b"world\r\n0\r\n\r\n")
    for _ in range(2):
        with pytest.raises(BodyTimeout):
            body.read()
    assert waiting.entered == waiting.left == 1
    assert not exchange.drain()


def test_a_client_that_is_slower_than_the_minimum_rate_times_out(ours, theirs):
    with PacedClient(ours, theirs, [b"x" * 100] * 30) as client:
        client.pace = 2
        body, exchange, _ = make(ours, 10_000, timeout=30, min_rate=240)
        with pytest.raises(BodyTimeout, match="fewer than 240 a second"):
            body.read()
        assert not exchange.drain()


# The response starts, and the request ends.


@pytest.mark.parametrize(
    ("arrived", "kept"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", True),
        (b"5\r\nhello\r\n0\r\n", False),
        (b"", False),
        (b"5\r\nhelloXYZ", False),
    ],
)
def test_a_connection_is_kept_if_the_last_chunk_has_arrived(certificates, arrived, kept):
    with connected("unix", certificates) as (ours, theirs):
        theirs.sendall(arrived)
        _, exchange, _ = make(ours)
        assert exchange.respond() is kept
        assert exchange.end(may_keep=True) is (End.KEEP if kept else End.LINGER)


@pytest.mark.parametrize("length", [11, None])
def test_bytes_that_arrived_before_the_response_started_can_still_be_read(ours, theirs, length):
    theirs.sendall(b"one\ntwo\nth" if length else b"8\r\none\ntwo\n\r\n2\r\nth\r\n")
    body, exchange, _ = make(ours, length, timeout=20)
    assert body.readline() == b"one\n"
    exchange.respond()
    assert body.readline() == b"two\n"
    theirs.sendall(b"e" if length else b"1\r\ne\r\n0\r\n\r\n")
    assert body.read() == b"the"


def test_a_malformed_chunk_that_arrived_before_the_response_started_is_an_error_when_it_is_read(
    ours, theirs
):
    theirs.sendall(b"5\r\nhelloXYZ")
    body, exchange, _ = make(ours, timeout=20)
    exchange.respond()
    with pytest.raises(MalformedBody):
        body.read()
    assert not exchange.drain()


def test_the_response_does_not_wait_for_a_thread_that_reads(ours, theirs, monkeypatch):
    reading = threading.Event()
    body, exchange, _ = make(ours, 5, timeout=20, waiting=announcing(reading))
    got = []
    thread = threading.Thread(target=lambda: got.append(body.read()))
    thread.start()
    assert reading.wait(20)
    assert not exchange.respond()
    monkeypatch.setattr(exchange_module, "DRAIN_TIMEOUT", 0.01)
    assert not exchange.drain()
    theirs.sendall(b"hello")
    thread.join()
    assert got == [b"hello"]


@pytest.mark.parametrize("length", [10, None])
def test_the_unread_rest_of_a_body_is_discarded(ours, theirs, length):
    whole = b"0123456789" if length else b"a\r\n0123456789\r\n0\r\n\r\n"
    body, exchange, receiver = make(ours, length)
    theirs.sendall(whole[:6])
    assert body.read(2) == b"01"
    exchange.respond()
    theirs.sendall(whole[6:] + BEHIND)
    theirs.shutdown(socket.SHUT_WR)
    assert exchange.drain()
    assert receiver.ahead + receive_rest(ours) == BEHIND


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("length", [5, None])
def test_reading_the_body_of_a_request_that_has_ended_is_an_error(ours, theirs, length, read):
    theirs.sendall(b"1\n345" if length else b"5\r\n1\n345\r\n0\r\n\r\n")
    body, exchange, _ = make(ours, length)
    if read:
        assert body.readline() == b"1\n"
    exchange.respond()
    assert exchange.drain()
    for way in [method("read"), method("readline"), readinto(1), list, method("__next__")]:
        with pytest.raises(OSError, match="this request has ended, and its body with it"):
            way(body)


@pytest.mark.parametrize("sent", [b"", b"he", b"5\r\nhe"])
def test_the_server_waits_only_briefly_for_the_unread_rest_of_a_body(
    ours, theirs, sent, monkeypatch
):
    theirs.sendall(sent)
    body, exchange, _ = make(ours, None if b"\r" in sent else 5)
    monkeypatch.setattr(exchange_module, "DRAIN_TIMEOUT", 0.03)
    assert not exchange.drain()
    with pytest.raises(BodyTimeout):
        body.read()


def test_the_unread_rest_of_a_body_must_arrive_within_one_time_limit(ours, theirs, monkeypatch):
    """No byte restarts the time limit, or a client could send single bytes without end."""
    monkeypatch.setattr(exchange_module, "DRAIN_TIMEOUT", 0.2)
    _, exchange, _ = make(ours, 10**9)
    with sending_on(theirs.sendall, every=0.001):
        assert not exchange.drain()


def test_a_connection_is_not_kept_if_the_client_leaves_before_the_end_of_the_body(ours, theirs):
    theirs.sendall(b"hel")
    theirs.shutdown(socket.SHUT_WR)
    _, exchange, _ = make(ours, 5)
    exchange.respond()
    assert not exchange.drain()


# Several bodies in one request.


def test_a_second_100_starts_a_second_chunked_body(ours, theirs):
    theirs.sendall(b"3\r\none\r\n0\r\n\r\n3\r\ntwo\r\n0\r\n\r\n" + BEHIND)
    body, exchange, receiver = make(ours)
    assert body.read() == b"one"
    assert body.read() == b""
    body.send_hundred_continue_response()
    assert body.read() == b"two"
    exchange.respond()
    body.send_hundred_continue_response()  # too late
    assert body.read() == b""
    assert exchange.drain()
    assert receiver.ahead == BEHIND


def test_a_second_100_starts_no_second_body_after_one_with_a_content_length(ours, theirs):
    theirs.sendall(b"one" + BEHIND)
    body, *_ = make(ours, 3)
    assert body.read() == b"one"
    body.send_hundred_continue_response()
    assert body.read() == b""
