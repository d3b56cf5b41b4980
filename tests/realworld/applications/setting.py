"""A virtual environment for an application and gunicorn, and what clients see of an upload."""

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from support import CHECKOUT, PATIENCE
from support.server import Server

SERVED = Path(__file__).parent / "served"

#: The workers, with gunicorn's arguments for each. ``stock`` is for comparison.
WORKERS = {
    "thread": ("-k", "gunicorn_expect.Worker", "--threads", "8"),
    "gevent": ("-k", "gunicorn_expect.GeventWorker"),
    "sync": ("-k", "gunicorn_expect.Sync"),
    "stock": ("-k", "gthread", "--threads", "8"),
}

#: curl's arguments for the one user that all these applications have.
ADA = ("--user", "ada:letmein")

#: Seconds that a program may take: to push 20 MB on a busy machine, for example.
LONG = 600


class Environment:
    """A virtual environment with an application, its client, gunicorn and this package."""

    def __init__(self, folder, packages):
        self.folder = Path(folder)
        if not self.folder.joinpath("made").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", self.folder, timeout=LONG)
            self._install(*packages)
            # MLflow asks for an older gunicorn, so pip must not look at both at once.
            self._install("--upgrade", "gunicorn[gevent]>=27")
            self.folder.joinpath("made").touch()
        self._install("--force-reinstall", "--no-deps", CHECKOUT)

    def _install(self, *arguments):
        self.run("python", "-m", "pip", "--quiet", "install", *arguments, timeout=1800)

    def program(self, name):
        return str(self.folder / "bin" / name)

    def run(self, name, *arguments, **how):
        """Run a program that is installed there; return what it prints."""
        return run(self.program(name), *arguments, **how)

    def python(self, code, *arguments, **how):
        return self.run("python", "-W", "ignore", "-c", code, *arguments, **how)

    def version(self, package):
        return self.python(
            "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))",
            package,
        ).strip()

    def serve(self, worker, app, *arguments, **env):
        """Start gunicorn with that worker and this application."""
        command = [self.program("python"), "-m", "gunicorn", *WORKERS[worker], *arguments, app]
        return Server.of(command, env={"PYTHONPATH": str(SERVED), **env}, cwd="/")


class FailedError(Exception):
    """A program exited with a code other than 0; the message is its last lines."""


def run(*command, env=None, timeout=LONG, **how):
    """Run this and return what it prints; raise `FailedError` with its last lines if it fails."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | (env or {})
    done = subprocess.run(
        list(map(str, command)),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **how,
    )
    if done.returncode != 0:
        raise FailedError(done.stdout.strip()[-2000:])
    return done.stdout


def refused(*command, **how):
    """Run a command that must fail; return what it prints."""
    try:
        said = run(*command, **how)
    except FailedError as failure:
        return str(failure)
    raise AssertionError(f"it was not refused: {said}")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What curl received."""

    status: int
    #: How many bytes of the body it sent.
    uploaded: int
    #: How many 100s it got.
    asked: int

    def __str__(self):
        return f"{self.status}, {self.uploaded} bytes sent"


def curl(*arguments):
    """Upload by curl, which waits for a 100; return what it received."""
    said = run(
        *("curl", "--silent", "--show-error", "--include", "--output", os.devnull),
        *("--dump-header", "-", "--expect100-timeout", "60", "--header", "Expect: 100-continue"),
        *("--write-out", "\n%{http_code} %{size_upload}", *arguments),
    )
    status, uploaded = said.splitlines()[-1].split()
    return Answer(int(status), int(uploaded), len(re.findall(r"^HTTP/1\.1 100 ", said, re.M)))


def cut_off(server, method, path, *fields):
    """Send 4 bytes of 100, and half-close; return the status, or "no response"."""
    head = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Length: 100",
        *fields,
        "",
        "this",
    ]
    with server.connect() as sock:
        sock.settimeout(PATIENCE)
        sock.sendall("\r\n".join(head).encode())
        sock.shutdown(1)
        answer = b""
        while b"\r\n" not in answer and (data := sock.recv(4096)):
            answer += data
    return answer.split()[1].decode() if answer else "no response"


def url(server, path=""):
    return "http://{}:{}/{}".format(*server.address, path)


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def random_file(path, size):
    """Make a file that nothing can compress."""
    path.write_bytes(os.urandom(size))
    return path


def found(root, file):
    """Return how many files below a folder have the same content as this one."""
    wanted = digest(file)
    size = file.stat().st_size
    return sum(
        digest(path) == wanted
        for path in Path(root).rglob("*")
        if path.is_file() and path.stat().st_size == size
    )
