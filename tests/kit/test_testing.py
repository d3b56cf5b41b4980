"""`TestApp` of `gunicorn_expect.testing`: uploads without a server, as they are on the wire."""

import dataclasses
import http.client
import json
import os
import subprocess
import sys

import pytest
import webob
import webtest

import gunicorn_expect.testing
from apps import deciding, router
from gunicorn_expect import BodyTimeout, ClientDisconnected, Proceed, Refuse, State
from gunicorn_expect.answer import KEY
from gunicorn_expect.decision import EXITS_KEY
from gunicorn_expect.settings import BadSettingError
from gunicorn_expect.testing import DecidedBy, Interim, TestApp, TestRequest
from support import CHECKOUT
from support.client import Client, request
from support.server import Server

TEXT = ("Content-Type", "text/plain")
MANNERS = [{"leaves_after": 5}, {"stalls_after": 5}]


def upload(environ, start_response):
    """Refuse a request without a token, or with a large body; otherwise answer with the body."""
    if "HTTP_AUTHORIZATION" not in environ:
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return []
    if int(environ.get("CONTENT_LENGTH") or 0) > 10**6:
        start_response("413 Content Too Large", [])
        return []
    body = environ["wsgi.input"].read()
    start_response("201 Created", [TEXT])
    return [body]


def reading(how):
    """Return an application that answers with the result of ``how(environ["wsgi.input"])``."""

    def application(environ, start_response):
        result = how(environ["wsgi.input"])
        start_response("200 OK", [TEXT])
        return [result if isinstance(result, bytes) else repr(result).encode()]

    return application


@pytest.fixture
def app():
    app = TestApp(upload)
    app.authorization = ("Bearer", "letmein")
    return app


def wire_app(**options):
    """Return a TestApp of the applications of the wire tests.

    Without lint: their responses have no Content-Type.
    """
    return TestApp(
        router.app, extra_environ={"RAW_URI": "/"}, lint=False, policy=deciding.policy, **options
    )


# What a response says about its upload.


def test_refused_unread_is_true_for_a_view_that_refuses_before_it_reads():
    assert TestApp(upload).put("/f", b"x" * 10**6, expect=True, status=401).refused_unread


def test_webtest_raises_for_a_refusal_unless_its_status_is_expected():
    with pytest.raises(webtest.AppError, match="401"):
        TestApp(upload).put("/f", b"x", expect=True)


def test_an_upload_that_is_read_gets_a_100(app):
    answer = app.put("/f", b"hello", expect=True)
    assert (answer.status, answer.body) == ("201 Created", b"hello")
    assert answer.continued
    assert answer.interim == [Interim(100, [])]
    assert answer.body_bytes_read == 5
    assert answer.decided_by is DecidedBy.APPLICATION_READ
    assert not answer.refused_unread


def test_a_client_without_expect_gets_no_100(app):
    answer = app.put("/f", b"hello")
    assert answer.body == b"hello"
    assert answer.interim == []
    assert not answer.continued
    assert answer.body_bytes_read == 5
    assert answer.decided_by is DecidedBy.NOBODY


def test_refused_unread_is_true_without_expect_as_well():
    answer = TestApp(upload).put("/f", b"x", status=401)
    assert answer.refused_unread
    assert answer.decided_by is DecidedBy.NOBODY


@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("fields", [{}, {"SERVER_PROTOCOL": "HTTP/1.0"}])
def test_a_request_without_a_body_or_of_http_1_0_gets_no_100(app, body, fields):
    answer = app.put("/f", body, expect=True, extra_environ=fields)
    assert answer.continued is (body != b"" and not fields)
    assert (answer.decided_by is DecidedBy.NOBODY) is not answer.continued
    assert answer.body == body


def test_refused_unread_is_false_for_a_request_without_a_body():
    assert not TestApp(upload).get("/f", status=401).refused_unread
    assert not TestApp(upload).put("/f", b"", expect=True, status=401).refused_unread


def test_refused_unread_is_false_after_a_read_or_a_100():
    app = wire_app()
    answer = app.put("/read-then-refuse", b"hello\nyou", expect=True, status=403)
    assert (answer.continued, answer.body_bytes_read) == (True, 9)
    assert not answer.refused_unread
    answer = app.put("/proceed-and-refuse", b"hello", expect=True, status=403)
    assert (answer.continued, answer.body_bytes_read) == (True, 0)
    assert not answer.refused_unread
    answer = app.put("/read-then-refuse", b"hello", status=403)
    assert not answer.refused_unread


def test_refused_unread_is_false_for_a_2xx_response():
    answer = wire_app().put("/hello", b"hello", expect=True)
    assert not answer.refused_unread
    assert answer.decided_by is DecidedBy.APPLICATION_ANSWERED


@pytest.mark.parametrize(
    ("decision", "who"),
    [
        (None, DecidedBy.APPLICATION_READ),
        (Proceed(), DecidedBy.POLICY_PROCEEDED),
        (Refuse(413), DecidedBy.POLICY_REFUSED),
    ],
)
def test_decided_by_tells_whether_the_policy_or_the_application_decided(decision, who):
    app = TestApp(reading(lambda body: body.read()), policy=lambda environ: decision)
    answer = app.put("/f", b"hello", expect=True, status="*")
    assert answer.decided_by is who
    assert answer.refused_unread is (who is DecidedBy.POLICY_REFUSED)


def test_a_policy_may_be_an_import_path():
    answer = TestApp(upload, policy="apps.deciding:Policies.strict").put("/f", b"x", status=403)
    assert answer.refused_unread


@pytest.mark.parametrize("policy", ["no place", "apps.deciding:nothing", 7, lambda: None])
def test_a_test_app_refuses_a_policy_that_is_not_one(policy):
    with pytest.raises(BadSettingError, match="expect_policy is "):
        TestApp(upload, policy=policy)


# The body.


@pytest.mark.parametrize(
    ("how", "count"),
    [
        (lambda body: body.read(), 12),
        (lambda body: body.read(5), 5),
        (lambda body: body.readline(), 4),
        (lambda body: body.readlines(), 12),
        (lambda body: body.readlines(1), 4),
        (lambda body: next(body), 4),
        (lambda body: list(body), 12),
        (lambda body: body.readinto(bytearray(7)), 7),
        (lambda body: body.readinto(bytearray(20)), 12),
        (lambda body: body.read(0), 0),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_body_bytes_read_counts_what_the_application_got(how, count, chunked):
    answer = TestApp(reading(how)).put("/f", b"one\ntwo\nthre", expect=True, chunked=chunked)
    assert answer.body_bytes_read == count
    assert answer.continued is (count > 0)


def test_a_chunked_body_has_no_length():
    def application(environ, start_response):
        assert environ["wsgi.input_terminated"]
        assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"
        assert "CONTENT_LENGTH" not in environ
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read()]

    content = bytes(100_000)
    answer = TestApp(application).put("/f", content, chunked=True, expect=True)
    assert answer.body == content
    assert answer.continued


def test_a_request_may_announce_more_bytes_than_it_sends(app):
    """So a test of a large upload needs no large body."""
    fields = {"Content-Length": str(5 * 1024**3)}
    assert app.put("/f", b"", fields, expect=True, status=413).refused_unread


@pytest.mark.parametrize("expect", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("manners", "status"),
    [({"leaves_after": 5}, "400 Bad Request"), ({"stalls_after": 5}, "408 Request Timeout")],
)
def test_a_body_that_is_cut_off_or_stalls_gets_400_or_408(app, expect, chunked, manners, status):
    answer = app.put("/f", b"hello world", expect=expect, chunked=chunked, status="*", **manners)
    assert answer.status == status
    assert answer.continued is expect
    assert not answer.refused_unread or not expect


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize(
    ("manners", "error"),
    [({"leaves_after": 5}, ClientDisconnected), ({"stalls_after": 5}, BodyTimeout)],
)
def test_a_read_raises_the_same_error_as_on_the_wire(chunked, size, manners, error):
    def how(body):
        return [read(body), read(body)]

    def read(body):
        try:
            return body.read(size)
        except OSError as raised:
            return type(raised)

    answer = TestApp(reading(how)).put("/f", b"hello world", chunked=chunked, **manners)
    assert answer.text == repr([b"hello", error] if size == 5 else [error, error])


def test_a_client_that_stalls_does_not_delay_the_test():
    """On the wire it would take 30 s."""
    answer = TestApp(upload, extra_environ={"HTTP_AUTHORIZATION": "x"}).put(
        "/f", b"hello", stalls_after=0, status=408
    )
    assert answer.body_bytes_read == 0


@pytest.mark.parametrize(
    ("manners", "message"),
    [
        ({"leaves_after": 5, "stalls_after": 5}, "not both"),
        ({"leaves_after": -1}, "leaves_after is -1; it takes a number of bytes"),
    ],
)
def test_bad_arguments_for_the_client_are_an_error(app, manners, message):
    with pytest.raises(ValueError, match=message):
        app.put("/f", b"x", **manners)


@pytest.mark.parametrize("expect", [False, True])
def test_a_limit_of_the_policy_applies_to_chunks(expect):
    answer = wire_app().put(
        "/read", b"hello", {"X-Decide": "limit 3"}, chunked=True, expect=expect, status=413
    )
    assert answer.continued is expect
    assert answer.body_bytes_read == 0


# Interim responses, the policy, and errors.


def test_a_100_has_its_header_fields_and_early_hints_come_after_it():
    answer = wire_app().put("/hints", b"hello", {"X-Decide": "proceed"}, expect=True)
    assert answer.interim == [
        Interim(100, [("X-Said", "go on")]),
        Interim(103, [("Link", "</before>")]),
        Interim(103, [("Link", "</after>")]),
    ]
    answer = wire_app().put("/hints", b"hello", expect=True)
    assert answer.interim == [Interim(100, []), Interim(103, [("Link", "</after>")])]
    assert wire_app().put("/hints-and-refuse", b"x", expect=True, status=403).interim == []


def test_interim_responses_are_recorded_in_their_order():
    created, received = (
        Interim(104, [("Location", "/uploads/7")]),
        Interim(104, [("Upload-Offset", "5")]),
    )
    assert wire_app().put("/inform", b"hello").interim == [created, received]
    assert wire_app().get("/inform").interim[0] == created
    answer = wire_app().put("/inform", b"hello", expect=True)
    assert answer.interim == [Interim(100, []), received]
    answer = wire_app().put("/inform", b"hello", {"Upload-Complete": "?1"}, expect=True)
    assert answer.interim == [created, Interim(100, []), received]


def test_early_hints_are_not_sent_after_the_response_has_started():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"one"
        environ["wsgi.early_hints"]([("Link", "</late>")])
        yield b"two"

    assert TestApp(application).get("/").interim == []
    assert TestApp(application).put("/", b"x").interim == []


def test_early_hints_are_not_sent_to_http_1_0():
    fields = {"SERVER_PROTOCOL": "HTTP/1.0"}
    assert (
        wire_app().put("/hints", b"hello", extra_environ={"RAW_URI": "/", **fields}).interim == []
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_can_be_read_after_the_response_has_started(chunked):
    raised = []

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first, "
        yield environ["wsgi.input"].read(5)
        with pytest.raises(BodyTimeout, match="for 30 s") as error:
            environ["wsgi.input"].read()
        raised.append(error.type)

    answer = TestApp(application).put("/f", b"hello world", chunked=chunked, stalls_after=5)
    assert answer.body == b"first, hello"
    assert raised == [BodyTimeout]


def test_what_the_policy_registers_in_its_exits_is_called_at_the_end():
    calls = []

    def policy(environ):
        environ[EXITS_KEY].callback(calls.append, "called")

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield environ["wsgi.input"].read()
        assert calls == []

    TestApp(application, policy=policy).put("/f", b"x", expect=True)
    assert calls == ["called"]


def test_the_application_finds_the_expectation_in_its_environ():
    states = []

    def application(environ, start_response):
        states.append(environ[KEY].state)
        environ[KEY].proceed([("X-Node", "7")])
        states.append(environ[KEY].state)
        start_response("204 No Content", [])
        return []

    answer = TestApp(application).put("/f", b"x", expect=True)
    assert states == [State.PENDING, State.CONTINUED]
    assert answer.interim == [Interim(100, [("X-Node", "7")])]
    assert answer.decided_by is DecidedBy.APPLICATION_READ
    TestApp(application).get("/")
    assert states[2:] == [State.NONE, State.NONE]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/start-twice", AssertionError, "already set"),
        ("/start?100 Continue", ValueError, "a 1xx is not a final response"),
        ("/fail", LookupError, "the application failed"),
        ("/fail-after-first-byte", LookupError, "the application failed"),
        ("/write-then-read", ClientDisconnected, "the client left after 0 of 5 bytes"),
    ],
)
def test_an_error_of_the_application_is_raised_in_the_test(path, error, message):
    with pytest.raises(error, match=message):
        wire_app().put(path, b"hello", expect=True)


@pytest.mark.parametrize("error", [FileNotFoundError, ConnectionResetError, SystemExit])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_an_error_that_a_worker_would_handle_itself_is_raised_in_the_test(error, started, body):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        if started:
            yield b"first"
        raise error("of the application")

    with pytest.raises(error, match="of the application"):
        TestApp(application).put("/f", body)


def test_an_error_of_the_policy_is_raised_in_the_test():
    cause = KeyError("of the storage")

    def policy(environ):
        raise PermissionError("of the policy") from cause

    with pytest.raises(PermissionError, match="of the policy") as caught:
        TestApp(upload, policy=policy).put("/f", b"x", expect=True)
    assert caught.value.__cause__ is cause


def test_a_response_that_is_cut_off_is_an_error():
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", "10")])
        return [b"first"]

    with pytest.raises(http.client.IncompleteRead):
        TestApp(application).get("/")


def test_an_application_that_does_not_call_start_response_is_an_error():
    with pytest.raises(AssertionError, match="did not call start_response"):
        TestApp(lambda environ, start_response: []).put("/f", b"x", expect=True)


def test_a_read_after_a_declined_upload_raises_client_disconnected():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first"
        with pytest.raises(ClientDisconnected):
            environ["wsgi.input"].read()

    answer = TestApp(application).put("/f", b"hello", expect=True, chunked=True)
    assert answer.body == b"first"
    assert not answer.continued


@pytest.mark.parametrize("value", ["100-continue, x", "something"])
def test_an_unknown_expectation_gets_417(app, value):
    answer = app.put("/f", b"x", {"Expect": value}, status=417)
    assert answer.body_bytes_read == 0
    assert answer.decided_by is DecidedBy.NOBODY


def test_a_100_is_sent_again_when_the_application_asks_for_more():
    def how(body):
        body.send_hundred_continue_response()
        begin = body.read(2)
        body.send_hundred_continue_response()
        return begin + body.read()

    answer = TestApp(reading(how)).put("/f", b"hello", expect=True)
    assert [interim.status for interim in answer.interim] == [100, 100]
    assert answer.body == b"hello"


# The environ, and the response.


def test_the_environ_is_that_of_a_worker_and_values_of_the_test_take_precedence():
    environs = []

    def policy(environ):
        environs.append(environ)

    def application(environ, start_response):
        environs.append(environ)
        start_response("204 No Content", [])
        return []

    app = TestApp(application, extra_environ={"REMOTE_USER": "ann"}, policy=policy)
    marks = {"wsgi.url_scheme": "https", "SCRIPT_NAME": "/under", "REMOTE_ADDR": "192.0.2.7"}
    app.put("/caf%C3%A9%2F?q=a b", b"x", {"X-One": "1"}, extra_environ={"a.mark": app, **marks})
    asked, called = environs
    assert asked is called
    assert marks.items() <= called.items()
    assert called["a.mark"] is app
    assert called["REMOTE_USER"] == "ann"
    assert called["HTTP_X_ONE"] == "1"
    assert called["PATH_INFO"].encode("latin-1") == "/caf\u00e9/".encode()
    assert called["QUERY_STRING"] == "q=a b"
    assert called["RAW_URI"] == "/under/caf%C3%A9/?q=a%20b"
    assert "gunicorn" in called["SERVER_SOFTWARE"]


@pytest.mark.parametrize("fields", [{}, {"SERVER_PROTOCOL": "HTTP/1.0"}])
def test_the_response_has_the_header_fields_of_the_application(fields):
    given = [TEXT, ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("X", "\u00e4")]

    def application(environ, start_response):
        start_response("200 OK", [*given, ("Date", "today")])  # gunicorn adds its own Date
        yield b"one, "
        yield b"two"

    answer = TestApp(application).put("/f", b"x", extra_environ=fields)
    assert answer.body == b"one, two"
    assert answer.headerlist == [*given, ("Content-Length", "8")]  # WebTest adds the length


def test_the_response_to_head_has_no_body():
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("Content-Length", "5")])
        return [b"hello"] if environ["REQUEST_METHOD"] == "GET" else []

    answer = TestApp(application).head("/")
    assert (answer.headers["Content-Length"], answer.body) == ("5", b"")
    assert TestApp(application).get("/").body == b"hello"


def test_a_malformed_request_gets_400_as_on_the_wire():
    answer = TestApp(upload).put("/f", b"x", {"Content-Length": "+1"}, status=400)
    assert answer.body_bytes_read == 0
    assert answer.interim == []


# WebTest.


def test_every_method_that_sends_a_body_takes_expect(app):
    for send in (app.put, app.post, app.patch, app.delete):
        assert send("/f", "hello", expect=True).continued
        assert send("/f", {"a": "b"}, expect=True).body == b"a=b"
    for send in (app.put_json, app.post_json, app.patch_json, app.delete_json):
        assert send("/f", {"a": 1}, expect=True, chunked=True).body == b'{"a": 1}'
    answer = app.post("/f", upload_files=[("file", "a.txt", b"hello")], expect=True)
    assert b'filename="a.txt"' in answer.body
    assert answer.continued


@pytest.mark.parametrize("url", ["/f", TestRequest.blank("/f")], ids=["url", "request"])
def test_request_takes_expect_with_any_method(app, url):
    answer = app.request(url, method="PATCH", body=b"hello", expect=True)
    assert (answer.body, answer.continued) == (b"hello", True)
    answer = app.request(url, method="PUT", body=b"hello", chunked=True, stalls_after=1, status=408)
    assert not answer.continued


def test_a_request_object_of_webtest_can_be_sent(app):
    req = webtest.TestRequest.blank("/f", method="PUT", body=b"hello")
    req.authorization = ("Bearer", "letmein")
    assert app.do_request(req).body_bytes_read == 5
    req.headers["Expect"] = "100-continue"
    assert not app.do_request(req).continued  # WebOb's requests are of HTTP/1.0
    req.http_version = "HTTP/1.1"
    assert app.do_request(req).continued


def test_webobs_notes_about_its_own_input_do_not_reach_the_application():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [webob.Request(environ).body]

    answer = TestApp(application).request("/f", method="PUT", body=b"hello", expect=True)
    assert answer.body == b"hello"
    assert answer.continued


def test_sending_a_request_does_not_change_it(app):
    answer = app.put("/f", b"hello", expect=True)
    assert answer.request.body == b"hello"
    assert answer.request.headers["Expect"] == "100-continue"


def test_webtests_lint_checks_the_response():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [environ["wsgi.input"].read()]

    with pytest.raises(AssertionError, match="No Content-Type header"):
        TestApp(application).put("/f", b"hello", expect=True)
    assert TestApp(application, lint=False).put("/f", b"hello", expect=True).body == b"hello"


def test_webtest_handles_cookies_and_redirects():
    def application(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            start_response("303 See Other", [("Location", "/there"), ("Set-Cookie", "a=b")])
            return []
        start_response("200 OK", [TEXT])
        return [environ["HTTP_COOKIE"].encode()]

    answer = TestApp(application).put("/f", b"x", expect=True)
    assert answer.refused_unread
    assert answer.follow().body == b"a=b"


# Frameworks.


def flask():
    from flask import Flask, request

    app = Flask("flask_app")

    @app.put("/f")
    def put():
        return ("", 401) if "Authorization" not in request.headers else request.get_data()

    return app


def pyramid():
    from pyramid.config import Configurator
    from pyramid.response import Response

    def put(request):
        if "Authorization" not in request.headers:
            return Response(status=401)
        return Response(request.body)

    with Configurator() as config:
        config.add_route("f", "/f")
        config.add_view(put, route_name="f")
        return config.make_wsgi_app()


def bottle():
    from bottle import Bottle, HTTPResponse, request

    app = Bottle()

    @app.put("/f")
    def put():
        if "Authorization" not in request.headers:
            return HTTPResponse(status=401)
        # Bottle's request.body would decode chunks a second time.
        return request.environ["wsgi.input"].read()

    return app


@pytest.mark.parametrize("make", [flask, pyramid, bottle])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_view_of_a_framework_refuses_and_accepts(make, chunked):
    app = TestApp(make())
    assert app.put("/f", b"x" * 10**6, expect=True, chunked=chunked, status=401).refused_unread
    answer = app.put(
        "/f", b"hello", {"Authorization": "Bearer letmein"}, expect=True, chunked=chunked
    )
    assert answer.body == b"hello"
    assert answer.continued
    assert answer.body_bytes_read == 5


# Compared with a real gunicorn.


@dataclasses.dataclass(frozen=True)
class Case:
    path: str
    decide: str = "nothing"
    expect: str = "100-continue"
    body: bytes = b"hello"
    chunked: bool = False
    leaves_after: int | None = None
    stalls_after: int | None = None

    def __str__(self):
        default = Case(self.path)
        changed = [f"{k}={v}" for k, v in vars(self).items() if v != getattr(default, k)]
        return " ".join([self.path, *changed])


PATHS = [
    *("/read", "/read-nothing", "/read-some?3", "/start-then-read", "/read-while-yielding-nothing"),
    *("/read-by?readline-2", "/read-by?readlines", "/read-by?next", "/read-by?readinto"),
    *("/refuse", "/refuse-with-body", "/refuse-by-write", "/refuse-twice", "/read-then-refuse"),
    *("/refuse-without-length", "/refuse-without-length?generator"),
    *("/refuse-without-length?empty-items", "/file", "/memory-file", "/keywords", "/no-content"),
    *("/state", "/proceed", "/proceed-and-refuse", "/hints", "/hints-and-refuse", "/read-broken"),
    *("/proceed-badly?name=X&value=%0a", "/chunks", "/start?204+No+Content", "/ordinary-read"),
]
CASES = [
    *(
        Case(path, expect=expect, chunked=chunked)
        for path in PATHS
        for expect in ("100-continue", "")
        for chunked in (False, True)
    ),
    *(
        Case("/read", decide, chunked=chunked)
        for decide in ("proceed", "refuse 413", "refuse 403 not yours", "limit 3", "read")
        for chunked in (False, True)
    ),
    *(
        Case(path, expect=expect, chunked=chunked, **manners)
        for path in ("/read", "/read-broken", "/refuse", "/read-some?5", "/read-some?6")
        for expect in ("100-continue", "")
        for chunked in (False, True)
        for manners in MANNERS
    ),
    Case("/echo-file"),
    Case("/echo-buffered", expect=""),
    Case("/read", body=b""),
    Case("/read", expect="100-Continue"),
    Case("/read", expect="100-continue, something"),
]
#: A body timeout that is long enough for the bytes that a stalled client has sent to arrive.
STALL = {"GUNICORN_EXPECT_BODY_TIMEOUT": "0.3", "GUNICORN_EXPECT_POLICY": "apps.counting:policy"}


@pytest.fixture(scope="module")
def counting():
    with Server("--threads", "8", app="apps.counting:app", env=STALL) as server:
        yield server


def on_the_wire(server, case):
    """Send a case to a real gunicorn; return its status and interim responses, and bytes read."""
    fields = [f"X-Case: {case}", f"X-Decide: {case.decide}", "Connection: close"]
    if case.expect:
        fields.append(f"Expect: {case.expect}")
    fields.append(
        "Transfer-Encoding: chunked" if case.chunked else f"Content-Length: {len(case.body)}"
    )
    sent = case.body[:5]
    if case.chunked:
        sent = b"5\r\n%b\r\n" % sent
    if case.leaves_after is None and case.stalls_after is None:
        rest = case.body[5:]
        sent += (b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") if case.chunked else rest
        sent += b"0\r\n\r\n" if case.chunked else b""
    interim = []
    with Client(server) as client:
        client.send(request(f"PUT {case.path}", *fields))
        if not case.expect:
            send(client, case, sent)
        while (head := client.receive_head()).startswith(b"HTTP/1.1 1"):
            lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
            interim.append(
                (int(lines[0].split()[1]), [tuple(line.split(": ", 1)) for line in lines[1:]])
            )
            if interim[-1][0] == 100:
                send(client, case, sent)
        client.receive_all()
    read = json.loads(server.get("/counted")).get(str(case), 0)
    return int(head.split()[1]), interim, read


def send(client, case, sent):
    client.send(sent)
    if case.leaves_after is not None:
        client.shut_down()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_test_app_behaves_like_a_real_gunicorn(counting, case):
    answer = wire_app().put(
        case.path,
        case.body,
        {"Expect": case.expect, "X-Decide": case.decide}
        if case.expect
        else {"X-Decide": case.decide},
        status="*",
        chunked=case.chunked,
        leaves_after=case.leaves_after,
        stalls_after=case.stalls_after,
    )
    here = answer.status_int, [tuple(x) for x in answer.interim], answer.body_bytes_read
    assert here == on_the_wire(counting, case)


# The package.


def test_without_webtest_one_line_names_the_extra():
    code = "import sys; sys.modules['webtest'] = None; import gunicorn_expect.testing"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert run.stderr.splitlines()[-1] == (
        "ImportError: gunicorn_expect.testing needs WebTest: pip install 'gunicorn_expect[testing]'"
    )


def test_without_a_dependency_of_webtest_the_error_names_that():
    code = "import sys; sys.modules['bs4'] = None; import gunicorn_expect.testing"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert "bs4" in run.stderr.splitlines()[-1]


def test_the_worker_does_not_import_the_test_kit():
    code = "import sys, gunicorn_expect; assert 'gunicorn_expect.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT, timeout=60)


def test_every_name_in_all_exists():
    assert [
        x for x in gunicorn_expect.testing.__all__ if not hasattr(gunicorn_expect.testing, x)
    ] == []


USER = """\
from collections.abc import Iterable

from gunicorn_expect.testing import DecidedBy, GunicornServer, Interim, Outcome, TestApp, Waits
from gunicorn_expect.testing.fixtures import StartGunicorn
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    start_response("403 Forbidden", [])
    return []


def test_without_a_server() -> None:
    answer = TestApp(app, policy="uploads:policy").put("/", b"x", expect=True, status=403)
    refused: bool = answer.refused_unread
    continued: bool = answer.continued
    size: int = answer.body_bytes_read
    who: DecidedBy = answer.decided_by
    interim: list[Interim] = answer.interim
    assert not TestApp(app).request("/", method="OPTIONS", chunked=True, status=403).continued


def test_with_one(gunicorn_server: StartGunicorn) -> None:
    server: GunicornServer = gunicorn_server("uploads:app", "--threads", "4", policy="a:policy")
    outcome: Outcome = Waits(timeout=5).put(server.url + "/", b"x", {"X-A": "b"})
    status: int = outcome.status
"""


def check_types(folder, code):
    path = folder / "test_user.py"
    path.write_text(code, "utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull),
            *("--cache-dir", str(folder / "cache"), str(path)),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout


def test_mypy_checks_the_types_of_a_users_tests(tmp_path):
    assert "Success" in check_types(tmp_path, USER)
    wrong = USER.replace("expect=True", "expect='yes'").replace("timeout=5", "patience=5")
    output = check_types(tmp_path, wrong)
    assert 'Argument "expect" to "__call__" of "Send" has incompatible type "str"' in output
    assert 'Unexpected keyword argument "patience" for "Waits"' in output
