"""Dulwich would decode chunks itself, but every server has already done so for wsgi.input."""


def expect_policy(environ):
    environ.pop("HTTP_TRANSFER_ENCODING", None)
