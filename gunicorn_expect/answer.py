"""Answers a request: hooks, policy, application, response, access log, in gunicorn's order.

Written once, for the three workers, for HTTP/1 and HTTP/2, and for a refusal of an inline policy.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import enum
import errno
import functools
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from gunicorn_expect import host
from gunicorn_expect.advice import LATE, Advice
from gunicorn_expect.decision import EXITS_KEY, Proceed, Refuse, ask, close_exits, not_a_decision
from gunicorn_expect.endpoint import TRUSTS_KEY
from gunicorn_expect.errors import BodyError, ClientDisconnected
from gunicorn_expect.exchange import Expectation, Responses, Sender
from gunicorn_expect.plain import PlainHeads
from gunicorn_expect.states import End, State
from gunicorn_expect.transport import DISCARD_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from gunicorn.config import Config
    from gunicorn.workers.base import Worker

    from gunicorn_expect.counters import Counters
    from gunicorn_expect.decision import Policy
    from gunicorn_expect.exchange import Exchange
    from gunicorn_expect.head import Limits
    from gunicorn_expect.settings import Settings

KEY: Final = "gunicorn_expect.expectation"

#: For the access log: bytes of the body that were read, and seconds until the decision.
RECEIVED_KEY: Final = "gunicorn_expect.received"
DECIDED_KEY: Final = "gunicorn_expect.decided_after"

#: Bytes of a refusal that every system takes without waiting for the client to read: Linux begins
#: with a send buffer of 16 KiB (tcp(7), tcp_wmem), and the head needs some of it.
SENT_AT_ONCE: Final = 8192

#: The errors of a client that has left: nothing to report.
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)

#: The fields of a client that knows 104 (draft-ietf-httpbis-resumable-upload), and so does not take
#: a 1xx other than 100 for the final response.
_RESUMES: Final = ("HTTP_UPLOAD_COMPLETE", "HTTP_UPLOAD_DRAFT_INTEROP_VERSION")


class OnExit(enum.Enum):
    """What happens when an application raises SystemExit."""

    END_WORKER = "the worker ends, and gunicorn boots another one"
    ANSWER = "the client gets 500"
    CLOSE = "the connection ends, in silence"


@dataclasses.dataclass
class Service:
    """What a worker gives to every request."""

    worker: Worker
    """gunicorn's worker: hooks are called with it, and it has the log."""
    cfg: Config
    """gunicorn's configuration."""
    settings: Settings
    counters: Counters
    head_limits: Limits
    application: WSGIApplication
    policy: Policy | None = None
    inline: Policy | None = None
    """The part of the policy that never waits."""
    multithread: bool = True
    kept: Sized = ()
    """The connections that wait for their next request."""
    most_kept: float = 0
    """How many of them there may be."""
    is_handled: Callable[[Any], bool] | None = None
    """Returns whether the application wrote its response to the socket by itself (gevent only)."""
    on_exit: OnExit = OnExit.END_WORKER
    """What happens on SystemExit: on each worker the same as on gunicorn's."""
    is_exiting: Callable[[], bool] = lambda: False
    """Whether a signal handler of gunicorn has raised SystemExit, which must pass."""
    catches: tuple[type[BaseException], ...] = (Exception, SystemExit)
    """The exceptions of an application that are answered with 500."""
    passes: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    """The exceptions that end the worker or the greenlet, whoever has raised them."""
    advice: Advice = dataclasses.field(init=False)
    scrap: bytearray = dataclasses.field(default_factory=lambda: bytearray(DISCARD_SIZE))
    """The buffer for discarded bytes of any connection: nobody reads it."""
    plain_heads: Callable[[Any], PlainHeads | None] = dataclasses.field(init=False)
    """Returns what parses the plain heads of a listener's address; None: none there is plain."""

    def __post_init__(self) -> None:
        """Make the warnings, none of which was logged yet."""
        # gunicorn names its processes by this: it is the application's "module:name".
        application = self.cfg.default_proc_name.partition(":")[0]
        log, wanted = self.worker.log, self.settings.expect_warn
        self.advice = Advice(log, application, wanted=wanted)
        self.plain_heads = functools.cache(self._plain_heads)

    def _plain_heads(self, listener: Any) -> PlainHeads | None:
        if not host.may_be_plain(self.cfg, listener):
            return None
        return PlainHeads(self.cfg, self.head_limits, listener, multithread=self.multithread)

    def trusts(self, sock: Any) -> bool:
        """Return whether the peer of a socket is a proxy that ``forwarded_allow_ips`` names."""
        try:
            return host.is_trusted(self.cfg, sock.getpeername())
        except OSError:  # it is gone
            return False

    def may_keep(self) -> bool:
        """Count a request; return whether the worker may keep its connection (any thread)."""
        worker = self.worker
        worker.nr += 1
        if worker.nr >= worker.max_requests and worker.alive:
            worker.log.info("Autorestarting worker after current request.")
            worker.alive = False
        return worker.alive and len(self.kept) < self.most_kept


class Way(Sender, Protocol):
    """Where a request came from: a connection, or a stream of HTTP/2."""

    def create(self, request: Any, responses: Responses, /) -> tuple[Any, dict[str, Any]]:
        """Return the response of a request, and its environ."""

    def send_error(self, request: Any, error: BaseException, /) -> None:
        """Send gunicorn's response to an error; nothing if the socket has no room for it."""


@dataclasses.dataclass(slots=True)
class Answer:
    """The answer to one request, on the connection or the stream that it came on."""

    _service: Service
    _request: Any
    """gunicorn's request, with our body."""
    _exchange: Exchange | None
    """Its upload; None: the request has no body."""
    _way: Way
    """Where it came from: it makes the response and the environ."""
    _responses: Responses = dataclasses.field(init=False)
    """The responses of the request, interim and final."""
    _response: Any = dataclasses.field(init=False, default=None)
    _environ: WSGIEnvironment = dataclasses.field(init=False, default_factory=dict)

    def _create(self) -> tuple[Any, WSGIEnvironment]:
        """Return the response of the request, and its environ with our keys."""
        response, environ = self._way.create(self._request, self._responses)
        environ[TRUSTS_KEY] = self._service.trusts
        environ[KEY] = expectation = Expectation(
            self._responses, _RESUMES[0] in environ or _RESUMES[1] in environ
        )
        # gunicorn's own would send them to a client that waits for a 100, too.
        environ["wsgi.early_hints"] = functools.partial(_send_early_hints, expectation)
        return response, environ

    # By the loop.

    def refuse_inline(self) -> bool:
        """Ask the inline policy; return whether it refused, and the refusal was sent (loop).

        If not, the request is for a thread, where the whole policy is asked.
        """
        service = self._service
        exchange = self._exchange
        # Only if the client waits for a 100: otherwise it is sending its body, which somebody may
        # have to wait for. Only the first request of a connection: its response has the whole send
        # buffer. And not the last request of a worker, which ends after it.
        if (
            service.inline is None
            or exchange is None
            or exchange.state is not State.PENDING
            or self._request.req_number > 1
            or service.worker.nr + 1 >= service.worker.max_requests
        ):
            return False
        plain = self._request.environ
        for_the_thread = plain if plain is None else plain.copy()
        refusal = self._ask_inline(service.inline, exchange)
        if refusal is None:
            self._request.environ = for_the_thread
            self._response, self._environ = None, {}  # they would be a cycle of references
            return False
        self.run(refusal)
        return True

    def _ask_inline(self, policy: Policy, exchange: Exchange) -> Refuse | None:
        start = time.monotonic()
        self._responses = exchange
        try:
            is_plain = self._request.environ is not None
            response, environ = self._create()
            if is_plain:  # else a hook may change the request first
                self._response, self._environ = response, environ
            body, environ["wsgi.input"] = environ["wsgi.input"], _Withheld()
            decision = policy(environ)
            environ["wsgi.input"] = body
        except Exception:  # noqa: BLE001  it fails again on a thread, and is answered there
            return None
        self._service.advice.slow_policy(self._service.policy, time.monotonic() - start)
        if isinstance(decision, Refuse) and len(decision.body) <= SENT_AT_ONCE:
            return decision
        return None

    # By a thread, or the loop if a refusal is given.

    def run(self, refusal: Refuse | None = None) -> End:
        """Answer, and return what becomes of the connection. It raises only what ends a worker."""
        service, exchange = self._service, self._exchange
        self._responses = exchange or Responses(self._way)
        try:
            service.cfg.pre_request(service.worker, self._request)
            begun = datetime.datetime.now()  # noqa: DTZ005  gunicorn's own, for its access log
            if self._response is None:
                self._response, self._environ = self._create()
            may_keep = service.may_keep()
            if not may_keep or refusal is not None:  # the loop drains no body
                self._response.force_close()
            if exchange is None or service.policy is None or refusal is not None:
                end = self._respond(refusal, begun, None)
            else:
                end = self._respond_by_policy(begun)
        except BaseException as error:  # noqa: BLE001  what ends a worker is raised again
            self._fail(error)
            return End.LINGER
        self._finish()
        return end

    def _respond_by_policy(self, begun: datetime.datetime) -> End:
        """Respond; then run what the policy has registered for the end of the upload."""
        exits = self._environ[EXITS_KEY] = contextlib.ExitStack()
        try:
            end = self._respond(None, begun, exits)
        except BaseException:
            # Nothing that the policy has registered may hide the error: not by what it returns, and
            # not by what it raises.
            try:
                exits.__exit__(*sys.exc_info())
            except Exception:
                self._service.worker.log.exception("What a policy has registered has failed")
            raise
        close_exits(exits)
        return end

    def _respond(
        self, refusal: Refuse | None, begun: datetime.datetime, exits: contextlib.ExitStack | None
    ) -> End:
        """Send the whole response, and return what becomes of the connection then."""
        service, response = self._service, self._response
        items = self._items(refusal)
        if service.is_handled is not None and service.is_handled(items):
            return End.LINGER
        if exits is not None and isinstance(items, list | tuple | host.FileWrapper):
            # Before the response: a client that has it may begin its next upload at once.
            close_exits(exits)
        try:
            self._send(items)
        finally:
            took = datetime.datetime.now() - begun  # noqa: DTZ005
            if self._exchange is not None:
                self._tell_of_upload(self._exchange)
            service.worker.log.access(response, self._request, self._environ, took)
            if hasattr(items, "close"):
                items.close()
        if self._exchange is not None:
            return self._exchange.end(may_keep=not response.closes)
        return End.LINGER if response.closes else End.KEEP

    def _items(self, refusal: Refuse | None) -> Any:
        """Return the body of the response, from the policy or from the application."""
        service, environ = self._service, self._environ
        try:
            if refusal is None and self._exchange is not None and service.policy is not None:
                refusal = self._ask(service.policy)
            if refusal is None:
                return service.application(environ, self._response.start_response)
        except BodyError as error:
            self._answer_broken(error)
            return ()
        except _NoDecisionError as error:
            # One line and no traceback: its frames hold the environ.
            service.worker.log.error("%s", error)
            self._response.replace("500 Internal Server Error")
            return ()
        service.counters.refused(str(refusal.status))
        self._response.refuse(refusal)
        return [refusal.body] if environ["REQUEST_METHOD"] != "HEAD" else []

    def _ask(self, policy: Policy) -> Refuse | None:
        decision = ask(policy, self._environ)
        if isinstance(decision, Proceed):
            self._environ[KEY].proceed(decision.headers)
        elif isinstance(decision, Refuse):
            return decision
        elif decision is not None:
            raise _NoDecisionError(not_a_decision(policy, decision))
        return None

    def _send(self, items: Any) -> None:
        try:
            self._send_items(items)
        except BodyError as error:
            self._answer_broken(error)
            self._response.close()

    def _send_items(self, items: Any) -> None:
        response = self._response
        if isinstance(items, host.FileWrapper):
            response.complete = host.has_number(items)
            response.write_file(items)
        else:
            response.complete = isinstance(items, list | tuple)
            # Otherwise there may be work after the response, such as items.close().
            response.ends_at_once = type(items) in (list, tuple) and not host.has_end_hook(
                self._service.cfg
            )
            for item in items:
                response.write(item)
        if response.status is None and self._exchange is not None:
            self._raise_what_was_swallowed(self._exchange.failure)
        response.complete = True
        response.close()

    def _raise_what_was_swallowed(self, failure: OSError | None) -> None:
        """Raise the error of a read again that the application caught without a response."""
        if not isinstance(failure, BodyError):
            return
        self._service.advice.swallowed(self._request, failure)
        raise copy.copy(failure)

    def _answer_broken(self, error: BodyError) -> None:
        """Send the response of an error that reading the body raised and nobody caught."""
        if self._response.headers_sent:
            raise error
        self._service.worker.log.debug("The body of a request was not received: %s", error)
        self._response.replace(error.status)

    def _tell_of_upload(self, exchange: Exchange) -> None:
        """Set the environ keys of the access log; warn of an upload that was for nothing."""
        self._environ[RECEIVED_KEY] = exchange.received
        if exchange.decided_after is not None:
            self._environ[DECIDED_KEY] = f"{exchange.decided_after:.6f}"
        status = str(self._response.status)
        read_first = exchange.read_first and self._request.body.first_reader is not None
        if read_first and status[:3] in LATE:
            length = self._environ.get("CONTENT_LENGTH") or None
            self._service.advice.late_refusal(self._request, status, length)

    # How it ends.

    def _report_gone(self, error: Exception) -> None:
        log = self._service.worker.log
        if isinstance(error, BodyError) and not isinstance(error, ClientDisconnected):
            log.warning("A response was cut off by %s: %s", type(error).__name__, error)
        elif (
            isinstance(error, ssl.SSLError | host.Http2Error)
            or getattr(error, "errno", None) in _GONE
        ):
            log.debug("Ignoring a client that is gone. %s", error)
        else:
            log.exception("Socket error processing request.")

    def _fail(self, error: BaseException) -> None:
        """Log an exception, and answer 500 if that can still be done.

        If a response broke off, gunicorn logs before it calls ``post_request``, otherwise after.
        """
        log = self._service.worker.log
        gone = error if isinstance(error, OSError | host.Http2Error) else None
        passes = gone is None and self._must_pass(error)
        begun = self._response is not None and self._response.headers_sent
        if begun and gone is None and not passes:
            log.exception("Error handling request")
        self._finish()
        if gone is not None:
            self._report_gone(gone)
        elif passes:
            raise error
        elif isinstance(error, StopIteration):  # gunicorn's way to close in silence
            log.debug("Closing connection. %s", error)
        elif not begun:
            self._answer_failure(error)

    def _must_pass(self, error: BaseException) -> bool:
        """Return whether this ends the worker, or the greenlet, whatever was sent."""
        service = self._service
        return (
            not isinstance(error, service.catches)
            or isinstance(error, service.passes)
            or (isinstance(error, SystemExit) and service.is_exiting())
        )

    def _answer_failure(self, error: BaseException) -> None:
        """Answer 500 for an application that failed before anything was sent."""
        if isinstance(error, SystemExit) and self._ends_worker():
            raise error
        if isinstance(error, SystemExit) and self._service.on_exit is OnExit.CLOSE:
            return
        with contextlib.suppress(BodyError):
            self._responses.respond()
        self._way.send_error(self._request, error)

    def _ends_worker(self) -> bool:
        """Return whether SystemExit ends the worker."""
        service = self._service
        return service.is_exiting() or service.on_exit is OnExit.END_WORKER

    def _finish(self) -> None:
        worker = self._service.worker
        response, environ = self._response, self._environ
        self._response, self._environ = None, {}  # they would be a cycle of references
        if self._exchange is not None:
            if self._service.counters.enabled:
                self._service.counters.received(self._exchange.received)
            status = str(response and response.status)
            if status.startswith("2") and self._request.body.first_reader is None:
                length = environ.get("CONTENT_LENGTH")
                self._service.advice.lost_body(self._request, self._exchange, status, length)
        try:
            self._service.cfg.post_request(worker, self._request, environ, response)
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and self._ends_worker():
                raise
            worker.log.exception("Exception in post_request hook")


class _NoDecisionError(Exception):
    """A policy has returned something other than a decision."""


class _Withheld:
    """``wsgi.input`` of an inline policy. It can't be read, because the policy must not wait."""

    def limit(self, size: int) -> None:
        """Do nothing: the policy is called again on a thread, and limits the body there."""


def _send_early_hints(expectation: Expectation, headers: Any) -> None:
    """Send a 103, if one may be sent now. Its names and values may be bytes, as in gunicorn."""
    expectation.inform(103, [(_text(name), _text(value)) for name, value in headers])


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
