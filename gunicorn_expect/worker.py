"""What is the same in each of our workers: what it adds to gunicorn's, from boot to end."""

from __future__ import annotations

import errno
import logging
import re
import sys
import time
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gunicorn import glogging
from gunicorn.workers import base

from gunicorn_expect import exchange, linger, settings
from gunicorn_expect.gate import Gate
from gunicorn_expect.record import Record

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from gunicorn.config import Config

    from gunicorn_expect.decision import Policy
    from gunicorn_expect.head import Limits


#: What the system says when it has no room for one more connection.
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)

#: What `accept` says when the listening socket is no longer one: there is nothing to go on with.
_BROKEN: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

#: Seconds without `accept` after that. The system keeps those who connect.
PAUSE: Final = 0.1


def is_passing(error: OSError) -> bool:
    """Return whether accepting may go on after this error of `accept`."""
    return error.errno not in _BROKEN


class PageSocket:
    """A connection to which gunicorn writes a page of its own, such as that of a 400."""

    def __init__(self, client: socket.socket) -> None:
        """Write to this connection."""
        self._client = client
        self.gettimeout = client.gettimeout
        self.setblocking = client.setblocking

    def sendall(self, data: bytes) -> None:
        """Send a whole response."""
        self._client.sendall(well_formed(data))


def well_formed(response: bytes) -> bytes:
    """Return a response with each line of its head ended by CRLF.

    gunicorn makes the head with ``textwrap.dedent``. Since Python 3.14 that turns the empty line
    at the end, which is a CR then, into a bare LF.
    """
    head, _, content = re.split(rb"(\r?\n){2}", response, maxsplit=1)
    return b"\r\n".join([*head.splitlines(), b"", content])


class Worker(base.Worker):
    """A worker of gunicorn, for applications that take uploads. The kinds of gunicorn go behind it.

    One that serves its connections with ``connection.serve`` has nothing to add for their closing.
    """

    #: What it relies on in gunicorn's worker, as ``module:Class.attribute``.
    hooks: ClassVar[tuple[str, ...]]
    #: What ends the worker, or the greenlet, whoever has raised it.
    passing: ClassVar[tuple[type[BaseException], ...]] = (KeyboardInterrupt,)
    #: As the gate's.
    guards_all: ClassVar[bool] = False

    lingering: linger.Linger | linger.LingerThread
    terms: exchange.Terms
    record: Record
    gate: Gate
    _settings: settings.Settings
    _head_limits: Limits
    _policy: Policy | None
    _grace_ends: float | None = None
    #: Whether a signal has told it to end at once: gunicorn raises SystemExit then, in whatever
    #: runs.
    must_go = False

    @classmethod
    def checked(cls) -> type[Worker]:
        """Be the ``worker_class`` of a configuration file, and check its ``expect_*`` names.

        ``worker_class = gunicorn_expect.Worker.checked``: gunicorn calls it when it has read the
        file, ``gunicorn --check-config`` as well, which never asks a worker.

        Raises:
            BadSettingError: one of them is wrong.

        """
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", {})
            found = names.get("worker_class")
            if isinstance(found, types.MethodType) and found == cls.checked:
                settings.check(names)  # of the file that names this
        return cls

    @classmethod
    def check_config(cls, cfg: Config, log: glogging.Logger) -> None:  # noqa: ARG003  gunicorn's
        """Refuse what we can't work with, before a worker boots (master)."""
        exchange.require_gunicorn(
            "gunicorn.workers.base:Worker.notify", "gunicorn.workers.base:Worker.run", *cls.hooks
        )
        exchange.head_limits(cfg)
        settings.load(cfg)

    def load_wsgi(self) -> None:
        """Put the gate before the application (worker, at boot)."""
        # Again: after SIGHUP nobody has checked it.
        self._head_limits = exchange.head_limits(self.cfg)
        self._settings = settings.load(self.cfg)
        policy = self._policy = settings.policy_of(self._settings)
        # gunicorn's own logger does nothing with what is below its level: don't make the words.
        plain = type(self.log) is glogging.Logger
        heard = not plain or self.log.error_log.isEnabledFor(logging.DEBUG)
        self.record = Record(self.log if heard else None)
        super().load_wsgi()
        self.gate = Gate(
            # the stubs of gunicorn don't know the exc_info of start_response
            self.wsgi,  # type: ignore[arg-type]
            policy,
            guards_all=self.guards_all,
            warn=self.log.warning if self._settings.expect_warn else None,
            report=self.log.error,
            on_refused=self.record.refused,
        )
        self.wsgi = self.gate  # type: ignore[assignment]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note when the grace ends (main thread, in a signal handler)."""
        self._grace_ends = time.monotonic() + self.cfg.graceful_timeout - linger.EXIT_MARGIN
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Note that the worker ends at once (main thread, in a signal handler)."""
        self.must_go = True
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """Note that the worker ends at once (main thread, in a signal handler)."""
        self.must_go = True
        super().handle_abort(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log an error and answer with gunicorn's page."""
        super().handle_error(req, PageSocket(client), addr, exc)  # type: ignore[arg-type]

    def run(self) -> None:
        """Be the main loop; and at its end wait for the closing connections (main thread)."""
        limits = self._settings
        closing = linger.Linger(
            limits.expect_linger, limits.expect_linger_idle, outcome=self.record.lingered
        )
        self.open(closing, limits)
        try:
            super().run()
        except SystemExit:
            if not self.must_go:  # it is the application's
                self.finish()
            raise
        self.finish()

    def finish(self) -> None:
        """Let what has begun come to an end, within the time there is (main thread)."""
        # gunicorn boots the next worker when this one has ended.
        most = time.monotonic() + self._settings.expect_linger_idle
        self.lingering.finish(min(most, self.grace_ends()), self.notify)
        self.lingering.dispose()

    def grace_ends(self) -> float:
        """Return when a worker that ends has to be gone, by `time.monotonic` (main thread)."""
        return self._grace_ends or time.monotonic() + self.cfg.graceful_timeout

    def open(self, closing: linger.Linger, limits: settings.Settings) -> None:
        """Set ``lingering`` and ``terms``: here, closing connections get a loop of their own."""
        self.lingering = linger.LingerThread(closing)
        self.terms = exchange.Terms(
            limits,
            discard=self.lingering.discard,
            record=self.record,
            head_limits=self._head_limits,
        )
