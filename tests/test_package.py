"""What a user gets who installs the package."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from wire import CHECKOUT, CONTINUE, Client, Server, waiting

TOKEN = "Authorization: Bearer letmein"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder, CHECKOUT],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    [sdist] = folder.glob("*.tar.gz")
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    sources = {str(x.relative_to(CHECKOUT)) for x in (CHECKOUT / "gunicorn_expect").rglob("*.py")}
    assert set(names) == {*sources, "gunicorn_expect/py.typed"}


def test_the_sdist_holds_the_license_and_the_readme(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "setup.cfg", "pyproject.toml"} <= names


def test_the_wheel_works_in_an_empty_environment(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    pip = [binaries / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", built[1]], check=True, timeout=300)
    tmp_path.joinpath("app.py").write_text(CHECKOUT.joinpath("examples/plain_wsgi.py").read_text())

    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [binaries / "gunicorn", "-k", "gunicorn_expect.Worker", "--threads", "2", "app:app"]
    with Server.of(command, env=env, cwd=tmp_path) as server:
        with Client(server) as client:
            client.send(waiting("PUT /", "Content-Length: 5"))
            assert client.receive_all().startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        with Client(server) as client:
            client.send(waiting("PUT /", "Content-Length: 5", TOKEN))
            assert client.receive(len(CONTINUE)) == CONTINUE
            client.send(b"hello")
            assert client.receive_response()[0].startswith(b"HTTP/1.1 201 Created\r\n")
