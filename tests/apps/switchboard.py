"""Events that applications and tests wait for; the tests' end is `support.switchboard`."""

import os
import socket


def tell(what):
    """Tell the test that something happened, or wait until the test says that it did."""
    host, port = os.environ["SWITCHBOARD"].split(":")
    with socket.create_connection((host, int(port))) as board:
        board.sendall(what.encode() + b"\n")
        board.recv(1)
