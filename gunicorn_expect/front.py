"""Where connections wait for a request head, in the loop: a thread gets one when its head is whole.

A client may take its time over a head. It costs a connection and the bytes that have come, and no
thread; and no more than a time.
"""

from __future__ import annotations

import math
import operator
import selectors
import socket
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes for one call: what gunicorn's own parser asks for.
PIECE: Final = 8192


class Connection(Protocol):
    """A connection, as the front knows it."""

    sock: socket.socket

    def resume(self) -> bool:
        """Look at what came with the last request; tell as `offer` does."""

    def offer(self, piece: bytes) -> bool:
        """Take what has come; tell whether there is a request, or an error in its place."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has come."""


C = TypeVar("C", bound=Connection)


class Front(Generic[C]):
    """The connections of a worker of which a head is awaited. It is for the thread of the loop."""

    def __init__(
        self,
        poller: selectors.BaseSelector,
        timeout: float,
        *,
        whole: Callable[[C], object],
        late: Callable[[C], object],
        gone: Callable[[C], object],
        failed: Callable[[C], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with none.

        Args:
            poller: of the loop.
            timeout: seconds that a head may take; 0: any.
            whole: called with a connection that has a request, or an error in its place.
            late: called with one whose time is up.
            gone: called with one that the client has left, or has sent its last byte on.
            failed: called with one that is no longer here, while the error is handled that it or
                one of these has raised.
            clock: seconds.

        """
        self._poller = poller
        self._timeout = timeout or math.inf
        self._whole = whole
        self._late = late
        self._gone = gone
        self._failed = failed
        self._clock = clock
        # The first to be due comes first. Of a plain dict that is not found in one step, when many
        # before it were deleted.
        self._deadlines: OrderedDict[C, float] = OrderedDict()

    def take(self, conn: C) -> None:
        """Read what is here of its next head, and wait for the rest if need be."""
        self._step(conn, self._begin)

    def _begin(self, conn: C) -> None:
        if conn.resume():
            self._whole(conn)
            return
        if self._read(conn):
            return
        self._poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_readable, conn))
        self._deadlines[conn] = self._clock() + self._timeout

    def _step(self, conn: C, step: Callable[[C], object]) -> None:
        """Let an error end the connection that it is about, and not the loop."""
        try:
            step(conn)
        except Exception:  # noqa: BLE001  it is handled by who made us
            if conn in self._deadlines:
                self._forget(conn)
            self._failed(conn)

    def due_in(self) -> float:
        """Give the seconds until `expire` has something to do; math.inf: never."""
        for deadline in self._deadlines.values():
            return max(0.0, deadline - self._clock())
        return math.inf

    def expire(self) -> None:
        """Let those go whose time is up."""
        now = self._clock()
        while self._deadlines:
            conn = next(iter(self._deadlines))
            if now < self._deadlines[conn]:
                break
            self._forget(conn)
            self._step(conn, self._late)

    def hurry(self, seconds: float) -> None:
        """Wait so long at most for those that have sent nothing: the worker stops."""
        latest = self._clock() + seconds
        for conn, deadline in self._deadlines.items():
            if not conn.has_begun:
                self._deadlines[conn] = min(deadline, latest)
        self._deadlines = OrderedDict(sorted(self._deadlines.items(), key=operator.itemgetter(1)))

    def _on_readable(self, conn: C, _: object) -> None:
        if conn in self._deadlines:
            self._step(conn, partial(self._read, forget=True))

    def _read(self, conn: C, *, forget: bool = False) -> bool:
        """Read what is here; tell whether that ends the waiting."""
        try:
            piece = conn.sock.recv(PIECE, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            piece = b""
        if piece and not conn.offer(piece):
            return False
        if forget:
            self._forget(conn)
        (self._whole if piece else self._gone)(conn)
        return True

    def _forget(self, conn: C) -> None:
        del self._deadlines[conn]
        self._poller.unregister(conn.sock)
