"""Helpers that several test modules share; each module is named after its contents."""

import threading
from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent

#: Seconds that a test waits for a byte or a log line before it fails. A test that passes never
#: waits this long.
PATIENCE = 20

#: The size of a body for which every client sends Expect, if it ever sends it. curl 8.14 and later
#: send it for bodies over 1 MiB.
SIZE_WITH_EXPECT = 4 * 1024**2


def until(condition):
    """Wait until a condition is true, if there is no event to wait for."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition did not become true")
