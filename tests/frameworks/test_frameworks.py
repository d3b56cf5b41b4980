"""What Flask and Django make of an upload that is cut off, stalls or is malformed.

This is what they do, whatever we would have.
"""

import contextlib
import functools
import json

import pytest

from apps import reading_frameworks
from support.client import Client, request
from support.server import Server

FORM = b"a=hello+world+hello"
MULTIPART = (
    b"--limit\r\n"
    b'Content-Disposition: form-data; name="file"; filename="name"\r\n\r\n'
    b"hello world\r\n"
    b"--limit--\r\n"
)
TYPES = {
    "files": ("multipart/form-data; boundary=limit", MULTIPART),
    "form": ("application/x-www-form-urlencoded", FORM),
    "json": ("application/json", b'{"a": "hello"}'),
}
TYPES |= {"FILES": TYPES["files"], "POST": TYPES["form"]}


@pytest.fixture(scope="module")
def servers():
    @functools.cache
    def server_of(app):
        env = {"GUNICORN_EXPECT_BODY_TIMEOUT": "0.1"}
        return stack.enter_context(Server(app=f"apps.reading_frameworks:{app}", env=env))

    with contextlib.ExitStack() as stack:
        yield server_of


def upload(server, way, fate):
    """Upload to a view that reads this way; return the status and what the view says."""
    content_type, body = TYPES.get(way.partition("?")[0], ("text/plain", b"hello world"))
    framing = f"Content-Length: {len(body)}"
    if fate != "whole":
        body = body[: len(body) // 2]
    if fate in ("cut off in a chunk", "malformed"):
        framing = "Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n" % (len(body), body) + (b"zz\r\n" if fate == "malformed" else b"")
    with Client(server) as client:
        fields = ("Connection: close", f"Content-Type: {content_type}")
        client.send(request(f"POST /{way}", framing, *fields), body)
        if fate.startswith("cut off"):
            client.shut_down()
        head, said = client.receive_response()
        assert client.receive_all() == b""
    return int(head.split(b" ")[1]), said


def outcome(server, way, fate):
    """Return what reading raised, or read, and the status where the view lets that pass."""
    said = json.loads(upload(server, f"{way}?caught", fate)[1])
    return said.get("raised", said.get("read")), upload(server, way, fate)[0]


@pytest.mark.parametrize("way", reading_frameworks.FLASK)
def test_flask_reads_what_comes_whole(servers, way):
    status, said = upload(servers("app"), way, "whole")
    assert status == 200
    assert "hello" in json.loads(said)["read"]


@pytest.mark.parametrize("way", reading_frameworks.DJANGO)
def test_django_reads_what_comes_whole(servers, way):
    status, said = upload(servers("django_app"), way, "whole")
    assert status == 200
    assert "hello" in json.loads(said)["read"]


@pytest.mark.parametrize("way", reading_frameworks.FLASK)
@pytest.mark.parametrize(
    ("fate", "raised"),
    [
        ("cut off", "ClientDisconnected"),
        ("cut off in a chunk", "ClientDisconnected"),
        ("stalls", "BodyTimeout"),
        ("malformed", "MalformedBody"),
    ],
)
def test_flask_lets_our_errors_pass_to_the_view_and_makes_them_500(servers, way, fate, raised):
    assert outcome(servers("app"), way, fate) == (raised, 500)


@pytest.mark.parametrize("way", reading_frameworks.DJANGO)
@pytest.mark.parametrize("fate", ["cut off", "stalls"])
def test_django_raises_an_error_of_its_own_and_makes_it_500(servers, way, fate):
    assert outcome(servers("django_app"), way, fate) == ("UnreadablePostError", 500)


@pytest.mark.parametrize("fate", ["cut off in a chunk", "malformed"])
def test_django_takes_a_body_in_chunks_for_an_empty_one(servers, fate):
    """Whole or not: it reads as many bytes as a Content-Length says."""
    django = servers("django_app")
    assert outcome(django, "body", fate) == ("b''", 200)
    assert outcome(django, "read", fate) == ("b''", 200)
    assert outcome(django, "lines", fate) == ("[]", 200)
    assert outcome(django, "POST", fate) == ("{}", 200)
    assert outcome(django, "FILES", fate) == ("MultiValueDictKeyError", 500)
    assert outcome(django, "json", fate) == ("JSONDecodeError", 500)
