"""A request that waits for its body does not count in `threads`; it continues when bytes arrive."""

import contextlib
import functools
import json
import threading

import pytest

from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS
from support.server import Server


@pytest.fixture(scope="module")
def serve(certificates, tmp_path_factory):
    """Return a function that starts a server, one for all calls with the same arguments."""

    @functools.cache
    def serve(worker="thread", transport="tcp", threads=2, app="apps.holding:app", **settings):
        count = () if worker == "sync" else ("--threads", str(threads))
        return stack.enter_context(
            Server(
                *("--timeout", "600", *count),
                app=app,
                worker=WORKERS[worker][0],
                transport=transport,
                certificates=certificates,
                env={
                    "HOLDING": str(tmp_path_factory.mktemp("holding")),
                    **{f"GUNICORN_{name.upper()}": str(x) for name, x in settings.items()},
                },
            )
        )

    with contextlib.ExitStack() as stack:
        yield serve


class PausingUpload(Client):
    """An upload of two bytes that pauses between them."""

    def __init__(self, server, path, name, framing="length", version="1.1"):
        super().__init__(server)
        self._board = server.board
        self._name = name
        self._pieces = (
            [b"1", b"2"] if framing == "length" else [b"1\r\n1\r\n", b"1\r\n2\r\n0\r\n\r\n"]
        )
        field = "Content-Length: 2" if framing == "length" else "Transfer-Encoding: chunked"
        self.send(request(f"POST {path}?{name} HTTP/{version}", field, "Connection: close"))
        self.send(self._pieces[0])

    def until(self, what):
        self._board.wait(f"{what}-{self._name}")

    def end(self):
        self.send(self._pieces[1])
        return self

    def assert_answered(self):
        """Check the response; return how many other uploads were running when this one began."""
        head, body = self.receive_response()
        assert head.split(b" ")[1] == b"200", head
        answer = json.loads(body)
        assert answer["size"] == 2
        return answer["beside"]


FRAMINGS = [("length", "1.0"), ("length", "1.1"), ("chunked", "1.1")]
#: A different name for each upload of the test session.
NAMES = map(str, iter(range(10**9)))


@contextlib.contextmanager
def uploads(server, path, count, **framing):
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(PausingUpload(server, path, next(NAMES), **framing))
            for _ in range(count)
        ]


def assert_all_answered(uploads):
    """Finish all uploads before any response is received: their order is not known."""
    for upload in uploads:
        upload.end()
    for upload in uploads:
        upload.assert_answered()


def assert_serves(server):
    assert server.get("/hello") == b"hello"


@pytest.mark.parametrize(("framing", "version"), FRAMINGS)
@pytest.mark.parametrize(
    ("worker", "transport"),
    [("thread", "tcp"), ("thread", "unix"), ("thread", "tls"), ("gevent", "tcp"), ("sync", "tcp")],
)
def test_an_upload_that_holds_a_lock_continues_when_the_only_thread_waits_for_that_lock(
    serve, worker, transport, framing, version
):
    server = serve(worker, transport, threads=1)
    with uploads(server, "/lock", 1, framing=framing, version=version) as [holder]:
        holder.until("has")
        with uploads(server, "/lock", 1, framing=framing, version=version) as [other]:
            if worker != "sync":
                other.until("wants")
            holder.end().assert_answered()
            other.end().assert_answered()
    assert_serves(server)


@pytest.mark.parametrize("held", ["/lock", "/file-lock"])
def test_an_upload_that_holds_a_lock_continues_when_all_threads_wait_for_that_lock(
    serve, held, transport
):
    server = serve(transport=transport)
    with uploads(server, held, 1) as [holder]:
        holder.until("has")
        with uploads(server, held, 2) as others:
            for other in others:
                other.until("wants")
            assert_all_answered([holder, *others])
    assert_serves(server)


def test_uploads_that_hold_all_database_connections_continue_when_all_threads_wait_for_one(serve):
    server = serve()
    with uploads(server, "/connection", 2) as holders:
        for holder in holders:
            holder.until("has")
        with uploads(server, "/connection", 2) as others:
            for other in others:
                other.until("wants")
            assert_all_answered([*holders, *others])
    assert_serves(server)


def test_a_lock_is_released_when_the_client_of_its_upload_leaves(serve):
    server = serve()
    with uploads(server, "/lock", 1) as [holder]:
        holder.until("has")
        with uploads(server, "/lock", 2) as others:
            for other in others:
                other.until("wants")
            holder.close()
            assert_all_answered(others)
    assert_serves(server)


def test_uploads_that_each_hold_the_only_write_transaction_are_all_answered(serve):
    """A package index may begin a transaction, and then read the upload as fast as it arrives."""
    server = serve()
    size = 2_000_000
    pause = threading.Event()
    answers = []

    def upload():
        with Client(server) as client:
            fields = f"Content-Length: {size}", "Connection: close"
            client.send(request(f"POST /transaction?{next(NAMES)}", *fields))
            for _ in range(16):
                client.send(bytes(size // 16))
                pause.wait(0.03)  # the client's pause: longer than any within a data centre
            answers.append(json.loads(client.receive_response()[1])["size"])

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [size] * 6
    assert_serves(server)


@pytest.mark.parametrize("app", ["app", "django_app"])
def test_uploads_that_another_thread_reads_do_not_count_in_threads(serve, app, transport):
    """In an asynchronous view a thread of asgiref reads, and the worker's thread waits for it."""
    server = serve("thread", transport, threads=4, app=f"apps.asynchronous_frameworks:{app}")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(4)]
        for client in clients:
            client.send(waiting("POST /", "Content-Length: 5", "Connection: close"))
            assert client.receive(len(CONTINUE)) == CONTINUE
        assert server.get("/") == b"0"
        for client in clients:
            client.send(b"hello")
            assert client.receive_response()[1] == b"5"


def test_a_request_is_answered_while_900_uploads_stall(serve):
    server = serve(threads=4)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(900)]
        for client in clients:
            client.send(waiting("POST /nothing?stalls", "Content-Length: 5"))
        for client in clients:
            assert client.receive(len(CONTINUE)) == CONTINUE
        assert_serves(server)
        for client in clients:
            client.send(b"1")
        assert_serves(server)


# expect_lend_threads.


def test_another_request_starts_while_one_waits_for_its_client(serve):
    server = serve(threads=1, expect_lend_threads=True)
    with uploads(server, "/nothing", 1) as [first], uploads(server, "/nothing", 1) as [second]:
        second.until("has")
        assert second.end().assert_answered() == 1
        assert first.end().assert_answered() == 0


def test_no_other_request_starts_without_expect_lend_threads(serve):
    server = serve(threads=1, expect_lend_threads=False)
    with uploads(server, "/nothing", 1) as [first], uploads(server, "/nothing", 1) as [second]:
        first.until("has")
        for upload in (first, second):
            assert upload.end().assert_answered() == 0
