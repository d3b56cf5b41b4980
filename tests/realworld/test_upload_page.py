"""The page of examples/upload_page in a real browser.

A refusal is shown with its reason, and what breaks off is resumed.
"""

import os
import threading

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from realworld.breaking import BreakingRelay, Site
from support import PATIENCE

APP = "examples.upload_page.app:app"
LIMIT = 30_000_000
HALF = LIMIT // 2

DROP = """
const files = new DataTransfer();
files.items.add(new File(["dropped"], "dropped.png", { type: "image/png" }));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: files }));
"""

#: Keeps all messages that the page shows of its uploads.
LISTEN = """
window.said = [];
new MutationObserver(() => {
    for (const words of document.querySelectorAll("#files p"))
        if (words.textContent && said.at(-1) !== words.textContent) said.push(words.textContent);
}).observe(document.getElementById("files"), { childList: true, subtree: true });
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(APP, tmp_path_factory.mktemp("uploads"), UPLOAD_LIMIT=str(LIMIT)) as site:
        yield site


@pytest.fixture
def page(browser, site):
    show(browser, site.server)
    return browser


def show(browser, server):
    browser.get("http://{}:{}/".format(*server.address))
    browser.execute_script(LISTEN)


def choose(page, path):
    page.find_element(By.ID, "file").send_keys(str(path))


def outcome(page):
    """Wait for the result of a file; return its kind, and the text that is shown."""
    row = WebDriverWait(page, 2 * PATIENCE).until(  # the page itself waits for longer each time
        lambda page: page.find_element(By.CSS_SELECTOR, "#files li[class]"),
        "the page shows no result",
    )
    return row.get_attribute("class"), row.find_element(By.TAG_NAME, "p").text


def said(page):
    return page.execute_script("return said")


def appends(site):
    return [line for line in site.server.lines if "PATCH" in line]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(os.urandom(LIMIT))
    return path


@pytest.mark.parametrize("size", [0, 5, LIMIT])
def test_a_picture_is_stored(page, site, tmp_path, size):
    picture = tmp_path / f"picture-{size}.png"
    picture.write_bytes(bytes(size))
    choose(page, picture)
    assert outcome(page) == ("stored", f"picture-{size}.png is stored.")
    assert site.folder.joinpath(picture.name).read_bytes() == bytes(size)


def test_a_file_is_stored_without_the_characters_that_its_name_may_not_have(page, site, tmp_path):
    picture = tmp_path / "d'été (1).png"
    picture.write_bytes(b"summer")
    choose(page, picture)
    assert outcome(page) == ("stored", "d'été (1).png is stored.")
    assert site.folder.joinpath("dete_1.png").read_bytes() == b"summer"


def test_a_file_can_be_dropped(page, site):
    page.execute_script(DROP)
    assert outcome(page) == ("stored", "dropped.png is stored.")
    assert site.folder.joinpath("dropped.png").read_bytes() == b"dropped"


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("large.png", LIMIT + 1, "This file is too large: 30 MB is the most."),
        ("letter.txt", 5, "Only pictures and films are taken here."),
    ],
)
def test_a_refused_file_is_not_sent_and_the_page_shows_the_reason(
    page, site, tmp_path, name, size, reason
):
    before = appends(site)
    file = tmp_path / name
    file.write_bytes(bytes(size))
    choose(page, file)
    assert outcome(page) == ("refused", reason)
    assert appends(site) == before


def check_resumed(page, site, picture):
    assert outcome(page) == ("stored", "picture.png is stored.")
    assert any(words.startswith("Resumed at ") for words in said(page)), said(page)
    assert site.folder.joinpath(picture.name).read_bytes() == picture.read_bytes()


def test_an_upload_is_resumed_when_the_server_was_killed_and_started_again(browser, site, picture):
    with BreakingRelay(site.server, HALF, kill=site.kill, start=site.start) as relay:
        show(browser, relay)
        choose(browser, picture)
        check_resumed(browser, site, picture)
        assert said(browser)[0] == "The connection was lost. Trying again in 1 s."


def test_a_file_that_is_chosen_again_after_the_page_was_closed_is_resumed(browser, site, picture):
    closed = threading.Event()

    def start():
        assert closed.wait(PATIENCE)
        return site.start()

    with BreakingRelay(site.server, HALF, kill=site.kill, start=start) as relay:
        show(browser, relay)
        choose(browser, picture)
        assert relay.broken.wait(PATIENCE)
        browser.get("about:blank")
        closed.set()
        assert relay.mended.wait(PATIENCE)
        show(browser, relay)
        choose(browser, picture)
        check_resumed(browser, site, picture)


def test_a_file_is_sent_in_pieces_where_the_server_limits_them(browser, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(os.urandom(2_500_000))
    with Site(APP, tmp_path / "uploads", UPLOAD_APPEND_LIMIT="1000000") as site:
        show(browser, site.server)
        choose(browser, picture)
        assert outcome(browser) == ("stored", "picture.png is stored.")
        assert len(appends(site)) == 3
    assert site.folder.joinpath(picture.name).read_bytes() == picture.read_bytes()


def test_an_upload_that_is_cancelled_is_deleted(browser, site, picture):
    with BreakingRelay(site.server, HALF, stall=True) as relay:
        show(browser, relay)
        choose(browser, picture)
        assert relay.broken.wait(PATIENCE)
        browser.find_element(By.TAG_NAME, "button").click()
        assert outcome(browser) == ("refused", "Cancelled.")
        site.server.wait_for_log(r"^DELETE /uploads/\S+ HTTP/1.1 -> 204")
