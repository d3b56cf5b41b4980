"""The clients of `gunicorn_expect.testing`, with a real gunicorn and with scripted servers."""

import contextlib
import socket
import textwrap
from http.client import HTTPException

import pytest

from gunicorn_expect.testing import (
    DoesNotWait,
    GunicornServer,
    Interim,
    SkipsTheBody,
    Trickles,
    Waits,
    WaitsOneSecond,
)
from support import PATIENCE
from support.client import CONTINUE
from support.scripted_server import ScriptedServer
from support.user_tests import run_pytest

WITH_EXPECT = [Waits(), WaitsOneSecond(), SkipsTheBody(), Trickles(size=2, interval=0.001)]
CLIENTS = [*WITH_EXPECT, DoesNotWait()]
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
#: More than the kernels buffer: the client is still sending when the response arrives.
LARGE = bytes(8 * 1024**2)


@pytest.fixture(scope="module")
def server():
    with GunicornServer(
        "apps.router:app", "--threads", "8", policy="apps.deciding:policy", env={"SWITCHBOARD": ""}
    ) as server:
        yield server


class FollowsAScript(ScriptedServer):
    """Sends the second part of each step once it has received the first; then half-closes."""

    def __init__(self, *script):
        super().__init__()
        self._script = script

    def converse(self, client):
        for mark, data in self._script:
            self.receive_until(client, mark)
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            self.received += data


# Accepted and refused.


@pytest.mark.parametrize("client", CLIENTS, ids=lambda x: type(x).__name__)
def test_an_accepted_body_arrives(server, client):
    outcome = client.put(server.url + "/read", b"hello world")
    assert (outcome.status, outcome.body) == (200, b"hello world")
    assert outcome.body_bytes_sent == 11
    assert outcome.continued is (client in WITH_EXPECT)
    assert not outcome.closed
    assert outcome.next is None


@pytest.mark.parametrize("client", CLIENTS, ids=lambda x: type(x).__name__)
def test_every_client_receives_the_interim_responses(server, client):
    outcome = client.post(server.url + "/inform", b"hello", {"Upload-Complete": "?1"})
    assert outcome.status == 200
    created, *hundred, received = outcome.interim
    assert created == Interim(104, [("Location", "/uploads/7")])
    assert hundred == ([Interim(100, [])] if client in WITH_EXPECT else [])
    assert received == Interim(104, [("Upload-Offset", "5")])
    assert outcome.body_bytes_sent == 5


@pytest.mark.parametrize("client", WITH_EXPECT, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    ("path", "headers"),
    [("/refuse?status=403+Forbidden", {}), ("/read", [("X-Decide", "refuse 403")])],
    ids=["application", "policy"],
)
def test_a_client_that_waits_does_not_send_a_refused_body(server, client, path, headers):
    outcome = client.post(server.url + path, LARGE, headers)
    assert outcome.status == 403
    assert outcome.headers["connection"] == "close"
    assert outcome.interim == []
    assert outcome.body_bytes_sent == 0
    assert outcome.closed
    assert outcome.next is None


def test_a_client_that_does_not_wait_gets_the_refusal_after_its_body(server):
    outcome = DoesNotWait().put(server.url + "/refuse-with-body", LARGE)
    assert (outcome.status, outcome.body) == (413, b"too large")
    assert outcome.body_bytes_sent == len(LARGE)
    assert outcome.closed


def test_a_client_that_sends_expect_and_does_not_wait_gets_no_100(server):
    outcome = DoesNotWait().put(server.url + "/state", b"hello", {"Expect": "100-continue"})
    assert outcome.body == b'["waived", false, "waived", "WAIVED"]'
    assert outcome.interim == []


def test_interim_responses_have_their_fields(server):
    outcome = Waits().put(server.url + "/hints", b"hello", {"X-Decide": "proceed"})
    assert outcome.interim == [
        Interim(100, [("X-Said", "go on")]),
        Interim(103, [("Link", "</before>")]),
        Interim(103, [("Link", "</after>")]),
    ]
    assert outcome.body == b"hello"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda x: type(x).__name__)
def test_a_request_without_a_body_does_not_wait(server, client):
    outcome = client.request("GET", server.url + "/hello")
    assert (outcome.status, outcome.body, outcome.body_bytes_sent) == (200, b"hello", 0)
    assert outcome.next is None


def test_a_chunked_response_is_decoded(server):
    assert Waits().request("GET", server.url + "/chunks").body == b"onetwo"


def test_the_response_to_a_head_request_has_no_body(server):
    outcome = Waits().request("HEAD", server.url + "/hello")
    assert (outcome.headers["Content-Length"], outcome.body) == ("5", b"")


# ScriptedServer servers.


def answer(*fields, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *fields, "", ""]).encode()


def test_a_client_that_waits_times_out_without_sending_its_body():
    with (
        FollowsAScript((b"never", b"")) as server,
        pytest.raises(TimeoutError, match="no response came"),
    ):
        Waits(timeout=0.1).put(server.url, b"hello")
    assert b"\r\nExpect: 100-continue\r\n" in server.received
    assert server.received.endswith(b"\r\n\r\n")


def test_a_client_that_waits_a_second_then_sends_the_body():
    with FollowsAScript((b"hello", answer())) as server:
        outcome = WaitsOneSecond().put(server.url, b"hello")
    assert (outcome.status, outcome.body_bytes_sent, outcome.interim) == (200, 5, [])


class KeepsHinting(ScriptedServer):
    """Sends interim responses until it has received the body, and then a final one."""

    def converse(self, client):
        self.receive_until(client, b"\r\n\r\n")
        client.settimeout(0.05)
        for _ in range(20 * PATIENCE):
            client.sendall(HINTS)
            try:
                self.receive_until(client, b"hello")
            except TimeoutError:
                continue
            client.sendall(answer())
            return


def test_a_client_that_waits_a_second_then_sends_the_body_even_if_it_receives_early_hints():
    with KeepsHinting() as server:
        outcome = WaitsOneSecond().put(server.url, b"hello")
    assert (outcome.status, outcome.body_bytes_sent) == (200, 5)
    assert {interim.status for interim in outcome.interim} == {103}


def test_a_client_that_does_not_wait_sends_no_expect():
    with FollowsAScript((b"hello", answer())) as server:
        DoesNotWait().put(server.url, b"hello")
    assert b"Expect" not in server.received


def test_a_100_after_another_interim_response_is_received():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with FollowsAScript((b"\r\n\r\n", hints + CONTINUE), (b"hello", answer())) as server:
        outcome = Waits().put(server.url, b"hello")
    assert outcome.interim == [Interim(103, [("Link", "</a>")]), Interim(100, [])]
    assert outcome.status == 200


def test_another_interim_response_does_not_end_the_wait():
    with FollowsAScript((b"\r\n\r\n", HINTS + answer(status="403 Forbidden"))) as server:
        outcome = Waits().put(server.url, b"hello")
    assert (outcome.status, outcome.body_bytes_sent) == (403, 0)
    assert server.received.endswith(b"\r\n\r\n")


def test_a_client_that_skips_the_body_sends_its_next_request_on_a_kept_connection():
    script = (b"\r\n\r\n", answer(status="403 Forbidden")), (b"GET /next ", answer())
    with FollowsAScript(*script) as server:
        outcome = SkipsTheBody(then="/next").put(server.url, b"hello")
    assert outcome.status == 403
    assert not outcome.closed
    assert outcome.next.status == 200
    assert b"hello" not in server.received


def test_a_client_that_skips_the_body_sends_its_next_request_even_after_connection_close():
    with FollowsAScript(
        (b"\r\n\r\n", answer("Connection: close", status="403 Forbidden"))
    ) as server:
        outcome = SkipsTheBody(then="/next").put(server.url, b"hello")
    assert outcome.closed
    assert outcome.next is None
    assert b"GET /next HTTP/1.1\r\n" in server.received


def test_a_100_without_a_final_response_is_an_error():
    script = (b"\r\n\r\n", CONTINUE)
    with (
        FollowsAScript(script) as server,
        pytest.raises(ConnectionError, match="without a response"),
    ):
        Waits().put(server.url, b"hello")


def test_a_trickling_client_stops_at_a_response():
    with FollowsAScript((b"\r\n\r\n", CONTINUE), (b"\r\n\r\nhe", answer())) as server:
        outcome = Trickles(size=1, interval=0.001).put(server.url, b"he")
    assert outcome.body_bytes_sent == 2
    with FollowsAScript((b"\r\n\r\n", CONTINUE), (b"\r\n\r\nh", answer())) as server:
        outcome = Trickles(size=1, interval=PATIENCE).put(server.url, b"hello")
    assert (outcome.status, outcome.body_bytes_sent) == (200, 1)


class HintsAfterTheFirstByte(ScriptedServer):
    """Sends an interim response after the first byte of a body, and then reads for a while."""

    def converse(self, client):
        self.receive_until(client, b"\r\n\r\n")
        client.sendall(CONTINUE)
        self.receive_until(client, b"\r\n\r\nh")
        client.sendall(HINTS)
        client.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            self.receive_until(client, b"\r\n\r\nhe")
        client.sendall(answer())


def test_early_hints_do_not_make_a_trickling_client_send_sooner():
    with HintsAfterTheFirstByte() as server:
        outcome = Trickles(size=1, interval=PATIENCE).put(server.url, b"hello")
    assert (outcome.status, outcome.body_bytes_sent) == (200, 1)
    assert [interim.status for interim in outcome.interim] == [100, 103]


def test_a_trickling_client_goes_on_sending_after_early_hints():
    script = (b"\r\n\r\n", CONTINUE), (b"\r\n\r\nh", HINTS), (b"hello", answer())
    with FollowsAScript(*script) as server:
        outcome = Trickles(size=1, interval=0.01).put(server.url, b"hello")
    assert [interim.status for interim in outcome.interim] == [100, 103]
    assert outcome.body_bytes_sent == 5


@pytest.mark.parametrize(
    "script",
    [
        [(b"hello", answer("Connection: close") + b"more")],
        [(b"hello", answer("Connection: close")), (b"never", b"")],
    ],
    ids=["more bytes", "no more bytes"],
)
def test_closed_is_false_if_the_connection_stays_open_after_connection_close(script):
    with FollowsAScript(*script) as server:
        assert not DoesNotWait(timeout=0.3).put(server.url, b"hello").closed


@pytest.mark.parametrize("response", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n\r\n"])
def test_a_malformed_response_is_an_error(response):
    with (
        FollowsAScript((b"hello", response)) as server,
        pytest.raises((HTTPException, ConnectionError)),
    ):
        DoesNotWait().put(server.url, b"hello")


def test_a_101_is_a_final_response():
    with FollowsAScript((b"hello", answer(status="101 Switching Protocols"))) as server:
        assert DoesNotWait().put(server.url, b"hello").status == 101


def test_header_fields_of_the_caller_replace_the_clients_own_of_the_same_name():
    with FollowsAScript((b"hello", answer())) as server:
        DoesNotWait().put(server.url + "a?b", b"hello", [("content-length", "5"), ("X-A", "b")])
    assert server.received.lower().count(b"content-length: 5\r\n") == 1
    assert b"\r\nX-A: b\r\n" in server.received
    assert server.received.startswith(b"PUT /a?b HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["https://localhost/", "/files", "localhost:80"])
def test_a_url_that_does_not_begin_with_http_is_an_error(url):
    with pytest.raises(ValueError, match="has to begin with http://"):
        Waits().put(url)


# The server, and its fixture.


def test_a_server_that_does_not_start_shows_its_log():
    with pytest.raises(RuntimeError, match=r"(?s)gunicorn ended with 3: .*No module named 'none'"):
        GunicornServer("none:app").__enter__()
    with pytest.raises(RuntimeError, match="there is no module 'none'"):
        GunicornServer("apps.router:app", policy="none:policy").__enter__()


def test_a_server_uses_the_worker_and_the_settings_that_it_is_given():
    env = {"GUNICORN_EXPECT_BODY_TIMEOUT": "0.1", "SWITCHBOARD": ""}
    worker = "gunicorn_expect.Sync"
    with GunicornServer("apps.router:app", worker=worker, env=env) as server:
        assert f"Using worker: {worker}" in server.log
        outcome = Trickles(size=1, interval=PATIENCE).put(server.url + "/read", b"hello")
    assert (outcome.status, outcome.body_bytes_sent) == (408, 1)


def test_a_server_can_import_what_the_test_can(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("refusing.py").write_text(textwrap.dedent(REFUSING), "utf-8")
    with GunicornServer("refusing:app", policy="refusing:policy") as server:
        assert Waits().put(server.url, b"x").status == 413


def test_a_server_no_longer_listens_after_it_was_stopped():
    with GunicornServer("apps.router:app") as server:
        pass
    with pytest.raises(ConnectionError):
        socket.create_connection(server.address, PATIENCE)


CONFTEST = 'pytest_plugins = ["gunicorn_expect.testing.fixtures"]\n'


def run_tests(folder, **files):
    for name, text in {"conftest": CONFTEST, **files}.items():
        folder.joinpath(f"{name}.py").write_text(textwrap.dedent(text), "utf-8")
    return run_pytest(folder, "-q")


REFUSING = """
    from gunicorn_expect import Refuse

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "0")])
        return []

    def policy(environ):
        return Refuse(413)
"""


def test_the_fixture_starts_servers_for_a_test_and_stops_them_after_it(tmp_path):
    output = run_tests(
        tmp_path,
        refusing=REFUSING,
        test_it="""
            import socket

            import pytest

            from gunicorn_expect.testing import Waits

            ADDRESSES = []

            def test_two(gunicorn_server):
                guarded = gunicorn_server("refusing:app", policy="refusing:policy")
                alone = gunicorn_server("refusing:app", "--threads", "2")
                ADDRESSES.extend([guarded.address, alone.address])
                assert Waits().put(guarded.url, b"x").status == 413
                assert Waits().put(alone.url, b"x").status == 200

            def test_they_are_gone():
                for address in ADDRESSES:
                    with pytest.raises(ConnectionError):
                        socket.create_connection(address)

            def test_one_that_does_not_start(gunicorn_server):
                gunicorn_server("refusing:nothing")
        """,
    )
    assert "2 passed" in output
    assert "1 failed" in output
    assert "Failed to find attribute 'nothing' in 'refusing'" in output


def test_without_the_plugin_there_is_no_fixture(tmp_path):
    output = run_tests(tmp_path, conftest="", test_it="def test_it(gunicorn_server): pass")
    assert "fixture 'gunicorn_server' not found" in output
