"""A server that says what a test has written for it, whatever it hears."""

import socket
import threading

from support import PATIENCE


class Scripted:
    """A server of one connection that is no server: it says what a test has written for it."""

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
        """Hear and say it all."""
        raise NotImplementedError

    def hear(self, client, mark):
        """Hear on until this has been said."""
        while mark not in self.heard and (data := client.recv(65536)):
            self.heard += data
