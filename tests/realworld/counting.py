"""A relay that counts what crosses it: connections, heads, interim responses and body bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import threading

from support import PATIENCE
from support.relay import Relay


@dataclasses.dataclass
class RelayedExchange:
    """A request head, and what followed it in both directions."""

    head: bytes
    connection: int
    #: Bytes of the body that crossed.
    body: int = 0
    #: The 1xx statuses that went back.
    interim: list[int] = dataclasses.field(default_factory=list)
    status: int | None = None
    answer: bytes = b""
    #: Whether body bytes came while the relay held the 100 back.
    impatient: bool = False
    begun: threading.Event = dataclasses.field(default_factory=threading.Event)
    answered: threading.Event = dataclasses.field(default_factory=threading.Event)
    over: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def asks(self):
        return bool(re.search(rb"(?i)\r\nexpect: *100-continue\r\n", self.head))

    @property
    def waited(self):
        """Whether no body byte came before the 100."""
        return self.interim == [100] and not self.impatient

    @property
    def length(self):
        return length_of(self.head)


def length_of(head):
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
    return int(length[1]) if length else 0


def read_head(reader):
    """Read a head; an empty one is the end of the connection."""
    head = b""
    while line := reader.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


class CountingRelay(Relay):
    """Stands between clients and a server.

    ``answer_first``: pass on the body of a refused request only after the response, as if the
    client were far away. ``hold``: hold a 100 back until body bytes come, but for so many seconds
    at most.
    """

    hangs_up = True

    def __init__(self, server, *, answer_first=False, hold=0):
        super().__init__(server)
        self._answer_first = answer_first
        self._hold = hold
        self.exchanges = []
        self._one_more = threading.Condition()

    def exchange(self, number):
        """Wait until an exchange has begun, counted from 0; return it."""
        with self._one_more:
            assert self._one_more.wait_for(lambda: len(self.exchanges) > number, PATIENCE)
        return self.exchanges[number]

    def finish(self):
        """Wait until each exchange has its response, and its body has come or never will."""
        for exchange in self.exchanges:
            assert exchange.over.wait(PATIENCE), exchange
        return self.exchanges

    @property
    def connections(self):
        """How many connections carried a request."""
        return len({exchange.connection for exchange in self.exchanges})

    def _relay(self, client, *kept):
        ours = []
        with client, self._connect() as server:
            back = threading.Thread(target=self._answers, args=(server, client, ours))
            back.start()
            with contextlib.suppress(OSError):
                self._requests(client, server, ours)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join()
        for exchange in ours:
            exchange.over.set()

    def _requests(self, client, server, ours):
        reader = client.makefile("rb")
        number = self._clients.index(client)
        while head := read_head(reader):
            exchange = RelayedExchange(head, number)
            assert b"chunked" not in head.lower(), head
            ours.append(exchange)
            with self._one_more:
                self.exchanges.append(exchange)
                self._one_more.notify_all()
            server.sendall(head)
            if self._answer_first and not re.search(rb" /(accept|inform)/", head):
                exchange.answered.wait(PATIENCE)
            while exchange.body < exchange.length:
                piece = reader.read1(min(exchange.length - exchange.body, 65536))
                if not piece:
                    return
                exchange.body += len(piece)
                exchange.begun.set()
                server.sendall(piece)
            exchange.answered.wait(PATIENCE)
            exchange.over.set()

    def _answers(self, server, client, ours):
        with contextlib.suppress(OSError):
            reader = server.makefile("rb")
            answered = 0
            while head := read_head(reader):
                exchange = ours[answered]
                status = int(head.split()[1])
                if status < 200:
                    if self._hold and status == 100:
                        exchange.impatient = exchange.begun.wait(self._hold)
                    exchange.interim.append(status)
                    client.sendall(head)
                    continue
                exchange.status, exchange.answer = status, head
                client.sendall(head + reader.read(length_of(head)))
                exchange.answered.set()
                answered += 1
        for exchange in ours:
            exchange.answered.set()
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
