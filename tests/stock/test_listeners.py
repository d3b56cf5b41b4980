"""Several listening sockets, and those that a worker opens, are served as by stock gunicorn."""

import contextlib
import os
import re
import signal
import socket
import sys
from functools import partial

import pytest

from stock.comparing import both, exchange, get, shown, start
from support.client import Client

READY = r"NOTED .*post_worker_init"
TWO = ("--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0")


def shown_at(server, address):
    """Return what is shown at this address, without its port."""
    received, lines = shown(server, exchange(get("/hello")), lambda server: Client(server, address))
    return received, repr(lines).replace(repr(str(address[1])), "'the port'")


def test_each_of_several_binds_is_served_as_by_stock_gunicorn(worker):
    with both(worker, *TWO) as servers:
        ours, stock = (
            [shown_at(server, address) for address in server.addresses] for server in servers
        )
    assert len(ours) == 2
    assert ours == stock


@contextlib.contextmanager
def port_of_its_own():
    """Yield an address that nobody else gets: bound, and not listening."""
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()


def test_sockets_that_a_worker_opens_itself_are_served_as_by_stock_gunicorn(worker):
    """With reuse_port: they replace those with which the worker was made."""
    found = []
    for stock in (False, True):
        with port_of_its_own() as first, port_of_its_own() as second, contextlib.ExitStack() as end:
            binds = [f"--bind={host}:{port}" for host, port in (first, second)]
            server = start(worker, "--reuse-port", *binds, stock=stock)
            end.push(server)  # not by `with`: a master without sockets logs no address
            server.address = first
            server.wait_for_log(READY)
            found.append([shown_at(server, address) for address in (first, second)])
    ours, stock = found
    assert ours == stock


def test_each_bind_has_worker_connections_of_its_own_on_gevent_as_in_stock_gunicorn():
    found = []
    with both("gevent", *TWO, "--worker-connections", "1") as servers:
        for server in servers:
            here, there = (partial(Client, server, address) for address in server.addresses)
            with here() as first, here() as second:
                first.send(get("/hello?first")[:20])
                ask(there)
                second.send(get("/hello?second"))
                ask(there)
                first.send(get("/hello?first")[20:])
                for client in (first, second):
                    assert client.receive_all().endswith(b"hello")
            server.wait_for_log('"application".*"second"')
            asked = r'"application".*?"QUERY_STRING": "(\w+)"'
            found.append(re.findall(asked, "\n".join(server.lines)))
    ours, stock = found
    assert stock == ["there", "there", "first", "second"]
    assert ours == stock


def ask(connect):
    """Wait for a response: by then the worker has accepted the connections that came before."""
    with connect() as client:
        client.send(get("/hello?there"))
        assert client.receive_all().endswith(b"hello")


@pytest.mark.skipif(sys.platform != "linux", reason="the length of a backlog is read from /proc")
def test_gevent_takes_connections_one_by_one_where_workers_share_a_socket_as_in_stock_gunicorn():
    found = []
    with both("gevent", "--workers", "2") as servers:
        for server in servers:
            for age in (1, 2):
                server.wait_for_log(READY + f'.*"age": {age}')
            pids = re.findall(r"Booting worker with pid: (\d+)", "\n".join(server.lines))
            found.append(left_waiting(server, *map(int, pids)))
    ours, stock = found
    assert stock == [2, 1, 0]
    assert ours == stock


def left_waiting(server, *workers):
    """Return for each of three clients how many wait to be accepted when it is answered."""
    with contextlib.ExitStack() as stack:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
        clients = [stack.enter_context(Client(server)) for _ in range(3)]
        for client in clients:
            client.send(get("/backlog"))
        os.kill(workers[0], signal.SIGCONT)
        return [int(client.receive_response()[1]) for client in clients]
