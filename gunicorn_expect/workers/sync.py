"""The worker that does one thing at a time: ``gunicorn -k gunicorn_expect.workers.sync.Worker``."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any

from gunicorn.workers import sync

from gunicorn_expect import connection, worker

if TYPE_CHECKING:
    import socket

    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.http.message import Request


class Worker(worker.Worker, sync.SyncWorker):
    """gunicorn's sync worker, for applications that take uploads."""

    hooks = (
        "gunicorn.workers.sync:SyncWorker.load_wsgi",
        "gunicorn.workers.sync:SyncWorker.handle",
        "gunicorn.workers.sync:SyncWorker.handle_request",
    )
    guards_all = True

    @classmethod
    def check_config(cls, cfg: Config, log: Logger) -> None:
        """Refuse what we can't work with, before a worker boots (master)."""
        super().check_config(cfg, log)
        # gunicorn itself would run its threaded worker instead, without ours and in silence.
        if cfg.threads > 1:
            raise RuntimeError(
                f"gunicorn_expect.workers.sync.Worker serves one request at a time, and threads "
                f"is {cfg.threads}: use -k gunicorn_expect.Worker, or threads 1"
            )

    def accept(self, listener: Any) -> None:
        """Accept a connection and serve it; the oldest closing ones make room for it."""
        self.lingering.make_room(self.cfg.worker_connections - 1)
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno in worker.NO_ROOM:
                self.lingering.make_room(len(self.lingering) - 1)
                time.sleep(worker.PAUSE)
            elif worker.is_passing(error):
                # What gunicorn takes for nothing to accept.
                raise BlockingIOError(errno.EAGAIN, str(error)) from error
            else:
                raise

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection."""

        def answer(req: Request, sock: socket.socket) -> bool:
            self.handle_request(listener, req, sock, addr)
            return False

        connection.serve(self, client, addr, answer)
