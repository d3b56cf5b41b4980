"""Events that tests and the applications in their servers wait for."""

import socket
import threading

from support import PATIENCE


class Switchboard:
    """Named events. Applications set them, and wait for them, over a connection to it."""

    def __init__(self):
        self._events = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _event(self, name):
        # Under a lock: whoever comes first, the one that waits or the one that sets, creates it.
        with self._lock:
            return self._events.setdefault(name, threading.Event())

    def set(self, name):
        self._event(name).set()

    def wait(self, name):
        assert self._event(name).wait(PATIENCE), f"{name} did not happen"

    def happened(self, name):
        return self._event(name).is_set()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)

    def _accept(self):
        while True:
            try:
                application, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(application,), daemon=True).start()

    def _answer(self, application):
        with application, application.makefile() as lines:
            line = lines.readline()
            if not line:
                return  # its worker was killed
            verb, name = line.split()
            if verb == "set":
                self.set(name)
            else:
                self._event(name).wait(PATIENCE)
            application.sendall(b".")
