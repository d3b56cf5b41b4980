"""What all workers share: configuration, boot, signals and the master's heartbeat."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import types
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gunicorn import glogging
from gunicorn.workers import base

from gunicorn_expect import host, settings
from gunicorn_expect.answer import OnExit, Service
from gunicorn_expect.counters import Counters
from gunicorn_expect.decision import inline_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from gunicorn.config import Config

#: Seconds of the graceful timeout that are reserved for the exit itself: gunicorn's master started
#: its clock earlier, and kills a worker that is late.
EXIT_MARGIN: Final = 0.2

#: Seconds for which a stopping worker keeps idle connections for one more request, as in gunicorn.
STOPPING: Final = 2.0


class BaseWorker(base.Worker):
    """A worker of gunicorn, for applications that take uploads."""

    #: The names of gunicorn's worker that it relies on, as ``module:Class.attribute``.
    hooks: ClassVar[tuple[str, ...]] = ()
    multithread: ClassVar[bool] = True
    on_exit: ClassVar[OnExit] = OnExit.END_WORKER
    #: Returns whether the application has written its response to the socket by itself.
    is_handled: Callable[[Any], bool] | None = None
    #: The exceptions of an application that are answered with 500.
    catches: ClassVar[tuple[type[BaseException], ...]] = (Exception, SystemExit)

    passes: ClassVar[tuple[type[BaseException], ...]] = (KeyboardInterrupt,)

    service: Service
    _settings: settings.Settings
    _grace_ends: float | None = None
    #: Whether a signal has told the worker to end at once: then gunicorn raises SystemExit in
    #: whatever code is running.
    _must_go = False
    _notified = 0.0

    @classmethod
    def checked(cls) -> type[BaseWorker]:
        """Check the ``expect_*`` settings of the configuration file that names this method.

        With ``worker_class = gunicorn_expect.Worker.checked`` gunicorn calls this after it has read
        the file, also with ``--check-config``, which does not call `check_config`.

        Raises:
            SystemExit: a setting is bad. Python prints which and why, and exits with 1.

        """
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", {})
            found = names.get("worker_class")
            if isinstance(found, types.MethodType) and found == cls.checked:
                try:
                    settings.check(names)  # the names of that file
                except settings.BadSettingError as error:
                    # gunicorn would print this method first, as an invalid value.
                    raise SystemExit(f"Error: {error}") from None
        return cls

    @classmethod
    def check_config(cls, cfg: Config, log: glogging.Logger) -> None:  # noqa: ARG003  gunicorn's
        """Raise for a configuration that this worker can't run with, before it boots (master)."""
        if problems := cls.problems(cfg):
            raise settings.BadSettingError(*problems)

    @classmethod
    def problems(cls, cfg: Config) -> list[str]:
        """Return the problems of a configuration, each in one line (master)."""
        try:
            host.require("gunicorn.workers.base:Worker.notify", *cls.hooks)
        except RuntimeError as error:
            return [str(error)]  # nothing else can be checked then
        found: list[str] = []
        try:
            settings.load(cfg)
        except settings.BadSettingError as error:
            found += error.problems
        try:
            host.head_limits(cfg)
        except RuntimeError as error:
            found.append(str(error))
        return found

    # From boot to end (worker).

    def load_wsgi(self) -> None:
        """Load the settings, the policy and the application, and make the `Service` (worker)."""
        self._settings = settings.load(self.cfg)  # again: nobody has checked it after a SIGHUP
        policy = settings.policy_of(self._settings)
        # gunicorn's own logger drops lines below its level: then don't format them.
        plain = type(self.log) is glogging.Logger
        heard = not plain or self.log.error_log.isEnabledFor(logging.DEBUG)
        super().load_wsgi()
        application: Any = self.wsgi  # the stubs of gunicorn have another type for it
        self.service = Service(
            worker=self,
            cfg=self.cfg,
            settings=self._settings,
            counters=Counters(self.log if heard else None),
            head_limits=host.head_limits(self.cfg),
            application=application,
            policy=policy,
            inline=inline_part(policy),
            multithread=self.multithread,
            is_handled=self.is_handled,
            on_exit=self.on_exit,
            is_exiting=lambda: self._must_go,
            catches=self.catches,
            passes=self.passes,
        )

    def begin(self) -> None:
        """Copy the configuration, which the hooks may have changed (worker, before it serves)."""
        self.service.cfg = host.Snapshot(self.cfg)
        self.service.most_kept = math.inf if self.cfg.keepalive else 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note when the grace ends (main thread, in a signal handler)."""
        self._grace_ends = time.monotonic() + self.cfg.graceful_timeout - EXIT_MARGIN
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Note that the worker ends at once (main thread, in a signal handler)."""
        self._must_go = True
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """Note that the worker ends at once (main thread, in a signal handler)."""
        self._must_go = True
        super().handle_abort(sig, frame)

    def notify(self) -> None:
        """Notify the master, and send the gauges of connections (main thread)."""
        super().notify()
        if self.service.counters.enabled:
            self.service.counters.connections(**self.connections())

    def connections(self) -> dict[str, int]:
        """Return how many connections are open, wait for a request's head, and linger."""
        raise NotImplementedError

    def grace_ends(self) -> float:
        """Return when a stopping worker has to exit, by `time.monotonic` (main thread)."""
        return self._grace_ends or time.monotonic() + self.cfg.graceful_timeout

    def tick(self) -> None:
        """Notify the master once a second, and stop if it has died (main thread)."""
        now = time.monotonic()
        if now - self._notified >= 1.0:
            self._notified = now
            self.notify()
            if self.ppid != os.getppid() and self.alive:
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
