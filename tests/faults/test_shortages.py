"""The system runs out of files, memory or threads: at most one client loses its connection.

Closing connections make room, the oldest first. The tests see this from clients that stay after
they were refused: the connection of the first of them is reset, that of the last is not.
"""

import contextlib
import resource
import ssl

import pytest

from faults.destruction import get, post, settled, start, state, unharmed
from support.client import Client, request

#: The environment of a server that keeps its closing connections.
STAY = {"GUNICORN_EXPECT_LINGER": "600", "GUNICORN_EXPECT_LINGER_IDLE": "600"}

#: What a client gets from a connection that is lost.
LOST = (ConnectionError, ssl.SSLError)

#: Each connection of a client is a file in this process, too.
CLIENTS = 1050


#: What clients send, piece by piece, so that the loop does all that it does.
HELLO = [request("GET /hello")]
GETS = [HELLO, [HELLO[0][:20], HELLO[0][20:]], HELLO * 2]
REFUSED = [request("POST /refuse", "Content-Length: 100000"), b"x" * 100_000]
UPLOADS = [[request("POST /unread", "Content-Length: 100000"), b"x" * 100_000], REFUSED]


@pytest.fixture(autouse=True)
def files():
    """Let this process have as many files as it needs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(before[0], CLIENTS + 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def refused(server, stack):
    """Return a client that was refused and does not close."""
    client = stack.enter_context(Client(server))
    client.send(request("POST /refuse", "Content-Length: 1000000"), b"x")
    assert client.receive_response()[0].startswith(b"HTTP/1.1 413 ")
    return client


def is_reset(server, client):
    """Return whether the server has closed a refused connection instead of reading on."""
    try:
        for _ in range(3):
            client.send(b"x" * 1000)
            get(server, "/hello")  # by then a reset has come
    except OSError:
        return True
    return False


def test_clients_that_stay_when_they_are_refused_make_room_when_the_files_run_out(worker):
    arguments = ("--worker-connections", "2000")
    with start(worker, *arguments, FILES="1024", **STAY) as server, contextlib.ExitStack() as stack:
        pid = state(server)["pid"]
        clients = [refused(server, stack) for _ in range(CLIENTS)]
        assert get(server, "/hello") == b"hello"
        assert is_reset(server, clients[0])
        assert not is_reset(server, clients[-1])
        stack.close()
        assert settled(server, lambda found: found["files"] < 100)["pid"] == pid


def test_all_open_connections_are_no_more_than_worker_connections(worker, transport, certificates):
    arguments = ("--worker-connections", "20", "--keep-alive", "30")
    # Fewer than there are threads: over TLS each has one. The sync worker serves one at a time.
    served = 6 if worker != "sync" else 0
    with (
        start(worker, *arguments, transport=transport, certificates=certificates, **STAY) as server,
        contextlib.ExitStack() as stack,
    ):
        before = settled(server, lambda _: True)
        unfinished = [stack.enter_context(Client(server)) for _ in range(served)]
        for client in unfinished:
            client.send(HELLO[0][:20])
        clients = [refused(server, stack) for _ in range(40)]
        after = settled(server, lambda _: True)
        assert after["pid"] == before["pid"]
        assert after["files"] <= before["files"] + 20
        assert is_reset(server, clients[0])
        assert not is_reset(server, clients[-1])
        for client in unfinished:
            client.send(HELLO[0][20:])
            assert client.receive_response()[1] == b"hello"


ACCEPT = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EINTR", "ECONNABORTED", "EPROTO", "EPERM"]


def test_an_error_of_accept_keeps_nobody_from_being_served(worker):
    with start(worker) as server:
        before = settled(server, lambda _: True)
        for code in ACCEPT:
            get(server, f"/fail?accept*{code}*1")
            assert get(server, "/hello") == b"hello"
            assert post(server, "/refuse")[0] == b"413"
        for code in ACCEPT:
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    refused(server, stack)
                get(server, f"/fail?accept*{code}*4")  # more than there are to make room
                assert get(server, "/hello") == b"hello"
        after = settled(server, lambda found: found["files"] <= before["files"] + 1)
        assert after["pid"] == before["pid"]
        # gevent's own server prints a traceback.
        assert worker == "gevent" or not [line for line in server.lines if "Traceback" in line]


def converse(server, pieces, between):
    """Send pieces, and do something between them; return the response's head, b"" if it is lost."""
    with contextlib.suppress(*LOST), Client(server) as client:
        for piece in pieces[:-1]:
            client.send(piece)
            between()
        client.send(pieces[-1])
        return client.receive_response()[0]
    return b""


def let_fail(server, what):
    """Make a system call fail as this says. A failure that an earlier test left may come first."""
    asking = [request(f"GET /fail?{what}", "Connection: close")]
    assert any(converse(server, asking, bool) for _ in range(2))


@pytest.mark.parametrize(
    ("code", "connections", "conversations"),
    [
        ("ENOSPC", "2", GETS),  # it stops accepting; a closing connection may have to make room
        ("ENOMEM", "20", GETS + UPLOADS),  # it keeps connections
    ],
    ids=["few", "many"],
)
@pytest.mark.parametrize("worker", ["thread", "sync"])  # gevent has a loop of its own
def test_an_error_of_epoll_ends_one_connection_and_not_the_worker(
    worker, transport, certificates, code, connections, conversations
):
    arguments = ("--worker-connections", connections, "--keep-alive", "30")
    with start(worker, *arguments, transport=transport, certificates=certificates) as server:
        before = settled(server, lambda _: True)
        for successes in range(30):
            answers = []

            def another(answers=answers):
                # When this client has its response, the loop has seen what came before.
                answers.append(converse(server, HELLO, bool))

            let_fail(server, f"epoll_ctl*{code}*1*{successes}")
            between = another if worker == "thread" else bool
            answers += [converse(server, pieces, between) for pieces in conversations]
            assert answers.count(b"") <= 1, successes
        let_fail(server, "epoll_ctl*EPERM*0")
        after = settled(server, lambda found: found["files"] <= before["files"] + 1)
        assert after["pid"] == before["pid"]


def test_a_worker_that_can_start_no_more_threads_goes_on_with_those_that_it_has(
    worker, transport, certificates
):
    with (
        start(worker, transport=transport, certificates=certificates) as server,
        unharmed(server),
    ):
        get(server, "/fail?thread*EAGAIN*1000")
        for _ in range(3):
            assert post(server, "/refuse")[0] == b"413"
            assert post(server, "/unread")[0] == b"200"
            server.connect().close()
            assert get(server, "/hello") == b"hello"


def test_a_worker_without_a_thread_refuses_and_closes_in_order(worker, transport, certificates):
    with start(
        worker,
        transport=transport,
        certificates=certificates,
        FAIL_AT_START="thread*EAGAIN*6",
    ) as server:
        for _ in range(4):
            with contextlib.suppress(*LOST):
                server.connect().close()
            # Without any thread, nothing can call the application, or do a handshake.
            status = converse(server, REFUSED, bool)[9:12]
            assert status in (b"413", b"503") or (transport == "tls" and not status)
        # Some of the six failures may still be due.
        assert any(converse(server, HELLO, bool)[9:12] == b"200" for _ in range(7))
        assert len([line for line in server.lines if "Booting worker" in line]) == 1
