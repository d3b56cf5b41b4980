"""Interim responses that an application sends with `inform`."""

import hashlib
import threading

from apps.routes import KEY, answer, query, route
from support.characters import EVERY_CHARACTER


@route("/inform")
def inform(environ, start_response):
    """Send a 104 before and after the body; answer which of them were sent."""
    expectation = environ[KEY]
    force = "force" in query(environ)
    sent = [expectation.inform(104, [("Location", "/uploads/7")], force=force)]
    size = len(environ["wsgi.input"].read())
    sent.append(expectation.inform(104, [("Upload-Offset", str(size))]))
    return answer(start_response, sent)


@route("/inform-often")
def inform_often(environ, start_response):
    """Send a 104 for each piece of the body, from another thread while the body is read."""
    expectation, digest = environ[KEY], hashlib.sha256()
    goes_on = threading.Semaphore(0)

    def send():
        for number in range(1, 65):
            goes_on.acquire()
            expectation.inform(104, [("Upload-Offset", str(number * 16384))])

    sender = threading.Thread(target=send)
    sender.start()
    while data := environ["wsgi.input"].read(16384):
        digest.update(data)
        goes_on.release()
    sender.join()
    return answer(start_response, digest.hexdigest().encode())


@route("/inform-late")
def inform_late(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    yield b"7"
    yield str(environ[KEY].inform(104)).encode()  # False


@route("/inform-badly")
def inform_badly(environ, start_response):
    asked = query(environ)
    try:
        environ[KEY].inform(int(asked["status"]), [(asked["name"], asked["value"])])
    except ValueError as error:
        return answer(start_response, str(error), "400 Bad Request")
    return answer(start_response, b"accepted")


@route("/inform-and-fail")
def inform_and_fail(environ, start_response):
    environ[KEY].inform(102)
    raise RuntimeError


@route("/inform-every-character")
def inform_every_character(environ, start_response):
    """Send each character in a field's name or value; answer which of them can't be sent."""
    refused = []
    for number in EVERY_CHARACTER:
        odd = f"x{chr(number)}y"
        field = (odd, str(number)) if environ["QUERY_STRING"] == "name" else (str(number), odd)
        try:
            environ[KEY].inform(104, [field])
        except ValueError:
            refused.append(number)
    return answer(start_response, refused)
