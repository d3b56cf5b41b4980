"""The applications and the policy of the wire tests, with a count of the bytes that they read."""

import json

from apps import deciding, router
from apps.routes import answer

#: How many bytes of its body were read for each request, by its field X-Case.
COUNTED = {}


class Input:
    """A `wsgi.input` that counts the bytes that its methods return."""

    def __init__(self, body, case):
        self._body = body
        self._case = case
        self.limit = body.limit

    def read(self, *size):
        return self._count(self._body.read(*size))

    def readline(self, *size):
        return self._count(self._body.readline(*size))

    def readlines(self, *hint):
        lines = self._body.readlines(*hint)
        self._count(b"".join(lines))
        return lines

    def readinto(self, buffer):
        size = self._body.readinto(buffer)
        COUNTED[self._case] += size
        return size

    def __iter__(self):
        return self

    def __next__(self):
        return self._count(next(self._body))

    def _count(self, data):
        COUNTED[self._case] += len(data)
        return data


def policy(environ):
    case = environ["HTTP_X_CASE"]
    COUNTED[case] = 0
    environ["wsgi.input"] = Input(environ["wsgi.input"], case)
    return deciding.policy(environ)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/counted":
        return answer(start_response, json.dumps(COUNTED).encode())
    return router.app(environ, start_response)
