"""What OpenStack Swift does: it sends a 100 before each of several bodies."""

import json

from apps.routes import answer, route


@route("/phases")
def phases(environ, start_response):
    """Read as many chunked bodies as the query says, with a 100 before each."""
    body = environ["wsgi.input"]
    body.set_hundred_continue_response_headers([("X-Obj-Multiphase-Commit", "yes")])
    phases = [body.read().decode()]
    body.set_hundred_continue_response_headers([])
    for _ in range(int(environ["QUERY_STRING"]) - 1):
        body.send_hundred_continue_response()
        phases.append(body.read().decode())
    start_response("201 Created", [])
    yield json.dumps(phases).encode()
    body.send_hundred_continue_response()  # too late: nothing is sent


@route("/send-then-read")
def send_then_read(environ, start_response):
    environ["wsgi.input"].send_hundred_continue_response()
    return answer(start_response, environ["wsgi.input"].read())
