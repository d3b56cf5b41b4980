"""Applications that use `gunicorn_expect.expectation`."""

import socket

from apps.routes import KEY, answer, query, route


@route("/state")
def state(environ, start_response):
    expectation = environ[KEY]
    states = [str(expectation), expectation.pending]
    environ["wsgi.input"].read()
    return answer(start_response, [*states, str(expectation), expectation.state.name])


@route("/decided-after")
def decided_after(environ, start_response):
    """Return the time of the decision before it and after it."""
    seconds = [environ[KEY].decided_after]
    environ["wsgi.input"].read()
    return answer(start_response, [*seconds, environ[KEY].decided_after])


@route("/proceed")
def proceed(environ, start_response):
    environ[KEY].proceed([("X-Node", "7"), ("Location", "http://elsewhere/")])
    environ[KEY].proceed()
    return answer(start_response, environ["wsgi.input"].read())


@route("/proceed-badly")
def proceed_badly(environ, start_response):
    try:
        environ[KEY].proceed([("X-Good", "1"), (query(environ)["name"], query(environ)["value"])])
    except ValueError as error:
        return answer(start_response, [str(error), str(environ[KEY])], "400 Bad Request")
    return answer(start_response, b"accepted")


@route("/proceed-and-refuse")
def proceed_and_refuse(environ, start_response):
    environ[KEY].proceed()
    return answer(start_response, b"no", "403 Forbidden")


@route("/hints")
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</before>")])
    body = environ["wsgi.input"].read()
    environ["wsgi.early_hints"]([("Link", "</after>")])
    return answer(start_response, body)


@route("/hints-and-refuse")
def hints_and_refuse(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</before>")])
    return answer(start_response, b"no", "403 Forbidden")


@route("/nodelay")
def nodelay(environ, start_response):
    environ["wsgi.input"].read(1)
    sock = environ["gunicorn.socket"]
    if sock.family == socket.AF_UNIX:
        return answer(start_response, True)
    return answer(start_response, bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
