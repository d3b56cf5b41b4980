"""Lets system calls of a worker fail, as `let_fail` says."""

import collections
import errno
import os
import select
import selectors
import socket
import sys
import threading

#: What the next calls of each of these fail with; 0: this one succeeds.
NEXT = collections.defaultdict(collections.deque)


def let_fail(name, code, times, after=0):
    """Let this system call fail so often, after it has succeeded so often."""
    NEXT[name] = collections.deque([0] * int(after) + [getattr(errno, code)] * int(times))


def may_fail(name):
    code = NEXT[name].popleft() if NEXT[name] else 0
    if code:
        raise OSError(code, os.strerror(code))


class Epoll:
    """An epoll that fails when the test wants it to."""

    def __init__(self, *arguments, epoll=select.epoll, **options):
        self._epoll = epoll(*arguments, **options)
        self.fileno = self._epoll.fileno
        self.poll = self._epoll.poll
        self.unregister = self._epoll.unregister
        self.close = self._epoll.close

    def register(self, *arguments):
        may_fail("epoll_ctl")
        return self._epoll.register(*arguments)

    def modify(self, *arguments):
        may_fail("epoll_ctl")
        return self._epoll.modify(*arguments)


def failing(call, name):
    """Return this method, which fails when the test wants it to."""

    def call_or_fail(self):
        may_fail(name)
        return call(self)

    return call_or_fail


def start_or_fail(thread, start=threading.Thread.start):
    if NEXT["thread"] and NEXT["thread"].popleft():
        raise RuntimeError("can't start new thread")
    start(thread)


def install():
    """Wrap what epoll, accept and threads are called by, for what is made from now on."""
    select.epoll = selectors.EpollSelector._selector_cls = Epoll  # noqa: SLF001
    socket.socket.accept = failing(socket.socket.accept, "accept")
    threading.Thread.start = start_or_fail


def install_in_gevent():
    """Wrap what gevent accepts connections by, too."""
    server = sys.modules.get("gevent.server")
    if server is not None:
        server.StreamServer.do_read = failing(server.StreamServer.do_read, "accept")
