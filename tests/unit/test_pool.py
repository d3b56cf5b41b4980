"""The pool: how many tasks run at once, and how many threads there are while some tasks wait."""

import collections
import contextlib
import random
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from gunicorn_expect.workers.pool import Pool
from support import CHECKOUT, PATIENCE, until


def submit(pool, function, *arguments, place=None):
    """Run this in the pool; return a future with its result or exception."""
    future = Future()

    def task():
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001  the future raises it
            future.set_exception(error)

    pool.run(task, place or pool.place())
    return future


class Tasks:
    """What the tasks of a pool do, step by step as the test says.

    Each task runs, waits for its client, runs again, and so on. `running` is how many do so now,
    and `most_running` how many ever did at once.
    """

    def __init__(self, pool):
        self.pool = pool
        self.done = []
        self._changed = threading.Condition()
        self.running = set()
        self.waiting = set()
        self.most_running = 0
        self._may = collections.defaultdict(threading.Semaphore)

    def submit(self, name, waits=0):
        """Submit a task that waits this many times; it needs a `go_on` after each run and wait."""
        place = self.pool.place()
        return submit(self.pool, self._task, name, waits, place, place=place)

    def go_on(self, name):
        """Let this task end its current run, or its current wait for the client."""
        self._semaphore(name).release()

    def until(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), vars(self)

    def _semaphore(self, name):
        with self._changed:
            if name not in self._may:
                self._may[name] = threading.Semaphore(0)
            return self._may[name]

    def _pause(self, name):
        assert self._semaphore(name).acquire(timeout=PATIENCE), f"{name} was not told to go on"

    def _change(self, change, name):
        with self._changed:
            change(name)
            self.most_running = max(self.most_running, len(self.running))
            self._changed.notify_all()

    def _task(self, name, waits, place):
        self._change(self.running.add, name)
        self._pause(name)
        for _ in range(waits):
            self._change(self.running.remove, name)
            with place.waiting():
                self._change(self.waiting.add, name)
                self._pause(name)
                self._change(self.waiting.remove, name)
            self._change(self.running.add, name)
            self._pause(name)
        self._change(self.running.remove, name)
        self._change(self.done.append, name)
        return name


@contextlib.contextmanager
def pool_of(size, most):
    pool = Pool(size, most)
    try:
        yield pool
    finally:
        pool.shutdown()


@pytest.fixture
def alive():
    """Return a function that counts the threads that were started since the test began."""
    before = set(threading.enumerate())

    def count():
        return len(set(threading.enumerate()) - before)

    return count


def test_a_pool_begins_without_threads(alive):
    Pool(4, 8)
    assert alive() == 0


def test_a_pool_runs_as_many_tasks_at_once_as_its_size(alive):
    with pool_of(3, 100) as pool:
        tasks = Tasks(pool)
        futures = [tasks.submit(name) for name in range(10)]
        tasks.until(lambda: len(tasks.running) == 3)
        for name in range(10):
            tasks.go_on(name)
        assert [future.result(PATIENCE) for future in futures] == list(range(10))
        assert tasks.most_running == 3
        assert alive() == 3


def test_tasks_start_in_the_order_in_which_they_were_submitted():
    with pool_of(1, 1) as pool:
        tasks = Tasks(pool)
        for name in range(5):
            tasks.go_on(name)
        futures = [tasks.submit(name) for name in range(5)]
        futures[-1].result(PATIENCE)
        assert tasks.done == list(range(5))


def start_waiting(tasks, names):
    for name in names:
        tasks.submit(name, waits=1)
        tasks.until(lambda name=name: name in tasks.running)
        tasks.go_on(name)
        tasks.until(lambda name=name: name in tasks.waiting)


def test_tasks_that_wait_for_their_clients_do_not_count():
    with pool_of(2, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(50))
        others = [tasks.submit(name) for name in ("a", "b", "c")]
        tasks.until(lambda: len(tasks.running) == 2)
        for name in ("a", "b", "c"):
            tasks.go_on(name)
        for other in others:
            other.result(PATIENCE)
        assert len(tasks.waiting) == 50
        assert tasks.most_running == 2
        for name in range(50):
            tasks.go_on(name)
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 53)


def test_a_task_that_starts_to_wait_makes_room_for_a_queued_one():
    with pool_of(1, 2) as pool:
        tasks = Tasks(pool)
        tasks.submit("waits", waits=1)
        tasks.until(lambda: tasks.running)
        other = tasks.submit("other")
        tasks.go_on("other")
        tasks.go_on("waits")
        assert other.result(PATIENCE) == "other"
        tasks.go_on("waits")
        tasks.go_on("waits")
        tasks.until(lambda: "waits" in tasks.done)


def test_a_task_that_has_waited_continues_at_once_no_matter_how_many_run():
    with pool_of(1, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(40))
        tasks.submit("other")
        tasks.until(lambda: "other" in tasks.running)
        for name in range(40):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.running) == 41)
        for name in [*range(40), "other"]:
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 41)


def test_no_queued_task_starts_while_the_pool_is_full():
    with pool_of(2, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(3))
        for name in range(3):
            tasks.go_on(name)
        tasks.until(lambda: tasks.running == {0, 1, 2})
        for name in ("a", "b"):
            tasks.submit(name)
        tasks.go_on(0)
        tasks.until(lambda: 0 in tasks.done)
        assert pool.busy
        assert tasks.running == {1, 2}
        tasks.go_on(1)
        tasks.until(lambda: "a" in tasks.running)
        assert pool.busy
        tasks.go_on(2)
        tasks.until(lambda: "b" in tasks.running)
        for name in ("a", "b"):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 5)


def test_a_task_that_holds_a_lock_continues_while_others_wait_for_that_lock():
    """The same goes for a transaction, or a connection of a connection pool."""
    with pool_of(2, 100) as pool:
        lock = threading.Lock()
        held = threading.Event()
        arrived = threading.Event()
        wanted = threading.Semaphore(0)

        def holder(place):
            with lock:
                held.set()
                with place.waiting():
                    assert arrived.wait(PATIENCE)

        def other():
            wanted.release()
            with lock:
                pass

        place = pool.place()
        futures = [submit(pool, holder, place, place=place)]
        assert held.wait(PATIENCE)
        futures += [submit(pool, other) for _ in range(2)]
        for _ in range(2):
            assert wanted.acquire(timeout=PATIENCE)
        arrived.set()
        for future in futures:
            future.result(PATIENCE)


def test_a_task_is_still_started_after_a_surplus_thread_has_ended():
    with pool_of(1, 10) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, [0])
        tasks.submit(1)
        tasks.until(lambda: 1 in tasks.running)
        for name in (0, 0):
            tasks.go_on(name)
        tasks.until(lambda: 0 in tasks.done)
        tasks.submit(2)
        tasks.go_on(1)
        tasks.until(lambda: 2 in tasks.running)
        tasks.go_on(2)
        tasks.until(lambda: len(tasks.done) == 3)


# Threads of the application.


def test_a_wait_in_a_thread_of_the_application_makes_room_for_another_task():
    with pool_of(1, 10) as pool:
        arrived = threading.Event()

        def read(place):
            with place.waiting():
                assert arrived.wait(PATIENCE)

        def task(place):
            reader = threading.Thread(target=read, args=(place,))
            reader.start()
            reader.join()

        place = pool.place()
        first = submit(pool, task, place, place=place)
        assert submit(pool, int).result(PATIENCE) == 0
        arrived.set()
        first.result(PATIENCE)
        assert submit(pool, int).result(PATIENCE) == 0


def test_two_threads_that_wait_for_one_client_make_room_for_only_one_task():
    with pool_of(2, 10) as pool:
        tasks = Tasks(pool)
        place = pool.place()
        done = threading.Event()
        first = submit(pool, done.wait, PATIENCE, place=place)
        with place.waiting(), place.waiting():
            for name in range(3):
                tasks.submit(name)
            tasks.until(lambda: len(tasks.running) == 2)
            assert pool.busy
        done.set()
        assert first.result(PATIENCE)
        for name in range(3):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 3)
        assert tasks.most_running == 2


def test_a_thread_that_still_waits_after_its_task_has_ended_makes_no_room():
    with pool_of(1, 10) as pool:
        tasks = Tasks(pool)
        place = pool.place()
        waiting = place.waiting()
        entered = submit(pool, waiting.__enter__, place=place)
        entered.result(PATIENCE)
        for name in range(2):
            tasks.submit(name)
        tasks.until(lambda: tasks.running == {0})
        waiting.__exit__(None, None, None)
        tasks.go_on(0)
        tasks.until(lambda: tasks.running == {1})
        tasks.go_on(1)
        tasks.until(lambda: len(tasks.done) == 2)
        assert tasks.most_running == 1


def test_additional_threads_end_when_the_tasks_no_longer_wait(alive):
    with pool_of(2, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(30))
        assert alive() >= 30
        for name in range(30):
            tasks.go_on(name)
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 30)
        until(lambda: alive() == 2)
        assert submit(pool, int).result(PATIENCE) == 0


def test_a_pool_never_has_more_threads_than_its_maximum(alive):
    with pool_of(2, 5) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(5))
        other = tasks.submit("other")
        tasks.go_on("other")
        assert alive() == 5
        assert not tasks.running
        tasks.go_on(0)
        tasks.go_on(0)
        assert other.result(PATIENCE) == "other"
        assert alive() <= 5
        for name in range(1, 5):
            tasks.go_on(name)
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 6)


def test_a_maximum_below_the_size_does_not_reduce_the_size():
    with pool_of(3, 1) as pool:
        tasks = Tasks(pool)
        for name in range(3):
            tasks.submit(name)
        tasks.until(lambda: len(tasks.running) == 3)
        for name in range(3):
            tasks.go_on(name)


def test_a_queued_task_for_which_no_thread_can_start_runs_when_another_task_ends(monkeypatch):
    with pool_of(1, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, [0])
        tasks.submit(1, waits=1)
        tasks.until(lambda: 1 in tasks.running)
        tasks.submit(2)
        monkeypatch.setattr(threading.Thread, "start", no_more_threads)
        tasks.go_on(1)
        tasks.until(lambda: 1 in tasks.waiting)
        assert pool.busy
        for name in (0, 0, 2):
            tasks.go_on(name)
        tasks.until(lambda: tasks.done == [0, 2])
        for _ in range(2):
            tasks.go_on(1)
        tasks.until(lambda: len(tasks.done) == 3)


def no_more_threads(thread):
    raise RuntimeError("can't start new thread")


def test_a_task_for_which_no_thread_can_start_is_not_run_later(
    monkeypatch,
):
    calls = []

    def task():
        calls.append("called")

    with pool_of(4, 8) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more_threads)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                submit(pool, task)
        assert submit(pool, int).result(PATIENCE) == 0
        assert calls == []
        monkeypatch.setattr(threading.Thread, "start", no_more_threads)
        assert submit(pool, int).result(PATIENCE) == 0


def test_a_wait_that_raises_has_ended(alive):
    def fail(place):
        with place.waiting():
            raise LookupError

    with pool_of(1, 10) as pool:
        for _ in range(5):
            place = pool.place()
            failed = submit(pool, fail, place, place=place)
            assert type(failed.exception(PATIENCE)) is LookupError
        until(lambda: alive() == 1)


# The end.


def test_a_pool_that_is_shut_down_finishes_its_tasks_and_ends(alive):
    pool = Pool(2, 2)
    tasks = Tasks(pool)
    futures = [tasks.submit(name) for name in range(6)]
    pool.shutdown()
    for name in range(6):
        tasks.go_on(name)
    assert [future.result(PATIENCE) for future in futures] == list(range(6))
    until(lambda: alive() == 0)
    with pytest.raises(RuntimeError, match="the pool is shut down"):
        submit(pool, int)
    pool.shutdown()


def test_shutting_down_ends_the_idle_threads_of_a_pool(alive):
    pool = Pool(4, 4)
    tasks = Tasks(pool)
    for name in range(3):
        tasks.submit(name)
    tasks.until(lambda: len(tasks.running) == 3)
    tasks.go_on(0)
    tasks.until(lambda: 0 in tasks.done)
    pool.shutdown()
    until(lambda: alive() == 2)
    for name in (1, 2):
        tasks.go_on(name)
    until(lambda: alive() == 0)


def test_a_pool_can_be_shut_down_while_tasks_wait_for_their_clients(alive):
    pool = Pool(1, 10)
    tasks = Tasks(pool)
    start_waiting(tasks, range(5))
    for name in ("other", "queued"):
        tasks.submit(name)
    tasks.until(lambda: "other" in tasks.running)
    pool.shutdown()
    for name in [*range(5), *range(5), "other", "queued"]:
        tasks.go_on(name)
    tasks.until(lambda: len(tasks.done) == 7)
    until(lambda: alive() == 0)


def test_a_pool_that_was_never_used_can_be_shut_down(alive):
    Pool(2, 2).shutdown()
    assert alive() == 0


@pytest.mark.parametrize("task", ["lambda: None", "threading.Event().wait"])
def test_no_thread_of_a_pool_keeps_a_process_alive(task):
    code = (
        "import threading; from gunicorn_expect.workers.pool import Pool; pool = Pool(2, 2); "
        f"pool.run({task}, pool.place())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, timeout=PATIENCE)


# Everything together.


@pytest.mark.parametrize(("size", "most"), [(1, 2), (1, 40), (3, 8), (4, 40)])
def test_all_tasks_end_in_whatever_order_their_clients_send(alive, size, most):
    rolling = random.Random(size * most)
    pool = Pool(size, most)
    count = 40
    steps = 3
    sent = [threading.Semaphore(0) for _ in range(count)]

    def task(number, place):
        for _ in range(steps):
            with place.waiting():
                assert sent[number].acquire(timeout=PATIENCE)

    places = [pool.place() for _ in range(count)]
    futures = [submit(pool, task, x, places[x], place=places[x]) for x in range(count)]
    clients = [number for number in range(count) for _ in range(steps)]
    rolling.shuffle(clients)
    for number in clients:
        sent[number].release()
    for future in futures:
        future.result(PATIENCE)
    until(lambda: alive() <= size)
    # The pool still counts right: as many tasks as its size run at once.
    tasks = Tasks(pool)
    for name in range(size + 1):
        tasks.submit(name)
    tasks.until(lambda: len(tasks.running) == size)
    assert pool.busy
    for name in range(size + 1):
        tasks.go_on(name)
    tasks.until(lambda: len(tasks.done) == size + 1)
    pool.shutdown()
    until(lambda: alive() == 0)
