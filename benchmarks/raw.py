"""The floor: a Python loop that reads what it is sent from a bare socket, in the same pieces.

``python raw.py [CERTIFICATE KEY]`` prints its port. A client sends the size of what follows as 8
bytes, then that; it is answered ``ok``, and may begin again.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading

from apps import PIECE


def read(connection: socket.socket) -> None:
    """Read uploads until the client leaves."""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := connection.recv(8):
            left = int.from_bytes(head, "big")
            while left:
                left -= len(connection.recv(min(PIECE, left)))
            connection.sendall(b"ok")


def main() -> None:
    """Serve until killed, a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    context = None
    if len(sys.argv) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*sys.argv[1:])
    while True:
        connection, _ = listener.accept()
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        threading.Thread(target=read, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
