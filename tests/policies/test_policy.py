"""A policy is called before the application: on the wire, on each worker."""

import contextlib
import json
import os
import re
import signal
import socket

import pytest

from support import CHECKOUT, TESTS
from support.client import CONTINUE, Client, request, waiting
from support.http2_client import EXPECT, Http2Client, new_connection
from support.matrix import WORKERS
from support.server import Server

POLICY = {"GUNICORN_EXPECT_POLICY": "apps.deciding:policy"}
LENGTH = "Content-Length: 5"


@pytest.fixture(scope="module", params=WORKERS)
def server(request):
    with Server(worker=WORKERS[request.param][0], env=POLICY) as server:
        server.board.set("proceed")
        yield server


def asked(server, path):
    """Return whether the policy was called for a path, and whether the application was."""
    policy, application = json.loads(server.get("/asked"))
    return f"PUT {path}" in policy, f"PUT {path}" in application


@pytest.mark.parametrize("head", [waiting, request])
@pytest.mark.parametrize(
    ("decision", "status"),
    [
        ("413", b"413 Content Too Large"),
        ("401", b"401 Unauthorized"),
        ("417", b"417 Expectation Failed"),
        ("307", b"307 Temporary Redirect"),
    ],
)
def test_a_refusal_is_the_response_and_the_application_is_not_called(
    server, client, head, decision, status
):
    path = f"/refused-{decision}-{head.__name__}"
    client.send(head(f"PUT {path}", LENGTH, f"X-Decide: refuse {decision}"))
    answer = client.receive_all() if head is waiting else client.receive_head()
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nX-Said: no\r\n" in answer
    assert b"\r\nContent-Length: 0\r\n" in answer
    if head is waiting:
        assert b"\r\nConnection: close\r\n" in answer
    assert asked(server, path) == (True, False)


@pytest.mark.parametrize("policy", ["apps.deciding:policy", "apps.deciding:inline_policy"])
def test_a_304_by_a_policy_has_no_content_length(worker, policy):
    with Server(worker=WORKERS[worker][0], env={"GUNICORN_EXPECT_POLICY": policy}) as server:
        for head in (waiting, request):
            with Client(server) as client:
                client.send(head("PUT /", LENGTH, "X-Decide: refuse 304", "Connection: close"))
                answer = client.receive_all()
            assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
            assert answer.endswith(b"\r\n\r\n")
            for name in (b"content-length", b"transfer-encoding"):
                assert name not in answer.lower()


def test_a_refusal_may_have_a_body(client):
    client.send(waiting("PUT /", LENGTH, "X-Decide: refuse 403 not yours"))
    answer = client.receive_all()
    assert b"\r\nContent-Length: 9\r\n" in answer
    assert answer.endswith(b"\r\n\r\nnot yours")


def test_a_refusal_of_a_head_request_has_no_body(client):
    client.send(waiting("HEAD /", LENGTH, "X-Decide: refuse 403 not yours"))
    answer = client.receive_all()
    assert b"\r\nContent-Length: 9\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_an_upload_that_a_policy_refused_has_the_state_declined(server, client):
    start = len(server.lines)
    client.send(waiting("PUT /refused-in-the-log", LENGTH, "X-Decide: refuse 403"))
    client.receive_all()
    server.wait_for_log(r"PUT /refused-in-the-log HTTP/1.1 -> 403 declined", start)


def test_proceed_sends_the_100_before_the_application_is_called(client):
    client.send(waiting("PUT /read-after-event?proceed", LENGTH, "X-Decide: proceed"))
    assert client.receive_head() == b"HTTP/1.1 100 Continue\r\nX-Said: go on\r\n\r\n"
    client.send(b"hello")
    assert json.loads(client.receive_response()[1]) == ["hello", "continued"]


def test_a_policy_that_proceeds_sends_nothing_to_a_client_that_does_not_wait(client):
    client.send(request("PUT /read", LENGTH, "X-Decide: proceed"), b"hello")
    head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


def test_if_the_policy_returns_none_the_application_decides(server, client):
    client.send(waiting("PUT /read", LENGTH))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"
    with Client(server) as client:
        client.send(waiting("PUT /refuse?status=401+Unauthorized", LENGTH))
        assert client.receive_all().startswith(b"HTTP/1.1 401 Unauthorized\r\n")


def test_what_the_policy_writes_into_the_environ_reaches_the_application(client):
    client.send(request("PUT /asked-by", LENGTH), b"hello")
    assert json.loads(client.receive_response()[1]) is True


@pytest.mark.parametrize("fields", [(), ("Expect: 100-continue", "Content-Length: 0")])
def test_the_policy_is_not_called_for_a_request_that_has_no_body(server, client, fields):
    path = f"/hello?{len(fields)}"
    client.send(request(f"GET {path}", *fields))
    assert client.receive_response()[1] == b"hello"
    assert "GET /hello" not in json.loads(server.get("/asked"))[0]


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        ("raise", "LookupError: no such token"),
        *(
            # Of an application gunicorn takes these for a client that is gone.
            (f"fail {name}", f"{name}: no such service")
            for name in ("ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError")
        ),
        ("fail TimeoutError", "TimeoutError: no such service"),
        ("fail StopIteration", "StopIteration: no such service"),
        ("nonsense true", "returned an object of type bool, not Proceed, Refuse or None"),
    ],
)
def test_a_policy_that_fails_leads_to_500_and_the_body_is_not_read(server, client, decision, line):
    start = len(server.lines)
    client.send(waiting("PUT /read", LENGTH, f"X-Decide: {decision}"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"100 Continue" not in answer
    server.wait_for_log(line, start)


@pytest.mark.parametrize("name", ["LookupError", "ConnectionResetError"])
def test_what_a_policy_registered_for_the_end_leads_to_500_if_it_fails(server, client, name):
    start = len(server.lines)
    fields = (LENGTH, f"X-Fail-At-The-End: {name}", "Connection: close")
    client.send(request("PUT /read", *fields), b"hello")
    assert client.receive_all().startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    server.wait_for_log(f"{name}: no such service", start)


@pytest.mark.parametrize("framing", [LENGTH, "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("head", [waiting, request])
@pytest.mark.parametrize(
    ("decision", "returned"),
    [
        ("environ", "an object of type dict"),
        ('nonsense "s3cret"', "an object of type str"),
        ("function", "apps.deciding.most.<locals>.limited"),
        ("class", "gunicorn_expect.decision.Refuse"),
    ],
)
def test_a_result_that_is_no_decision_is_logged_in_one_line_without_its_value(
    server, client, framing, head, decision, returned
):
    start = len(server.lines)
    path = f"/undecided-{decision[:3]}-{head.__name__}-{framing[0]}"
    fields = ("Authorization: Bearer s3cret", "Connection: close", f"X-Decide: {decision}")
    client.send(head(f"PUT {path}", framing, *fields))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"s3cret" not in answer
    assert asked(server, path) == (True, False)
    server.wait_for_log(rf"returned {re.escape(returned)}, not Proceed, Refuse or None", start)
    log = "\n".join(server.lines[start:])
    assert log.count("not Proceed, Refuse or None") == 1
    assert (": was a call left out?" in log) == (decision in ("function", "class"))
    assert "s3cret" not in log
    assert "Traceback" not in log


def test_a_body_of_unknown_length_over_the_policys_limit_gets_413(client):
    client.send(waiting("PUT /read", "Transfer-Encoding: chunked", "X-Decide: limit 8"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"5\r\nhello\r\n", b"4\r\n")
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_body_of_unknown_length_as_long_as_the_policys_limit_is_read(client):
    client.send(request("PUT /read", "Transfer-Encoding: chunked", "X-Decide: limit 9"))
    client.send(b"5\r\nhello\r\n", b"4\r\nyou!\r\n", b"0\r\n\r\n")
    assert client.receive_response()[1] == b"helloyou!"


@pytest.mark.parametrize(
    ("path", "decision"),
    [
        ("/read", "nothing"),
        ("/read", "refuse 403"),
        ("/read", "raise"),
        ("/fail", "nothing"),
        ("/fail-after-first-byte", "nothing"),
    ],
)
def test_what_a_policy_registered_for_the_end_is_called_however_the_request_ends(
    server, client, path, decision
):
    name = f"over-{path[1:]}-{decision[:3]}"
    client.send(
        request(f"PUT {path}", LENGTH, f"X-Decide: {decision}", f"X-At-The-End: {name}"), b"hello"
    )
    client.receive_head()
    server.board.wait(name)


def test_what_a_policy_registered_for_the_end_is_called_when_the_client_leaves(server):
    with Client(server) as client:
        client.send(waiting("PUT /read", LENGTH, "X-At-The-End: left"))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"he")
    server.board.wait("left")


def test_what_a_policy_registered_for_the_end_is_called_after_the_response_was_iterated(
    server, client
):
    client.send(waiting("PUT /read-while-yielding-nothing", LENGTH, "X-At-The-End: iterated"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    assert not server.board.happened("iterated")
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"
    server.board.wait("iterated")


def test_the_log_names_a_policy_factory_of_another_package_that_was_not_called(
    worker, transport, certificates
):
    with Server(
        worker=WORKERS[worker][0],
        transport=transport,
        certificates=certificates,
        env={"GUNICORN_EXPECT_POLICY": "apps.deciding:most"},
    ) as server:
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            start = len(server.lines)
            with Client(server) as client:
                head = waiting("PUT /read", LENGTH, "Authorization: Bearer s3cret")
                client.send(head.replace(b"HTTP/1.1", version))
                answer = client.receive_all()
            assert answer.split(b" ", 1)[1].startswith(b"500 Internal Server Error\r\n")
            server.wait_for_log(
                r"The policy apps.deciding.most returned apps.deciding.most.<locals>.limited, "
                r"not Proceed, Refuse or None: was a call left out\?$",
                start,
            )
        log = "\n".join(server.lines)
        assert "s3cret" not in log
        assert "Traceback" not in log


# Over HTTP/2.


@pytest.fixture(scope="module", params=["thread", "gevent"])
def http2_server(request, certificates):
    with Server(
        *("--http-protocols", "h1,h2", "--keep-alive", "20"),
        worker=WORKERS[request.param][0],
        transport="tls",
        certificates=certificates,
        env=POLICY,
    ) as server:
        yield server


@pytest.fixture
def http2(http2_server, certificates):
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(http2_server.address, 20))
        sock = certificates.trust("h2").wrap_socket(plain, server_hostname="localhost")
        stack.enter_context(sock)
        connection = new_connection()
        connection.initiate_connection()
        yield Http2Client(http2_server, sock, connection)


def test_a_stream_is_refused_and_the_connection_stays_open(http2):
    stream = http2.open("PUT /read", EXPECT, ("x-decide", "refuse 413"))
    assert http2.answer(stream)[0] == "413"
    assert http2.fields[stream][0]["x-said"] == "no"
    assert http2.get("/hello")[:2] == ["200", b"hello"]


def test_a_stream_gets_its_100_with_header_fields(http2):
    stream = http2.open("PUT /read", EXPECT, ("x-decide", "proceed"))
    assert http2.first(stream) == ["100"]
    assert http2.fields[stream][0] == {":status": "100", "x-said": "go on"}
    http2.send(stream, b"hello")
    assert http2.answer(stream)[:3] == ["100", "200", b"hello"]


@pytest.mark.parametrize("decision", ["function", "environ"])
def test_a_stream_gets_500_if_the_policy_returns_no_decision(http2_server, http2, decision):
    start = len(http2_server.lines)
    secret = ("authorization", "Bearer s3cret")
    stream = http2.open("PUT /read", EXPECT, secret, ("x-decide", decision))
    assert http2.answer(stream)[0] == "500"
    http2_server.wait_for_log("not Proceed, Refuse or None", start)
    assert http2.get("/hello")[:2] == ["200", b"hello"]
    log = "\n".join(http2_server.lines[start:])
    assert "s3cret" not in log
    assert "Traceback" not in log


def test_a_stream_of_unknown_length_over_the_policys_limit_gets_413(http2):
    stream = http2.open("PUT /read", EXPECT, ("x-decide", "limit 8"))
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"hello you")
    assert http2.answer(stream)[:2] == ["100", "413"]


# Where the policy comes from.


@pytest.mark.parametrize("where", ["configuration file", "module of its own"])
def test_a_reload_loads_the_policy_again(tmp_path, where):
    text = """
from gunicorn_expect import Refuse

def expect_policy(environ):
    return Refuse({status})
"""
    file = tmp_path / "some.py"
    file.write_text(text.format(status=403), "utf-8")
    options = ["-c", str(file)]
    # Python would use the old compiled file if the source is written twice in a second.
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    if where == "module of its own":
        options = []
        env["GUNICORN_EXPECT_POLICY"] = "some:expect_policy"
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(TESTS), str(CHECKOUT)])
    with Server(*options, env=env) as server:
        old = server.wait_for_log(r"Booting worker with pid: (\d+)")[1]
        assert status_of(server) == b"403"
        file.write_text(text.format(status=503), "utf-8")
        start = len(server.lines)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(rf"Worker exiting \(pid: {old}\)", start)
        assert status_of(server) == b"503"


def status_of(server):
    with Client(server) as client:
        client.send(waiting("PUT /", LENGTH))
        return client.receive_all().split()[1]


def test_a_policy_is_called_for_a_preloaded_application_as_well(worker):
    with Server("--preload", worker=WORKERS[worker][0], env=POLICY) as server:
        with Client(server) as client:
            client.send(waiting("PUT /read", LENGTH, "X-Decide: refuse 403"))
            assert client.receive_all().startswith(b"HTTP/1.1 403 Forbidden\r\n")
        with Client(server) as client:
            client.send(waiting("PUT /read", LENGTH))
            assert client.receive(len(CONTINUE)) == CONTINUE


def test_a_policy_may_be_an_attribute_of_a_class():
    with Server(env={"GUNICORN_EXPECT_POLICY": "apps.deciding:Policies.strict"}) as server:
        assert status_of(server) == b"403"
