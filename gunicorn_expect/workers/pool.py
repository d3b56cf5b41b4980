"""Threads that run applications: ``threads`` at once, and more while some wait for a client."""

from __future__ import annotations

import collections
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Place:
    """The place of a connection's task among those that run at once.

    It is lent while a thread waits for the client of the task: the thread that runs the task, or
    one that the application has started.
    """

    __slots__ = ("_pool", "readers", "taken")

    def __init__(self, pool: Pool) -> None:
        """Make a free place. The pool owns its attributes."""
        self._pool = pool
        #: Whether a task runs here.
        self.taken = False
        #: How many threads wait for the client. Two lend the place once.
        self.readers = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Lend the place while the client is waited for (any thread).

        Another task may start meanwhile. When the wait ends the task goes on at once, as the tasks
        that run now may be waiting for a lock that it holds.
        """
        self._pool.lend(self)
        try:
            yield
        finally:
            self._pool.resume(self)


class Pool:
    """Runs tasks in threads. No task starts while ``size`` or more run; one that waits doesn't run.

    One that has waited goes on without asking. So more than ``size`` may run for a moment, and no
    other one starts until fewer do.
    """

    def __init__(self, size: int, most: int) -> None:
        """Begin without threads.

        Args:
            size: how many tasks run at once.
            most: how many threads there may be, including those that wait.

        """
        self._size = size
        self._most = max(size, most)
        # Tasks that may start, each for one of the threads that wait here. None ends a thread.
        self._starting: SimpleQueue[tuple[Callable[[], object], Place] | None] = SimpleQueue()
        # Guards what follows. A signal handler may call `shutdown` while the main thread holds it.
        self._lock = threading.RLock()
        self._queued: collections.deque[tuple[Callable[[], object], Place]] = collections.deque()
        self._running = 0  # tasks of which no client is waited for
        self._idle = 0  # threads that wait for a task and will get none of those in _starting
        self._threads = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a task waits to be started."""
        return bool(self._queued)

    def place(self) -> Place:
        """Return a place for the tasks of a connection, of which one runs at a time."""
        return Place(self)

    def run(self, task: Callable[[], object], place: Place) -> None:
        """Start a task here as soon as fewer than ``size`` run. It must not raise.

        Raises:
            RuntimeError: the system has no thread for it and the pool has none either, or the pool
                is shut down. The task will not run.

        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            self._queued.append((task, place))
            try:
                self._start()
            except RuntimeError:
                if not self._threads:
                    self._queued.pop()
                    raise

    def shutdown(self, wait: bool = False) -> None:  # noqa: ARG002  as an executor's
        """End the threads when they have done what there is. It does not wait."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._starting.put(None)
            self._threads -= self._idle
            self._idle = 0

    def lend(self, place: Place) -> None:
        """Don't count a task whose client is waited for."""
        with self._lock:
            place.readers += 1
            if place.taken and place.readers == 1:
                self._running -= 1
                # Without another thread, those there are will start what is queued when they end.
                self._start_what_is_queued()

    def resume(self, place: Place) -> None:
        """Count the task again: its wait is over."""
        with self._lock:
            place.readers -= 1
            if place.taken and not place.readers:
                self._running += 1

    def _start_what_is_queued(self) -> None:
        # Without a new thread, those there are will start it when they have ended what they run.
        with contextlib.suppress(RuntimeError):
            self._start()

    def _start(self) -> None:
        """Let threads start what may start (with the lock). RuntimeError: no thread can be had."""
        while self._queued and self._running < self._size and (self._idle or self._hire()):
            self._idle -= 1
            self._starting.put(self._take())

    def _take(self) -> tuple[Callable[[], object], Place]:
        """Remove the task that starts next from the queue, and return it (with the lock)."""
        task, place = self._queued.popleft()
        place.taken = True
        if not place.readers:
            self._running += 1
        return task, place

    def _hire(self) -> bool:
        if self._threads >= self._most:
            return False
        # A daemon: at its exit the interpreter waits for other threads, and must not here.
        threading.Thread(target=self._work, name="gunicorn_expect", daemon=True).start()
        self._threads += 1
        self._idle += 1
        return True

    def _work(self) -> None:
        """Run tasks until this thread is not needed any more."""
        starting = self._starting.get()
        while starting is not None:
            task, place = starting
            task()
            del task, starting  # they hold a connection
            starting = self._next(place)

    def _next(self, ended: Place) -> tuple[Callable[[], object], Place] | None:
        """Return what to run after a task that has ended here; None: this thread isn't needed."""
        with self._lock:
            ended.taken = False
            if not ended.readers:
                self._running -= 1
            if self._queued and self._running < self._size:
                return self._take()  # on this thread: another one would have to be woken
            # Threads that were started while others waited end now: as many stay as tasks may
            # start at once.
            if self._closed or self._idle >= self._size:
                self._threads -= 1
                return None
            self._idle += 1
        return self._starting.get()
