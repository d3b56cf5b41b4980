"""gunicorn's own corpus of requests gets the same answers from our workers as from stock gunicorn.

The sdist of gunicorn has these valid and invalid requests. They are sent whole, byte by byte and
cut short, over a socket. `ALLOWED` and docs/compatibility.md list what may differ.
"""

import contextlib
import re
import socket

import pytest

from support.client import Client
from support.installed import INSTALLED, missing
from support.matrix import WORKERS
from support.server import Server

#: Bytes at the beginning and at the end of a long request that are sent one by one.
EDGE = 150

#: Options of gunicorn that some requests of the corpus are meant for.
STRICT = ["--limit-request-line", "60", "--limit-request-fields", "2"]
STRICT += ["--limit-request-field_size", "14"]
LENIENT = ["--permit-obsolete-folding", "--strip-header-spaces", "--casefold-http-method"]
LENIENT += ["--permit-unconventional-http-method", "--permit-unconventional-http-version"]
LENIENT += ["--header-map", "dangerous", "--forwarded-allow-ips", "*"]
PROXIED = ["--proxy-protocol", "auto"]

CELLS = [
    *((worker, parser, []) for worker in WORKERS for parser in ("python", "fast")),
    *(
        ("thread", parser, options)
        for parser in ("python", "fast")
        for options in (STRICT, PROXIED)
    ),
    ("thread", "python", LENIENT),
]


def unescaped(data):
    """Return the bytes that a file of the corpus stands for; its real line breaks are ignored."""
    names = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}
    return re.sub(
        rb"\\(x([0-9A-Fa-f]{2})|[rnt0])",
        lambda match: bytes([int(match[2], 16)]) if match[2] else names[match[1]],
        data.replace(b"\n", b""),
    )


@pytest.fixture(scope="module")
def corpus():
    folder = INSTALLED / "corpus" / "27.0.1"
    if not folder.exists():
        missing("gunicorn's corpus of requests")
    found = {
        f"{path.parent.name}/{path.stem}": unescaped(path.read_bytes())
        for path in sorted(folder.glob("*valid/*.http"))
    }
    assert len(found) > 100
    return found


def whole(data):
    yield [data]


def byte_by_byte(data):
    middle = data[EDGE:-EDGE]
    edges = [data[:EDGE], data[-EDGE:]] if middle else [data, b""]
    begin, end = ([edge[i : i + 1] for i in range(len(edge))] for edge in edges)
    yield [*begin, middle, *end]


def cut_short(data):
    """Cut after a line, in its middle, and before the last byte."""
    lines = [match.end() for match in re.finditer(rb"\n", data)]
    ends = {*lines[:3], *lines[-3:], *(end - 1 for end in lines[:2]), len(data) // 2, len(data) - 1}
    for end in sorted(ends - {0, len(data)}):
        yield [data[:end]]


WAYS = [whole, byte_by_byte, cut_short]


def answers(server, pieces, *, before_the_end=0):
    """Return the status and, if it is 200, the body of each response.

    Args:
        server: the client connects to it.
        pieces: each is sent by a call of its own.
        before_the_end: how many responses the client waits for before it half-closes.

    """
    found = []
    with Client(server) as client:
        with contextlib.suppress(OSError):  # it was reset
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.send(piece)
            while len(found) < before_the_end and (answer := receive(client)):
                found.append(answer)
            client.shut_down()
        while answer := receive(client):
            found.append(answer)
    return found


def receive(client):
    head, body = client.receive_response()
    while head[9:12] == b"100":
        head, body = client.receive_response()
    status = int(head[9:12] or 0)
    return (status, body if status == 200 else None) if head else None


def difference(ours, stock, stock_when_whole, data):
    """Return why two lists of responses differ, or None if there is no known reason."""
    same = 0
    while same < min(len(ours), len(stock)) and ours[same] == stock[same]:
        same += 1
    mine, theirs = ([status for status, _ in found[same:]] for found in (ours, stock))
    if mine == [400] and theirs in ([], [200]) and b"\r\n\r\n" in data:
        return "a body that ends early"
    if len(mine) != 1 or mine[0] not in (400, 414, 431):
        return None
    if not theirs and stock_when_whole[same][0] >= 400:
        return "a malformed line before the end of the head"
    if theirs and theirs[0] in (400, 414, 431):
        return "two errors in one head"
    return None


#: The differences that docs/compatibility.md lists.
ALLOWED = {
    "whole": {"a body that ends early"},
    "byte_by_byte": {"a body that ends early", "two errors in one head"},
    "cut_short": {
        "a body that ends early",
        "two errors in one head",
        "a malformed line before the end of the head",
    },
}


#: Their body does not end: the error is that the client has left.
WAITS = {"invalid/rfc9112_chunked_missing_final_crlf_01"}

#: Stock gunicorn may close a connection that has unread bytes, and its answer is lost by the reset.
TRIES = 5


@pytest.mark.parametrize(("worker", "parser", "options"), CELLS, ids=repr)
def test_requests_of_the_corpus_are_answered_as_by_stock_gunicorn(corpus, worker, parser, options):
    def differs(way, pieces, data):
        mine = answers(ours, pieces)
        for _ in range(TRIES):
            theirs = answers(stock, pieces)
            why = difference(mine, theirs, when_whole, data)
            if mine == theirs or why in ALLOWED[way.__name__]:
                return None
            if way is byte_by_byte and mine == when_whole and mine[: len(theirs)] == theirs:
                return None  # stock gunicorn's response was lost by a reset
        return mine, theirs

    wrong = {}
    command = ["--http-parser", parser, *options]
    mine, theirs = WORKERS[worker]
    with (
        Server(*command, worker=mine, app="apps.echo:app") as ours,
        Server(*command, worker=theirs, app="apps.echo:app") as stock,
    ):
        for name, data in corpus.items():
            found = (answers(stock, [data]) for _ in range(TRIES))
            when_whole = next(filter(None, found), [])
            for way in WAYS:
                for pieces in way(data):
                    if found := differs(way, pieces, data):
                        wrong[name, way.__name__, b"".join(pieces)[-80:]] = found
            if name not in WAITS and answers(ours, [data]) == when_whole:
                early = answers(ours, [data], before_the_end=len(when_whole))
                assert early == when_whole, f"{name}: no response before the client half-closes"
    assert wrong == {}
