"""A browser never waits: it sends the whole body, and then reads the response."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from support import PATIENCE
from support.matrix import WORKERS
from support.server import Server

CELLS = ["thread tcp", "gevent tcp", "sync tcp", "thread tls"]

#: More than the kernels buffer between a browser and a server that does not read.
FILE_SIZE = 50_000_000

#: A small page arrives completely before the browser has sent the body. Of a large page only the
#: part that fits into the socket buffers arrives; the rest arrives when the browser reads.
PAGE_SIZES = [100, 300_000]

FETCH = """
const [form, done] = [document.forms[0], arguments[0]];
fetch(form.action, {method: "POST", body: form.file.files[0]})
    .then(async (answer) => done([answer.status, await answer.text()]))
    .catch((error) => done(["failed", String(error)]));
"""


@pytest.fixture(scope="module", params=CELLS)
def origin(request, certificates):
    worker, transport = request.param.split()
    scheme = "https" if transport == "tls" else "http"
    with Server(
        worker=WORKERS[worker][0], transport=transport, certificates=certificates
    ) as server:
        yield "{}://{}:{}".format(scheme, *server.address)


@pytest.fixture(scope="module")
def big_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.iso"
    with path.open("wb") as file:
        file.truncate(FILE_SIZE)
    return path


@pytest.fixture(params=PAGE_SIZES)
def upload_page(request, browser, origin, big_file):
    """Show the page with the form, and choose the big file there."""
    browser.get(f"{origin}/upload-page?{request.param}")
    browser.find_element(By.NAME, "file").send_keys(str(big_file))
    return browser


def test_a_script_that_fetches_gets_the_status_and_the_text_of_a_refusal(upload_page):
    status, text = upload_page.execute_async_script(FETCH)
    assert status == 413, text
    assert text.endswith("<h1>Too large</h1>")


def test_a_browser_that_submits_a_form_shows_the_page_of_the_refusal(upload_page):
    upload_page.find_element(By.TAG_NAME, "form").submit()
    WebDriverWait(upload_page, PATIENCE).until(
        lambda page: page.execute_script(
            "return document.title !== 'Upload' && document.readyState === 'complete'"
        ),
        "the browser shows no page",
    )
    assert upload_page.title == "Refused"
    assert upload_page.find_element(By.TAG_NAME, "h1").text == "Too large"
