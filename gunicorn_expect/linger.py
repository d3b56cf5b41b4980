"""Closing in order."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def close_notify(sock: socket.socket) -> None:
    """Tell a TLS peer that nothing follows; nothing on other sockets. It does not wait.

    "Servers MUST attempt to initiate an exchange of closure alerts with the client before closing
    the connection" (RFC 9112 section 9.8): without it, the peer can't tell the end of a response
    that has no length from one that was cut off.
    """
    if isinstance(sock, ssl.SSLSocket):
        # A peer that is gone, or did not finish its handshake; or one whose own alert did not
        # come yet, which is the rule.
        with contextlib.suppress(OSError, ValueError):
            sock.settimeout(0)
            sock.unwrap()
