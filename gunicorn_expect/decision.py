"""What a policy returns for a request with a body: `Proceed`, `Refuse` or None. No I/O."""

from __future__ import annotations

import dataclasses
import functools
import http
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from gunicorn_expect.errors import BodyError
from gunicorn_expect.fields import checked

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

    from gunicorn_expect.fields import Headers

    P = TypeVar("P", bound="Callable[..., Any]")

#: A `contextlib.ExitStack` for the policy: what it registers there runs when the upload is over.
EXITS_KEY: Final = "gunicorn_expect.exits"

#: RFC 9110 section 15 has other words for these than Python before 3.13.
_REASONS: Final = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


@dataclasses.dataclass(frozen=True)
class Proceed:
    """Send ``100 Continue`` now, if the client waits for it; then the application is called."""

    headers: Headers = ()
    """Header fields of the 100: pairs of name and value."""

    def __post_init__(self) -> None:
        """Check it. ValueError: a header field that can't be sent in a 100."""
        object.__setattr__(self, "headers", checked(self.headers, "a 100 Continue"))


@dataclasses.dataclass(frozen=True)
class Refuse:
    """Send this response and don't call the application; a client that waits sends no body."""

    status: int | str
    """A status code, such as 413, or one with a reason phrase, such as "413 Too Big For Us": 3xx,
    4xx or 5xx. Not 417, which invites the client to send everything again without Expect (RFC 9110
    section 10.1.1). When you read this attribute, it has the reason phrase."""
    headers: Headers = ()
    """Header fields: pairs of name and value."""
    body: bytes = b""
    """The content. Best left empty: Java 17's HttpClient hangs on a refusal that has content."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: a status that refuses nothing or has no reason phrase, a header field
                that can't be sent, or a body where there is none.
            TypeError: a body that is not bytes.

        """
        object.__setattr__(self, "status", _status_line(self.status))
        object.__setattr__(self, "headers", checked(self.headers, "a refusal"))
        if not isinstance(self.body, bytes):
            raise TypeError(f"the body of a refusal is bytes, not {type(self.body).__name__}")
        if self.body and str(self.status).startswith("304"):
            raise ValueError("a 304 has no body (RFC 9110 section 15.4.5)")


Decision = Proceed | Refuse | None


class Policy(Protocol):
    """What ``expect_policy`` takes: a callable that the worker calls if a request has a body."""

    def __call__(self, environ: WSGIEnvironment, /) -> Decision:
        """Return the decision; None: the application decides.

        A policy may write into the environ what it finds out. Many threads may call it at once.
        """


class PolicyFailedError(Exception):
    """A policy has failed with an error that would otherwise mean: the client is gone."""


def ask(policy: Policy, environ: WSGIEnvironment) -> Any:
    """Return what a policy returns.

    Raises:
        PolicyFailedError: it raised an OSError, for example because a service that it asks is down.
        Exception: what else it raised.

    """
    try:
        return policy(environ)
    except BodyError:
        raise  # it has read the body: this one is of the client
    except (OSError, StopIteration) as error:
        raise PolicyFailedError(f"the policy {name_of(policy)} failed") from error


def close_exits(exits: contextlib.ExitStack) -> None:
    """Run what a policy has registered for the end of the upload. Raises as `ask`."""
    try:
        exits.close()
    except (OSError, StopIteration) as error:
        raise PolicyFailedError("what a policy has registered for the end failed") from error


#: An attribute of each function that makes policies or checks. Its value is the function itself, so
#: that a wrapper that has copied the attribute doesn't count.
_FACTORY: Final = "gunicorn_expect_factory"


def factory(make: P) -> P:
    """Mark a function that makes policies or checks (a decorator).

    So `forgotten_call` recognizes the function if somebody passes it without calling it.
    """
    setattr(make, _FACTORY, make)
    return make


def forgotten_call(value: object) -> str | None:
    """Return what to write instead, if this is a function that makes policies or checks."""
    if value is Proceed or value is Refuse:
        return f"lambda environ: {value.__name__}(...)"
    if value is not None and getattr(value, _FACTORY, None) is value:
        return f"{getattr(value, '__name__', '')}(...)"
    return None


#: An attribute of a policy: the part of it that never waits.
_PART: Final = "gunicorn_expect_inline"


@factory
def inline(policy: P) -> P:
    """Mark a policy, or a check for `bearer`, as one that never waits; for use as a decorator.

    The main loop of the thread worker calls it, so that a refusal needs no thread. If such a policy
    waits, for a storage or a file, all connections wait with it. If it does not refuse, a thread
    calls it again, so it should change nothing but the environ.

    Args:
        policy: a function, or another callable that can have attributes.

    Raises:
        TypeError: the callable can't have attributes.

    """
    return having_inline(policy, policy)


def having_inline(policy: P, part: Callable[..., Any] | None) -> P:
    """Return the policy, marked with the part of it that is `inline`, if any.

    The part returns only refusals that the whole policy would return. Raises as `inline`.
    """
    try:
        setattr(policy, _PART, part)
    except AttributeError:
        raise TypeError(
            f"{kind_of(policy)} can't be marked as inline: make a function of it"
        ) from None
    return policy


def inline_part(policy: Callable[..., Any] | None) -> Policy | None:
    """Return the part of a policy that the loop may call; None: there is none."""
    part: Policy | None = getattr(policy, _PART, None)
    return part


def name_of(policy: object) -> str:
    """Return the name of a policy for a log."""
    module = getattr(policy, "__module__", "?")
    return f"{module}.{getattr(policy, '__qualname__', type(policy).__qualname__)}"


def not_a_decision(policy: object, returned: object) -> str:
    """Return what the log says of a policy that did not return a decision."""
    message = (
        f"The policy {name_of(policy)} returned {kind_of(returned)}, not Proceed, Refuse or None"
    )
    return f"{message}: was a call left out?" if callable(returned) else message


def kind_of(value: object) -> str:
    """Return how a message describes a value that may be secret, such as an environ or a token."""
    return name_of(value) if callable(value) else f"an object of type {type(value).__name__}"


def shown(value: object) -> str:
    """Return how a message shows a value: numbers and strings as they are, others by type."""
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    return kind_of(value)


def _status_line(status: Any) -> str:
    """Return a status with its reason phrase: boto3 fails on a response without one."""
    if isinstance(status, bool) or not isinstance(status, int | str):
        raise ValueError(
            f"a status is an int or a str such as '413 Content Too Large', not {shown(status)}"
        )
    return _with_reason(str(status))


@functools.lru_cache  # a policy has a few of them
def _with_reason(status: str) -> str:
    code, _, reason = status.partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdigit()):
        raise ValueError(
            "a status begins with three digits, as in '413 Content Too Large'; this one does not"
        )
    if not "300" <= code <= "599":
        raise ValueError(f"{_named(code)} refuses nothing: the status is 3xx, 4xx or 5xx")
    reason = reason or _named(code)[4:]
    if not reason:
        raise ValueError(f"{code} has no known reason phrase: add one, as in '{code} Why'")
    checked([("Reason", reason)], "a refusal")
    return f"{code} {reason}"


def _named(code: str) -> str:
    """Return a status code with its reason phrase, if it has one."""
    try:
        return f"{code} {_REASONS.get(int(code)) or http.HTTPStatus(int(code)).phrase}"
    except ValueError:
        return code
