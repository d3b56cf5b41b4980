"""tus-js-client uploads to examples/resumable_upload.py, and resumes uploads that break off."""

import contextlib
import hashlib
import itertools
import os
import shutil

import pytest

from realworld.breaking import BreakingRelay, Site
from realworld.clients import PROGRAMS, RunningClient
from support import PATIENCE
from support.installed import NODE_MODULES, missing

APP = "examples.resumable_upload:app"
SCRIPT = PROGRAMS / "tus.js"
PROTOCOLS = ["ietf-draft-03", "ietf-draft-05", "tus-v1"]
#: So large that the server has stored a part when the rest fills the buffers between.
SIZE = 16 * 1024**2
#: Not a multiple of anything.
PART = 10 * 1024**2 + 12_345

#: The script of a page that uploads random bytes.
IN_THE_BROWSER = """
const [protocol, size, done] = arguments;
const bytes = new Uint8Array(size);
for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
(async () => {
    const file = new File([bytes], "picture.png", { type: "image/png" });
    const metadata = { filename: file.name };
    const seen = await upload(tus, file, { endpoint: "/uploads", protocol, metadata });
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return [seen, Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")];
})().then(done, (error) => done([{ error: String(error) }, null]));
"""

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(scope="module")
def tus():
    """Return the folder of tus-js-client."""
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            missing(name, "apt-get install nodejs npm; make test")
    folder = NODE_MODULES / "tus-js-client"
    if not folder.exists():
        missing("tus-js-client")
    return folder


@pytest.fixture(scope="module")
def client(tus, tmp_path_factory):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path_factory.mktemp("home")),
        "NODE_PATH": str(tus.parent),
    }
    with contextlib.closing(RunningClient(["node", str(SCRIPT)], env)) as client:
        yield client


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("sent") / "picture.png"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(APP, tmp_path_factory.mktemp("uploads")) as site:
        yield site


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def origin(server):
    return "http://{}:{}".format(*server.address)


def upload(client, server, protocol, picture):
    """Upload the picture; return the requests."""
    seen = client.upload(protocol, picture, f"{origin(server)}/uploads")
    assert seen["error"] is None, seen
    return seen["requests"]


def check_resumed(requests):
    """Check that one append broke, and that the next sent what the server said is missing."""
    created, broken, *unheard, asked, rest = requests
    assert (created["method"], created["status"]) == ("POST", 201)
    assert (broken["method"], broken["offset"], broken["status"]) == ("PATCH", "0", None)
    assert all((each["method"], each["status"]) == ("HEAD", None) for each in unheard)
    assert asked["method"] == "HEAD"
    assert rest["method"] == "PATCH"
    assert rest["offset"] == asked["Upload-Offset"]
    assert 0 < int(rest["offset"]) <= PART + 65536
    assert rest["Upload-Offset"] == str(SIZE)


def check_stored(site, sha256):
    """Check that the file is the one that was sent, and make room for the next one."""
    stored = site.folder / "picture.png"
    assert digest(stored) == sha256
    stored.unlink()


@every_protocol
def test_a_file_is_stored(client, site, picture, protocol):
    created, append = upload(client, site.server, protocol, picture)
    assert [created["status"], append["method"]] == [201, "PATCH"]
    check_stored(site, digest(picture))


@every_protocol
def test_an_upload_whose_connection_is_reset_is_resumed(client, site, picture, protocol):
    with BreakingRelay(site.server, PART) as relay:
        check_resumed(upload(client, relay, protocol, picture))
    check_stored(site, digest(picture))


@pytest.mark.parametrize(
    ("worker", "protocol"),
    [*itertools.product(["thread"], PROTOCOLS), ("gevent", "ietf-draft-05"), ("sync", "tus-v1")],
)
def test_an_upload_whose_server_is_killed_is_resumed_when_it_is_started_again(
    client, picture, tmp_path, worker, protocol
):
    with (
        Site(APP, tmp_path, worker) as site,
        BreakingRelay(site.server, PART, kill=site.kill, start=site.start) as relay,
    ):
        check_resumed(upload(client, relay, protocol, picture))
    check_stored(site, digest(picture))


@every_protocol
def test_an_upload_of_a_browser_whose_server_is_killed_is_resumed(browser, tus, tmp_path, protocol):
    with (
        Site(APP, tmp_path) as site,
        BreakingRelay(site.server, PART, kill=site.kill, start=site.start) as relay,
    ):
        browser.get(origin(relay))  # a 404, but a page of this origin
        for script in (tus / "dist" / "tus.min.js", SCRIPT):
            add_script(browser, script)
        browser.set_script_timeout(2 * PATIENCE)  # the server starts again meanwhile
        seen, sent = browser.execute_async_script(IN_THE_BROWSER, protocol, SIZE)
    assert seen["error"] is None, seen
    check_resumed(seen["requests"])
    check_stored(site, sent)


def add_script(browser, path):
    script = "const script = document.createElement('script'); script.text = arguments[0];"
    browser.execute_script(script + "document.head.append(script);", path.read_text("utf-8"))
