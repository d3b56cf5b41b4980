"""A server that sends what a test has written for it, whatever it receives."""

import socket
import threading

from support import PATIENCE


class Scripted:
    """A server for one connection: it sends what a test has written for it."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}/".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.heard = b""

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._thread.join(PATIENCE)
        self._listener.close()

    def _serve(self):
        client, _ = self._listener.accept()
        client.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            self.converse(client)

    def converse(self, client):
        """Receive and send as the test has written it."""
        raise NotImplementedError

    def hear(self, client, mark):
        """Receive until this mark has come."""
        while mark not in self.heard and (data := client.recv(65536)):
            self.heard += data
