"""`policies.endpoint`: its responses to a proxy that asks about an upload, and whom it serves."""

import contextlib
import json

import pytest

from gunicorn_expect import Proceed, Refuse, policies
from gunicorn_expect.testing import TestApp
from support.client import Client, request
from support.server import Server

#: The keys of the environ that the tests look at.
SHOWN = [
    *("REQUEST_METHOD", "RAW_URI", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR"),
    *("REMOTE_PORT", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_HOST"),
]


def shown(environ):
    """Refuse, and return what the policy found in its environ."""
    found = {key: environ[key] for key in SHOWN if key in environ}
    return Refuse(409, [("Content-Type", "application/json")], json.dumps(found).encode())


def ask(policy=shown, uri="/files/big.iso", method="PUT", **fields):
    """Ask about an upload as a proxy does; return the response."""
    fields = {"X-Forwarded-Method": method, "X-Forwarded-Uri": uri, **fields}
    fields = {name.replace("_", "-"): value for name, value in fields.items() if value is not None}
    return TestApp(policies.endpoint(policy)).get("/may-upload", headers=fields, expect_errors=True)


def test_an_upload_that_the_policy_does_not_refuse_gets_200():
    for decision in (None, Proceed()):
        response = ask(lambda environ: decision)  # noqa: B023  called at once
        assert (response.status, response.body) == ("200 OK", b"")


def test_a_refusal_is_returned_with_its_headers_and_body():
    headers = [("Retry-After", "5"), ("Content-Type", "text/plain")]
    response = ask(lambda environ: Refuse(503, headers, b"later"))
    assert response.status == "503 Service Unavailable"
    assert (response.headers["Retry-After"], response.body) == ("5", b"later")


def test_the_policy_gets_an_environ_of_the_upload_and_not_of_the_proxys_request():
    response = ask(
        uri="/files/caf%C3%A9%2Fx?a=%20b",
        Content_Type="image/png",
        X_Forwarded_Content_Length="5000000000",
        X_Forwarded_For="192.0.2.1, 203.0.113.7",
        X_Forwarded_Host="files.example",
    )
    assert response.json == {
        "REQUEST_METHOD": "PUT",
        "RAW_URI": "/files/caf%C3%A9%2Fx?a=%20b",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/files/caf\xc3\xa9/x",
        "QUERY_STRING": "a=%20b",
        "REMOTE_ADDR": "203.0.113.7",
        "CONTENT_LENGTH": "5000000000",
        "CONTENT_TYPE": "image/png",
        "HTTP_HOST": "files.example",
    }


def test_a_chunked_upload_has_no_content_length():
    fields = {"X_Forwarded_Transfer_Encoding": "chunked", "X_Forwarded_Content_Length": "1"}
    seen = ask(**fields).json
    assert seen["HTTP_TRANSFER_ENCODING"] == "chunked"
    assert "CONTENT_LENGTH" not in seen
    assert ask(policies.length_required(), **fields).status_int == 411
    assert ask(policies.max_length(10), **fields).status_int == 200  # cut off where it is read


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("GET", {}, 200),
        ("DELETE", {}, 200),
        ("GET", {"X_Forwarded_Content_Length": "5"}, 409),
        ("DELETE", {"X_Forwarded_Transfer_Encoding": "chunked"}, 409),
        ("POST", {"X_Forwarded_Content_Length": "0"}, 200),
        # Traefik does not say how long a body is.
        ("PUT", {}, 409),
        ("MKCOL", {}, 409),
    ],
)
def test_the_policy_is_called_only_for_requests_that_may_have_a_body(method, fields, status):
    assert ask(method=method, **fields).status_int == status


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("X_Forwarded_Method", None),
        ("X_Forwarded_Uri", None),
        ("X_Forwarded_Uri", "files"),
        ("X_Forwarded_Content_Length", "1,5000"),
        ("X_Forwarded_Content_Length", "-1"),
    ],
)
def test_a_proxys_request_without_the_needed_fields_gets_400_and_the_policy_is_not_called(
    field, value
):
    names = {"X_Forwarded_Method": "X-Forwarded-Method", "X_Forwarded_Uri": "X-Forwarded-Uri"}
    response = ask(**{names.get(field, field): value})
    assert response.status_int == 400
    assert names.get(field, "X-Forwarded-Content-Length").encode() in response.body
    assert b"5000" not in response.body


def test_what_a_policy_registers_in_its_exits_is_called_after_the_response():
    calls = []

    def policy(environ):
        environ["gunicorn_expect.exits"].callback(calls.append, "called")

    assert ask(policy).status_int == 200
    assert calls == ["called"]


def test_what_a_policy_registers_in_its_exits_learns_of_its_error():
    seen = []

    def policy(environ):
        environ["gunicorn_expect.exits"].push(lambda *error: seen.append(error[0]))
        raise LookupError("no such token")

    with pytest.raises(LookupError, match="no such token"):
        ask(policy)
    assert seen == [LookupError]


def test_what_a_policy_registers_in_its_exits_can_not_turn_its_error_into_a_permission():
    def policy(environ):
        environ["gunicorn_expect.exits"].enter_context(contextlib.suppress(LookupError))
        raise LookupError("no such token")

    with pytest.raises(UnboundLocalError):
        ask(policy)


def test_a_policy_that_returns_no_decision_or_reads_the_body_is_an_error():
    for policy in (lambda environ: True, lambda environ: environ["wsgi.input"].read()):
        with pytest.raises((TypeError, AttributeError), match=r"bool|_BodyAtTheProxy"):
            ask(policy)


def test_endpoint_takes_only_a_policy():
    with pytest.raises(TypeError, match="is not a policy"):
        policies.endpoint(413)
    with pytest.raises(TypeError, match=r"write max_length\("):
        policies.endpoint(policies.max_length)


# On the wire.

PROXYS_REQUEST = request(
    *("GET /may-upload", "Connection: close", "X-Forwarded-Method: PUT"),
    *("X-Forwarded-Uri: /files/x", "X-Forwarded-Content-Length: 11", "X-Forwarded-For: 192.0.2.9"),
)

#: The proxy connects from 127.0.0.1; in the PROXY header it names 203.0.113.7 as its client.
TRUSTED = [
    ("tcp", "127.0.0.1", True),
    ("tcp", "127.0.0.0/8", True),
    ("tcp", "192.0.2.9,203.0.113.7", False),
    ("proxy-v1", "127.0.0.1", True),
    ("proxy-v1", "203.0.113.7", False),
    ("unix", "192.0.2.9", True),
]


@pytest.mark.parametrize(("transport", "trusted", "is_served"), TRUSTED)
def test_only_a_trusted_peer_of_the_socket_is_served(transport, trusted, is_served):
    with (
        Server(
            "--forwarded-allow-ips", trusted, app="apps.policy_endpoint:app", transport=transport
        ) as server,
        Client(server) as client,
    ):
        client.send(PROXYS_REQUEST)
        head, body = client.receive_response()
    if is_served:
        assert head.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    else:
        assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"forwarded_allow_ips" in body


@pytest.mark.parametrize("worker", ["gunicorn_expect.GeventWorker", "gunicorn_expect.Sync", "sync"])
def test_an_endpoint_works_on_each_of_our_workers_and_on_no_other(worker):
    with Server(app="apps.policy_endpoint:app", worker=worker) as server, Client(server) as client:
        client.send(PROXYS_REQUEST)
        head, _ = client.receive_response()
        if worker == "sync":
            server.wait_for_log("policies.endpoint needs one of gunicorn_expect's workers")
    assert head.split()[1] == (b"500" if worker == "sync" else b"413")


@pytest.mark.parametrize(
    "field", ["X-Decide: fail ConnectionResetError", "X-Fail-At-The-End: ConnectionResetError"]
)
def test_a_policy_that_fails_leads_to_500_so_that_the_proxy_lets_nobody_in(field):
    with Server(app="apps.policy_endpoint:deciding") as server, Client(server) as client:
        client.send(PROXYS_REQUEST.removesuffix(b"\r\n") + field.encode() + b"\r\n\r\n")
        assert client.receive_all().startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        server.wait_for_log("ConnectionResetError: no such service")
