"""The page of examples/upload_page in a real browser: a refusal is shown with its reason."""

import shlex
import sys

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from support import CHECKOUT, PATIENCE
from support.server import Server

COMMAND = "-m gunicorn -k gunicorn_expect.Worker --threads 8 examples.upload_page.app:app"
LIMIT = 30_000_000

DROP = """
const files = new DataTransfer();
files.items.add(new File(["dropped"], "dropped.png", { type: "image/png" }));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: files }));
"""

#: As if the answer to the question had changed since it was asked.
SEND_UNASKED = """
const file = new File([new Uint8Array(arguments[0])], "late.png", { type: "image/png" });
send(file, show(file));
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(folder):
    with Server.of(
        [sys.executable, *shlex.split(COMMAND)],
        env={"UPLOAD_FOLDER": str(folder), "UPLOAD_LIMIT": str(LIMIT)},
        cwd=CHECKOUT,
    ) as server:
        yield server


@pytest.fixture
def page(browser, server):
    browser.get("http://{}:{}/".format(*server.address))
    return browser


def choose(page, path):
    page.find_element(By.ID, "file").send_keys(str(path))


def outcome(page):
    """Wait for what became of the file; give the kind of it, and the words that are shown."""
    row = WebDriverWait(page, PATIENCE).until(
        lambda page: page.find_element(By.CSS_SELECTOR, "#files li[class]"), "nothing came of it"
    )
    return row.get_attribute("class"), row.find_element(By.TAG_NAME, "p").text


def puts(server):
    return [line for line in server.lines if "PUT" in line]


@pytest.mark.parametrize("size", [0, 5, LIMIT])
def test_a_picture_is_stored(page, folder, tmp_path, size):
    picture = tmp_path / f"picture-{size}.png"
    picture.write_bytes(bytes(size))
    choose(page, picture)
    assert outcome(page) == ("stored", f"picture-{size}.png is stored.")
    assert folder.joinpath(picture.name).read_bytes() == bytes(size)


def test_a_file_can_be_dropped(page, folder):
    page.execute_script(DROP)
    assert outcome(page) == ("stored", "dropped.png is stored.")
    assert folder.joinpath("dropped.png").read_bytes() == b"dropped"


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("large.png", LIMIT + 1, "This file is too large: 30 MB is the most."),
        ("letter.txt", 5, "Only pictures and films are taken here."),
        ("a name.png", 5, "Please give the file a plainer name."),
    ],
)
def test_what_is_refused_is_refused_with_its_reason_and_not_sent(
    page, server, tmp_path, name, size, reason
):
    before = puts(server)
    file = tmp_path / name
    file.write_bytes(bytes(size))
    choose(page, file)
    assert outcome(page) == ("refused", reason)
    assert puts(server) == before


def test_the_reason_is_shown_even_where_the_file_was_sent(page):
    page.execute_script(SEND_UNASKED, LIMIT + 20_000_000)
    assert outcome(page) == ("refused", "This file is too large: 30 MB is the most.")
