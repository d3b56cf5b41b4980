"""A client that sends exactly the bytes that a test wants."""

import re
import socket
import ssl

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def request(line, *fields):
    """Return a request head: ``request("PUT /read", "Content-Length: 5")``."""
    if " HTTP/" not in line:
        line += " HTTP/1.1"
    return "\r\n".join([line, "Host: test", *fields, "", ""]).encode("latin-1")


def waiting(line, *fields):
    """Return a request head with ``Expect: 100-continue``."""
    return request(line, "Expect: 100-continue", *fields)


class Client:
    """A connection for raw bytes, to the first address of a server or to a given one."""

    def __init__(self, server, *address):
        self.socket = server.connect(*address)
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def send(self, *pieces):
        """Send these bytes in one call, so that they arrive together."""
        self.socket.sendall(b"".join(pieces))

    def shut_down(self):
        """Half-close the connection; over TLS, without a close_notify."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def receive(self, size):
        """Receive this many bytes; fewer if the server closes."""
        while len(self.unread) < size and self._more():
            pass
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def receive_until(self, mark):
        while mark not in self.unread and self._more():
            pass
        size = self.unread.find(mark) + len(mark) if mark in self.unread else len(self.unread)
        return self.receive(size)

    def receive_head(self):
        return self.receive_until(b"\r\n\r\n")

    def receive_response(self):
        """Receive a final response with a Content-Length or chunked body; return head and body."""
        head = self.receive_head()
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length:
            return head, self.receive(int(length[1]))
        if b"Transfer-Encoding: chunked" in head:
            body = b""
            while size := int(self.receive_until(b"\r\n") or b"0", 16):
                body += self.receive(size)
                self.receive(2)
            self.receive(2)
            return head, body
        return head, b""

    def receive_all(self):
        """Receive everything until the server closes."""
        while self._more():
            pass
        data, self.unread = self.unread, b""
        return data

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        self.unread += data
        return bool(data)
