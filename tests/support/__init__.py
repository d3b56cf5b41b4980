"""What several test modules use: each module here is named after what is in it."""

import threading
from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent

#: Seconds after which a byte or a log line that a test waits for counts as never coming. It is
#: the bound of a failure; nothing that succeeds takes this long.
PATIENCE = 20

#: The size of a body for which every client sends Expect, if it ever does. curl 8.14 and later do
#: so for bodies of more than 1 MiB; this is well over it.
ASKED_SIZE = 4 * 1024**2


def until(condition):
    """Wait for a condition for which there is no event."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")
