"""The examples, as a user would run them, with curl as the client."""

import hashlib
import json
import os
import re

import pytest

from support import CHECKOUT
from support.client import Client, request, waiting
from support.curl import curl
from support.relay import Relay
from support.server import Server

FRAMEWORKS = [
    "examples.flask_upload:app",
    "examples.django_upload:app",
    "examples.falcon_upload:app",
    "examples.bottle_upload:app",
    "examples.pyramid_upload:app",
]
APPLICATIONS = [*FRAMEWORKS, "examples.plain_wsgi:app"]
TOKEN = "Authorization: Bearer letmein"


@pytest.fixture(scope="module", params=APPLICATIONS)
def example(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with Server(
        app=request.param, env={"UPLOAD_FOLDER": str(folder), "UPLOAD_LIMIT": "300000000"}
    ) as server:
        server.folder = folder if request.param in FRAMEWORKS else None
        yield server


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.iso"
    path.write_bytes(os.urandom(1024) * 20_000)
    return path


def url(server):
    return "http://{}:{}/files/big.iso".format(*server.address)


def check_refused_unread(answer, sent, status):
    """Check that curl sent only its headers, with Expect, and received only this refusal."""
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in head
    assert body == b""
    head, body = sent.split(b"\r\n\r\n", 1)
    assert head.startswith(b"PUT /files/big.iso HTTP/1.1\r\n")
    assert b"\r\nExpect: 100-continue" in head
    assert len(body) == 0


def stored(server):
    return sorted(path.name for path in server.folder.rglob("*")) if server.folder else []


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_curl_without_a_token_sends_only_its_headers(example, big_file, chunked):
    transfer = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    with Relay(example) as relay:
        answer = curl(*transfer, "-T", big_file, url(relay))
        [sent] = relay.sent_by_clients()
    check_refused_unread(answer, sent, 401)
    assert b"\r\nwww-authenticate: bearer\r\n" in answer.lower()
    assert stored(example) == []


def test_curl_with_a_file_that_is_too_large_sends_only_its_headers(example, tmp_path):
    too_large = tmp_path / "big.iso"
    with too_large.open("wb") as file:
        file.truncate(6 * 1024**3)
    with Relay(example) as relay:
        answer = curl("-H", TOKEN, "-T", too_large, url(relay))
        [sent] = relay.sent_by_clients()
    check_refused_unread(answer, sent, 413)
    assert stored(example) == []


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_curl_with_a_token_gets_a_100_and_uploads_everything(example, big_file, chunked):
    transfer = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    with Relay(example) as relay:
        answer = curl(*transfer, "-H", TOKEN, "-T", big_file, url(relay))
        [sent] = relay.sent_by_clients()
    interim, final, body = answer.split(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert final.startswith(b"HTTP/1.1 201 ")
    assert b"%d" % big_file.stat().st_size in body
    if not chunked:
        assert len(sent.split(b"\r\n\r\n", 1)[1]) == big_file.stat().st_size
    if example.folder:
        assert stored(example) == ["big.iso"]
        uploaded = example.folder / "big.iso"
        assert uploaded.read_bytes() == big_file.read_bytes()
        uploaded.unlink()


def test_curl_that_waits_a_minute_is_refused_at_once(example, big_file):
    answer = curl("--expect100-timeout", "60", "-T", big_file, url(example))
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_an_upload_that_is_cut_off_is_not_stored(example, framing):
    with Client(example) as client:
        client.send(waiting("PUT /files/big.iso", TOKEN, framing))
        assert client.receive_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"64\r\nonly this")
        client.shut_down()
        assert client.receive_all().startswith(b"HTTP/1.1 400 ")
    assert stored(example) == []


@pytest.mark.parametrize("application", APPLICATIONS)
def test_a_chunked_upload_that_grows_too_large_is_not_stored(tmp_path, application):
    """The limit of the plain example is a constant, which is replaced in its text."""
    text = CHECKOUT.joinpath("examples/plain_wsgi.py").read_text("utf-8")
    folder = tmp_path / "uploads"
    tmp_path.joinpath("plain_wsgi.py").write_text(text.replace("5 * 1024**3", "10"))
    if "plain" in application:
        application = "plain_wsgi:app"
    with (
        Server(
            *("--pythonpath", str(tmp_path)),
            app=application,
            env={"UPLOAD_FOLDER": str(folder), "UPLOAD_LIMIT": "10"},
        ) as server,
        Client(server) as client,
    ):
        client.send(
            request("PUT /files/big.iso", TOKEN, "Transfer-Encoding: chunked"),
            b"b\r\nhello world\r\n0\r\n\r\n",
        )
        assert client.receive_head().startswith(b"HTTP/1.1 413 ")
    assert list(folder.rglob("*")) == []


@pytest.mark.parametrize("application", FRAMEWORKS)
def test_an_upload_that_stalls_is_not_stored(tmp_path, application):
    folder = tmp_path / "uploads"
    env = {"UPLOAD_FOLDER": str(folder), "GUNICORN_EXPECT_BODY_TIMEOUT": "0.1"}
    with Server(app=application, env=env) as server, Client(server) as client:
        client.send(request("PUT /files/big.iso", TOKEN, "Content-Length: 100"), b"only this")
        assert client.receive_all().startswith(b"HTTP/1.1 408 ")
    assert list(folder.rglob("*")) == []


@pytest.mark.parametrize("example", FRAMEWORKS, indirect=True)
@pytest.mark.parametrize("name", ["..", ".", "%2e%2e", "..%2fx", ".hidden", "a%00b", "a%0a"])
def test_a_file_name_that_leads_out_of_the_folder_is_not_stored(example, name):
    with Client(example) as client:
        client.send(waiting(f"PUT /files/{name}", TOKEN, "Content-Length: 5"))
        head = client.receive_head()
    assert head.split()[1] in {b"400", b"404", b"308"}
    assert stored(example) == []


@pytest.mark.parametrize("application", FRAMEWORKS)
def test_the_response_is_json_and_the_file_is_stored(tmp_path, application):
    with (
        Server(app=application, env={"UPLOAD_FOLDER": str(tmp_path)}) as server,
        Client(server) as client,
    ):
        client.send(request("PUT /files/a.txt", TOKEN, "Content-Length: 5"), b"hello")
        head, body = client.receive_response()
    assert re.search(rb"(?i)\r\nlocation: (http://test)?/files/a.txt\r\n", head)
    assert json.loads(body) == {
        "name": "a.txt",
        "size": 5,
        "sha256": hashlib.sha256(b"hello").hexdigest(),
    }
    assert [path.name for path in tmp_path.rglob("*")] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"hello"


def test_make_serve_takes_a_port_and_its_page_says_what_to_try(tmp_path):
    env = {
        "UPLOAD_FOLDER": str(tmp_path),
        "MAKEFLAGS": "",
        "GUNICORN_CMD_ARGS": "--no-control-socket",
    }
    with Server.of(["make", "serve", "PORT=0"], env=env, cwd=CHECKOUT) as server:
        assert server.address[1] != 8000
        # The page takes its address from the Host field, which is "test" here.
        assert b"curl -i -T big.iso http://test/files/big.iso\n" in server.get("/")
        with Client(server) as client:
            client.send(request("PUT /files/a.txt", TOKEN, "Content-Length: 5"), b"hello")
            head, _ = client.receive_response()
            location = re.search(rb"\r\nLocation: (\S+)\r\n", head)[1].decode()
            client.send(request(f"GET {location}", TOKEN))
            assert client.receive_response()[1] == b"hello"
        with Client(server) as client:
            client.send(request(f"GET {location}"))
            assert client.receive_response()[0].startswith(b"HTTP/1.1 401 ")
