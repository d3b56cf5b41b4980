"""A policy that limits the number of uploads, in this process or in a whole fleet."""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import random
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from gunicorn_expect.decision import EXITS_KEY, Refuse, factory, kind_of, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from _typeshed.wsgi import WSGIEnvironment

    from gunicorn_expect.decision import Decision, Policy

    P = ParamSpec("P")
    T = TypeVar("T")

MEMORY: Final = "memory://"

#: Seconds in the Retry-After of a refusal. Uploads take seconds to minutes, and another try costs
#: only request headers.
RETRY_AFTER: Final = 5

#: Seconds after which a slot is free if nobody released it: time for 4.5 GB at 10 Mbit/s.
LEASE: Final = 3600

#: Seconds for which a process remembers that all slots are taken, so that many refused clients cost
#: the storage no more than one. No client should try again sooner.
FULL_FOR: Final = 1.0

#: The most groups for which it remembers that. If it forgets one, that costs only another try.
FULL_GROUPS: Final = 1000

#: Seconds that a storage has to answer. curl waits as long for a 100; after that it sends its body,
#: and waiting longer helps nobody.
PATIENCE: Final = 1.0

#: Seconds for which a storage is not used after it has failed.
PAUSE: Final = 5.0

#: gunicorn's logger, because its log is the one that is read.
_log: Final = logging.getLogger("gunicorn.error")


@factory
def admission(
    limit: int | str,
    *,
    storage: str = MEMORY,
    key: Callable[[WSGIEnvironment], str] | None = None,
    status: int | str | None = None,
    retry_after: int | None = None,
    lease: int = LEASE,
    name: str = "uploads",
) -> Policy:
    """Refuse uploads with 503 if too many run at once, or with 429 if too many come in a period.

    Both responses have Retry-After. The slot of an upload is free when the upload is over, however
    it ends. In a shared storage a slot is also free when its lease ends. So the slots of a worker
    that was killed become free again, and an upload that takes longer than its lease is no longer
    counted.

    If the storage fails, the log has a warning, and all uploads are admitted without counting for a
    few seconds; then the storage is tried again. The limit protects the service from too many
    uploads; refusing everybody because a cache is down would be worse.

    Args:
        limit: the maximum number of running uploads, or a rate such as "100/minute", in the
            syntax of `limits.parse`. No period of a minute, wherever it begins, has more uploads.
        storage: where the uploads are counted. In memory each worker process counts for itself: 4
            workers admit 4 times as many. With "redis://host:6379", or another URL of the library
            `limits`, all processes that use this storage count together.
        key: called with the environ; returns the group in which the request is counted, such as its
            user. Without it, all requests are counted together.
        status: the status code, instead of 503 or 429.
        retry_after: seconds for the field Retry-After. The default is 5 for a number of uploads,
            and for a rate the time until the next upload is admitted.
        lease: seconds after which a slot in a shared storage is free at the latest, an hour by
            default. Choose more than the longest upload takes.
        name: keeps several limits in one storage apart. Limits with the same name, limit and
            storage share their count.

    Raises:
        ImportError: a rate or a shared storage needs ``gunicorn-expect[limits]``.
        ValueError: one of the arguments is bad.

    Source: RFC 9110 sections 10.2.3 and 15.6.4, RFC 6585 section 4.

    """
    for what, seconds in (("retry_after", retry_after), ("lease", lease)):
        if seconds is not None and not _is_number(seconds):
            raise ValueError(f"{what} takes a number of seconds, 1 or more, not {shown(seconds)}")
    if key is not None and not callable(key):
        raise TypeError(f"key takes a callable, not {kind_of(key)}")
    counts: _Counts
    if isinstance(limit, str):
        counts, usual = _Rate(_Shared(storage), limit, name, retry_after), 429
    elif not _is_number(limit):
        raise ValueError(
            f"admission takes a number of uploads, 1 or more, or a rate such as '100/minute', "
            f"not {shown(limit)}"
        )
    elif isinstance(storage, str) and storage.startswith("memory:"):
        counts, usual = _InMemory(limit, retry_after or RETRY_AFTER), 503
    else:
        slots = _Slots(_Shared(storage), limit, name, lease, retry_after or RETRY_AFTER)
        counts, usual = slots, 503
    line = str(Refuse(usual if status is None else status).status)

    def policy(environ: WSGIEnvironment) -> Decision:
        group = "" if key is None else key(environ)
        seconds = counts.enter(group, environ[EXITS_KEY])
        return None if seconds is None else Refuse(line, [("Retry-After", str(seconds))])

    return policy


class _Counts(Protocol):
    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        """Count an upload until the exits run; if it is refused, return its Retry-After."""


class _InMemory:
    """Running uploads in this process.

    The memory storage of `limits` can't count them: if two threads call its ``incr`` at once,
    sometimes both get 1, and sometimes neither does (5.8).
    """

    def __init__(self, limit: int, retry_after: int) -> None:
        self._limit = limit
        self._retry_after = retry_after
        # It may be created before gevent replaces locks, so nothing that waits may happen under it.
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}

    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        with self._lock:
            count = self._running.get(group, 0)
            if count >= self._limit:
                return self._retry_after
            self._running[group] = count + 1
        exits.callback(self._leave, group)
        return None

    def _leave(self, group: str) -> None:
        with self._lock:
            self._running[group] -= 1
            if not self._running[group]:
                del self._running[group]


class _Shared:
    """A storage of `limits`, which may fail."""

    def __init__(self, url: str) -> None:
        try:
            import limits.errors
            import limits.storage
            import limits.strategies
        except ImportError as error:
            raise ImportError(
                "a rate, or a storage other than memory, needs the extra gunicorn-expect[limits]: "
                f"{error}"
            ) from error
        if not isinstance(url, str):
            raise ValueError("storage takes a URL, a str such as 'redis://localhost:6379'")
        # redis-py itself waits for 5 s, older ones for ever: a redis that is stuck would hold all
        # threads. Timeouts in the URL take precedence.
        options = (
            {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
            if url.startswith(("redis", "valkey"))
            else {}
        )
        try:
            made = limits.storage.storage_from_string(url, wrap_exceptions=True, **options)
        except limits.errors.ConfigurationError as error:
            # The message may contain the URL, and so the password.
            scheme = url.partition("://")[0] if "://" in url else ""
            message = str(error).replace(url, f"{scheme}://...")
            raise ValueError(f"storage: {message}") from None
        except ValueError:  # its message quotes the port, which may be a part of the password
            raise ValueError(
                "storage: the URL can't be parsed; is its password percent-encoded?"
            ) from None
        if not isinstance(made, limits.storage.Storage):
            raise ValueError("storage takes a URL without 'async+'")
        self.storage = made
        self.limits = limits
        self._paused_until = -math.inf

    def ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """Call the storage; return None if it fails, or if it failed within `PAUSE` seconds."""
        if time.monotonic() < self._paused_until:
            return None
        try:
            return call(*arguments, **named)
        except self.limits.errors.StorageError as error:
            now = time.monotonic()
            if now >= self._paused_until:  # otherwise another thread has logged it
                self._paused_until = now + PAUSE
                _log.warning(
                    "Uploads are admitted uncounted for %d s: the storage failed. %r",
                    PAUSE,
                    error.__cause__,
                )
            return None


class _Slots:
    """Running uploads in all processes: each slot is a key in the storage, which expires.

    ``incr`` is atomic: it returns 1 to the process that created the key, which then has the slot. A
    single counter would need only one call, but would count the uploads of a killed worker forever.
    """

    def __init__(
        self, shared: _Shared, limit: int, name: str, lease: int, retry_after: int
    ) -> None:
        self._shared = shared
        self._limit = limit
        self._prefix = f"gunicorn_expect/{name}/{limit}"
        self._lease = lease
        self._retry_after = retry_after
        self._full_until: dict[str, float] = {}
        # The slots of uploads that have ended, and when their leases expire: not yet freed.
        self._ended: collections.deque[tuple[str, float]] = collections.deque()

    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        self._free()
        now = time.monotonic()
        full_until = self._full_until.get(group)
        if full_until is not None:
            if now < full_until:
                return self._retry_after
            self._full_until[group] = now + FULL_FOR  # one thread tries; the others need not
        # In random order, so that processes try different slots: if half of them are free, it takes
        # two tries on average.
        for number in random.sample(range(self._limit), self._limit):
            slot = f"{self._prefix}/{group}/{number}"
            count = self._shared.ask(self._shared.storage.incr, slot, self._lease)
            if count is None:
                return None
            if count == 1:
                self._full_until.pop(group, None)
                exits.callback(self._leave, group, slot, now + self._lease)
                return None
        if len(self._full_until) >= FULL_GROUPS:
            self._full_until.clear()
        self._full_until[group] = time.monotonic() + FULL_FOR
        return self._retry_after

    def _leave(self, group: str, slot: str, until: float) -> None:
        self._ended.append((slot, until))
        self._full_until.pop(group, None)
        self._free()

    def _free(self) -> None:
        """Free the slots of uploads that have ended; if the storage fails, a later call does it."""
        with contextlib.suppress(IndexError):  # there is none, or another thread frees it
            while True:
                slot, until = self._ended.popleft()
                # After its lease the slot may belong to another upload, and must not be freed.
                if time.monotonic() < until and not self._shared.ask(self._clear, slot):
                    self._ended.append((slot, until))
                    return

    def _clear(self, slot: str) -> bool:
        self._shared.storage.clear(slot)
        return True


class _Rate:
    """A rate of uploads, counted in a moving window, so that Retry-After is exact."""

    def __init__(self, shared: _Shared, limit: str, name: str, retry_after: int | None) -> None:
        try:
            [self._item] = shared.limits.parse_many(limit)
        except ValueError as error:
            raise ValueError(f"{limit!r} is not a rate such as '100/minute': {error}") from error
        if not self._item.amount:
            raise ValueError(f"{limit!r} admits nobody")
        try:
            self._limiter = shared.limits.strategies.MovingWindowRateLimiter(shared.storage)
        except NotImplementedError as error:
            raise ValueError(f"storage: it can't count rates: {error}") from error
        self._shared = shared
        self._name = f"gunicorn_expect/{name}"
        self._retry_after = retry_after

    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:  # noqa: ARG002
        admitted = self._shared.ask(self._limiter.hit, self._item, self._name, group)
        if admitted is None or admitted:
            return None
        if self._retry_after is not None:
            return self._retry_after
        window = self._shared.ask(self._limiter.get_window_stats, self._item, self._name, group)
        return 1 if window is None else max(1, math.ceil(window.reset_time - time.time()))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
