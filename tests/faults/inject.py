"""Lets system calls of a worker fail when a test asks for it by `let_fail`."""

import collections
import errno
import os
import select
import selectors
import socket
import sys
import threading

#: By system call, the errors of its next calls; 0: that call succeeds.
NEXT = collections.defaultdict(collections.deque)


def let_fail(name, code, times, after=0):
    """Make a system call succeed ``after`` times, and then fail ``times`` times."""
    NEXT[name] = collections.deque([0] * int(after) + [getattr(errno, code)] * int(times))


def may_fail(name):
    code = NEXT[name].popleft() if NEXT[name] else 0
    if code:
        raise OSError(code, os.strerror(code))


class Epoll:
    """An epoll that fails when the test wants that."""

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
    """Return this method, made to fail when the test wants that."""

    def call_or_fail(self):
        may_fail(name)
        return call(self)

    return call_or_fail


def start_or_fail(thread, start=threading.Thread.start):
    if NEXT["thread"] and NEXT["thread"].popleft():
        raise RuntimeError("can't start new thread")
    start(thread)


def install():
    """Wrap epoll, accept and the start of threads, for objects that are made from now on."""
    select.epoll = selectors.EpollSelector._selector_cls = Epoll  # noqa: SLF001
    socket.socket.accept = failing(socket.socket.accept, "accept")
    threading.Thread.start = start_or_fail


def install_in_gevent():
    """Wrap the method by which gevent accepts connections, too."""
    server = sys.modules.get("gevent.server")
    if server is not None:
        server.StreamServer.do_read = failing(server.StreamServer.do_read, "accept")
