"""How the bytes of a request head are collected until the head is complete or wrong."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_expect.head import Head, Limits, TooLargeError

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: b c\r\n\r\n"
LIMITS = Limits(line=100, fields=5, field=200, all_fields=5 * 202 + 4)
V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56789 443\r\n"
#: With an address that contains the bytes of a head's end.
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, b"\r\n\r\n", b"abcd", 1, 2)


class WrongError(Exception):
    pass


class Parser:
    """Accepts every head that is complete; `judge` raises what the test wants."""

    def __init__(self, prefix=b"", verdict=None):
        self.prefix = prefix
        self.verdict = verdict
        self.judged = []

    def parse(self, data):
        if not self.prefix.startswith(data[: len(self.prefix)]):
            self.prefix = b""  # only the first head has one
        end = data.find(b"\r\n\r\n", len(self.prefix) + (data[:2] == b"\r\n") * 2) + 4
        return None if end < 4 else (data[:end], data[end:])

    def judge(self, data):
        self.judged.append(data)
        if self.verdict:
            raise self.verdict


def begun(limits, parser):
    """Begin the first head of a connection; return it and its parser."""
    return Head(limits, parser, is_first=True), parser


def fed(head, data):
    """Feed byte by byte; return the result of each call."""
    return [head.feed(data[i : i + 1]) for i in range(len(data))]


@given(
    st.lists(st.integers(0, 200)),
    st.sampled_from([b"", V1, V2]),
    st.sampled_from([b"", b"\r\n"]),
    st.binary(),
)
def test_a_head_is_complete_with_its_last_byte_in_whatever_pieces_it_arrives(
    cuts, prefix, before, behind
):
    data = prefix + before + HEAD
    end = len(data)
    parser = Parser(prefix + before)
    head = Head(Limits(proxy="auto" if prefix else "off"), parser, is_first=True)
    cuts = sorted({0, *(cut for cut in cuts if cut < end), end - 1})
    for begin, after in itertools.pairwise(cuts):
        assert head.feed(data[begin:after]) is None
    assert head.feed(data[-1:] + behind) == (data, behind)
    assert not [judged for judged in parser.judged if not prefix.startswith(judged)]


def test_a_head_that_looks_right_is_not_judged_before_it_is_complete():
    head, parser = begun(LIMITS, Parser())
    assert fed(head, HEAD) == [None] * (len(HEAD) - 1) + [(HEAD, b"")]
    assert begun(LIMITS, parser)[0].feed(HEAD) == (HEAD, b"")
    assert parser.judged == []


#: Beginnings of heads that some parsers refuse. Each looks wrong only with its last byte.
DOUBTFUL = [
    b"BAD\r\n",
    b"BAD\n",
    b"get / HTTP/1.1\r\n",
    b"GET  / HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"GET //[ HTTP/1.1\r\n",
    b"GET / HTTP/1.1\n",
    b"GET / HTTP/1.1\rL",
    b"GET /" + bytes(98),
    b"\r\n\r\n",
    b"\r\nGET /" + bytes(98),
    *(
        b"GET / HTTP/1.1\r\n" + lines
        for lines in (
            b" ",
            b"\t",
            b"Host: a\r\n ",
            b"Host\r\n",
            b": a\r\n",
            b"Host : a\r\n",
            b"Host: a\0\r\n",
            b"Host: a\n",
            b"Host: a\rb",
            b"Host: a\r\r",
            b"Content-Length: 3\r\n\ra",
            b"Host: " + b"a" * 197,
            b"a:b\r\n" * 6,
        )
    ),
]


@pytest.mark.parametrize("data", DOUBTFUL)
def test_a_line_is_judged_as_soon_as_it_looks_wrong(data):
    for refused in (None, WrongError):
        head, parser = begun(LIMITS, Parser(verdict=refused))
        assert fed(head, data[:-1]) == [None] * (len(data) - 1)
        assert parser.judged == []
        if refused:
            with pytest.raises(WrongError):
                head.feed(data[-1:])
        else:
            assert head.feed(data[-1:]) is None
        assert parser.judged == [data.removesuffix(b"\r") + b"\r\n" * 6]


@pytest.mark.parametrize("data", DOUBTFUL)
def test_a_line_that_looks_wrong_is_judged_when_all_arrives_at_once(data):
    head, _ = begun(LIMITS, Parser(verdict=WrongError))
    with pytest.raises(WrongError):
        head.feed(data)


def test_a_wrong_line_is_judged_without_the_unfinished_line_after_it():
    head, parser = begun(LIMITS, Parser())
    head.feed(b"GET / HTTP/1.1\r\nBad Name: a\r\nHo")
    assert parser.judged == [b"GET / HTTP/1.1\r\nBad Name: a\r\n" + b"\r\n" * 6]


def test_a_line_is_judged_without_the_cr_of_its_unfinished_crlf():
    head, parser = begun(LIMITS, Parser())
    head.feed(b"GET / HTTP/1.1\r\nHost: a\r\n b\r")
    assert parser.judged == [b"GET / HTTP/1.1\r\nHost: a\r\n b" + b"\r\n" * 6]


def test_an_unfinished_head_is_judged_when_the_client_sends_no_more():
    head, parser = begun(LIMITS, Parser())
    head.end()
    assert parser.judged == []
    head.feed(b"GET / HT")
    head.end()
    assert parser.judged == [b"GET / HT"]


def test_a_parser_that_allows_lines_that_look_wrong_is_asked_a_limited_number_of_times():
    head, parser = begun(Limits(fields=1000, all_fields=10**6), Parser())
    data = b"GET / HTTP/1.1\r\na: b\r\n" + b" c\r\n" * 1000
    fed(head, data)
    assert sum(map(len, parser.judged)) < 10 * len(data)
    assert head.feed(b"\r\n") == (data + b"\r\n", b"")


class Lenient(Parser):
    """Accepts a bare LF as the end of a line."""

    def parse(self, data):
        head, end, rest = data.replace(b"\r\n", b"\n").partition(b"\n\n")
        return (head, rest) if end else None


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_parser_that_accepts_a_bare_lf_gets_such_a_head_when_it_is_complete(end):
    head, _ = begun(LIMITS, Lenient())
    results = fed(head, b"GET / HTTP/1.1\nHost: a" + end)
    assert results[-1] == (b"GET / HTTP/1.1\nHost: a", b"")
    assert not any(results[:-1])


def test_a_long_line_is_accepted_if_the_parser_does_not_refuse_it():
    head, parser = begun(LIMITS, Parser())
    line = b"GET /" + b"a" * 10**5
    assert head.feed(line) is None
    fed(head, b"a" * 100)
    assert len(parser.judged) == 1
    assert head.feed(b" HTTP/1.1\r\nHost: b\r\n") is None
    request, _ = head.feed(b"\r\n")
    assert request.startswith(line)


def test_all_header_fields_together_have_a_size_limit():
    head, _ = begun(LIMITS, Parser())
    head.feed(b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: " + b"a" * 1000)
    with pytest.raises(TooLargeError):
        head.feed(b"a" * 20)


@pytest.mark.parametrize("empty", [b"", b"\r", b"\r\n"])
@pytest.mark.parametrize("mode", ["off", "v1"])
def test_an_empty_line_does_not_count_as_the_beginning_of_a_head(mode, empty):
    head, _ = begun(Limits(proxy=mode), Parser(V1 if mode == "v1" else b""))
    if mode == "v1":
        fed(head, V1)
    fed(head, empty)
    assert not head.has_begun
    head.feed(b"\r\nGET"[len(empty) :])
    assert head.has_begun


@pytest.mark.parametrize(
    ("mode", "data", "judged"),
    [
        ("v1", V1, V1),
        ("auto", V1, V1),
        ("v2", V2, V2),
        ("auto", V2, V2),
        ("v2", V2[:16], V2[:16]),
        ("v1", b"PROXY " + b"x" * 102, b"PROXY " + b"x" * 102 + b"\r\n" * 6),
        ("v1", b"BAD\r\n", b"BAD\r\n" + b"\r\n" * 6),
        ("v2", b"PROXY TCP4\r\n", b"PROXY TCP4\r\n" + b"\r\n" * 6),
        ("v2", b"\r\n\r\n\0\r\nBAD\r\n", b"\r\n\r\n\0\r\nBAD\r\n" + b"\r\n" * 6),
    ],
)
def test_the_header_of_the_proxy_protocol_is_judged_when_it_is_complete(mode, data, judged):
    head, parser = begun(Limits(proxy=mode), Parser())
    fed(head, data)
    assert parser.judged[-1] == judged


def test_only_the_first_head_may_have_a_header_of_the_proxy_protocol():
    head, _ = begun(Limits(proxy="v1"), Parser(V1))
    assert fed(head, V1 + HEAD)[-1] == (V1 + HEAD, b"")
    with pytest.raises(WrongError):
        fed(Head(Limits(proxy="v1"), Parser(verdict=WrongError), is_first=False), V1)


def test_a_long_request_line_is_not_taken_for_a_header_of_the_proxy_protocol_that_is_too_large():
    head, _ = begun(Limits(proxy="auto", fields=2, field=20, all_fields=2 * 22 + 4), Parser())
    data = b"GET /" + b"a" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert head.feed(data[:60]) is None
    assert head.feed(data[60:]) == (data, b"")


@pytest.mark.parametrize("data", [b"PROXY ", V2[:14] + b"\xff\xff"])
def test_a_header_of_the_proxy_protocol_that_does_not_end_is_too_large(data):
    head, _ = begun(Limits(proxy="auto", all_fields=1000), Parser())
    with pytest.raises(TooLargeError):
        head.feed(data + bytes(1000))
