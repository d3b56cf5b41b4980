"""Two workers whose metrics Prometheus reads at /metrics.

The extra is needed: ``pip install 'gunicorn-expect[prometheus]'``. The folder must be empty when
gunicorn starts, or Prometheus sees the numbers of an earlier run::

    export PROMETHEUS_MULTIPROC_DIR="$(mktemp -d)"
    gunicorn -c examples/deploy/metrics/gunicorn.conf.py examples.deploy.metrics.app:app

Under systemd use ``RuntimeDirectory=``: systemd removes that folder when the service stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import multiprocess

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

worker_class = "gunicorn_expect.Worker"
workers = 2
threads = 8
logger_class = "gunicorn_expect.contrib.prometheus.Logger"


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Forget the gauges of a worker that is gone; its counters stay in the sums."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
