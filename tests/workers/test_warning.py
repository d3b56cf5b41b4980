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


# A success that nobody has read for.

LOST = r"The application answered PUT '/hello' with '200 OK' and did not read the body"
CHUNK = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (waiting("PUT /hello", "Content-Length: 5"), b""),
        (waiting("PUT /hello", "Transfer-Encoding: chunked"), b""),
        (request("PUT /hello", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (request("PUT /hello", "Content-Length: 65537", "Connection: close"), bytes(65537)),
    ],
    ids=["waits", "waits, in chunks", "in chunks", "large"],
)
def test_the_log_says_once_that_a_body_is_lost_which_was_answered_with_success(worker, head, body):
    with Server(worker=WORKERS[worker][0]) as server:
        for _ in range(2):
            with Client(server) as client:
                client.send(head, body)
                assert client.receive_all().startswith(b"HTTP/1.1 200 OK\r\n")
        server.wait_for_log(LOST)
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert len([line for line in server.lines if re.search(LOST, line)]) == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (request("PUT /hello", "Content-Length: 5", "Connection: close"), b"hello"),
        (request("PUT /hello", "Transfer-Encoding: chunked", "Connection: close"), CHUNK[-5:]),
        (request("PUT /read", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (request("PUT /write-while-iterated?yr", "Content-Length: 65537"), bytes(65537)),
        (request("PUT /refuse", "Transfer-Encoding: chunked", "Connection: close"), CHUNK),
        (waiting("PUT /start?500+Error", "Content-Length: 65537"), b""),
    ],
    ids=["a short form", "no bytes", "read", "read when the response has begun", "refused", "500"],
)
def test_other_bodies_are_not_lost(head, body):
    with Server() as server:
        with Client(server) as client:
            client.send(head, body)
            client.shut_down()
            assert client.receive_all().startswith(b"HTTP/1.1 ")
        server.wait_for_log(r" HTTP/1.1 -> \d+ ")
        assert not [line for line in server.lines if "[WARNING]" in line]


def test_that_warning_can_be_turned_off():
    with Server(env={"GUNICORN_EXPECT_WARN": "false"}) as server:
        with Client(server) as client:
            client.send(waiting("PUT /hello", "Content-Length: 5"))
            client.receive_all()
        server.wait_for_log("PUT /hello")
        server.get("/hello")
        server.wait_for_log("GET /hello")
        assert not [line for line in server.lines if "[WARNING]" in line]
