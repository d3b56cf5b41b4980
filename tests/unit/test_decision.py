"""`Refuse`, `Proceed` and `inline`: what a policy returns is checked when it is created."""

import dataclasses

import pytest

from gunicorn_expect import Proceed, Refuse, inline, policies


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (413, "413 Content Too Large"),
        ("413", "413 Content Too Large"),
        ("413 Too Much", "413 Too Much"),
        (414, "414 URI Too Long"),
        (416, "416 Range Not Satisfiable"),
        (422, "422 Unprocessable Content"),
        (401, "401 Unauthorized"),
        (307, "307 Temporary Redirect"),
        (503, "503 Service Unavailable"),
        ("499 Gone Fishing", "499 Gone Fishing"),
    ],
)
def test_a_status_has_the_reason_phrase_of_rfc_9110(status, line):
    assert Refuse(status).status == line


def test_a_refusal_needs_a_status():
    """417 looks like a natural default, but clients may then send the upload again."""
    with pytest.raises(TypeError, match="status"):
        Refuse()


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((100, "100 Continue"), (103, "103 Early Hints"), (200, "200 OK"), ("201", "201 Created")),
        *(("204 Nothing", "204 No Content"), (299, "299"), (600, "600"), ("099", "099")),
    ],
)
def test_a_status_that_is_not_3xx_4xx_or_5xx_is_an_error_that_names_it(status, name):
    with pytest.raises(ValueError, match=f"^{name} refuses nothing: the status is 3xx, 4xx or 5xx"):
        Refuse(status)


@pytest.mark.parametrize("status", [0, 99, 1000])
def test_a_status_has_three_digits(status):
    with pytest.raises(ValueError, match="three digits"):
        Refuse(status)


@pytest.mark.parametrize("status", [499, "599"])
def test_a_status_without_a_known_reason_phrase_needs_one(status):
    with pytest.raises(ValueError, match="no known reason phrase"):
        Refuse(status)


@pytest.mark.parametrize(
    "status", ["", "4x3 What", "Not Found", "40 4", "4\u0663\u0661", None, 4.3, True]
)
def test_a_bad_status_is_an_error(status):
    with pytest.raises(ValueError, match="status"):
        Refuse(status)


@pytest.mark.parametrize(
    "make",
    [
        Refuse,
        Proceed,
        *(policies.max_length, policies.content_types, policies.methods, policies.bearer),
        *(policies.basic, policies.first, policies.admission),
        lambda value: policies.route(value, policies.length_required()),
        lambda value: policies.admission(1, retry_after=value),
        lambda value: policies.admission(1, key=value),
        lambda value: policies.bearer(policies.one_of("x"), realm=value),
    ],
)
def test_a_factory_called_with_an_environ_by_mistake_does_not_print_it(make):
    environ = {"HTTP_AUTHORIZATION": "Bearer s3cret", "PATH_INFO": "/s3cret"}
    with pytest.raises((TypeError, ValueError)) as raised:
        make(environ)
    assert "s3cret" not in str(raised.value)


def test_the_error_for_an_object_that_can_not_be_marked_as_inline_names_only_its_type():
    with pytest.raises(TypeError, match=r"^an object of type dict can't be marked as inline"):
        inline({"HTTP_AUTHORIZATION": "Bearer s3cret"})


def test_a_reason_phrase_has_no_line_end():
    with pytest.raises(ValueError, match="CR, LF"):
        Refuse("403 No\r\nSet-Cookie: x")


@pytest.mark.parametrize("make", [lambda x: Refuse(403, x), Proceed])
@pytest.mark.parametrize(
    ("field", "what"),
    [
        (("X-A", "s3cret\r\nX-B: 2"), "the value of X-A can't be sent"),
        (("X-A: s3cret", "1"), "header field 2 of .* has a name"),
        (("", "s3cret"), "header field 2 of .* has a name"),
        (("X-A", b"s3cret"), "header field 2 of .* is not a pair of str"),
        (("X-A", "s3cret", "1"), "header field 2 of .* is not a pair of str"),
        ("X-A: s3cret", "header field 2 of .* is not a pair of str"),
        (("Content-Length", "3"), "can't be given Content-Length"),
    ],
)
def test_a_header_field_that_can_not_be_sent_is_an_error_without_its_value(make, field, what):
    with pytest.raises(ValueError, match=what) as raised:
        make([("X-Good", "1"), field])
    assert "s3cret" not in str(raised.value)


def test_the_body_of_a_refusal_must_be_bytes():
    with pytest.raises(TypeError, match="bytes, not str"):
        Refuse(403, body="no")


def test_a_304_has_no_body():
    with pytest.raises(ValueError, match="304 has no body"):
        Refuse(304, body=b"x")


def test_a_decision_is_frozen_and_can_be_compared():
    decision = Refuse(401, iter([("WWW-Authenticate", "Bearer")]))
    assert decision == Refuse("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
    assert decision.headers == (("WWW-Authenticate", "Bearer"),)
    assert hash(decision) == hash(dataclasses.replace(decision))
    with pytest.raises(dataclasses.FrozenInstanceError):
        decision.status = 200
    assert Proceed() == Proceed([])
