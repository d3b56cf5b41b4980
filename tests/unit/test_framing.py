"""Where a body ends: by its length or its chunks, valid and malformed, and the bytes after it."""

import tracemalloc

import hypothesis
import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import strategies as st

from gunicorn_expect import ClientDisconnected, MalformedBody, host
from gunicorn_expect.body import Body
from gunicorn_expect.exchange import Exchange
from gunicorn_expect.framing import DRAIN_SIZE, Chunked, Sized
from gunicorn_expect.receiver import Receiver
from gunicorn_expect.states import Rest
from support.chunks import in_chunks
from support.client import request
from support.socket_pairs import PacedClient, connected, receive_rest, transport_of

LINE_LIMIT = 100
TRAILER_LIMIT = 200


@pytest.fixture
def trailers():
    return []


def chunked_of(ours, on_trailers=lambda lines: None):
    receiver = Receiver(transport_of(ours), timeout=20)
    return Chunked(receiver, LINE_LIMIT, TRAILER_LIMIT, on_trailers)


@pytest.fixture
def chunked(ours, trailers):
    return chunked_of(ours, trailers.append)


def read_all(framing):
    return b"".join(iter(lambda: framing.read(10**6, whole=True), b""))


def leave(theirs, *pieces):
    """Send these bytes and no more."""
    theirs.sendall(b"".join(pieces))
    theirs.shutdown(1)


# A length.


def test_a_sized_body_ends_where_its_length_says(ours, theirs):
    leave(theirs, b"hello and the next")
    body = Sized(Receiver(transport_of(ours), b""), 5)
    assert body.read(2) == b"he"
    assert body.read(100) == b"llo"
    assert body.read(1) == b""
    assert body.read_into(memoryview(bytearray(5))) == 0
    assert receive_rest(ours) == b" and the next"


@pytest.mark.parametrize("before", ["nothing", "with the head", "a read"])
def test_a_sized_body_does_not_receive_the_bytes_after_it(ours, theirs, before):
    ahead = b"0" if before == "with the head" else b""
    leave(theirs, b"0hello and the next"[len(ahead) :])
    body = Sized(Receiver(transport_of(ours), ahead), 6)
    buffer = bytearray(20)
    if before != "nothing":
        assert body.read(1) == b"0"
    size = 6 if before == "nothing" else 5
    assert body.read_into(memoryview(buffer)) == size
    assert buffer[:size] == b"0hello"[-size:]
    assert receive_rest(ours) == b" and the next"


def test_the_error_of_a_sized_body_that_ends_early_says_how_many_bytes_arrived(ours, theirs):
    leave(theirs, b"hello")
    body = Sized(Receiver(transport_of(ours)), 10)
    assert body.read(4) == b"hell"
    assert body.read(10, whole=True) == b"o"
    for _ in range(2):
        with pytest.raises(ClientDisconnected, match="left after 5 of 10 bytes"):
            body.read(10, whole=True)
        with pytest.raises(ClientDisconnected, match="left after 5 of 10 bytes"):
            body.read_into(memoryview(bytearray(5)))


@pytest.mark.parametrize(
    ("length", "arrived", "rest"),
    [
        (DRAIN_SIZE, 0, Rest.LITTLE),
        (DRAIN_SIZE + 1, 0, Rest.MUCH),
        (DRAIN_SIZE + 1, DRAIN_SIZE + 1, Rest.LITTLE),
        (DRAIN_SIZE + 2, DRAIN_SIZE + 1, Rest.MUCH),
    ],
    ids=["short", "long", "long, arrived", "long, not all arrived"],
)
def test_little_is_left_of_a_sized_body_if_the_rest_is_short_or_has_arrived(
    ours, theirs, length, arrived, rest
):
    theirs.sendall(b"x" * arrived)
    body = Sized(Receiver(transport_of(ours)), length)
    assert body.rest() is rest


def test_nothing_is_left_of_a_body_that_was_read(ours, theirs):
    theirs.sendall(b"hello and the next")
    body = Sized(Receiver(transport_of(ours)), 5)
    assert body.rest() is Rest.LITTLE
    assert not body.ended
    assert body.read(5, whole=True) == b"hello"
    assert body.rest() is Rest.NOTHING
    assert body.ended


# Chunks.


@pytest.mark.parametrize(
    "line",
    [
        *(b"5", b"05", b"0" * 40 + b"5", b"5;name", b"5;name=value", b"5; name = value"),
        *(b'5;name="a quoted \\" value, ; and all"', b"5\t;\ta;b=c ; d", b'5;a="\xe9"'),
    ],
)
def test_chunk_extensions_and_leading_zeros_are_ignored(chunked, theirs, line):
    leave(theirs, line, b"\r\nhello\r\n0\r\n\r\nbehind")
    assert read_all(chunked) == b"hello"
    assert chunked.read(1) == b""
    assert chunked.receiver.ahead == b"behind"


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" ", b"x", b"5x", b"0x5", b"+5", b"-5", b"5_0", b" 5", b"5 ", b"5\t", b"\xb25"),
        *(b"5;", b"5;=value", b"5;name=", b'5;name="open', b'5;a="\x01"', b"5;a=b c", b"5,5"),
        *(b"5\r", b"5;a\rb", b"5;\x00", b"5;a=\xe9"),
    ],
)
def test_a_chunk_size_line_without_a_valid_size_is_malformed(chunked, theirs, line):
    leave(theirs, line, b"\r\nhello\r\n0\r\n\r\n")
    with pytest.raises(MalformedBody) as raised:
        chunked.read(1)
    # The message shows nothing that the client sent.
    assert raised.value.strerror == f"a line of {len(line) + 2} bytes is not the size of a chunk"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"5\nhello\r\n0\r\n\r\n", "the size of a chunk"),
        (b"5\r\nhello\n0\r\n\r\n", "what follows the bytes of a chunk"),
        (b"5\r\nhello 0\r\n\r\n", "what follows the bytes of a chunk"),
        (b"5\r\nhelloXY\r\n0\r\n\r\n", "what follows the bytes of a chunk"),
        (b"4\r\nhello\r\n0\r\n\r\n", "what follows the bytes of a chunk"),
        (b"5\r\nhello\r\n0\n\r\n", "the size of a chunk"),
        (b"5\r\nhello\r\n0\r\n\n", "a line of the trailer section"),
        (b"5\r\nhello\r\n0\r\nX-One: 1\n\r\n", "a line of the trailer section"),
        (b"5;" + b"x" * LINE_LIMIT + b"\r\nhello\r\n0\r\n\r\n", "the size of a chunk"),
        (b"5;" + b"x" * 10**5, "the size of a chunk"),
        (b"5\r\nhello\r\n0\r\nX:" + b"x" * TRAILER_LIMIT + b"\r\n\r\n", "a line of the trailer"),
    ],
)
def test_a_line_that_does_not_end_with_crlf_within_its_limit_is_malformed(
    chunked, theirs, body, what
):
    leave(theirs, body)
    with pytest.raises(MalformedBody, match=f"{what}.* does not end with CRLF after"):
        read_all(chunked)


def test_a_line_as_long_as_its_limit_is_read(chunked, theirs):
    leave(theirs, b"5;" + b"x" * (LINE_LIMIT - 4) + b"\r\nhello\r\n0\r\n\r\n")
    assert read_all(chunked) == b"hello"


def test_a_trailer_section_is_passed_on_as_a_whole(chunked, theirs, trailers):
    leave(theirs, b"0\r\nX-One: 1\r\nX-Two: 2\r\n\r\nbehind")
    assert chunked.read(1) == b""
    assert trailers == [b"X-One: 1\r\nX-Two: 2\r\n"]
    assert chunked.receiver.ahead == b"behind"


def test_all_trailers_together_have_a_size_limit(chunked, theirs, trailers):
    leave(theirs, b"0\r\n", b"X-Trailer: 1\r\n" * 100, b"\r\n")
    with pytest.raises(MalformedBody, match="the trailer section is over 200 bytes"):
        chunked.read(1)
    assert trailers == []


def test_a_body_without_trailers_passes_none_on(chunked, theirs, trailers):
    leave(theirs, b"0\r\n\r\n")
    assert chunked.read(1) == b""
    assert trailers == []


def test_a_chunked_body_that_is_cut_off_anywhere_is_an_error(certificates):
    whole = b"5;a=b\r\nhello\r\n03\r\nyou\r\n0\r\nX: 1\r\n\r\n"
    for cut in range(len(whole)):
        with connected("unix", certificates) as (ours, theirs):
            leave(theirs, whole[:cut])
            chunked = chunked_of(ours)
            for _ in range(3):
                with pytest.raises(ClientDisconnected, match=r"after \d bytes, before the last"):
                    read_all(chunked)


def test_a_read_returns_bytes_of_one_chunk(chunked, theirs):
    theirs.sendall(b"3\r\none\r\n5\r\nthree\r\n")
    assert chunked.read(100) == b"one"
    assert chunked.read(2) == b"th"
    assert chunked.read(100) == b"ree"
    buffer = bytearray(4)
    theirs.sendall(b"6\r\nbuffer\r\n0\r\n\r\n")
    assert chunked.read_into(memoryview(buffer)) == 4
    assert buffer == b"buff"
    assert chunked.read_into(memoryview(buffer)) == 2
    assert chunked.read_into(memoryview(buffer)) == 0


def test_nothing_is_left_if_the_last_chunk_has_arrived(chunked, theirs):
    theirs.sendall(b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\nbehind")
    assert chunked.read(2) == b"he"
    assert chunked.rest() is Rest.NOTHING
    assert chunked.receiver.ahead == b"behind"
    assert chunked.read(1) == b"l"  # looking ahead lost nothing
    assert chunked.rest() is Rest.NOTHING
    assert read_all(chunked) == b"loyou"


@pytest.mark.parametrize(
    "here", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n", b"0\r\nX: 1\r\n"]
)
def test_much_is_left_if_the_last_chunk_has_not_arrived(chunked, theirs, here):
    theirs.sendall(here)
    for _ in range(2):
        assert chunked.rest() is Rest.MUCH
    # Looking ahead lost nothing, and a further read waits again.
    whole = b"5\r\nhello\r\n0\r\n\r\n" if here[:1] != b"0" else b"0\r\nX: 1\r\n\r\n"
    theirs.sendall(whole[len(here) :])
    assert read_all(chunked) == (b"hello" if here[:1] != b"0" else b"")


def test_bytes_before_a_malformed_chunk_can_be_read_before_the_error_is_raised(chunked, theirs):
    leave(theirs, b"5\r\nhelloXYZ\r\n0\r\n\r\n")
    assert chunked.rest() is Rest.BROKEN
    assert chunked.read(2) == b"he"
    assert chunked.read(100, whole=True) == b"llo"
    for _ in range(2):
        with pytest.raises(MalformedBody, match="what follows the bytes of a chunk"):
            chunked.read(100)


@pytest.mark.parametrize(
    ("size", "rest"), [(DRAIN_SIZE, Rest.MUCH), (DRAIN_SIZE - 1, Rest.NOTHING)]
)
def test_the_search_for_the_last_chunk_ends_after_as_many_bytes_as_would_be_drained(
    certificates, size, rest
):
    with connected("tcp", certificates) as (ours, theirs):
        leave(theirs, b"%x\r\n" % size, b"x" * size, b"\r\n0\r\n\r\n")
        chunked = chunked_of(ours)
        # Wait until all of it has been received.
        while len(chunked.receiver.ahead) < size + 10:
            chunked.receiver.fill()
        assert chunked.rest() is rest
        assert read_all(chunked) == b"x" * size


def test_another_body_may_follow_the_last_chunk_if_it_is_asked_for(chunked, theirs, trailers):
    theirs.sendall(b"3\r\none\r\n0\r\nX: 1\r\n\r\n3\r\ntwo\r\n0\r\nX: 2\r\n\r\n")
    assert chunked.read(1) == b"o"
    chunked.follow_up()  # the first one has not ended
    assert read_all(chunked) == b"ne"
    assert chunked.read(1) == b""
    chunked.follow_up()
    assert read_all(chunked) == b"two"
    assert trailers == [b"X: 1\r\n", b"X: 2\r\n"]


@pytest.mark.parametrize("chunk", [b"ffffffffffffff\r\n", b"F" * 90 + b"\r\n"])
def test_no_memory_is_allocated_for_a_chunk_that_was_announced_and_did_not_arrive(
    certificates, chunk
):
    with connected("tcp", certificates) as (ours, theirs):
        leave(theirs, chunk, b"x" * 1000)
        chunked = chunked_of(ours)
        tracemalloc.start()
        try:
            with pytest.raises(ClientDisconnected, match="after 1000 bytes"):
                read_all(chunked)
            assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
        finally:
            tracemalloc.stop()


# Any framing.

BEHIND = request("GET /behind")
HEAD = request("PUT /", "Transfer-Encoding: chunked")


@st.composite
def mutated(draw):
    """Return the chunks of a body with a few bytes changed, added or removed."""
    framed = bytearray(draw(in_chunks(draw(st.binary(max_size=12)))))
    odd = st.one_of(st.binary(max_size=3), st.sampled_from([b"\n", b"\r", b"\r\n", b"0\r\n", b"f"]))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(framed)))
        framed[start : start + draw(st.integers(0, 3))] = draw(odd)
    return bytes(framed)


def read_by_gunicorn(sent):
    return Request(Config(), IterUnreader([HEAD + sent]), ("", 0)).body.read()


class Wire:
    """The wire of a client that does not wait and sends this body."""

    def __init__(self, framing):
        self._framing = framing

    def open_body(self):
        return self._framing


def upload_of(receiver):
    """Return the exchange and the body of a chunked request, whose trailers gunicorn parses."""
    parsed, _ = host.Parser(Config(), ("127.0.0.1", 1), 1).parse(HEAD)

    def on_trailers(lines):
        try:
            host.parse_trailers(parsed, lines)
        except host.ParseError as error:
            raise MalformedBody(str(error)) from error

    exchange = Exchange(
        Wire(Chunked(receiver, LINE_LIMIT, TRAILER_LIMIT, on_trailers)), waits=False
    )
    return exchange, Body(exchange)


@hypothesis.given(
    chunked=mutated(), cut=st.integers(0, 30), kind=st.sampled_from(["unix", "gevent"])
)
@hypothesis.settings(max_examples=400)
def test_mutated_chunks_are_an_error_or_are_read_as_gunicorn_reads_them(
    certificates, chunked, cut, kind
):
    with connected(kind, certificates) as (ours, theirs):
        receiver = Receiver(transport_of(ours))
        exchange, body = upload_of(receiver)
        sent = chunked + BEHIND
        with PacedClient(ours, theirs, filter(None, [sent[:cut], sent[cut:]])) as client:
            try:
                data = body.read()
            except (MalformedBody, ClientDisconnected) as error:
                for _ in range(2):
                    with pytest.raises(type(error)):
                        body.read()
                assert not exchange.drain()
                return
            client.send_all()
        assert exchange.drain()
        behind = receiver.ahead + receive_rest(ours)
    hypothesis.event("still valid")
    assert sent.endswith(behind)
    # If two servers read the same bytes as different requests, that is request smuggling.
    consumed = sent[: len(sent) - len(behind)]
    assert read_by_gunicorn(consumed) == data
    with pytest.raises((ParseException, OSError)):
        read_by_gunicorn(consumed[:-1])
