"""The warnings of ``expect_warn``, for the authors of the application.

Each says what happened, where in the application, and what to do. It is logged once for each place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gunicorn_expect.callers import Reading
from gunicorn_expect.decision import name_of
from gunicorn_expect.framing import DRAIN_SIZE
from gunicorn_expect.states import State

if TYPE_CHECKING:
    import logging

    from gunicorn_expect.decision import Policy
    from gunicorn_expect.errors import BodyError
    from gunicorn_expect.exchange import Exchange

#: Status codes that the application can choose before it reads the body.
LATE: Final = frozenset({"401", "403", "413", "415"})

#: The most warnings of uploads that were read for nothing, in each worker. More of them would tell
#: nobody anything new, and an application that generates code could cause any number of them.
MOST_WARNINGS: Final = 100

#: Seconds after which an inline policy is slow. Looking at request headers takes a thousandth of
#: this; a policy that takes longer waits for something.
SLOW: Final = 0.05


class Advice:
    """The warnings of one worker, and which of them it has logged."""

    def __init__(self, log: logging.Logger | Any, application: str, *, wanted: bool) -> None:
        """Create it, with nothing logged yet.

        Args:
            log: gunicorn's logger.
            application: its module, as it was given to gunicorn.
            wanted: whether ``expect_warn`` is on. The warning of a slow policy is always logged.

        """
        self._log = log
        self._application = application
        self._wanted = wanted
        self._warned: set[object] = set()  # the keys of the readings that it has warned of
        self._warned_of_a_lost_body = False
        self._warned_of_a_slow_policy = False

    def slow_policy(self, policy: Policy | None, seconds: float) -> None:
        """Warn, once, if an inline policy took too long (loop)."""
        if seconds > SLOW and not self._warned_of_a_slow_policy:
            self._warned_of_a_slow_policy = True
            self._log.warning(
                "The inline policy %s took %.0f ms, and all connections waited for it. Without "
                "@gunicorn_expect.inline it runs on a thread",
                name_of(policy),
                seconds * 1000,
            )

    def late_refusal(self, request: Any, status: str, length: str | None) -> None:
        """Warn of an upload that was read for nothing.

        Args:
            request: its body has recorded which code read it first.
            status: one of `LATE`; nothing of the response has been sent yet.
            length: the ``Content-Length``, or None.

        """
        if not self._wanted:
            return
        if length is None and status.startswith("413"):
            return  # the application has to read such a body to know its size
        if length is not None and int(length) <= DRAIN_SIZE:
            return  # perhaps a form; so much is drained anyway, to keep the connection
        reading = self._reading(request)
        if reading.key in self._warned or len(self._warned) >= MOST_WARNINGS:
            return
        self._warned.add(reading.key)
        self._log.warning(
            "%s %r was answered with %r after its body had been read: the client sent it for "
            "nothing. It was first read %s. %s; expect_warn = False turns this warning off",
            request.method,
            request.path,
            status,
            reading,
            "Sentry's SDK read it: set its max_request_body_size to 'never', or refuse in "
            "expect_policy"
            if reading.is_sentry
            else "Refuse before that, or in expect_policy",
        )

    def lost_body(self, request: Any, exchange: Exchange, status: str, length: str | None) -> None:
        """Warn, once, of a 2xx response to a body that the application has not read.

        A short body that came without ``Expect`` may be a form that nobody needs.
        """
        lost = exchange.state is State.DECLINED or (
            int(length) > DRAIN_SIZE if length else exchange.received > 0
        )
        if lost and self._wanted and not self._warned_of_a_lost_body:
            self._warned_of_a_lost_body = True
            self._log.warning(
                "The application answered %s %r with %r and did not read the body, which is lost. "
                "Django, for example, takes a chunked body for an empty one: add "
                "gunicorn_expect.contrib.django.UploadMiddleware, or refuse such bodies with 411. "
                "This is logged once; expect_warn = False turns it off",
                request.method,
                request.path,
                status,
            )

    def swallowed(self, request: Any, failure: BodyError) -> None:
        """Warn of an application that caught the error of a read and sent no response."""
        if self._wanted:
            self._log.warning(
                "The application caught %s and sent no response: the client got %r. The body was "
                "first read %s. Return a response where you catch the error, or don't catch it",
                type(failure).__name__,
                failure.status,
                self._reading(request),
            )

    def _reading(self, request: Any) -> Reading:
        """Return which code has read the body of a request first."""
        return Reading(request.body.first_reader, self._application)
