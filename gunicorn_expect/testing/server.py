"""A real gunicorn, started for a test and stopped after it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

#: Seconds for it to start, or to stop: enough for a large application on a slow machine.
PATIENCE: Final = 60.0


class GunicornServer:
    """A gunicorn on an address of the system's choice: a context manager."""

    def __init__(
        self,
        app: str,
        *arguments: str,
        policy: str | None = None,
        worker: str = "gunicorn_expect.Worker",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Serve this application; it can import what the test can.

        Args:
            app: as on gunicorn's command line, "module:callable".
            arguments: of gunicorn's command line.
            policy: "module:callable", as in ``expect_policy``.
            worker: gunicorn's ``worker_class``.
            env: added to the environment, such as ``{"GUNICORN_EXPECT_BODY_TIMEOUT": "1"}``.

        """
        self._command = [sys.executable, "-m", "gunicorn", "-k", worker, *arguments, app]
        self._env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
            **({} if policy is None else {"GUNICORN_EXPECT_POLICY": policy}),
            **(env or {}),
        }
        #: Host and port, once it has started.
        self.address: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def url(self) -> str:
        """Its address as a URL without a path."""
        return "http://{}:{}".format(*self.address)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text("utf-8", "replace")

    def __enter__(self) -> GunicornServer:
        """Start it.

        Raises:
            RuntimeError: it does not start. The message ends with its log.

        """
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gunicorn-"))
        self._log = Path(folder, "log")
        with self._log.open("wb") as log, socket.create_server(self.address) as listener:
            self.address = listener.getsockname()
            command = [*self._command, "--bind", f"fd://{listener.fileno()}", "--no-control-socket"]
            self._process = subprocess.Popen(  # noqa: S603  the test's own application
                command,
                env=self._env,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(self._stop)
        try:
            self._wait_until_it_serves()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self._stack.close()

    def _wait_until_it_serves(self) -> None:
        """Wait until a worker closes the connection of a client that leaves at once."""
        deadline = time.monotonic() + PATIENCE
        # No worker does so before the application is loaded. If gunicorn ends without one, the
        # connection is reset, and its log says why.
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.address, PATIENCE) as client,
        ):
            client.shutdown(socket.SHUT_WR)
            if client.recv(1) == b"" and self._process.poll() is None:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        code = self._process.poll()
        ended = f"did not start in {PATIENCE:g} s" if code is None else f"ended with {code}"
        raise RuntimeError(f"gunicorn {ended}: {' '.join(self._command)}\n{self.log}")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
