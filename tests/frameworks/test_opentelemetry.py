"""What OpenTelemetry's WSGI instrumentation sees of uploads."""

import re

import pytest

from support import CHECKOUT
from support.client import Client, request, waiting
from support.server import Server

PAGE = CHECKOUT.joinpath("docs/metrics.md").read_text("utf-8")
[TRACING] = re.findall(r"^```python\n(# tracing\.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", params=["a policy", "the page's policy"])
def traced(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced")
    folder.joinpath("tracing.py").write_text(TRACING, "utf-8")
    policy = "tracing:decide" if "page" in request.param else "apps.deciding:policy"
    env = {"GUNICORN_EXPECT_POLICY": policy, "GUNICORN_EXPECT_BODY_TIMEOUT": "0.1"}
    arguments = ("--pythonpath", str(folder))
    with Server(*arguments, app="apps.traced:app", env=env) as server:
        server.policy_is_traced = "page" in request.param
        yield server


def spans(server, head, body=b""):
    """Send a request; return the status of the response, and the spans."""
    start = len(server.lines)
    with Client(server) as client:
        client.send(head, body)
        status = client.receive_head().split()[1].decode()
        client.receive_all()  # until the server closes
    server.get("/hello")
    server.wait_for_log("SPAN GET /hello", start)
    lines = [line for line in server.lines[start:] if line.startswith("SPAN")]
    return status, [line for line in lines if "GET /hello" not in line]


def test_a_refusal_of_the_application_has_a_span_with_its_status(traced):
    head = waiting("PUT /refuse", "Content-Length: 5")
    assert spans(traced, head) == ("401", ["SPAN PUT /refuse 401 UNSET"])


def test_the_span_of_a_broken_upload_has_an_error_although_the_client_gets_408(traced):
    status, [span] = spans(traced, request("PUT /read", "Content-Length: 5"), b"hel")
    assert status == "408"
    assert span.endswith("ERROR")


def test_a_refusal_of_a_policy_has_a_span_only_if_the_policy_makes_one(traced):
    head = waiting("PUT /read", "Content-Length: 5000000001", "X-Decide: refuse 413")
    expected = ["SPAN upload policy 413 UNSET"] if traced.policy_is_traced else []
    assert spans(traced, head) == ("413", expected)
