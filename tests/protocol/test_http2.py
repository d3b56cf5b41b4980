"""Accepting and refusing over HTTP/2: on one stream, beside other streams, and after an upgrade."""

import contextlib
import functools
import hashlib
import itertools
import json
import socket
import threading
import uuid

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hyperframe.frame import DataFrame

from apps.reading import WAYS_TO_READ
from support import PATIENCE
from support.characters import ALLOWED_CHARACTERS, EVERY_CHARACTER
from support.client import CONTINUE, request, waiting
from support.http2_client import (
    EXPECT,
    RESET_NO_ERROR,
    Http2Client,
    connect,
    head_of,
    new_connection,
)
from support.installed import gunicorn_at, oldest_gunicorn
from support.matrix import WORKERS
from support.server import Server

#: The options for each way into HTTP/2; one of them with the parser that gunicorn chooses.
WAYS_IN = {
    "alpn": ("--http-protocols", "h1,h2"),
    "prior-knowledge": ("--http-protocols", "h1,h2", "--http2-cleartext", "prior-knowledge"),
    "both": ("--http-protocols", "h1,h2", "--http2-cleartext", "both", "--http-parser", "auto"),
    "upgrade": ("--http-protocols", "h1,h2", "--http2-cleartext", "upgrade"),
}


def cells(*ways_in):
    """Return the parameters of `server`: each worker with each "way-into-HTTP/2 gunicorn"."""
    return [" ".join(cell) for cell in itertools.product(["thread", "gevent"], ways_in)]


def on(*ways_in):
    return pytest.mark.parametrize("server", cells(*ways_in), indirect=True)


@pytest.fixture(scope="module")
def servers(certificates):
    """Yield a function that returns the server of a cell, started at the first call."""
    started = []

    @functools.cache
    def server_of(cell):
        worker, way_in, version = cell.split()
        server = Server(
            *("--keep-alive", "20", *WAYS_IN[way_in]),
            worker=WORKERS[worker][0],
            transport="tls" if way_in == "alpn" else "tcp",
            gunicorn=gunicorn_at(oldest_gunicorn()) if version == "oldest" else None,
            certificates=certificates,
        )
        started.append(stack.enter_context(server))
        return server

    with contextlib.ExitStack() as stack:
        yield server_of
        for server in started:
            server.process.terminate()  # all of them, then wait for each


@pytest.fixture
def server(request, servers):
    return servers(request.param)


@pytest.fixture(params=cells("alpn newest", "alpn oldest", "both newest", "prior-knowledge oldest"))
def http2(request, servers, certificates):
    with connect(
        servers(request.param), certificates if "alpn" in request.param else None
    ) as http2:
        yield http2


# Reading.


def test_no_100_is_sent_to_a_client_that_does_not_wait(http2):
    assert http2.get("/ordinary-read") == ["200", b'["", "none"]', "end"]
    stream = http2.open("POST /ordinary-read", EXPECT, end=True)
    assert http2.answer(stream) == ["200", b'["", "none"]', "end"]
    stream = http2.open("POST /ordinary-read")
    http2.send(stream, b"hello")
    assert http2.answer(stream) == ["200", b'["hello", "none"]', "end"]


def test_reading_sends_a_100(http2):
    stream = http2.open("PUT /state", EXPECT)
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"hello")
    states = b'["pending", true, "continued", "CONTINUED"]'
    assert http2.answer(stream) == ["100", "200", states, "end"]
    assert http2.fields[stream][0] == {":status": "100"}


@pytest.mark.parametrize("way", WAYS_TO_READ)
def test_every_way_to_read_sends_one_100(http2, way):
    stream = http2.open(f"PUT /read-by?{way}", EXPECT)
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"one\ntwo\nlast")
    body = b"one\ntwo\nlast"
    assert http2.answer(stream) == ["100", "200", body, "end"]


def test_proceed_sends_header_fields_once(http2):
    stream = http2.open("PUT /proceed", EXPECT)
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"hello")
    assert http2.answer(stream) == ["100", "200", b"hello", "end"]
    fields = {":status": "100", "x-node": "7", "location": "http://elsewhere/"}
    assert http2.fields[stream][0] == fields


@pytest.mark.parametrize("name", ["Content-Length", "TE"])
def test_a_field_that_proceed_can_not_send_does_not_break_the_connection(http2, name):
    assert http2.get("/hello") == ["200", b"hello", "end"]
    stream = http2.open(f"PUT /proceed-badly?name={name}&value=5", EXPECT)
    status, _, *rest = http2.answer(stream)
    assert http2.get("/hello") == ["200", b"hello", "end"]
    assert [status, *rest] == ["400", "end", RESET_NO_ERROR]


def test_early_hints_are_sent_only_after_the_100(http2):
    stream = http2.open("PUT /hints", EXPECT)
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"hello")
    assert http2.answer(stream) == ["100", "103", "200", b"hello", "end"]
    assert http2.fields[stream][1]["link"] == "</after>"


def test_interim_responses_come_before_and_after_the_body(http2):
    stream = http2.open("PUT /inform")
    assert http2.first(stream) == ["104"]
    http2.send(stream, b"hello")
    assert http2.answer(stream) == ["104", "104", "200", b"[true, true]", "end"]
    assert http2.fields[stream][0] == {":status": "104", "location": "/uploads/7"}
    assert http2.fields[stream][1]["upload-offset"] == "5"
    assert http2.get("/inform")[:3] == ["104", "104", "200"]


@pytest.mark.parametrize(
    ("path", "field", "first"),
    [
        ("/inform", ("x-nothing", "1"), "100"),
        ("/inform", ("upload-complete", "?1"), "104"),
        ("/inform?force=1", ("x-nothing", "1"), "104"),
    ],
)
def test_a_client_that_waits_gets_a_104_before_its_100_if_it_understands(http2, path, field, first):
    stream = http2.open(f"PUT {path}", EXPECT, field)
    assert http2.first(stream) == [first]
    while "100" not in http2.received[stream] and http2.receive():
        pass
    http2.send(stream, b"hello")
    sent = [first == "104", True]
    interim = ["104", "100", "104"] if sent[0] else ["100", "104"]
    assert http2.answer(stream) == [*interim, "200", json.dumps(sent).encode(), "end"]


def test_one_thread_sends_interim_responses_while_another_one_reads(http2):
    stream, body = http2.open("PUT /inform-often"), bytes(16384) * 64
    for number in range(64):
        http2.send(stream, bytes(16384), end=number == 63)
        while len(http2.received[stream]) <= number and http2.receive():
            pass
    digest = hashlib.sha256(body).hexdigest().encode()
    assert http2.answer(stream) == [*["104"] * 64, "200", digest, "end"]
    assert http2.get("/hello") == ["200", b"hello", "end"]


@pytest.mark.parametrize("where", ALLOWED_CHARACTERS)
def test_every_character_of_an_interim_response_is_sent_or_is_an_error(http2, where):
    stream = http2.open(f"GET /inform-every-character?{where}", end=True)
    *interim, status, refused, _ = http2.answer(stream)
    assert interim == ["104"] * len(ALLOWED_CHARACTERS[where])
    assert status == "200"
    assert json.loads(refused) == [n for n in EVERY_CHARACTER if n not in ALLOWED_CHARACTERS[where]]
    for number, fields in zip(ALLOWED_CHARACTERS[where], http2.fields[stream], strict=False):
        odd = f"x{chr(number)}y"
        name, value = (odd.lower(), str(number)) if where == "name" else (str(number), odd)
        assert fields == {":status": "104", name: value}


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_interim_response_is_sent_after_the_response_has_started(http2, method):
    stream = http2.open(f"{method} /inform-late", data=b"hello", end=True)
    assert http2.answer(stream) == ["200", b"7False", "end"]


# Refusing.


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/refuse", ["401"]),
        ("/refuse-with-body", ["413", b"too large"]),
        ("/read-nothing", ["403", b"[b'', b'', 0]"]),
        ("/hints-and-refuse", ["403", b"no"]),
    ],
)
def test_a_refused_stream_gets_no_100_and_the_connection_stays_open(http2, path, answer):
    assert http2.answer(http2.open(f"PUT {path}", EXPECT)) == [*answer, "end", RESET_NO_ERROR]
    assert http2.get("/hello") == ["200", b"hello", "end"]
    http2.server.wait_for_log(rf"PUT {path.split('?')[0]}.* -> {answer[0]} declined")


def test_data_that_arrives_after_a_refusal_does_not_break_the_connection(http2):
    stream = http2.open("PUT /refuse", EXPECT)
    assert http2.answer(stream) == ["401", "end", RESET_NO_ERROR]
    # Together they are more than the window of the connection, unless the server opens it again.
    http2.socket.sendall(DataFrame(stream, b"late" * 4096).serialize() * 8)
    stream = http2.open("PUT /read", EXPECT)
    assert http2.first(stream) == ["100"]
    http2.send(stream, b"hello")
    assert http2.answer(stream) == ["100", "200", b"hello", "end"]


def test_streams_do_not_disturb_each_other(http2):
    before = http2.open("PUT /read", EXPECT)
    assert http2.first(before) == ["100"]
    refused = http2.open("PUT /refuse-with-body", EXPECT)
    http2.send(before, b"one ", end=False)
    small = http2.open("GET /hello", end=True)
    unknown = http2.open("PUT /hello", ("expect", "x"))
    after = http2.open("PUT /read", EXPECT)
    http2.send(before, b"two")
    assert http2.first(after) == ["100"]
    assert http2.received[before] == ["100", "200", b"one two", "end"]
    assert http2.received[refused] == ["413", b"too large", "end", RESET_NO_ERROR]
    assert http2.received[small] == ["200", b"hello", "end"]
    assert http2.received[unknown][0] == "417"
    http2.send(after, b"three")
    assert http2.answer(after) == ["100", "200", b"three", "end"]


# The order of the first bytes.


@pytest.mark.parametrize("path", ["/yield-then-read", "/write-then-read"])
def test_no_100_is_sent_after_the_first_byte_of_the_response(http2, path):
    stream = http2.open(f"PUT {path}", EXPECT)
    assert http2.first(stream) == ["200"]
    http2.send(stream, b"hello")
    body = b"first hello" if path == "/yield-then-read" else b"nohello"
    assert http2.answer(stream) == ["200", body, "end"]


@pytest.mark.parametrize("steps", ["w", "0w0", "wyw0y", "yw"])
def test_data_written_while_the_result_is_iterated_is_sent(http2, steps):
    path = f"/write-while-iterated?{steps}"
    body = {"w": b"written ", "y": b"yielded ", "0": b""}
    answer = ["200", b"".join(body[step] for step in steps), "end"]
    assert http2.get(path) == answer
    assert http2.answer(http2.open(f"PUT {path}", data=b"hello", end=True))[:3] == answer
    stream = http2.open(f"PUT {path}r", EXPECT)
    assert http2.first(stream) == ["200"]
    http2.send(stream, b"hello")
    assert http2.answer(stream) == answer


@pytest.mark.parametrize("data", [b"hello", b"h"])
def test_no_100_is_sent_if_data_came_with_the_head(http2, data):
    stream = http2.open("PUT /state", EXPECT, data=data, end=data == b"hello")
    if data == b"h":
        http2.send(stream, b"ello")
    states = b'["waived", false, "waived", "WAIVED"]'
    assert http2.answer(stream) == ["200", states, "end"]


# Unknown expectations, and final responses with a 1xx.


@pytest.mark.parametrize("value", ["x", "100-continue, x"])
@pytest.mark.parametrize(("end", "reset"), [(False, [RESET_NO_ERROR]), (True, [])])
def test_an_unknown_expectation_gets_417_and_the_application_is_not_called(
    http2, value, end, reset
):
    stream = http2.open("PUT /hello?unknown-expectation", ("expect", value), end=end)
    status, _, *rest = http2.answer(stream)
    assert [status, *rest] == ["417", "end", *reset]
    assert b"unknown-expectation" not in http2.get("/seen")[1]


@pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints"])
@pytest.mark.parametrize("expect", [[EXPECT], []], ids=["Expect", "no Expect"])
def test_start_response_with_a_1xx_gets_500(http2, status, expect):
    stream = http2.open(f"PUT /start?{status.replace(' ', '+')}", *expect)
    status, _, *rest = http2.answer(stream)
    assert [status, *rest] == ["500", "end", RESET_NO_ERROR]
    assert http2.get("/hello") == ["200", b"hello", "end"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_start_response_with_a_1xx_gets_500_for_a_stream_without_a_body(http2, method):
    stream = http2.open(f"{method} /start?100+Continue", end=True)
    status, _, *rest = http2.answer(stream)
    assert [status, *rest] == ["500", "end"]
    assert http2.get("/hello") == ["200", b"hello", "end"]


# Bodies that are cut off.


@pytest.mark.parametrize("sent", [b"", b"hello"])
def test_reading_the_body_of_a_stream_that_was_reset_raises_client_disconnected(http2, sent):
    name = f"reset-{uuid.uuid4()}"
    stream = http2.open(f"PUT /tell-broken?{name}", EXPECT)
    assert http2.first(stream) == ["100"]
    if sent:
        http2.send(stream, sent, end=False)
    http2.reset(stream)
    http2.server.board.wait(f"{name}-ClientDisconnected")
    assert http2.get("/hello") == ["200", b"hello", "end"]


@pytest.mark.parametrize("sent", [b"", b"hello"])
@pytest.mark.parametrize("leave", ["close", "shut down"])
def test_reading_a_body_whose_connection_was_lost_raises_client_disconnected(http2, sent, leave):
    name = f"lost-{uuid.uuid4()}"
    stream = http2.open(f"PUT /tell-broken?{name}", EXPECT)
    assert http2.first(stream) == ["100"]
    if sent:
        http2.send(stream, sent, end=False)
    if leave == "close":
        http2.socket.close()
    else:
        http2.socket.shutdown(socket.SHUT_WR)
    http2.server.board.wait(f"{name}-ClientDisconnected")


@pytest.mark.parametrize("what", ["resets", "closes"])
def test_a_client_that_leaves_while_it_waits_is_logged_as_400_and_pending(http2, what):
    event = f"left-{uuid.uuid4()}"
    stream = http2.open(f"PUT /refuse-after-event?{event}", EXPECT)
    http2.server.board.wait(f"entered-{event}")
    if what == "resets":
        http2.reset(stream)
    else:
        http2.socket.close()
    http2.server.board.set(event)
    http2.server.wait_for_log(rf"PUT /refuse-after-event\?{event} .* -> 400 pending")
    if what == "resets":
        assert http2.get("/hello") == ["200", b"hello", "end"]


# Time limits.


@pytest.fixture(scope="module", params=["thread alpn", "thread both", "gevent alpn"])
def serve(request, certificates):
    """Return a context manager that starts a server, and yields what connects to it."""
    worker, way_in = request.param.split()
    secure = certificates if way_in == "alpn" else None

    @contextlib.contextmanager
    def serve(*arguments, **env):
        with Server(
            *("--keep-alive", "20", *WAYS_IN[way_in], *arguments),
            worker=WORKERS[worker][0],
            transport="tls" if secure else "tcp",
            certificates=certificates,
            env=env,
        ) as server:
            yield functools.partial(connect, server, secure)

    return serve


@pytest.fixture(scope="module")
def impatient(serve):
    with serve(
        GUNICORN_EXPECT_BODY_TIMEOUT="0.5", GUNICORN_EXPECT_MIN_RATE="1000000"
    ) as connecting:
        yield connecting


@pytest.mark.parametrize("sent", [b"", b"hello"])
def test_a_client_that_stalls_gets_408(impatient, sent):
    with impatient() as http2:
        stream = http2.open("PUT /read", data=sent)
        assert http2.answer(stream) == ["408", "end", RESET_NO_ERROR]
        assert http2.get("/hello") == ["200", b"hello", "end"]


def test_a_client_that_stalls_after_its_100_gets_408(impatient):
    with impatient() as http2:
        assert http2.answer(http2.open("PUT /read", EXPECT)) == [
            "100",
            "408",
            "end",
            RESET_NO_ERROR,
        ]


FRAMES = {
    "PING": lambda http2, stream, other: http2.ping(),
    "other requests": lambda http2, stream, other: http2.open("GET /hello", end=True),
    "DATA of another stream": lambda http2, stream, other: http2.send(other, b"x", end=False),
    "DATA, but little": lambda http2, stream, other: http2.send(stream, b"x", end=False),
}


@pytest.mark.parametrize("send", FRAMES.values(), ids=FRAMES)
def test_frames_without_enough_body_bytes_do_not_extend_the_time_limit(impatient, send):
    pause = threading.Event()
    with impatient() as http2:
        stream, other = http2.open("PUT /read"), http2.open("PUT /read")
        for _ in range(PATIENCE * 4):
            send(http2, stream, other)
            http2.ping()
            http2.receive()  # at least the acknowledgement of the ping
            if http2.is_over(stream):
                break
            pause.wait(0.05)
        assert http2.received[stream][:2] == ["408", "end"]


@pytest.mark.parametrize(
    ("way", "partial"),
    [
        ("read", "one\ntwo\nthr"),
        ("readline", "thr"),
        ("readlines", "one\ntwo\nthr"),
        ("iteration", "thr"),
        ("readinto", "one\ntwo\nthr"),
    ],
)
def test_the_error_has_the_bytes_that_the_client_sent_before_it_stalled(impatient, way, partial):
    with impatient() as http2:
        stream = http2.open(f"PUT /partial?{way}", data=b"one\n")
        http2.send(stream, b"two\n", end=False)
        http2.send(stream, b"thr", end=False)
        [status, body, *rest] = http2.answer(stream)
        in_buffer = partial if way == "readinto" else ""
        assert json.loads(body) == ["BodyTimeout", partial, "BodyTimeout", "", in_buffer]
        assert [status, *rest] == ["200", "end", RESET_NO_ERROR]


def test_a_body_that_has_arrived_when_it_is_read_does_not_time_out(impatient):
    """The application starts to read when the body timeout would be over."""
    with impatient() as http2:
        event = f"whole-{uuid.uuid4()}"
        stream = http2.open(f"PUT /read-after-event?{event}")
        http2.server.board.wait(f"entered-{event}")
        http2.send(stream, b"hello")
        threading.Event().wait(0.6)  # longer than the body timeout
        http2.server.board.set(event)
        assert http2.answer(stream) == ["200", b'["hello", "none"]', "end"]


def test_the_body_timeout_does_not_apply_to_a_client_that_reads_slowly(impatient):
    window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    with impatient(settings=window) as http2:
        for path in ("PUT /refuse-at-length?3000", "GET /refuse-at-length?3000"):
            stream = http2.open(path, end=path.startswith("GET"))
            http2.first(stream)
            threading.Event().wait(1)  # the client's pause, twice the body timeout
            http2.widen(stream, 2000)
            status, body, *_ = http2.answer(stream)
            assert (status, len(body)) == ("413", 3000)


def test_a_body_that_arrives_while_the_response_waits_for_the_client_can_be_read(impatient):
    window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 3}
    with impatient(settings=window) as http2:
        stream = http2.open("PUT /yield-then-read")
        while b"fir" not in http2.received[stream]:
            assert http2.receive()
        http2.send(stream, b"hello")
        http2.settle()
        http2.widen(stream, 100)
        assert http2.answer(stream) == ["200", b"first hello", "end"]


def test_the_stream_of_a_client_that_never_reads_is_reset_after_gunicorns_timeout(serve):
    window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000}
    with (
        # Not less: after this time gunicorn also kills a worker that a busy machine delays.
        serve("--timeout", "4", GUNICORN_EXPECT_BODY_TIMEOUT="0") as connecting,
        connecting(settings=window) as http2,
    ):
        status, body, *rest = http2.answer(http2.open("PUT /refuse-at-length?3000"))
        assert (status, len(body), rest) == ("413", 1000, ["reset CANCEL"])


# Upgrades from HTTP/1 to HTTP/2.


def upgrading(head, line, *fields):
    """Return a head that asks for HTTP/2, and the connection that it may become."""
    connection = new_connection()
    settings = connection.initiate_upgrade_connection().decode()
    asking = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {settings}"]
    return head(line, *asking, *fields), connection


def smuggled(path):
    """Return what a client of HTTP/2 sends for this request, the connection preface included."""
    connection = new_connection()
    connection.initiate_upgrade_connection()
    connection.send_headers(3, head_of(f"GET {path}"), end_stream=True)
    return connection.data_to_send()


def assert_it_can_be_upgraded(server, client):
    head, connection = upgrading(waiting, "PUT /ordinary-read")
    client.send(request("GET /hello"), head)
    assert client.receive_response()[1] == b"hello"
    assert client.receive_head().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    http2 = Http2Client(server, client.socket, connection)
    if client.unread:
        http2.receive(client.unread)
    assert http2.answer(1) == ["200", b'["", "none"]', "end"]
    assert http2.get("/hello") == ["200", b"hello", "end"]


@on("both newest", "upgrade oldest")
@pytest.mark.parametrize(("path", "status"), [("/read", b"200"), ("/refuse", b"401")])
@pytest.mark.parametrize("framing", ["Content-Length: %d", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("cut", [30, None], ids=["in two", "with the head"])
def test_the_body_of_an_upgrade_request_is_never_read_as_http_2(
    server, client, path, status, framing, cut
):
    body = smuggled("/hello?smuggled-in-an-upgrade")
    sent = body if "%d" in framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head, _ = upgrading(request, f"PUT {path}", framing.replace("%d", str(len(body))))
    client.send(head, sent[:cut])
    if cut:
        client.send(sent[cut:])
    head, answer = client.receive_response()
    assert head.startswith(b"HTTP/1.1 " + status)
    assert answer == (body if path == "/read" else b"")
    if b"\r\nConnection: close\r\n" in head:  # the last chunk had not arrived yet
        assert (path, "%d" in framing, cut) == ("/refuse", False, 30)
        assert client.receive_all() == b""
    else:
        assert_it_can_be_upgraded(server, client)
    assert b"smuggled-in-an-upgrade" not in server.get("/seen")


@on("both newest", "upgrade oldest")
def test_reading_the_body_of_an_upgrade_request_sends_a_100_over_http_1(server, client):
    head, _ = upgrading(waiting, "PUT /read", "Content-Length: 5")
    client.send(head)
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"
    assert_it_can_be_upgraded(server, client)


@on("both newest", "upgrade oldest")
def test_nothing_sent_after_a_refused_upgrade_is_read_as_http_2(server, client):
    head, _ = upgrading(waiting, "PUT /refuse", "Content-Length: 5000")
    client.send(head)
    head = client.receive_head()
    assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in head
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may have closed
        client.send(smuggled("/hello?smuggled-behind-a-refusal"))
    assert client.receive_all() == b""
    assert b"smuggled-behind-a-refusal" not in server.get("/seen")


@on("both newest", "upgrade oldest")
@pytest.mark.parametrize("framing", [[], ["Content-Length: 5"]], ids=["no body", "body"])
def test_an_upgrade_request_with_an_unknown_expectation_gets_417(client, framing):
    client.send(upgrading(request, "PUT /read", "Expect: x", *framing)[0])
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\n")
    assert answer.count(b"HTTP/1.1") == 1


@on("prior-knowledge oldest")
def test_an_http_1_request_gets_400_where_only_http_2_is_expected(client):
    client.send(waiting("PUT /read", "Content-Length: 5"))
    assert client.receive_all().startswith(b"HTTP/1.1 400 Bad Request\r\n")


@on("alpn newest", "alpn oldest", "both newest", "upgrade oldest")
def test_a_client_that_does_not_choose_http_2_is_accepted_and_refused_over_http_1(client):
    client.send(waiting("PUT /read", "Content-Length: 5"))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(b"hello")
    assert client.receive_response()[1] == b"hello"
    client.send(waiting("PUT /refuse", "Content-Length: 5"))
    answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in answer
