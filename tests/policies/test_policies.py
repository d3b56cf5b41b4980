"""The functions of `gunicorn_expect.policies`: alone, before an application, and on the wire."""

import base64

import pytest

from gunicorn_expect import Proceed, Refuse, inline, policies
from gunicorn_expect.decision import EXITS_KEY, inline_part
from gunicorn_expect.testing import TestApp
from support.client import CONTINUE, Client, request, waiting
from support.matrix import WORKERS
from support.server import Server

#: Functions that somebody may pass without calling them, as if they were policies or checks.
FACTORIES = [
    *(getattr(policies, name) for name in policies.__all__ if name != "IDENTITY_KEY"),
    *(inline, Proceed, Refuse),
]


def refusal_by(policy, **environ):
    """Return the status and the header fields of a refusal, or None if the policy returns None."""
    decision = policy(environ)
    return decision and (decision.status, dict(decision.headers))


def refused(status):
    """Return a policy that refuses all uploads."""
    return lambda environ: Refuse(status)


class Limited:
    """A body that records its limit."""

    size = None

    def limit(self, size):
        self.size = size


# max_length, length_required


@pytest.mark.parametrize(("length", "fits"), [("0", True), ("10", True), ("11", False)])
def test_a_body_that_is_too_long_is_refused(length, fits):
    policy = policies.max_length(10)
    expected = None if fits else ("413 Content Too Large", {})
    assert refusal_by(policy, CONTENT_LENGTH=length) == expected


def test_a_body_of_unknown_length_is_limited_and_not_refused():
    body = Limited()
    assert refusal_by(policies.max_length(10), **{"wsgi.input": body}) is None
    assert body.size == 10


@pytest.mark.parametrize("size", [-1, True, "10", 1.5, None])
def test_a_bad_number_of_bytes_is_an_error_when_the_policy_is_made(size):
    with pytest.raises(ValueError, match=r"number of bytes.*not"):
        policies.max_length(size)


def test_a_body_without_a_length_is_refused_where_one_is_required():
    policy = policies.length_required()
    assert refusal_by(policy) == ("411 Length Required", {})
    assert refusal_by(policy, CONTENT_LENGTH="1") is None


# content_types, methods


@pytest.mark.parametrize(
    ("media_type", "fits"),
    [
        ("image/png", True),
        ("IMAGE/PNG", True),
        ("image/svg+xml; charset=utf-8", True),
        ("application/pdf", True),
        ("application/PDF ;q=1", True),
        ("application/pdfx", False),
        ("text/plain; image/png", False),
        ("imagex/png", False),
        ("image/", False),
        ("image/*", False),
        ("image", False),
        ("image/png, text/html", False),
        ("", False),
    ],
)
def test_a_body_of_another_media_type_is_refused(media_type, fits):
    policy = policies.content_types("Image/*", "application/pdf")
    expected = ("415 Unsupported Media Type", {"Accept": "Image/*, application/pdf"})
    assert refusal_by(policy, CONTENT_TYPE=media_type) == (None if fits else expected)


def test_a_body_without_a_media_type_is_refused_even_if_all_are_accepted():
    policy = policies.content_types("*/*")
    assert refusal_by(policy)[0] == "415 Unsupported Media Type"
    assert refusal_by(policy, CONTENT_TYPE="any/thing") is None


@pytest.mark.parametrize("media_range", ["image", "*/png", "image/p*", "image/png;q=1", "", None])
def test_an_invalid_media_range_is_an_error(media_range):
    with pytest.raises(ValueError, match=r"range of media types"):
        policies.content_types("image/*", media_range)


def test_the_refusal_of_another_method_lists_the_allowed_ones():
    policy = policies.methods("GET", "PUT")
    refusal = ("405 Method Not Allowed", {"Allow": "GET, PUT"})
    assert refusal_by(policy, REQUEST_METHOD="PUT") is None
    assert refusal_by(policy, REQUEST_METHOD="POST") == refusal
    assert refusal_by(policy, REQUEST_METHOD="put") == refusal


@pytest.mark.parametrize("name", ["put", "PUT,POST", "", "P T", None])
def test_an_invalid_method_is_an_error(name):
    with pytest.raises(ValueError, match="is not a method"):
        policies.methods("PUT", name)


@pytest.mark.parametrize(
    "make",
    [
        policies.content_types,
        policies.methods,
        policies.one_of,
        policies.first,
        lambda: policies.passwords({}),
        lambda: policies.route("/*"),
    ],
)
def test_a_policy_factory_without_arguments_is_an_error(make):
    with pytest.raises(ValueError, match="at least one"):
        make()


# bearer, basic

BEARER = 'Bearer realm="uploads"'
INVALID = f'{BEARER}, error="invalid_token"'
BASIC = 'Basic realm="uploads", charset="UTF-8"'


def encoded(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        ({}, BEARER),
        ({"HTTP_AUTHORIZATION": ""}, BEARER),
        ({"HTTP_AUTHORIZATION": "Basic letmein"}, BEARER),
        ({"HTTP_AUTHORIZATION": "Bearerletmein"}, BEARER),
        ({"HTTP_AUTHORIZATION": "Bearer"}, INVALID),
        ({"HTTP_AUTHORIZATION": "Bearer wrong"}, INVALID),
        ({"HTTP_AUTHORIZATION": "Bearer letmein letmein"}, INVALID),
        ({"HTTP_AUTHORIZATION": "Bearer letmein, Bearer letmein"}, INVALID),
        ({"HTTP_AUTHORIZATION": "Bearer l\u00e9tmein"}, INVALID),
        ({"HTTP_AUTHORIZATION": "Bearer letmein"}, None),
        ({"HTTP_AUTHORIZATION": "bEARER   letmein"}, None),
    ],
)
def test_a_missing_or_bad_token_gets_a_challenge(authorization, challenge):
    policy = policies.bearer(policies.one_of("other", "letmein"))
    expected = challenge and ("401 Unauthorized", {"WWW-Authenticate": challenge})
    assert refusal_by(policy, **authorization) == expected


def test_a_malformed_token_is_not_checked():
    def check(token):
        raise AssertionError(token)

    assert refusal_by(policies.bearer(check), HTTP_AUTHORIZATION="Bearer a b")


@pytest.mark.parametrize(
    ("identity", "user"),
    [("jo", {"REMOTE_USER": "jo"}), ("\u0141uk", {"REMOTE_USER": "\xc5\x81uk"}), (True, {})],
)
def test_the_application_gets_the_identity_of_a_valid_token(identity, user):
    environ = {"HTTP_AUTHORIZATION": "Bearer t"}
    assert policies.bearer({"t": identity}.get)(environ) is None
    del environ["HTTP_AUTHORIZATION"]
    assert environ == {"AUTH_TYPE": "Bearer", "gunicorn_expect.identity": identity} | user


@pytest.mark.parametrize(
    ("authorization", "fits"),
    [
        (None, False),
        ("Bearer " + encoded("jo:secret"), False),
        ("Basic", False),
        ("Basic !", False),
        ("Basic " + encoded("jo:secret")[:-1], False),
        ("Basic !" + encoded("jo:secret"), False),
        ("Basic " + encoded("josecret"), False),
        ("Basic " + encoded("jo:wrong"), False),
        ("Basic " + encoded("al:secret"), False),
        ("Basic " + encoded("no:body"), False),
        ("Basic " + encoded(b"jo:\xff"), False),
        ("Basic " + encoded("jo:secret\0"), False),
        ("Basic " + encoded("jo:secret"), True),
        ("bAsIc  " + encoded("\u0142uk:se:cr\u00e9t"), True),
    ],
)
def test_a_wrong_password_is_refused(authorization, fits):
    check = policies.passwords({"jo": "secret", "al": "other", "\u0142uk": "se:cr\u00e9t"})
    environ = {"HTTP_AUTHORIZATION": authorization} if authorization else {}
    expected = None if fits else ("401 Unauthorized", {"WWW-Authenticate": BASIC})
    assert refusal_by(policies.basic(check), **environ) == expected


@pytest.mark.parametrize(("returned", "identity"), [(True, "jo"), ("id-7", "id-7")])
def test_the_application_gets_the_user_of_a_valid_password(returned, identity):
    environ = {"HTTP_AUTHORIZATION": "Basic " + encoded("jo:secret")}
    assert policies.basic(lambda user, password: returned)(environ) is None
    del environ["HTTP_AUTHORIZATION"]
    assert environ == {
        "AUTH_TYPE": "Basic",
        "REMOTE_USER": identity,
        "gunicorn_expect.identity": identity,
    }


@pytest.mark.parametrize("make", [policies.bearer, policies.basic])
def test_a_realm_is_sent_as_it_is_or_is_an_error(make):
    check = policies.one_of("x")
    assert ' realm="a b"' in refusal_by(make(check, realm="a b"))[1]["WWW-Authenticate"]
    for realm in ['a"b', "a\\b", "a\nb", "\u00e4", None]:
        with pytest.raises(ValueError, match="realm"):
            make(check, realm=realm)
    with pytest.raises(TypeError, match=r"called, not an object of type str$"):
        make("letmein")


@pytest.mark.parametrize("make", [policies.bearer, policies.basic])
@pytest.mark.parametrize("makes", FACTORIES)
def test_a_factory_of_checks_is_not_a_check_itself(make, makes):
    with pytest.raises(TypeError, match=rf" is not a check itself: write .*{makes.__name__}\("):
        make(makes)


@pytest.mark.parametrize("make", [policies.bearer, policies.basic])
def test_a_check_that_is_an_async_function_is_an_error(make):
    async def check(*credentials):
        return False

    with pytest.raises(TypeError, match="an async function"):
        make(check)


def factory_of_another_package(*tokens):
    """Return a check, as `one_of` does, but without our mark of a factory."""
    return lambda *credentials: credentials in tokens


class Awaitable:
    """What an asynchronous check returns, as a coroutine."""

    def __await__(self):
        yield False


@pytest.mark.parametrize("check", [factory_of_another_package, lambda *credentials: Awaitable()])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (policies.bearer, "Bearer s3cret"),
        (policies.basic, "Basic " + base64.b64encode(b"jo:s3cret").decode()),
    ],
)
def test_a_check_that_returns_a_function_or_an_awaitable_is_an_error(make, field, check):
    environ = {"HTTP_AUTHORIZATION": field}
    with pytest.raises(
        TypeError,
        match=rf"^the check {__name__}\..* returned .*: was a call or an await left out\?$",
    ) as raised:
        make(check)(environ)
    assert "s3cret" not in str(raised.value)
    assert environ == {"HTTP_AUTHORIZATION": field}


@pytest.mark.parametrize("secret", ["", None, b"x"])
def test_a_secret_that_is_not_set_is_an_error(secret):
    with pytest.raises(ValueError, match="not empty"):
        policies.one_of("x", secret)
    with pytest.raises(ValueError, match="password of 'jo'"):
        policies.passwords({"jo": secret})


@pytest.mark.parametrize("user", ["a:b", "a\0", None])
def test_a_user_whose_name_can_not_be_sent_is_an_error(user):
    with pytest.raises(ValueError, match=r"^user 1 has a name"):
        policies.passwords({user: "secret"})


def test_all_secrets_are_compared_even_after_a_match(monkeypatch):
    compared = []

    def compare_digest(one, other):
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    token, password = policies.one_of("a", "bbb"), policies.passwords({"a": "b", "cc": "dd"})
    assert [token("a"), token("bbb"), token("no")] == [True, True, False]
    assert [password("a", "b"), password("cc", "dd"), password("no", "b")] == [True, True, False]
    assert compared == [(32, 32)] * 12


# first, route


def test_the_first_policy_that_returns_a_decision_decides():
    silent = lambda environ: None  # noqa: E731
    assert policies.first(silent, refused(403), refused(413))({}) == Refuse(403)
    assert policies.first(silent, lambda environ: Proceed(), refused(413))({}) == Proceed()
    assert policies.first(silent, silent)({}) is None


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/files/a", True),
        ("/files/a/b", True),
        ("/files/", True),
        ("/files", False),
        ("/Files/a", False),
        ("/x/files/a", False),
        ("/files/a\n", True),
    ],
)
def test_a_route_calls_its_policies_only_for_its_paths(path, matches):
    policy = policies.route("/files/*", lambda environ: None, refused(403))
    assert policy({"PATH_INFO": path}) == (Refuse(403) if matches else None)


def test_a_route_matches_paths_with_other_characters_than_ascii():
    assert policies.route("/\u0142/*", refused(403))({"PATH_INFO": "/\xc5\x82/a"})


@pytest.mark.parametrize("pattern", ["files/*", "", None])
def test_an_invalid_path_pattern_is_an_error(pattern):
    with pytest.raises(ValueError, match="pattern of paths"):
        policies.route(pattern, refused(403))


@pytest.mark.parametrize("make", [policies.first, lambda *x: policies.route("/*", *x)])
def test_a_policy_that_can_not_be_called_is_an_error(make):
    with pytest.raises(TypeError, match=r"^an object of type str is not a policy"):
        make(refused(403), "apps.deciding:policy_by_path")


@pytest.mark.parametrize("make", [policies.first, lambda *x: policies.route("/*", *x)])
@pytest.mark.parametrize("makes", FACTORIES)
def test_a_factory_of_policies_is_not_a_policy_itself(make, makes):
    with pytest.raises(TypeError, match=rf" is not a policy itself: write .*{makes.__name__}\("):
        make(refused(403), makes)


# Before an application, with TestApp.


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    user = environ.get("REMOTE_USER", "-")
    start_response("200 OK", [("X-User", user), ("Content-Length", str(len(body)))])
    return [body]


class App(TestApp):
    """A TestApp that sends Expect with each request that has a body."""

    def put(self, *arguments, **options):
        return super().put(*arguments, expect=True, **options)

    def post(self, *arguments, **options):
        return super().post(*arguments, expect=True, **options)


def app_behind(policy):
    # WebTest's lint demands a Content-Type in each response, even without a body.
    return App(application, policy=policy, lint=False)


def guarded():
    return policies.first(
        policies.basic(policies.passwords({"jo": "secret"})),
        policies.methods("GET", "HEAD", "PUT"),
        policies.length_required(),
        policies.max_length(10),
        policies.route("/photos/*", policies.content_types("image/*")),
    )


def test_the_application_answers_if_no_policy_refuses():
    app = app_behind(guarded())
    app.authorization = ("Basic", ("jo", "secret"))
    answer = app.put("/photos/1", b"png", content_type="image/png")
    assert (answer.status, answer.body) == ("200 OK", b"png")
    assert answer.headers["X-User"] == "jo"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("put", "/", b"x" * 11, "413 Content Too Large", None),
        ("post", "/", b"x", "405 Method Not Allowed", ("Allow", "GET, HEAD, PUT")),
        ("put", "/photos/1", b"x", "415 Unsupported Media Type", ("Accept", "image/*")),
    ],
)
def test_the_application_is_not_called_if_a_policy_refuses(method, path, body, status, field):
    app = app_behind(guarded())
    app.authorization = ("Basic", ("jo", "secret"))
    answer = getattr(app, method)(path, body, content_type="text/plain", status="*")
    assert (answer.status, answer.body) == (status, b"")
    assert "X-User" not in answer.headers
    assert field is None or field in answer.headers.items()


def test_an_unknown_client_gets_401_before_any_other_refusal():
    answer = app_behind(guarded()).post("/photos/1", b"x" * 11, status="*")
    assert answer.status == "401 Unauthorized"
    assert answer.headers["WWW-Authenticate"] == BASIC


def test_the_policy_is_not_called_for_a_request_without_a_body():
    assert app_behind(refused(403)).get("/").status == "200 OK"


def test_a_slot_is_free_again_before_the_next_request():
    app = app_behind(policies.admission(1))
    assert [app.put("/", b"x").status_int for _ in range(3)] == [200, 200, 200]


def test_a_slot_is_free_again_when_a_later_policy_refuses():
    app = app_behind(policies.first(policies.admission(1), policies.max_length(1)))
    assert [app.put("/", b"xx", status="*").status_int for _ in range(2)] == [413, 413]
    assert app.put("/", b"x").status_int == 200


def test_what_a_policy_registers_in_its_exits_is_called_at_the_end():
    calls = []

    def policy(environ):
        environ[EXITS_KEY].callback(calls.append, "called")

    app_behind(policy).put("/", b"x")
    assert calls == ["called"]


# On the wire.

CONFIGURATION = """
from gunicorn_expect import policies

expect_policy = policies.first(
    policies.route("/length/*", policies.length_required()),
    policies.route("/small/*", policies.max_length(5)),
    policies.route("/images/*", policies.content_types("image/*", "application/pdf")),
    policies.route("/put/*", policies.methods("GET", "PUT")),
    policies.route("/bearer/*", policies.bearer(policies.one_of("letmein"))),
    policies.route("/basic/*", policies.basic(policies.passwords({"jo": "secret"}))),
)
"""

SIZED = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"

#: The path; the fields of a request that is refused, the status and fields of its response; and the
#: fields of a request that is accepted.
WIRE = {
    "max_length": ("/small", ["Content-Length: 6"], 413, [], [SIZED]),
    "length_required": ("/length", [CHUNKED], 411, [], [SIZED]),
    "content_types": (
        "/images",
        [SIZED, "Content-Type: text/plain"],
        415,
        ["Accept: image/*, application/pdf"],
        [SIZED, "Content-Type: image/png"],
    ),
    "methods": ("/put", [SIZED], 405, ["Allow: GET, PUT"], [SIZED]),
    "bearer": (
        "/bearer",
        [SIZED, "Authorization: Bearer wrong"],
        401,
        [f"WWW-Authenticate: {INVALID}"],
        [SIZED, "Authorization: Bearer letmein"],
    ),
    "basic": (
        "/basic",
        [SIZED],
        401,
        [f"WWW-Authenticate: {BASIC}"],
        [SIZED, "Authorization: Basic " + encoded("jo:secret")],
    ),
}
ready = pytest.mark.parametrize(
    ("path", "refused", "status", "fields", "accepted"), WIRE.values(), ids=WIRE
)


@pytest.fixture(scope="module", params=WORKERS)
def guarding(request, tmp_path_factory):
    """A gunicorn whose configuration file uses these policies."""
    configuration = tmp_path_factory.mktemp("configuration") / "conf.py"
    configuration.write_text(CONFIGURATION, "utf-8")
    with Server(
        "-c", str(configuration), app="apps.reading:read", worker=WORKERS[request.param][0]
    ) as server:
        yield server


def check_refusal(answer, status, fields):
    """Check that this is one final response, with this status and these fields."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    assert set(fields) | {"Connection: close", "Content-Length: 0"} <= set(lines)
    assert body == b""


@ready
def test_a_client_that_waits_is_refused_before_it_sends_its_body(
    guarding, path, refused, status, fields, accepted
):
    method = "POST" if status == 405 else "PUT"
    with Client(guarding) as client:
        client.send(waiting(f"{method} {path}/1", *refused))
        check_refusal(client.receive_all(), status, fields)


@ready
def test_a_client_that_waits_is_accepted_when_the_body_is_read(
    guarding, path, refused, status, fields, accepted
):
    with Client(guarding) as client:
        client.send(waiting(f"PUT {path}/1", *accepted))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"hello")
        head, body = client.receive_response()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


@ready
def test_a_client_that_does_not_wait_gets_the_same_response(
    guarding, path, refused, status, fields, accepted
):
    method = "POST" if status == 405 else "PUT"
    with Client(guarding) as client:
        client.send(request(f"{method} {path}/1", *refused, "Connection: close"))
        check_refusal(client.receive_all(), status, fields)


def test_a_chunked_body_over_the_limit_gets_413(guarding):
    with Client(guarding) as client:
        client.send(waiting("PUT /small/1", CHUNKED))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"5\r\nhello\r\n", b"1\r\n")
        check_refusal(client.receive_all(), 413, [])


def test_a_chunked_body_as_long_as_the_limit_is_read(guarding):
    with Client(guarding) as client:
        client.send(waiting("PUT /small/1", CHUNKED))
        assert client.receive(len(CONTINUE)) == CONTINUE
        client.send(b"5\r\nhello\r\n0\r\n\r\n")
        assert client.receive_response()[1] == b"hello"


def test_the_lowest_of_several_limits_applies(tmp_path):
    configuration = tmp_path / "conf.py"
    configuration.write_text(
        "from gunicorn_expect.policies import first, max_length\n"
        "expect_policy = first(max_length(5), max_length(9))\n"
    )
    with (
        Server("-c", str(configuration), app="apps.reading:read") as server,
        Client(server) as client,
    ):
        client.send(request("PUT /", CHUNKED), b"6\r\n")
        check_refusal(client.receive_all(), 413, [])


# Policies that the main loop may call.


def blocking(environ):
    return Refuse(503)


CHEAP = [
    policies.max_length(5),
    policies.length_required(),
    policies.content_types("image/*"),
    policies.methods("PUT"),
]
TOKENS = [policies.bearer(policies.one_of("x")), policies.basic(policies.passwords({"jo": "x"}))]


@pytest.mark.parametrize(
    "policy", [*CHEAP, *TOKENS, policies.first(*CHEAP), policies.route("/a*", *CHEAP)]
)
def test_a_policy_that_only_looks_at_the_head_is_inline(policy):
    assert inline_part(policy) is policy


@pytest.mark.parametrize(
    "policy",
    [None, blocking, policies.first(blocking, *CHEAP), policies.bearer(str), policies.admission(1)],
)
def test_a_policy_that_may_wait_is_not_inline(policy):
    assert inline_part(policy) is None


@pytest.mark.parametrize(
    "policy", [policies.first(policies.max_length(5), blocking, policies.methods("PUT"))]
)
@pytest.mark.parametrize("where", [policies.first, lambda policy: policies.route("/a*", policy)])
def test_the_loop_calls_the_policies_before_the_first_one_that_may_wait(policy, where):
    part = inline_part(where(policy))
    environ = {"CONTENT_LENGTH": "5", "REQUEST_METHOD": "POST", "PATH_INFO": "/a"}
    assert part(environ) is None  # a policy after it must not answer first
    assert part({**environ, "CONTENT_LENGTH": "6"}).status == "413 Content Too Large"


def test_the_loop_calls_the_policies_of_a_route_only_for_its_paths():
    part = inline_part(policies.route("/a*", policies.max_length(5), blocking))
    assert part({"CONTENT_LENGTH": "6", "PATH_INFO": "/b"}) is None


def test_a_callable_without_attributes_can_not_be_marked_as_inline():
    with pytest.raises(TypeError, match="can't be marked as inline: make a function of it"):
        inline("text".startswith)
