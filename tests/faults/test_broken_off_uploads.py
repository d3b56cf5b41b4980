"""Resumable uploads that break off in every way: what is stored in the end is what was sent.

``--thorough`` tries 200 offsets, and kills each kind of worker 19 times in one upload.
"""

import contextlib
import os

import pytest

from faults.unfriendly import in_parallel, reset
from support.client import Client, request
from support.matrix import WORKERS
from support.resuming import (
    APPEND,
    PART,
    WHOLE,
    Site,
    append,
    ask,
    begin,
    create,
    parsed,
    receive_answer,
    resume,
    state,
    wait_until_received,
)

MIB = 1024**2
#: Bytes that the example reads at once.
PIECE = 256 * 1024
#: Not a multiple of anything.
DATA = os.urandom(1021) * 701
#: So long that the server reports the offset more than once.
LONG = os.urandom(1021) * 36_000
NAMED = "Content-Disposition: inline; filename=big.iso"


def append_begun(client, path, offset, size, *fields):
    """Send the head of an append."""
    fields = (APPEND, f"Upload-Offset: {offset}", f"Content-Length: {size}", *(fields or (WHOLE,)))
    client.send(request(f"PATCH {path}", *fields))


@pytest.fixture(scope="module", params=WORKERS)
def served(request, tmp_path_factory):
    """Without a timeout for bodies: only a newer request may end the read of an older one."""
    # A sync worker serves one client at a time: two that append, and one that asks.
    processes = 3 if request.param == "sync" else 1
    folder = tmp_path_factory.mktemp("uploads")
    site = Site(folder, request.param, processes, GUNICORN_EXPECT_BODY_TIMEOUT="0")
    with site.serve() as server:
        server.site = site
        server.is_sync = request.param == "sync"
        yield server


@pytest.fixture
def site(served):
    """The folder of the server, without the file of the test before."""
    served.site.folder.joinpath("big.iso").unlink(missing_ok=True)
    return served.site


@pytest.mark.timeout(900)  # --thorough starts 20 servers
@pytest.mark.parametrize("worker", WORKERS)
def test_no_acknowledged_byte_is_lost_when_the_server_is_killed(tmp_path, worker, thorough):
    if worker != "thread" and not thorough:
        pytest.skip("the kill is the same on every worker: --thorough tries each")
    site = Site(tmp_path, worker)
    cuts = range(1, 20) if thorough else [19]
    ends = [len(LONG) * cut // 20 for cut in cuts]
    path, offset, acknowledged, received = None, 0, 0, 0
    for end in ends:
        with site.serve() as server, Client(server) as client:
            if path is None:
                path = begin(client, "POST /uploads", WHOLE, NAMED, size=len(LONG))
            else:
                offset = state(server, path).offset
                assert max(acknowledged, received - MIB) <= offset
                acknowledged = offset
                append_begun(client, path, offset, len(LONG) - offset)
            client.send(LONG[offset:end])
            if end - offset > 32 * MIB:
                status, fields = parsed(client.receive_head())
                assert status == 104
                acknowledged = int(fields["upload-offset"])
                assert acknowledged >= 32 * MIB
            wait_until_received(client)
            received = end
            server.kill()
    with site.serve() as server:
        offset = resume(server, path, LONG)
    assert max(acknowledged, received - MIB) <= offset <= received
    assert site.has("big.iso", LONG)


def test_an_upload_that_is_cut_by_a_reset_at_any_offset_is_stored_as_it_was_sent(
    served, site, thorough
):
    count = 200 if thorough else 8
    cuts = {len(DATA) * number // count for number in range(count + 1)}
    cuts |= {1, PIECE - 1, PIECE, PIECE + 1, len(DATA) - 1}
    for number, cut in enumerate(sorted(cuts)):
        with Client(served) as client:
            if number % 2:
                path = begin(client, "POST /uploads", WHOLE, NAMED, size=len(DATA))
            else:
                path = create(served, PART, NAMED)
                append_begun(client, path, 0, len(DATA))
            client.send(DATA[:cut])
            reset(client)
        assert resume(served, path, DATA) <= cut
        assert site.has("big.iso", DATA)
        site.folder.joinpath("big.iso").unlink()


def test_a_newer_request_stops_an_append_that_stalls(served, site):
    with Client(served) as older:
        path = begin(older, "POST /uploads", WHOLE, NAMED, size=len(DATA))
        older.send(DATA[:300_000])
        assert resume(served, path, DATA) <= 300_000
        if served.is_sync:  # the older one is in another process, which notices when bytes come
            older.send(b"!" * (len(DATA) - 300_000))
        assert receive_answer(older).status == 503
    assert site.has("big.iso", DATA)


def test_of_two_appends_at_once_the_older_writes_nothing_more(served, site):
    with Client(served) as older, Client(served) as newer:
        path = create(served, PART, NAMED)
        append_begun(older, path, 0, len(DATA))
        older.send(DATA[:1000])
        wait_until_received(older)
        offset = state(served, path).offset
        append_begun(newer, path, offset, len(DATA) - offset)
        newer.send(DATA[offset:500_000])
        with contextlib.suppress(ConnectionError):  # it may be closed already
            older.send(b"!" * (len(DATA) - 1000))
        newer.send(DATA[500_000:])
        assert receive_answer(newer).status == 200
    assert site.has("big.iso", DATA)


def test_many_appends_at_once_store_what_was_sent(served, site):
    path = create(served, PART, NAMED)

    def upload():
        for _ in range(3):
            before = state(served, path)
            if not before.is_complete:
                append(served, path, before.offset, DATA[before.offset :])

    in_parallel(upload, [()] * 4)
    resume(served, path, DATA)
    assert site.has("big.iso", DATA)


def test_a_client_that_lies_about_its_offset_stores_nothing_by_it(served, site):
    path = create(served, PART, NAMED, f"Upload-Length: {len(DATA)}", body=DATA[:5000])
    for offset in (0, 4999, 5001, len(DATA), 10**15 - 1):
        answer = append(served, path, offset, b"!" * 100, PART)
        assert (answer.status, answer.offset) == (409, 5000)
    assert append(served, path, 5000, b"!" * len(DATA), PART).status == 400
    assert resume(served, path, DATA) == 5000
    assert site.has("big.iso", DATA)


def test_an_append_to_an_upload_that_is_deleted_ends(served, site):
    with Client(served) as client:
        path = begin(client, "POST /uploads", WHOLE, NAMED, size=len(DATA))
        client.send(DATA[:1000])
        wait_until_received(client)
        assert ask(served, f"DELETE {path}").status == 204
        if served.is_sync:
            client.send(DATA[1000:])
        assert receive_answer(client).status in (404, 503)
    assert site.stored() == []
