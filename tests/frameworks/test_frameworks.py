"""What Flask and Django do with an upload that is cut off, stalls or is malformed.

This tests the frameworks without our helpers in `contrib`.
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


def upload(server, way, ending):
    """Upload to a view that reads in this way; return the status and the body of the response.

    The ending is "whole", or how the upload fails.
    """
    content_type, body = TYPES.get(way.partition("?")[0], ("text/plain", b"hello world"))
    framing = f"Content-Length: {len(body)}"
    if ending != "whole":
        body = body[: len(body) // 2]
    if ending in ("cut off in a chunk", "malformed"):
        framing = "Transfer-Encoding: chunked"
        body = b"%x\r\n%b\r\n" % (len(body), body) + (b"zz\r\n" if ending == "malformed" else b"")
    with Client(server) as client:
        fields = ("Connection: close", f"Content-Type: {content_type}")
        client.send(request(f"POST /{way}", framing, *fields), body)
        if ending.startswith("cut off"):
            client.shut_down()
        head, answer = client.receive_response()
        assert client.receive_all() == b""
    return int(head.split(b" ")[1]), answer


def outcome(server, way, ending):
    """Return what the read raised or returned, and the status if the view catches nothing."""
    caught = json.loads(upload(server, f"{way}?caught", ending)[1])
    return caught.get("raised", caught.get("read")), upload(server, way, ending)[0]


@pytest.mark.parametrize("way", reading_frameworks.FLASK)
def test_flask_reads_a_complete_body(servers, way):
    status, answer = upload(servers("app"), way, "whole")
    assert status == 200
    assert "hello" in json.loads(answer)["read"]


@pytest.mark.parametrize("way", reading_frameworks.DJANGO)
def test_django_reads_a_complete_body(servers, way):
    status, answer = upload(servers("django_app"), way, "whole")
    assert status == 200
    assert "hello" in json.loads(answer)["read"]


@pytest.mark.parametrize("way", reading_frameworks.FLASK)
@pytest.mark.parametrize(
    ("ending", "raised"),
    [
        ("cut off", "ClientDisconnected"),
        ("cut off in a chunk", "ClientDisconnected"),
        ("stalls", "BodyTimeout"),
        ("malformed", "MalformedBody"),
    ],
)
def test_a_flask_view_sees_our_errors_and_uncaught_ones_become_500(servers, way, ending, raised):
    assert outcome(servers("app"), way, ending) == (raised, 500)


@pytest.mark.parametrize("way", reading_frameworks.DJANGO)
@pytest.mark.parametrize("ending", ["cut off", "stalls"])
def test_a_django_view_sees_unreadable_post_error_and_an_uncaught_one_becomes_500(
    servers, way, ending
):
    assert outcome(servers("django_app"), way, ending) == ("UnreadablePostError", 500)


@pytest.mark.parametrize("ending", ["cut off in a chunk", "malformed"])
def test_django_takes_a_chunked_body_for_an_empty_one(servers, ending):
    """Django reads as many bytes as the Content-Length says, and a chunked body has none."""
    django = servers("django_app")
    assert outcome(django, "body", ending) == ("b''", 200)
    assert outcome(django, "read", ending) == ("b''", 200)
    assert outcome(django, "lines", ending) == ("[]", 200)
    assert outcome(django, "POST", ending) == ("{}", 200)
    assert outcome(django, "FILES", ending) == ("MultiValueDictKeyError", 500)
    assert outcome(django, "json", ending) == ("JSONDecodeError", 500)
