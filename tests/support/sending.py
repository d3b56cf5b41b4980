"""Clients that keep sending while a test does something else."""

import contextlib
import threading

from support import PATIENCE


@contextlib.contextmanager
def sending_on(send, data=b"x", *, every=0.1):
    """Send these bytes again and again, from a thread, until the peer has closed.

    Args:
        send: a function that sends bytes.
        data: the bytes.
        every: seconds between them.

    """
    done = threading.Event()

    def send_on():
        with contextlib.suppress(OSError):
            while not done.wait(every):
                send(data)

    thread = threading.Thread(target=send_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(PATIENCE)
