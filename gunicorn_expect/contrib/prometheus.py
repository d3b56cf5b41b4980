"""Prometheus: ``logger_class = "gunicorn_expect.contrib.prometheus.Logger"``.

gunicorn passes its metrics to its logger (`gunicorn.instrument.statsd`), and so do we. This logger
keeps ours for Prometheus. If ``statsd_host`` is set, it sends all metrics to statsd as well. It
uses the multiprocess mode of ``prometheus_client``: each worker writes files, and the worker that
answers with `metrics` reads the files of all workers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from gunicorn.instrument.statsd import Statsd

try:
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        make_wsgi_app,
        multiprocess,
    )
except ImportError as error:
    raise RuntimeError(
        f"gunicorn_expect.contrib.prometheus needs the extra gunicorn-expect[prometheus]: {error}"
    ) from error

if (
    "PROMETHEUS_MULTIPROC_DIR" not in os.environ
):  # prometheus_client reads it only when it is imported
    raise RuntimeError(
        "gunicorn_expect.contrib.prometheus needs PROMETHEUS_MULTIPROC_DIR in the environment: a "
        "folder that is empty when gunicorn starts, which the workers can write to"
    )

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_EXPECTATIONS = Counter(
    "gunicorn_expect_expectations",
    "Clients that waited for 100 Continue, by the outcome",
    ["outcome"],
)
_BROKEN = Counter(
    "gunicorn_expect_broken_bodies",
    "Bodies that the application read and did not get completely",
    ["reason"],
)
_CLOSED = Counter(
    "gunicorn_expect_closed_connections",
    "Connections that were drained and closed after a response, by how that ended",
    ["outcome"],
)
_CONNECTIONS = Gauge(
    "gunicorn_expect_connections",
    "Connections: all that are open, those that wait for a request, those that are drained",
    ["state"],
    multiprocess_mode="livesum",
)

#: The metric for each of gunicorn_expect.counters' names, after ``gunicorn.expect.``.
_METRICS: Final[dict[str, Any]] = {
    **{outcome: _EXPECTATIONS.labels(outcome) for outcome in ("continued", "waived", "declined")},
    **{
        reason: _BROKEN.labels(reason)
        for reason in ("body_timeout", "disconnected", "malformed", "too_large")
    },
    **{
        f"linger.{outcome}": _CLOSED.labels(outcome)
        for outcome in ("closed", "timed_out", "dropped")
    },
    **{
        f"connections.{state}": _CONNECTIONS.labels(state)
        for state in ("open", "waiting", "lingering")
    },
    "bytes_received": Counter("gunicorn_expect_received_bytes", "Bytes of bodies that were read"),
    "bytes_not_uploaded": Counter(
        "gunicorn_expect_not_uploaded_bytes", "Content-Length of declined uploads, where known"
    ),
    "refused_by_policy": Counter(
        "gunicorn_expect_refused_by_policy", "Requests that the policy refused"
    ),
    "head_timeout": Counter(
        "gunicorn_expect_head_timeouts", "Request headers that did not arrive in time"
    ),
    "decided_after": Histogram(
        "gunicorn_expect_decision_seconds",
        "Time from the request's headers to the decision, of clients that waited",
        # Clients wait for 1 s before they send anyway: curl, boto3, Go, .NET.
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    ),
}
_PREFIX: Final = "gunicorn.expect."


def _metric(name: str) -> Any:
    return _METRICS.get(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None


class Logger(Statsd):
    """gunicorn's logger, for Prometheus."""

    def increment(self, name: str, value: int, sampling_rate: float = 1.0) -> None:
        """Increase a counter."""
        if (metric := _metric(name)) is not None:
            metric.inc(value)
        if self.sock is not None:
            super().increment(name, value, sampling_rate)

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        if (metric := _metric(name)) is not None:
            metric.set(value)
        if self.sock is not None:
            super().gauge(name, value)

    def timer(self, name: str, value: float) -> None:
        """Record how many milliseconds something took."""
        if (metric := _metric(name)) is not None:
            metric.observe(value / 1000)
        if self.sock is not None:
            super().timer(name, value)


def metrics(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the metrics of all workers (a WSGI application)."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    answer: Iterable[bytes] = make_wsgi_app(registry)(environ, start_response)
    return answer
