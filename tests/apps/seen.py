"""What has reached an application, and what its policy was asked."""

import os

from apps.deciding import ASKED
from apps.routes import answer, route

#: The request lines that reached an application.
SEEN = []


@route("/seen")
def seen(environ, start_response):
    return answer(start_response, SEEN)


@route("/asked")
def asked(environ, start_response):
    """Tell what the policy was asked, and what has reached an application."""
    return answer(start_response, [ASKED, [line.partition("?")[0] for line in SEEN]])


@route("/asked-by")
def asked_by(environ, start_response):
    return answer(start_response, environ["asked.pid"] == os.getpid())


@route("/peer")
def peer(environ, start_response):
    return answer(start_response, environ.get("REMOTE_ADDR"))
