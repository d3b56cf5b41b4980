"""The policy that the wire tests talk to: it does what the request says in X-Decide."""

import json
import os
import time

from apps.switchboard import tell
from gunicorn_expect import Proceed, Refuse, inline

#: What it was asked.
ASKED = []


def policy(environ):
    ASKED.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
    environ["asked.pid"] = os.getpid()
    word, *rest = environ.get("HTTP_X_DECIDE", "nothing").split(None, 1)
    if "HTTP_X_AT_THE_END" in environ:
        environ["gunicorn_expect.exits"].callback(tell, f"set {environ['HTTP_X_AT_THE_END']}")
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


@inline
def inline_policy(environ):
    """Do what the request says in X-Decide, in the loop if it refuses."""
    if "HTTP_X_SLOWLY" in environ:
        time.sleep(0.1)
    return policy(environ)


def most(size):
    """Make a policy, as those of another library: without our mark."""

    def limited(environ):
        return None

    return limited


def with_one_too_many(environ, start_response):
    """Be no policy."""


class Policies:
    @staticmethod
    def strict(environ):
        return Refuse(403)


def policy_by_path(environ):
    """Be the policy of the tests of what is counted."""
    if environ["PATH_INFO"] == "/refused-by-policy":
        return Refuse(413)
    if environ["QUERY_STRING"].startswith("limit"):
        environ["wsgi.input"].limit(3)
    return None
