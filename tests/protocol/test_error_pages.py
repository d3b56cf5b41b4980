"""The responses that gunicorn writes itself are well-formed on every Python.

gunicorn makes their heads with `textwrap.dedent`. Since Python 3.14, dedent replaces a line of
white space by a bare LF, and it counts a CR as white space.
"""

import contextlib
import re

import pytest

from gunicorn_expect.host import well_formed
from support.client import Client, request
from support.matrix import WORKERS
from support.server import Server

#: A configuration file with a dedent that behaves like that of Python 3.14.
DEDENT = r"""
import textwrap

def dedent(text):
    lines = text.split("\n")
    indents = [len(x) - len(x.lstrip(" \t")) for x in lines if x and not x.isspace()]
    margin = min(indents, default=0)
    return "\n".join("" if x.isspace() else x[margin:] for x in lines)

textwrap.dedent = dedent
"""

REQUESTS = {
    400: b"NONSENSE\r\n\r\n",
    403: b"PROXY TCP4 203.0.113.7 192.0.2.1 56789 443\r\n" + request("GET /hello"),
    414: request("GET /hello?" + "a" * 200),
    417: request("PUT /read", "Expect: x", "Content-Length: 1"),
    431: request("GET /hello", *["X: y"] * 20),
    500: request("GET /fail"),
    501: request("GET /hello", "Transfer-Encoding: x"),
}
OPTIONS = ["--proxy-protocol", "v1", "--proxy-allow-from", "192.0.2.9"]
OPTIONS += ["--limit-request-line", "100", "--limit-request-fields", "10"]
OPTIONS += ["--http-parser", "python"]


def pages(*options, **server):
    """Return the response to each request, by its expected status."""
    found = {}
    with Server(*OPTIONS, *options, **server) as server:
        for status, data in REQUESTS.items():
            with Client(server) as client, contextlib.suppress(ConnectionError):
                client.send(data)
                found[status] = client.receive_all()
    return found


@pytest.fixture(scope="module")
def dedent(tmp_path_factory):
    config = tmp_path_factory.mktemp("config") / "dedent.py"
    config.write_text(DEDENT, "utf-8")
    return ["--config", str(config)]


def test_error_pages_are_the_same_bytes_as_from_stock_gunicorn_before_python_3_14(worker, dedent):
    ours, stock = WORKERS[worker]
    expected = pages(worker=stock)
    assert [int(page.split()[1]) for page in expected.values()] == list(REQUESTS)
    assert pages(worker=ours) == expected
    assert pages(*dedent, worker=ours) == expected
    assert pages(*dedent, worker=stock) != expected  # otherwise this test tests nothing


def test_the_408_page_of_the_head_timeout_is_well_formed(dedent):
    answers = []
    for options in ([], dedent):
        env = {"GUNICORN_EXPECT_HEAD_TIMEOUT": "0.2"}
        with Server(*options, env=env) as server, Client(server) as client:
            client.send(b"GET /hel")
            answers.append(client.receive_all())
    assert answers[0] == answers[1]
    assert re.fullmatch(rb"HTTP/1.1 408 (.*\r\n)+\r\n<html>\n(.*\n)+</html>\n", answers[0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 400 x\r\nA: b\r\n\r\n<\r\n\n>", b"HTTP/1.1 400 x\r\nA: b\r\n\r\n<\r\n\n>"),
        (b"HTTP/1.1 400 x\r\nA: b\r\n\n<\r\n\r\n>", b"HTTP/1.1 400 x\r\nA: b\r\n\r\n<\r\n\r\n>"),
        (b"HTTP/1.1 400 x\nA: b\n\n\n", b"HTTP/1.1 400 x\r\nA: b\r\n\r\n\n"),
    ],
)
def test_lines_of_a_head_end_with_crlf_and_the_page_is_left_alone(data, expected):
    assert well_formed(data) == expected
