"""The two tables of the protocol, as data: no I/O.

The first says what becomes of the expectation of a client that sent ``Expect: 100-continue``
(RFC 9110 section 10.1.1). The second says what becomes of its connection after the response.

What follows from the first:

* Only ``PENDING`` ever changes, and it changes once. So at most one ``100 Continue`` is sent, and
  never after the response has started.

And from the second: a connection is kept only if it is certain where the next request begins.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(enum.Enum):
    """The state of a request's expectation."""

    NONE = "the client does not wait: no Expect, or HTTP/1.0, or no body to send"
    PENDING = "the client is waiting; nothing has been sent yet"
    CONTINUED = "a 100 has been sent"
    WAIVED = "the client has sent body bytes without waiting for a 100, so it gets none"
    DECLINED = "the final response has started, and no 100 was sent: the body was not asked for"


class Event(enum.Enum):
    """What can change the state."""

    READ = "the application reads the body, or calls proceed()"
    ARRIVED = "body bytes have arrived"
    RESPOND = "the first byte of the final response is about to be sent"


#: The next state, by state and event. A pair that changes nothing is written out as well.
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


class Rest(enum.Enum):
    """What is left of a request's body when the response starts."""

    NOTHING = "all of it was read, or there was none"
    LITTLE = "little, and most likely here already"
    MUCH = "much, or of unknown size"
    UNASKED = "the client may send it or leave it out: it was declined"
    BROKEN = "reading it failed, so its end is unknown"


class End(enum.Enum):
    """What becomes of a connection after a response."""

    KEEP = "the next request may follow"
    DRAIN = "the rest of the body is read and discarded, then the next request may follow"
    LINGER = "half-close, then discard what still arrives until the client closes"


#: What becomes of a connection, by the rest of the body and by whether the response, the request
#: and the worker allow another request. Every close is in order: a client may have sent more than
#: was read, and a close with unread bytes is a reset (RFC 9112 section 9.6).
ENDS: Final[Mapping[Rest, Mapping[bool, End]]] = {
    Rest.NOTHING: {True: End.KEEP, False: End.LINGER},
    Rest.LITTLE: {True: End.DRAIN, False: End.LINGER},
    Rest.MUCH: {True: End.LINGER, False: End.LINGER},
    Rest.UNASKED: {True: End.LINGER, False: End.LINGER},
    Rest.BROKEN: {True: End.LINGER, False: End.LINGER},
}
