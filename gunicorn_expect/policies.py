"""Ready policies. Each looks at the request headers, and refuses with the right status code.

The worker calls a policy only for requests that have a body. `first` combines several policies, and
`route` limits them to some paths. A configuration file may say::

    import os

    from gunicorn_expect import policies

    expect_policy = policies.first(
        policies.bearer(policies.one_of(os.environ["UPLOAD_TOKEN"])),
        policies.max_length(5_000_000_000),
        policies.route("/photos/*", policies.content_types("image/*")),
        policies.admission(8),
    )

They are called in this order. Put those first that only look at the headers, and `admission` last,
so that refused requests don't use a slot.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import inspect
import re
from typing import TYPE_CHECKING, Final

from gunicorn_expect.admission import admission
from gunicorn_expect.decision import (
    Refuse,
    factory,
    forgotten_call,
    having_inline,
    inline,
    inline_part,
    kind_of,
    name_of,
    shown,
)
from gunicorn_expect.endpoint import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed.wsgi import WSGIEnvironment

    from gunicorn_expect.decision import Decision, Policy

__all__ = [
    "IDENTITY_KEY",
    "admission",
    "basic",
    "bearer",
    "content_types",
    "endpoint",
    "first",
    "length_required",
    "max_length",
    "methods",
    "one_of",
    "passwords",
    "route",
]

#: The environ key of what the check for `bearer` or `basic` has returned.
IDENTITY_KEY: Final = "gunicorn_expect.identity"

#: "restricted-name" (RFC 6838 section 4.2)
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&\-^_.+]*"
_MEDIA_TYPE: Final = re.compile(rf"{_NAME}/{_NAME}")
#: "media-range = ( "*/*" / ( type "/" "*" ) / ( type "/" subtype ) )" (RFC 9110 section 12.5.1)
_MEDIA_RANGE: Final = re.compile(rf"\*/\*|{_NAME}/(?:\*|{_NAME})")
#: "method = token" (RFC 9110 section 9.1), in capitals.
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]+")
#: RFC 6750 section 2.1: "b64token"
_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
#: ASCII characters that a quoted-string may have without a backslash (RFC 9110 section 5.6.4).
_REALM: Final = re.compile(r"[ !#-\[\]-~]*")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


@factory
def max_length(size: int) -> Policy:
    """Refuse a body of more than ``size`` bytes with 413.

    A body without a ``Content-Length`` is limited while it is read: a read beyond the limit raises
    `ContentTooLarge`, and the client gets 413 if nothing catches this error. If several policies
    set a limit, the smallest counts.

    Args:
        size: the maximum number of bytes.

    Raises:
        ValueError: it is not a number of bytes.

    Source: RFC 9110 section 15.5.14.

    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"max_length takes a number of bytes, 0 or more, not {shown(size)}")
    too_large = Refuse(413)

    @inline
    def policy(environ: WSGIEnvironment) -> Decision:
        length = environ.get("CONTENT_LENGTH")
        if not length:
            environ["wsgi.input"].limit(size)
            return None
        return too_large if int(length) > size else None

    return policy


@factory
def length_required() -> Policy:
    """Refuse a body without a ``Content-Length`` with 411.

    Source: RFC 9110 section 15.5.12.
    """
    refusal = Refuse(411)

    @inline
    def policy(environ: WSGIEnvironment) -> Decision:
        return None if environ.get("CONTENT_LENGTH") else refusal

    return policy


@factory
def content_types(*ranges: str) -> Policy:
    """Refuse a body that has another media type, or none, with 415.

    Args:
        ranges: media ranges as in an Accept field, such as `image/*` and `application/pdf`, without
            parameters. Upper and lower case are the same; parameters of the request are ignored.

    Raises:
        ValueError: one of them is not a media range, or there is none.

    Source: RFC 9110 sections 8.3.1, 12.5.1 and 15.5.16.

    """
    _check_some("content_types", ranges, "media types")
    for media_range in ranges:
        if not isinstance(media_range, str) or not _MEDIA_RANGE.fullmatch(media_range):
            raise ValueError(
                f"{shown(media_range)} is not a range of media types, such as 'image/*', "
                "'application/pdf' or '*/*'"
            )
    allowed = frozenset(media_range.lower() for media_range in ranges)
    # "the Accept response header field can be used to indicate which media types would have been
    # accepted" (RFC 9110 section 15.5.16).
    refusal = Refuse(415, [("Accept", ", ".join(ranges))])

    @inline
    def policy(environ: WSGIEnvironment) -> Decision:
        media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip(" \t").lower()
        if not _MEDIA_TYPE.fullmatch(media_type):
            return refusal
        kind = media_type.partition("/")[0]
        return None if allowed & {media_type, f"{kind}/*", "*/*"} else refusal

    return policy


@factory
def methods(*names: str) -> Policy:
    """Refuse a request with 405 if it has a body, and its method is not one of these.

    The worker does not call this for requests without a body. But name all methods of these paths,
    GET and HEAD too, because the Allow field of the response lists them.

    Args:
        names: such as "PUT".

    Raises:
        ValueError: one of them is not a method, or there is none.

    Source: RFC 9110 sections 9.1 and 15.5.6.

    """
    _check_some("methods", names, "methods")
    for name in names:
        # "The method token is case-sensitive"
        if not isinstance(name, str) or not _METHOD.fullmatch(name):
            raise ValueError(
                f"{shown(name)} is not a method: methods are in capitals, such as 'PUT'"
            )
    allowed = frozenset(names)
    # "The origin server MUST generate an Allow header field in a 405 response containing a list of
    # the target resource's currently supported methods."
    refusal = Refuse(405, [("Allow", ", ".join(names))])

    @inline
    def policy(environ: WSGIEnvironment) -> Decision:
        return None if environ["REQUEST_METHOD"] in allowed else refusal

    return policy


@factory
def bearer(check: Callable[[str], object], realm: str = "uploads") -> Policy:
    """Refuse a request without a valid bearer token with 401.

    For a valid token it sets ``AUTH_TYPE`` in the environ, and `IDENTITY_KEY` to what the check
    returned; if that is a str, ``REMOTE_USER`` as well.

    Args:
        check: called with the token; returns a true value if the token is valid. `one_of` makes a
            check.
        realm: what the token is for.

    Raises:
        TypeError: the check is not callable.
        ValueError: the realm has quotes, backslashes, control characters, or is not ASCII.

    Source: RFC 6750.

    """
    challenge = f'Bearer realm="{_checked_realm("bearer", check, realm)}"'
    # "If the request lacks any authentication information [...], the resource server SHOULD NOT
    # include an error code or other error information" (RFC 6750 section 3.1).
    lacking = Refuse(401, [("WWW-Authenticate", challenge)])
    # "The access token provided is expired, revoked, malformed, or invalid for other reasons."
    invalid = Refuse(401, [("WWW-Authenticate", f'{challenge}, error="invalid_token"')])

    def policy(environ: WSGIEnvironment) -> Decision:
        token = _credentials(environ, "bearer")
        if token is None:
            return lacking
        identity = _call_check(check, token) if _BEARER_TOKEN.fullmatch(token) else None
        if not identity:
            return invalid
        _identify(environ, "Bearer", identity)
        return None

    return having_inline(policy, inline_part(check) and policy)


@factory
def basic(check: Callable[[str, str], object], realm: str = "uploads") -> Policy:
    """Refuse a request without a valid name and password with 401.

    For a valid pair it sets ``AUTH_TYPE`` in the environ, and `IDENTITY_KEY` to the name, or to
    what the check returned instead of True; if that is a str, ``REMOTE_USER`` as well. Without TLS,
    passwords are sent in clear text.

    Args:
        check: called with the name and the password; returns a true value if both are valid.
            `passwords` makes a check.
        realm: what the password is for.

    Raises:
        TypeError: the check is not callable.
        ValueError: the realm has quotes, backslashes, control characters, or is not ASCII.

    Source: RFC 7617.

    """
    challenge = f'Basic realm="{_checked_realm("basic", check, realm)}", charset="UTF-8"'
    refusal = Refuse(401, [("WWW-Authenticate", challenge)])

    def policy(environ: WSGIEnvironment) -> Decision:
        pair = _pair(_credentials(environ, "basic"))
        identity = _call_check(check, *pair) if pair else None
        if not pair or not identity:
            return refusal
        _identify(environ, "Basic", pair[0] if identity is True else identity)
        return None

    return having_inline(policy, inline_part(check) and policy)


@factory
def one_of(*secrets: str) -> Callable[[str], bool]:
    """Make a check for `bearer` that returns whether the token is one of these.

    The check takes constant time: it compares the token with each of them. Use long, random
    secrets.

    Args:
        secrets: the tokens. Only their SHA-256 is kept.

    Raises:
        ValueError: there is no secret, or one is empty, for example from an unset variable.

    """
    _check_some("one_of", secrets, "secrets")
    if not all(isinstance(secret, str) and secret for secret in secrets):
        raise ValueError("a secret must be a str that is not empty")
    # compare_digest may reveal the length of its arguments; all digests have the same.
    digests = [_digest(secret) for secret in secrets]

    @inline
    def check(secret: str) -> bool:
        digest = _digest(secret)
        return sum(hmac.compare_digest(digest, other) for other in digests) > 0

    return check


@factory
def passwords(users: Mapping[str, str]) -> Callable[[str, str], bool]:
    """Make a check for `basic` that returns whether name and password are one of these pairs.

    Like `one_of` the check takes constant time, also for an unknown name. Use it for the passwords
    of a few programs, which are long and random. Hash those of people, with `hashlib.scrypt` or the
    like.

    Args:
        users: the password of each name.

    Raises:
        ValueError: a name can't be sent, a password is empty, or there are no users.

    """
    _check_some("passwords", users, "users")
    for number, (user, password) in enumerate(users.items(), 1):
        # "a user-id containing a colon character is invalid" (RFC 7617 section 2)
        if not isinstance(user, str) or ":" in user or _CONTROLS.search(user):
            # Don't show the name: with a ":" it may be a name and a password.
            raise ValueError(
                f"user {number} has a name that is not a str, or has ':' or a control character"
            )
        if not isinstance(password, str) or not password or _CONTROLS.search(password):
            raise ValueError(
                f"the password of {user!r} must be a str, not empty and without control characters"
            )
    check = one_of(*(f"{user}:{password}" for user, password in users.items()))
    return inline(lambda user, password: check(f"{user}:{password}"))


@factory
def first(*policies: Policy) -> Policy:
    """Call policies one after the other until one returns Proceed or Refuse.

    After a Proceed the client sends its body at once, and the policies after it are not called.

    Args:
        policies: at least one.

    Raises:
        TypeError: one is not callable.
        ValueError: there is none.

    """
    _check_some("first", policies, "policies")
    for policy in policies:
        if not callable(policy):
            raise TypeError(f"{kind_of(policy)} is not a policy: it can't be called")
        if (call := forgotten_call(policy)) is not None:
            raise TypeError(f"{name_of(policy)} is not a policy itself: write {call}")

    ask = _in_turn(policies)
    parts = []
    for policy in policies:
        part = inline_part(policy)
        if part is not None:
            parts.append(part)
        if part is not policy:
            break  # a later policy must not refuse before this one is called
    else:
        return inline(ask)
    return having_inline(ask, _in_turn(parts) if parts else None)


def _in_turn(policies: Sequence[Policy]) -> Policy:
    def ask(environ: WSGIEnvironment) -> Decision:
        for policy in policies:
            decision = policy(environ)
            if decision is not None:
                return decision
        return None

    return ask


@factory
def route(pattern: str, *policies: Policy) -> Policy:
    """Call policies as `first` does, but only for paths that match this pattern.

    The path is ``PATH_INFO``, which is percent-decoded but not normalized: "/files//a" and
    "/files/../a" stay as they are. So if nobody may get around a policy, don't put it into a route.

    Args:
        pattern: such as `/files/*`, in the syntax of `fnmatch.fnmatchcase`: ``*`` matches any
            characters, ``/`` too.
        policies: at least one.

    Raises:
        TypeError: a policy is not callable.
        ValueError: the pattern does not begin with ``/`` or ``*``, or there is no policy.

    """
    if not isinstance(pattern, str) or pattern[:1] not in ("/", "*"):
        raise ValueError(f"route takes a pattern of paths: '/files/*', not {shown(pattern)}")
    # The path is bytes, each as one character (PEP 3333, "Unicode Issues").
    matches = re.compile(fnmatch.translate(pattern.encode().decode("latin-1"))).match
    ask = first(*policies)
    part = inline_part(ask)
    policy = _for_paths(matches, ask)
    if part is ask:
        return inline(policy)
    return having_inline(policy, part and _for_paths(matches, part))


def _for_paths(matches: Callable[[str], object], ask: Policy) -> Policy:
    def policy(environ: WSGIEnvironment) -> Decision:
        return ask(environ) if matches(environ.get("PATH_INFO", "")) else None

    return policy


def _check_some(maker: str, found: object, what: str) -> None:
    if not found:
        raise ValueError(f"{maker} takes {what}, at least one")


def _checked_realm(maker: str, check: object, realm: str) -> str:
    if not callable(check):
        # Don't show it: it may be the token itself.
        raise TypeError(f"{maker} takes a check that can be called, not {kind_of(check)}")
    if (call := forgotten_call(check)) is not None:
        raise TypeError(f"{name_of(check)} is not a check itself: write {call}")
    if inspect.iscoroutinefunction(check):
        raise TypeError(f"{name_of(check)} is an async function; {maker} takes a check that is not")
    if not isinstance(realm, str) or not _REALM.fullmatch(realm):
        raise ValueError("a realm must be ASCII without quotes, backslashes and control characters")
    return realm


def _call_check(check: Callable[..., object], *credentials: str) -> object:
    """Call a check. TypeError: it returned a function or an awaitable, which are always true."""
    identity = check(*credentials)
    if inspect.isroutine(identity) or inspect.isawaitable(identity):
        raise TypeError(
            f"the check {name_of(check)} returned {kind_of(identity)}: "
            "was a call or an await left out?"
        )
    return identity


def _credentials(environ: WSGIEnvironment, scheme: str) -> str | None:
    """Return what follows the scheme in the Authorization field, if it is this scheme."""
    # "It uses a case-insensitive token to identify the authentication scheme" (RFC 9110 section
    # 11.1), with "1*SP" after it (section 11.4).
    found, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return credentials.strip(" ") if found.lower() == scheme else None


def _pair(credentials: str | None) -> tuple[str, str] | None:
    """Decode name and password; None: they are malformed."""
    try:
        pair = base64.b64decode(credentials or "", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):  # not base64, or not UTF-8
        return None
    # "The user-id and password MUST NOT contain any control characters" (RFC 7617 section 2).
    user, colon, password = pair.partition(":")
    return (user, password) if colon and not _CONTROLS.search(pair) else None


def _identify(environ: WSGIEnvironment, scheme: str, identity: object) -> None:
    environ["AUTH_TYPE"] = scheme
    environ[IDENTITY_KEY] = identity
    if isinstance(identity, str):
        # The strings of CGI's variables are bytes, each as one character (PEP 3333).
        environ["REMOTE_USER"] = identity.encode().decode("latin-1")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
