"""A proxy that asks a policy first: a refused upload ends at the proxy, whoever says 100."""

import contextlib
import shutil
import tempfile

import pytest

from realworld.asking import ASKING, AskingProxy
from realworld.daemon import PATH
from realworld.proxies import Upstream
from realworld.test_proxies import (
    TOKEN,
    Uploader,
    chunked,
    interim_and_final,
    put,
    waiting_put,
)
from support.client import Client, request, waiting
from support.server import Server

MIB = 1 << 20
TOO_LONG = f"Content-Length: {6 << 30}"
BODY = b"0123456789abcdef" * 1000
SIZED = f"Content-Length: {len(BODY)}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    env = {"UPLOAD_FOLDER": str(folder), "UPLOAD_TOKEN": "letmein"}
    with (
        Server(app="examples.flask_upload:app", env=env) as application,
        Server(app="realworld.asked:app", env=env) as endpoint,
    ):
        yield application, endpoint


@pytest.fixture
def upstream(servers):
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as folder,
        Upstream(servers[0], f"{folder}/socket") as upstream,
    ):
        yield upstream


@pytest.fixture(params=ASKING)
def proxy(request, servers, upstream):
    proxy = ASKING[request.param]
    if proxy.brought_by and not shutil.which(proxy.program, path=PATH):
        pytest.skip(f"{proxy.program} is not installed, and CI has none: {proxy.brought_by}")
    with AskingProxy(proxy, upstream.address, servers[1].address) as running:
        yield running


def end(proxy):
    """End it, so that its connections to gunicorn end, too."""
    proxy.process.terminate()


REFUSALS = {
    "401": ("", [SIZED], b"www-authenticate: Bearer"),
    "401-chunked": ("", ["Transfer-Encoding: chunked"], b"www-authenticate: Bearer"),
    "413": ("", [TOKEN, TOO_LONG], b""),
    "403": ("?refuse=403", [TOKEN, SIZED], b""),
    "405": ("?refuse=405", [TOKEN, SIZED], b"allow: PUT"),
    "411": ("?refuse=411", [TOKEN, SIZED], b""),
    "415": ("?refuse=415", [TOKEN, SIZED], b"accept: image/*"),
    "429": ("?refuse=429", [TOKEN, SIZED], b"retry-after: 5"),
    "503": ("?refuse=503", [TOKEN, SIZED], b"retry-after: 5"),
}


def test_who_asks_and_is_refused_is_not_asked_for_its_body(proxy, upstream):
    for refusal, (query, fields, field) in REFUSALS.items():
        if refusal == "413" and not proxy.proxy.tells_length:
            continue
        with Client(proxy) as client:
            client.send(waiting(f"PUT /files/big.iso{query}", *fields))
            interim, head, _ = interim_and_final(client)
        assert head.startswith(b"HTTP/1.1 " + refusal[:3].encode()), refusal
        assert interim == [], refusal
        assert b"\r\nconnection: close\r\n" in head.lower(), refusal
        if refusal != "503" or proxy.proxy.passes_fields_of_503:
            assert field.lower() in head.lower(), refusal
    end(proxy)
    assert upstream.sent_by_clients() == []


def test_who_does_not_ask_hears_the_refusal_and_nothing_reaches_gunicorn(proxy, upstream):
    with Uploader(proxy) as client:
        client.send(put(f"Content-Length: {512 * MIB}"))
        # A proxy may close while it is sending, when it has answered.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            assert client.upload(512 * MIB) < 512 * MIB
        interim, head, _ = interim_and_final(client)
    end(proxy)
    assert head.startswith(b"HTTP/1.1 401 ")
    assert interim == []
    assert upstream.sent_by_clients() == []


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_an_upload_that_is_not_refused_is_asked_for_and_stored(proxy, framing):
    field, body = (
        (SIZED, BODY) if framing == "sized" else ("Transfer-Encoding: chunked", chunked(BODY))
    )
    with Client(proxy) as client:
        client.send(waiting_put(TOKEN, field))
        assert client.receive_head().startswith(b"HTTP/1.1 100 Continue\r\n")
        client.send(body)
        assert interim_and_final(client)[1].startswith(b"HTTP/1.1 201 ")
        client.send(put(TOKEN, field), body)
        interim, head, _ = interim_and_final(client)
        assert (interim, head[:13]) == ([], b"HTTP/1.1 201 ")


def test_a_client_can_not_speak_for_the_proxy(proxy, upstream):
    forged = ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /", "X-Forwarded-Content-Length: 0"]
    forged += ["X-Forwarded-Transfer-Encoding: chunked", "X-Forwarded-Host: elsewhere"]
    with Client(proxy) as client:
        client.send(waiting_put(SIZED, *forged))
        assert interim_and_final(client)[1].startswith(b"HTTP/1.1 401 ")
    if proxy.proxy.tells_length:
        with Client(proxy) as client:
            client.send(waiting_put(TOKEN, TOO_LONG, *forged))
            assert interim_and_final(client)[1].startswith(b"HTTP/1.1 413 ")
    end(proxy)
    assert upstream.sent_by_clients() == []


def test_a_request_without_a_body_needs_no_permission(proxy, upstream):
    with Client(proxy) as client:
        client.send(request("GET /files/none"))
        assert interim_and_final(client)[1].startswith(b"HTTP/1.1 40")
    end(proxy)
    assert len(upstream.sent_by_clients()) == 1


def test_where_nobody_answers_the_proxy_nobody_may_upload(servers, upstream, proxy):
    dead = ("127.0.0.1", 1)
    with (
        AskingProxy(proxy.proxy, upstream.address, dead) as alone,
        Client(alone) as client,
    ):
        client.send(waiting_put(TOKEN, SIZED))
        interim, head, _ = interim_and_final(client)
        end(alone)
    assert interim == []
    assert int(head.split()[1]) >= 403
    assert upstream.sent_by_clients() == []
