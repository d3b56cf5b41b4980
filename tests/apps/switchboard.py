"""Events that applications and tests wait for; `support.switchboard` is the tests' side."""

import os
import socket


def tell(what):
    """Set an event of the test, ``tell("set NAME")``, or wait for one, ``tell("wait NAME")``."""
    host, port = os.environ["SWITCHBOARD"].split(":")
    with socket.create_connection((host, int(port))) as board:
        board.sendall(what.encode() + b"\n")
        board.recv(1)
