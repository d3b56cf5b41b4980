"""Threads that run so many tasks at once, and more while some wait."""

import collections
import contextlib
import random
import threading
from concurrent.futures import Future

import pytest
from wire import PATIENCE

from gunicorn_expect.pool import Pool


def submit(pool, function, *arguments):
    """Let a pool run this; give what it returns or raises as a future."""
    future = Future()

    def task():
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001  it is for who asks the future
            future.set_exception(error)

    pool.run(task)
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

    def submit(self, name, waits=0, then=None):
        """Run until told to `go_on`, as many times as it waits and once more."""
        return submit(self.pool, self._task, name, waits, then)

    def go_on(self, name):
        """Let this one end its wait for the client, or what it runs."""
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

    def _task(self, name, waits, then):
        self._change(self.running.add, name)
        self._pause(name)
        for _ in range(waits):
            self._change(self.running.remove, name)
            with self.pool.waiting():
                self._change(self.waiting.add, name)
                self._pause(name)
                self._change(self.waiting.remove, name)
            self._change(self.running.add, name)
            self._pause(name)
        self._change(self.running.remove, name)
        self._change(self.done.append, name)
        return then() if then else name


@contextlib.contextmanager
def pool_of(size, most):
    pool = Pool(size, most)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)


@pytest.fixture
def alive():
    """Give how many threads of pools there are now."""
    before = set(threading.enumerate())

    def count():
        return len(set(threading.enumerate()) - before)

    return count


def until(condition):
    """Wait for what no event tells: that a thread has ended."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


def test_a_pool_begins_without_threads(alive):
    Pool(4, 8)
    assert alive() == 0


def test_so_many_tasks_run_at_once(alive):
    with pool_of(3, 100) as pool:
        tasks = Tasks(pool)
        futures = [tasks.submit(name) for name in range(10)]
        tasks.until(lambda: len(tasks.running) == 3)
        for name in range(10):
            tasks.go_on(name)
        assert [future.result(PATIENCE) for future in futures] == list(range(10))
        assert tasks.most_running == 3
        assert alive() == 3


def test_tasks_begin_in_the_order_in_which_they_came():
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


def test_a_task_that_waits_does_not_count():
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


def test_a_task_that_waits_makes_room_for_one_that_is_there_already():
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


def test_no_more_run_than_may_when_all_go_on_at_the_same_moment(alive):
    with pool_of(3, 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, range(40))
        for name in range(40):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.running) == 3)
        for name in range(40):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 40)
        assert tasks.most_running == 3
        until(lambda: alive() == 3)


def test_the_threads_that_were_hired_for_a_time_of_waiting_go_with_it(alive):
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


def test_who_has_waited_goes_on_when_its_turn_comes():
    with pool_of(1, 10) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, ["waited"])
        tasks.submit("before")
        tasks.until(lambda: "before" in tasks.running)
        tasks.submit("between")
        tasks.go_on("waited")
        tasks.until(lambda: not tasks.waiting)
        tasks.go_on("before")
        tasks.until(lambda: "between" in tasks.running)
        tasks.go_on("between")
        tasks.until(lambda: "waited" in tasks.running)
        tasks.go_on("waited")
        tasks.until(lambda: "waited" in tasks.done)
        assert tasks.done == ["before", "between", "waited"]


def test_there_are_never_more_threads_than_there_may_be(alive):
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


def test_a_pool_has_at_least_the_threads_that_run():
    with pool_of(3, 1) as pool:
        tasks = Tasks(pool)
        for name in range(3):
            tasks.submit(name)
        tasks.until(lambda: len(tasks.running) == 3)
        for name in range(3):
            tasks.go_on(name)


@pytest.mark.parametrize("lack", ["most", "system"])
def test_who_has_waited_goes_on_when_the_last_that_runs_begins_to_wait(lack, monkeypatch):
    """And there is no thread more to be had that could make room for it."""
    with pool_of(1, 2 if lack == "most" else 100) as pool:
        tasks = Tasks(pool)
        start_waiting(tasks, ["waited"])
        tasks.submit("other", waits=1)
        tasks.until(lambda: "other" in tasks.running)
        tasks.go_on("waited")
        tasks.until(lambda: not tasks.waiting)
        if lack == "system":
            monkeypatch.setattr(threading.Thread, "start", no_more_threads)
        tasks.go_on("other")
        tasks.until(lambda: "other" in tasks.waiting)
        tasks.until(lambda: "waited" in tasks.running)
        for name in ("waited", "other", "other"):
            tasks.go_on(name)
        tasks.until(lambda: len(tasks.done) == 2)
        assert tasks.most_running == 1


def no_more_threads(thread):
    raise RuntimeError("can't start new thread")


def test_a_system_that_has_no_more_threads_is_told_of_once_and_not_when_there_are_some(
    monkeypatch,
):
    with pool_of(4, 8) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more_threads)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                submit(pool, int)
        assert submit(pool, int).result(PATIENCE) == 0
        monkeypatch.setattr(threading.Thread, "start", no_more_threads)
        assert submit(pool, int).result(PATIENCE) == 0


def test_a_thread_that_is_not_of_the_pool_may_wait():
    with pool_of(1, 1) as pool, pool.waiting():
        assert submit(pool, int).result(PATIENCE) == 0


def test_a_wait_that_fails_is_over(alive):
    def fail():
        with pool.waiting():
            raise LookupError

    with pool_of(1, 10) as pool:
        for _ in range(5):
            assert type(submit(pool, fail).exception(PATIENCE)) is LookupError
        until(lambda: alive() == 1)


# The end.


def test_a_pool_that_is_shut_down_ends_when_it_has_done_what_there_is(alive):
    pool = Pool(2, 2)
    tasks = Tasks(pool)
    futures = [tasks.submit(name) for name in range(6)]
    for name in range(6):
        tasks.go_on(name)
    pool.shutdown(wait=True)
    assert alive() == 0
    assert [future.result(0) for future in futures] == list(range(6))
    with pytest.raises(RuntimeError, match="the pool is shut down"):
        submit(pool, int)
    pool.shutdown(wait=True)


def test_a_pool_may_be_shut_down_without_a_wait(alive):
    pool = Pool(1, 1)
    tasks = Tasks(pool)
    future = tasks.submit("late")
    tasks.until(lambda: tasks.running)
    pool.shutdown(wait=False)
    tasks.go_on("late")
    assert future.result(PATIENCE) == "late"
    until(lambda: alive() == 0)


@pytest.mark.parametrize("turn", [False, True], ids=["waits", "wants to go on"])
def test_a_pool_is_shut_down_while_some_wait(alive, turn):
    pool = Pool(1, 10)
    tasks = Tasks(pool)
    start_waiting(tasks, range(5))
    tasks.submit("other", waits=1)
    tasks.until(lambda: "other" in tasks.running)
    if turn:
        for name in range(5):
            tasks.go_on(name)
        tasks.until(lambda: not tasks.waiting)
    pool.shutdown(wait=False)
    tasks.go_on("other")
    for name in [*range(5), *range(5), "other", "other"]:
        tasks.go_on(name)
    tasks.until(lambda: len(tasks.done) == 6)
    pool.shutdown(wait=True)
    until(lambda: alive() == 0)


def test_a_pool_that_was_never_used_is_shut_down(alive):
    Pool(2, 2).shutdown(wait=True)
    assert alive() == 0


# All of it.


@pytest.mark.parametrize(("size", "most"), [(1, 2), (1, 40), (3, 8), (4, 40)])
def test_tasks_that_wait_for_each_others_clients_all_end(alive, size, most):
    """Every task waits a few times, and who runs lets others go on: in any order."""
    rolling = random.Random(size * most)
    pool = Pool(size, most)
    count = 40
    steps = 3
    lock = threading.Lock()
    running = 0
    exceeded = []
    sent = [threading.Semaphore(0) for _ in range(count)]

    def change(by):
        nonlocal running
        with lock:
            running += by
            if running > size:
                exceeded.append(running)

    def task(number):
        change(1)
        for _ in range(steps):
            change(-1)
            with pool.waiting():
                assert sent[number].acquire(timeout=PATIENCE)
            change(1)
        change(-1)

    futures = [submit(pool, task, number) for number in range(count)]
    clients = [number for number in range(count) for _ in range(steps)]
    rolling.shuffle(clients)
    for number in clients:
        sent[number].release()
    for future in futures:
        future.result(PATIENCE)
    assert exceeded == []
    until(lambda: alive() <= size)
    pool.shutdown(wait=True)
    assert alive() == 0
