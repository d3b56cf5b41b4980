"""What breaks an upload in its middle: a relay that resets connections, a server that is killed."""

import contextlib
import select
import socket
import struct
import threading

from support.matrix import WORKERS
from support.relay import Relay
from support.server import Server

RESET = struct.pack("ii", 1, 0)

#: Size of the relay's send buffer in bytes, for a server that does not read yet. The server's
#: receive buffer holds further bytes: 128 KiB at first, and more when the server reads.
BETWEEN = 256 * 1024


class Site(contextlib.ExitStack):
    """An application on a server that can be killed and started again."""

    def __init__(self, app, folder, worker="thread", **env):
        super().__init__()
        self.folder = folder
        self._app = app
        self._worker = WORKERS[worker][0]
        self._env = {"UPLOAD_FOLDER": str(folder), **env}
        self.start()

    def start(self):
        self.server = self.enter_context(Server(app=self._app, worker=self._worker, env=self._env))
        return self.server

    def kill(self):
        self.server.kill()


class BreakingRelay(Relay):
    """Stands between clients and a server, and breaks off when the clients have sent ``at`` bytes.

    It resets both connections; or with ``kill`` and ``start`` it kills the server and starts it
    again; or with ``stall`` it passes on nothing more until the client leaves.
    """

    hangs_up = True

    def __init__(self, server, at, *, kill=None, start=None, stall=False):
        super().__init__(server)
        self._left = at
        self._kill = kill
        self._start_again = start
        self._stall = stall
        self.broken = threading.Event()
        #: The server has been started again.
        self.mended = threading.Event()

    def _relay(self, client, *kept):
        broken = False
        with client, contextlib.suppress(OSError), self._connect() as server:
            broken = self._carry(client, server)
        if broken and self._start_again:
            self._server = self._start_again()
            self.mended.set()

    def _connect(self):
        if self._server is None:  # another server may use its port by now
            raise ConnectionRefusedError
        server = super()._connect()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BETWEEN)
        return server

    def _carry(self, client, server):
        """Carry until both have ended, or break; return whether it broke."""
        # One thread for both ways: closing a socket does not reset it while another thread reads.
        target = {client: server, server: client}
        while target:
            readable, _, _ = select.select([*target], [], [])
            for source in readable:
                data = source.recv(65536)
                if not data:
                    target.pop(source).shutdown(socket.SHUT_WR)
                    continue
                target[source].sendall(data)
                if source is client and self._is_time(len(data)):
                    self._break(client, server)
                    return True
        return False

    def _is_time(self, size):
        self._left -= size
        return self._left <= 0 and not self.broken.is_set()

    def _break(self, client, server):
        self.broken.set()
        if self._kill:
            self._server = None
            self._kill()
            return
        if self._stall:
            while client.recv(65536):
                pass
            return
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
