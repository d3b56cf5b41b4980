"""A warning for those who let an upload come and then refuse it."""

import re

import pytest

from support.client import Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

PLACE = r"It was read first in apps\.reading\.read_then_refuse, line \d+\."


@pytest.mark.parametrize("worker", WORKERS)
def test_the_log_names_the_place_once_for_all_requests(worker):
    with Server(worker=WORKERS[worker][0]) as server:
        for _ in range(3):
            with Client(server) as client:
                client.send(request("PUT /read-then-refuse", "Content-Length: 65537"), bytes(65537))
                assert client.receive_head().startswith(b"HTTP/1.1 403 ")
        server.wait_for_log(PLACE)
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert len([line for line in server.lines if re.search(PLACE, line)]) == 1


def test_a_refusal_without_reading_is_no_reason_to_warn():
    with Server() as server:
        with Client(server) as client:
            client.send(waiting("PUT /refuse?status=403+Forbidden", "Content-Length: 5"))
            client.receive_all()
        server.wait_for_log("PUT /refuse")
        assert not [line for line in server.lines if "[WARNING]" in line]


def test_the_warning_can_be_turned_off():
    with Server(env={"GUNICORN_EXPECT_WARN": "false"}) as server:
        with Client(server) as client:
            client.send(request("PUT /read-then-refuse", "Content-Length: 65537"), bytes(65537))
            client.receive_head()
        server.wait_for_log("PUT /read-then-refuse")
        assert not [line for line in server.lines if "[WARNING]" in line]
