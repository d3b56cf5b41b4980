"""Refusals by the main loop of a worker: of policies that don't wait, for clients that do."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from gunicorn.http import wsgi

from gunicorn_expect import exchange

if TYPE_CHECKING:
    from gunicorn.workers.base import Worker

    from gunicorn_expect.decision import Refuse
    from gunicorn_expect.gate import Gate

#: Seconds after which an inline policy is slow. To look at a head takes a thousandth of this;
#: who takes longer waits for something.
SLOW: Final = 0.05


class Connection(Protocol):
    """A connection that has a request."""

    sock: Any
    client: Any
    server: Any
    parser: Any


class Inline:
    """What asks the inline policy of a worker, and answers for it (main thread)."""

    def __init__(self, worker: Worker, gate: Gate, name: str) -> None:
        """Ask the policy of this gate, whose name is for the log."""
        self._worker: Any = worker
        self._gate = gate
        self._name = name
        self._noticed = False  # that it is slow

    def refuses(self, conn: Connection) -> bool:
        """Refuse the request if the policy does and nobody has to wait for it.

        If not it is for a thread, where the policy is asked again.
        """
        worker = self._worker
        req = conn.parser.ahead
        # The client waits: for what another one has sent of its body a thread may have to wait. The
        # first request of a connection: the answer has all of the send buffer. And with the last
        # one gunicorn ends its worker.
        if (
            not self._gate.has_inline
            or req is None
            or not exchange.is_awaited(req)
            or req.req_number > 1
            or worker.nr + 1 >= worker.max_requests
        ):
            return False
        begun = datetime.datetime.now()  # noqa: DTZ005  gunicorn's own, for its access log
        response: Any
        environ: Any
        try:
            response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, worker.cfg)
        except Exception:  # noqa: BLE001  it fails again on a thread, and is answered there
            return False
        start = time.monotonic()
        refusal = self._gate.ask_inline(environ)
        self._notice(time.monotonic() - start)
        if refusal is None:
            return False
        worker.nr += 1
        try:
            worker.cfg.pre_request(worker, req)
            try:
                self._write(refusal, response, environ)
            finally:
                took = datetime.datetime.now() - begun  # noqa: DTZ005
                worker.log.access(response, req, environ, took)
        except OSError as error:
            worker.log.debug("Ignored a client that left before it was refused: %s", error)
        except Exception as error:  # noqa: BLE001  of a hook
            worker.handle_error(req, conn.sock, conn.client, error)
        finally:
            self._finish(req, environ, response)
        return True

    def _write(self, refusal: Refuse, response: Any, environ: Any) -> None:
        for item in self._gate.refuse(refusal, environ, response.start_response):
            response.write(item)
        response.close()

    def _finish(self, req: Any, environ: Any, response: Any) -> None:
        try:
            self._worker.cfg.post_request(self._worker, req, environ, response)
        except Exception:
            self._worker.log.exception("Exception in post_request hook")

    def _notice(self, seconds: float) -> None:
        if seconds > SLOW and not self._noticed:
            self._noticed = True
            self._worker.log.warning(
                "The inline policy %s took %.0f ms, and all connections waited for it. Without "
                "@gunicorn_expect.inline it runs on a thread",
                self._name,
                seconds * 1000,
            )
