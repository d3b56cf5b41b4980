"""Thread workers, ours and gunicorn's own, whose thread pool a subclass makes."""

from concurrent.futures import ThreadPoolExecutor

from gunicorn.workers.gthread import ThreadWorker

import gunicorn_expect
from stock.recording import note


class Noting:
    """Notes when the pool is made."""

    def get_thread_pool(self):
        note("get_thread_pool")
        return super().get_thread_pool()


class Ours(Noting, gunicorn_expect.Worker):
    """Ours."""


class Stock(Noting, ThreadWorker):
    """gunicorn's own."""


class OfExecutor(gunicorn_expect.Worker):
    """A worker with a pool that can't lend slots."""

    def get_thread_pool(self):
        return ThreadPoolExecutor(1)
