"""Plain heads: which heads are plain, what they become, and which are left to gunicorn's parser."""

import logging

import hypothesis
import pytest
from gunicorn.config import Config
from hypothesis import strategies as st

from gunicorn_expect import host
from gunicorn_expect.plain import _REMEMBERED, NOT_PLAIN, PlainHeads
from support.connections import CLIENT, LISTENER, service

GET = b"GET /path HTTP/1.1\r\nHost: example.org\r\n"
POST = b"POST /path HTTP/1.1\r\nHost: example.org\r\n"

#: Keys of the environ that differ between connections, or are set when the request is answered.
SET_LATER = {"wsgi.input", "wsgi.early_hints", "wsgi.errors", "gunicorn.socket"}


def configured(**settings):
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return cfg


def heads_of(cfg, listener=LISTENER):
    return PlainHeads(cfg, host.head_limits(cfg), listener, multithread=False)


def parse(data, cfg=None, peer=CLIENT, listener=LISTENER):
    """Return the request of a plain head, or None if the head isn't plain."""
    parsed = heads_of(cfg or configured(), listener).parse(data, peer, 1)
    return parsed and parsed[0]


def environ_of(environ):
    return {name: value for name, value in environ.items() if name not in SET_LATER}


#: The names of the attributes that gunicorn's own requests have.
ATTRIBUTES = frozenset(vars(host.Parser(Config(), CLIENT, 1).parse(b"GET / HTTP/1.1\r\n\r\n")[0]))


def attributes_of(request):
    # Nothing looks at the fragment; a plain target has none.
    may_differ = {"unreader", "body", "environ", "fragment", "persists"}
    # An attribute that is the same in all requests is one of our class.
    values = {**vars(type(request)), **vars(request)}
    return {name: values[name] for name in ATTRIBUTES if name not in may_differ}


class NoSocket:
    """Instead of a socket, which gunicorn only stores."""


def by_gunicorn(data, cfg=None, peer=CLIENT, listener=LISTENER):
    """Return the request of gunicorn's own parser, its environ, and the bytes after the head."""
    cfg = cfg or configured()
    request, behind = host.Parser(cfg, peer, 1).parse(data)
    _, environ = host.create(request, NoSocket(), peer, listener, cfg, host.BaseResponse)
    return request, environ, behind


def assert_same(data, cfg=None, **where):
    """Check that a head is plain, and that gunicorn's parser gives the same result."""
    cfg = cfg or configured()
    request = parse(data, cfg, **where)
    assert request is not None
    theirs, environ, _ = by_gunicorn(data, cfg, **where)
    assert environ_of(request.environ) == environ_of(environ)
    assert request.environ.keys() >= environ.keys() - SET_LATER
    assert attributes_of(request) == attributes_of(theirs)
    assert not (request.persists and theirs.should_close())


# What is plain.

PLAIN = {
    "no field": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "any method": b"PROPFIND / HTTP/1.1\r\n\r\n",
    "a method of 20 letters": b"A" * 20 + b" / HTTP/1.1\r\n\r\n",
    "a query": b"GET /a?b=c&d=%20?e HTTP/1.1\r\n\r\n",
    "an empty query": b"GET /a? HTTP/1.1\r\n\r\n",
    "escapes in the path": b"GET /%41%2f%ff%zz%/a HTTP/1.1\r\n\r\n",
    "parameters in the path": b"GET /a;b=c:d@e//[f] HTTP/1.1\r\n\r\n",
    "every character of a target": b"GET /"
    + bytes(sorted({*range(0x21, 0x7F)} - {*b"#/"}))
    + b" HTTP/1.1\r\n\r\n",
    "fields": GET + b"Accept: */*\r\nX-One: 1\r\nx-two:2\r\nX.Three:   3  \r\n\r\n",
    "an empty value": GET + b"X-Empty:\r\nX-Blank:  \r\n\r\n",
    "a colon and a comma in a value": GET + b"X: a:b, c:d\r\n\r\n",
    "a value in Latin-1": GET + "X: é¿ÿ\r\n\r\n".encode("latin-1"),
    "every character of a token": GET + b"!#$%&'*+-.^`|~09azAZ: x\r\n\r\n",
    "a field named as a variable": GET + b"Script-Name: a\r\nProxy: b\r\n\r\n",
    "a length": POST + b"Content-Type: a/b\r\nContent-Length: 5\r\n\r\nhello",
    "a length of 0": POST + b"Content-Length: 0\r\n\r\n",
    "a length with zeros": POST + b"content-length: 0005\r\n\r\n",
    "15 digits": POST + b"Content-Length: " + b"9" * 15 + b"\r\n\r\n",
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n",
    "chunks in capitals": POST + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n",
    "an expectation": POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "another expectation": POST + b"Content-Length: 5\r\nExpect: tea\r\n\r\n",
    "Connection": GET + b"Connection: keep-alive\r\n\r\n",
    "an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("parser", ["python", "auto"])
def test_a_plain_head_gives_the_same_request_and_environ_as_gunicorns_parser(data, parser):
    assert_same(data, cfg=configured(http_parser=parser))


@pytest.mark.parametrize(
    "peer", [("10.0.0.1", 5), ("::1", 5, 0, 0), "", "/run/client.sock", b"\0abstract"]
)
def test_the_client_address_of_a_plain_head_is_the_same_as_gunicorns(peer):
    assert_same(GET + b"\r\n", peer=peer)


@pytest.mark.parametrize("listener", [("127.0.0.1", 80), ("::", 8000, 0, 0), "/run/a.sock"])
@pytest.mark.parametrize(
    "field",
    [
        *(b"", b"Host:\r\n", b"Host: a\r\n", b"Host: a:90\r\n", b"Host: a:\r\n", b"Host: :9\r\n"),
        *(b"Host: [::1]:90\r\n", b"Host: a\r\nX-Forwarded-Proto: https\r\n"),
    ],
)
def test_the_server_name_and_port_of_a_plain_head_are_the_same_as_gunicorns(listener, field):
    assert_same(b"GET / HTTP/1.1\r\n" + field + b"\r\n", listener=listener)


def test_a_server_on_a_unix_socket_takes_its_name_from_the_host_field():
    def server(data):
        environ = parse(data, listener="/run/a.sock").environ
        return environ["SERVER_NAME"], environ["SERVER_PORT"]

    assert server(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == ("a", "80")
    assert server(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n") == ("a", "443")
    assert server(b"GET / HTTP/1.1\r\nHost: a:90\r\n\r\n") == ("a", "90")
    assert server(b"GET / HTTP/1.1\r\n\r\n") == ("/run/a.sock", "")


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 0005\r\n", 5),
        (b"Transfer-Encoding: chunked\r\n", None),
    ],
)
def test_a_plain_head_says_how_long_the_body_is(fields, length):
    assert parse(POST + fields + b"\r\n").content_length == length != NOT_PLAIN


# The end of a head.


@pytest.mark.parametrize("behind", [b"", b"hello", b"\r\n\r\n", GET + b"\r\n"])
def test_the_bytes_after_the_head_are_returned(behind):
    _, rest = heads_of(configured()).parse(POST + b"Content-Length: 5\r\n\r\n" + behind, CLIENT, 1)
    assert rest == behind


@pytest.mark.parametrize("cut", range(1, len(GET) + 2))
def test_an_incomplete_head_is_not_plain(cut):
    assert parse((GET + b"\r\n")[:cut]) is None


def test_an_empty_head_is_not_plain():
    assert parse(b"") is None


# What is not plain, and why.

NOT_PLAIN_HEADS = {
    # The request line.
    "an empty line before it, which gunicorn ignores": b"\r\n" + GET + b"\r\n",
    "a small letter in the method": b"Get / HTTP/1.1\r\n\r\n",
    "a method of two letters": b"GE / HTTP/1.1\r\n\r\n",
    "a method of 21 letters": b"A" * 21 + b" / HTTP/1.1\r\n\r\n",
    "a hyphen in the method": b"M-SEARCH / HTTP/1.1\r\n\r\n",
    "CONNECT ends its connection": b"CONNECT /a HTTP/1.1\r\n\r\n",
    "an absolute target": b"GET http://a/b HTTP/1.1\r\n\r\n",
    "a target that is no path": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "two slashes may begin a host": b"GET //a/b HTTP/1.1\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n\r\n",
    "a character that is not ASCII in the target": b"GET /\xe9 HTTP/1.1\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n\r\n",
    "a tab in the target": b"GET /a\tb HTTP/1.1\r\n\r\n",
    "DEL in the target": b"GET /a\x7f HTTP/1.1\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n\r\n",
    "a space at its end": b"GET / HTTP/1.1 \r\n\r\n",
    "another version": b"GET / HTTP/1.2\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a small version": b"GET / http/1.1\r\n\r\n",
    "a PROXY line": b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n" + GET + b"\r\n",
    # A line of a field.
    "no colon": GET + b"X\r\n\r\n",
    "no colon behind a name that is known": GET + b"X: 1\r\nHost\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "a space behind the name": GET + b"X : a\r\n\r\n",
    "a space before the name": b"GET / HTTP/1.1\r\n X: a\r\n\r\n",
    "a space in the name": GET + b"X Y: a\r\n\r\n",
    "a name that is not ASCII": GET + b"X\xdf: a\r\n\r\n",
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a line folded with a tab": GET + b"X: a\r\n\tb: c\r\n\r\n",
    "an underscore, which an environ takes for a hyphen": GET + b"X_A: a\r\n\r\n",
    "an underscore beside the hyphen": GET + b"X-A: a\r\nX_A: b\r\n\r\n",
    # A field.
    "a field that appears twice": GET + b"X: a\r\nX: b\r\n\r\n",
    "twice, in other letters": GET + b"X-a: a\r\nx-A: b\r\n\r\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "two types": POST + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "chunks of HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    "a coding that is unknown": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "an empty coding": POST + b"Transfer-Encoding:\r\n\r\n",
    "16 digits": POST + b"Content-Length: " + b"9" * 16 + b"\r\n\r\n",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a sign before a length": POST + b"Content-Length: +5\r\n\r\n",
    "less than nothing": POST + b"Content-Length: -1\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\n",
    "a length in hexadecimal": POST + b"Content-Length: 0x5\r\n\r\n",
    "an underscore in a length, as Python has it": POST + b"Content-Length: 1_0\r\n\r\n",
    "a digit that is not ASCII": POST + b"Content-Length: \xb2\r\n\r\n",
}


@pytest.mark.parametrize("data", NOT_PLAIN_HEADS.values(), ids=NOT_PLAIN_HEADS)
def test_an_unusual_head_is_left_to_gunicorns_parser(data):
    assert parse(data) is None


CONTROLS = [*range(0x20), *range(0x7F, 0xA1), 0xAD]


@pytest.mark.parametrize("octet", CONTROLS)
@pytest.mark.parametrize("place", [b"X: a%sb\r\n", b"X: %s\r\n", b"X%s: a\r\n", b"X: a\r\n%s\r\n"])
def test_a_head_with_a_control_character_is_not_plain(octet, place):
    """gunicorn refuses most of these, and a CR or an LF by itself may end a line elsewhere."""
    assert parse(GET + place % bytes([octet]) + b"\r\n") is None


SETTINGS_THAT_ALLOW_MORE = {
    "permit_obsolete_folding": True,
    "permit_unconventional_http_method": True,
    "permit_unconventional_http_version": True,
    "strip_header_spaces": True,
    "casefold_http_method": True,
    "header_map": "dangerous",
    "forwarder_headers": "*",
}


@pytest.mark.parametrize("setting", SETTINGS_THAT_ALLOW_MORE)
@pytest.mark.parametrize("data", NOT_PLAIN_HEADS.values(), ids=NOT_PLAIN_HEADS)
def test_a_head_that_only_a_setting_allows_is_left_to_gunicorns_parser(data, setting):
    assert parse(data, configured(**{setting: SETTINGS_THAT_ALLOW_MORE[setting]})) is None


def spoiled(head):
    """Return a head with some bytes replaced, removed or inserted."""
    octets = st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"_", b"-", b"#", b"/"])
    return st.builds(
        lambda at, size, put: head[:at] + put + head[at + size :],
        st.integers(0, len(head)),
        st.integers(0, 3),
        st.one_of(octets, st.just(b""), st.binary(max_size=2), st.sampled_from([*PLAIN.values()])),
    )


SPOILED = st.sampled_from([*PLAIN.values()]).flatmap(spoiled).flatmap(spoiled)


@hypothesis.given(data=SPOILED, parser=st.sampled_from(["python", "auto"]))
@hypothesis.settings(max_examples=1000)
def test_gunicorns_parser_reads_every_plain_head_the_same_way(data, parser):
    cfg = configured(http_parser=parser)
    parsed = heads_of(cfg).parse(data, CLIENT, 1)
    hypothesis.event(f"plain: {parsed is not None}")
    if parsed is not None:
        request, behind = parsed
        theirs, environ, theirs_behind = by_gunicorn(data, cfg)
        assert environ_of(request.environ) == environ_of(environ)
        assert attributes_of(request) == attributes_of(theirs)
        assert behind == theirs_behind


# Limits.


def line_of(size):
    """Return a head with a request line of so many bytes."""
    return b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * (size - len(b"GET / HTTP/1.1")))


@pytest.mark.parametrize(
    ("settings", "fits", "too_large"),
    [
        # Some parsers count the CRLF. So a line that fits only without its CRLF is not plain.
        ({"limit_request_line": 100}, line_of(98), line_of(99)),
        ({"limit_request_line": 0}, line_of(10_000), line_of(2**20)),
        (
            {"limit_request_fields": 3},
            b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n",
        ),
        (
            {"limit_request_field_size": 20},
            GET[:18] + b"\r\nX: " + b"x" * 15 + b"\r\n\r\n",
            GET[:18] + b"\r\nX: " + b"x" * 16 + b"\r\n\r\n",
        ),
        (
            {"limit_request_field_size": 0},
            GET + b"X: " + b"x" * 8185 + b"\r\n\r\n",
            GET + b"X: " + b"x" * 8186 + b"\r\n\r\n",
        ),
    ],
    ids=["line", "no limit of the line", "fields", "field", "the highest limit of a field"],
)
@pytest.mark.parametrize("parser", ["python", "auto"])
def test_a_head_within_gunicorns_limits_is_plain(settings, fits, too_large, parser):
    cfg = configured(http_parser=parser, **settings)
    assert_same(fits, cfg=cfg)
    assert parse(too_large, cfg) is None


# The scheme.


HTTPS = b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\n\r\n"
SEVERAL = {"X-FORWARDED-PROTO": "https", "X-SSL": "on", "X_SSL": "of another field"}


@pytest.mark.parametrize(
    ("allowed", "peer", "scheme"),
    [
        ("127.0.0.1", CLIENT, "https"),
        ("127.0.0.1", ("127.0.0.2", 5), "http"),
        ("127.0.0.0/8", ("127.0.0.2", 5), "https"),
        ("", CLIENT, "http"),
        ("*", ("10.0.0.1", 5), "https"),
        ("10.0.0.0/8", "", "https"),  # by a unix socket
    ],
)
def test_only_a_trusted_proxy_sets_the_scheme(allowed, peer, scheme):
    cfg = configured(forwarded_allow_ips=allowed)
    request = parse(HTTPS, cfg, peer)
    assert request.scheme == request.environ["wsgi.url_scheme"] == scheme
    assert_same(HTTPS, cfg=cfg, peer=peer)


def test_each_peer_is_trusted_or_not_by_its_own_address():
    heads = heads_of(configured(forwarded_allow_ips="127.0.0.1"))
    peers = [CLIENT, ("10.0.0.1", 5), CLIENT, "", ("10.0.0.1", 6)]
    schemes = [heads.parse(HTTPS, peer, 1)[0].scheme for peer in peers]
    assert schemes == ["https", "http", "https", "https", "http"]


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        (b"", "http"),
        (b"X-Forwarded-Proto: https\r\n", "https"),
        (b"x-forwarded-proto: https\r\n", "https"),
        (b"X-Forwarded-Proto: http\r\n", "http"),
        (b"X-Forwarded-Proto: HTTPS\r\n", "http"),
        (b"X-Forwarded-Ssl: on\r\n", "http"),  # not in secure_scheme_headers
        (b"X-Forwarded-Proto: https\r\nX-SSL: on\r\n", "https"),
        (b"X-Forwarded-Proto: http\r\nX-SSL: off\r\n", "http"),
    ],
)
@pytest.mark.parametrize("parser", ["python", "auto"])
def test_the_scheme_comes_from_the_fields_in_secure_scheme_headers(fields, scheme, parser):
    cfg = configured(secure_scheme_headers=SEVERAL, http_parser=parser)
    data = GET + fields + b"\r\n"
    assert parse(data, cfg).scheme == scheme
    assert_same(data, cfg=cfg)


def test_contradicting_schemes_are_left_to_gunicorns_parser():
    two = GET + b"X-Forwarded-Proto: https\r\nX-SSL: off\r\n\r\n"
    cfg = configured(secure_scheme_headers=SEVERAL)
    assert parse(two, cfg) is None
    assert parse(two, cfg, ("10.0.0.1", 5)).scheme == "http"  # this peer isn't trusted


@pytest.mark.parametrize(
    ("field", "scheme"), [(b"", "https"), (b"X-Forwarded-Proto: http\r\n", "http")]
)
def test_over_tls_the_scheme_is_https_unless_a_proxy_says_otherwise(certificates, field, scheme):
    cfg = configured(certfile=str(certificates.certificate), keyfile=str(certificates.key))
    assert parse(GET + field + b"\r\n", cfg).scheme == scheme
    assert_same(GET + field + b"\r\n", cfg=cfg)


# What two requests share.


def test_changing_one_request_changes_no_other():
    heads = heads_of(configured())
    one, other = (heads.parse(GET + b"\r\n", CLIENT, number)[0] for number in (1, 2))
    assert (one.req_number, other.req_number) == (1, 2)
    assert one.environ is not other.environ
    one.environ.clear()
    one.headers.clear()
    one.trailers.append(("A", "1"))
    third, _ = heads.parse(GET + b"\r\n", CLIENT, 2)
    for request in (other, third):
        assert request.headers == [("HOST", "example.org")]
        assert request.trailers == []
        assert request.environ["HTTP_HOST"] == "example.org"
        assert request.environ["SERVER_NAME"] == LISTENER[0]


def test_a_field_of_one_request_is_not_in_the_next():
    heads = heads_of(configured())
    heads.parse(GET + b"Authorization: a\r\n\r\n", CLIENT, 1)
    request, _ = heads.parse(b"GET / HTTP/1.1\r\n\r\n", CLIENT, 2)
    assert [name for name in request.environ if name.startswith("HTTP_")] == []
    assert request.headers == []


def test_field_names_that_a_client_makes_up_are_parsed_and_do_not_fill_the_memory():
    cfg = configured(limit_request_fields=32768)
    heads = heads_of(cfg)
    for start in range(0, 2 * _REMEMBERED, 100):
        fields = b"".join(b"X-%d: a\r\n" % number for number in range(start, start + 100))
        request, _ = heads.parse(GET + fields + b"\r\n", CLIENT, 1)
        assert len(request.headers) == 101
    assert len(heads._names) == _REMEMBERED  # noqa: SLF001
    assert heads.parse(GET + b"X-New: a\r\n\r\n", CLIENT, 1)[0].environ["HTTP_X_NEW"] == "a"


# Settings with which fewer heads are plain, or none.


def test_with_a_pre_request_hook_the_environ_is_made_after_the_hook():
    cfg = configured(pre_request=lambda worker, request: None)
    request = parse(GET + b"\r\n", cfg)
    assert request.environ is None
    theirs, *_ = by_gunicorn(GET + b"\r\n", cfg)
    assert attributes_of(request) == attributes_of(theirs)


@pytest.mark.parametrize(
    ("settings", "listener", "may_be"),
    [
        ({}, LISTENER, True),
        ({}, "/run/a.sock", True),
        ({}, "/run/a:b.sock", False),  # gunicorn takes what follows the colon for a port
        ({"proxy_protocol": "auto"}, LISTENER, False),
        ({"proxy_protocol": "v1"}, LISTENER, False),
        ({"protocol": "uwsgi"}, LISTENER, False),
    ],
)
def test_plain_heads_depend_on_the_settings_and_on_the_listener(settings, listener, may_be):
    with service(gunicorn=settings) as served:
        heads = served.plain_heads(listener)
        assert (heads is not None) is may_be
        assert served.plain_heads(listener) is heads


def test_no_head_is_plain_below_a_script_name(monkeypatch):
    monkeypatch.setenv("SCRIPT_NAME", "/below")
    with service() as served:
        assert served.plain_heads(LISTENER) is None


@pytest.mark.parametrize("multithread", [False, True])
def test_wsgi_multithread_is_true_if_threads_call_the_application(multithread):
    with service(multithread=multithread) as served:
        request, _ = served.plain_heads(LISTENER).parse(GET + b"\r\n", CLIENT, 1)
        assert request.environ["wsgi.multithread"] is multithread


def test_errors_go_to_the_log_that_is_open_when_they_are_written(tmp_path, monkeypatch):
    # The handlers of other tests may be closed.
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "handlers", [])
    log = tmp_path / "error.log"
    with service(gunicorn={"errorlog": str(log)}) as served:
        request, _ = served.plain_heads(LISTENER).parse(GET + b"\r\n", CLIENT, 1)
        log.rename(tmp_path / "error.log.1")
        served.worker.log.reopen_files()
        request.environ["wsgi.errors"].write("a line of the application\n")
        assert log.read_text() == "a line of the application\n"
