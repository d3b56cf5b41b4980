"""A server that does what a test has written for it."""

import socket
import threading

from support import PATIENCE


class ScriptedServer:
    """A server for one connection; a test writes its `converse`."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}/".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.received = b""

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
        """Receive and send on this connection."""
        raise NotImplementedError

    def receive_until(self, client, mark):
        """Receive until these bytes have arrived."""
        while mark not in self.received and (data := client.recv(65536)):
            self.received += data
