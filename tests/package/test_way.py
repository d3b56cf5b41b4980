"""How long the way of a request is, in calls and in files, and what a page says of it.

With ``--write-tables`` the page's table is written, and not compared.
"""

import sys

import pytest

from support import CHECKOUT
from support.way import calls_of, counted, told

WORKERS = {
    "thread": "gunicorn_expect.Worker",
    "gevent": "gunicorn_expect.GeventWorker",
    "sync": "gunicorn_expect.Sync",
}

#: At most so many, with a log at debug level. A longer way is slower and hard to follow. A
#: few more calls than usual are allowed: something may be due meanwhile.
LIMITS = {
    ("thread", "get"): {"calls": 90, "moves": 22, "crossings": 8, "files": 9},
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
def test_the_way_of_a_request_is_no_longer_than_it_was(worker, kind, tmp_path):
    found = counted(calls_of(kind, WORKERS[worker], tmp_path))
    longer = {what: n for what, n in found.items() if n > LIMITS[worker, kind][what]}
    assert longer == {}, f"all: {dict(found)}"


def test_the_page_tells_the_way_of_a_refusal(request, tmp_path):
    table = told(calls_of("refuse", WORKERS["thread"], tmp_path))
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    if request.config.getoption("write_tables"):
        PAGE.write_text(before + BEGIN + table + END + after, "utf-8")
    else:
        assert written == table
