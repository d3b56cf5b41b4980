"""Requests are answered as by stock gunicorn: bytes, order of hooks, arguments, environ, logs."""

import pytest

from stock.comparing import both, exchange, shown, without
from support.client import request

CLOSE = "Connection: close"


def closing(line, *fields):
    return request(line, *fields, CLOSE)


def chunked(*pieces):
    return b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


LAST = closing("GET /hello?last")

REQUESTS = {
    "GET": closing("GET /hello?a=%20b&c", "X-Of-Client: 1", "User-Agent: me", "Referer: /there"),
    "HEAD": closing("HEAD /hello"),
    "OPTIONS *": closing("OPTIONS *"),
    "absolute": closing("GET http://test/hello?absolute"),
    "path": closing("GET /%68ello%2fthere;x?y"),
    "fields": closing("GET /hello", "X-A: 1", "x-a: 2", "X_A: 3", "Cookie: a=1", "Cookie: b=2"),
    "basic": closing("GET /hello", "Authorization: Basic bWU6c2VjcmV0"),
    "HTTP/1.0": request("GET /hello HTTP/1.0"),
    "HTTP/1.0 kept": request("GET /hello HTTP/1.0", "Connection: keep-alive") + LAST,
    "without Host": b"GET /hello HTTP/1.0\r\n\r\n",
    "kept": request("GET /hello") + LAST,
    "three": request("GET /hello?1") + request("HEAD /generator") + LAST,
    "POST": closing("POST /read", "Content-Length: 5", "Content-Type: text/plain") + b"hello",
    "POST unread": closing("POST /hello", "Content-Length: 5") + b"hello",
    "POST without length": closing("POST /read"),
    "POST empty": closing("POST /read", "Content-Length: 0"),
    "POST kept": request("POST /read", "Content-Length: 5") + b"hello" + LAST,
    "POST unread kept": request("POST /hello", "Content-Length: 5") + b"hello" + LAST,
    "POST HTTP/1.0": request("POST /read HTTP/1.0", "Content-Length: 5") + b"hello",
    "POST lines": closing("POST /read-lines", "Content-Length: 6") + b"a\nb\nc\n",
    "chunked": closing("POST /read", "Transfer-Encoding: chunked") + chunked(b"hel", b"lo"),
    "chunked kept": request("POST /read", "Transfer-Encoding: chunked") + chunked(b"hello") + LAST,
    "chunked unread": request("POST /hello", "Transfer-Encoding: chunked")
    + chunked(b"hello")
    + LAST,
    "trailers": closing("POST /read", "Transfer-Encoding: chunked", "Trailer: X-Sum")
    + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "generator": closing("GET /generator"),
    "generator kept": request("GET /generator") + LAST,
    "generator HTTP/1.0": request("GET /generator HTTP/1.0", "Connection: keep-alive"),
    "generator HEAD": closing("HEAD /generator"),
    "list without length": closing("GET /list-without-length"),
    "write": closing("GET /write"),
    "empty": closing("GET /empty"),
    "start late": closing("GET /start-late"),
    "204": request("GET /status?204+No+Content") + LAST,
    "304": request("GET /status?304+Not+Modified") + LAST,
    "205": closing("GET /status?205+Reset+Content"),
    "204 with body": closing("GET /status-with-body?204+No+Content"),
    "304 with body": closing("GET /status-with-body?304+Not+Modified"),
    "no reason": closing("GET /status?200"),
    "bad status": closing("GET /status?OK"),
    "too long": closing("GET /too-long"),
    "too short": closing("GET /too-short"),
    "says close": request("GET /hop-by-hop?close") + LAST,
    "says keep-alive": request("GET /hop-by-hop?keep-alive") + LAST,
    "several fields": closing("GET /several-fields"),
    "bad field": closing("GET /bad-field"),
    "bad name": closing("GET /bad-name"),
    "404": closing("GET /none"),
    "405": closing("GET /status?405+Method+Not+Allowed"),
    "fail": request("GET /fail"),
    "fail with body": request("POST /fail", "Content-Length: 5") + b"hello",
    "fail after start": request("GET /fail-after-start"),
    "fail after first byte": request("GET /fail-after-first-byte"),
    "fail in close": request("GET /fail-in-close"),
    "StopIteration": request("GET /stop-iteration"),
    "StopIteration after first byte": request("GET /stop-iteration-after-first-byte"),
    "OSError": request("GET /os-error"),
    "broken pipe": request("GET /broken-pipe"),
    "None": request("GET /nothing"),
    "start twice": request("GET /start-twice"),
    "change after first byte": request("GET /change-after-first-byte"),
    "errors": closing("GET /errors"),
    "hints": closing("GET /hints"),
    "hints HTTP/1.0": request("GET /hints HTTP/1.0"),
    "file": closing("GET /file?0"),
    "file from 100": request("GET /file?100") + LAST,
    "file HEAD": closing("HEAD /file?0"),
    "memory file": closing("GET /memory-file"),
    "pre_request fails": request("GET /pre-request-fails"),
    "post_request fails": closing("GET /post-request-fails"),
    # Errors of the head.
    "nonsense": b"NONSENSE\r\n\r\n",
    "bad method": b"G{}T / HTTP/1.1\r\n\r\n",
    "bad version": b"GET / HTTP/3.1\r\n\r\n",
    "bad field name": request("GET /hello", "X Space: 1"),
    "two lengths": request("POST /read", "Content-Length: 5", "Content-Length: 6"),
    "long line": request("GET /" + "x" * 5000),
    "long field": request("GET /hello", "X: " + "x" * 9000),
    "many fields": request("GET /hello", *(f"X-{i}: 1" for i in range(101))),
    "unknown coding": request("POST /read", "Transfer-Encoding: gzip"),
    "bad scheme": request("GET /hello", "X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"),
    "error behind a request": request("GET /hello") + b"NONSENSE\r\n\r\n",
}


#: Here our gevent worker logs an error, and stock gunicorn's does not: it ignores a StopIteration
#: wherever it is raised.
GEVENTS = {"StopIteration after first byte"}


@pytest.fixture(scope="module", params=["tcp", "tls"])
def servers(worker, request, certificates):
    with both(worker, transport=request.param, certificates=certificates) as servers:
        yield servers


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_as_by_stock_gunicorn(worker, servers, name):
    ours, stock = (shown(server, exchange(REQUESTS[name])) for server in servers)
    if worker == "gevent":  # its stock worker makes one TLS context when it starts
        ours, stock = without("ssl_context", ours), without("ssl_context", stock)
        if name in GEVENTS:
            ours[1].remove("[ERROR] Error handling request")
    assert ours == stock
