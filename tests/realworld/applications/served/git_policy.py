"""Dulwich would read the chunks of a body itself, which no server has left in wsgi.input."""


def expect_policy(environ):
    environ.pop("HTTP_TRANSFER_ENCODING", None)
