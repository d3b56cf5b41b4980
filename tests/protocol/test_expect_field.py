"""What the Expect field may look like, and what each form of it means."""

import importlib.metadata
import json

import pytest

from support.client import CONTINUE, Client, request, waiting


def fast_parser():
    """Return the version of gunicorn_h1c."""
    return tuple(map(int, importlib.metadata.version("gunicorn_h1c").split(".")))


@pytest.mark.parametrize(
    "fields",
    [
        ["Expect: 100-continue"],
        ["Expect: 100-Continue"],
        ["expect: 100-CONTINUE"],
        ["EXPECT:100-continue"],
        ["Expect: \t 100-continue \t"],
        ["Expect: 100-continue", "Expect: 100-continue"],
        ["Expect: 100-continue, 100-continue"],
        ["Expect: ,100-continue,"],
        ["Expect:", "Expect: 100-continue"],
    ],
    ids=repr,
)
def test_every_valid_form_of_100_continue_is_one_expectation(client, fields):
    client.send(request("PUT /read", "Content-Length: 5", *fields))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


@pytest.mark.parametrize("value", ["", " ", ",", " , ,"], ids=repr)
def test_an_empty_expect_field_is_ignored(client, value):
    client.send(request("PUT /ordinary-read", f"Expect:{value}", "Content-Length: 5"), b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body) == ["hello", "none"]


@pytest.mark.parametrize(
    "fields",
    [
        ["Expect: x"],
        ["Expect: 100-continue, x"],
        ["Expect: x, 100-continue"],
        ["Expect: y 100-continue"],
        ["Expect: 100-continue;q=1"],
        ["Expect: 100-continue=yes"],
        ['Expect: "100-continue"'],
        ["Expect: 100 continue"],
        ["Expect: 100-continued"],
        ["Expect: 100\u00adcontinue"],
        ["Expect: \u00a0100-continue"],
        ["Expect: 100-continue", "Expect: x"],
        ["Expect: x", "Expect: 100-continue"],
    ],
    ids=repr,
)
@pytest.mark.parametrize("line", ["PUT /read", "GET /hello"])
def test_an_unknown_expectation_gets_417_and_closes_the_connection(server, fields, line):
    with Client(server) as client:
        client.send(request(f"{line}?unknown", *fields, "Content-Length: 5"))
        answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert b"unknown" not in server.get("/seen")


def test_nothing_that_follows_a_417_is_read_as_a_request(server, client):
    client.send(
        request("PUT /read", "Expect: x", "Content-Length: 500"),
        request("GET /hello?smuggled-behind-417"),
    )
    assert client.receive_all().count(b"HTTP/1.1") == 1
    client.close()
    assert b"smuggled-behind-417" not in server.get("/seen")


def test_an_unknown_expectation_is_escaped_in_the_response_and_in_the_log(server, client):
    client.send(request("PUT /read", "Expect: <b>x\u009b2J</b>", "Content-Length: 5"))
    answer = client.receive_all()
    assert b"<b>" not in answer
    assert b"&lt;b&gt;x" in answer
    assert b"\x9b" not in answer
    line = server.wait_for_log(r"Unable to comply with expectation: (.*<b>.*)")[1]
    assert line == r"'<b>x\x9b2J</b>'"


LINE = b"PUT /read HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"Expect : 100-continue\r\nContent-Length: 5\r\n\r\n",
        LINE + b"Expect\t: 100-continue\r\nContent-Length: 5\r\n\r\n",
        LINE + b"Expect: 100-continue\x00\r\nContent-Length: 5\r\n\r\n",
        LINE + b"Expect: 100-continue\r\nContent-Length: 5, 5\r\n\r\n",
        LINE + b"Expect: 100-continue\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=repr,
)
def test_a_malformed_head_gets_400_and_no_100(client, head):
    client.send(head)
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"Expect:\r\n 100-continue\r\nContent-Length: 5\r\n\r\n",
        LINE + b"Expect: 100-\r\n\tcontinue\r\nContent-Length: 5\r\n\r\n",
        LINE + b"Expect: 100-continue\nContent-Length: 5\r\n\r\n",
        LINE + b"X: y\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"PUT /read HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 5\n\n",
        LINE + b"Expect: 100-continue\r\nContent-Length: 5\n\n",
    ],
    ids=repr,
)
def test_a_folded_line_or_a_bare_lf_gets_400_and_no_100(cell, client, head):
    if cell.parser == "fast" and fast_parser() < (0, 6, 10):
        # gunicorn 27.0.1 asks for 0.6.14 in its extra, but also runs with older ones.
        pytest.skip("gunicorn_h1c before 0.6.10 takes folded lines and bare LF")
    client.send(head)
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.keeps_alive
def test_an_expectation_in_a_trailer_is_ignored(client):
    client.send(
        request("PUT /ordinary-read", "Transfer-Encoding: chunked", "Trailer: Expect"),
        b"5\r\nhello\r\n0\r\nExpect: 100-continue\r\n\r\n",
        request("GET /hello"),
    )
    assert json.loads(client.receive_response()[1]) == ["hello", "none"]
    assert client.receive_response()[1] == b"hello"


@pytest.mark.keeps_alive
def test_an_unknown_expectation_in_a_trailer_is_ignored(client):
    client.send(
        waiting("PUT /read", "Transfer-Encoding: chunked"),
        b"5\r\nhello\r\n0\r\nExpect: x\r\n\r\n",
        request("GET /hello"),
    )
    assert client.receive_response()[1] == b"hello"
    assert client.receive_response()[1] == b"hello"
