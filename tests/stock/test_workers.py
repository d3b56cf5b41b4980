"""Our workers start, run and end as gunicorn's own: hooks, signals, limits, reload, statsd."""

import contextlib
import functools
import itertools
import os
import re
import signal
import socket
import time

import pytest

from stock.comparing import both, exchange, get, masked, shown, start, written
from support import PATIENCE
from support.client import Client, request

READY = r"NOTED .*post_worker_init"


def noted(server):
    """Return the names of all hooks that were called, in their order."""
    return [line[0] for line in written(server, server.lines) if not isinstance(line, str)]


def where_worker_int_ran(server):
    """Return the class of the greenlets in which worker_int ran: gevent's hub may not wait."""
    return [line[2] for line in written(server, server.lines) if line[0] == "worker_int"]


def kill_worker(server, number):
    with Client(server) as client:
        client.send(get("/pid"))
        # Receive to the end: before that, stock gunicorn's main thread may hold the lock of its
        # pool to close the connection, and its signal handlers wait for that lock.
        pid = int(client.receive_all().partition(b"\r\n\r\n")[2])
    os.kill(pid, number)


def end(number, server):
    server.process.send_signal(number)
    server.process.wait(PATIENCE)
    server.wait_for_log(r"NOTED .*on_exit")


terminate, quit_ = (functools.partial(end, number) for number in (signal.SIGTERM, signal.SIGQUIT))


def next_worker_after(number, server):
    start = len(server.lines)
    kill_worker(server, number)
    server.wait_for_log(READY, start)


abort_worker, quit_worker, interrupt_worker = (
    functools.partial(next_worker_after, number)
    for number in (signal.SIGABRT, signal.SIGQUIT, signal.SIGINT)
)


def one_more(server):
    start = len(server.lines)
    server.process.send_signal(signal.SIGTTIN)
    server.wait_for_log(READY, start)


def reload(server):
    start = len(server.lines)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log(READY, start)
    server.wait_for_log(r"NOTED .*child_exit", start)


def reopen_logs(server):
    kill_worker(server, signal.SIGUSR1)
    server.get("/hello")


#: What the test does to a server until it ends.
LIVES = {
    "terminated": (terminate,),
    "one worker at a time": (reopen_logs, abort_worker, quit_worker, interrupt_worker, quit_),
    "two workers": (reload, one_more, terminate),
}


@pytest.mark.parametrize("life", LIVES)
def test_hooks_are_called_as_by_stock_gunicorn(worker, life):
    # A worker that takes longer to end is killed, and then its hooks come in another order.
    with both(worker, "--graceful-timeout", str(PATIENCE)) as servers:
        for server in servers:
            for act in LIVES[life]:
                act(server)
        ours, stock = map(noted, servers)
        assert where_worker_int_ran(servers[0]) == where_worker_int_ran(servers[1])
    if life == "two workers":  # both write at the same time
        ours.sort(), stock.sort()
    assert "on_exit" in ours
    assert ours == stock


def test_a_worker_ends_after_max_requests_as_stock_gunicorns(worker):
    found = []
    with both(worker, "--max-requests", "2") as servers:
        for server in servers:
            begin = len(server.lines)
            last = exchange(request("GET /hello?1") if worker != "sync" else b"", get("/hello?2"))
            with Client(server) as client:
                heard = last(client)
            if worker == "sync":
                with Client(server) as client:
                    heard += last(client)
            server.wait_for_log(READY, begin)
            found.append((heard, [line for line in server.lines if "Autorestarting" in line]))
    ours, stock = found
    assert ours[0] == stock[0]
    assert len(ours[1]) == len(stock[1]) == 1


def test_max_requests_has_its_jitter(worker):
    with both(worker, "--max-requests", "5", "--max-requests-jitter", "3") as servers:
        for server in servers:
            most = server.wait_for_log(READY + r'.*"max_requests": (\d+)')[1]
            assert 5 <= int(most) <= 8


def test_without_keep_alive_a_connection_is_closed_as_by_stock_gunicorn(worker):
    with both(worker, "--keep-alive", "0") as servers:
        ours, stock = (shown(server, exchange(request("GET /hello"))) for server in servers)
    assert b"\r\nConnection: close\r\n" in ours[0]
    assert ours == stock


def test_no_more_connections_are_kept_than_by_stock_gunicorn():
    def kept(server):
        with Client(server) as first:
            first.send(request("GET /hello"))
            heads = [masked(first.receive_response()[0])]
            # Stock gunicorn's loop may count a connection as kept only after its client has the
            # response. It has done so before it accepts the second of these.
            for _ in range(2):
                server.get("/hello")
            with Client(server) as second:
                second.send(request("GET /hello"))
                heads.append(masked(second.receive_response()[0]))
            return heads

    with both("thread", "--worker-connections", "2", "--keep-alive", "20") as servers:
        ours, stock = map(kept, servers)
    assert b"keep-alive" in ours[0]
    assert b"Connection: close" in ours[1]
    assert ours == stock


def test_a_warning_says_that_no_connection_can_be_kept():
    with both("thread", "--worker-connections", "1") as servers:
        ours, stock = (server.wait_for_log(r"\[WARNING\] (.*)")[1] for server in servers)
    assert ours == stock


def test_a_kept_connection_is_answered_once_more_when_the_worker_stops(worker):
    if worker == "sync":
        pytest.skip("the sync worker keeps no connection")

    def heard(server):
        with Client(server) as kept:
            kept.send(request("GET /hello"))
            first = kept.receive_response()
            server.get("/stop")
            kept.send(request("GET /hello?again"))
            return masked(b"".join([*first, kept.receive_all()]))

    with both(worker, "--keep-alive", "20") as servers:
        ours, stock = map(heard, servers)
    assert b"\r\nConnection: close\r\n" in ours
    assert ours == stock


def test_a_busy_application_ends_the_worker_where_it_is_the_loop_as_in_stock_gunicorn(worker):
    found = []
    with both(worker, "--timeout", "3") as servers, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for server in servers]
        for client in clients:  # at the same time
            client.send(get("/hang"))
        for server, client in zip(servers, clients, strict=True):
            heard = masked(client.receive_all())
            if worker != "thread":
                server.wait_for_log(READY + r'.*"age": 2')
            timed_out = "WORKER TIMEOUT" in "\n".join(server.lines)
            found.append((heard, timed_out, "worker_abort" in noted(server)))
    ours, stock = found
    assert ours[1] == (worker != "thread")
    if worker == "sync":  # stock gunicorn answers 500 before it ends
        assert (ours[0], stock[0][:13]) == (b"", b"HTTP/1.1 500 ")
        ours, stock = ours[1:], stock[1:]
    assert ours == stock


def test_a_loop_that_hangs_is_ended_by_the_master_as_stock_gunicorns():
    """A signal handler hangs: it runs in the same thread as the loop of the thread worker."""
    arguments = ("--timeout", "3", "--logger-class", "stock.recording.Logger")
    with both("thread", *arguments, LOGGER_HANGS="yes") as servers:
        for server in servers:  # at the same time
            kill_worker(server, signal.SIGUSR1)
        for server in servers:
            server.wait_for_log(READY + r'.*"age": 2')
        ours, stock = (hooks_of_the_first(server) for server in servers)
    assert "worker_abort" in ours
    assert ours == stock


def hooks_of_the_first(server):
    """Return the hooks of the first worker, once the next one has started."""
    hooks = noted(server)
    return hooks[: hooks.index("pre_fork", hooks.index("post_worker_init"))]


def test_logs_are_opened_again_as_by_stock_gunicorn(worker, tmp_path):
    found = []
    for stock in (False, True):
        log, moved = (tmp_path / f"{name}-{stock}" for name in ("log", "moved"))
        arguments = ("--access-logfile", str(log), "--logger-class", "stock.recording.Logger")
        with start(worker, *arguments, stock=stock) as server:
            server.wait_for_log(READY)
            server.get("/hello?before")
            log.rename(moved)
            kill_worker(server, signal.SIGUSR1)
            how = server.wait_for_log(r"NOTED .*reopen_files.*")[0]
            shown(server, exchange(get("/hello?after")))
        found.append((how, "before" in moved.read_text("utf-8"), "after" in log.read_text("utf-8")))
    ours, stock = found
    assert ours[1:] == (True, True)
    assert ours == stock


def test_an_application_that_outlives_the_graceful_timeout_is_ended_as_by_stock_gunicorn(worker):
    with both(worker, "--graceful-timeout", "1") as servers:
        with Client(servers[0]) as one, Client(servers[1]) as other:
            for server, client in zip(servers, (one, other), strict=True):
                client.send(get("/never"))
                server.wait_for_log('NOTED .*"waits"')
            began = time.monotonic()
            for server in servers:
                server.process.terminate()
            heard = [one.receive_all()]
            assert time.monotonic() - began > 0.7  # it was waited for
            heard.append(other.receive_all())
        for server in servers:
            assert server.process.wait(PATIENCE) == 0
            server.wait_for_log(r"NOTED .*on_exit")
        # Ours ends by itself, before the master kills it.
        ends = ("post_request", "worker_exit", "child_exit")
        ours, stock = ([name for name in noted(server) if name not in ends] for server in servers)
    assert heard == [b"", b""]
    assert ours == stock


def test_a_kept_connection_is_closed_when_the_worker_stops_as_by_stock_gunicorn():
    """After 2 s: its client may be sending a request already."""
    with both("thread", "--keep-alive", "60", "--graceful-timeout", "60") as servers:
        with Client(servers[0]) as one, Client(servers[1]) as other:
            for client in (one, other):
                client.send(request("GET /hello"))
                client.receive_response()
            begin = time.monotonic()
            for server in servers:
                server.process.terminate()
            closed = []
            for client in (one, other):
                assert client.receive_all() == b""
                closed.append(time.monotonic() - begin)
        assert [server.process.wait(PATIENCE) for server in servers] == [0, 0]
    assert min(closed) > 1.9


def test_get_thread_pool_of_a_subclass_is_called_when_stock_gunicorn_calls_it():
    found = []
    for name, stock in (("Ours", False), ("Stock", True)):
        with start("thread", "-k", f"stock.pools.{name}", stock=stock) as server:
            shown(server, exchange(get("/hello")))
            found.append(noted(server))
    ours, stock = found
    assert "get_thread_pool" in ours
    assert ours == stock


def test_a_pool_that_can_lend_no_slots_stops_gunicorn_with_an_error_that_says_why():
    with start("thread", "-k", "stock.pools.OfExecutor", stock=False) as server:
        assert server.process.wait(PATIENCE) == 3
        server.wait_for_log(
            r"^TypeError: get_thread_pool\(\) of OfExecutor returned a ThreadPoolExecutor: return "
            r"that of super\(\), or another gunicorn_expect\.workers\.pool\.Pool$"
        )


def test_a_worker_ends_when_a_file_changes_as_stock_gunicorns(worker, tmp_path):
    watched = tmp_path / "file"
    watched.write_text("before", "utf-8")
    found = []
    with both(worker, "--reload", "--reload-extra-file", str(watched)) as servers:
        for server in servers:
            # The reloader has to see a file once before it can see that it has changed.
            for changed in itertools.count(2**32):
                os.utime(watched, (changed, changed))
                if [line for line in server.lines if "Worker reloading" in line]:
                    break
                time.sleep(0.1)
            server.wait_for_log(READY + r'.*"age": 2')
            # The reloader ends the worker before it calls worker_int, which may come too late.
            hooks = [name for name in noted(server) if name != "worker_int"]
            found.append(hooks[: hooks.index("post_worker_init", hooks.index("child_exit"))])
    ours, stock = found
    assert ours == stock


def test_a_worker_ends_when_its_master_is_gone(worker):
    # Stock gunicorn's sync worker looks for its master only after half of this time.
    with both(worker, "--timeout", "4") as servers:
        for server in servers:
            server.get("/hello")
            server.process.kill()
            server._log_reader.join(PATIENCE)  # noqa: SLF001  it ends with the last process that writes
            assert not server._log_reader.is_alive()  # noqa: SLF001
            assert [line for line in server.lines if "Parent changed, shutting down" in line]


def test_statsd_gets_the_same_metrics_as_from_stock_gunicorn(worker):
    found = []
    for stock in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.settimeout(PATIENCE)
            found.append(told(worker, listener, stock=stock))
    assert found[0] == found[1]


def told(worker, listener, *, stock):
    address = "{}:{}".format(*listener.getsockname())
    with start(worker, "--statsd-host", address, stock=stock) as server:
        server.get("/hello")
        with Client(server) as client:
            client.send(request("GET /fail"))
            client.receive_all()
        with Client(server) as client:
            client.send(b"NONSENSE\r\n\r\n")
            client.receive_all()
    packets = []
    while not (packets and "log.warning" in packets[-1]):
        packet = listener.recv(1000).decode()
        if "gunicorn.expect" not in packet and "workers" not in packet:
            packets.append(re.sub(r":[\d.]+\|ms", ":-|ms", packet))
    return packets
