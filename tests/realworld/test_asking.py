"""Proxies that ask a policy first: a refused upload ends at the proxy, even if it sends 100 itself.

With ``--write-tables`` the bytes that clients sent are written into docs/deploy.md.
"""

import contextlib
import io
import os
import shutil
import tempfile

import pytest
import requests

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
from support import CHECKOUT, PATIENCE
from support.client import Client, request, waiting
from support.curl import curl
from support.server import Server
from support.tables import Table, amounts

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
def name(request):
    proxy = ASKING[request.param]
    if proxy.brought_by and not shutil.which(proxy.program, path=PATH):
        pytest.skip(f"{proxy.program} is not installed, and CI has none: {proxy.brought_by}")
    return request.param


@pytest.fixture
def proxy(name, servers, upstream):
    proxy = ASKING[name]
    with AskingProxy(proxy, upstream.address, servers[1].address) as running:
        yield running


def end(proxy):
    """Stop the proxy, so that its connections to gunicorn end, too."""
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


def test_a_refused_client_that_waits_gets_no_100(proxy, upstream):
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


def test_a_client_without_expect_gets_the_refusal_and_nothing_reaches_gunicorn(proxy, upstream):
    with Uploader(proxy) as client:
        client.send(put(f"Content-Length: {512 * MIB}"))
        # Once a proxy has responded, it may close although the client still sends.
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


def test_no_upload_is_accepted_if_the_policy_does_not_answer_the_proxy(servers, upstream, proxy):
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


# How many bytes clients send through each proxy: the table of the page.

TABLE = Table(CHECKOUT / "docs/deploy.md", "uploaded", ["client", *ASKING])
#: More than the systems and a proxy hold between client and gunicorn.
FILE_SIZE = 32 * MIB
VERDICTS = {"without the token": [], "with the token": [TOKEN]}


def by_curl(url, *fields):
    """Return the status that curl saw, and the bytes that it sent of a body."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(FILE_SIZE)
        headers = [argument for field in fields for argument in ("--header", field)]
        report = ("--output", os.devnull, "--write-out", "%{http_code} %{size_upload}")
        return tuple(map(int, curl(*headers, "--upload-file", file.name, *report, url).split()))


class Counted(io.BytesIO):
    """A body that counts how many of its bytes were read."""

    taken = 0

    def read(self, size=-1):
        piece = super().read(size)
        self.taken += len(piece)
        return piece


def by_requests(url, *fields):
    """Return the status that requests saw, or its error, and the bytes that it sent of a body."""
    body = Counted(bytes(FILE_SIZE))
    headers = dict(field.split(": ", 1) for field in fields)
    try:
        status = requests.put(url, data=body, headers=headers, timeout=PATIENCE).status_code
    except requests.ConnectionError:
        status = "connection error"
    return status, body.taken


CURL = "`curl -T`"
#: Each client, and how often it is tried: what a client without `Expect` sends varies.
CLIENTS = {CURL: (1, by_curl), "Python's `requests`": (5, by_requests)}


def uploaded(name, client, servers):
    """Return the cells of a proxy for this client, and check what reached gunicorn."""
    times, upload = CLIENTS[client]
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
        upstream = Upstream(servers[0], f"{folder}/socket")
        with upstream, AskingProxy(ASKING[name], upstream.address, servers[1].address) as proxy:
            url = "http://{}:{}/files/big.iso".format(*proxy.address)
            cells = [
                cell([upload(url, *fields) for _ in range(times)]) for fields in VERDICTS.values()
            ]
            end(proxy)
            sent = b"".join(upstream.sent_by_clients())
    assert sent.count(b"PUT /files/") == times
    assert len(sent) > times * FILE_SIZE
    return cells


def cell(outcomes):
    """Describe what was seen, with the least and the most that was sent."""
    statuses = [status for status, _ in outcomes]
    seen = [
        str(status)
        if len(outcomes) == 1
        else f"{status} ({statuses.count(status)} of {len(statuses)})"
        for status in dict.fromkeys(statuses)
    ]
    return f"{', '.join(seen)}; {amounts([sent for _, sent in outcomes], FILE_SIZE)}"


def test_the_page_says_what_curl_sends(name, servers, request):
    if request.config.getoption("write_tables"):
        pytest.skip("the table is written instead")
    column = TABLE.columns.index(name)
    written = [TABLE.row(f"{CURL}, {verdict}").split(" | ")[column] for verdict in VERDICTS]
    assert [cell.removesuffix(" |") for cell in written] == uploaded(name, CURL, servers)


@pytest.mark.timeout(900)  # it tries everything
def test_the_page_is_written_when_that_is_asked_for(servers, request):
    if not request.config.getoption("write_tables"):
        pytest.skip("no --write-tables")
    rows = []
    for client in CLIENTS:
        columns = [uploaded(name, client, servers) for name in ASKING]
        for verdict, cells in zip(VERDICTS, zip(*columns, strict=True), strict=True):
            rows.append(f"| {' | '.join([f'{client}, {verdict}', *cells])} |")
    TABLE.write(rows)
