"""Counts decisions and outcomes, in gunicorn's log and in statsd.

Each is a log line at debug level that carries a metric, as those of gunicorn's master are. With
``statsd_host``, gunicorn's logger sends the metric, whatever the log level; without it there is
only the line. The metrics, after ``statsd_prefix``:

* ``gunicorn.expect.continued``, ``.waived`` and ``.declined``: what became of clients that waited
* ``gunicorn.expect.decided_after``, a timer: milliseconds until that was decided
* ``gunicorn.expect.bytes_not_uploaded``: ``Content-Length`` of declined uploads, where known
* ``gunicorn.expect.bytes_received``: of the bodies that were read
* ``gunicorn.expect.refused_by_policy``: requests, whether their client waited or not
* ``gunicorn.expect.body_timeout``, ``.disconnected``, ``.malformed`` and ``.too_large``: bodies
  that the application read and did not get completely
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
    """The counters of a worker (any thread). None of the methods raises."""

    def __init__(self, log: Log | None = None) -> None:
        """Report to this log; without one, report nothing."""
        self._log = log
        #: Whether there is a log to report to.
        self.enabled = log is not None

    def callbacks(self, request: Any) -> dict[str, Any]:
        """Return the callbacks of an exchange, by the names of its arguments."""
        # Not the request itself, which refers to the exchange: that would be a reference cycle.
        head = request.method, request.path, request.content_length
        return {"on_decided": partial(self.decided, *head), "on_failed": self.failed}

    def decided(self, method: str, path: str, length: int | None, exchange: Exchange) -> None:
        """Count how an expectation was decided.

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
        """Count a refusal by the policy, with this status line."""
        self._count("refused_by_policy", 1, "Refused by the policy: %s", status)

    def failed(self, error: BaseException) -> None:
        """Count the first error that reading a body raised."""
        if isinstance(error, BodyError):
            # Only its message: a log may keep its arguments, and the error holds frames and bytes.
            self._count(error.counter, 1, "Body not received: %s", str(error))

    def late(self) -> None:
        """Count a request head that did not arrive in time."""
        self._count("head_timeout", 1, "Request head not received in time")

    def lingered(self, outcome: str) -> None:
        """Count how a closing connection ended: "closed", "timed_out" or "dropped"."""
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
