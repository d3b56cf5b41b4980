"""The policy of the wire tests: it does what the request's field X-Decide says."""

import builtins
import json
import os
import time

from apps.switchboard import tell
from gunicorn_expect import Proceed, Refuse, inline

#: The methods and paths of the requests for which the policy was called.
ASKED = []


def policy(environ):
    ASKED.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
    environ["asked.pid"] = os.getpid()
    word, *rest = environ.get("HTTP_X_DECIDE", "nothing").split(None, 1)
    if "HTTP_X_AT_THE_END" in environ:
        environ["gunicorn_expect.exits"].callback(tell, f"set {environ['HTTP_X_AT_THE_END']}")
    if "HTTP_X_FAIL_AT_THE_END" in environ:
        environ["gunicorn_expect.exits"].callback(fail, environ["HTTP_X_FAIL_AT_THE_END"])
    if "HTTP_X_HINT" in environ:
        environ["wsgi.early_hints"]([("Link", "</style.css>")])
    match word:
        case "nothing":
            return None
        case "proceed":
            return Proceed([("X-Said", "go on")])
        case "refuse":
            status, _, body = rest[0].partition(" ")
            return Refuse(int(status), [("X-Said", "no")], body.encode())
        case "limit":
            environ["wsgi.input"].limit(int(rest[0]))
            return None
        case "raise":
            raise LookupError("no such token")
        case "fail":
            fail(rest[0])
        case "nonsense":
            return json.loads(rest[0])
        case "environ":
            return environ
        case "function":
            return most(5)
        case "class":
            return Refuse
        case "read":
            return Refuse(403, body=environ["wsgi.input"].read())
    raise AssertionError(word)


def fail(name):
    """Raise this error, as if a service that a policy asks had failed."""
    raise getattr(builtins, name)("no such service")


@inline
def inline_policy(environ):
    """Do what X-Decide says; the loop calls it first."""
    if "HTTP_X_SLOWLY" in environ:
        time.sleep(0.1)
    return policy(environ)


def most(size):
    """Return a policy, as a function of another library does, without our mark of a factory."""

    def limited(environ):
        return None

    return limited


def with_one_too_many(environ, start_response):
    """Take one argument more than a policy."""


class Policies:
    @staticmethod
    def strict(environ):
        return Refuse(403)


def policy_by_path(environ):
    """Refuse by the path, or limit by the query, for the tests of counters."""
    if environ["PATH_INFO"] == "/refused-by-policy":
        return Refuse(413)
    if environ["QUERY_STRING"].startswith("limit"):
        environ["wsgi.input"].limit(3)
    return None
