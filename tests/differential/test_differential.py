"""Streams by the thousand: what we make of them is what gunicorn makes of them, but for a table.

For each stream, with each choice of settings and both parsers: the environ that the application
sees, what it reads, the bytes of the response, and what is left on the connection for the next
request. The table is in `deviations.py`, and its sentences in
docs/compatibility.md.

Any number by hand: ``pytest tests/differential --differential 1000000 --differential-from 50000``.
"""

import contextlib
import dataclasses
import logging
import re

import pytest

from differential.comparison import compare
from differential.configurations import configurations
from differential.deviations import BY_PIECES, CORRECTIONS, DEVIATIONS
from differential.servers import Server
from differential.streams import make
from support import CHECKOUT

CONFIGURATIONS = configurations()

#: In how many tests the streams are tried, for as many processes as there are.
SHARES = 12

#: Failures that one of them tells before it stops.
MOST = 3


@pytest.fixture(autouse=True)
def _quiet():
    # It warns of each response to HEAD that has a body.
    log = logging.getLogger("gunicorn.http.wsgi")
    before = log.level
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(before)


@pytest.mark.timeout(0)  # any number by hand
@pytest.mark.parametrize("share", range(SHARES))
def test_streams_are_served_as_by_gunicorn(share, request):
    first = request.config.getoption("differential_from")
    seeds = range(first, first + request.config.getoption("differential"))
    failures = []
    for number in range(share, len(CONFIGURATIONS), SHARES):
        skipped = (number - first) % len(CONFIGURATIONS)
        with contextlib.closing(Server(CONFIGURATIONS[number])) as server:
            for seed in seeds[skipped :: len(CONFIGURATIONS)]:
                stream = make(seed, server.limits)
                if compare(server, stream)[0] is not None:
                    failures.append(described(server, stream))
                    if len(failures) == MOST:
                        pytest.fail("\n\n".join(failures), pytrace=False)
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


def described(server, stream):
    """Return what a reader needs of a stream that is served in two ways."""
    small = shrunk(server, stream)
    lines = [
        f"seed {stream.seed}: pytest tests/differential --differential 1 "
        f"--differential-from {stream.seed}",
        f"settings {server.settings}",
        f"client {small.client!r}, listener {small.listener!r}, application {small.manners}",
        "sent, as short as it differs:",
        *(f"  {piece!r}" for piece in small.pieces(small.data())),
        str(compare(server, small)[0]),
    ]
    return "\n".join(lines)


def shrunk(server, stream):
    """Leave out of a stream what does not matter for its difference."""
    for simpler in (
        *(
            dataclasses.replace(stream, sizes=[], end=None)
            for _ in [0]
            if stream.sizes or stream.end
        ),
        *(
            dataclasses.replace(stream, blocks=stream.blocks[:i] + stream.blocks[i + 1 :])
            for i in range(len(stream.blocks))
        ),
    ):
        if compare(server, simpler)[0] is not None:
            return shrunk(server, simpler)
    return stream


def test_each_deviation_is_documented():
    page = re.sub(r"\s+", " ", CHECKOUT.joinpath("docs", "compatibility.md").read_text("utf-8"))
    words = [deviation.documented for deviation in (*DEVIATIONS, *CORRECTIONS, BY_PIECES)]
    assert [each for each in words if each not in page] == []
