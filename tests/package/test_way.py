"""The calls that a worker makes for a request: how many there are, and the table of them.

The table is in docs/how-it-works.md. With ``--write-tables`` it is written instead of compared.
"""

import sys

import pytest

from support import CHECKOUT
from support.way import as_table, calls_of, counted

WORKERS = {
    "thread": "gunicorn_expect.Worker",
    "gevent": "gunicorn_expect.GeventWorker",
    "sync": "gunicorn_expect.Sync",
}

#: The most calls, moves between files, calls between our code and gunicorn's, and files. More of
#: them would be slower and harder to follow. A few more than usual are allowed, because a timer
#: may expire meanwhile.
LIMITS = {
    ("thread", "get"): {"calls": 95, "moves": 22, "crossings": 8, "files": 9},
    ("thread", "refuse"): {"calls": 100, "moves": 28, "crossings": 8, "files": 9},
    ("thread", "upload"): {"calls": 145, "moves": 43, "crossings": 8, "files": 12},
    ("gevent", "refuse"): {"calls": 95, "moves": 28, "crossings": 8, "files": 8},
    ("sync", "refuse"): {"calls": 100, "moves": 28, "crossings": 10, "files": 9},
}

PAGE = CHECKOUT / "docs" / "how-it-works.md"
BEGIN, END = "<!-- the way of a refusal -->\n", "\n<!-- its end -->"

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 has no qualified names of code"
)


@pytest.mark.parametrize(("worker", "kind"), LIMITS)
def test_a_request_makes_no_more_calls_than_before(worker, kind, tmp_path):
    found = counted(calls_of(kind, WORKERS[worker], tmp_path))
    longer = {what: n for what, n in found.items() if n > LIMITS[worker, kind][what]}
    assert longer == {}, f"all: {dict(found)}"


def test_the_page_has_the_calls_of_a_refusal(request, tmp_path):
    table = as_table(calls_of("refuse", WORKERS["thread"], tmp_path))
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    if request.config.getoption("write_tables"):
        PAGE.write_text(before + BEGIN + table + END + after, "utf-8")
    else:
        assert written == table
