"""Python's development mode (PYTHONDEVMODE=1) finds nothing that was left open."""

import contextlib
import re

import pytest

from faults.unfriendly import EXCHANGES, HTTP2_EXCHANGES, WAYS_TO_LEAVE, Http2Server, serve
from support.client import Client
from support.matrix import WORKERS

#: What gunicorn itself leaves open when a worker exits: the file of its heartbeat, and in the sync
#: worker the socket that it listens on, which is the first file that it has opened.
GUNICORNS = re.compile(r"unclosed (file <_io\.FileIO name=\d+ mode='rb\+'|<socket\.socket fd=3,)")


def upload_and_leave(server, exchanges):
    """Upload all of it, half of it, and all but a byte; leave in each way."""
    for exchange in exchanges.values():
        for size in (len(exchange) // 2, len(exchange) - 1, len(exchange)):
            for leave in WAYS_TO_LEAVE.values():
                with Client(server) as client:
                    exchange.begin(client, size)
                    leave(client)


def warnings_in(server):
    warnings = [line for line in server.lines if "ResourceWarning: unclosed" in line]
    return [line for line in warnings if not GUNICORNS.search(line)]


@pytest.mark.parametrize(
    ("transport", "are_left"), [("tcp", False), ("tls", False), ("unix", True)]
)
def test_uploads_and_refusals_leave_no_resource_warning(worker, transport, are_left, certificates):
    env = {"PYTHONDEVMODE": "1"}
    with (
        contextlib.ExitStack() as clients,
        serve(
            WORKERS[worker][0], env=env, transport=transport, certificates=certificates
        ) as server,
    ):
        upload_and_leave(server, EXCHANGES)
        if are_left:  # a connection that is kept, if the worker keeps any, and one that lingers
            if worker != "sync":
                EXCHANGES["accepted"].begin(clients.enter_context(Client(server)), 200)
            refused = clients.enter_context(Client(server))
            EXCHANGES["refused"].begin(refused, 200)
            assert refused.receive_response()[1] == b"no"
    assert warnings_in(server) == []


@pytest.mark.parametrize("worker", ["thread", "gevent"])
def test_uploads_and_refusals_over_http_2_leave_no_resource_warning(worker, certificates):
    with serve(
        WORKERS[worker][0],
        *("--http-protocols", "h1,h2"),
        env={"PYTHONDEVMODE": "1"},
        transport="tls",
        certificates=certificates,
    ) as server:
        upload_and_leave(Http2Server(server, certificates), HTTP2_EXCHANGES)
    assert warnings_in(server) == []
