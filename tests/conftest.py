"""Which gunicorns the tests talk to.

A cell of the matrix is a worker on a transport, with a parser, a gunicorn and a Python. The quick
choice has each value of each axis in some cell; ``--matrix wide``, which CI runs, has every cell of
one Python and some of the others; ``--matrix full`` has every cell.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile

import hypothesis
import pytest
import redis
import trustme
from pairs import connected
from selenium import webdriver
from wire import CHECKOUT, PATIENCE, Client, Server

# A slow machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

WORKERS = {
    "thread": ("gunicorn_expect.Worker", "gthread"),
    "gevent": ("gunicorn_expect.GeventWorker", "gevent"),
    "sync": ("gunicorn_expect.workers.sync.Worker", "sync"),
}
TRANSPORTS = ["tcp", "unix", "tls", "proxy-v1", "proxy-v2"]
PARSERS = ["python", "fast"]
GUNICORNS = ["newest", "oldest"]

#: Where `make` puts other gunicorns and other Pythons.
INSTALLED = CHECKOUT / ".venv"


def other_pythons():
    """Give the version and the interpreter of each other Python that `make` has set up."""
    return {
        folder.name: folder / "bin" / "python"
        for folder in sorted(INSTALLED.joinpath("pythons").glob("3.*"))
        if folder.joinpath("ready").exists()
        if folder.name != "{}.{}".format(*sys.version_info)
    }


PYTHONS = {"current": pathlib.Path(sys.executable), **other_pythons()}


@dataclasses.dataclass(frozen=True)
class Cell:
    worker: str = "thread"
    transport: str = "tcp"
    parser: str = "python"
    gunicorn: str = "newest"
    python: str = "current"

    def __str__(self):
        return "-".join(dataclasses.astuple(self))


QUICK = [
    Cell("thread", "tcp"),
    Cell("gevent", "tcp"),
    Cell("sync", "tcp"),
    Cell("thread", "tls", gunicorn="oldest"),
    Cell("gevent", "tls", "fast"),
    Cell("sync", "tls"),
    Cell("thread", "unix", "fast"),
    Cell("gevent", "unix", gunicorn="oldest"),
    Cell("sync", "proxy-v1", "fast", "oldest"),
    Cell("thread", "proxy-v2"),
    *(
        Cell(worker, transport, python=python)
        for python, worker, transport in zip(
            [python for python in PYTHONS if python != "current"],
            itertools.cycle(["gevent", "thread", "sync"]),
            itertools.cycle(["tls", "tcp"]),
            strict=False,
        )
    ),
]
FULL = [
    Cell(*values) for values in itertools.product(WORKERS, TRANSPORTS, PARSERS, GUNICORNS, PYTHONS)
]
WIDE = [
    cell
    for cell in FULL
    if cell.python == "current"
    or (cell.transport, cell.parser, cell.gunicorn) == ("tls", "python", "newest")
]
MATRICES = {"quick": QUICK, "wide": WIDE, "full": FULL}


def pytest_addoption(parser):
    parser.addoption(
        "--matrix", choices=MATRICES, default="wide" if "CI" in os.environ else "quick"
    )
    parser.addoption(
        "--soak", type=float, default=20, metavar="SECONDS", help="so long for each worker"
    )
    parser.addoption(
        "--differential", type=int, default=50_000, metavar="N", help="streams to compare"
    )
    parser.addoption(
        "--differential-from", type=int, default=0, metavar="SEED", help="seed of the first of them"
    )
    parser.addoption(
        "--thorough", action="store_true", help="all that tests/faults may try, not a choice"
    )
    parser.addoption("--built", metavar="FOLDER", help="test the sdist and the wheel that are here")
    parser.addoption(
        "--write-tables",
        action="store_true",
        help="write what was seen into the pages that have tables of it, and do not compare",
    )


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = MATRICES[metafunc.config.getoption("matrix")]
        if metafunc.definition.get_closest_marker("keeps_alive"):
            cells = [cell for cell in cells if cell.worker != "sync"]  # it closes every connection
        metafunc.parametrize("cell", cells, ids=str, scope="session", indirect=True)


def missing(what, means="make test"):
    """Skip a test that this machine has no means for; CI must not go without it."""
    if "CI" in os.environ:
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed: run {means}")


def gunicorn_at(version):
    """Give the folder of another gunicorn."""
    folder = INSTALLED / "gunicorns" / version
    if not folder.exists():
        missing(f"gunicorn {version}")
    return folder


def oldest_gunicorn():
    requirement = next(
        line.strip()
        for line in CHECKOUT.joinpath("setup.cfg").read_text("utf-8").splitlines()
        if line.strip().startswith("gunicorn>=")
    )
    return requirement.removeprefix("gunicorn>=")


class Certificates:
    """A certificate for localhost, and those who trust it."""

    def __init__(self, folder):
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("localhost", "127.0.0.1")
        self.certificate = str(folder / "certificate.pem")
        self.key = str(folder / "key.pem")
        self.authority = str(folder / "authority.pem")
        self._authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        self._contexts = {}
        issued.private_key_pem.write_to_path(self.key)

    def trust(self, *protocols):
        """Return a client's context; to make one takes longer than a handshake."""
        if protocols not in self._contexts:
            context = self._contexts[protocols] = ssl.create_default_context()
            self._authority.configure_trust(context)
            if protocols:
                context.set_alpn_protocols(protocols)
        return self._contexts[protocols]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def thorough(request):
    return request.config.getoption("thorough")


@pytest.fixture
def kind():
    """Give the kind of the pair; modules that try several have a fixture of their own."""
    return "tcp"


@pytest.fixture
def pair(kind, certificates):
    with connected(kind, certificates) as pair:
        yield pair


@pytest.fixture
def ours(pair):
    return pair[0]


@pytest.fixture
def theirs(pair):
    return pair[1]


@pytest.fixture(scope="session")
def cell(request):
    return request.param


def serve(cell, certificates, worker):
    return Server(
        *("--http-parser", cell.parser),
        worker=worker,
        transport=cell.transport,
        python=PYTHONS[cell.python],
        gunicorn=gunicorn_at(oldest_gunicorn()) if cell.gunicorn == "oldest" else None,
        certificates=certificates,
    )


@pytest.fixture(scope="session")
def server(cell, certificates):
    with serve(cell, certificates, WORKERS[cell.worker][0]) as server:
        yield server


@pytest.fixture(scope="session")
def stock(cell, certificates):
    """The same applications on gunicorn's own worker of that kind."""
    with serve(cell, certificates, WORKERS[cell.worker][1]) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server) as client:
        yield client


@pytest.fixture(scope="session")
def redis_server():
    """Start a redis-server on a unix socket; give its URL."""
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
    """The URL of a redis that holds nothing yet."""
    with redis.from_url(redis_server.removeprefix("redis+")) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            missing(name, "apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    options.accept_insecure_certs = True
    for argument in (
        "--headless",
        "--no-sandbox",  # for root there is none
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        # It is to call nobody but the server.
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
