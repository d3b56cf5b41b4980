"""A relay between clients and a server that sees the bytes of both."""

import contextlib
import socket
import threading

from support import PATIENCE


class Relay:
    """Stands between clients and a server, and records the bytes that each of them sends."""

    #: Whether it closes connections that clients leave open at the end, as browsers do.
    hangs_up = False

    def __init__(self, server):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._clients = []
        self._sent = []
        self._answered = []
        self._threads = []

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *exception):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self.hangs_up:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def sent_by_clients(self):
        """Return the bytes of each connection, once the clients have closed all of them."""
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
        return self._sent

    def sent_by_server(self):
        """Return the bytes of each connection, in the same order."""
        self.sent_by_clients()
        return self._answered

    def _start(self, target, *arguments):
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._sent.append(bytearray())
            self._answered.append(bytearray())
            self._start(self._relay, client, self._sent[-1], self._answered[-1])

    def _connect(self):
        return socket.create_connection(self._server.address, PATIENCE)

    def _relay(self, client, sent, answered):
        with client, self._connect() as server:
            back = threading.Thread(target=self._pump, args=(server, client, answered))
            back.start()
            self._pump(client, server, sent)
            back.join()

    @staticmethod
    def _pump(source, target, seen):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
