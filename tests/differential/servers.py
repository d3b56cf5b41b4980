"""A stream served twice in memory: by our connection, and by the thread worker of gunicorn.

Both serve the same application with the same settings, on an object that acts as the end of a
socket. They are compared exchange by exchange: what the application saw, and what was sent.
"""

import contextlib
import dataclasses
import io
import os
import re

from gunicorn.workers import gthread

from differential.streams import Limits
from gunicorn_expect import host
from gunicorn_expect.answer import KEY
from gunicorn_expect.connection import Connection, Wants
from gunicorn_expect.endpoint import TRUSTS_KEY
from gunicorn_expect.settings import Settings
from gunicorn_expect.transport import READ, Transport
from support import dedent  # noqa: F401  gunicorn's pages are compared, on every Python
from support.connections import service

_OF_ERRORS = {"flush", "write", "writelines"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DATE = re.compile(rb"\r\nDate: [^\r]*(?=\r\n)")

#: Keys that can't be equal: objects of one connection, and keys that only one of the two has.
_OF_THE_SERVER = ("wsgi.input", "wsgi.early_hints", "gunicorn.socket", KEY, TRUSTS_KEY)


@dataclasses.dataclass
class Exchange:
    """One request and its response; either may be missing."""

    #: None: the application was not called.
    environ: dict | None = None
    #: What the application has read, and the name of what a read raised.
    read: bytes = b""
    raised: str | None = None
    #: What the client got, without `Date` and without any ``100 Continue``.
    sent: bytes = b""
    #: What became of the expectation, if there is an upload (ours only).
    state: str | None = None
    #: How the application has answered.
    responds: str | None = None

    def seen(self):
        return self.environ, self.read, self.raised, self.sent


class Application:
    """Reads and responds to each request in the next of these manners, and keeps what it sees."""

    def __init__(self, manners):
        self._manners = manners
        self._number = 0
        self.exchange = Exchange()

    def take(self):
        """Return the exchange that is over, and begin the next one."""
        exchange, self.exchange = self.exchange, Exchange()
        return exchange

    def __call__(self, environ, start_response):
        reads, responds = self._manners[self._number % len(self._manners)]
        self._number += 1
        exchange = self.exchange
        exchange.responds = responds
        exchange.environ = {
            name: value for name, value in environ.items() if name not in _OF_THE_SERVER
        }
        # PEP 3333 names the methods of wsgi.errors, and not its class.
        exchange.environ["wsgi.errors"] = {*dir(environ["wsgi.errors"])} & _OF_ERRORS
        try:
            self._read(environ["wsgi.input"], reads)
        except Exception as error:
            exchange.raised = type(error).__name__
            raise
        return _respond(responds, environ, start_response)

    def _read(self, body, how):
        if how == "all":
            self.exchange.read = body.read()
        elif how == "lines":
            for line in body:
                self.exchange.read += line
        elif how == "one":
            self.exchange.read = body.read(1)


def _respond(how, environ, start_response):
    ok, plain = "200 OK", ("Content-Type", "text/plain")
    if how == "length":
        start_response(ok, [plain, ("Content-Length", "5")])
        return [b"hello"]
    if how == "pieces":
        start_response(ok, [plain])
        return iter([b"", b"hel", b"", b"lo"])
    if how in ("empty", "empty with length"):
        # HTTP/1.0 has no chunks: without a length the connection would have to end.
        tells = how != "empty" or environ["SERVER_PROTOCOL"] <= "HTTP/1.0"
        start_response(ok, [("Content-Length", "0")] if tells else [])
        return []
    if how == "write":
        write = start_response(ok, [plain])
        write(b"hel")
        return [b"lo"]
    if how in ("204", "304"):
        start_response(f"{how} Whatever", [("ETag", '"a"')])
        return [b""]
    if how in ("short", "long"):
        start_response(ok, [("Content-Length", "3")])
        return [b"hello"] if how == "long" else [b"h", b"e"]
    if how == "file":
        start_response(ok, [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"hello"), 2)
    if how == "hints":
        environ["wsgi.early_hints"]([("Link", "</a>")])
        start_response(ok, [])
        return [b"hello"]
    if how == "fields":
        fields = [
            ("Connection", "close"),
            ("Set-Cookie", "a"),
            ("set-cookie", " b "),
            ("X", "\xe9"),
        ]
        start_response("299 \xe9", [*fields, ("Transfer-Encoding", "x"), ("Server", "own")])
        return (b"hello",)
    if how == "replaced":
        start_response(ok, [plain])
        try:
            raise KeyError("of the application")
        except KeyError as error:
            start_response("500 Replaced", [], (type(error), error, None))
        return [b"no"]
    return _fail(how, start_response)


def _fail(how, start_response):
    if how == "fails late":
        start_response("200 OK", [])
        return _failing()
    if how == "bad field":
        start_response("200 OK", [("X", "a\nb")])
        raise AssertionError("start_response accepted a bad field")
    raise KeyError("of the application")


def _failing():
    yield b"hello"
    raise KeyError("of the application")


class Server:
    """Our server and gunicorn's, with the same settings. Close it."""

    def __init__(self, settings):
        self.settings = settings
        self._stack = contextlib.ExitStack()
        quiet = {"errorlog": os.devnull, "loglevel": "critical", **settings}
        self._service = self._stack.enter_context(
            service(settings=Settings(expect_warn=False), gunicorn=quiet)
        )
        worker = self._service.worker
        cfg = worker.cfg
        self._service.cfg = host.Snapshot(cfg)
        self._service.most_kept = 1000  # any number: the connection may be kept
        self._stock = gthread.ThreadWorker(1, os.getpid(), [], None, 30, cfg, worker.log)
        self._stack.callback(self._stock.tmp.close)
        self.limits = Limits(
            line=cfg.limit_request_line,
            fields=cfg.limit_request_fields or 100,
            field=cfg.limit_request_field_size or 8190,
            proxy=cfg.proxy_protocol,
        )

    def close(self):
        self._stack.close()

    def ours(self, stream, pieces):
        """Return the exchanges of our connection."""
        application = self._service.application = Application(stream.manners)
        wire = _Wire(pieces)
        connection = Connection(self._service, wire.sock, stream.client, stream.listener)
        connection.transport = wire
        found = []
        wants = connection.advance()
        while wants is not Wants.END:
            if wants is not Wants.ANSWER:
                wire.arrive()
                wants = connection.advance()
                continue
            opened = connection.exchange
            wants = connection.answer()
            exchange = _ended(application.take(), wire.sent)
            exchange.state = opened and opened.state.name
            found.append(exchange)
        return [exchange for exchange in found if exchange.sent or exchange.environ]

    def stock(self, stream, pieces):
        """Return the exchanges of gunicorn's connection."""
        application = self._stock.wsgi = Application(stream.manners)
        sock = _Socket(pieces)
        connection = gthread.TConn(self._stock.cfg, sock, stream.client, stream.listener)
        connection.data_ready = True
        found = []
        keeps = True
        while keeps:
            keeps = self._stock.handle(connection)
            found.append(_ended(application.take(), sock.sent))
        return [exchange for exchange in found if exchange.sent or exchange.environ]


def _ended(exchange, sent):
    data = b"".join(sent)
    sent.clear()
    exchange.sent = _DATE.sub(b"", data.replace(_CONTINUE, b""))
    return exchange


class _Socket:
    """The end of a socket: it receives the pieces one by one, and then the end."""

    def __init__(self, pieces, timeout=None):
        self._pieces = [*reversed(pieces)]
        self._timeout = timeout
        self.sent = []

    def recv(self, size):
        # A piece of a stream is never larger than `size`. A whole stream in one piece may be: so
        # `comparison` finds out what gunicorn makes of it.
        return self._pieces.pop() if self._pieces else b""

    def sendall(self, data):
        self.sent.append(data)

    send = sendall

    def fileno(self):
        return -1

    def gettimeout(self):
        return self._timeout

    def settimeout(self, timeout):
        """Do nothing: nothing waits."""

    setblocking = settimeout

    def shutdown(self, how):
        raise OSError("it has no other end")

    def close(self):
        """Do nothing."""


class _Wire(Transport):
    """The same for our connection, which receives only what has arrived, and never waits."""

    def __init__(self, pieces):
        super().__init__(_Socket([], timeout=0.0))  # it never waits by itself
        self._pieces = [*reversed(pieces)]
        self._here = b""
        self.sent = []
        self.arrive()

    def arrive(self):
        """Make the next piece readable, if there is one."""
        if self._pieces:
            self._here += self._pieces.pop()

    def fileno(self):
        return -1

    def here(self):
        return len(self._here)

    def receive(self, size):
        data, self._here = self._here[:size], self._here[size:]
        return None if not data and self._pieces else data

    def send(self, data, flags=0):
        self.sent.append(bytes(data))
        return len(data)

    def wait(self, events, timeout):
        if events & READ:
            self.arrive()
        return events
