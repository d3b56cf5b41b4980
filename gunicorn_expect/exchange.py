"""One upload: what its client expects, what is left of its body, and how both end.

An `Exchange` is opened for each request that has a body. All that happens to the upload goes
through it, by the two tables of ``states.py``: READ when the application wants body bytes, RESPOND
at the first byte of the response, failure, and the end. `Expectation` is the face that the
application sees.

A change and its bytes on the wire are one step, under one lock. One thread may read the body while
another one writes the response; whichever is first decides, and the other one finds it decided.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from gunicorn_expect.errors import BodyError
from gunicorn_expect.fields import checked
from gunicorn_expect.states import ENDS, TRANSITIONS, End, Event, Rest, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gunicorn_expect.fields import Headers

#: Seconds to wait for the rest of an unread body when its connection is to be kept: gunicorn's own
#: time.
DRAIN_TIMEOUT: Final = 5.0


class UnknownExpectationError(ValueError):
    """The Expect field asks for something other than ``100-continue``."""


def expects_continue(values: Iterable[str]) -> bool:
    """Return whether these values of a request's Expect field ask for ``100 Continue``.

    Raises:
        UnknownExpectationError: one of the expectations is not ``100-continue``.

    Expect is a list (RFC 9110 section 10.1.1), so two lines are read as one line with a comma
    is, "a recipient MUST parse and ignore a reasonable number of empty list elements" (section
    5.6.1.2), and "the Expect field value is case-insensitive".

    """
    expected = False
    for value in values:
        for member in value.split(","):
            expectation = member.strip(" \t")
            if expectation and expectation.lower() != "100-continue":
                raise UnknownExpectationError(value)
            expected = expected or bool(expectation)
    return expected


class Sender(Protocol):
    """How interim responses reach a client."""

    def send_interim(self, status: int, headers: Headers) -> bool:
        """Send an interim response at once; return whether the client's protocol has them.

        OSError: the client is gone.
        """


class Wire(Sender, Protocol):
    """How an exchange reaches its client."""

    def arrived(self) -> bool:
        """Return, without waiting, whether body bytes are here. OSError: the client is gone.

        It is called only before `open_body`.
        """

    def open_body(self) -> Framing:
        """Return what reads the body, and finds its end."""


class Framing:
    """Reads a body, and finds its end."""

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        raise NotImplementedError

    @property
    def received(self) -> int:
        """How many bytes of it were read, or read ahead to find its end."""
        raise NotImplementedError

    def read(self, size: int, *, whole: bool = False) -> bytes:
        """Read up to ``size`` bytes, and at least one; ``b""`` at the end of the body.

        Args:
            size: 1 or more.
            whole: wait for as many as possible; otherwise return what has arrived.

        Raises:
            ClientDisconnected: the client left before the end.
            BodyTimeout: the client sends too little.
            MalformedBody: the end can't be found.
            ContentTooLarge: there is more than `limit` allows.

        """
        raise NotImplementedError

    def read_into(self, view: memoryview) -> int:
        """Read as many bytes as this has room for, or fewer; 0 at the end. Raises as `read`."""
        data = self.read(len(view), whole=True)
        view[: len(data)] = data
        return len(data)

    def rest(self) -> Rest:
        """Return, without waiting, what is left; if it is malformed, the next `read` raises."""
        raise NotImplementedError

    def drain(self, deadline: float) -> None:
        """Read and discard the rest, until ``deadline`` by `time.monotonic`; raises as `read`."""

    def follow_up(self) -> None:
        """Expect another chunked body after this one, if this one is chunked."""

    def limit(self, size: float) -> None:
        """Allow at most ``size`` bytes, if the head gave no length."""


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Responses:
    """The responses to one request: interim ones, until the final one starts (any thread)."""

    has_body: ClassVar[bool] = False
    """Whether the request has a body."""

    _wire: Sender | None = None
    """Sends interim responses; without it, none is sent."""
    # Looked up when it is called: gevent patches threading after the import.
    _lock: threading.Lock = dataclasses.field(default_factory=lambda: threading.Lock())
    _started: bool = False
    """Whether the final response has started."""
    state: State = State.NONE
    """What the client expects; without a body, nothing."""
    decided_after: float | None = None
    """Seconds from the request's head to the decision; None: not yet, or no client waited."""

    def inform(self, status: int, headers: Headers, *, force: bool) -> bool:
        """Send an interim response other than 100; return whether it was sent.

        Args:
            status: 102 to 199.
            headers: its header fields.
            force: also to a client that waits for a 100.

        Raises:
            OSError: the client is gone.

        """
        with self._lock:
            self._look()
            if self._started or self._wire is None or (self.state is State.PENDING and not force):
                return False
            return self._wire.send_interim(status, headers)

    def look(self) -> bool:
        """Return whether the client still waits for a 100."""
        return False

    def read(self, headers: Headers = ()) -> None:
        """Do nothing: there is no body to ask the client for."""

    def respond(self) -> bool:
        """Note that the next byte sent is the first of the final response.

        Returns:
            Whether another request may follow.

        """
        with self._lock:
            self._started = True
        return True

    def give_up_body(self) -> bool:
        """Return False: there is no body to discard."""
        return False

    def _look(self) -> None:
        """Note whether body bytes have arrived (with the lock held)."""


class Exchange(Responses):
    """The upload of one request. Its methods may be called from any thread."""

    has_body = True

    __slots__ = (
        "_headers",
        "_most",
        "_on_decided",
        "_on_failed",
        "_opened",
        "_rest",
        "failure",
        "framing",
        "read_first",
        "reading",
    )

    _wire: Wire

    def __init__(
        self,
        wire: Wire,
        *,
        waits: bool,
        on_decided: Callable[[Exchange], object] | None = None,
        on_failed: Callable[[BaseException], object] | None = None,
    ) -> None:
        """Open the exchange of a request whose head is here.

        Args:
            wire: the way to the client.
            waits: the client waits for ``100 Continue``.
            on_decided: called once, with this exchange, when the expectation is no longer pending;
                its lock is held. It must not raise.
            on_failed: called with what a read of the body raised, the first time only. It must not
                raise.

        """
        super().__init__(wire)
        self._headers: Headers = ()  # of a 100 for which none are given
        self._most = math.inf  # bytes of the body
        self._on_decided = on_decided
        self._on_failed = on_failed
        self._opened = time.monotonic()
        self._rest = Rest.BROKEN  # until the response has started
        self.state = State.PENDING if waits else State.NONE
        #: What reads the body; None: nobody has asked for it yet.
        self.framing: Framing | None = None
        #: Held by the thread that reads the body: one at a time.
        self.reading = threading.Lock()
        #: What every further read raises.
        self.failure: OSError | None = None
        #: Whether the application read from the body before the response started.
        self.read_first = False

    @property
    def received(self) -> int:
        """How many bytes of the body were read, or read ahead to find its end."""
        return 0 if self.framing is None else self.framing.received

    # Before the response.

    def look(self) -> bool:
        """Return whether the client still waits for a 100, after a look at the connection."""
        with contextlib.suppress(OSError), self._lock:  # gone: the next read raises
            self._look()
        return self.state is State.PENDING

    def read(self, headers: Headers = ()) -> None:
        """Note that the application wants body bytes: send 100 if the client waits for it.

        Raises:
            OSError: the client is gone.

        """
        with self._lock:
            # "A server MAY omit sending a 100 (Continue) response if it has already received some
            # or all of the content" (RFC 9110 section 10.1.1), and some clients break on one that
            # they no longer wait for.
            self._look()
            self._happen(Event.READ, headers)
            self._open_body()

    def open_body(self) -> Framing:
        """Return what reads the body. The client no longer waits for a 100."""
        with self._lock:
            return self._open_body()

    def limit(self, size: int) -> None:
        """Limit a body whose head gave no length. Of several limits the lowest counts."""
        with self._lock:
            self._most = min(self._most, size)
            if self.framing is not None:
                self.framing.limit(self._most)

    def proceed_again(self, headers: Headers) -> bool:
        """Send 100 even if one was sent; return whether the response has not started yet."""
        with self._lock:
            if self.state is State.PENDING:
                self._happen(Event.READ, headers)
            elif self.state is not State.NONE and not self._started:
                self._wire.send_interim(100, headers or self._headers)
            return not self._started

    def set_headers(self, headers: Headers) -> None:
        """Set the header fields of every 100 for which none are given."""
        self._headers = headers

    # The response.

    def respond(self) -> bool:
        """Note that the next byte sent is the first of the response; later calls change nothing.

        Returns:
            Whether another request may follow, as far as this body goes. If not, the response has
            to say ``Connection: close``.

        Raises:
            ClientDisconnected: the client left while it waited. It was not declined.

        """
        with self._lock:
            if not self._started:
                self.read_first = self.framing is not None
                try:
                    self._look()
                    self._happen(Event.RESPOND)
                    self._rest = self._look_at_the_rest()
                except BodyError as error:
                    self.fail(error)
                    raise
                finally:
                    self._started = True
            return ENDS[self._rest][True] is not End.LINGER

    def end(self, *, may_keep: bool) -> End:
        """Return what becomes of the connection, by the rest of the body when `respond` ran.

        Args:
            may_keep: the response, the request and the worker allow another request.

        """
        return ENDS[self._rest][may_keep]

    # Failure, and the end of the body.

    def fail(self, error: BaseException) -> None:
        """Make every further read raise this.

        An exception that interrupts a read, such as gevent.Timeout, also fails the body: the bytes
        of that read are lost, and a further read would take bytes of the next request for them.
        """
        if self.failure is None and self._on_failed is not None:
            self._on_failed(error)
        self._set_failure(error)

    def _set_failure(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            # A copy: the error itself holds the frames of the reader, with its buffers.
            self.failure = copy.copy(error)
        else:
            self.failure = OSError(f"a read of the body was interrupted by {type(error).__name__}")
        if isinstance(self.failure, BodyError):
            self.failure.partial = b""  # it belongs to the call that failed first

    def raise_failure(self) -> None:
        """Raise what a read of the body has raised, if one has."""
        if self.failure is not None:
            raise copy.copy(self.failure)

    def give_up_body(self) -> bool:
        """Allow the connection to discard the rest of the body; return whether it may.

        It may not while a thread is reading. Every read after this raises an OSError.
        """
        if not self.reading.acquire(blocking=False):
            return False
        if self.failure is None:
            self.failure = OSError(
                "the rest of this body was discarded: the client did not read the response, "
                "which had begun, before it had sent the body"
            )
        self.reading.release()
        return True

    def drain(self) -> bool:
        """Discard the rest of the body within `DRAIN_TIMEOUT`; return whether that worked."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        # A thread of the application may still be reading.
        if not self.reading.acquire(timeout=DRAIN_TIMEOUT):
            return False
        try:
            framing = self.open_body()
            if self.failure is None and not framing.ended:
                framing.drain(deadline)
        except OSError as error:
            self._set_failure(error)
        finally:
            drained = self.failure is None
            self.failure = self.failure or OSError("this request has ended, and its body with it")
            self.reading.release()
        return drained

    # With the lock held.

    def _look(self) -> None:
        if self.state is State.PENDING and self._wire.arrived():
            self._happen(Event.ARRIVED)

    def _open_body(self) -> Framing:
        if self.framing is None:
            self.framing = self._wire.open_body()
            if self._most < math.inf:
                self.framing.limit(self._most)
        return self.framing

    def _happen(self, event: Event, headers: Headers = ()) -> None:
        state = TRANSITIONS[self.state][event]
        if state is self.state or self._started:  # nothing is sent after the response
            return
        try:
            if state is State.CONTINUED:
                self._wire.send_interim(100, headers or self._headers)
        finally:
            self.decided_after = time.monotonic() - self._opened
            # Last: a thread that sees the new state without the lock relies on the 100 being out.
            # And even if sending failed: after half a 100 no other one may follow.
            self.state = state
            if self._on_decided is not None:
                self._on_decided(self)

    def _look_at_the_rest(self) -> Rest:
        if self.state is State.DECLINED:
            return Rest.UNASKED
        framing = self._open_body()
        if framing.ended:
            return Rest.NOTHING
        if not self.reading.acquire(blocking=False):
            return Rest.MUCH  # another thread reads the body
        try:
            return Rest.BROKEN if self.failure else framing.rest()
        finally:
            self.reading.release()


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Expectation:
    """The expectation of one request, ``environ["gunicorn_expect.expectation"]``.

    ``str()`` of it is its state in lower case. So gunicorn's access log can print it:
    ``%({gunicorn_expect.expectation}e)s``.
    """

    _responses: Responses = dataclasses.field(default_factory=Responses)
    """The responses of its request; by default, nobody waits, and nothing is sent."""
    _understands: bool = False
    """Whether the client knows other interim responses than 100 even while it waits for that."""

    @property
    def state(self) -> State:
        """The state of the expectation now."""
        return self._responses.state

    @property
    def pending(self) -> bool:
        """Whether the client still waits for ``100 Continue``.

        This looks at the connection: if body bytes have arrived, the client does not wait any more,
        and the state becomes WAIVED.
        """
        return self._responses.look()

    @property
    def decided_after(self) -> float | None:
        """Seconds from the request headers to the decision; None: not yet, or no client waited."""
        return self._responses.decided_after

    def proceed(self, headers: Headers = ()) -> None:
        """Send ``100 Continue`` now, with these header fields, if the client waits for it.

        Args:
            headers: pairs of field name and value, both str (RFC 9110 section 15.2: a 1xx
                response may carry fields).

        Raises:
            ValueError: a name or a value that can't be sent. Nothing was sent.
            OSError: the client is gone.

        """
        self._responses.read(checked(headers, "a 100 Continue"))

    def inform(self, status: int, headers: Headers = (), *, force: bool = False) -> bool:
        """Send an interim response, such as 104, before the final response has started.

        You may call it as often as you like, before, between and after reads of the body, from any
        thread.

        Args:
            status: 102 to 199, but not 101.
            headers: pairs of field name and value, both str.
            force: send it even if the client waits for ``100 Continue``. Without it, nothing is
                sent to such a client unless its request has the field Upload-Complete or
                Upload-Draft-Interop-Version: some clients take any other 1xx for the final
                response.

        Returns:
            Whether it was sent. Nothing is sent to an HTTP/1.0 client, because HTTP/1.0 has no
            interim responses, or after the final response has started.

        Raises:
            ValueError: another status, or a name or a value that can't be sent. Nothing was sent.
            OSError: the client is gone.

        """
        if not 102 <= status <= 199:
            raise ValueError(
                f"inform() can't send {status}: it sends 102 to 199. For 100, call proceed() or "
                "read the body; for 101 and any final status, call start_response"
            )
        fields = checked(headers, f"a {status}")
        return self._responses.inform(status, fields, force=force or self._understands)

    def __str__(self) -> str:
        """Return the state in lower case."""
        return self._responses.state.name.lower()

    def __repr__(self) -> str:
        """Return the state, for a debugger."""
        return f"<Expectation {self}>"
