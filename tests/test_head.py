"""When a parser would know what to make of a head, and gunicorn's parser with it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_expect.head import Head

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def head(line_limit=100, limit=1000):
    return Head(line_limit, limit)


@given(st.lists(st.integers(0, len(HEAD) + 2)), st.sampled_from([b"", b"\r\n"]), st.binary())
def test_a_head_is_whole_with_its_last_byte_however_it_comes(cuts, before, behind):
    data = before + HEAD
    end = len(data)
    coming = head()
    cuts = sorted({0, *(cut for cut in cuts if cut < end), end - 1})
    for begin, after in itertools.pairwise(cuts):
        assert not coming.add(data[begin:after])
    assert coming.add(data[-1:] + behind)
    assert coming.take() == data + behind
    assert len(coming) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"\n",
        b"\r\n\r\n",
        b"GET /" + bytes(98),
        b"\r\nGET /" + bytes(98),
        b"GET / HTTP/1.1\r\n" + bytes(1000),
    ],
)
def test_what_no_parser_would_take_is_not_waited_for(data):
    at_once, in_pieces = head(), head()
    assert at_once.add(data)
    whole = [in_pieces.add(data[i : i + 1]) for i in range(len(data))]
    assert True in whole
    assert not any(whole[: whole.index(True)])


def test_a_line_of_any_length_is_waited_for_if_there_is_no_limit():
    assert not head(line_limit=0).add(b"GET /" + bytes(900))


def test_what_is_too_long_is_known():
    coming = head()
    coming.add(b"GET / HTTP/1.1\r\n" + bytes(900))
    assert not coming.too_long
    coming.add(bytes(100))
    assert coming.too_long
