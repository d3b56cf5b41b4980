"""The example of resumable uploads, with a client that follows the draft's own sequences."""

import base64
import hashlib
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import CHECKOUT, PATIENCE
from support.client import CONTINUE, Client, waiting
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
)

DATA = os.urandom(1000) * 1000
LIMIT = 5_000_000
NAMED = "Content-Disposition: inline; filename=big.iso"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("uploads"), processes=1, UPLOAD_LIMIT=str(LIMIT))
    with site.serve() as server:
        server.site = site
        yield server


@pytest.fixture
def site(served):
    """The site of the server `served`, with no files at the beginning of the test."""
    for path in served.site.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    return served.site


def digest_field(name, data):
    return f"{name}: sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize("line", ["POST /uploads", "PUT /files/big.iso"])
def test_a_creation_gets_its_address_and_limits_before_its_body_is_read(served, site, line):
    with Client(served) as client:
        client.send(waiting(line, WHOLE, NAMED, f"Content-Length: {len(DATA)}"))
        status, fields = parsed(client.receive_head())
        assert status == 104
        assert fields["upload-limit"] == f"max-size={LIMIT}, max-append-size={LIMIT}, max-age=86400"
        # The draft, section 5: a 104 does not replace the 100.
        assert client.receive_head() == CONTINUE
        client.send(DATA)
        answer = receive_answer(client)
    assert (answer.status, answer.is_complete, answer.offset) == (201, True, len(DATA))
    assert site.has("big.iso", DATA)
    after = state(served, fields["location"])
    assert (after.is_complete, after.offset) == (True, len(DATA))


def test_an_upload_that_broke_off_continues_where_it_stopped(served, site):
    with Client(served) as client:
        path = begin(client, "POST /uploads", WHOLE, NAMED, size=len(DATA))
        client.send(DATA[:300_000])
        client.shut_down()
        assert receive_answer(client).status == 400
    assert site.stored() == []
    before = state(served, path)
    assert (before.offset, before.is_complete) == (300_000, False)
    assert before.fields["upload-length"] == str(len(DATA))
    assert before.fields["cache-control"] == "no-store"
    assert resume(served, path, DATA) == 300_000
    assert site.has("big.iso", DATA)


def test_the_commands_of_the_page_send_the_rest_of_an_upload(served, site, tmp_path):
    page = CHECKOUT.joinpath("docs/resumable.md").read_text("utf-8")
    [block] = re.findall(r"```console\n(\$ UPLOAD=.*?)```", page, re.DOTALL)
    path = create(served, PART, NAMED, f"Upload-Length: {len(DATA)}", body=DATA[:300_000])
    url = "http://{}:{}{}".format(*served.address, path)
    script = re.sub(r"(?m)^\$ ", "", block).replace(re.search(r"http:\S+", block)[0], url)
    tmp_path.joinpath("big.iso").write_bytes(DATA)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, timeout=PATIENCE, check=True)
    assert site.has("big.iso", DATA)


def test_an_upload_may_come_in_parts_without_a_known_length(served, site):
    path = create(served, PART, NAMED, body=DATA[:1000])
    answer = append(served, path, 1000, DATA[1000:5000], PART)
    assert (answer.status, answer.is_complete, answer.offset) == (204, False, 5000)
    assert "upload-length" not in state(served, path).fields
    assert append(served, path, 5000, DATA[5000:]).status == 200
    assert site.has("big.iso", DATA)


def test_an_upload_may_be_completed_by_an_empty_append(served, site):
    path = create(served, PART, NAMED, body=DATA)
    assert not state(served, path).is_complete
    assert append(served, path, len(DATA), b"").is_complete
    assert site.has("big.iso", DATA)


def test_an_append_at_a_wrong_offset_gets_the_right_one(served, site):
    path = create(served, PART, NAMED, body=DATA[:1000])
    for offset in (0, 999, 1001, len(DATA)):
        answer = append(served, path, offset, DATA[offset:])
        assert (answer.status, answer.offset) == (409, 1000)
    assert resume(served, path, DATA) == 1000
    assert append(served, path, len(DATA), b"more").status == 409
    assert site.has("big.iso", DATA)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, (APPEND, WHOLE)),
        (400, (APPEND, WHOLE, "Upload-Offset: -1")),
        (400, (APPEND, WHOLE, "Upload-Offset: 0, 0")),
        (400, (APPEND, "Upload-Offset: 0")),
        (400, (APPEND, WHOLE, "Upload-Offset: 0", "Upload-Length: 1000")),
        (415, (WHOLE, "Upload-Offset: 0")),
    ],
)
def test_an_append_with_a_missing_or_invalid_field_stores_nothing(served, site, status, fields):
    path = create(served, PART, f"Upload-Length: {len(DATA)}")
    assert ask(served, f"PATCH {path}", *fields, body=DATA).status == status
    assert state(served, path).offset == 0


def append_in_chunks(server, path, data, complete):
    """Append to an empty upload in chunks, after the 100."""
    fields = (APPEND, complete, "Upload-Offset: 0", "Transfer-Encoding: chunked")
    with Client(server) as client:
        client.send(waiting(f"PATCH {path}", *fields))
        assert client.receive_head() == CONTINUE
        client.send(b"%x\r\n" % len(data), data, b"\r\n0\r\n\r\n")
        return receive_answer(client)


def test_an_upload_that_is_longer_than_announced_is_deleted(served, site):
    path = create(served, PART, "Upload-Length: 1000")
    assert append_in_chunks(served, path, DATA[:1001], WHOLE).status == 400
    assert state(served, path).status == 404
    assert site.unfinished() == []


@pytest.mark.parametrize("field", [f"Content-Length: {LIMIT + 1}", f"Upload-Length: {LIMIT + 1}"])
def test_an_upload_that_is_too_large_is_refused_before_its_first_byte(served, site, field):
    fields = (field,) if "Content" in field else (field, "Content-Length: 10")
    with Client(served) as client:
        client.send(waiting("POST /uploads", WHOLE, *fields))
        answer = receive_answer(client)
    assert (answer.status, answer.interim) == (413, [])
    assert "max-size=" in answer.fields["upload-limit"]
    assert site.unfinished() == []


@pytest.mark.parametrize("field", [f"{LIMIT + 1};a=1", f"{LIMIT + 1}; a"])
def test_the_length_of_an_upload_is_read_despite_parameters(served, site, field):
    assert ask(served, "POST /uploads", PART, f"Upload-Length: {field}").status == 413
    path = create(served, PART)
    length = f"Upload-Length: {field}"
    assert append(served, path, 0, DATA[:10], PART, length).status == 413
    assert "upload-length" not in state(served, path).fields


def test_a_file_with_a_wrong_digest_is_not_stored(served, site):
    path = create(served, PART, NAMED, digest_field("Repr-Digest", DATA))
    answer = append(served, path, 0, DATA[::-1])
    assert (answer.status, answer.is_complete) == (400, True)
    assert state(served, path).status == 404
    path = create(served, PART, NAMED, digest_field("Repr-Digest", DATA))
    assert append(served, path, 0, DATA).status == 200
    assert site.has("big.iso", DATA)


def test_an_append_with_a_wrong_digest_changes_nothing(served, site):
    path = create(served, PART, NAMED, body=DATA[:1000])
    field = digest_field("Content-Digest", DATA[1000:])
    assert append(served, path, 1000, DATA[1000:][::-1], WHOLE, field).status == 400
    assert state(served, path).offset == 1000
    assert append(served, path, 1000, DATA[1000:], WHOLE, field).status == 200
    assert site.has("big.iso", DATA)


def test_a_deleted_upload_is_gone(served, site):
    path = create(served, PART, NAMED, body=DATA)
    assert ask(served, f"DELETE {path}").status == 204
    assert site.unfinished() == []
    for method in ("HEAD", "DELETE"):
        assert ask(served, f"{method} {path}").status == 404


def test_an_upload_that_is_abandoned_expires(served, site):
    path = create(served, PART, body=DATA)
    [part] = site.folder.glob(".uploads/*.part")
    os.utime(part, (0, 0))
    assert state(served, path).status == 404
    assert site.unfinished() == []


def test_a_file_with_the_name_of_a_folder_gets_another_name(served, site):
    site.folder.joinpath("films").mkdir()
    name = "Content-Disposition: inline; filename=films"
    path = create(served, WHOLE, name, body=DATA)
    assert state(served, path).is_complete
    assert site.has(path.rpartition("/")[2], DATA)
    assert create(served, PART)
    assert ask(served, f"DELETE {path}").status == 204
    site.folder.joinpath("films").rmdir()


@pytest.mark.parametrize("state", ["", "{", "[]", '{"id": "x"}'])
def test_an_upload_whose_state_file_is_broken_is_deleted(served, site, state):
    path = create(served, PART, NAMED, body=DATA)
    [file] = site.folder.glob(".uploads/*.json")
    file.write_text(state, "ascii")
    assert create(served, PART)
    assert ask(served, f"HEAD {path}").status == 404
    assert not file.exists()


def test_uploads_can_be_created_and_deleted_concurrently(served, site):
    def come_and_go():
        for _ in range(10):
            path = create(served, PART)
            assert ask(served, f"DELETE {path}").status == 204

    with ThreadPoolExecutor(4) as pool:
        for coming in [pool.submit(come_and_go) for _ in range(4)]:
            coming.result()
    assert site.unfinished() == []


@pytest.mark.parametrize("line", ["OPTIONS /uploads"])
def test_a_client_may_ask_what_is_supported(served, line):
    answer = ask(served, line)
    assert answer.status == 204
    assert "application/partial-upload" in answer.fields["accept-patch"]
    assert f"max-size={LIMIT}" in answer.fields["upload-limit"]


@pytest.mark.parametrize("version", ["5", "6"])
def test_in_older_drafts_the_length_completes_an_upload(served, site, version):
    """tus-js-client sends ?0 even with the last bytes of some sources."""
    fields = (f"Upload-Draft-Interop-Version: {version}", PART)
    path = create(served, *fields, NAMED, f"Upload-Length: {len(DATA)}")
    answer = append(served, path, 0, DATA, *fields)
    assert answer.is_complete
    assert answer.fields["upload-draft-interop-version"] == version
    assert site.has("big.iso", DATA)


def test_a_client_of_tus_uploads_and_resumes(served, site):
    tus = "Tus-Resumable: 1.0.0"
    name = "Upload-Metadata: filename " + base64.b64encode(b"big.iso").decode()
    path = create(served, tus, name, f"Upload-Length: {len(DATA)}")
    for offset, end in ((0, 1000), (1000, len(DATA))):
        before = ask(served, f"HEAD {path}", tus)
        assert (before.status, before.offset) == (200, offset)
        kind = "Content-Type: application/offset+octet-stream"
        fields = (tus, kind, f"Upload-Offset: {offset}")
        answer = ask(served, f"PATCH {path}", *fields, body=DATA[offset:end])
        assert (answer.status, answer.offset, answer.interim) == (204, end, [])
    assert site.has("big.iso", DATA)


def test_nothing_is_left_of_an_upload_that_can_not_be_resumed(served, site):
    with Client(served) as client:
        client.send(waiting("PUT /files/big.iso", "Content-Length: 1000"))
        assert client.receive_head() == CONTINUE
        client.send(b"only this")
        client.shut_down()
        assert receive_answer(client).status == 400
    assert site.stored() == site.unfinished() == []


@pytest.mark.parametrize("name", ["../../x", "/etc/x", ".uploads", "..", "%2e%2e%2fx", "a/b\\c"])
def test_a_file_is_stored_in_the_folder_whatever_its_name(served, site, name):
    create(served, WHOLE, f'Content-Disposition: inline; filename="{name}"', body=DATA)
    [stored] = site.stored()
    assert site.has(stored, DATA)


def test_a_chunked_body_is_limited_by_the_limit_of_one_request(tmp_path):
    site = Site(tmp_path, processes=1, UPLOAD_APPEND_LIMIT="1000")
    with site.serve() as server:
        path = create(server, PART)
        assert append_in_chunks(server, path, DATA[:1001], PART).status == 413
        assert append(server, path, 0, DATA[:1000]).status == 200


def test_a_token_is_required_if_one_is_set(tmp_path):
    site = Site(tmp_path, processes=1, UPLOAD_TOKEN="letmein")
    with site.serve() as server:
        assert ask(server, "POST /uploads", WHOLE, body=DATA).status == 401
        token = "Authorization: Bearer letmein"
        path = create(server, PART, token, body=DATA)
        assert state(server, path).status == 401
        assert ask(server, f"HEAD {path}", token).offset == len(DATA)


def test_a_file_that_was_complete_when_the_server_was_killed_gets_its_final_name(tmp_path):
    site = Site(tmp_path, processes=1)
    with site.serve() as server:
        create(server, PART, NAMED, body=DATA)
    [path] = tmp_path.glob(".uploads/*.json")
    upload = json.loads(path.read_text("utf-8")) | {"complete": True, "length": len(DATA)}
    path.write_text(json.dumps(upload), "utf-8")
    with site.serve() as server:
        assert ask(server, "OPTIONS /uploads").status == 204  # so the server has started
        assert site.has("big.iso", DATA)
