"""Where tests and the applications that they started wait for each other."""

import socket
import threading

from support import PATIENCE


class Switchboard:
    """Where tests and applications wait for each other, each event under its name."""

    def __init__(self):
        self._events = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _event(self, name):
        # Under a lock: the thread that waits and the one that sets may both come first.
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
