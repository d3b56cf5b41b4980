"""A server of another project, started for a test."""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from support import PATIENCE
from support.client import Client, request
from support.installed import missing

#: Where programs are: /usr/sbin has Debian's servers; Python's folder those of Python packages.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", str(Path(sys.executable).parent)])


class Daemon:
    """A program that serves, with a folder of its own."""

    def __init__(self, program):
        self._program = program

    def __enter__(self):
        found = shutil.which(self._program, path=PATH)
        if found is None:
            missing(self._program, "make realworld")
        self.address = free_address()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daemon-")))
            folder.chmod(0o755)
            self._log = stack.enter_context((folder / "output").open("w+"))
            self.process = subprocess.Popen(
                [found, *self._arguments(folder)],
                env=os.environ  # Caddy saves its configuration there
                | dict.fromkeys(["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"], str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
            stack.callback(self._end)
            self._wait_until_it_listens()
            if Path(found).name == "traefik":
                self._wait_for_routes()
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self._exits.close()

    def _end(self):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()

    def connect(self):
        return socket.create_connection(self.address, PATIENCE)

    def _arguments(self, folder):
        """Write its configuration into this folder; return its arguments."""
        raise NotImplementedError

    def _wait_until_it_listens(self):
        for _ in range(PATIENCE * 20):
            with socket.socket() as trial:
                if trial.connect_ex(self.address) == 0:
                    return
            if self.process.poll() is not None:
                break
            select.select([], [], [], 0.05)  # until it is tried again
        self._log.seek(0)
        raise AssertionError(f"{self._program}: {self._log.read()}")

    def _wait_for_routes(self):
        """Wait for Traefik, which listens before it has read its routes, and answers 404."""
        for _ in range(PATIENCE * 20):
            with contextlib.suppress(OSError), Client(self) as client:
                client.send(request("PUT /", "Content-Length: 1", "Connection: close"), b"x")
                if not client.receive_head().startswith(b"HTTP/1.1 404 "):
                    return
            select.select([], [], [], 0.05)  # until it is tried again
        raise AssertionError(f"{self._program} has no routes")


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()
