"""Reading in other threads while the response is sent."""

import threading
import time

from apps.routes import answer, route


@route("/thread-reads-late")
def thread_reads_late(environ, start_response):
    """Answer, and read in another thread while the response is sent."""
    start_response("200 OK", [("Content-Length", "1000")])
    reader = threading.Thread(target=environ["wsgi.input"].read, daemon=True)
    for number in range(100):
        yield b"%010d" % number
        if number == 0:
            reader.start()


@route("/threads-race")
def threads_race(environ, start_response):
    """Read in four threads at once while the response starts."""
    barrier = threading.Barrier(5)

    def read():
        barrier.wait()
        environ["wsgi.input"].read(1)

    for _ in range(4):
        threading.Thread(target=read, daemon=True).start()
    start_response("200 OK", [("Content-Length", "4")])
    barrier.wait()
    for _ in range(int(environ["QUERY_STRING"])):
        time.perf_counter()
    yield b"body"


@route("/threads")
def threads(environ, start_response):
    return answer(start_response, threading.active_count())
