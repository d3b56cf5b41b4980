"""Threads that run applications, so many at once; one that waits for its client does not count."""

from __future__ import annotations

import collections
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Pool:
    """What gunicorn uses of an executor, for tasks that may wait while others run.

    What there is to do is a queue. A task that has waited takes its turn in it to go on, so that
    no more than ``size`` ever run: the thread that comes upon that turn leaves, and with it goes
    what was hired for the time of the waiting.
    """

    def __init__(self, size: int, most: int) -> None:
        """Begin without threads.

        Args:
            size: how many tasks run at once.
            most: how many threads there may be, with those that wait.

        """
        self._size = size
        self._most = max(size, most)
        # What to do next; it tells whether the thread that does it is to leave.
        self._todo: SimpleQueue[Callable[[], bool | None]] = SimpleQueue()
        # Guards what follows.
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._waiting = 0
        # Held by those that have waited, until it is their turn.
        self._turns: collections.deque[threading.Lock] = collections.deque()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something waits for its turn."""
        return not self._todo.empty()

    def run(self, task: Callable[[], None]) -> None:
        """Run this when its turn comes. It must not raise.

        Raises:
            RuntimeError: no thread can be had, or it is shut down.

        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            self._hire()
            self._todo.put(task)

    def shutdown(self, wait: bool = True) -> None:
        """End the threads when they have done what there is; wait for that if so told."""
        with self._lock:
            self._closed = True
            self._todo.put(self._close)
            threads = list(self._threads)
        for thread in threads if wait else ():
            thread.join()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Don't count this thread while it waits, if it is one of these."""
        if threading.current_thread() not in self._threads:
            yield
            return
        with self._lock:
            self._waiting += 1
            if self.busy and not self._hire():
                # Nobody comes upon a turn in the queue if this was the last one that ran.
                self._pass_on()
        try:
            yield
        finally:
            self._go_on()

    def _hire(self) -> bool:
        """Make up for a thread that waits, if it can be done (with the lock)."""
        if len(self._threads) - self._waiting >= self._size or len(self._threads) >= self._most:
            return False
        # A daemon: it does not hold a process whose loop has ended.
        thread = threading.Thread(target=self._work, name="gunicorn_expect", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no more of them
            self._threads.remove(thread)
            if not self._threads:
                raise
            return False
        return True

    def _work(self) -> None:
        while not self._todo.get()():
            pass

    def _go_on(self) -> None:
        """Count this thread again, when its turn comes."""
        with self._lock:
            if self._closed or len(self._threads) - self._waiting < self._size:
                self._waiting -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._turns.append(turn)
            self._todo.put(self._leave)
        turn.acquire()

    def _leave(self) -> bool:
        """Let another thread go on in place of this one."""
        with self._lock:
            passed_on = self._pass_on()
            if passed_on:
                self._threads.remove(threading.current_thread())
        return passed_on

    def _pass_on(self) -> bool:
        """Let the first go on that has waited, if one has (with the lock)."""
        if not self._turns:
            return False
        self._waiting -= 1
        self._turns.popleft().release()
        return True

    def _close(self) -> bool:
        self._todo.put(self._close)  # for the next one
        return True
