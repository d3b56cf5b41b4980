import os
import pathlib

import pytest
from wire import CHECKOUT, Client, Server

#: Where `make` puts the oldest gunicorn that setup.cfg allows, and one that is older still.
GUNICORNS = CHECKOUT / ".venv" / "gunicorns"


def gunicorn_at(version):
    """Give the folder of a gunicorn; CI must not go without it."""
    folder = GUNICORNS / version
    if not folder.exists() and "CI" not in os.environ:
        pytest.skip(f"gunicorn {version} is not installed: run make")
    return folder


def oldest_gunicorn():
    requirement = next(
        line.strip()
        for line in pathlib.Path(CHECKOUT / "setup.cfg").read_text("utf-8").splitlines()
        if line.strip().startswith("gunicorn>=")
    )
    return requirement.removeprefix("gunicorn>=")


@pytest.fixture(scope="session", params=["newest", "oldest"])
def gunicorn(request):
    """Where gunicorn is: the installed one, or the oldest one that we support."""
    return None if request.param == "newest" else gunicorn_at(oldest_gunicorn())


@pytest.fixture(scope="session")
def server(gunicorn):
    with Server(gunicorn=gunicorn) as server:
        yield server


@pytest.fixture(scope="session")
def stock(gunicorn):
    """The same applications on gunicorn's own threaded worker."""
    with Server(gunicorn=gunicorn, worker="gthread") as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server) as client:
        yield client
