"""How many uploads at once, and how often: a policy that counts them, here or for a fleet."""

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

#: Seconds until who was refused a place may ask again. Uploads take seconds to minutes, and asking
#: costs no more than a head.
RETRY_AFTER: Final = 5

#: Seconds after which a place that nobody freed is free: 4.5 GB at 10 Mbit/s.
LEASE: Final = 3600

#: Seconds for which a process believes that all places are taken, when it has tried each: so a
#: crowd of refused clients costs the storage as much as one. No client should ask again sooner.
FULL_FOR: Final = 1.0

#: How many groups it remembers that of: to forget costs no more than to try again.
FULL_GROUPS: Final = 1000

#: Seconds that a storage has for a word, as long as curl waits for a 100: after that its body is on
#: the way, and it helps nobody to wait on.
PATIENCE: Final = 1.0

#: Seconds for which a storage that failed is not asked.
PAUSE: Final = 5.0

#: gunicorn's, as it is there that who runs a server looks.
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
    """Refuse uploads that are too many at once, 503, or too many in a time, 429.

    Both with Retry-After. The place of an upload is free when it is over, however it ends. In a
    storage that is shared it is also free when its lease is up: so the places of a worker that was
    killed come back, and an upload that takes longer is no longer counted.

    A storage that fails stops nobody: uploads are admitted uncounted for `PAUSE` seconds, with a
    warning in the log, and then it is asked again. A limit guards the service from its clients;
    that all of them are refused because a cache is down would be the worse failure.

    Args:
        limit: so many uploads under way, or "100/minute" and whatever else `limits.parse` reads:
            then no minute, wherever it begins, sees more of them.
        storage: where they are counted. In memory each worker process counts for itself: with 4
            workers, 4 times as many are admitted. "redis://host:6379", or another URL that
            `limits` knows, is one count for all who name it.
        key: tells of a request by what it is counted, such as its user; without one all
            are counted together.
        status: another one than 503 or 429.
        retry_after: seconds. By default `RETRY_AFTER` for a place, and for a rate those until it
            admits another.
        lease: seconds after which a place in a shared storage is free at the latest. Take it
            longer than the longest upload.
        name: tells limits apart that are in one storage. Those with the same name, limit and
            storage are one.

    Raises:
        ImportError: the extra ``gunicorn-expect[limits]`` is missing. A number of uploads in
            memory does without.
        ValueError: one of the arguments is not what it may be.

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
            f"admission takes a number of uploads, 1 or more, or a rate as '100/minute', "
            f"not {shown(limit)}"
        )
    elif isinstance(storage, str) and storage.startswith("memory:"):
        counts, usual = _Here(limit, retry_after or RETRY_AFTER), 503
    else:
        places = _Places(_Shared(storage), limit, name, lease, retry_after or RETRY_AFTER)
        counts, usual = places, 503
    line = str(Refuse(usual if status is None else status).status)

    def policy(environ: WSGIEnvironment) -> Decision:
        group = "" if key is None else key(environ)
        seconds = counts.enter(group, environ[EXITS_KEY])
        return None if seconds is None else Refuse(line, [("Retry-After", str(seconds))])

    return policy


class _Counts(Protocol):
    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        """Count an upload until the exits; or tell after how many seconds to ask again."""


class _Here:
    """Uploads under way in this process. Who kills it takes the count along.

    Not in the memory storage of `limits`: of two threads that call its ``incr`` at once sometimes
    both get 1, and sometimes neither does (5.8).
    """

    def __init__(self, limit: int, retry_after: int) -> None:
        self._limit = limit
        self._retry_after = retry_after
        # It may be made before gevent replaces locks: nothing that waits is done under it.
        self._lock = threading.Lock()
        self._under_way: dict[str, int] = {}

    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        with self._lock:
            count = self._under_way.get(group, 0)
            if count >= self._limit:
                return self._retry_after
            self._under_way[group] = count + 1
        exits.callback(self._leave, group)
        return None

    def _leave(self, group: str) -> None:
        with self._lock:
            self._under_way[group] -= 1
            if not self._under_way[group]:
                del self._under_way[group]


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
        # threads. What the URL says of it counts more.
        options = (
            {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
            if url.startswith(("redis", "valkey"))
            else {}
        )
        try:
            made = limits.storage.storage_from_string(url, wrap_exceptions=True, **options)
        except limits.errors.ConfigurationError as error:
            # Its words may have the URL, and so the password.
            scheme = url.partition("://")[0] if "://" in url else ""
            message = str(error).replace(url, f"{scheme}://...")
            raise ValueError(f"storage: {message}") from None
        except ValueError:  # with what stands in the place of the port, a part of the password
            raise ValueError(
                "storage: the URL can't be parsed; is its password percent-encoded?"
            ) from None
        if not isinstance(made, limits.storage.Storage):
            raise ValueError("storage takes a URL without 'async+'")
        self.storage = made
        self.limits = limits
        self._paused_until = -math.inf

    def ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """Do this, unless the storage has just failed, or does so now: then give None."""
        if time.monotonic() < self._paused_until:
            return None
        try:
            return call(*arguments, **named)
        except self.limits.errors.StorageError as error:
            now = time.monotonic()
            if now >= self._paused_until:  # else another thread has said it
                self._paused_until = now + PAUSE
                _log.warning(
                    "Uploads are admitted uncounted for %d s: the storage failed. %r",
                    PAUSE,
                    error.__cause__,
                )
            return None


class _Places:
    """Uploads under way in all processes: a key for each place, which expires.

    ``incr`` is one step of the storage: it is 1 for the one that made the key, who has the place
    then. A counter would need no tries; but what a killed worker had added to it would stay.
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
        # Places whose uploads are over, and the ends of their leases: not yet freed.
        self._over: collections.deque[tuple[str, float]] = collections.deque()

    def enter(self, group: str, exits: contextlib.ExitStack) -> int | None:
        self._free()
        now = time.monotonic()
        full_until = self._full_until.get(group)
        if full_until is not None:
            if now < full_until:
                return self._retry_after
            self._full_until[group] = now + FULL_FOR  # one looks; the others need not
        # In no order that others try, too: with half of them free, two tries will do.
        for number in random.sample(range(self._limit), self._limit):
            place = f"{self._prefix}/{group}/{number}"
            count = self._shared.ask(self._shared.storage.incr, place, self._lease)
            if count is None:
                return None
            if count == 1:
                self._full_until.pop(group, None)
                exits.callback(self._leave, group, place, now + self._lease)
                return None
        if len(self._full_until) >= FULL_GROUPS:
            self._full_until.clear()
        self._full_until[group] = time.monotonic() + FULL_FOR
        return self._retry_after

    def _leave(self, group: str, place: str, until: float) -> None:
        self._over.append((place, until))
        self._full_until.pop(group, None)
        self._free()

    def _free(self) -> None:
        """Free the places of uploads that are over; where the storage fails, later."""
        with contextlib.suppress(IndexError):  # there is none, or another thread frees it
            while True:
                place, until = self._over.popleft()
                # After its lease the place may be another's, who keeps it: one too many at the
                # worst, and not one more for each that leaves late.
                if time.monotonic() < until and not self._shared.ask(self._clear, place):
                    self._over.append((place, until))
                    return

    def _clear(self, place: str) -> bool:
        self._shared.storage.clear(place)
        return True


class _Rate:
    """Uploads in a time, by the moving window: what it says of when to come back is exact."""

    def __init__(self, shared: _Shared, limit: str, name: str, retry_after: int | None) -> None:
        try:
            [self._item] = shared.limits.parse_many(limit)
        except ValueError as error:
            raise ValueError(f"{limit!r} is no rate, as '100/minute' is: {error}") from error
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
