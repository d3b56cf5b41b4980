"""The probe: the events that it records, the verdict, the output, and what it never prints."""

import contextlib
import dataclasses
import json
import re
import shlex
import socket
import ssl
import struct
import subprocess
import sys
import threading

import pytest

from gunicorn_expect.__main__ import main
from gunicorn_expect.probe import timeline
from gunicorn_expect.probe.question import Manner
from gunicorn_expect.probe.verdict import NOTES, RULES, judge
from support import CHECKOUT, PATIENCE
from support.client import CONTINUE
from support.probe_page import BLOCKS, PAGE, blocks, masked
from support.relay import Relay
from support.scripted_server import ScriptedServer
from support.server import Server

PATH = "/files/big.iso"
TOKEN = "Authorization: Bearer letmein"
APP = "examples.flask_upload:app"


class ProbeResult:
    """The JSON output of the probe."""

    def __init__(self, status, output):
        result = json.loads(output)
        self.status = status
        self.verdict = result["verdict"]
        self.events = [event["event"] for event in result["timeline"]]
        self.timeline = result["timeline"]

    def of(self, name):
        """Return the only event of this name."""
        [event] = [event for event in self.timeline if event["event"] == name]
        return event


@pytest.fixture
def run(capsys):
    """Return a function that runs the probe in this process."""

    def run(*arguments):
        status = main(["probe", "--json", *arguments])
        output = capsys.readouterr()
        assert output.err == ""
        result = ProbeResult(status, output.out)
        assert result.verdict["status"] == status
        return result

    return run


# The verdict about a timeline.

OPENING = (timeline.Connected(-1, "-"), timeline.HeadSent(0, "PUT", "/", (), 10))
WHOLE = timeline.Whole(6, 0)
END = timeline.Closed(7, "end")
RESET = timeline.Closed(7, "reset")
LEFT = timeline.Left(1000, 1.0)
SENT = timeline.BodySent(5, 10, 10)


def interim(status=100, at=2, **fields):
    return timeline.Interim(at, status, "", tuple(fields.items()))


def final(status, at=5, *, closes=True, **fields):
    return timeline.Final(at, status, "", tuple(fields.items()), closes, 0)


KEEPS = final(401, closes=False)

WAITS, SENDS, IMPATIENT = Manner
VERDICTS = [
    ("unreachable", [timeline.Unreachable(0, "Connection refused")], WAITS, None),
    ("continue-in-answer", [final(401), WHOLE, interim(at=6), END], WAITS, 401),
    ("continue-in-answer", [final(200), timeline.ContinueInContent(5), WHOLE, END], WAITS, None),
    ("continue-in-answer", [interim(), final(401), interim(at=6), RESET], WAITS, 401),
    ("second-answer", [final(401), WHOLE, final(400), WHOLE, END], IMPATIENT, 401),
    ("malformed", [timeline.Malformed(1, "illegal status line")], WAITS, None),
    ("malformed", [final(401), WHOLE, timeline.Malformed(1, "illegal status line")], WAITS, 401),
    ("cut-off", [final(401), timeline.CutOff(6), RESET], IMPATIENT, 401),
    ("cut-off", [final(401), LEFT], WAITS, 401),
    ("cut-off", [timeline.CutOff(6), END], WAITS, None),
    ("closed", [END], WAITS, None),
    ("closed", [RESET], SENDS, 401),
    ("closed", [interim(103), END], WAITS, None),
    ("silence", [LEFT], WAITS, None),
    ("silence", [interim(102), LEFT], WAITS, 401),
    ("two-continues", [interim(), interim(), LEFT], WAITS, None),
    ("two-continues", [interim(), interim(), final(401), WHOLE, END], WAITS, 401),
    ("other-interim", [interim(103), interim(), LEFT], WAITS, None),
    ("other-interim", [interim(103), final(401), WHOLE, END], WAITS, 401),
    ("refusal-heard", [interim(103), final(401), WHOLE, END], IMPATIENT, 401),
    ("continued", [interim(), interim(102), LEFT], WAITS, None),
    ("expectation-failed", [final(417), WHOLE, END], WAITS, None),
    ("expectation-failed", [final(417), WHOLE, END], WAITS, 401),
    ("refused-first", [final(417), WHOLE, END], WAITS, 417),
    ("continue-instead", [interim(), LEFT], WAITS, 401),
    ("continue-instead", [interim(), SENT, LEFT], SENDS, 401),
    ("other-answer", [final(403), WHOLE, END], WAITS, 401),
    ("other-answer", [interim(), final(200), WHOLE, END], SENDS, 401),
    ("other-answer", [final(200), WHOLE, END], IMPATIENT, 401),
    ("refusal-heard", [final(401), WHOLE, SENT, RESET], IMPATIENT, 401),
    ("refused-behind-continue", [interim(), final(401), WHOLE, LEFT], WAITS, 401),
    ("refused-behind-continue", [interim(), final(401), WHOLE, SENT, END], SENDS, 401),
    ("refused-first", [final(401), WHOLE, END], WAITS, 401),
    ("refused-first", [KEEPS, WHOLE, LEFT], SENDS, 401),
    ("refused", [final(401), WHOLE, END], WAITS, None),
    ("refused", [interim(), final(401), WHOLE, END], WAITS, None),
    ("refused", [final(503), WHOLE, END], IMPATIENT, None),
    ("no-answer", [interim(), SENT, LEFT], SENDS, None),
    ("no-answer", [interim(), SENT, END], IMPATIENT, None),
    ("continued", [interim(), LEFT], WAITS, None),
    ("continued", [interim(), END], WAITS, None),
    ("accepted", [interim(), SENT, final(201), WHOLE, LEFT], SENDS, None),
    ("accepted", [SENT, final(201), WHOLE, LEFT], IMPATIENT, None),
    ("answered-unasked", [final(200), WHOLE, END], WAITS, None),
    ("answered-unasked", [final(302), WHOLE, END], SENDS, None),
]
STATUSES = {name: status for name, status, _, _ in RULES}


@pytest.mark.parametrize(("name", "events", "manner", "refusal"), VERDICTS)
def test_the_verdict_follows_from_the_timeline(name, events, manner, refusal):
    verdict = judge((*OPENING, *events), manner, refusal)
    assert (verdict.name, verdict.status) == (name, STATUSES[name])
    assert "{" not in verdict.text
    assert "None" not in verdict.text


def test_every_verdict_is_tested():
    assert {name for name, *_ in VERDICTS} == set(STATUSES)
    assert {name for name, status in STATUSES.items() if status == 0} == {
        *("refusal-heard", "refused-first", "accepted", "continued"),
    }


NOTED = [
    ("The first response is late", [interim(at=1001), LEFT], WAITS, None),
    ("The first response is late", [final(401, 1001), WHOLE, END], WAITS, 401),
    ("After a 417", [final(417), WHOLE, END], WAITS, 417),
    ("The response has no Connection: close", [KEEPS, WHOLE, LEFT], WAITS, 401),
    ("The response has Connection: close, but", [final(401), WHOLE, LEFT], WAITS, 401),
    ("The connection was closed", [interim(), KEEPS, WHOLE, END], WAITS, 401),
    ("The connection was reset", [final(401), WHOLE, RESET], WAITS, 401),
]
NOT_NOTED = [
    ("The first response is late", [final(201, 1001), WHOLE, LEFT], IMPATIENT, None),
    ("The first response is late", [interim(at=1000), LEFT], WAITS, None),
    ("The response has no Connection: close", [interim(), KEEPS, WHOLE, LEFT], WAITS, 401),
    ("The response has no Connection: close", [KEEPS, WHOLE, LEFT], IMPATIENT, 401),
    ("The response has Connection: close, but", [final(401), WHOLE, END], WAITS, 401),
    ("The connection was closed", [final(401), WHOLE, END], WAITS, 401),
    ("The connection was closed", [interim(), END], WAITS, 401),
    ("The connection was reset", [RESET], WAITS, 401),
]


@pytest.mark.parametrize(("beginning", "events", "manner", "refusal"), NOTED)
def test_a_note_is_shown_if_its_condition_holds(beginning, events, manner, refusal):
    [note] = judge((*OPENING, *events), manner, refusal).notes
    assert note.startswith(beginning)


@pytest.mark.parametrize(("beginning", "events", "manner", "refusal"), NOT_NOTED)
def test_a_note_is_not_shown_if_its_condition_does_not_hold(beginning, events, manner, refusal):
    notes = judge((*OPENING, *events), manner, refusal).notes
    assert not any(note.startswith(beginning) for note in notes)


def test_every_note_is_tested():
    assert len({beginning for beginning, *_ in NOTED}) == len(NOTES)


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([interim(Server="Caddy"), final(401)], "The 100 says Server: Caddy. Nothing"),
        ([interim(Via="1.1 a"), LEFT], "The 100 says Via: 1.1 a."),
        (
            [interim(), final(401, Server="nginx/1.2")],
            "The 401 says Server: nginx/1.2. nginx",
        ),
        ([interim(), final(401, Server="gunicorn")], "The 401 says Server: gunicorn. gunicorn's"),
        ([interim(), final(401, Server="a", Via="b")], "The 401 says Server: a, Via: b."),
        ([interim(), final(401)], "No Server or Via field names the server."),
        ([final(401, Server="nginx/1.2")], "The 401 says Server: nginx/1.2."),
    ],
)
def test_the_verdict_names_the_servers_that_the_responses_name(events, sentence):
    text = judge((*OPENING, *events, WHOLE, END), WAITS, 401).text
    assert sentence.removesuffix(" Nothing") in text
    assert ("itself" in text) == ("nginx" in sentence and len(events) == 2)


# Responses of a scripted server.

RESETS = "reset"
ENDS = "end"
STAYS = "stay"


class AnswersOneHead(ScriptedServer):
    """Receives a request head, sends these pieces, and then does the last step."""

    def __init__(self, *pieces, last):
        super().__init__()
        self._pieces = pieces
        self._last = last

    def converse(self, client):
        self.receive_until(client, b"\r\n\r\n")
        for piece in self._pieces:
            client.sendall(self.received if piece is ECHO else piece)
        if self._last == RESETS:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if self._last == ENDS:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65536):
                pass


ECHO = object()
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nSet-Cookie: a=s3cret\r\n\r\n"
NO = b"HTTP/1.1 401 No\r\nServer: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
KEPT = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
LONG = b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n"
UNSIZED = b"HTTP/1.1 401 No\r\n\r\nhello"
OLD = b"HTTP/1.0 401 No\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
SPLIT = CHUNKED.replace(b"5\r\nhello", b"7\r\nHTTP/1.\r\n12\r\n1 100 Continue\r\n\r\n")
REFUSAL = ("--refusal", "401")
SHORT = ("--timeout", "0.3")
MALFORMED = b"HTTP/1.1 one hundred\r\n\r\n"

SCRIPTS = {
    "a refusal": ([NO], ENDS, REFUSAL, "refused-first", "Final Whole Closed"),
    "kept": ([KEPT], STAYS, REFUSAL, "refused-first", "Final Whole Left"),
    "kept, HTTP/1.0": ([OLD], STAYS, REFUSAL, "refused-first", "Final Whole Left"),
    "not closed": ([NO], STAYS, REFUSAL, "refused-first", "Final Whole Left"),
    "reset after it": ([NO], RESETS, REFUSAL, "refused-first", "Final Whole Closed"),
    "in chunks": ([CHUNKED], ENDS, REFUSAL, "refused-first", "Final Whole Closed"),
    "ends by closing": ([UNSIZED], ENDS, REFUSAL, "refused-first", "Final Whole Closed"),
    "ends by reset": ([UNSIZED], RESETS, REFUSAL, "cut-off", "Final CutOff Closed"),
    "cut off": ([LONG, b"hello"], ENDS, REFUSAL, "cut-off", "Final CutOff Closed"),
    "cut off in its head": ([NO[:20]], ENDS, REFUSAL, "cut-off", "CutOff Closed"),
    "no end": ([LONG], STAYS, (*REFUSAL, *SHORT), "cut-off", "Final Left"),
    "no response": ([], STAYS, SHORT, "silence", "Left"),
    "closed": ([], ENDS, (), "closed", "Closed"),
    "reset": ([], RESETS, (), "closed", "Closed"),
    "a 100": ([CONTINUE], STAYS, (), "continued", "Interim Left"),
    "a 100 instead": ([CONTINUE], STAYS, REFUSAL, "continue-instead", "Interim Left"),
    "two 100s": ([CONTINUE, CONTINUE], STAYS, (), "two-continues", "Interim Interim Left"),
    "a 100 and a refusal": (
        [CONTINUE, NO],
        ENDS,
        REFUSAL,
        "refused-behind-continue",
        "Interim Final Whole Closed",
    ),
    "a 100 after it": (
        [KEPT, CONTINUE],
        ENDS,
        REFUSAL,
        "continue-in-answer",
        "Final Whole Interim Closed",
    ),
    "a 100 in it": (
        [LONG, CONTINUE[:7], CONTINUE[7:], bytes(100 - len(CONTINUE))],
        ENDS,
        REFUSAL,
        "continue-in-answer",
        "Final ContinueInContent Whole Closed",
    ),
    "a 100 in it, in pieces": (
        [SPLIT],
        ENDS,
        REFUSAL,
        "continue-in-answer",
        "Final ContinueInContent Whole Closed",
    ),
    "103": ([EARLY_HINTS, CONTINUE], STAYS, (), "other-interim", "Interim Interim Left"),
    "malformed": ([MALFORMED], ENDS, (), "malformed", "Malformed"),
    "malformed after it": ([NO, b"what?\r\n\r\n"], ENDS, (), "malformed", "Final Whole Malformed"),
    "an echo": ([ECHO], ENDS, (), "malformed", "Malformed"),
    "two answers": (
        [NO, NO],
        ENDS,
        (*REFUSAL, "--impatient"),
        "second-answer",
        "Final Whole Final Whole BodySent Closed",
    ),
    "417": (
        [NO.replace(b"401", b"417")],
        ENDS,
        (),
        "expectation-failed",
        "Final Whole Closed",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_events_on_the_connection_are_in_the_timeline(run, script):
    pieces, last, arguments, name, events = SCRIPTS[script]
    with AnswersOneHead(*pieces, last=last) as server:
        result = run(*arguments, server.url)
    assert result.verdict["name"] == name
    opening = ["Connected", "HeadSent"]
    other_events = [event for event in result.events if event != "BodySent"]
    assert other_events == opening + [event for event in events.split() if event != "BodySent"]
    assert ("BodySent" in result.events) == ("--impatient" in arguments)
    times = [event["at"] for event in result.timeline]
    assert times == sorted(times)
    assert result.of("HeadSent")["at"] == 0


def test_the_timeline_shows_whether_the_response_announced_close_and_how_the_connection_ended(run):
    ways = {}
    for script in ("a refusal", "kept", "kept, HTTP/1.0", "not closed", "reset after it"):
        pieces, last, arguments, _, _ = SCRIPTS[script]
        with AnswersOneHead(*pieces, last=last) as server:
            result = run(*arguments, server.url)
        ways[script] = result.of("Final")["closes"], result.timeline[-1].get("by")
    assert ways == {
        "a refusal": (True, "end"),
        "kept": (False, None),
        "kept, HTTP/1.0": (False, None),
        "not closed": (True, None),
        "reset after it": (True, "reset"),
    }


def test_a_reset_is_reported_whether_the_probe_was_sending_or_reading(run):
    with AnswersOneHead(NO, last=RESETS) as server:
        result = run(*REFUSAL, "--impatient", "--length", "50000000", server.url)
    assert result.verdict["name"] == "refusal-heard"
    assert result.of("Closed")["by"] == "reset"
    assert any(note.startswith("The connection was reset") for note in result.verdict["notes"])


def test_the_fields_of_an_interim_response_are_shown_except_cookies(run):
    with AnswersOneHead(EARLY_HINTS, NO, last=ENDS) as server:
        result = run(server.url)
    assert result.of("Interim")["fields"] == [["Link", "</a>"], ["Set-Cookie", "***"]]


def test_the_request_head_is_made_of_the_options():
    with AnswersOneHead(NO, last=ENDS) as server:
        arguments = ["--method", "POST", "-H", "X-A: b", "-H", "Host: c", "--length", "7"]
        main(["probe", *arguments, f"{server.url}d?e=f"])
    assert server.received == (
        b"POST /d?e=f HTTP/1.1\r\nHost: c\r\nX-A: b\r\n"
        b"Expect: 100-continue\r\nContent-Length: 7\r\n\r\n"
    )


def test_control_characters_do_not_reach_the_terminal(capsys):
    server_field = NO.replace(b"Server: x", b"Server: \x1b[31mx\xe9")
    with AnswersOneHead(server_field, last=ENDS) as server:
        main(["probe", *REFUSAL, server.url])
    output = capsys.readouterr().out
    assert r"Server: \x1b[31mx\xe9" in output
    assert "\x1b" not in output


# Responses of gunicorn.


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return {"UPLOAD_FOLDER": str(tmp_path_factory.mktemp("uploads"))}


@pytest.fixture(scope="module")
def ours(uploads):
    with Server(app=APP, env=uploads) as server:
        yield server


@pytest.fixture(scope="module")
def stock(uploads):
    with Server(app=APP, env=uploads, worker="gthread") as server:
        yield server


def url(server, scheme="http"):
    return f"{scheme}://localhost:{server.address[1]}{PATH}"


def test_our_worker_sends_a_refusal_instead_of_a_100(run, ours):
    result = run(*REFUSAL, url(ours))
    notes = [note for note in result.verdict["notes"] if "late" not in note]  # on a slow machine
    assert (result.verdict["name"], notes) == ("refused-first", [])
    assert result.events == ["Connected", "HeadSent", "Final", "Whole", "Closed"]
    assert result.of("Final")["fields"] == [["Server", "gunicorn"]]
    assert result.of("Final")["closes"]
    assert result.of("Closed")["by"] == "end"


def test_an_accepted_upload_gets_a_100_and_is_not_sent_by_default(run, ours):
    with Relay(ours) as relay:
        result = run("-H", TOKEN, url(relay))
        [sent] = relay.sent_by_clients()
    assert (result.status, result.verdict["name"]) == (0, "continued")
    assert sent.endswith(b"\r\n\r\n")


def test_with_send_body_the_body_is_sent_after_a_100_only(run, ours):
    with Relay(ours) as relay:
        result = run("-H", TOKEN, "--send-body", "--length", "300000", url(relay))
        refused = run(*REFUSAL, "--send-body", url(relay))
        sent = [bytes(each.partition(b"\r\n\r\n")[2]) for each in relay.sent_by_clients()]
    assert (result.status, result.verdict["name"]) == (0, "accepted")
    assert result.of("Final")["status"] == 201
    assert result.of("Final")["body_sent"] == 300000
    assert refused.verdict["name"] == "refused-first"
    assert sent == [bytes(300000), b""]


def test_with_impatient_the_probe_gets_the_whole_refusal_of_our_worker(run, ours):
    result = run(*REFUSAL, "--impatient", "--length", "50000000", url(ours))
    assert (result.status, result.verdict["name"]) == (0, "refusal-heard")
    assert result.of("BodySent")["length"] == 50000000


def test_stock_gunicorn_sends_100_before_the_application_is_called(run, stock):
    result = run(*REFUSAL, url(stock))
    assert (result.status, result.verdict["name"]) == (1, "refused-behind-continue")
    assert "The 401 says Server: gunicorn. gunicorn's own workers" in result.verdict["text"]
    sends = run(*REFUSAL, "--send-body", url(stock))
    assert (sends.status, sends.verdict["name"]) == (1, "refused-behind-continue")


@pytest.mark.parametrize("manner", [[], ["--send-body"], ["--impatient"]])
def test_the_probe_connects_over_tls(run, uploads, certificates, manner):
    with Server(app=APP, env=uploads, transport="tls", certificates=certificates) as server:
        trusted = run(*REFUSAL, *manner, "--cacert", certificates.authority, url(server, "https"))
        accepted = run("-H", TOKEN, *manner, "--insecure", url(server, "https"))
        untrusted = run(*REFUSAL, url(server, "https"))
    assert trusted.status == 0
    assert trusted.events[:3] == ["Connected", "Secured", "HeadSent"]
    assert trusted.of("Secured")["version"].startswith("TLSv1.")
    assert accepted.verdict["name"] == ("accepted" if manner else "continued")
    assert (untrusted.status, untrusted.verdict["name"]) == (2, "unreachable")
    assert "certificate" in untrusted.verdict["text"]


def test_a_server_that_requires_a_client_certificate_is_recognized(run, certificates):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority)
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.verify_mode = ssl.CERT_REQUIRED
    # With TLS 1.3 the client's handshake is complete before the server checks its certificate.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    answered = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with context.wrap_socket(connection, True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            answered.wait(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        result = run("--cacert", certificates.authority, f"https://localhost:{port}/")
        answered.set()
        thread.join(PATIENCE)
    assert result.verdict["name"] == "malformed"
    assert result.of("Malformed")["reason"] == "TLS: TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_the_probe_connects_over_a_unix_socket(run, uploads):
    with Server(app=APP, env=uploads, transport="unix") as server:
        arguments = ["--unix-socket", server.address, f"http://files.example{PATH}"]
        result = run(*REFUSAL, *arguments)
        assert result.of("Connected")["to"] == server.address
        assert run("-H", TOKEN, *arguments).status == 0
    assert result.status == 0


def test_without_a_server_the_verdict_is_unreachable(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    for arguments in ([closed], ["--unix-socket", str(tmp_path / "none"), closed]):
        result = run(*arguments)
        assert (result.status, result.verdict["name"]) == (2, "unreachable")
        assert result.events == ["Unreachable"]


# The command.


def command(*arguments, code=None):
    """Run the command in another process."""
    program = ["-c", code] if code else ["-m", "gunicorn_expect"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_probe_runs_with_python_m(ours):
    assert command("probe", *REFUSAL, url(ours)).returncode == 0
    assert command("probe", url(ours)).returncode == 1
    assert command("probe", "--help").returncode == 0


def test_without_h11_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['h11'] = None; "
        "from gunicorn_expect.__main__ import main; sys.exit(main())"
    )
    result = command("probe", "http://localhost/", code=code)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("the probe needs the extra gunicorn-expect[probe]: ")


SECRET = "s3cret"
HERE = "http://localhost/"
ERRORS = {
    "no command": ([], "required: COMMAND"),
    "no URL": (["probe"], "required: URL"),
    "another scheme": (["probe", "ftp://s3cret/"], "has to be http://"),
    "no host": (["probe", "http:///s3cret"], "has to be http://"),
    "a user": (["probe", "http://me:s3cret@localhost/"], "give a field Authorization by -H"),
    "a port": (["probe", "http://me:s3cret@localhost:http/"], "the port of the URL is malformed"),
    "no address": (["probe", "http://s3cret@[::/"], "the host or the port"),
    "the URL's characters": (["probe", "http://localhost/s3cret d"], "Illegal target"),
    "not ASCII": (["probe", "http://localhost/s3crét"], "percent-encode"),
    "a method": (["probe", "--method", "P UT", HERE], "Illegal method"),
    "no colon": (["probe", "-H", "Authorization s3cret", HERE], "has no colon"),
    "a line's end": (["probe", "-H", "A: s3cret\nB: c", HERE], "the field A has"),
    "a name": (["probe", "-H", "A b: s3cret", HERE], "the field A b has"),
    "the probe's own": (["probe", "-H", "Expect: s3cret", HERE], "is for the probe"),
    "the length": (["probe", "-H", "content-length: 1", HERE], "--length says"),
    "two hosts": (
        ["probe", "-H", "Host: a", "-H", "Host: b", HERE],
        "multiple Host",
    ),
    "not quoted": (
        ["probe", "-H", "Authorization:", "Bearer", "s3cret", HERE],
        "unknown arguments: 2.",
    ),
    "misspelt": (["probe", "--heder=A: s3cret", HERE], "unknown arguments: 1."),
    "too early": (["-H", "A: s3cret", "probe", HERE], "invalid choice"),
    "a value for a flag": (["probe", "--json=s3cret", HERE], "ignored explicit"),
    "no body": (["probe", "--length", "0", HERE], "1 or more"),
    "no status": (["probe", "--refusal", "s3cret", HERE], "like 401"),
    "an interim": (["probe", "--refusal", "100", HERE], "like 401"),
    "no time": (["probe", "--timeout", "0", HERE], "more than 0"),
    "no number": (["probe", "--timeout", "s3cret", HERE], "more than 0"),
    "both": (["probe", "--send-body", "--impatient", HERE], "not allowed with"),
    "no file": (["probe", "--cacert", "/none", HERE], "--cacert can't be used"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_the_error_of_a_bad_option_shows_no_secret(capsys, error):
    arguments, message = ERRORS[error]
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "s3cr" not in output.err
    assert output.out == ""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_nothing_secret_is_printed(capsys, script, form):
    pieces, last, arguments, _, _ = SCRIPTS[script]
    names = ["Authorization", "proxy-authorization", "Cookie", "X-Api-Key"]
    fields = [part for name in names for part in ("-H", f"{name}: Bearer {SECRET}")]
    with AnswersOneHead(*pieces, last=last) as server:
        main(["probe", *arguments, *form, *SHORT, *fields, f"{server.url}?token={SECRET}"])
    assert server.received.count(SECRET.encode()) == 5
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err
    assert "X-Api-Key" in output.out


def test_the_text_has_a_line_for_each_event(capsys, ours):
    main(["probe", "-H", TOKEN, "--send-body", url(ours)])
    lines = capsys.readouterr().out.splitlines()
    times = r"^ *-?[\d.]+ ms  |(?<=nothing more for )[\d.]+ s"
    events = [re.sub(times, "", line) for line in lines]
    assert events[0].startswith("connected to 127.0.0.1:")
    assert events[1 : events.index("")] == [
        f"head sent: PUT {PATH}, 1048576 bytes announced, Authorization: ***",
        "100 Continue",
        "1048576 of 1048576 bytes of the body sent",
        "201 CREATED, Server: gunicorn",
        "the response is complete, with 110 bytes of content",
        "nothing more for : the probe closed the connection",
    ]


# The page.


SHOWN = [*blocks("127.0.0.1:8000"), *blocks("127.0.0.1:8001")]


@pytest.mark.parametrize(("line", "output"), SHOWN, ids=range(len(SHOWN)))
def test_the_page_shows_what_its_commands_print(capsys, ours, stock, line, output):
    for place, server in {"127.0.0.1:8000": ours, "127.0.0.1:8001": stock}.items():
        line = line.replace(place, "{}:{}".format(*server.address))
    main(shlex.split(line))
    assert masked(capsys.readouterr().out) == masked(output)


def test_every_block_of_the_page_is_run():
    run_here = len(blocks("127.0.0.1:8000")), len(blocks("127.0.0.1:8001"))
    run_before_a_proxy = len(blocks("127.0.0.1:8080"))
    assert (*run_here, run_before_a_proxy) == (3, 1, 1)
    assert PAGE.count("```") == 2 * len(BLOCKS) == 2 * (sum(run_here) + run_before_a_proxy)


def test_the_page_has_all_verdicts_and_events():
    verdicts = re.findall(r"^\| `([a-z0-9-]+)` \| ([012]) \|", PAGE, re.MULTILINE)
    assert verdicts == [(name, str(status)) for name, status, _, _ in RULES]
    events = re.findall(r"^\| `([A-Z]\w+)` \| (.*) ?\|$", PAGE, re.MULTILINE)
    assert {name: re.findall(r"`(\w+)`", fields) for name, fields in events} == {
        kind.__name__: [field.name for field in dataclasses.fields(kind)][1:]
        for kind in timeline.Event.__subclasses__()
    }


def test_the_page_has_all_options(capsys):
    with pytest.raises(SystemExit):
        main(["probe", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    table = PAGE.partition("## Options")[2].partition("## Exit")[0]
    assert set(re.findall(r"--[a-z-]+", table)) - {"---"} == options
