"""The expectation of one request: what its states are, and what moves it from one to another.

A client that sends ``Expect: 100-continue`` (RFC 9110 section 10.1.1) shows its request head and
waits for a word before it sends the body. This module knows what may be said to it, and when. It
does no I/O: what has to happen on the connection it asks of a `Wire`.

The rules, all of which follow from `TRANSITIONS`:

* Only ``PENDING`` ever changes, and it changes once. So at most one ``100 Continue`` is sent, and
  none behind the first byte of a final response.
* A change and its bytes on the wire are one step. One thread may read the body while another one
  writes the answer; whichever is first decides, and the other one finds it decided.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from gunicorn_expect.fields import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gunicorn_expect.fields import Headers


class State(enum.Enum):
    """What is true of a request's expectation."""

    NONE = "nobody waits: no Expect, or HTTP/1.0, or no body to send"
    PENDING = "the client waits, or will send when its patience ends; nothing has been said"
    CONTINUED = "a 100 has been sent"
    WAIVED = "body bytes came before we said anything; a 100 would say nothing"
    DECLINED = "the first byte of a final response went out first; the body was not asked for"


class Event(enum.Enum):
    """What can happen to it."""

    READ = "the application wants body bytes"
    ARRIVED = "body bytes are already here"
    RESPOND = "the first byte of the final response is about to go out"


#: What each event makes of each state. A pair that changes nothing is written out as well.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.NONE: {
        Event.READ: State.NONE,
        Event.ARRIVED: State.NONE,
        Event.RESPOND: State.NONE,
    },
    State.PENDING: {
        Event.READ: State.CONTINUED,
        Event.ARRIVED: State.WAIVED,
        Event.RESPOND: State.DECLINED,
    },
    State.CONTINUED: {
        Event.READ: State.CONTINUED,
        Event.ARRIVED: State.CONTINUED,
        Event.RESPOND: State.CONTINUED,
    },
    State.WAIVED: {
        Event.READ: State.WAIVED,
        Event.ARRIVED: State.WAIVED,
        Event.RESPOND: State.WAIVED,
    },
    State.DECLINED: {
        Event.READ: State.DECLINED,
        Event.ARRIVED: State.DECLINED,
        Event.RESPOND: State.DECLINED,
    },
}


class UnknownExpectationError(ValueError):
    """The Expect field asks for something other than ``100-continue``."""


def expects_continue(headers: Headers) -> bool:
    """Tell whether the header of a request asks for ``100 Continue``.

    Args:
        headers: pairs of field name, in upper case, and value.

    Raises:
        UnknownExpectationError: one of the expectations is not ``100-continue``.

    Expect is a list (RFC 9110 section 10.1.1), so two lines are read as one line with a comma
    is, "a recipient MUST parse and ignore a reasonable number of empty list elements" (section
    5.6.1.2), and "the Expect field value is case-insensitive".

    """
    expected = False
    for name, value in headers:
        if name == "EXPECT":
            for member in value.split(","):
                expectation = member.strip(" \t")
                if expectation and expectation.lower() != "100-continue":
                    raise UnknownExpectationError(value)
                expected = expected or bool(expectation)
    return expected


class Wire(Protocol):
    """What an expectation asks of its connection.

    All are called with the expectation's lock held and before the final response begins: nobody
    else writes to this connection meanwhile.
    """

    def body_arrived(self) -> bool:
        """Tell, without waiting, whether body bytes are here. OSError: the client is gone."""

    def send_continue(self, headers: Headers) -> None:
        """Send ``100 Continue`` with these header fields. OSError: the client is gone."""

    def close_after_response(self) -> None:
        """Make the response say ``Connection: close``, and the connection end with it."""


class Expectation:
    """The expectation of one request, ``environ["gunicorn_expect.expectation"]``.

    Its text is its state in lower case, so that gunicorn's access log can print it:
    ``%({gunicorn_expect.expectation}e)s``.
    """

    __slots__ = ("_decided_after", "_headers", "_lock", "_on_decided", "_opened", "_state", "_wire")

    def __init__(
        self,
        wire: Wire | None = None,
        *,
        arrived: bool = False,
        on_decided: Callable[[Expectation], object] = lambda _: None,
    ) -> None:
        """Open the expectation of a client that waits on this wire; without one, nobody waits.

        Args:
            wire: its connection.
            arrived: body bytes came with the head.
            on_decided: called once, with this expectation, when it is no longer pending; its lock
                is held. It must not raise.

        """
        self._lock = threading.Lock()
        self._wire = wire  # until the final response begins
        self._headers: Headers = ()  # of a 100 for which none are given
        self._state = State.NONE if wire is None else State.PENDING
        self._on_decided = on_decided
        self._opened = time.monotonic()
        self._decided_after: float | None = None
        if arrived:
            self._happen(Event.ARRIVED)

    # What the application may use.

    @property
    def state(self) -> State:
        """What is true of it now."""
        return self._state

    @property
    def pending(self) -> bool:
        """Whether the client still waits for a word."""
        with contextlib.suppress(OSError), self._lock:  # gone: it will be told to who reads
            self._look()
        return self._state is State.PENDING

    @property
    def decided_after(self) -> float | None:
        """Seconds from the request's head to what was decided; None: not yet, or nobody waits."""
        return self._decided_after

    def proceed(self, headers: Headers = ()) -> None:
        """Send ``100 Continue`` now, with these header fields; nothing if nobody waits for it.

        Args:
            headers: pairs of field name and value, both str (RFC 9110 section 15.2: a 1xx
                response may carry fields).

        Raises:
            ValueError: a name or a value that can't be sent. Nothing was sent.
            OSError: the client is gone.

        """
        self._read(checked(headers, "a 100 Continue"))

    def proceed_again(self, headers: Headers = ()) -> None:
        """Send ``100 Continue``, with these header fields, even if one was sent.

        For clients that expect several of them in the course of one request, as those of OpenStack
        Swift do. Nothing is sent if the client expects none, or when the final response has begun.

        Raises: what `proceed` does.
        """
        fields = checked(headers, "a 100 Continue")
        with self._lock:
            if self._state is State.PENDING:
                self._happen(Event.READ, fields)
            elif self._wire is not None:
                self._wire.send_continue(fields or self._headers)

    def set_headers(self, headers: Headers) -> None:
        """Give the header fields of every 100 for which none are given.

        Raises:
            ValueError: a name or a value that can't be sent.

        """
        fields = checked(headers, "a 100 Continue")
        if self._wire is not None:
            self._headers = fields

    def __str__(self) -> str:
        """Give the state in lower case."""
        return self._state.name.lower()

    def __repr__(self) -> str:
        """Give the state, for a debugger."""
        return f"<Expectation {self}>"

    # What happens to it. These are called for the application, by its input and by the gate.

    def on_read(self) -> None:
        """Say 100 if the client waits for it. OSError: the client is gone."""
        # No lock for the reads after the first: nothing leads back to PENDING.
        if self._state is State.PENDING:
            self._read(())

    def on_respond(self) -> None:
        """Note that the next byte sent is the first of the final response.

        Raises:
            OSError: the client left while it waited. It is still pending, and was not declined.

        """
        if self._wire is not None:
            with self._lock:
                try:
                    self._look()
                    self._happen(Event.RESPOND)
                finally:
                    self._wire = None  # nothing more is sent; and the request can be freed

    def _read(self, headers: Headers) -> None:
        with self._lock:
            # "A server MAY omit sending a 100 (Continue) response if it has already received some
            # or all of the content" (RFC 9110 section 10.1.1), and some clients break on one that
            # they no longer wait for.
            self._look()
            self._happen(Event.READ, headers)

    def _look(self) -> None:
        if self._state is State.PENDING and self._wire is not None and self._wire.body_arrived():
            self._happen(Event.ARRIVED)

    def _happen(self, event: Event, headers: Headers = ()) -> None:
        state = TRANSITIONS[self._state][event]
        if self._wire is None or state is self._state:
            return
        try:
            if state is State.CONTINUED:
                self._wire.send_continue(headers or self._headers)
            elif state is State.DECLINED:
                self._wire.close_after_response()
        finally:
            self._decided_after = time.monotonic() - self._opened
            # Last: who sees the new state without the lock relies on its bytes being sent.
            # And always: half a 100 that failed must not be followed by another one.
            self._state = state
            self._on_decided(self)


#: The expectation of every request whose client does not wait. It never changes.
NOBODY_WAITS: Final = Expectation()
