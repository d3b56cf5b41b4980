"""An application that answers a proxy which asks before it reads a body: `policies.endpoint`.

The proxy sends a request without a body. Its header fields describe the upload, and from them
the application makes the environ of the upload, for the policy.
"""

from __future__ import annotations

import contextlib
import functools
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.decision import (
    EXITS_KEY,
    Proceed,
    Refuse,
    ask,
    factory,
    forgotten_call,
    kind_of,
    name_of,
    not_a_decision,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from gunicorn_expect.decision import Policy

#: The worker sets this in every request: a function that returns whether ``forwarded_allow_ips``
#: names the peer of a socket. ``REMOTE_ADDR`` can't tell: a peer that speaks the PROXY protocol
#: chooses it.
TRUSTS_KEY: Final = "gunicorn_expect.trusts"

#: Caddy and Traefik send these by themselves.
_METHOD_KEY: Final = "HTTP_X_FORWARDED_METHOD"
_URI_KEY: Final = "HTTP_X_FORWARDED_URI"
_HOST_KEY: Final = "HTTP_X_FORWARDED_HOST"
#: The last address is that of the client. Those before it may come from the client itself.
_CLIENT_KEY: Final = "HTTP_X_FORWARDED_FOR"
#: The proxy's request has no body, so these can't have their own names.
_LENGTH_KEY: Final = "HTTP_X_FORWARDED_CONTENT_LENGTH"
_CODING_KEY: Final = "HTTP_X_FORWARDED_TRANSFER_ENCODING"

_LENGTH: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

#: Methods whose requests have no body, unless a field says that they do. "Although request message
#: framing is independent of the method used, content received in a GET request has no generally
#: defined semantics" (RFC 9110 section 9.3.1). The same goes for the others.
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

_TEXT: Final = (("Content-Type", "text/plain"),)


@factory
def endpoint(policy: Policy) -> WSGIApplication:
    """Make a WSGI application of a policy, for a proxy that asks before it reads the body.

    The application answers with 200, or with the policy's refusal. It serves only a proxy that
    ``forwarded_allow_ips`` names, or one on a unix socket. Anybody else gets 403.

    The policy finds the method, the URI, the host, the length and the client's address of the
    upload in the environ, as far as the proxy forwards them, and all other header fields of the
    client. It can't read or limit the body, which the proxy has not read yet. Its exits are closed
    when the application has answered, before the upload. So `admission` can't count running uploads
    here.

    Args:
        policy: the same as in ``expect_policy``. Keep that setting: the answer to the proxy is only
            an early one, and the worker still has to check the upload itself.

    Raises:
        TypeError: the policy is not callable.

    """
    if not callable(policy):
        raise TypeError(f"{kind_of(policy)} is not a policy: it can't be called")
    if (call := forgotten_call(policy)) is not None:
        raise TypeError(f"{name_of(policy)} is not a policy itself: write {call}")

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal = _refusal(policy, environ)
        if refusal is None:
            # Not 204: Envoy takes every status but 200 for a refusal, and sends it to the client.
            start_response("200 OK", [("Content-Length", "0")])
            return []
        length = str(len(refusal.body))
        start_response(str(refusal.status), [*refusal.headers, ("Content-Length", length)])
        return [refusal.body]

    return application


def _refusal(policy: Policy, environ: WSGIEnvironment) -> Refuse | None:
    trusts = environ.get(TRUSTS_KEY)
    if trusts is None:
        raise RuntimeError(
            "policies.endpoint needs one of gunicorn_expect's workers: they know the peer"
        )
    if not trusts(environ["gunicorn.socket"]):
        return Refuse(403, _TEXT, b"This endpoint serves the proxies in forwarded_allow_ips.\n")
    try:
        upload = _upload(environ)
    except ValueError as error:
        environ["wsgi.errors"].write(f"gunicorn_expect: {error}\n")
        return Refuse(400, _TEXT, f"{error}\n".encode())
    return None if upload is None else _decide(policy, upload)


def _decide(policy: Policy, upload: WSGIEnvironment) -> Refuse | None:
    @functools.wraps(policy)  # an error names it
    def asked(environ: WSGIEnvironment) -> Any:
        with contextlib.ExitStack() as environ[EXITS_KEY]:
            decision = policy(environ)
        return decision  # noqa: RET504  an exit that hides an error must not admit the upload

    decision = ask(asked, upload)
    if decision is None or isinstance(decision, Proceed):
        return None
    if isinstance(decision, Refuse):
        return decision
    raise TypeError(not_a_decision(policy, decision))


def _upload(environ: WSGIEnvironment) -> WSGIEnvironment | None:
    """Return the environ of the upload that the proxy asks about, or None if it has no body.

    Raises:
        ValueError: a header field that describes the upload is missing or bad.

    """
    method, uri = environ.get(_METHOD_KEY), environ.get(_URI_KEY, "")
    if not method or uri[:1] not in ("/", "*"):
        raise ValueError(
            "the proxy's request needs X-Forwarded-Method, and X-Forwarded-Uri with a path: see "
            "docs/deploy.md"
        )
    length, coding = environ.get(_LENGTH_KEY, ""), environ.get(_CODING_KEY)
    if length and not _LENGTH.fullmatch(length):
        raise ValueError("X-Forwarded-Content-Length is not a number of bytes")
    if not coding and (int(length) == 0 if length else method in _BODILESS):
        return None
    path, _, query = uri.partition("?")
    upload = {
        **environ,
        "REQUEST_METHOD": method,
        "RAW_URI": uri,
        "SCRIPT_NAME": "",
        # The strings of CGI's variables are bytes, each as one character (PEP 3333).
        "PATH_INFO": urllib.parse.unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "wsgi.input": _BodyAtTheProxy(),
    }
    _put(upload, "CONTENT_LENGTH", None if coding else length)
    _put(upload, "HTTP_TRANSFER_ENCODING", coding)
    upload["HTTP_HOST"] = environ.get(_HOST_KEY) or environ.get("HTTP_HOST", "")
    client = environ.get(_CLIENT_KEY, "").rpartition(",")[2].strip(" ")
    if client:
        upload["REMOTE_ADDR"] = client
        upload.pop("REMOTE_PORT", None)
    return upload


def _put(environ: WSGIEnvironment, key: str, value: str | None) -> None:
    environ.pop(key, None)
    if value:
        environ[key] = value


class _BodyAtTheProxy:
    """``wsgi.input`` of an upload whose body the proxy has not read yet."""

    def limit(self, size: int) -> None:
        """Do nothing: ``expect_policy`` limits the body when it is uploaded."""
