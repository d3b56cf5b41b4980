"""What several test modules use: each module here is named after what is in it."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent

#: Seconds after which a byte or a log line that a test waits for counts as never coming. It is
#: the bound of a failure; nothing that succeeds takes this long.
PATIENCE = 20
