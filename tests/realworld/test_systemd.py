"""The systemd units of examples/deploy, and gunicorn started as the units start it."""

import configparser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest

from support import CHECKOUT, PATIENCE
from support.client import Client, waiting
from support.installed import missing

DEPLOY = CHECKOUT / "examples" / "deploy"
UNITS = ["gunicorn-expect.service", "gunicorn-expect.socket"]

#: Names in the units that the tests replace.
PROGRAM = "/srv/uploads/.venv/bin/gunicorn"
CONFIGURATION = "gunicorn.conf.py"

#: Runs the program in its arguments, with the socket at the number that sd_listen_fds(3) names.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def unit(name):
    """Read a unit. If a name occurs twice, the last one counts."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str
    parser.read(DEPLOY / name, "utf-8")
    return parser


def configured():
    names = {}
    text = DEPLOY.joinpath(CONFIGURATION).read_text("utf-8")
    exec(compile(text, CONFIGURATION, "exec"), names)
    return names


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    program = shutil.which("systemd-analyze") or missing(
        "systemd-analyze", "apt-get install systemd"
    )
    for name in UNITS:
        text = DEPLOY.joinpath(name).read_text("utf-8")
        tmp_path.joinpath(name).write_text(text.replace(PROGRAM, sys.executable), "utf-8")
    result = subprocess.run(
        [program, "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if "Failed to initialize manager" in result.stdout:
        pytest.skip(f"systemd-analyze can't work here: {result.stdout}")
    ours = [line for line in result.stdout.splitlines() if "gunicorn-expect" in line]
    assert (result.returncode, ours) == (0, [])


def test_systemd_waits_longer_than_gunicorn_does():
    stop = int(unit("gunicorn-expect.service")["Service"]["TimeoutStopSec"])
    assert stop > configured()["graceful_timeout"]


def test_the_proxies_and_gunicorn_use_the_socket_that_systemd_opens():
    path = unit("gunicorn-expect.socket")["Socket"]["ListenStream"]
    for name in ("nginx.conf", "haproxy.cfg", "apache.conf", "Caddyfile", CONFIGURATION):
        assert path in DEPLOY.joinpath(name).read_text("utf-8"), name


class Service:
    """gunicorn, started as systemd starts it."""

    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(self._folder / "notify"))
        self._notified.settimeout(PATIENCE)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "http.socket"))
        self._listener.listen()
        command = unit("gunicorn-expect.service")["Service"]["ExecStart"]
        assert command.count(PROGRAM) == command.count(CONFIGURATION) == 1
        command = command.replace(PROGRAM, f"{sys.executable} -m gunicorn")
        command = command.replace(CONFIGURATION, str(DEPLOY / CONFIGURATION))
        inherited = self._listener.fileno()
        self.log = (self._folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, str(inherited), *shlex.split(command)],
            cwd=CHECKOUT,
            env=os.environ
            | {
                "NOTIFY_SOCKET": str(self._folder / "notify"),
                "UPLOAD_FOLDER": str(self._folder / "uploads"),
                "PYTHONPATH": str(CHECKOUT),
                "PYTHONUNBUFFERED": "1",
            },
            pass_fds=[inherited],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()
        self._listener.close()
        self._notified.close()

    def notification(self):
        return self._notified.recv(4096).decode()

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(self._folder / "http.socket"))
        return client


def test_gunicorn_serves_on_the_socket_that_systemd_hands_over(tmp_path):
    with Service(tmp_path) as service:
        with Client(service) as client:  # before gunicorn has started: no client is turned away
            client.send(waiting("PUT /files/a", "Content-Length: 5"))
            assert client.receive_response()[0].startswith(b"HTTP/1.1 401 ")
        assert "READY=1" in service.notification()
        with Client(service) as client:
            token = "Authorization: Bearer letmein"
            client.send(waiting("PUT /files/a", token, "Content-Length: 5"))
            assert client.receive_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hello")
            assert client.receive_response()[0].startswith(b"HTTP/1.1 201 ")
        with Client(service) as client:  # the policy is asked first
            client.send(waiting("PUT /files/a", f"Content-Length: {5 * 1024**3 + 1}"))
            assert client.receive_response()[0].startswith(b"HTTP/1.1 413 ")
    log = tmp_path.joinpath("log").read_text("utf-8")
    seen = re.findall(r'"PUT /files/a HTTP/1\.1" (\d+) .* (\w+)$', log, re.MULTILINE)
    assert sorted(seen) == [("201", "continued"), ("401", "declined"), ("413", "declined")]
