"""Lets system calls of a worker fail, as `let_fail` says."""

import collections
import errno
import os
import select
import selectors
import socket
import threading

#: The error numbers that the next calls of each of these fail with.
NEXT = collections.defaultdict(collections.deque)


def let_fail(name, code, times):
    NEXT[name].extend([getattr(errno, code)] * times)


def may_fail(name):
    if NEXT[name]:
        code = NEXT[name].popleft()
        raise OSError(code, os.strerror(code))


class Epoll:
    """An epoll that fails when it is told to."""

    def __init__(self, *arguments, epoll=select.epoll, **options):
        self._epoll = epoll(*arguments, **options)
        self.fileno = self._epoll.fileno
        self.unregister = self._epoll.unregister
        self.close = self._epoll.close

    def register(self, *arguments):
        may_fail("epoll_ctl")
        return self._epoll.register(*arguments)

    def modify(self, *arguments):
        may_fail("epoll_ctl")
        return self._epoll.modify(*arguments)

    def poll(self, *arguments):
        may_fail("epoll_wait")
        return self._epoll.poll(*arguments)


def install():
    """Do it for what is made from now on."""
    select.epoll = selectors.EpollSelector._selector_cls = Epoll  # noqa: SLF001
    accept = socket.socket.accept
    start = threading.Thread.start

    def failing_accept(sock):
        may_fail("accept")
        return accept(sock)

    def failing_start(thread):
        if NEXT["thread"]:
            NEXT["thread"].popleft()
            raise RuntimeError("can't start new thread")
        start(thread)

    socket.socket.accept = failing_accept
    threading.Thread.start = failing_start
