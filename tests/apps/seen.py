"""For which requests the applications and the policy were called."""

import os

from apps.deciding import ASKED
from apps.routes import answer, route

#: The methods and targets of the requests for which an application was called.
SEEN = []


@route("/seen")
def seen(environ, start_response):
    return answer(start_response, SEEN)


@route("/asked")
def asked(environ, start_response):
    """Return for which requests the policy was called, and for which an application."""
    return answer(start_response, [ASKED, [line.partition("?")[0] for line in SEEN]])


@route("/asked-by")
def asked_by(environ, start_response):
    return answer(start_response, environ["asked.pid"] == os.getpid())


@route("/peer")
def peer(environ, start_response):
    return answer(start_response, environ.get("REMOTE_ADDR"))
