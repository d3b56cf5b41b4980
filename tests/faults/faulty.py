"""An application that misbehaves as the request says, and that reports on its process."""

import atexit
import os
import pathlib
import signal
import sys
import threading

import gunicorn_expect
from apps.answering import hello
from apps.refusing import refuse_with_body
from apps.routes import answer
from faults import inject
from gunicorn_expect import policies

#: More than a new send buffer holds, so that the worker discards what the client sends meanwhile.
LONG = b"x" * 17_000
#: More than all buffers between a server and a client with a small window.
LARGE = b"x" * 1_500_000

atexit.register(lambda: os.write(1, f"atexit has run in {os.getpid()}\n".encode()))


def app(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


@gunicorn_expect.inline
def exit_inline(environ):
    if environ["PATH_INFO"] == "/exit-in-inline-policy":
        sys.exit(1)


def exit_on_a_thread(environ):
    if environ["PATH_INFO"] == "/exit-in-policy":
        sys.exit(1)


policy = policies.first(exit_inline, exit_on_a_thread)


def unread(environ, start_response):
    return answer(start_response, LONG)


def large(environ, start_response):
    return answer(start_response, LARGE)


def read(environ, start_response):
    return answer(start_response, str(len(environ["wsgi.input"].read())).encode())


def leave(environ, start_response):
    sys.exit(1)


def leave_while_iterated(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"first"
    sys.exit(1)


def fork(environ, start_response):
    """Respond without a length. A child that inherits all files lives as long as this process."""
    ends, held = os.pipe()
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # so that the log ends when the server ends
        os.dup2(null, 2)
        os.close(held)
        signal.alarm(100)  # it must not outlive the tests, whoever else has the other end
        os.read(ends, 1)
        os._exit(0)
    os.close(ends)
    start_response("200 OK", [])
    return [b"forked"]


def state(environ, start_response):
    return answer(
        start_response,
        {
            "pid": os.getpid(),
            "files": len(list(pathlib.Path("/proc/self/fd").iterdir())),
            "threads": threading.active_count(),
        },
    )


def fail(environ, start_response):
    """Make a system call fail as the query says: ``accept*EMFILE*3``."""
    inject.let_fail(*environ["QUERY_STRING"].split("*"))
    return answer(start_response, b"")


ROUTES = {
    "/hello": hello,
    "/unread": unread,
    "/refuse": refuse_with_body,
    "/large": large,
    "/read": read,
    "/exit": leave,
    "/exit-while-iterated": leave_while_iterated,
    "/exit-in-pre-request": hello,
    "/exit-in-post-request": hello,
    "/exit-in-policy": hello,
    "/exit-in-inline-policy": hello,
    "/fork": fork,
    "/state": state,
    "/fail": fail,
}
