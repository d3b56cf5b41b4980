"""What was decided and how it ended, told to gunicorn's log and by it to statsd.

As gunicorn's master tells of its workers: by a line at debug level that carries a metric. With
``statsd_host`` set, gunicorn's logger counts the metric, at every level; otherwise it is the line
alone, or nothing. The counters, behind ``statsd_prefix``:

* ``gunicorn.expect.continued``, ``.waived`` and ``.declined``: what became of clients that waited
* ``gunicorn.expect.decided_after``, a timer: milliseconds until that was decided
* ``gunicorn.expect.bytes_not_uploaded``: of the bodies that were declined, where the head told
* ``gunicorn.expect.bytes_received``: of the bodies that were read
* ``gunicorn.expect.refused_by_policy``: of clients that waited and of those that did not
* ``gunicorn.expect.body_timeout``, ``.disconnected``, ``.malformed`` and ``.too_large``: bodies
  that the application wanted and did not get whole
* ``gunicorn.expect.head_timeout``: request heads that did not come in time
* ``gunicorn.expect.linger.closed``, ``.timed_out`` and ``.dropped``: connections closed in order
* ``gunicorn.expect.connections.open``, ``.waiting`` and ``.lingering``, gauges, once a second: all
  connections of a worker, those that wait for a request's head, those that are closed in order
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gunicorn_expect.errors import BodyError
from gunicorn_expect.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gunicorn_expect.exchange import Exchange


class Log(Protocol):
    """gunicorn's logger."""

    def debug(self, msg: str, /, *args: object, extra: Mapping[str, object]) -> object:
        """Log a line, and count what the extra is about."""


class Counters:
    """What a worker tells of its exchanges; for every thread. None of its methods raises."""

    def __init__(self, log: Log | None = None) -> None:
        """Tell this log; without one, nobody."""
        self._log = log
        #: Whether anybody hears of it.
        self.heard = log is not None

    def of(self, request: Any) -> dict[str, Any]:
        """Return what an exchange is to call, by name: the decision, and a failure, are told."""
        # Not the request itself: it has the exchange.
        head = request.method, request.path, request.content_length
        return {"on_decided": partial(self.decided, *head), "on_failed": self.failed}

    def decided(self, method: str, path: str, length: int | None, exchange: Exchange) -> None:
        """Tell that an expectation was decided.

        Args:
            method: of its request.
            path: likewise, without the query, in which there may be secrets.
            length: bytes of the body; None: not known.
            exchange: its expectation is no longer pending.

        """
        state = exchange.state.name.lower()
        seconds = exchange.decided_after or 0.0
        self._count(
            state,
            1,
            "Expectation %s after %.1f ms: %s %s",
            state,
            seconds * 1000,
            method,
            path,
        )
        if exchange.state is State.DECLINED and length:
            self._count("bytes_not_uploaded", length, "Bytes not uploaded: %d", length)
        self._measure("timer", "decided_after", seconds * 1000)

    def received(self, size: int) -> None:
        """Count the bytes of a body that were read."""
        if size:
            self._measure("increment", "bytes_received", size)

    def connections(self, **states: int) -> None:
        """Report how many connections are in each state."""
        for state, count in states.items():
            self._measure("gauge", f"connections.{state}", count)

    def refused(self, status: str) -> None:
        """Tell that the policy refused a request, with this status line."""
        self._count("refused_by_policy", 1, "Refused by the policy: %s", status)

    def failed(self, error: BaseException) -> None:
        """Tell what a read of a body raised, the first time."""
        if isinstance(error, BodyError):
            # Its message: a log may keep what it is given, and the error holds frames and bytes.
            self._count(error.counter, 1, "Body not received: %s", str(error))

    def late(self) -> None:
        """Tell that a request head did not come in time."""
        self._count("head_timeout", 1, "Request head not received in time")

    def lingered(self, outcome: str) -> None:
        """Tell how a connection ended that was closed in order: what the loop says."""
        self._count(f"linger.{outcome}", 1, "Connection closed in order: %s", outcome)

    def _measure(self, how: str, name: str, value: float) -> None:
        """Send a metric without a log line. Only loggers that collect metrics have the method."""
        measure = getattr(self._log, how, None)
        if measure is not None:
            with contextlib.suppress(Exception):
                measure(f"gunicorn.expect.{name}", value)

    def _count(self, name: str, value: int, line: str, *arguments: object) -> None:
        if self._log is not None:
            # A log that is broken must not break the request.
            with contextlib.suppress(Exception):
                self._log.debug(
                    line,
                    *arguments,
                    extra={
                        "metric": f"gunicorn.expect.{name}",
                        "value": value,
                        "mtype": "counter",
                    },
                )
