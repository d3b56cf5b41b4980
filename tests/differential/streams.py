"""Streams of requests by a seed: heads that are valid, nearly valid and broken, and their bodies.

Each line, body and mutation is drawn from the short lists below. They have what some two servers
once read differently. What is repeated in a list is drawn more often.
"""

import dataclasses
import random


def _words(text):
    return text.split()


#: Bytes of a head that both servers receive at once.
RECEIVED_AT_ONCE = 8192

CLIENTS = [
    ("127.0.0.1", 40_000),
    ("127.0.0.1", 40_000),
    ("10.1.2.3", 5),
    ("::1", 40_000, 0, 0),
    "",  # of a unix socket
]
LISTENERS = [("127.0.0.1", 8000), ("127.0.0.1", 8000), ("::1", 443, 0, 0), "/run/server.sock"]

METHODS = _words("""GET GET GET GET POST POST POST PUT HEAD OPTIONS DELETE CONNECT M-SEARCH
    get Get G GE GET# G:T G_T GETGETGETGETGETGETGE GETGETGETGETGETGETGET PROXY PRI""")
TARGETS = _words("""/ /a /a/b /prefix/x?y=z /a?b=c /a?b=c#d /a# /a? /a??b=/? // //a //a/b?c //[
    /a//b /../a /. /a%20b /%c3%a9?%c3%a9 /%zz /% /%00 /%2f%2F /+ /a;b=c;d /~a!$&'()*,:@=- /a\\b
    /<a> /"a" /{a}|^` * CONNECT h:80 h a/b ? #a ?a=b http://h http://h/ http://h/a?b#c HTTP://h:80/a
    http://u@h/a https://h/prefix/a http:///a http://[::1]/a http://[::1/a x://y ://a http:/a
    /http://a""")
VERSIONS = ["HTTP/1.1"] * 16 + ["HTTP/1.0"] * 4
VERSIONS += ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "http/1.1", "HTTP/1.1 ", "HTTP/1", ""]

#: What may be before a request: RFC 9112 section 2.2 has one empty line.
BEFORE = [b""] * 12 + [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" "]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b" \r\n", b""]

NAMES = _words("""Host Host Accept Accept Cookie Cookie X-A X-A x-a Content-Type Content-Type Range
    X-Forwarded-For X_Forwarded_For X-Forwarded-Proto X-Forwarded-Proto X-Forwarded-Ssl
    X-Forwarded-Protocol X_Forwarded_Proto SCRIPT_NAME SCRIPT_NAME Script-Name script_name
    PATH_INFO Path-Info REMOTE_USER Remote-User REMOTE-ADDR Remote_Addr Server-Name HTTPS Proxy
    CONTENT_LENGTH Content_Type Http-Host HTTP_HOST wsgi.input wsgi.url_scheme Upgrade TE Trailer
    Keep-Alive Forwarded !#$%&'*+-.^_`|~0Az X-Ssl Authorization""")
#: Of a head as most clients and proxies send it: each once, with one space.
ORDINARY = _words("""Accept User-Agent Cookie Connection Content-Type X-A x-b X-Forwarded-For
    X-Forwarded-Proto X-Forwarded-Ssl X-Forwarded-Protocol X-Ssl Script-Name Remote-User Path-Info
    Upgrade Expect Authorization Server-Name Remote-Addr Http-Host HTTPS""")
ORDINARY_VALUES = _words(
    "a a,b https https https http on close keep-alive websocket text/plain 100-continue / h:80"
)
ORDINARY_VALUES += ["https", "https", "", "a b", "keep-alive, close", "\xe9"]
BAD_NAMES = ["", "X ", "X\t", " X", "X Y", "X(", "X/", "@"]
BAD_NAMES += ["X\x00", "X\x7f", "X\x80", "\xdf", "\xb5"]
VALUES = _words("""a a b a,b https https http on ssl /prefix /prefix /other / h h:80 127.0.0.1 ::1
    websocket h2c trailers text/plain 0 5 bytes=0-""")
VALUES += ["", "", " ", "\t", "a b", "a\tb", '"a, b"', "\x80\xff\xa0", "\x85", "a\\", "a;b=c"]
BAD_VALUES = ["a\x00b", "a\x0bb", "\x0c", "a\x7f", "\x1f"]
BAD_VALUES += ["a\rb", "a\nb", "\r", "a\r\n b", "\r\n\tb"]
SPACES = [" "] * 12 + ["", "  ", "\t", " \t "]

CONNECTION = _words("""close keep-alive Keep-Alive CLOSE upgrade Upgrade,close keep-alive,close
    close,keep-alive TE closed""")
CONNECTION += ["", "close ", " , close", "keep-alive ,\tClose", "not close"]
EXPECT = ["100-continue"] * 4 + ["100-Continue", "100-continue, 100-continue"]
EXPECT += ["", ", 100-continue,", "200-ok", "100-continue;a=b", "100-continue, x", "\x80"]
LENGTHS = _words("0 00 1 5 05 000005 +5 -5 -0 5.0 5e0 0x5 5_0 5,5 5,6 ,5 99999999999999999999 a 1a")
LENGTHS += ["", " ", "5 ", "\t5", "5 5", "\xb2", "5\xa0", "0" * 5000, "5\x00", "5\r\n 5", "65536"]
CODINGS = _words("""chunked chunked chunked Chunked CHUNKED identity gzip gzip,chunked chunked,gzip
    chunked,chunked identity,chunked chunked,identity deflate,gzip,chunked xchunked chunkedx x-gzip
    trailers chunked;q=1 "chunked" compress""")
CODINGS += ["", " chunked", "chunked ", "\tchunked\t", ",chunked", "chunked,", "gzip, chunked"]
CODINGS += ["chun\x00ked", "\x0bchunked", "chunked\xa0", "\r\n chunked", "chunked\r\n x"]

CONTENT = [b"hello", b"hello", b"", b"a\nb\n", b"\r\n", b"\x00\xff" * 40]
CONTENT += [b"GET /inner HTTP/1.1\r\nHost: inner\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"]
SIZES = ["%x", "%x", "%x", "%X", "0%x", "%x;a", '%x ; a="b c"', "%x;a=b;c", "%x\t;a"]
BAD_SIZES = ["%x ", " %x", "+%x", "-%x", "0x%x", "%x_0", "%xg", "", "%x\r"]
BAD_SIZES += ["%x;", "%x;a b", "%x;\x00"]
TRAILERS = [b"", b"", b"", b"", b"X-T: a\r\n", b"X-T: a\r\nX-U: b\r\n", b"X-T:\r\n"]
TRAILERS += [b"Host: a\r\n", b"X : a\r\n", b" X: a\r\n", b"X: a\r\n b\r\n", b"X\r\n", b"X_T: a\r\n"]
TRAILERS += [b"X: a\n", b"X: " + b"y" * 60 + b"\r\n", b"X-T: a\r\n" * 8]

PROXY_LINES = [
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1000 80\r\n",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 70000 80\r\n",
    b"PROXY TCP4 2001:db8::1 198.51.100.1 1000 80\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1000\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1000 80\n",
    b"proxy TCP4 192.0.2.1 198.51.100.1 1000 80\r\n",
    b"PROXY " + b"a" * 110 + b"\r\n",
]
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
PROXY_PACKETS = [
    _V2 + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 1, 3, 232, 0, 80]),
    _V2 + b"\x21\x11\x00\x0f" + bytes([192, 0, 2, 1, 198, 51, 100, 1, 3, 232, 0, 80]) + b"\4\0\0",
    _V2 + b"\x21\x21\x00\x24" + bytes(range(36)),
    _V2 + b"\x20\x00\x00\x00",
    _V2 + b"\x21\x01\x00\x00",
    _V2 + b"\x21\x12\x00\x0c" + bytes(12),
    _V2 + b"\x11\x11\x00\x0c" + bytes(12),
    _V2 + b"\x21\x11\x00\x04" + bytes(4),
    _V2[:-1] + b"\r",
]

#: The end of every stream: whether and how it is answered shows what was left on the connection.
LAST = b"GET /last?of=all HTTP/1.1\r\nHost: last\r\nX-Last: 1\r\n\r\n"

READS = ["all", "all", "all", "lines", "one", "none", "none"]
RESPONSES = ["length", "length", "pieces", "empty", "write", "204", "304", "short", "long", "file"]
RESPONSES += [
    "hints",
    "fields",
    "fails",
    "fails late",
    "bad field",
    "replaced",
    "empty with length",
]


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a head. Sizes just below and above them are tried."""

    line: int
    fields: int
    field: int
    proxy: str


@dataclasses.dataclass
class Stream:
    """What a client sends, and what the application does with it."""

    seed: int
    client: object
    listener: object
    #: How the application reads and responds, request by request.
    manners: list
    blocks: list
    #: Bytes of the first pieces. The rest comes in pieces of `RECEIVED_AT_ONCE`.
    sizes: list
    #: Bytes after which the client stops sending; None: it sends all.
    end: int | None

    def data(self):
        return b"".join(self.blocks)[: self.end]

    def pieces(self, data):
        pieces = []
        sizes = iter(self.sizes)
        while data:
            size = min(next(sizes, RECEIVED_AT_ONCE), RECEIVED_AT_ONCE)
            pieces.append(data[:size])
            data = data[size:]
        return pieces


def make(seed, limits):
    """Return the stream of a seed, for a server with these limits."""
    draw = _Draw(seed, limits)
    blocks = []
    if limits.proxy != "off" and draw.one_in(1.2):
        blocks.append(draw.of(draw.of([PROXY_LINES, PROXY_PACKETS])))
    for _ in range(draw.of([1, 1, 2, 3])):
        blocks += draw.request()
    blocks.append(LAST)
    size = sum(map(len, blocks))
    return Stream(
        seed,
        draw.of(CLIENTS),
        draw.of(LISTENERS),
        [(draw.of(READS), draw.of(RESPONSES)) for _ in range(8)],
        blocks,
        draw.sizes(blocks),
        draw.below(size) if draw.one_in(6) else None,
    )


class _Draw:
    def __init__(self, seed, limits):
        self._random = random.Random(seed)
        self._limits = limits
        #: How many things are wrong with a request: mostly none or one.
        self._faults = 0

    def below(self, end):
        return int(self._random.random() * end)

    def of(self, things):
        return things[int(self._random.random() * len(things))]

    def one_in(self, often):
        return self._random.random() * often < 1

    def faulty(self, often):
        """Return whether to draw something wrong here."""
        if self._faults and self.one_in(often):
            self._faults -= 1
            return True
        return False

    def around(self, limit):
        """Return a size at a limit, just under it or just over it."""
        return max(0, limit + self.of([-2, -1, 0, 0, 1, 2, 3]))

    def sizes(self, blocks):
        """Return the sizes of the pieces: all at once, each byte, each line, or any sizes."""
        way = self.below(8)
        total = sum(map(len, blocks))
        if way < 4:
            return []
        if way == 4:
            return [1] * min(total, 400)
        if way == 5:
            return [len(block) for block in blocks if block]
        return [1 + self.below(self.of([3, 20, total])) for _ in range(self.of([1, 2, 5]))]

    # Heads.

    def request(self):
        self._faults = self.of([0, 0, 0, 1, 1, 2])
        framing, body = self.body()
        lines = [self.request_line()]
        names = self.ordinary_fields() if self.one_in(2) else self.fields()
        if not self.faulty(8):
            names.insert(self.below(len(names) + 1), b"Host: h")
        for line in framing:
            names.insert(self.below(len(names) + 1), line)
        lines += names
        blocks = [self.of(BEFORE)] if self.faulty(4) else []
        blocks += [line + self.line_end(20) for line in [*lines, b""]]
        if self.faulty(3):
            i = self.below(len(blocks))
            blocks[i] = self.mutated(blocks[i])
        return [*blocks, *body]

    def mutated(self, data):
        """Insert, replace or take away any byte."""
        at = self.below(len(data) + 1)
        byte = bytes([self.below(256)])
        return data[:at] + self.of([byte, byte, b""]) + data[at + self.of([0, 1]) :]

    def request_line(self):
        method = self.of(["GET", "POST", "PUT", "GET", "HEAD"])
        target = self.of(["/a", "/prefix/a?b=c"])
        version = "HTTP/1.0" if self.one_in(8) else "HTTP/1.1"
        if self.one_in(5):
            target = self.of(TARGETS)
        if self.one_in(8):
            method = self.of(METHODS)
        if self.faulty(6):
            version = self.of(VERSIONS)
        if self.faulty(12):
            target = self.mutated(target.encode()).decode("latin-1")
        parts = [method, target, version]
        line = " ".join(parts)
        if self.one_in(12) and self._limits.line:
            line = f"{method} /{{}} {version}"
            line = line.format("a" * (self.around(self._limits.line) - len(line) + 2))
        if self.faulty(12):
            line = self.of(["{}  {} {}", "{} {}  {}", "{}\t{} {}", " {} {} {}", "{} {}"])
            line = line.format(*parts)
        return line.encode("latin-1")

    def fields(self):
        count = self.of([0, 1, 2, 3, 6])
        if self.one_in(12) and self._limits.fields < 200:
            count = self.around(self._limits.fields - 1)
        return [self.field() for _ in range(count)]

    def ordinary_fields(self):
        """Return header fields of which none is unusual, or only one."""
        names = self._random.sample(ORDINARY, self.of([0, 1, 3, 6]))
        lines = [f"{name}: {self.of(ORDINARY_VALUES)}".encode("latin-1") for name in names]
        return [*lines, self.field()] if self.one_in(2) else lines

    def line_end(self, often):
        return self.of(LINE_ENDS) if self.faulty(often) else b"\r\n"

    def field(self):
        kind = self.below(16)
        if kind == 0:
            return self.line("Connection", self.of(CONNECTION))
        if kind == 1:
            return self.line(self.of(["Expect", "Expect", "expect", "EXPECT"]), self.of(EXPECT))
        name, value = self.of(NAMES), self.of(VALUES)
        if self.one_in(40):
            size = self.around(self._limits.field) - len(name) - len(": ") - self.of([0, 2])
            value = "v" * size
        if self.faulty(6):
            name = self.of(BAD_NAMES)
        if self.faulty(6):
            value = self.of(BAD_VALUES)
        if self.faulty(12):
            return name.encode("latin-1")
        return self.line(name, value)

    def line(self, name, value):
        return f"{name}:{self.of(SPACES)}{value}".encode("latin-1")

    # Bodies.

    def body(self):
        """Return the header fields that frame a body, and the body."""
        way = self.below(12)
        content = self.of(CONTENT)
        if way < 4:
            return [], []
        if way < 6:
            return [self.line("Content-Length", f"{len(content)}")], [content]
        if way < 8:
            return [self.line("Transfer-Encoding", "chunked")], self.chunks(content)
        if way == 8:
            return [b"Content-Length: 0"], [content]
        framing = [self.line("Content-Length", self.of(LENGTHS))] if way != 9 else []
        if way != 10:
            framing.append(self.line("Transfer-Encoding", self.of(CODINGS)))
        if self.one_in(4):
            framing.append(self.line("Content-Length", self.of(["5", self.of(LENGTHS)])))
        if self.one_in(4):
            framing.append(self.line("Transfer-Encoding", self.of(CODINGS)))
        return framing, self.of([[content], self.chunks(content)])

    def chunks(self, content):
        at = self.below(len(content) + 1)
        blocks = []
        for piece in filter(None, (content[:at], content[at:])):
            blocks += [self.size_line(len(piece)), piece, self.line_end(9)]
        return [*blocks, self.size_line(0), self.of(TRAILERS) if self.one_in(3) else b"", b"\r\n"]

    def size_line(self, size):
        line = self.of(BAD_SIZES) if self.faulty(9) else self.of(SIZES)
        if self.faulty(20):
            line += ";" + "a" * (self.around(self._limits.field) - len(line))
        text = line % size if "%" in line else line
        return text.encode("latin-1") + b"\r\n"
