"""One connection from its first request to its end.

For the workers that serve a connection in one go, sync and gevent. gunicorn's own loops for them
make the parser in the middle of a method, where it can't be told whose requests to make.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from typing import TYPE_CHECKING, Any

from gunicorn import http
from gunicorn import sock as gunicorn_sock
from gunicorn.http import errors

from gunicorn_expect import exchange

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gunicorn.http.message import Request
    from gunicorn.http.parser import Parser

    from gunicorn_expect.worker import Worker

#: The client has gone, as clients do: nothing to report.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


def serve(
    worker: Worker,
    client: socket.socket,
    address: Any,
    handle: Callable[[Request, socket.socket], bool],
    *,
    http2: Callable[..., object] | None = None,
    upgrade: Callable[[Request, Parser, socket.socket, Any], bool] | None = None,
    patience: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> None:
    """Handle the requests of a connection in order, and close it.

    Args:
        worker: who has the configuration, the log and the terms, answers what goes wrong, and
            reads on when the connection is to close and body bytes may be on their way.
        client: the connection, blocking; it becomes a TLS one if the configuration says so.
        address: the peer's.
        handle: answers a request, and tells whether another one may follow. It may also raise
            StopIteration to say that none may, as gunicorn's gevent worker does.
        http2: serves the connection if it turns out to speak HTTP/2, given the bytes it has sent
            as ``preface``. None: it can't.
        upgrade: takes the connection over if an HTTP/1 request asks for HTTP/2, or tells that
            it does not.
        patience: held while a request is waited for; it may end the wait.

    """
    req: Request | None = None
    try:
        if worker.cfg.is_ssl and not isinstance(client, ssl.SSLSocket):
            client = gunicorn_sock.ssl_wrap_socket(client, worker.cfg)
        parser = exchange.adopt(http.get_parser(worker.cfg, client, address), worker.terms)
        if http2 is not None:
            speaks_http2, preface = _preface(worker, client, address)
            if speaks_http2:
                http2(client, address, preface=preface)
                return
            parser.unreader.unread(preface)
        proxied = None
        while True:
            req = None
            with patience():
                req = next(parser)
            if req is None:
                return
            # "A server MAY ignore a received Upgrade header field" (RFC 9110 section 7.8): the
            # body is for the application to ask for.
            if upgrade and not exchange.has_body(req) and upgrade(req, parser, client, address):
                return
            # Said once, at the beginning of the connection.
            proxied = req.proxy_protocol_info = req.proxy_protocol_info or proxied
            if not handle(req, client):
                return
    except (StopIteration, errors.NoMoreData) as error:
        worker.log.debug("Closing connection. %s", error)
    except ssl.SSLError as error:
        worker.log.debug("Error processing SSL request. %s", error)
        if error.args[0] != ssl.SSL_ERROR_EOF:
            worker.handle_error(req, client, address, error)
    except OSError as error:
        if error.errno in _GONE:
            worker.log.debug("Ignoring a client that is gone. %s", error)
        else:
            worker.log.exception("Socket error processing request.")
    except worker.passing:
        raise
    except BaseException as error:  # as gunicorn does: gevent.Timeout is one, too
        if isinstance(error, SystemExit) and worker.must_go:
            raise
        worker.handle_error(req, client, address, error)
    finally:
        exchange.leave(req)
        worker.lingering.close(client)


def _preface(
    worker: Worker,
    client: Any,
    address: Any,
) -> tuple[bool, bytes]:
    """Tell whether a connection speaks HTTP/2, and what was read of it to know."""
    # Not at the top: a gunicorn that has no HTTP/2 is to be refused in words.
    from gunicorn.http2 import negotiation

    if gunicorn_sock.is_http2_negotiated(client):
        return True, b""
    if not negotiation.prior_knowledge_allowed(worker.cfg, address):
        return False, b""
    matched, data = negotiation.read_preface_blocking(client)
    if not matched and negotiation.mismatch_is_error(worker.cfg):
        raise errors.InvalidH2CPreface(data)
    return matched, data
