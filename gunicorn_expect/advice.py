"""What a worker's log advises those who have written the application: ``expect_warn``.

Each of these says what happened, where in the application, and what to do; once for each place.
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

#: Statuses that could have been answered before the body was read.
LATE: Final = frozenset({"401", "403", "413", "415"})

#: Warnings of uploads that were read for nothing, in each worker. After so many the reader knows,
#: and code that is made at run time has lines without end.
MOST_WARNINGS: Final = 100

#: Seconds after which an inline policy is slow. To look at a head takes a thousandth of this;
#: one that takes longer waits for something.
SLOW: Final = 0.05


class Advice:
    """The warnings of one worker, and which of them were given."""

    def __init__(self, log: logging.Logger | Any, application: str, *, wanted: bool) -> None:
        """Begin with none.

        Args:
            log: gunicorn's.
            application: its module, as it was given to gunicorn.
            wanted: whether ``expect_warn`` is on. A slow policy is always warned of.

        """
        self._log = log
        self._application = application
        self._wanted = wanted
        self._given: set[object] = set()  # the keys of the readings that were warned about
        self._told_of_a_lost_body = False
        self._told_of_a_slow_policy = False

    def slow_policy(self, policy: Policy | None, seconds: float) -> None:
        """Warn, once, of an inline policy that took so long (loop)."""
        if seconds > SLOW and not self._told_of_a_slow_policy:
            self._told_of_a_slow_policy = True
            self._log.warning(
                "The inline policy %s took %.0f ms, and all connections waited for it. Without "
                "@gunicorn_expect.inline it runs on a thread",
                name_of(policy),
                seconds * 1000,
            )

    def late_refusal(self, request: Any, status: str, length: str | None) -> None:
        """Warn of an upload that was read for nothing.

        Args:
            request: its body has noted who has read it first.
            status: one of `LATE`, of a response of which nothing is sent yet.
            length: bytes of the body, as the head told; None: it did not.

        """
        if not self._wanted:
            return
        if length is None and status.startswith("413"):
            return  # only who reads such a body can know
        if length is not None and int(length) <= DRAIN_SIZE:
            return  # a form, perhaps: so much is read anyway, for the connection to be kept
        reading = self._reading(request)
        if reading.key in self._given or len(self._given) >= MOST_WARNINGS:
            return
        self._given.add(reading.key)
        self._log.warning(
            "%s %r was answered with %r when its body had been read: it was sent for nothing. It "
            "was read first %s. %s; expect_warn = False turns this warning off",
            request.method,
            request.path,
            status,
            reading,
            "Sentry's SDK did that: set its max_request_body_size to 'never', or refuse in "
            "expect_policy"
            if reading.is_sentry
            else "Decide before that, or in expect_policy",
        )

    def lost_body(self, request: Any, exchange: Exchange, status: str, length: str | None) -> None:
        """Warn, once, of a response that says success though nobody has read the body.

        A short one that comes unasked may be a form that nobody needs.
        """
        lost = exchange.state is State.DECLINED or (
            int(length) > DRAIN_SIZE if length else exchange.received > 0
        )
        if lost and self._wanted and not self._told_of_a_lost_body:
            self._told_of_a_lost_body = True
            self._log.warning(
                "The application answered %s %r with %r and did not read the body, which is lost. "
                "Django, for one, takes a chunked body for an empty one: add "
                "gunicorn_expect.contrib.django.UploadMiddleware, or refuse such bodies with 411. "
                "This is logged once; expect_warn = False turns it off",
                request.method,
                request.path,
                status,
            )

    def swallowed(self, request: Any, failure: BodyError) -> None:
        """Warn of an application that caught what its read raised, and answered nothing."""
        if self._wanted:
            self._log.warning(
                "The application caught %s and did not answer: the client got %r. The body was "
                "read first %s. Answer there, or let the error pass",
                type(failure).__name__,
                failure.status,
                self._reading(request),
            )

    def _reading(self, request: Any) -> Reading:
        """Return who has read the body of a request first."""
        return Reading(request.body.first_reader, self._application)
