"""The metrics and log lines of uploads: of a real gunicorn with each worker, and of `Counters`."""

import collections
import contextlib
import re
import socket
import struct

import pytest

from gunicorn_expect import (
    BodyTimeout,
    ClientDisconnected,
    ContentTooLarge,
    MalformedBody,
    State,
)
from gunicorn_expect.counters import Counters
from gunicorn_expect.exchange import Exchange
from support import PATIENCE
from support.client import CONTINUE, Client, request, waiting
from support.http2_client import EXPECT, Http2Client, new_connection
from support.matrix import WORKERS
from support.server import Server

#: Longer than any test takes.
NEVER = {"GUNICORN_EXPECT_LINGER": "600", "GUNICORN_EXPECT_LINGER_IDLE": "600"}

LINGER = "linger."


class Statsd:
    """A statsd server, to which gunicorn sends its metrics."""

    def __init__(self, address=("127.0.0.1", 0)):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(PATIENCE)
        #: The time until each decision, and the last value of each gauge of connections.
        self.milliseconds = []
        self.gauges = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    @property
    def option(self):
        address = self.socket.getsockname()
        where = f"unix://{address}" if isinstance(address, str) else "{}:{}".format(*address)
        return ("--statsd-host", where)

    def check(self, **expected):
        """Wait until our counters have these values, and check that no others were sent.

        Those of lingering connections and of received bytes are ignored.
        """
        counters = collections.Counter()
        while not counters >= collections.Counter(expected):
            counters += self._next()
        assert self.rest(counters) == expected

    def rest(self, counters=()):
        """Return these counters with what has arrived since, without those that `check` ignores."""
        counters = collections.Counter(counters)
        self.socket.sendto(b"", self.socket.getsockname())
        while (counted := self._next()) is not None:
            counters += counted
        return {
            name: n
            for name, n in counters.items()
            if not name.startswith(LINGER)
            if name != "bytes_received"
        }

    def wait_for(self, name, value=1):
        """Wait until a counter has been increased by this much."""
        counters = collections.Counter()
        while counters[name] < value:
            counters += self._next()
        assert counters[name] == value

    def wait_for_gauges(self, expected):
        """Wait until the gauges of connections have these values."""
        while self.gauges != expected:
            self._next()

    def _next(self):
        datagram = self.socket.recv(1000)
        if not datagram:
            return None
        found = re.fullmatch(rb"gunicorn\.expect\.([a-z_.]+):(\d+)\|c\|@1\.0", datagram)
        timed = re.fullmatch(rb"gunicorn\.expect\.decided_after:(\d+\.\d+)\|ms", datagram)
        self.milliseconds += [float(timed[1])] if timed else []
        gauge = re.fullmatch(rb"gunicorn\.expect\.connections\.(\w+):(\d+)\|g", datagram)
        self.gauges |= {gauge[1].decode(): int(gauge[2])} if gauge else {}
        assert found or timed or gauge or b"gunicorn.expect" not in datagram, datagram
        return collections.Counter({found[1].decode(): int(found[2])} if found else {})


@pytest.fixture(scope="module")
def start(worker):
    """Return a function that makes a server with this worker, which reports to a statsd."""

    def make(statsd, *arguments, **env):
        return Server(*statsd.option, *arguments, worker=WORKERS[worker][0], env=NEVER | env)

    return make


@pytest.fixture(scope="module")
def both(start):
    with (
        Statsd() as statsd,
        start(statsd, GUNICORN_EXPECT_POLICY="apps.deciding:policy_by_path") as server,
    ):
        yield server, statsd


@pytest.fixture
def server(both):
    both[1].rest()  # what the last test has left
    return both[0]


@pytest.fixture
def statsd(both):
    return both[1]


def refuse(client, path="/refuse"):
    client.send(waiting(f"PUT {path}", "Content-Length: 5000000000"))
    head, _ = client.receive_response()
    assert b"\r\nConnection: close\r\n" in head


# Expectations.


def test_the_time_until_the_decision_is_measured(client, statsd):
    refuse(client)
    statsd.check(declined=1, bytes_not_uploaded=5_000_000_000)
    [milliseconds] = statsd.milliseconds[-1:]
    assert 0 < milliseconds < PATIENCE * 1000


def test_a_client_that_got_its_100_is_counted(client, statsd):
    client.send(waiting("PUT /read-by?read-3", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"
    statsd.check(continued=1)


def test_a_client_that_did_not_wait_for_the_100_is_counted(client, statsd):
    client.send(waiting("PUT /read", "Content-Length: 5"), b"hello")
    assert client.receive_response()[1] == b"hello"
    statsd.check(waived=1)


def test_a_client_that_was_declined_is_counted_with_the_bytes_that_it_did_not_send(client, statsd):
    refuse(client)
    statsd.check(declined=1, bytes_not_uploaded=5_000_000_000)


def test_a_declined_upload_of_unknown_length_is_counted_without_bytes(client, statsd):
    client.send(waiting("PUT /refuse", "Transfer-Encoding: chunked"))
    client.receive_response()
    statsd.check(declined=1)


def test_a_client_that_was_declined_by_an_error_is_counted(client, statsd):
    client.send(waiting("PUT /fail", "Content-Length: 5"))
    assert client.receive_response()[0].startswith(b"HTTP/1.1 500 ")
    statsd.check(declined=1, bytes_not_uploaded=5)


@pytest.mark.parametrize(
    "message",
    [request("GET /hello"), request("PUT /read", "Content-Length: 5") + b"hello"],
    ids=["GET", "PUT"],
)
def test_requests_without_an_expectation_are_not_counted(client, statsd, message):
    client.send(message)
    assert client.receive_response()[1] == b"hello"
    statsd.check()


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("/refuse-after-event", "broken"),
        ("/refuse-after-event-without-a-body", "broken-without-a-body"),
    ],
)
def test_a_client_that_resets_its_connection_while_it_waits_counts_as_disconnected(
    server, statsd, path, event
):
    with Client(server) as client:
        client.send(waiting(f"PUT {path}?{event}", "Content-Length: 5"))
        server.board.wait(f"entered-{event}")
        # A reset, not an end: a client that has half-closed may still read.
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.board.set(event)
    statsd.check(disconnected=1)
    server.wait_for_log(rf"PUT {path}\?{event} HTTP/1.1 -> 400 pending")


# The policy.


def test_a_refusal_of_the_policy_is_counted_in_addition_to_the_decision(client, statsd):
    refuse(client, "/refused-by-policy")
    statsd.check(refused_by_policy=1, declined=1, bytes_not_uploaded=5_000_000_000)


def test_a_refusal_of_the_policy_is_counted_if_the_client_does_not_wait(client, statsd):
    client.send(request("PUT /refused-by-policy", "Content-Length: 5"), b"hello")
    assert client.receive_response()[0].startswith(b"HTTP/1.1 413 ")
    statsd.check(refused_by_policy=1)


# Bodies that are cut off, malformed or too large.


def test_a_client_that_leaves_in_the_middle_of_its_body_is_counted(client, statsd):
    client.send(request("PUT /read-broken", "Content-Length: 5"), b"hel")
    client.shut_down()
    assert client.receive_response()[1] == b"ClientDisconnected"
    statsd.check(disconnected=1)


def test_a_client_that_leaves_after_the_response_has_started_is_counted(client, statsd):
    client.send(request("PUT /yield-then-read", "Content-Length: 5000000"), b"hel")
    client.receive_until(b"first ")
    client.shut_down()
    statsd.wait_for("disconnected")


def test_malformed_chunks_are_counted(client, statsd):
    client.send(request("PUT /read-broken", "Transfer-Encoding: chunked"), b"no size\r\n")
    assert client.receive_response()[1] == b"MalformedBody"
    statsd.check(malformed=1)


def test_a_body_that_is_longer_than_the_policy_allows_is_counted(client, statsd):
    client.send(request("PUT /read-broken?limit", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n")
    assert client.receive_response()[1] == b"ContentTooLarge"
    statsd.check(too_large=1)


def test_a_client_that_stalls_before_or_after_the_response_has_started_is_counted(start):
    with Statsd() as statsd, start(statsd, GUNICORN_EXPECT_BODY_TIMEOUT="0.2") as server:
        for path in ("/read-broken", "/yield-then-read"):
            with Client(server) as client:
                client.send(request(f"PUT {path}", "Content-Length: 5000000"), b"hel")
                client.receive_all()
            statsd.wait_for("body_timeout")


# Lingering connections.


def test_a_lingering_connection_that_the_client_closes_is_counted(server, statsd):
    with Client(server) as client:
        refuse(client)
        client.receive_all()
    statsd.wait_for("linger.closed")


def test_a_lingering_connection_that_times_out_is_counted(start):
    with (
        Statsd() as statsd,
        start(statsd, GUNICORN_EXPECT_LINGER_IDLE="0.1") as server,
        Client(server) as client,
    ):
        refuse(client)
        statsd.wait_for("linger.timed_out")


def test_lingering_connections_that_are_closed_to_make_room_or_at_shutdown_are_counted(start):
    with contextlib.ExitStack() as stack:
        statsd = stack.enter_context(Statsd())
        limits = ("--worker-connections", "3", "--graceful-timeout", "1")
        with start(statsd, *limits) as server:
            for _ in range(5):
                client = stack.enter_context(Client(server))
                refuse(client)
                client.receive_all()
            statsd.wait_for("linger.dropped", 2)
        statsd.wait_for("linger.dropped", 3)


# HTTP/2.


@pytest.mark.parametrize("worker", ["thread", "gevent"], indirect=True)
def test_streams_are_counted(start):
    protocols = ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge")
    with contextlib.ExitStack() as stack:
        statsd = stack.enter_context(Statsd())
        server = stack.enter_context(
            start(statsd, *protocols, GUNICORN_EXPECT_POLICY="apps.deciding:policy_by_path")
        )
        sock = stack.enter_context(socket.create_connection(server.address, PATIENCE))
        connection = new_connection()
        connection.initiate_connection()
        http2 = Http2Client(server, sock, connection)

        assert http2.answer(http2.open("PUT /refuse", EXPECT, ("content-length", "5")))[0] == "401"
        statsd.check(declined=1, bytes_not_uploaded=5)
        assert http2.answer(http2.open("PUT /refuse", EXPECT))[0] == "401"
        statsd.check(declined=1)
        assert http2.answer(http2.open("PUT /refused-by-policy", EXPECT))[0] == "413"
        statsd.check(declined=1, refused_by_policy=1)
        stream = http2.open("PUT /read", EXPECT)
        assert http2.first(stream) == ["100"]
        http2.send(stream, b"hello")
        assert http2.answer(stream) == ["100", "200", b"hello", "end"]
        statsd.check(continued=1)
        stream = http2.open("PUT /read", EXPECT, data=b"hello", end=True)
        assert http2.answer(stream) == ["200", b"hello", "end"]
        statsd.check(waived=1)
        stream = http2.open("PUT /read-broken", EXPECT)
        assert http2.first(stream) == ["100"]  # so that the application is reading
        http2.reset(stream)
        statsd.wait_for("disconnected")
        stream = http2.open("PUT /refuse-after-event?reset", EXPECT)
        server.board.wait("entered-reset")
        http2.reset(stream)
        server.board.set("reset")
        statsd.check(disconnected=1)


# statsd, and the log.


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["no preload", "preload"])
def test_statsd_may_be_a_unix_socket_and_the_names_may_have_a_prefix(start, tmp_path, preload):
    with (
        Statsd(str(tmp_path / "statsd")) as statsd,
        start(statsd, "--statsd-prefix", "site.a", *preload) as server,
        Client(server) as client,
    ):
        refuse(client)
        datagrams = iter(lambda: statsd.socket.recv(1000), None)
        assert b"site.a.gunicorn.expect.declined:1|c|@1.0" in datagrams
        assert next(datagrams) == b"site.a.gunicorn.expect.bytes_not_uploaded:5000000000|c|@1.0"


DECIDED = {
    "continued": "PUT /read-some",
    "waived": "PUT /read",
    "declined": "POST /refuse",
}


def decide(server):
    """Send a request for each kind of decision, and then one without a decision."""
    with Client(server) as client:
        client.send(waiting(f"{DECIDED['continued']}?3", "Content-Length: 3"))
        client.receive(len(CONTINUE))
        client.send(b"yes")
        client.receive_response()
    with Client(server) as client:
        client.send(waiting(f"{DECIDED['waived']}?secret", "Content-Length: 3"), b"yes")
        client.receive_response()
    with Client(server) as client:
        client.send(waiting(f"{DECIDED['declined']}?secret", "Content-Length: 3"))
        client.receive_response()
    server.get("/hello")


def test_at_debug_level_there_is_one_line_for_each_decision_with_its_time(worker):
    with Server("--log-level", "debug", worker=WORKERS[worker][0]) as server:
        decide(server)
    lines = [line for line in server.lines if "Expectation" in line]
    for line, (state, request_line) in zip(lines, DECIDED.items(), strict=True):
        message = rf"Expectation {state} after \d+\.\d ms: {request_line}"
        assert re.fullmatch(rf"\[.*\] \[\d+\] \[DEBUG\] {message}", line)
    check_no_line_is_empty(server)


@pytest.mark.parametrize("with_statsd", [False, True], ids=["no statsd", "statsd"])
def test_above_debug_level_nothing_is_logged(worker, with_statsd):
    with Statsd() as statsd:
        options = statsd.option if with_statsd else ()
        with Server(*options, worker=WORKERS[worker][0]) as server:
            decide(server)
    assert [line for line in server.lines if "[DEBUG]" in line or "Expectation" in line] == []
    check_no_line_is_empty(server)


def check_no_line_is_empty(server):
    assert server.lines
    assert [line for line in server.lines if re.search(r"(^|\[[A-Z]+\])\s*$", line)] == []


# `Counters`, without a server.


class Log:
    """Records what is reported to it."""

    def __init__(self):
        self.lines = []
        self.metrics = []

    def debug(self, msg, /, *args, extra):
        self.lines.append(msg % args)
        assert extra["mtype"] == "counter"
        self.metrics.append((extra["metric"], extra["value"]))


class BrokenLog:
    def debug(self, msg, /, *args, extra):
        raise OSError("no space left on the device")


@pytest.fixture
def log():
    return Log()


class SilentWire:
    """The wire of a client that waits and sends nothing."""

    def arrived(self):
        return False


def decline(counters, length):
    def on_decided(exchange):
        counters.decided("PUT", "/files/x", length, exchange)

    exchange = Exchange(SilentWire(), waits=True, on_decided=on_decided)
    exchange.respond()
    return exchange


def test_a_decision_is_logged_in_one_line_and_its_bytes_in_another(log):
    exchange = decline(Counters(log), 5)
    milliseconds = f"{exchange.decided_after * 1000:.1f}"
    assert log.lines == [
        f"Expectation declined after {milliseconds} ms: PUT /files/x",
        "Bytes not uploaded: 5",
    ]
    assert log.metrics == [
        ("gunicorn.expect.declined", 1),
        ("gunicorn.expect.bytes_not_uploaded", 5),
    ]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (BodyTimeout("5 bytes are missing"), "body_timeout"),
        (ClientDisconnected("5 bytes are missing"), "disconnected"),
        (MalformedBody("5 bytes are missing"), "malformed"),
        (ContentTooLarge(5), "too_large"),
    ],
)
def test_each_failure_of_a_body_has_its_counter(log, error, name):
    Counters(log).failed(error)
    assert log.metrics == [(f"gunicorn.expect.{name}", 1)]
    assert log.lines == [f"Body not received: {error}"]


def test_an_interrupted_read_does_not_count_as_a_failed_body(log):
    Counters(log).failed(KeyboardInterrupt())
    assert log.lines == []


@pytest.mark.parametrize("log", [None, BrokenLog()], ids=["none", "broken"])
def test_a_broken_or_missing_log_breaks_no_request(log):
    counters = Counters(log)
    assert decline(counters, 5).state is State.DECLINED
    counters.refused("413 Content Too Large")
    counters.failed(BodyTimeout("late"))
    counters.late()
    counters.lingered("closed")


# The access log, received bytes and connections.


@pytest.fixture(scope="module")
def printing(worker):
    """A server whose access log prints the received bytes and the time until the decision."""
    line = "%(m)s %(s)s %({gunicorn_expect.received}e)s %({gunicorn_expect.decided_after}e)s"
    arguments = ("--access-logformat", line)
    env = {"GUNICORN_EXPECT_BODY_TIMEOUT": "0.1"}
    with Server(*arguments, worker=WORKERS[worker][0], env=env) as server:
        yield server


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        (request("GET /hello"), b"", "GET 200 - -"),
        (request("PUT /read", "Content-Length: 5"), b"hello", "PUT 200 5 -"),
        (request("PUT /read", "Content-Length: 5"), b"hel", "PUT 408 3 -"),
        (request("PUT /partial?readinto", "Content-Length: 5"), b"hel", "PUT 200 3 -"),
        (
            request("PUT /read", "Transfer-Encoding: chunked"),
            b"5\r\nhello\r\n6\r\n wor",
            "PUT 408 9 -",
        ),
        (waiting("PUT /read", "Content-Length: 5"), b"hello", r"PUT 200 5 0\.\d{6}"),
        (waiting("PUT /refuse", "Content-Length: 5"), b"", r"PUT 401 0 0\.\d{6}"),
    ],
)
def test_the_access_log_can_print_the_bytes_and_the_time_until_the_decision(
    printing, head, body, line
):
    start = len(printing.lines)
    with Client(printing) as client:
        client.send(head, body)
        assert client.receive_head()
    assert re.fullmatch(line, printing.wait_for_log("^(GET|PUT) ", start).string)


def test_bytes_of_bodies_are_counted(start):
    with Statsd() as statsd, start(statsd) as server, Client(server) as client:
        client.send(request("PUT /read", "Content-Length: 5"), b"hello")
        client.receive_response()
        statsd.wait_for("bytes_received", 5)


def test_open_waiting_and_lingering_connections_are_counted(worker, start):
    """Their gauges are sent once a second."""
    expected = {"open": 1, "waiting": 0, "lingering": 1}  # the sync worker has one at a time
    with Statsd() as statsd, start(statsd) as server, contextlib.ExitStack() as stack:
        refused = stack.enter_context(Client(server))
        refused.send(waiting("PUT /refuse", "Content-Length: 5"))
        assert refused.receive_head()
        if worker != "sync":
            stack.enter_context(Client(server))
            reading = stack.enter_context(Client(server))
            reading.send(waiting("PUT /read", "Content-Length: 5"))
            assert reading.receive_head() == CONTINUE
            expected = {"open": 3, "waiting": 1, "lingering": 1}
        statsd.wait_for_gauges(expected)
