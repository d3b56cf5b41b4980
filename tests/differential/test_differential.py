"""Thousands of streams: our worker makes of them what gunicorn does, except for listed deviations.

For each stream, with each choice of settings and both parsers: the environ that the application
sees, what it reads, the bytes of the response, and what is left on the connection for the next
request. The list of deviations is in `deviations.py`, their sentences in docs/compatibility.md.

To compare more: ``pytest tests/differential --differential 1000000 --differential-from 50000``.
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

#: How many tests share the streams, so that several processes can run them.
SHARES = 12

#: Failures after which one of these tests stops.
MOST = 3


@pytest.fixture(autouse=True)
def _quiet():
    # gunicorn warns of each response to HEAD that has a body.
    log = logging.getLogger("gunicorn.http.wsgi")
    before = log.level
    log.setLevel(logging.ERROR)
    yield
    log.setLevel(before)


@pytest.mark.timeout(0)  # it depends on the number of streams
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
    """Describe a stream on which the two servers differ."""
    small = shrunk(server, stream)
    lines = [
        f"seed {stream.seed}: pytest tests/differential --differential 1 "
        f"--differential-from {stream.seed}",
        f"settings {server.settings}",
        f"client {small.client!r}, listener {small.listener!r}, application {small.manners}",
        "the shortest part of it that differs:",
        *(f"  {piece!r}" for piece in small.pieces(small.data())),
        str(compare(server, small)[0]),
    ]
    return "\n".join(lines)


def shrunk(server, stream):
    """Return the smallest part of a stream on which the two servers still differ."""
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
