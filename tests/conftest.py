"""The fixtures that all tests share, and the options of pytest for them."""

import collections
import os
import shutil
import subprocess
import tempfile

import hypothesis
import pytest

from support import PATIENCE
from support.certificates import Certificates
from support.client import Client
from support.installed import gunicorn_at, missing, oldest_gunicorn
from support.matrix import MATRICES, WORKERS
from support.server import Server
from support.socket_pairs import connected

# A test must not fail because the machine is slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption(
        "--matrix", choices=MATRICES, default="wide" if "CI" in os.environ else "quick"
    )
    parser.addoption(
        "--soak", type=float, default=20, metavar="SECONDS", help="how long to load each worker"
    )
    parser.addoption(
        "--differential", type=int, default=50_000, metavar="N", help="streams to compare"
    )
    parser.addoption(
        "--differential-from", type=int, default=0, metavar="SEED", help="seed of the first stream"
    )
    parser.addoption(
        "--thorough", action="store_true", help="try all cases of tests/faults, not a selection"
    )
    parser.addoption(
        "--built", metavar="FOLDER", help="test the sdist and the wheel in this folder"
    )
    parser.addoption(
        "--write-tables",
        action="store_true",
        help="write the tables of the pages from what the tests observe, instead of comparing them",
    )


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = MATRICES[metafunc.config.getoption("matrix")]
        if metafunc.definition.get_closest_marker("keeps_alive"):
            cells = [cell for cell in cells if cell.worker != "sync"]  # it closes every connection
        metafunc.parametrize("cell", cells, ids=str, scope="session", indirect=True)


def pytest_terminal_summary(terminalreporter):
    """Print the reasons for which tests were skipped, each with the number of tests."""
    skipped = terminalreporter.getreports("skipped")
    reasons = collections.Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in skipped
    )
    if reasons:
        terminalreporter.section("skipped, and why")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:6,} {reason}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def thorough(request):
    return request.config.getoption("thorough")


@pytest.fixture
def kind():
    """Return the kind of `pair`; modules that try several kinds replace this fixture."""
    return "tcp"


@pytest.fixture
def pair(kind, certificates):
    with connected(kind, certificates) as pair:
        yield pair


@pytest.fixture
def ours(pair):
    """The server's end of the pair."""
    return pair[0]


@pytest.fixture
def theirs(pair):
    """The client's end of the pair."""
    return pair[1]


@pytest.fixture(scope="module", params=WORKERS)
def worker(request):
    """Each kind of worker; modules that test fewer replace this fixture."""
    return request.param


@pytest.fixture(scope="module", params=["tcp", "tls"])
def transport(request):
    """TCP and TLS, which close connections differently; modules that test more replace this."""
    return request.param


@pytest.fixture(scope="session")
def cell(request):
    return request.param


def serve(cell, certificates, worker):
    return Server(
        *("--http-parser", cell.parser),
        worker=worker,
        transport=cell.transport,
        gunicorn=gunicorn_at(oldest_gunicorn()) if cell.gunicorn == "oldest" else None,
        certificates=certificates,
    )


@pytest.fixture(scope="session")
def server(cell, certificates):
    with serve(cell, certificates, WORKERS[cell.worker][0]) as server:
        yield server


@pytest.fixture(scope="session")
def stock(cell, certificates):
    """A server with the same applications on gunicorn's own worker of that kind."""
    with serve(cell, certificates, WORKERS[cell.worker][1]) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server) as client:
        yield client


@pytest.fixture(scope="session")
def redis_server():
    """Start a redis-server on a unix socket; yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server", "make realworld")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = f"{folder}/socket"
        with subprocess.Popen(
            [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                log = "".join(iter(lambda: _until_ready(process.stdout), ""))
                assert os.path.exists(path), log  # noqa: PTH110
                yield f"redis+unix://{path}"
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)


def _until_ready(lines):
    line = lines.readline()
    return "" if "eady to accept connections" in line else line


@pytest.fixture
def shared(redis_server):
    """The URL of an empty redis."""
    import redis

    with redis.from_url(redis_server.removeprefix("redis+")) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            missing(name, "apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    options.accept_insecure_certs = True
    for argument in (
        "--headless",
        "--no-sandbox",  # the sandbox does not work for root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        # It must connect only to the test's server.
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"])) as browser:
        browser.set_page_load_timeout(PATIENCE)
        browser.set_script_timeout(PATIENCE)
        yield browser
