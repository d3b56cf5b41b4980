"""Interim responses that an application sends with `inform`: when, to whom, with which fields."""

import hashlib
import json
import urllib.parse

import pytest

from support.characters import ALLOWED_CHARACTERS, EVERY_CHARACTER
from support.client import CONTINUE, request, waiting

CREATED = b"HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /uploads/7\r\n\r\n"
RECEIVED = b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 5\r\n\r\n"


def test_a_request_without_a_body_gets_interim_responses(client):
    client.send(request("GET /inform"))
    assert client.receive(len(CREATED)) == CREATED
    assert client.receive_head().startswith(b"HTTP/1.1 104 Upload Resumption Supported\r\n")
    assert json.loads(client.receive_response()[1]) == [True, True]


def test_a_client_that_does_not_wait_gets_interim_responses_before_and_after_its_body(client):
    client.send(request("POST /inform", "Content-Length: 5"))
    assert client.receive(len(CREATED)) == CREATED
    client.send(b"hello")
    assert client.receive(len(RECEIVED)) == RECEIVED
    assert json.loads(client.receive_response()[1]) == [True, True]


def test_a_client_that_waits_gets_no_other_interim_response_before_its_100(client):
    client.send(waiting("POST /inform", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive(len(RECEIVED)) == RECEIVED
    assert json.loads(client.receive_response()[1]) == [False, True]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("POST /inform", "Upload-Complete: ?1"),
        ("POST /inform", "Upload-Draft-Interop-Version: 8"),
        ("POST /inform?force=1", "X-Nothing: 1"),
    ],
)
def test_a_client_that_waits_and_understands_gets_an_interim_response_before_its_100(
    client, line, field
):
    client.send(waiting(line, "Content-Length: 5", field))
    assert client.receive(len(CREATED + CONTINUE)) == CREATED + CONTINUE
    client.send(b"hello")
    assert client.receive(len(RECEIVED)) == RECEIVED
    assert json.loads(client.receive_response()[1]) == [True, True]


def test_a_client_whose_body_has_arrived_gets_interim_responses(client):
    client.send(waiting("POST /inform", "Content-Length: 5"), b"hello")
    assert client.receive(len(CREATED + RECEIVED)) == CREATED + RECEIVED
    assert json.loads(client.receive_response()[1]) == [True, True]


@pytest.mark.parametrize("expects", [[], ["Expect: 100-continue"]])
def test_a_client_of_http_1_0_gets_no_interim_response(client, expects):
    client.send(request("POST /inform?force=1 HTTP/1.0", "Content-Length: 5", *expects), b"hello")
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"[false, false]")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_interim_response_is_sent_after_the_response_has_started(client, method):
    fields = ["Content-Length: 5"] if method == "PUT" else []
    client.send(request(f"{method} /inform-late", *fields), b"hello" if fields else b"")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"7False"


def test_one_thread_sends_interim_responses_while_another_one_reads(client):
    body = bytes(range(256)) * 4096  # 64 pieces
    client.send(request("POST /inform-often", f"Content-Length: {len(body)}"), body)
    for number in range(1, 65):
        assert client.receive_head().endswith(
            f"\r\nUpload-Offset: {number * 16384}\r\n\r\n".encode()
        )
    assert client.receive_response()[1] == hashlib.sha256(body).hexdigest().encode()


def test_an_application_that_fails_after_an_interim_response_gets_500(client):
    client.send(request("GET /inform-and-fail"))
    assert client.receive_head() == b"HTTP/1.1 102 Processing\r\n\r\n"
    assert client.receive_head().startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("status", "name", "value", "message"),
    [
        (99, "X-A", "1", "102 to 199"),
        (100, "X-A", "1", "proceed()"),
        (101, "X-A", "1", "start_response"),
        (200, "X-A", "1", "102 to 199"),
        (104, "Location", "/a\r\nX-Injected: 1", "Location can't be sent in a 104"),
        (104, "X-Bad:", "1", "header field 1 of a 104"),
        (199, "Content-Length", "5", "a 199 can't be given Content-Length"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_interim_response_that_can_not_be_sent_is_an_error(
    client, method, status, name, value, message
):
    fields = urllib.parse.urlencode({"status": status, "name": name, "value": value})
    length = ["Content-Length: 5"] if method == "POST" else []
    client.send(request(f"{method} /inform-badly?{fields}", *length, "Connection: close"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert message in json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("where", ALLOWED_CHARACTERS)
def test_every_character_of_an_interim_response_is_sent_or_is_an_error(client, where):
    client.send(request(f"GET /inform-every-character?{where}"))
    for number in ALLOWED_CHARACTERS[where]:
        odd = f"x{chr(number)}y"
        field = f"{odd}: {number}" if where == "name" else f"{number}: {odd}"
        assert client.receive_head().split(b"\r\n")[1:] == [field.encode(), b"", b""]
    refused = json.loads(client.receive_response()[1])
    assert refused == [n for n in EVERY_CHARACTER if n not in ALLOWED_CHARACTERS[where]]


@pytest.mark.parametrize("status", [105, 199])
def test_a_status_without_a_name_has_a_reason_phrase(client, status):
    client.send(request(f"GET /inform-badly?status={status}&name=X-A&value=1"))
    assert client.receive_head() == f"HTTP/1.1 {status} Informational\r\nX-A: 1\r\n\r\n".encode()
    assert client.receive_response()[1] == b"accepted"
