"""Uploads that are cut off, stall or are malformed, against a real gunicorn."""

import contextlib
import itertools
import json
import re
import ssl
import threading
import time

import pytest

from support import until
from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS
from support.sending import sending_on
from support.server import Server

SIZED = "Content-Length: 10"
CHUNKED = "Transfer-Encoding: chunked"

#: The bytes of a body that arrive before its client leaves.
CUT_OFF = {
    "no byte": (SIZED, b""),
    "half": (SIZED, b"hello"),
    "no chunk": (CHUNKED, b""),
    "no end of a size": (CHUNKED, b"5\r"),
    "half a chunk": (CHUNKED, b"5\r\nhel"),
    "no CRLF": (CHUNKED, b"5\r\nhello"),
    "no last chunk": (CHUNKED, b"5\r\nhello\r\n"),
    "no end of the trailers": (CHUNKED, b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n"),
}
cut_off = pytest.mark.parametrize(("framing", "sent"), CUT_OFF.values(), ids=CUT_OFF)
names = map("upload{}".format, itertools.count())


def check_only_answer(answer, status):
    """Check that this is one response with this status and ``Connection: close``."""
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer


# Cut off.


@cut_off
def test_reading_a_body_that_was_cut_off_raises_client_disconnected(server, client, framing, sent):
    name = next(names)
    client.send(request(f"PUT /tell-broken?{name}", framing), sent)
    client.close()
    server.board.wait(f"{name}-ClientDisconnected")


@cut_off
def test_reading_a_body_that_was_cut_off_after_its_100_raises_client_disconnected(
    server, client, framing, sent
):
    name = next(names)
    client.send(waiting(f"PUT /tell-broken?{name}", framing))
    assert client.receive(len(CONTINUE)) == CONTINUE
    client.send(sent)
    client.close()
    server.board.wait(f"{name}-ClientDisconnected")


@cut_off
def test_a_client_that_half_closes_in_the_middle_of_its_upload_gets_400(
    server, client, framing, sent
):
    name = next(names)
    client.send(request(f"PUT /tell-broken?{name}", framing), sent)
    client.shut_down()  # over TLS without a close_notify: there it receives ciphertext
    answer = client.receive_all()
    server.board.wait(f"{name}-ClientDisconnected")
    server.wait_for_log(rf"PUT /tell-broken\?{name} HTTP/1.1 -> 400 none")
    if not isinstance(client.socket, ssl.SSLSocket):
        check_only_answer(answer, 400)
        assert answer.endswith(b"\r\n\r\n")


def test_an_application_may_answer_a_client_that_cut_off_its_upload(client):
    client.send(request("PUT /read-broken", SIZED), b"hello")
    client.shut_down()
    answer = client.receive_all()
    if not isinstance(client.socket, ssl.SSLSocket):
        check_only_answer(answer, 200)
        assert answer.endswith(b"\r\n\r\nClientDisconnected")


def test_a_response_that_has_started_breaks_off_when_its_upload_is_cut_off(client):
    client.send(request("PUT /yield-then-read", CHUNKED), b"5\r\nhel")
    assert client.receive_until(b"first ").endswith(b"first ")
    client.shut_down()
    answer = client.receive_all()
    if not isinstance(client.socket, ssl.SSLSocket):
        assert answer == b""


# The bytes that arrived before an error.

#: What the failed call of each method had read. Earlier calls have returned the lines before that.
PARTIAL = {
    "read": "one\ntwo\nthr",
    "read-100": "one\ntwo\nthr",
    "readline": "thr",
    "readlines": "one\ntwo\nthr",
    "iteration": "thr",
    "readinto": "one\ntwo\nthr",
}
FRAMED = {
    "sized": ("HTTP/1.1", "Content-Length: 100", [b"one\n", b"two\nthr"]),
    "HTTP/1.0": ("HTTP/1.0", "Content-Length: 100", [b"one\n", b"two\nthr"]),
    "chunked": ("HTTP/1.1", CHUNKED, [b"5\r\none\nt", b"\r\n64\r\nwo\nthr"]),
}
by_each_way = pytest.mark.parametrize("way", PARTIAL)
framed = pytest.mark.parametrize(("version", "framing", "pieces"), FRAMED.values(), ids=FRAMED)


def check_partial(answer, way, kind_of_error):
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    in_buffer = PARTIAL[way] if way == "readinto" else ""
    assert found == [kind_of_error, PARTIAL[way], kind_of_error, "", in_buffer]


@by_each_way
@framed
def test_the_error_has_the_bytes_that_the_client_sent_before_it_left(
    client, way, version, framing, pieces
):
    client.send(request(f"PUT /partial?{way} {version}", framing), pieces[0])
    client.send(pieces[1])
    client.shut_down()
    answer = client.receive_all()
    if not isinstance(client.socket, ssl.SSLSocket):
        check_partial(answer, way, "ClientDisconnected")


@by_each_way
@framed
def test_the_error_has_the_bytes_that_the_client_sent_before_it_stalled(
    impatient, way, version, framing, pieces
):
    with Client(impatient) as client:
        client.send(request(f"PUT /partial?{way} {version}", framing), pieces[0])
        client.send(pieces[1])
        check_partial(client.receive_all(), way, "BodyTimeout")


@by_each_way
def test_the_error_has_the_bytes_that_the_client_sent_before_a_malformed_chunk(client, way):
    client.send(request(f"PUT /partial?{way}", CHUNKED), b"5\r\none\nt\r\n6\r\nwo\nthr")
    client.send(b"XXX")
    check_partial(client.receive_all(), way, "MalformedBody")


# Malformed.

MALFORMED = {
    "no size": b"5\r\nhello\r\nzz\r\n",
    "no CRLF": b"5\r\nhelloXY\r\n",
    "bare LF": b"5\nhello\n0\n\n",
    "bad trailer": b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "too long": b"5;" + b"x" * 10_000 + b"\r\n",
}
malformed = pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)


@malformed
def test_malformed_chunks_get_400(server, client, body):
    name = next(names)
    client.send(request(f"PUT /tell-broken?{name}", CHUNKED), body)
    check_only_answer(client.receive_all(), 400)
    server.board.wait(f"{name}-MalformedBody")


@malformed
@pytest.mark.parametrize("when", ["with the head", "after the response"])
def test_malformed_chunks_after_a_response_close_the_connection(server, client, body, when):
    body += request("GET /hello?smuggled-behind-malformed-chunks")
    client.send(request("PUT /refuse-with-body", CHUNKED), body if when == "with the head" else b"")
    head, answer = client.receive_response()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in head
    assert answer == b"too large"
    if when == "after the response":
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            client.send(body)
    assert client.receive_all() == b""
    client.close()
    assert b"smuggled-behind-malformed-chunks" not in server.get("/seen")


def test_a_response_that_has_started_breaks_off_at_a_malformed_chunk(client):
    client.send(request("PUT /yield-then-read", CHUNKED), b"5\r\nhello\r\nzz\r\n")
    answer = client.receive_all()
    check_only_answer(answer, 200)
    assert answer.endswith(b"\r\n\r\nfirst ")


# Errors that the application swallows: it catches them and sends no response.


def end_of_log(server):
    """Return the number of lines in the log, once all earlier requests are in it."""
    before = len(server.lines)
    server.get("/hello")
    server.wait_for_log("GET /hello", before)
    return len(server.lines)


def check_swallowed(server, start, name, status, kind_of_error):
    """Check that the log has the warning, and nothing else but the access log."""
    server.wait_for_log(rf"PUT /swallow\?{name}\S* HTTP/1.1 -> {status} none", start)
    [line] = [line for line in server.lines[start:] if " HTTP/1.1 -> " not in line]
    warning = (
        rf"\[WARNING\] The application caught {kind_of_error} and sent no response: the client got "
        rf"'{status} [A-Za-z ]+'\. "
        r"The body was first read in apps\.broken_bodies\.swallow \(.*, line \d+\)\. "
    )
    assert re.search(warning, line)


@pytest.mark.parametrize(
    ("where", "how"),
    [*((where, "") for where in CUT_OFF), ("half", "&generator"), ("half", "&empty-items")],
)
def test_a_cut_off_body_whose_error_the_application_swallows_gets_400(server, where, how):
    framing, sent = CUT_OFF[where]
    name, start = next(names), end_of_log(server)
    with Client(server) as client:
        client.send(request(f"PUT /swallow?{name}{how}", framing), sent)
        client.shut_down()
        answer = client.receive_all()
        if not isinstance(client.socket, ssl.SSLSocket):
            check_only_answer(answer, 400)
            assert answer.endswith(b"\r\n\r\n")
    check_swallowed(server, start, name, 400, "ClientDisconnected")


@malformed
def test_malformed_chunks_whose_error_the_application_swallows_get_400(server, body):
    name, start = next(names), end_of_log(server)
    with Client(server) as client:
        client.send(request(f"PUT /swallow?{name}", CHUNKED), body)
        check_only_answer(client.receive_all(), 400)
    check_swallowed(server, start, name, 400, "MalformedBody")


def test_a_body_over_a_limit_whose_error_the_application_swallows_gets_413(worker):
    policy = {"GUNICORN_EXPECT_POLICY": "apps.deciding:policy_by_path"}
    with Server(worker=WORKERS[worker][0], env=policy) as server:
        start = end_of_log(server)
        with Client(server) as client:
            client.send(request("PUT /swallow?limit&", CHUNKED), b"5\r\nhello\r\n")
            check_only_answer(client.receive_all(), 413)
        check_swallowed(server, start, "limit", 413, "ContentTooLarge")


def test_a_result_without_start_response_gets_500(client):
    client.send(request("PUT /swallow?text&text", CHUNKED), b"no size\r\n")
    check_only_answer(client.receive_all(), 500)


# Stalled.


#: Seconds that the server `impatient` waits for the next bytes.
IMPATIENCE = 0.2


@pytest.fixture(
    scope="module",
    params=list(itertools.product(WORKERS, ["tcp", "tls"])),
    ids="-".join,
)
def impatient(request, certificates):
    worker, transport = request.param
    with Server(
        worker=WORKERS[worker][0],
        transport=transport,
        certificates=certificates,
        env={"GUNICORN_EXPECT_BODY_TIMEOUT": f"{IMPATIENCE}", "GUNICORN_EXPECT_MIN_RATE": "0"},
    ) as server:
        yield server


@pytest.mark.parametrize("where", ["no byte", "half", "half a chunk", "no last chunk"])
def test_a_client_that_stalls_gets_408(impatient, where):
    framing, sent = CUT_OFF[where]
    name = next(names)
    with Client(impatient) as client:
        client.send(request(f"PUT /tell-broken?{name}", framing), sent)
        answer = client.receive_all()
        check_only_answer(answer, 408)
        assert answer.endswith(b"\r\n\r\n")
        impatient.board.wait(f"{name}-BodyTimeout")


def test_a_client_that_stalls_after_its_100_gets_408(impatient):
    with Client(impatient) as client:
        client.send(waiting("PUT /read", SIZED))
        assert client.receive(len(CONTINUE)) == CONTINUE
        check_only_answer(client.receive_all(), 408)


@pytest.mark.parametrize("how", ["", "&generator"])
@pytest.mark.parametrize("where", ["half", "half a chunk"])
def test_a_stall_whose_error_the_application_swallows_gets_408(impatient, where, how):
    framing, sent = CUT_OFF[where]
    name, start = next(names), end_of_log(impatient)
    with Client(impatient) as client:
        client.send(request(f"PUT /swallow?{name}{how}", framing), sent)
        check_only_answer(client.receive_all(), 408)
    check_swallowed(impatient, start, name, 408, "BodyTimeout")


def test_an_application_may_answer_a_client_that_stalls(impatient):
    with Client(impatient) as client:
        client.send(request("PUT /read-broken", SIZED), b"hello")
        answer = client.receive_all()
        check_only_answer(answer, 200)
        assert answer.endswith(b"\r\n\r\nBodyTimeout")


@pytest.mark.parametrize("path", ["/yield-then-read", "/write-then-read"])
def test_a_response_that_has_started_breaks_off_when_its_client_stalls(impatient, path):
    with Client(impatient) as client:
        client.send(request(f"PUT {path}", SIZED), b"hello")
        answer = client.receive_all()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.endswith((b"\r\n\r\nfirst ", b"\r\n\r\nno"))


def sent_in_time(client, last, *, longest):
    """Send 10 bytes one after the other; return whether all pauses were shorter than this."""
    pause = threading.Event()
    for _ in range(10):
        pause.wait(0.05)  # 10 of these are longer than one pause may be
        client.send(b"x")
        if time.monotonic() - last >= longest:
            return False  # this machine is busy
        last = time.monotonic()
    return True


def test_without_a_minimum_rate_a_client_with_short_pauses_may_take_any_time(impatient):
    for _ in range(100):
        with Client(impatient) as client:
            begun = time.monotonic()
            client.send(waiting("PUT /read", "Content-Length: 10"))
            assert client.receive(len(CONTINUE)) == CONTINUE
            with contextlib.suppress(OSError):  # a pause was too long, and the server has closed
                if sent_in_time(client, begun, longest=IMPATIENCE):
                    assert client.receive_response()[1] == b"x" * 10
                    return
    pytest.fail("this machine is too busy for a client to be in time")


# Slow.


def test_a_client_that_is_too_slow_gets_408(worker, transport, certificates):
    """Its pauses are short, but it sends far less than the minimum rate."""
    with (
        Server(
            worker=WORKERS[worker][0],
            transport=transport,
            certificates=certificates,
            env={"GUNICORN_EXPECT_BODY_TIMEOUT": "0.5", "GUNICORN_EXPECT_MIN_RATE": "1000000"},
        ) as server,
        Client(server) as client,
    ):
        client.send(request("PUT /tell-broken?slow", "Content-Length: 1000000000"))
        with sending_on(client.send, b"x" * 100, every=0.01):
            server.board.wait("slow-BodyTimeout")
            head = client.receive_head()
        check_only_answer(head, 408)


@pytest.mark.parametrize(
    ("worker", "transport"),
    [("thread", "tcp"), ("thread", "tls"), ("gevent", "tcp"), ("sync", "tcp")],
)
def test_a_body_that_arrives_within_the_timeout_gets_200_whatever_its_rate(
    worker, transport, certificates
):
    """By default a client has 30 s, and one more for every 240 bytes; each of these takes 5.2 s."""
    uploads = {
        "one byte": (SIZED.replace("10", "1"), b"", b"x"),
        "all of it": ("Content-Length: 342", b"", b"x" * 342),
        "its last byte": ("Content-Length: 1200", b"x" * 1199, b"x"),
        "a chunk": (CHUNKED, b"", b"5\r\nhello\r\n0\r\n\r\n"),
        "the last chunk": (CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"),
        "the beginning": ("Content-Length: 300000", b"", b"x" * 300_000),
    }
    if worker == "sync":  # one at a time
        uploads = {"its last byte": uploads["its last byte"]}
    with (
        Server(worker=WORKERS[worker][0], transport=transport, certificates=certificates) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = {name: stack.enter_context(Client(server)) for name in uploads}
        for name, (framing, begin, _) in uploads.items():
            clients[name].send(request("PUT /read", framing), begin)
        threading.Event().wait(5.2)  # the clients' pause
        for name, (_, _, end) in uploads.items():
            clients[name].send(end)
        heads = {name: client.receive_response()[0][:12] for name, client in clients.items()}
        assert heads == dict.fromkeys(uploads, b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("framing", "half"), [(SIZED, b"hello"), (CHUNKED, b"a\r\nhello")], ids=["sized", "chunked"]
)
def test_a_body_can_not_be_read_after_the_application_has_interrupted_a_read(framing, half):
    with Server(worker=WORKERS["gevent"][0]) as server, Client(server) as client:
        client.send(request("PUT /read-for-a-moment", framing), half)
        # What the read had received is lost: the rest could not be told from the next request.
        answer = client.receive_all()
        check_only_answer(answer, 504)
        assert answer.endswith(b"\r\n\r\nOSError")


# Many clients that wait.


@pytest.mark.parametrize("worker", ["thread", "gevent"])
def test_clients_that_send_nothing_after_their_100_do_not_keep_others_from_being_served(worker):
    with Server(worker=WORKERS[worker][0]) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(200)]
        for client in clients:
            client.send(waiting("PUT /read", "Content-Length: 4"))
        for client in clients:
            assert client.receive(len(CONTINUE)) == CONTINUE
        for _ in range(20):
            assert server.get("/hello") == b"hello"
            with Client(server) as client:
                client.send(request("PUT /read", "Content-Length: 5"))
                client.send(b"hello")
                assert client.receive_response()[1] == b"hello"
        for number, client in enumerate(clients[:100]):
            client.send(b"%04d" % number)
        for number, client in enumerate(clients[:100]):
            assert client.receive_response()[1] == b"%04d" % number
        stack.close()
        if worker == "gevent":  # it has no threads
            return
        # The additional threads end: the main thread and --threads are left.
        until(lambda: json.loads(server.get("/threads")) <= 1 + 8)
